"""Runs side by side, and what is left of the best of them after all the trials there were."""

import shlex

import pandas as pd

from pipeline.evaluation import SHOWN
from pipeline.ledger import Ledger, Trial
from pipeline.report import terminal
from pipeline.report.words import counted_trials, overfitting_words
from stages.base import DataError
from stages.evaluate.standing import Standing

BESIDE = ("base_rate", "accuracy", "mcc", "log_loss", "ece", "rank_ic")  # each has its base rate


def show_runs(runs: pd.DataFrame, trials: Ledger, as_json: bool = False) -> None:
    """The pipelines of runs side by side: a row per run and evaluated part.

    Parameters
    ----------
    runs : DataFrame
        What `pipeline.tracking.read_runs` gave.
    trials : Ledger
        Of the root of the runs: a Sharpe ratio stands beside what all trials leave of it.
    as_json : bool
    """
    if runs.empty and not as_json:
        raise DataError(
            "there are no runs to compare",
            code="SV-F18",
            cure="runs=DIR names a folder of runs, such as sieve_runs/sweeps",
        )
    parts = {str(path): _parts(run) for path, run in runs.iterrows()}
    found = _found(runs, parts, trials)
    known: dict[frozenset[str], float] = {}
    luck = {place: trials.standing(trial, known=known) for place, trial in found.items()}
    if as_json:
        flat = runs.reset_index().astype(object)
        records = flat.where(flat.notna(), None).to_dict("records")
        for record in records:
            mine = {part: luck.get((record["run"], part)) for part in parts[record["run"]]}
            record["luck"] = {part: s and s.values() for part, s in mine.items()}
        terminal.show_json(records)
        return
    table = terminal.table_of("runs: the whole pipeline, on the rows that each had not seen")
    for name in ("run", "what differs"):
        table.add_column(name, overflow="fold")
    table.add_column("part", no_wrap=True)
    for name in (*BESIDE, "Sharpe", "deflated"):
        table.add_column(name, justify="right", no_wrap=True)
    differs = _differences(runs)
    for path, run in runs.iterrows():
        name = str(path)
        if "error" in run and isinstance(run["error"], str):
            table.add_row(name, run["error"], "failed", style="dim")
        for part in parts[name]:
            cells = [_run_cell(run, f"metrics.{part}.pipeline.{metric}") for metric in BESIDE]
            table.add_row(name, differs[name], part, *cells, *_luck_cells(luck.get((name, part))))
    terminal.console.print(table)
    terminal.console.print("± half a 95 % block-bootstrap interval.", style="dim", highlight=False)
    missing = sum(len(of_run) for of_run in parts.values()) - len(found)
    for line in _remarks(trials, list(found.values()), list(luck.values()), missing):
        terminal.console.print(line, highlight=False, markup=False)


def _parts(run: pd.Series) -> list[str]:
    """Parts of the data on which a run was evaluated."""
    return sorted({c.split(".")[1] for c in run.dropna().index if c.startswith("metrics.")})


def _found(
    runs: pd.DataFrame, parts: dict[str, list[str]], trials: Ledger
) -> dict[tuple[str, str], Trial]:
    """The line of the ledger of each run and part that has one."""
    found = {}
    for path, run in runs.iterrows():
        for part in parts[str(path)]:
            trial = trials.find(str(run.get(f"trials.{part}")))
            if trial is not None:
                found[str(path), part] = trial
    return found


def _luck_cells(standing: Standing | None) -> list[str]:
    """Annual Sharpe ratio and Deflated Sharpe: both or none."""
    if standing is None or pd.isna(standing.sharpe):
        return ["", ""]
    half = (standing.high - standing.low) / 2
    return [f"{standing.sharpe:+.2f}\n±{half:.2f}", f"{standing.deflated:.2f}"]


def _remarks(trials: Ledger, found: list[Trial], luck: list[Standing], missing: int) -> list[str]:
    """What the last columns are, what the choice among all trials is worth, what is not known."""
    charged = {trial.cost > 0 for trial in found}
    costs = " and ".join({True: "after", False: "before"}[c] for c in sorted(charged)) or "after"
    entries = len(trials.trials) + trials.torn
    lines = [
        f"{counted_trials(trials.count)} ({entries:,} with reruns). Sharpe: a year, arithmetic, "
        f"{costs} costs, of a book that follows the scores. deflated: probability that it is above "
        "0, given so many trials.",
        *dict.fromkeys(f"{overfitting_words(standing)}." for standing in luck),
    ]
    if trials.torn:
        lines.append(f"{trials.torn} line(s) of the ledger were cut short by a crash; each counts.")
    if missing:
        lines.append(
            f"{missing} evaluation(s) of these runs are not in the ledger: it was cut, or is that "
            "of another root. The true number of trials is larger."
        )
    return lines


def _differences(runs: pd.DataFrame) -> dict[str, str]:
    """Words of each run's command that not all runs share."""
    if "command" not in runs:
        return {}
    words = {str(name): shlex.split(c) for name, c in runs["command"].dropna().items()}
    shared = set.intersection(*map(set, words.values()))
    return {name: " ".join(w for w in said if w not in shared) for name, said in words.items()}


def _run_cell(run: pd.Series, figure: str) -> str:
    """A figure over half its interval; empty where the data do not define it."""
    value, low, high = (run.get(f"{figure}.{p}", float("nan")) for p in ("value", "low", "high"))
    if pd.isna(value):
        return ""
    form = SHOWN[figure.rpartition(".")[2]]
    return f"{value:{form}}\n±{(high - low) / 2:{form.removeprefix('+')}}"
