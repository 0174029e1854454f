"""Remove what is old and not needed from a root: ``python -m pipeline.tidy dry_run=false``."""

from typing import TYPE_CHECKING

from pipeline.cli import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry("tidy")
def main(cfg: "DictConfig") -> None:
    """Say what may go, and with ``dry_run=false`` remove it."""
    from pathlib import Path

    import pandas as pd

    from pipeline.assemble import count, flag
    from pipeline.lock import lock
    from pipeline.report import terminal
    from pipeline.store.signal_store import SignalStore, utc_now
    from pipeline.tidying import old, remove

    root, dry = Path(cfg.root), flag(cfg, "dry_run")
    before = utc_now() - pd.Timedelta(days=count(cfg, "keep_days", 1))
    needed: list[str] = []
    if cfg.store:
        with SignalStore(cfg.store) as store:
            needed = store.unsettled()["model"].unique().tolist()
    with lock(root, wait=60):
        found = old(root, before, needed)
        if not dry:
            remove(root, found)
    if cfg.json:
        names = {"runs": [*map(str, found.runs)], "models": [*map(str, found.models)]}
        terminal.show_json({**names, "bytes": found.bytes, "removed": not dry})
        return
    done = "would go; dry_run=false removes them" if dry else "removed"
    terminal.say(
        f"{len(found.runs):,} runs and {len(found.models):,} models of before {before:%Y-%m-%d}, "
        f"{found.bytes / 1e6:,.1f} MB, {done}"
    )


if __name__ == "__main__":
    main()
