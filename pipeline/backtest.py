"""What a portfolio would have been: ``python -m pipeline.backtest portfolio=etf_trend data=…``."""

from typing import TYPE_CHECKING

from pipeline.cli import command_line, entry

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry("backtest")
def main(cfg: "DictConfig") -> None:
    """Simulate, judge, count, store and show; or set stored backtests side by side."""
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig

    from pipeline.report import backtest_page, terminal
    from pipeline.tracking import read_runs

    if cfg.runs:
        backtest_page.show_backtests(read_runs(Path(cfg.runs)), as_json=cfg.json)
        return
    from pipeline import ledger
    from pipeline.assemble import assemble, load_source
    from pipeline.backtested import PART, store
    from pipeline.backtesting import backtest

    folder = Path(cfg.output or HydraConfig.get().runtime.output_dir)
    with terminal.steps(quiet=cfg.json) as step:
        record = assemble(cfg, "tracking")
        ledger.read(cfg.root)  # one that was changed is refused before anything is looked at
        step("reading the data")
        source = load_source(cfg)
        terminal.say_source(source)
        chosen = HydraConfig.get().runtime.choices["portfolio"]
        place = Path(str(cfg.data.get("path") or source.name)).stem
        result = backtest(cfg, source, f"{chosen} on {place}", step)
        step("storing")
        store(result, folder)
        metrics = {PART: result.metrics()}
        trials = {PART: result.trial}
        record(folder, cfg, metrics, "", source.digest, command_line(), trials)
        page = Path(cfg.report) if cfg.report else folder / "report.html"
        backtest_page.write_backtest(page, result)
    backtest_page.show_backtest(result, folder, cfg.json)


if __name__ == "__main__":
    main()
