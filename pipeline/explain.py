"""Why one signal, and what drives the model: ``python -m pipeline.explain asset=AAPL``."""

from typing import TYPE_CHECKING

from pipeline.cli import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from pandas import Timestamp

    from pipeline.data.sources import Source
    from pipeline.inquiry import Ask, Inquiry
    from pipeline.overview import Overview
    from pipeline.signal_pipeline import SignalPipeline
    from stages.explain.drift import Drift


@entry("explain_signal")
def main(cfg: "DictConfig") -> None:
    """Show why a signal says what it says, what would turn it, and what came of rows like it."""
    from pipeline.assemble import count, flag, instant, load_model, load_source
    from pipeline.report import terminal
    from pipeline.store.signal_store import SignalStore

    top, ask = count(cfg, "top", 1), _ask(cfg)
    if flag(cfg, "global"):
        _refuse_store(cfg)
        _show_model(cfg, top)
        return
    by_id = cfg.signal is not None
    if by_id:
        _take_id(cfg)
    time = instant(cfg, "time")
    if cfg.store:
        SignalStore(cfg.store).close()  # one that cannot be opened is refused before all else
    with terminal.steps(quiet=cfg.json) as step:
        step("loading the model")
        pipeline = load_model(cfg)
        step("reading the data")
        source = load_source(cfg)
        step("explaining")
        found = pipeline.inquire(source.bars, cfg.asset, time, ask, exact=by_id)
        if cfg.store:
            step("storing")
            said = _store(cfg, found, ask)
    if cfg.pages:
        _write_pages(cfg, found, source)
    if cfg.json:
        records = [terminal.record(f.signal, cfg) | {"inquiry": f.record()} for f in found]
        terminal.show_json(records)
    else:
        for inquiry in found:
            terminal.show_inquiry(inquiry, top)
    if cfg.store:
        terminal.say(said)


def _store(cfg: "DictConfig", found: "list[Inquiry]", ask: "Ask") -> str:
    """Store what was found with the stored signals, of all or of none; say what came of it."""
    from dataclasses import asdict

    from pipeline.report import terminal
    from pipeline.store.signal_store import SignalStore

    told = [(one.signal, {"asked": asdict(ask), **one.record()}) for one in found]
    with SignalStore(cfg.store) as store:
        new = store.note(told, terminal.config_digest(cfg))
    return f"{len(told):,} inquiries: {new:,} new in the store"


def _refuse_store(cfg: "DictConfig") -> None:
    from stages.base import ConfigError

    if cfg.store:
        raise ConfigError(
            "global=true is about a model, and store= keeps what was found about signals",
            code="SV-F33",
            where="key store",
            cure="leave store out: what drives a model is kept with the run",
        )


def _show_model(cfg: "DictConfig", top: int) -> None:
    """What drives the model over its newest bars, and whether that has changed."""
    from pipeline.assemble import instant, load_model, load_source
    from pipeline.report import overview_page, terminal

    since = instant(cfg, "since")
    with terminal.steps(quiet=cfg.json) as step:
        step("loading the model")
        pipeline = load_model(cfg)
        step("reading the data")
        source = load_source(cfg)
        step("explaining many rows")
        seen, shift = _looked_at(cfg, pipeline, source, since)
    if cfg.json:
        terminal.show_json(seen.record() | {"drift": shift.record() if shift else None})
        return
    overview_page.show_overview(seen, top)
    if shift:
        overview_page.show_drift(shift, top)


def _looked_at(
    cfg: "DictConfig", pipeline: "SignalPipeline", source: "Source", since: "Timestamp | None"
) -> "tuple[Overview, Drift | None]":
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig

    from pipeline.overview import drifted, overview, store, windows
    from pipeline.report import overview_page, terminal

    effort = "fast" if cfg.effort is None else _ask(cfg).effort
    seen = overview(pipeline, source.bars, effort=effort)
    shift = None
    if since is not None:
        shift = drifted(pipeline, source.bars, *windows(source.bars, since), effort=effort)
    store(seen, Path(HydraConfig.get().runtime.output_dir))
    if cfg.pages:
        page, panel = Path(cfg.pages) / "overview.html", pipeline.panel(source.bars)
        overview_page.write_overview_page(page, seen, terminal.about(source), panel, shift)
    return seen, shift


def _write_pages(cfg: "DictConfig", found: "list[Inquiry]", source: "Source") -> None:
    from pathlib import Path

    from pipeline.report import terminal
    from pipeline.report.signal_page import page_name, write_signal_page

    for inquiry in found:
        page = Path(cfg.pages) / page_name(inquiry.signal)
        write_signal_page(page, inquiry, terminal.about(source))


def _ask(cfg: "DictConfig") -> "Ask":
    from pipeline.assemble import count, flag
    from pipeline.inquiry import Ask
    from stages.base import ConfigError

    if cfg.effort not in (None, "fast", "full"):
        raise ConfigError(
            f"effort={cfg.effort} is neither fast nor full",
            code="SV-F33",
            where="key effort",
            cure="effort=fast or effort=full",
        )
    return Ask(
        why_not=flag(cfg, "why_not"),
        episodes=count(cfg, "episodes", 0),
        lime=flag(cfg, "lime"),
        effort=cfg.effort or "full",
    )


def _take_id(cfg: "DictConfig") -> None:
    """Read asset, time and model off ``cfg.signal``; the model must lie in the root."""
    from pipeline import artifacts
    from stages.base import ConfigError

    parts = str(cfg.signal).split("|")
    if len(parts) != 3 or not all(parts) or any((cfg.asset, cfg.time, cfg.model)):
        raise ConfigError(
            f"signal={cfg.signal} is no id, or does not stand alone",
            code="SV-F33",
            where="key signal",
            why="an id is ASSET|TIME|MODEL, as in a record, in place of asset, time and model",
            cure="'signal=AAPL|2022-12-28T21:00:00Z|MODEL', or asset=AAPL time=2022-12-28",
        )
    cfg.asset, cfg.time, model = parts
    cfg.model = str(artifacts.find(cfg.root, model))


if __name__ == "__main__":
    main()
