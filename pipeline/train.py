"""Train, judge and store a pipeline: ``python -m pipeline.train +experiment=quickstart``."""

from typing import TYPE_CHECKING

from pipeline.cli import command_line, entry

if TYPE_CHECKING:
    from omegaconf import DictConfig


EXPLAINED = 250  # rows behind the importance that every run stores


@entry("train")
def main(cfg: "DictConfig") -> None:
    """Fit on the data, evaluate on what was not seen, store, record, promote."""
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig

    from pipeline import artifacts, ledger, recipe
    from pipeline.assemble import assemble, count, flag, load_source
    from pipeline.evaluation import counted, judge
    from pipeline.files import json_bytes, write_atomic
    from pipeline.lock import lock
    from pipeline.overview import overview, store
    from pipeline.report import terminal
    from pipeline.tracking import link_artifact
    from pipeline.unseen import unseen_parts

    resamples, champion = count(cfg, "bootstrap", 2), flag(cfg, "promote")
    folder = Path(HydraConfig.get().runtime.output_dir)
    with terminal.steps(quiet=cfg.json) as step:
        template, split = assemble(cfg, "pipeline"), assemble(cfg, "split")
        record = assemble(cfg, "tracking")
        ledger.read(cfg.root)  # one that was changed is refused before hours are spent
        what = ledger.digest_of(recipe.describe(template), recipe.describe(split))
        step("reading the data")
        source = load_source(cfg)
        terminal.say_source(source)
        step("training")
        parts = unseen_parts(template, source, split)
        judged = {}
        for name, pipeline, rows, y in parts:
            step(f"evaluating {name}")
            said = judge(pipeline, rows, y, source, part=name, resamples=resamples, seed=cfg.seed)
            judged[name] = counted(said, cfg.root, "train", what, source, cfg.seed)
        step("storing")
        evaluation = list(judged.values())[-1]
        pipeline.evaluation_ = evaluation.card()
        with lock(cfg.root, wait=60):
            facts = terminal.machine() | {"data": source.digest}
            model = pipeline.save(Path(cfg.root) / "models", facts)
            digest = pipeline.digest
            if champion:
                artifacts.promote(cfg.root, digest)
        link_artifact(folder, model)
        review = pipeline.quality_.review_
        found = {"data": source.report.as_dict(), "inputs": review.as_dict()}
        write_atomic(folder / "quality.json", json_bytes(found, indent=2))
        step("explaining what drives it")
        store(overview(pipeline, source.bars, most=EXPLAINED, pairs=0), folder)
        trials = {name: said.trial for name, said in judged.items()}
        record(folder, cfg, judged, digest, source.digest, command_line(), trials)
        if cfg.predictions:  # last: a disk that refuses it must not cost the record of the run
            evaluation.write(Path(cfg.predictions))
    if not cfg.json:
        terminal.say("\n".join(review.lines()))
    terminal.show_training(judged, model, folder, source.survivors, cfg.json)


if __name__ == "__main__":
    main()
