"""Why one signal: ``python -m pipeline.explain asset=AAPL time=2022-12-28``."""

from typing import TYPE_CHECKING

from pipeline.cli import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry("explain_signal")
def main(cfg: "DictConfig") -> None:
    """Show the contributions to the margin of one row, and how it moved through the stages."""
    from pipeline.assemble import count, instant, load_model, load_source
    from pipeline.report import terminal
    from pipeline.signals import choose_rows, to_signals

    top = count(cfg, "top", 1)
    with terminal.steps(quiet=cfg.json) as step:
        step("loading the model")
        pipeline = load_model(cfg)
        step("reading the data")
        source = load_source(cfg)
        step("explaining")
        time = instant(cfg, "time")
        panel = pipeline.predict(source.bars, newest=time is None)
        panel = choose_rows(panel, cfg.asset, time)
        rows = panel.index[panel["status"] != "abstain"]
        why = pipeline.explain(source.bars, rows) if len(rows) else None
        signals = to_signals(pipeline, panel, why)
    if cfg.json:
        terminal.show_json([terminal.record(s, cfg) for s in signals])
        return
    for signal in signals:
        terminal.show_reasons(signal, top)


if __name__ == "__main__":
    main()
