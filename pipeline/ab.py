"""Compare two models on bars that neither had seen: ``python -m pipeline.ab a=champion b=PATH``."""

from typing import TYPE_CHECKING

from pipeline.cli import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry("ab")
def main(cfg: "DictConfig") -> None:
    """Let both speak, and name a winner only when it is sure; say what a claim needs."""
    from pipeline import registry
    from pipeline.assemble import assemble, load_source
    from pipeline.lock import lock
    from pipeline.promotions import against
    from pipeline.report import champions, terminal

    with terminal.steps(quiet=cfg.json) as step, lock(cfg.root, wait=60):
        test = assemble(cfg, "compare")
        sides = [registry.digest_at(cfg.root, str(name)) for name in (cfg.a, cfg.b)]
        step("reading the data")
        source = load_source(cfg)
        terminal.say_source(source)
        step("letting both speak")
        outcome = against(cfg.root, source, test, *sides)
    champions.show_outcome(outcome, sides, test, cfg.json)


if __name__ == "__main__":
    main()
