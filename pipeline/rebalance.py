"""Orders for the next bar: ``python -m pipeline.rebalance portfolio=etf_trend book=FOLDER``."""

from typing import TYPE_CHECKING

from pipeline.cli import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry("rebalance")
def main(cfg: "DictConfig") -> None:
    """Restore the book, judge the session, show the orders; write them unless it is a dry run."""
    from dataclasses import replace
    from datetime import UTC, datetime
    from time import perf_counter

    import pandas as pd

    from pipeline import daily
    from pipeline.assemble import assemble, count, flag, instant, load_source
    from pipeline.decided import Result, write_day
    from pipeline.lock import lock
    from pipeline.report import orders, terminal
    from pipeline.sessions import calendars_of, decision_row, session_asked, up_to
    from pipeline.universe import with_universe

    dry, keep, now = flag(cfg, "dry_run"), count(cfg, "keep", 1), pd.Timestamp(datetime.now(UTC))
    daily.check(cfg)
    started = perf_counter()
    with terminal.steps(quiet=cfg.json) as step:
        step("reading the data")
        policy, instruments = assemble(cfg, "portfolio"), assemble(cfg, "instruments")
        source = load_source(cfg)
        terminal.say_source(source)
        assets = source.bars.index.unique("asset").tolist()
        calendars = calendars_of(cfg.data.get("calendar"), instruments, assets)
        delay = cfg.data.get("delay", "0min")
        session = session_asked(instant(cfg, "as_of"), calendars, delay, now)
        if session.held is False:
            orders.show_closed(session.key, set(calendars.values()), cfg.json)
            return
        step("restoring the book")
        snapshot = daily.restore(cfg, session.key)
        step("preparing")
        bars, alerts = daily.with_model(cfg, up_to(source.bars, session))
        bars, absent = with_universe(cfg.universe, bars, newest=True)
        lots = daily.lots_of(instruments, assets)
        policy = daily.with_lots(policy, lots)
        prepared = policy.prepare(bars)
        at = prepared.times[decision_row(prepared, session, cfg.fresh, calendars)]
        book, notes, more = daily.brought_up(cfg, snapshot, prepared, bars, lots)
        step("planning")
        plan = policy.plan(prepared, at, book)
        result = Result.of(session.key, plan, notes, [*alerts, *absent, *more], cfg.turnover)
        if not dry:
            step("writing")
            with lock(cfg.root, wait=60):
                folder = daily.folder_of(cfg)
                files = write_day(folder, result, daily.metadata_of(cfg, bars), keep)
            result = replace(result, files=files)
    if cfg.json:
        terminal.show_json(result.as_dict())
    else:
        orders.show_orders(result, dry)
    seconds = perf_counter() - started
    if seconds > cfg.slow:
        terminal.say(f"slow: the run took {seconds:.0f} s, more than {cfg.slow:g} s")


if __name__ == "__main__":
    main()
