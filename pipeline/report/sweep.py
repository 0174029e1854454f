"""After a multirun: its runs side by side, with the number of trials that they add up to."""

from functools import partial
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from pipeline.cli import at_end


class SweepTable(Callback):
    """Prints the table that ``python -m pipeline.evaluate runs=DIR`` prints, whatever failed."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Note where the runs will lie: Hydra tells of the end only if every job succeeds."""
        if not config.json:
            at_end.append(partial(_show, Path(config.hydra.sweep.dir), config.root))


def _show(folder: Path, root: str) -> None:
    from pipeline import ledger
    from pipeline.report.runs import show_runs
    from pipeline.tracking import read_runs

    runs = read_runs(folder)
    if not runs.empty:
        show_runs(runs, ledger.read(root))
