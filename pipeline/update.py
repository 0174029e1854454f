"""Learn from matured labels: ``python -m pipeline.update data=parquet data.path=bars.parquet``."""

from typing import TYPE_CHECKING

from pipeline.cli import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry("update")
def main(cfg: "DictConfig") -> None:
    """Load the model, let it learn, store it as a new artifact; the old one stays."""
    from pathlib import Path

    from pipeline import artifacts
    from pipeline.assemble import flag, load_model, load_source, model_folder
    from pipeline.certificates import carry_certificate
    from pipeline.lock import lock
    from pipeline.report import terminal

    champion = flag(cfg, "promote")
    with terminal.steps(quiet=cfg.json) as step:
        step("loading the model")
        old, pipeline = model_folder(cfg), load_model(cfg)
        parent = pipeline.digest
        step("reading the data")
        source = load_source(cfg)
        terminal.say_source(source)
        step("learning")
        counts = pipeline.update(source.bars, source.y)
        step("storing")
        with lock(cfg.root, wait=60):
            facts = terminal.machine() | {"parent": parent, "data": source.digest, **counts}
            model = pipeline.save(Path(cfg.root) / "models", facts)
            carry_certificate(old, model)
            if champion:
                artifacts.promote(cfg.root, pipeline.digest)
    result = {"model": str(model), "parent": parent, **counts}
    if cfg.json:
        terminal.show_json(result)
    else:
        terminal.show_update(counts, model, parent)


if __name__ == "__main__":
    main()
