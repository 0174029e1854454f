"""Whether the reasons of two stretches of time differ by more than chance."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t

from stages.base import DataError, Explanation
from stages.evaluate.bootstrap import autocovariance, block_length, long_run
from stages.explain.memory import column_of

LEAST = 20  # bars of a window: below, its dependence cannot be told
LONGER = 1.5  # blocks that cover as they should are longer than those that err least
BLOCKS = 4  # least number of them in a window, or dependence is too long to judge


@dataclass(frozen=True)
class Drift:
    """How the pushes of two windows compare, input by input.

    Attributes
    ----------
    table : DataFrame
        One row per input and `of`: ``size`` is the mean absolute push of a row, ``direction`` what
        the highest value of the input pushes more than a middling one, both in log-odds. Columns
        `input`, `of`, `before`, `after`, `statistic` (Student's, of the change), `p`, `adjusted`
        (by Holm, over all rows that are judged) and `judged`. The surest change first.
    level : float in (0, 1)
        Highest rate of false alarms, over the table as a whole.
    bars : tuple of int
        Of either window.
    spans : tuple of (str, str)
        First and last time of either window, ISO format.
    text : str
        What was found, in words.
    """

    table: pd.DataFrame
    level: float
    bars: tuple[int, int]
    spans: tuple[tuple[str, str], tuple[str, str]]
    text: str

    @property
    def drifted(self) -> bool:
        """Whether any of the changes is more than chance."""
        return bool((self.table["adjusted"] <= self.level).any())

    @property
    def changed(self) -> tuple[str, ...]:
        """Inputs whose size or direction changed, the surest first."""
        sure = self.table["input"][self.table["adjusted"] <= self.level]
        return tuple(dict.fromkeys(sure))

    def record(self) -> dict[str, Any]:
        """Plain values, such as a run stores as JSON; a statistic without bound is None."""
        facts = {"level": self.level, "bars": list(self.bars), "text": self.text}
        rows = [
            {str(key): _plain(value) for key, value in row.items()}
            for row in self.table.to_dict("records")
        ]
        spans = [list(span) for span in self.spans]
        return facts | {"drifted": self.drifted, "spans": spans, "table": rows}


def drift(
    before: Explanation,
    after: Explanation,
    inputs: pd.DataFrame | None = None,
    level: float = 0.05,
    span: int = 1,
) -> Drift:
    """Test whether inputs push as strongly, and in the same direction, in two windows.

    Each figure is a mean over bars, so its change is measured in standard errors that allow for
    dependence between bars, however long up to a quarter of a window. An input whose pushes
    depend on each other for longer is not judged: two windows of it are too few to tell.

    Parameters
    ----------
    before, after : Explanation
        Of the rows of either window, which share no bar. One model may explain both, or each its
        own: the first finds inputs that behave otherwise, the second also a model that does.
    inputs : DataFrame, optional
        Panel with the rows of both; without it directions are not compared.
    level : float in (0, 1), default=0.05
        Rate of false alarms that is allowed: of a single one, anywhere in the table.
    span : int >= 1, default=1
        Bars that a label covers: the least length of a block.

    Raises
    ------
    DataError
        SV-F18 for a window of fewer than 20 bars, or windows that share a bar.

    Notes
    -----
    One look at one pair of windows. Who looks every week must divide `level` by the number of
    looks, or a false alarm comes in time. A change of reasons is not a loss: compare the scores.

    References
    ----------
    Holm (1979), "A simple sequentially rejective multiple test procedure", Scand. J. Stat. 6: it
    holds whatever the inputs have to do with each other. Welch (1947), Biometrika 34, and Vats &
    Flegal (2022), Biometrika 109(3), for the standard errors; see `stages.evaluate.bootstrap`.
    """
    if not 0 < level < 1 or span < 1:
        raise ValueError(f"need level in (0, 1) and span >= 1, got {level} and {span}")
    windows = [_sorted(why) for why in (before, after)]
    _refuse(*(pd.DatetimeIndex(w.index.get_level_values("time")) for w in windows))
    names = list(dict.fromkeys(name for w in windows for name in w))
    pushes = [w.reindex(columns=names, fill_value=0.0) for w in windows]
    figures = {"size": [p.abs() for p in pushes]}
    if inputs is not None:
        figures["direction"] = _towards(pushes, inputs)
    pairs = [
        (str(name), kind, _bars(one[name]), _bars(other[name]))
        for kind, (one, other) in figures.items()
        for name in one.columns
    ]
    reach = [_reach(one, other) for *_, one, other in pairs]
    # one series tells its dependence badly where it is long, so that of its fellows is a floor
    usual = float(np.median([blocks for blocks in reach if blocks > 0] or [1.0]))
    rows = [
        {"input": name, "of": kind, **_compared(one, other, max(usual, blocks), span)}
        for (name, kind, one, other), blocks in zip(pairs, reach, strict=True)
    ]
    table = pd.DataFrame(rows)
    table["adjusted"] = _holm(table["p"].to_numpy(), table["judged"].to_numpy())
    order = np.lexsort((-table["statistic"].abs(), table["adjusted"]))
    table = table.iloc[order].reset_index(drop=True)
    columns = ["input", "of", "before", "after", "statistic", "p", "adjusted", "judged"]
    times = [pd.DatetimeIndex(p.index.get_level_values("time")) for p in pushes]
    return Drift(
        table[columns],
        level,
        (times[0].nunique(), times[1].nunique()),
        tuple((at.min().isoformat(), at.max().isoformat()) for at in times),  # type: ignore[arg-type]
        _text(table, level),
    )


def _sorted(why: Explanation) -> pd.DataFrame:
    time = pd.DatetimeIndex(why.contributions.index.get_level_values("time"))
    return why.contributions.iloc[np.argsort(time.asi8, kind="stable")]


def _refuse(before: pd.DatetimeIndex, after: pd.DatetimeIndex) -> None:
    for name, times in (("first", before), ("second", after)):
        if times.nunique() < LEAST:
            raise DataError(
                f"the {name} window has {times.nunique()} bars",
                code="SV-F18",
                why=f"with fewer than {LEAST} no change can be told from chance",
                cure="make the window longer",
            )
    both = before.unique().intersection(after.unique())
    if len(both):
        raise DataError(
            f"{len(both)} bars are in both windows",
            code="SV-F18",
            where=f"{both.min()} to {both.max()}",
            why="what is in both cannot differ, and is not independent",
            cure="let the second window begin after the first ends",
        )


def _towards(pushes: list[pd.DataFrame], inputs: pd.DataFrame) -> list[pd.DataFrame]:
    """Push times place of the value, 3 c z, whose mean is the slope of c along z in [-1, 1]."""
    of = {name: column_of(str(name)) for name in pushes[0]}
    known = [name for name, column in of.items() if column in inputs]
    rows = pushes[0].index.append(pushes[1].index)
    values = inputs[[of[name] for name in known]].reindex(rows)
    # places are of both windows taken together, or a shift of the input would not be seen
    place = (2 * (values.rank() - 0.5) / values.notna().sum() - 1).fillna(0.0).to_numpy()
    cut = len(pushes[0])
    return [
        3 * part[known] * at for part, at in zip(pushes, (place[:cut], place[cut:]), strict=True)
    ]


def _bars(push: pd.Series) -> np.ndarray:
    """Mean over the assets of each bar, in order of time."""
    return push.groupby(level="time", sort=True).mean().to_numpy()


def _covariances(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Autocovariances of both windows, weighed as the variance of their difference weighs them."""
    n, m = len(before), len(after)
    one, other = (autocovariance(x)[: min(n, m)] for x in (before, after))
    return np.asarray((one / n + other / m) / (1 / n + 1 / m))


def _reach(before: np.ndarray, after: np.ndarray) -> float:
    """Bars of the blocks that hold the dependence of a series; 0 where it never changes."""
    lags = _covariances(before, after)
    return LONGER * block_length(lags, len(before) + len(after)) if lags[0] > 0 else 0.0


def _compared(before: np.ndarray, after: np.ndarray, blocks: float, span: int) -> dict[str, Any]:
    """Means over bars, and the change between them in standard errors."""
    n, m = len(before), len(after)
    shorter, lags = min(n, m), _covariances(before, after)
    change = float(after.mean() - before.mean())
    found = {"before": float(before.mean()), "after": float(after.mean())}
    if lags[0] <= np.finfo(float).eps * max(before @ before, after @ after) / shorter:
        same = bool(np.isclose(change, 0.0, atol=1e-12))
        statistic = 0.0 if same else float(np.copysign(np.inf, change))
        return found | {"statistic": statistic, "p": float(same), "judged": not same}
    wanted, longest = max(blocks, span), shorter / BLOCKS
    variance, freedom = long_run(lags, shorter, max(int(min(wanted, longest)), 1))
    freedom *= (1 / n + 1 / m) ** 2 / (shorter * (n**-3 + m**-3))  # Satterthwaite, of two windows
    statistic = change / float(np.sqrt(variance * (1 / n + 1 / m)))
    judged = wanted <= longest
    p = 2 * float(t.sf(abs(statistic), freedom)) if judged else 1.0
    return found | {"statistic": statistic, "p": p, "judged": judged}


def _holm(p: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """Adjusted p-values of those judged; 1 for the others."""
    out = np.ones(len(p))
    at = np.flatnonzero(judged)
    order = at[np.argsort(p[at], kind="stable")]
    times = np.arange(len(order), 0, -1)
    out[order] = np.minimum(np.maximum.accumulate(times * p[order]), 1.0)
    return out


def _plain(value: Any) -> str | bool | float | None:
    if isinstance(value, str | bool):
        return value
    return float(value) if np.isfinite(value) else None


def _text(table: pd.DataFrame, level: float) -> str:
    sure = table[table["adjusted"] <= level]
    left = int((~table["judged"] & (table["statistic"] != 0)).sum())
    rest = f" {left} figures depend on their past for too long to be judged." if left else ""
    if sure.empty:
        return f"No change of reasons beyond chance (at most {level:.0%} false alarms).{rest}"
    said = [_said(row) for row in sure.head(3).to_dict("records")]
    more = f", and {len(sure) - 3} more" if len(sure) > 3 else ""
    return f"Reasons changed: {'; '.join(said)}{more} (at most {level:.0%} false alarms).{rest}"


def _said(row: Mapping[Any, Any]) -> str:
    ends = f"{row['before']:+.3f} to {row['after']:+.3f}"
    if row["of"] == "size":
        verb = "pushes more" if row["after"] > row["before"] else "pushes less"
        return f"{row['input']} {verb} ({ends.replace('+', '')})"
    turned = row["before"] * row["after"] < 0
    return f"{row['input']} {'turned' if turned else 'changed its slope'} ({ends})"
