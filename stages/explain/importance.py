"""Which inputs, kinds of input and stages move the margin most, over many rows and over time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from stages.base import DataError, Explanation
from stages.evaluate.bootstrap import interval, resample
from stages.explain.families import by_family, families

LEAST = 8  # bars below which no interval is drawn from them
COLUMNS = ("size", "low", "high", "share", "share_low", "share_high", "rank_low", "rank_high")
VIEWS = ("inputs", "families", "stages", "members")


@dataclass(frozen=True)
class Importance:
    """Size of the pushes on the margin over many rows: of each input, family, stage and member.

    In each table `size` is the mean absolute push of a row, log-odds; `share` is the size over the
    sum of all sizes of the table, and ranks begin at 1. What pushes against each other inside a
    family or a stage cancels before its size is taken. Intervals hold with a frequency of 95 %.

    Attributes
    ----------
    inputs, families, stages, members : DataFrame
        Indexed by name, the largest first; columns `size`, `low`, `high`, `share`, `share_low`,
        `share_high`, `rank_low`, `rank_high`, and `mean`, the mean push itself.
    rows, bars : int
        How many rows, and at how many times.
    begins, ends : str
        First and last time, ISO format.
    baseline : float
        Mean log-odds that the pushes are on top of.
    unit, effort : str
        Of the contributions.
    """

    inputs: pd.DataFrame
    families: pd.DataFrame
    stages: pd.DataFrame
    members: pd.DataFrame
    rows: int
    bars: int
    begins: str
    ends: str
    baseline: float
    unit: str
    effort: str

    def record(self) -> dict[str, Any]:
        """Plain values, such as a run stores as JSON; NaN is None."""
        tables = {view: plain(getattr(self, view)) for view in VIEWS}
        facts = ("rows", "bars", "begins", "ends", "baseline", "unit", "effort")
        return {name: getattr(self, name) for name in facts} | tables

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Self:
        """Take back what `record` gave."""
        tables = {
            view: pd.DataFrame.from_dict(dict(record[view]), orient="index", dtype="float64")
            for view in VIEWS
        }
        return cls(**{**record, **tables})


def importance(
    why: Explanation,
    features: Any = None,
    span: int = 1,
    resamples: int = 500,
    seed: int = 0,
) -> Importance:
    """Measure how much each input moves the margin, with intervals from blocks of bars.

    Parameters
    ----------
    why : Explanation
        Of N rows, such as ``SignalPipeline.explain`` gives.
    features : FeatureSet, optional
        Whose functions say to what family an input belongs.
    span : int >= 1, default=1
        Bars that a label covers: the least length of a block.
    resamples : int >= 2, default=500
    seed : int, default=0

    Raises
    ------
    DataError
        SV-F18 for fewer than 8 bars: a mean over them has no interval that can be believed.

    Notes
    -----
    Bars are drawn whole, with all their assets: rows of one bar are not independent. The size is
    what the model makes of an input on these rows. It is no measure of what the input is worth:
    see `stages.evaluate` for that, and `stages.explain.redundancy` for inputs that share one push.

    References
    ----------
    Lundberg et al. (2020), "From local explanations to global understanding with explainable AI
    for trees", Nature Machine Intelligence 2: mean absolute contributions.
    """
    times = pd.DatetimeIndex(why.contributions.index.get_level_values("time"))
    if times.nunique() < LEAST:
        raise DataError(
            f"importance over {times.nunique()} bars would be a guess",
            code="SV-F18",
            where=f"{len(times)} rows",
            why=f"its intervals come from blocks of bars, of which there must be {LEAST}",
            cure="explain the rows of more bars",
        )
    stage = {name: str(name).partition(".")[0] for name in why.by_stage}
    pushes = {
        "inputs": why.contributions,
        "families": by_family(why, families(map(str, why.contributions), features)),
        "stages": why.by_stage.T.groupby(stage, sort=False).sum().T,
        "members": why.by_stage,
    }
    tables = {view: sizes(table, span, resamples, seed) for view, table in pushes.items()}
    return Importance(
        **tables,
        rows=len(times),
        bars=int(times.nunique()),
        begins=times.min().isoformat(),
        ends=times.max().isoformat(),
        baseline=float(why.baseline.mean()),
        unit=why.unit,
        effort=why.effort,
    )


def over_time(why: Explanation, periods: int = 12) -> pd.DataFrame:
    """Share of each input in the size of all pushes, in one stretch of bars after the other.

    Parameters
    ----------
    why : Explanation
        Of N rows.
    periods : int >= 1, default=12
        Stretches of as many bars each; fewer where there are fewer bars.

    Returns
    -------
    DataFrame of shape (periods, F)
        Indexed by the first time of each stretch; rows sum to 1, or are 0 where nothing pushes.
    """
    if periods < 1:
        raise ValueError(f"need periods >= 1, got {periods}")
    times = pd.DatetimeIndex(why.contributions.index.get_level_values("time"))
    bar, known = times.factorize(sort=True)
    stretch = bar * min(periods, len(known)) // len(known)
    sizes = why.contributions.abs().groupby(stretch).mean()
    sizes.index = pd.DatetimeIndex(pd.Series(times).groupby(stretch).min(), name="begins")
    whole = sizes.sum(axis=1)
    return sizes.div(whole.where(whole > 0, 1.0), axis=0)


def history(found: Mapping[str, Importance], view: str = "inputs") -> pd.DataFrame:
    """How large the share of each input was in one run after the other.

    Parameters
    ----------
    found : mapping of str to Importance
        By run, in the order of the result.
    view : {'inputs', 'families', 'stages', 'members'}

    Returns
    -------
    DataFrame of shape (runs, names)
        0 where a run had no such input; the largest in the last run first.
    """
    if view not in VIEWS or not found:
        raise ValueError(f"need importance of at least one run, and view one of {VIEWS}")
    shares = pd.DataFrame({run: getattr(one, view)["share"] for run, one in found.items()})
    last = shares.columns[-1]
    return shares.fillna(0.0).sort_values(last, ascending=False, kind="stable").T


def sizes(pushes: pd.DataFrame, span: int = 1, resamples: int = 500, seed: int = 0) -> pd.DataFrame:
    """One table of `Importance`, the largest size first.

    Parameters
    ----------
    pushes : DataFrame of shape (N, names)
        Indexed by (asset, time).
    span, resamples, seed
        As `importance`.
    """
    times = pd.DatetimeIndex(pushes.index.get_level_values("time"))
    values = pushes.to_numpy(dtype="float64")
    F = values.shape[1]
    bar = times.factorize(sort=True)[0]
    sums = np.zeros((bar.max() + 1, F + 1))  # a row per bar: sizes, and how many rows
    np.add.at(sums, bar, np.column_stack([np.abs(values), np.ones(len(values))]))

    def metric(total: np.ndarray) -> np.ndarray:
        size = total[..., :F] / total[..., F:]
        whole = size.sum(axis=-1, keepdims=True)
        return np.concatenate([size, size / np.where(whole > 0, whole, 1.0)], axis=-1)

    said = resample(metric, sums, span, resamples, seed)
    size, share = np.split(said.value, 2)
    drawn = np.maximum(said.drawn, 0.0)  # spread about the mean, a small size would fall below
    ends = np.array([interval(column) for column in drawn.T])
    low, high = np.minimum(ends[:, 0], said.value), np.maximum(ends[:, 1], said.value)
    ranks = (-drawn[:, :F]).argsort(axis=1, kind="stable").argsort(axis=1) + 1
    rank_ends = np.quantile(ranks, [0.025, 0.975], axis=0, method="closest_observation")
    columns = (size, low[:F], high[:F], share, low[F:], high[F:], *rank_ends)
    table = pd.DataFrame(
        dict(zip(COLUMNS, columns, strict=True)), pd.Index(map(str, pushes.columns))
    ).assign(mean=values.mean(axis=0))
    table = table.astype("float64")
    return table.sort_values("size", ascending=False, kind="stable")


def plain(table: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """A table of `Importance` as nested plain values; NaN is None."""
    return {
        str(name): {
            str(key): float(value) if np.isfinite(value) else None for key, value in row.items()
        }
        for name, row in table.iterrows()
    }
