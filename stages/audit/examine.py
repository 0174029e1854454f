"""Run one component in pairs of worlds that share a past, and keep what the future moved."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from stages.audit.compare import Difference, Said, differences
from stages.audit.components import World
from stages.base import DataError, LeakError

Run = Callable[[World], Iterable[Said]]


@dataclass(frozen=True)
class Trial:
    """Two worlds that are the same up to a decision time.

    Attributes
    ----------
    time : Timestamp
    future : str
        What was changed after it.
    here, there : World
    """

    time: pd.Timestamp
    future: str
    here: World
    there: World


@dataclass(frozen=True)
class Finding:
    """A value that was known too early.

    Attributes
    ----------
    component, column, asset : str
    time : Timestamp
        Of the first bad row.
    decision : Timestamp
        The world was changed after it when that row moved.
    future : str
        What was changed: see `stages.audit.futures`.
    ahead : int
        Bars of the asset from the first bad row to the first that was changed.
    rows : int
        Rows of the column that moved, over all trials.
    here, there : str
        The value of the first bad row, in either world.
    """

    component: str
    column: str
    asset: str
    time: pd.Timestamp
    decision: pd.Timestamp
    future: str
    ahead: int
    rows: int
    here: str
    there: str


@dataclass(frozen=True)
class Examined:
    """What became of some trials of a component.

    Attributes
    ----------
    findings : tuple of Finding
        One a component and column.
    checked : dict of str to int
        Comparisons made, by component.
    times : tuple of Timestamp
        Decision times.
    remarks : tuple of str
        Worlds that could not be compared, and why.
    """

    findings: tuple[Finding, ...]
    checked: dict[str, int]
    times: tuple[pd.Timestamp, ...]
    remarks: tuple[str, ...] = ()


def examine(run: Run, trials: Iterable[Trial]) -> Examined:
    """Compare what `run` says in the two worlds of each trial.

    A component whose words differ when it is run twice in one world is not blamed: what is not
    repeatable cannot be compared bit by bit, and a remark says so.

    Parameters
    ----------
    run : callable
        World to what is said in it, always in the same order. Trials that share the object
        ``here`` share its run.
    trials : iterable of Trial

    Raises
    ------
    DataError
        What the last world was refused with, if none could be compared.
    """
    said: list[Said] = []
    last: World | None = None
    found: list[tuple[Trial, Difference]] = []
    checked: dict[str, int] = {}
    times: list[pd.Timestamp] = []
    refused: list[DataError] = []
    remarks: list[str] = []
    for trial in trials:
        try:
            if trial.here is not last:
                said, last = list(run(trial.here)), trial.here
            other = list(run(trial.there))
        except LeakError as refusal:
            found.append((trial, _refusal(refusal, trial)))
            continue
        except DataError as error:
            refused.append(error)
            remarks.append(f"{trial.future} after {trial.time:%Y-%m-%d} was refused: {error.what}")
            continue
        times.append(trial.time)
        for one, two in zip(said, other, strict=False):
            checked[one.component] = checked.get(one.component, 0) + 1
            found += [(trial, moved) for moved in differences(one, two, trial.time)]
    if refused and not times and not found:
        raise refused[-1]  # nothing was compared: that must not pass for nothing found
    shaky = _unrepeatable(run, found)
    remarks += [f"{'.'.join(name)} is not repeatable: it was not compared" for name in shaky]
    kept = [(t, d) for t, d in found if (d.component, d.column) not in shaky]
    return Examined(
        first_of_each([_finding(*each) for each in kept]), checked, tuple(times), tuple(remarks)
    )


def first_of_each(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The earliest finding of each component and column, with the rows of all of them."""
    first: dict[tuple[str, str], Finding] = {}
    for new in findings:
        old = first.setdefault((new.component, new.column), new)
        if old is not new:
            best = min(old, new, key=lambda f: f.time)
            first[new.component, new.column] = replace(best, rows=old.rows + new.rows)
    return tuple(first.values())


def _unrepeatable(run: Run, found: Sequence[tuple[Trial, Difference]]) -> set[tuple[str, str]]:
    """Components and columns that differ from themselves, in the worlds where they were found."""
    out: set[tuple[str, str]] = set()
    worlds = {id(trial.here): trial for trial, moved in found if moved.component != "roles"}
    for trial in list(worlds.values())[:1]:
        for one, two in zip(run(trial.here), run(trial.here), strict=False):
            end = one.known.max() if len(one.known) else trial.time
            out |= {(d.component, d.column) for d in differences(one, two, end)}
    return out


def _finding(trial: Trial, moved: Difference) -> Finding:
    rows = trial.here.bars.index
    times = pd.DatetimeIndex(rows.get_level_values("time"))
    own = times[rows.get_level_values("asset") == moved.asset]
    bars = own if len(own) else times.unique()
    between = int(((bars > moved.time) & (bars <= trial.time)).sum())
    return Finding(
        component=moved.component,
        column=moved.column,
        asset=moved.asset,
        time=moved.time,
        decision=trial.time,
        future=trial.future,
        ahead=between + 1,
        rows=moved.rows,
        here=moved.here,
        there=moved.there,
    )


def _refusal(refusal: LeakError, trial: Trial) -> Difference:
    """What the pipeline itself refused, by the roles that it gives to rows."""
    return Difference("roles", refusal.what, "-", trial.time, 1, refusal.code, "")
