"""Why one signal: ``python -m pipeline.explain asset=AAPL time=2022-12-28``."""

from typing import TYPE_CHECKING

from pipeline.cli import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from pipeline.inquiry import Ask


@entry("explain_signal")
def main(cfg: "DictConfig") -> None:
    """Show why a signal says what it says, what would turn it, and what came of rows like it."""
    from pipeline.assemble import count, instant, load_model, load_source
    from pipeline.report import terminal

    top, ask = count(cfg, "top", 1), _ask(cfg)
    by_id = cfg.signal is not None
    if by_id:
        _take_id(cfg)
    time = instant(cfg, "time")
    with terminal.steps(quiet=cfg.json) as step:
        step("loading the model")
        pipeline = load_model(cfg)
        step("reading the data")
        source = load_source(cfg)
        step("explaining")
        found = pipeline.inquire(source.bars, cfg.asset, time, ask, exact=by_id)
    if cfg.json:
        records = [terminal.record(f.signal, cfg) | {"inquiry": f.record()} for f in found]
        terminal.show_json(records)
        return
    for inquiry in found:
        terminal.show_inquiry(inquiry, top)


def _ask(cfg: "DictConfig") -> "Ask":
    from pipeline.assemble import count, flag
    from pipeline.inquiry import Ask
    from stages.base import ConfigError

    if cfg.effort not in ("fast", "full"):
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
        effort=cfg.effort,
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
