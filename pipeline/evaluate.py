"""Judge a model on unseen rows, or compare runs: ``python -m pipeline.evaluate runs=DIR``."""

from typing import TYPE_CHECKING

from pipeline.cli import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry("evaluate")
def main(cfg: "DictConfig") -> None:
    """One table of figures with intervals; a stage that does not pay is shown as such."""
    from pathlib import Path

    from pipeline.report import terminal

    if cfg.runs:
        from pipeline import ledger
        from pipeline.report import runs
        from pipeline.tracking import read_runs

        trials = ledger.read(ledger.beside(cfg.runs, cfg.root))
        runs.show_runs(read_runs(Path(cfg.runs)), trials, as_json=cfg.json)
        return
    from pipeline.assemble import count, instant, load_model, load_source
    from pipeline.evaluation import counted, judge
    from pipeline.unseen import evaluated, later_rows

    resamples = count(cfg, "bootstrap", 2)
    with terminal.steps(quiet=cfg.json) as step:
        step("loading the model")
        pipeline = load_model(cfg)
        step("reading the data")
        source = load_source(cfg)
        terminal.say_source(source)
        step("evaluating")
        y, at = later_rows(pipeline, source, instant(cfg, "since"))
        rows = evaluated(pipeline, source.bars, at, y)
        part = f"since {at.get_level_values('time').min():%Y-%m-%d}"
        result = judge(pipeline, rows, y, source, part=part, resamples=resamples, seed=cfg.seed)
        result = counted(result, cfg.root, "evaluate", pipeline.digest, source, cfg.seed)
        if cfg.predictions:
            result.write(Path(cfg.predictions))
    terminal.show_evaluation(result, as_json=cfg.json)


if __name__ == "__main__":
    main()
