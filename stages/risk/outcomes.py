"""What signals came to: outcomes attached as their labels mature, and tables of performance."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from stages.evaluate.bootstrap import interval, resample
from stages.panel import check_labels, settled

LEAST_BARS = 10  # of which an interval is given
FIGURES = ("hit", "base_rate", "mcc", "return", "excess", "net")
SHARES = ("hit", "base_rate")


def attach(
    table: pd.DataFrame,
    labels: pd.DataFrame,
    now: pd.Timestamp,
    benchmark: pd.Series | None = None,
) -> pd.DataFrame:
    """Attach what each signal came to, where its label has matured.

    Parameters
    ----------
    table : DataFrame of shape (N, F)
        See `stages.risk.life.signal_table`.
    labels : DataFrame of shape (n, 3 to 5)
        See `stages.panel.check_labels`; those whose horizon is not over at `now` are left out.
    now : Timestamp
    benchmark : Series of n floats, optional
        Return of the benchmark over the span of each label, on rows of (asset, time); fraction.

    Returns
    -------
    DataFrame of shape (N, F + 6)
        With `matured` (time), `outcome` (Int8, the side that paid), `hit` (boolean), `return` (of
        the position: the label's return, turned for a sell), `excess` (over the benchmark's) and
        `net` (after the cost of the table). Missing where the label has not matured, where there
        is no side, or where what they are made of is not known; never 0 instead.
    """
    check_labels(labels)
    known = labels[(settled(labels) <= now).to_numpy()]
    rows = pd.MultiIndex.from_frame(table[["asset", "time"]])
    here = known.reindex(rows).set_axis(table.index)
    side = table["side"].astype("Float64").where(table["side"].isin([-1, 1]))
    returns = here["ret"] if "ret" in here else pd.Series(np.nan, table.index)
    gained = (side.astype("float64") * returns).astype("float64")
    outcome = here["side"].astype("Int8")
    over = np.nan if benchmark is None else benchmark.reindex(rows).to_numpy("float64")
    return table.assign(
        matured=here["end"] if "horizon_end" not in here else here["horizon_end"],
        outcome=outcome,
        hit=(outcome == side).astype("boolean"),
        **{"return": gained, "excess": gained - over, "net": gained - table["cost"]},
    )


def performance(
    table: pd.DataFrame,
    by: str | Sequence[str] = ("strategy", "asset", "strength", "model"),
    span: int = 1,
    resamples: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """Hold the signals of each strategy, asset, strength or model against what came.

    Parameters
    ----------
    table : DataFrame of shape (N, F)
        With the columns of `attach`.
    by : str or sequence of str, default=('strategy', 'asset', 'strength', 'model')
        Columns whose values are judged apart, one column after the other.
    span : int >= 1, default=1
        Bars that a label covers; blocks of the bootstrap are at least as long.
    resamples, seed
        See `stages.evaluate.bootstrap.resample`.

    Returns
    -------
    DataFrame of shape (groups, 20)
        Indexed by `by` and `group`: `signals` (with a side), `matured`, and of the matured ones
        `hit` (share that paid), `base_rate` (share of the outcome that was most frequent: what
        saying always the same would have hit), `mcc` (NaN where all sides or outcomes are one),
        `return`, `excess` and `net` (means, fractions), each with its 95 % interval as
        ``*_low`` and ``*_high``. An interval is NaN for fewer than 10 bars. A hit share is never
        given without the base rate beside it.

    References
    ----------
    Gorodkin (2004), "Comparing two K-category assignments", Comput. Biol. Chem. 28 (the MCC).
    """
    played = table[table["side"].isin([-1, 1]).to_numpy()]
    records = {}
    for name in [by] if isinstance(by, str) else by:
        for group, rows in played.groupby(name, sort=True):
            records[name, group] = _judged(rows, span, resamples, seed)
    columns = ["signals", "matured"]
    columns += [f"{name}{end}" for name in FIGURES for end in ("", "_low", "_high")]
    index = pd.MultiIndex.from_tuples(list(records), names=["by", "group"])
    return pd.DataFrame(list(records.values()), index, columns)


def _judged(rows: pd.DataFrame, span: int, resamples: int, seed: int) -> dict[str, float]:
    known = rows[rows["outcome"].notna().to_numpy()]
    out: dict[str, float] = {"signals": len(rows), "matured": len(known)}
    if not len(known):
        return out
    sums = _sums(known)
    values, ends = _figures(sums.sum(axis=0)), np.full((len(FIGURES), 2), np.nan)
    if len(sums) >= LEAST_BARS:
        drawn = resample(_figures, sums, span, resamples, seed).drawn
        ends = np.array([interval(column) for column in drawn.T])
    for name, value, (low, high) in zip(FIGURES, values, ends, strict=True):
        if name in SHARES:
            low, high = np.clip([low, high], 0, 1)
        out |= {name: float(value), f"{name}_low": float(low), f"{name}_high": float(high)}
    return out


def _sums(known: pd.DataFrame) -> np.ndarray:
    """Confusion of outcome and side, and sum and count of each return, by bar: shape (T, 15)."""
    bar = pd.DatetimeIndex(known["time"]).factorize(sort=True)[0]
    cell = (known["outcome"].to_numpy("int64") + 1) * 3 + known["side"].to_numpy("int64") + 1
    bars = bar.max() + 1
    parts = [np.bincount(bar * 9 + cell, minlength=bars * 9).reshape(bars, 9)]
    for name in ("return", "excess", "net"):
        values = known[name].to_numpy("float64")
        there = np.isfinite(values)
        parts += [
            np.bincount(bar[there], weight, bars)[:, None] for weight in (values[there], None)
        ]
    return np.hstack(parts).astype("float64")


def _figures(sums: np.ndarray) -> np.ndarray:
    """`FIGURES` of sums (15,) or (B, 15): shape (6,) or (B, 6)."""
    confusion = sums[..., :9].reshape(*sums.shape[:-1], 3, 3)
    rows, came, said = confusion.sum((-2, -1)), confusion.sum(-1), confusion.sum(-2)
    right = np.trace(confusion, axis1=-2, axis2=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = (rows**2 - (said**2).sum(-1)) * (rows**2 - (came**2).sum(-1))
        mcc = (right * rows - (said * came).sum(-1)) / np.sqrt(spread)
        means = [sums[..., at] / sums[..., at + 1] for at in (9, 11, 13)]
        return np.stack([right / rows, came.max(-1) / rows, mcc, *means], axis=-1)
