"""What happened when it last looked like this: the rows of the past that are most like a row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from stages.base import DataError, Explanation
from stages.explain.memory import Memory, column_of
from stages.panel import settled
from stages.signal import SIDE_TEXT

CLIP = 50.0  # training sds, as in `Novelty`: far enough for any row to be far
LEVEL = 0.90  # of the intervals


@dataclass(frozen=True)
class Episode:
    """A row of the past.

    Attributes
    ----------
    asset, time, ended : str
        Times in ISO format, UTC; `ended` is when its outcome was known.
    distance : float >= 0
    side : int
        What paid.
    ret : float or None
        Return over the label's span, fraction.
    weight : float
        Rows of the training that it stands for.
    """

    asset: str
    time: str
    ended: str
    distance: float
    side: int
    ret: float | None
    weight: float


@dataclass(frozen=True)
class Episodes:
    """The episodes most like a row, and how they ended.

    Plain values: `dataclasses.asdict` gives what can be stored as JSON.

    Attributes
    ----------
    asset, time : str
    episodes : tuple of Episode
        Nearest first.
    known : int
        Rows whose outcome was known at the time, of which they were chosen.
    witnesses : int
        Stretches of time without overlap that the episodes fall in: what happened to many assets
        at once happened once.
    side : int
        The side told of: the one the row leans to, else the commonest outcome of the episodes.
    count : int
        Episodes that ended so.
    share, low, high : float or None
        Share of the episodes that ended so, by weight, and its interval.
    base : float or None
        The same share of all known rows.
    ret, ret_low, ret_high, base_ret : float or None
        Mean return of the episodes, its interval, and that of all known rows; fractions.
    text : str
    """

    asset: str
    time: str
    episodes: tuple[Episode, ...]
    known: int
    witnesses: int
    side: int
    count: int
    share: float | None
    low: float | None
    high: float | None
    base: float | None
    ret: float | None
    ret_low: float | None
    ret_high: float | None
    base_ret: float | None
    text: str


def episodes(
    panel: pd.DataFrame,
    rows: pd.MultiIndex,
    memory: Memory,
    horizon: int,
    k: int = 20,
    why: Explanation | None = None,
    novelty: Any = None,
) -> list[Episodes]:
    """Find the rows of the past most like each row, and tell how they ended.

    Only rows whose whole horizon was over at the time of the row count. Two episodes of one
    asset are at least `horizon` bars apart, so that none is told twice.

    Parameters
    ----------
    panel : DataFrame of shape (N, F)
        Inputs of `rows`, and `margin` where it is known.
    rows : MultiIndex of n rows
    memory : Memory
    horizon : int >= 1
        Bars of a label.
    k : int >= 1, default=20
    why : Explanation, optional
        Of `rows`. Inputs then count by the size of their contributions: the distance is the root
        mean square of the differences in training standard deviations, weighted so.
    novelty : Novelty, optional
        Where there is no explanation: its Mahalanobis distance. Without either all inputs count
        alike. What is missing counts as the training mean.

    Returns
    -------
    list of n Episodes

    Notes
    -----
    Where labels may end early and their whole horizon is not known, a row counts once the
    longest label known by then would be over: labels that end early are not the ones that hold.
    Of a memory that is a sample, shares are weighed by what each row stands for. The share has
    the Wilson interval, for as many independent rows as there are witnesses, or as the weights
    leave if these are fewer; the mean return has the t interval of the witnesses' means.

    References
    ----------
    Wilson (1927), "Probable inference", JASA 22; Kish (1965), "Survey Sampling", 11.7 (the
    number of rows that weights leave); Liang & Zeger (1986), Biometrika 73 (means of clusters).
    """
    if horizon < 1 or k < 1:
        raise ValueError(f"need horizon >= 1 and k >= 1, got horizon={horizon}, k={k}")
    missing = rows[panel.index.get_indexer(rows) < 0]
    if len(missing):
        asset, time = missing[0]
        raise DataError(
            f"{asset} has no bar at {time}", code="SV-F18", cure="ask for a bar in the data"
        )
    times = pd.DatetimeIndex(memory.y.index.get_level_values("time"))
    over = settled(memory.y)
    out = []
    for asset, time in rows:
        known = (over <= time).to_numpy()
        if "horizon_end" not in memory.y and known.any():
            known = known & (times + (over - times)[known].max() <= time)
        row = panel.loc[(asset, time)]
        distance = _distance(row, memory, _weights(why, (asset, time), memory), novelty)
        chosen = _apart(distance, known, memory, horizon, k)
        lean = row.get("margin", np.nan)
        out.append(_told((str(asset), time), memory, distance, known, chosen, lean))
    return out


def _weights(
    why: Explanation | None, row: tuple[str, pd.Timestamp], memory: Memory
) -> np.ndarray | None:
    """Share of each input of the memory in the size of the contributions, (F,)."""
    if why is None:
        return None
    size = np.zeros(len(memory.columns))
    for name, push in why.contributions.loc[[row]].iloc[0].items():  # type: ignore[list-item]
        if column_of(str(name)) in memory.columns:
            size[memory.columns.index(column_of(str(name)))] += abs(push)
    return size / size.sum() if size.sum() > 0 else None


def _distance(
    row: pd.Series, memory: Memory, weights: np.ndarray | None, novelty: Any
) -> np.ndarray:
    """Distance of the row to each of the memory, (n,)."""
    if weights is None and novelty is not None and len(novelty.columns_):
        columns = list(novelty.columns_)
        held = memory.inputs[columns].to_numpy(dtype="float64")
        here = row[columns].to_numpy(dtype="float64")
        a, b = (
            np.nan_to_num(np.clip((x - novelty.center_) / novelty.spread_, -CLIP, CLIP))
            for x in (held, here)
        )
        # column by column: the last bits of a matrix product depend on how many rows there are
        turned = sum(
            off[:, None] * root for off, root in zip((a - b).T, novelty.root_, strict=True)
        )
        return np.sqrt(_sum(np.square(turned).T) / len(columns))
    if weights is None:
        weights = np.full(len(memory.columns), 1 / len(memory.columns))
    here = memory.standardised(row[memory.columns].to_numpy(dtype="float64"))
    return np.sqrt(_sum(weights[:, None] * np.square(memory.rows - here).T))


def _sum(columns: np.ndarray) -> np.ndarray:
    return np.asarray(sum(columns))


def _apart(
    distance: np.ndarray, known: np.ndarray, memory: Memory, horizon: int, k: int
) -> list[int]:
    """Row numbers of the nearest `k` that are known, none within `horizon` bars of a nearer."""
    asset = memory.y.index.get_level_values("asset").factorize()[0]
    chosen: list[int] = []
    bars: dict[int, list[int]] = {}
    at = np.flatnonzero(known)
    for row in at[np.argsort(distance[at], kind="stable")]:
        own = bars.setdefault(int(asset[row]), [])
        if all(abs(int(memory.bar[row]) - bar) >= horizon for bar in own):
            own.append(int(memory.bar[row]))
            chosen.append(int(row))
            if len(chosen) == k:
                break
    return chosen


def _told(
    row: tuple[str, pd.Timestamp],
    memory: Memory,
    distance: np.ndarray,
    known: np.ndarray,
    chosen: list[int],
    lean: float,
) -> Episodes:
    y, side = memory.y, memory.y["side"].to_numpy()
    ret = y["ret"].to_numpy(dtype="float64") if "ret" in y else np.full(len(y), np.nan)
    starts = pd.DatetimeIndex(y.index.get_level_values("time"))
    ends, assets = pd.DatetimeIndex(y["end"]), y.index.get_level_values("asset")
    found = tuple(
        Episode(
            asset=str(assets[i]),
            time=starts[i].isoformat(),
            ended=ends[i].isoformat(),
            distance=float(distance[i]),
            side=int(side[i]),
            ret=float(ret[i]) if np.isfinite(ret[i]) else None,
            weight=float(memory.weight[i]),
        )
        for i in chosen
    )
    at = np.array(chosen, dtype=int)
    weight = memory.weight[at]
    cluster = _stretches(starts[at].asi8, pd.DatetimeIndex(settled(y))[at].asi8)
    witnesses = int(cluster.max(initial=-1)) + 1
    told = _side(lean, side[at], weight)
    share, low, high = _share(side[at] == told, weight, witnesses)
    mean, ret_low, ret_high = _mean(ret[at], weight, cluster)
    heard = known & np.isfinite(ret)
    facts = {
        "episodes": found,
        "known": int(known.sum()),
        "witnesses": witnesses,
        "side": told,
        "count": int((side[at] == told).sum()),
        "share": share,
        "low": low,
        "high": high,
        "base": _average((side == told)[known], memory.weight[known]),
        "ret": mean,
        "ret_low": ret_low,
        "ret_high": ret_high,
        "base_ret": _average(ret[heard], memory.weight[heard]),
    }
    return Episodes(row[0], row[1].isoformat(), text=_text(facts), **facts)  # type: ignore[arg-type]


def _side(lean: float, sides: np.ndarray, weight: np.ndarray) -> int:
    if np.isfinite(lean):
        return 1 if lean >= 0 else -1
    mass = {side: float(weight[sides == side].sum()) for side in (1, 0, -1)}
    return max(mass, key=lambda side: mass[side])


def _stretches(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Number of the stretch of time that each episode falls in: what overlaps is one."""
    out, number, reach = np.zeros(len(starts), dtype=int), -1, np.iinfo("int64").min
    for i in np.argsort(starts, kind="stable"):
        number += starts[i] >= reach
        reach = max(reach, ends[i])
        out[i] = number
    return out


def _average(values: np.ndarray, weight: np.ndarray) -> float | None:
    return float(weight @ values / weight.sum()) if len(values) else None


def _share(
    hit: np.ndarray, weight: np.ndarray, witnesses: int
) -> tuple[float | None, float | None, float | None]:
    """Weighted share and its Wilson interval."""
    if not len(hit):
        return None, None, None
    p = float(weight @ hit / weight.sum())
    n = min(float(weight.sum() ** 2 / (weight**2).sum()), witnesses)
    z = norm.ppf((1 + LEVEL) / 2)
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return p, float(max(middle - half, 0.0)), float(min(middle + half, 1.0))


def _mean(
    ret: np.ndarray, weight: np.ndarray, cluster: np.ndarray
) -> tuple[float | None, float | None, float | None]:
    """Weighted mean and its t interval, rows of a cluster being as good as one."""
    heard = np.isfinite(ret)
    if not heard.any():
        return None, None, None
    ret, weight, cluster = (
        ret[heard],
        weight[heard],
        np.unique(cluster[heard], return_inverse=True)[1],
    )
    mean, count = float(weight @ ret / weight.sum()), int(cluster.max()) + 1
    if count < 2:
        return mean, None, None
    off = np.bincount(cluster, weight * (ret - mean))
    sd = np.sqrt(count / (count - 1) * (off**2).sum()) / weight.sum()
    half = float(t.ppf((1 + LEVEL) / 2, count - 1) * sd)
    return mean, mean - half, mean + half


def _text(facts: Mapping[str, Any]) -> str:
    if not facts["episodes"]:
        return "No row of the past whose outcome was known then is kept."
    total, name = len(facts["episodes"]), SIDE_TEXT[facts["side"]]
    text = (
        f"Of the {total} most similar rows of the past {facts['count']} ended as {name}: "
        f"{facts['share']:.0%} by weight, {_range(facts['low'], facts['high'], '.0%')}, "
        f"against {facts['base']:.0%} of all {facts['known']:,} known then"
    )
    if facts["ret"] is not None:
        text += f"; mean return {facts['ret']:+.2%}"
        if facts["ret_low"] is not None:
            text += f", {_range(facts['ret_low'], facts['ret_high'], '+.2%')}"
        text += f", against {facts['base_ret']:+.2%}"
    w = facts["witnesses"]
    return f"{text} ({LEVEL:.0%} intervals, {w} stretch{'es' if w != 1 else ''} of time)."


def _range(low: float, high: float, form: str) -> str:
    return f"{low:{form}} to {high:{form}}"
