"""The row rules: what makes a bar impossible, and what only makes it odd."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.data.calendar import sessions
from pipeline.data.quality import DUPLICATE, Findings

PRICES = ("open", "high", "low", "close", "adj_close", "bid", "ask")
LARGEST = 1e300  # beyond it, sums and squares of the engines overflow
MATCH = 0.25  # a jump is undone when the way back is as long, within this share of it
REPEATS, REPEATED = 3, 0.6  # so many undone jumps of that size in one asset are a vendor's


@dataclass(frozen=True)
class Limits:
    """Where a price move stops being believable.

    Parameters
    ----------
    jump : float > 0, default=0.4
        A log return beyond it is flagged: a split, or news.
    spike : float > 0, default=1.0
        A log return beyond it that is undone within `spike_bars` refuses the bars between.
    spike_bars : int, default=10
    level : float > 0, default=1.25
        The same for a longer spell, up to `level_bars`: log 3.5, so that a real doubling and
        halving within a year stays.
    level_bars : int, default=400
    tolerance : float >= 0, default=1e-6
        How far, relative, open and close may leave [low, high]: float32 rounding.
    """

    jump: float = 0.4
    spike: float = 1.0
    spike_bars: int = 10
    level: float = 1.25
    level_bars: int = 400
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if not 0 < self.jump <= min(self.spike, self.level):
            raise ValueError(f"need 0 < jump <= spike and level, got {self}")
        if min(self.spike_bars, self.level_bars) < 1 or self.tolerance < 0:
            raise ValueError(f"need spike_bars, level_bars >= 1 and tolerance >= 0, got {self}")


def check_copies(found: Findings, codes: np.ndarray, values: Sequence[str]) -> None:
    """Rows of one asset and time: equal ones count once (F01), different ones all go (F02)."""
    sound = np.flatnonzero(found.sound)
    table = found.table.iloc[sound]
    same = (np.diff(codes[sound], prepend=-1) == 0) & (
        table["known"].diff() == pd.Timedelta(0)
    ).to_numpy()
    if not same.any():
        return
    number = table[list(values)].to_numpy(dtype="float64")
    before = np.roll(number, 1, axis=0)
    equal = ((number == before) | (np.isnan(number) & np.isnan(before))).all(axis=1)
    group = np.cumsum(~same)
    clash = np.isin(group, group[same & ~equal])
    column = _first_difference(number, before, same & ~equal, values)
    found.refuse(_rows(sound[clash], len(codes)), "SV-F02", column)
    found.refuse(_rows(sound[same & ~clash], len(codes)), DUPLICATE, "time")


def _first_difference(
    number: np.ndarray, before: np.ndarray, rows: np.ndarray, values: Sequence[str]
) -> str:
    if not rows.any():
        return "time"
    row = int(rows.argmax())
    return values[int((number[row] != before[row]).argmax())]


def check_values(found: Findings, limits: Limits, negative_allowed: np.ndarray) -> None:
    """Rules that need one row only: F12 and F14.

    Parameters
    ----------
    found : Findings
        Its table holds float64 values.
    limits : Limits
    negative_allowed : bool ndarray of shape (N,)
        Rows of instruments whose price may be zero or below.
    """
    table = found.table
    values = [c for c in table.columns if table[c].dtype in ("float64", "float32")]
    for name in values:
        size = table[name].abs().to_numpy()
        tiny = (size > 0) & (size < np.finfo("float64").tiny)
        found.refuse((size > LARGEST) | tiny, "SV-F12", name)
    for name in [c for c in PRICES if c in table]:
        found.refuse((table[name] <= 0).to_numpy() & ~negative_allowed, "SV-F14.price", name)
    if "volume" in table:
        found.refuse(table["volume"] < 0, "SV-F14.volume", "volume")
    if {"bid", "ask"} <= set(table.columns):
        found.refuse(table["bid"] > table["ask"], "SV-F14.quote", "ask")
    if {"high", "low"} <= set(table.columns):
        found.refuse(table["high"] < table["low"], "SV-F14.range", "high")
    for name in [c for c in ("close", "open") if c in table]:
        slack = limits.tolerance * table[name].abs()
        if "high" in table:
            found.refuse(table[name] > table["high"] + slack, "SV-F14.range", name)
        if "low" in table:
            found.refuse(table[name] < table["low"] - slack, "SV-F14.range", name)


def check_jumps(found: Findings, limits: Limits, codes: np.ndarray) -> None:
    """Impossible moves (F15): refused where they are undone, flagged where they stay.

    A jump that stays may be a split or news, and says nothing about the bars around it. A jump
    that is undone leaves bars at a level the asset never had. Nothing tells which side of a
    short alternation is true, so all bars between the two jumps go.

    Parameters
    ----------
    found : Findings
        Sorted by asset and time.
    codes : int ndarray of shape (N,)
        Asset number of each row.
    """
    close = found.table["close"].to_numpy()
    # bars that another rule refused take part: they bear witness against a spell around them
    timed = found.table["known"].notna().to_numpy() & (found.code != DUPLICATE)
    known = np.flatnonzero(timed & np.isfinite(close) & (close > 0))
    returns = np.diff(np.log(close[known]), prepend=np.nan)
    returns[np.diff(codes[known], prepend=-1) != 0] = np.nan
    jumps = np.flatnonzero(np.abs(returns) > limits.jump)
    found.flag(_rows(known[jumps], len(close)), "SV-F15.jump")
    bad = _undone(returns, jumps, codes[known], ~found.sound[known], limits)
    found.refuse(_rows(known[bad], len(close)), "SV-F15", "close")


def _undone(
    returns: np.ndarray,
    jumps: np.ndarray,
    codes: np.ndarray,
    witnesses: np.ndarray,
    limits: Limits,
) -> np.ndarray:
    """Positions between a jump and its way back, where the pair is a vendor's."""
    first, last = jumps[:-1], jumps[1:]
    size = np.minimum(np.abs(returns[first]), np.abs(returns[last]))
    bars = last - first
    pair = (codes[first] == codes[last]) & (np.abs(returns[first] + returns[last]) <= MATCH * size)
    short = pair & (bars <= limits.spike_bars)
    large = short & (size > REPEATED)
    often = np.bincount(codes[first[large]], minlength=codes.max(initial=0) + 1) >= REPEATS
    broken = np.concatenate([[0], np.cumsum(witnesses)])
    share = (broken[last] - broken[first]) / bars
    vendor = (short & (size > limits.spike)) | (large & often[codes[first]])
    vendor |= pair & (bars <= limits.level_bars) & ((size > limits.level) | (share >= 0.5))
    spells: Sequence[np.ndarray] = [
        np.arange(a, b) for a, b in zip(first[vendor], last[vendor], strict=True)
    ]
    return np.concatenate(spells) if spells else np.empty(0, dtype="int64")


def check_missing(found: Findings) -> None:
    """A bar without a close (F10) stays NaN, flagged; windows that span it are NaN later."""
    found.flag(found.table["close"].isna(), "SV-F10")


def check_sessions(found: Findings, codes: np.ndarray, calendars: pd.Series | None) -> None:
    """Bars without a session (F05) go; missing sessions (F04) are flagged at the later bar.

    Parameters
    ----------
    found : Findings
        Sorted by asset and time.
    calendars : Series of N text, or None
        Calendar of each row's asset.
    """
    if calendars is None:
        return
    day = pd.DatetimeIndex(found.table["session"])
    for calendar in calendars.unique():
        mine = np.flatnonzero((calendars == calendar).to_numpy() & found.sound)
        if not len(mine):
            continue
        table = sessions(str(calendar), day[mine].min(), day[mine].max())
        place = table.index.get_indexer(day[mine])
        found.refuse(_rows(mine[place < 0], len(codes)), "SV-F05", "session")
        gap = (np.diff(place, prepend=0) > 1) & (np.diff(codes[mine], prepend=-1) == 0)
        found.flag(_rows(mine[gap], len(codes)), "SV-F04")


def _rows(positions: np.ndarray, n: int) -> np.ndarray:
    flags = np.zeros(n, dtype=bool)
    flags[positions] = True
    return flags
