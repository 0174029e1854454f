"""Signals for new bars: ``python -m pipeline.predict data=parquet data.path=new_bars.parquet``."""

from typing import TYPE_CHECKING

from pipeline.cli import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from pipeline.account import Laps
    from pipeline.signal_pipeline import SignalPipeline
    from pipeline.signals import Signals
    from stages.risk.emission import Emission


@entry("predict")
def main(cfg: "DictConfig") -> None:
    """Load the model, predict the newest bar of each asset (or all), write, show."""
    from pathlib import Path

    from pipeline.account import Laps
    from pipeline.assemble import assemble, flag, instant, load_model, load_source, model_folder
    from pipeline.certificates import standing
    from pipeline.lock import lock
    from pipeline.report import terminal
    from pipeline.signals_io import record_suffix, write_signals
    from pipeline.store.signal_store import SignalStore
    from stages.base import ConfigError

    if cfg.rows not in ("newest", "all"):
        raise ConfigError(
            f"rows={cfg.rows} is neither newest nor all",
            code="SV-F33",
            where="key rows",
            cure="rows=newest or rows=all",
        )
    reasons, risk = flag(cfg, "explain_rows"), flag(cfg, "appraise")
    as_of = instant(cfg, "as_of")
    if cfg.output:
        record_suffix(Path(cfg.output))
    emission = assemble(cfg, "emit")
    if cfg.store:
        SignalStore(cfg.store).close()  # one that cannot be opened is refused before all else
    with terminal.steps(quiet=cfg.json) as say:
        step = Laps(say)
        step("loading the model")
        pipeline = load_model(cfg)
        step("reading the data")
        source = load_source(cfg)
        terminal.say_source(source)
        step("predicting")
        signals = pipeline.signals(source.bars, cfg.rows == "newest", as_of, reasons, risk)
        if cfg.output:
            with lock(cfg.root, wait=60):
                write_signals(Path(cfg.output), signals, terminal.config_digest(cfg))
        if cfg.store:
            step("storing")
            said = _store(cfg, signals, pipeline, emission, step)
        if cfg.report:
            from pipeline.report.page import write_page

            step("writing the page")
            card = pipeline.evaluation_ or {}
            about = terminal.about(source)
            write_page(Path(cfg.report), signals, card, about, pipeline.record_)
    if cfg.json:
        terminal.show_json([terminal.record(s, cfg) for s in signals])
    else:
        terminal.show_signals(signals, source)
    if cfg.store:
        terminal.say(said)
    terminal.say(standing(model_folder(cfg), pipeline))


def _store(
    cfg: "DictConfig",
    signals: "Signals",
    pipeline: "SignalPipeline",
    emission: "Emission | None",
    laps: "Laps",
) -> str:
    """Store signals, with verdicts where there are rules, and an account; say what came of it."""
    from pipeline.account import account
    from pipeline.jsonlog import run_id
    from pipeline.report import terminal
    from pipeline.report.words import stored_sentence
    from pipeline.store.emission import Rules
    from pipeline.store.signal_store import SignalStore

    rules = None
    if emission is not None:
        classes = pipeline.instruments.classes([signal.asset for signal in signals])
        rules = Rules(emission, classes.tolist(), pipeline.decide.cost(classes).tolist())
    with SignalStore(cfg.store) as store:
        before = store.last()
        digest = terminal.config_digest(cfg)
        new = store.append(signals, digest, strategy=cfg.strategy, rules=rules)
        verdicts = store.verdicts(before)
        store.event("run", **account(signals, new, verdicts, laps.seconds()), run=run_id())
        return stored_sentence(len(signals), new, verdicts)


if __name__ == "__main__":
    main()
