"""What stored signals came to: ``python -m pipeline.outcomes store=signals.db data=parquet …``."""

from typing import TYPE_CHECKING

from pipeline.cli import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry("outcomes")
def main(cfg: "DictConfig") -> None:
    """Attach outcomes that have matured, log what expired, archive what is old, and show all."""
    from dataclasses import asdict
    from pathlib import Path

    from pipeline.assemble import load_source
    from pipeline.report import terminal
    from pipeline.report.performance import show_performance
    from pipeline.settling import settle
    from pipeline.store.signal_store import SignalStore
    from stages.base import ConfigError
    from stages.risk.outcomes import performance

    if not cfg.store:
        raise ConfigError(
            "no store was named",
            code="SV-F33",
            where="key store",
            cure="store=signals.db, or store=postgresql://USER@HOST/DATABASE",
        )
    with terminal.steps(quiet=cfg.json) as step, SignalStore(cfg.store) as store:
        step("reading the data")
        source = load_source(cfg)
        terminal.say_source(source)
        step("attaching outcomes")
        found = settle(store, Path(cfg.root) / "models", source.bars, source.y)
        expired = store.expire(source.bars.index.get_level_values("time").max())
        step("counting")
        emitted = True if cfg.emitted_only else None
        played = store.played(emitted=emitted)
        table = performance(played, list(cfg.by), found.span)
        moved = None
        if cfg.archive is not None:
            step("archiving")
            moved = store.archive(cfg.archive, days=cfg.keep_days, rows=cfg.keep_rows)
    counts = asdict(found) | {"expired": expired, "archived": moved.rows if moved else 0}
    if cfg.json:
        groups = table.reset_index().astype("object")
        rows = groups.where(groups.notna(), None).to_dict("records")
        terminal.show_json(counts | {"performance": rows})
        return
    show_performance(table)
    terminal.say(
        f"{found.outcomes:,} outcomes attached, {found.waiting:,} signals wait for theirs"
        + (f", {found.unknown:,} are of models not under root" if found.unknown else "")
        + f"; {expired:,} expired"
        + (f"; {moved.rows:,} archived in {moved.path}" if moved and moved.rows else "")
    )


if __name__ == "__main__":
    main()
