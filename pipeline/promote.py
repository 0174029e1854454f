"""Promote the challenger, or name one: ``python -m pipeline.promote model=PATH to=challenger``."""

from typing import TYPE_CHECKING

from pipeline.cli import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry("promote")
def main(cfg: "DictConfig") -> None:
    """Move the pointer if every gate is open; else say which is closed, and leave it."""
    from pipeline import promotions, registry
    from pipeline.assemble import assemble, load_source
    from pipeline.lock import lock
    from pipeline.mirror import Mirror
    from pipeline.report import champions, terminal
    from stages.base import ConfigError

    why = str(cfg.why or "asked for")
    if cfg.to not in ("champion", "challenger"):
        raise ConfigError(
            f"to={cfg.to} is neither champion nor challenger",
            code="SV-F33",
            where="key to",
            cure="to=champion or to=challenger",
        )
    with terminal.steps(quiet=cfg.json) as step, lock(cfg.root, wait=60):
        digest = registry.digest_at(cfg.root, str(cfg.model or "challenger"))
        if cfg.to == "challenger":
            pointer = registry.challenge(cfg.root, digest, why)
        else:
            promotions.refuse_untried(cfg.root, digest)
            step("reading the data")
            rules, source = assemble(cfg, "promotion"), load_source(cfg)
            terminal.say_source(source)
            step("letting the models speak")
            standing = promotions.stand(cfg.root, source, rules)
            promotions.refuse_closed_gates(standing)
            bar = promotions.newest(source)
            pointer = registry.promote(cfg.root, digest, why, bar)
    if isinstance(tracker := assemble(cfg, "tracking"), Mirror):
        tracker.send(cfg.root)
    champions.show_change(pointer, cfg.json)


if __name__ == "__main__":
    main()
