"""Give the place back to a former champion: ``python -m pipeline.rollback root=sieve_runs``."""

from typing import TYPE_CHECKING

from pipeline.cli import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry("rollback")
def main(cfg: "DictConfig") -> None:
    """One atomic change of the pointer; no data are needed, and nothing else is touched."""
    from pipeline import registry
    from pipeline.assemble import assemble
    from pipeline.lock import lock
    from pipeline.mirror import Mirror
    from pipeline.report import champions

    with lock(cfg.root, wait=60):
        to = registry.digest_at(cfg.root, str(cfg.to)) if cfg.to else None
        pointer = registry.roll_back(cfg.root, str(cfg.why or "asked for"), to=to)
    if isinstance(tracker := assemble(cfg, "tracking"), Mirror):
        tracker.send(cfg.root)
    champions.show_change(pointer, cfg.json)


if __name__ == "__main__":
    main()
