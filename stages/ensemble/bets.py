"""What every bar came to for those who bet on its directions: leans, moves, when they are known."""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from stages.base import DataError
from stages.panel import asset_starts, check_panel, settled

NEVER = np.iinfo("int64").max
NOTHING = 1e-9  # distance of leans that is none: what rounding leaves must not be scaled up


@dataclass(frozen=True)
class Bars:
    """Rows summed up by bar: lists of T values, times in microseconds since 1970.

    Attributes
    ----------
    times, due : list of int
        When each bar was, and when it is settled; NEVER while that is open.
    alone : list of str
        The asset of a bar that speaks of one only, else empty.
    size : list of float
        Mean distance of the leans from their mean, all assets of the bar; of one, its lean.
    moved, net, spread, paid : list of float
        Over the assets that moved: their number, the sum of their signs, the mean size of their
        leans, and the mean of lean times sign; leans less their mean unless `alone`.
    now : int
    """

    times: list[int]
    due: list[int]
    alone: list[str]
    size: list[float]
    moved: list[float]
    net: list[float]
    spread: list[float]
    paid: list[float]
    now: int

    @classmethod
    def of(cls, said: pd.DataFrame, y: pd.DataFrame, span: int, now: pd.Timestamp | None) -> Self:
        end = NEVER if now is None else int(_us(pd.DatetimeIndex([now]))[0])
        sell, buy = (said[name].to_numpy("float64") for name in ("p_sell", "p_buy"))
        with np.errstate(invalid="ignore", divide="ignore"):
            lean = (buy - sell) / (buy + sell)
        said, lean = said[np.isfinite(lean)], lean[np.isfinite(lean)]
        known, sign = _outcomes(said, y, span, end)
        asset, time = (said.index.get_level_values(level) for level in ("asset", "time"))
        order = np.lexsort((asset.factorize(sort=True)[0], _us(time)))
        lean, known, sign, at = lean[order], known[order], sign[order], _us(time)[order]
        times, first = np.unique(at, return_index=True)
        if not len(times):
            return cls([], [], [], [], [], [], [], [], end)
        rows = np.diff(np.append(first, len(at)))
        patience = np.append(times[2 * span :], np.full(min(2 * span, len(times)), NEVER))
        due = np.minimum(np.maximum.reduceat(known, first), patience)
        due = np.where(due > end, NEVER, due)
        bar = np.repeat(np.arange(len(times)), rows)
        alone = rows == 1
        apart = _distance(lean - np.where(alone, 0, np.add.reduceat(lean, first) / rows)[bar])
        counts = ((sign != 0) & (known <= due[bar])).astype("float64")
        moved = np.add.reduceat(counts, first)
        share = counts / np.maximum(moved, 1)[bar]
        middle = np.where(alone, 0, np.add.reduceat(share * lean, first))
        own = _distance(lean - middle[bar])
        return cls(
            times.tolist(),
            due.tolist(),
            np.where(alone, asset[order][first].astype(str), "").tolist(),
            (np.add.reduceat(np.abs(apart), first) / rows).tolist(),
            moved.tolist(),
            np.add.reduceat(counts * sign, first).tolist(),
            np.add.reduceat(share * np.abs(own), first).tolist(),
            np.add.reduceat(share * own * sign, first).tolist(),
            end,
        )

    def settled(self, time: int) -> tuple[int, int]:
        """When the bar at `time` is settled, and its number."""
        b = bisect_left(self.times, time)
        if b == len(self.times) or self.times[b] != time:
            bar = pd.Timestamp(time, unit="us", tz="UTC")
            raise DataError(
                f"what was said at {bar} is not among the rows",
                code="SV-F18",
                why="a bet is open on that bar",
                cure="bring all rows of the last 2 span_ bars that were bet on, beside the new",
            )
        return self.due[b], b

    def outcome(self, b: int, usual: float, drift: float) -> float:
        """What a stake of 1 on bar `b` wins, in [-1, 1]."""
        scale = max(usual, self.spread[b])
        if not self.moved[b] or scale == 0:
            return 0.0
        if not self.alone[b]:
            return self.paid[b] / scale
        lean = self.paid[b] * self.net[b]
        return (self.paid[b] - drift * lean) / (scale * (1 + abs(drift)))


def _outcomes(
    said: pd.DataFrame, y: pd.DataFrame, span: int, now: int
) -> tuple[np.ndarray, np.ndarray]:
    """When it is known what came of each row, NEVER if it is not, and the sign of its move."""
    check_panel(y, ["side", "end"])
    at = y.index.get_indexer(said.index)
    heard = at >= 0
    known = np.full(len(said), NEVER)
    known[heard] = _us(settled(y))[at[heard]]
    known = np.where(known > now, NEVER, known)
    sign = np.zeros(len(said))
    sign[heard] = y["side"].to_numpy("float64")[at[heard]]
    starts = asset_starts(said)
    last = np.repeat(starts[1:], np.diff(starts))
    row = np.arange(len(said)) + span
    time = _us(said.index.get_level_values("time"))
    later = np.where(row < last, time[np.minimum(row, len(said) - 1)], NEVER) if len(said) else row
    return np.minimum(known, later), np.where((known <= later) & (known < NEVER), sign, 0.0)


def _distance(apart: np.ndarray) -> np.ndarray:
    return np.where(np.abs(apart) > NOTHING, apart, 0.0)


def _us(times: pd.Index | pd.Series) -> np.ndarray:
    return pd.DatetimeIndex(times).as_unit("us").asi8
