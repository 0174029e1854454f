"""Bars from ticks: by the clock, by trades, by volume or by money, with every unit accounted for.

A bar closes at its last tick, or at the end of its span of the clock, and is known then. Ticks of
one instant cannot be told apart in time, so a bar never ends between them. What comes after the
last full bar belongs to no bar yet: `split` leaves it out, and says how many ticks it is.

References
----------
Lopez de Prado (2018), "Advances in Financial Machine Learning", ch. 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numba import njit

from stages.base import DataError
from stages.features.kernels import shifted
from stages.features.microstructure import mid, order_flow
from stages.features.trades import tick_rule

BY = ("time", "ticks", "volume", "value")


@dataclass(frozen=True)
class Cut:
    """Where a bar ends.

    Parameters
    ----------
    by : {'time', 'ticks', 'volume', 'value'}
    size : float > 0
        Trades, units or money of a bar; a bar closes with the instant that reaches it. Of time
        bars, the spans of the clock say it: see `stages.features.timeframes.spans`.
    sizes : sequence of 2 floats, default=(500, 10000)
        Units below which a trade is small, and from which on it is large. The default is Barclay
        & Warner's for shares.
    memory : int >= 1, default=100
        Trades that the tick rule looks back on, where no side is given.
    """

    by: Literal["time", "ticks", "volume", "value"] = "time"
    size: float = 1.0
    sizes: Sequence[float] = (500, 10_000)
    memory: int = 100

    def __post_init__(self) -> None:
        if self.by not in BY:
            raise ValueError(f"by must be one of {', '.join(BY)}, got {self.by!r}")
        if not self.size > 0 or self.memory < 1:
            raise ValueError(f"need size > 0 and memory >= 1, got {self.size}, {self.memory}")
        if len(self.sizes) != 2 or not 0 < self.sizes[0] <= self.sizes[1]:
            raise ValueError(f"need two sizes that ascend, got {self.sizes}")


def split(ticks: pd.DataFrame, cut: Cut, ends: pd.DatetimeIndex | None = None) -> np.ndarray:
    """Number of the last tick of each full bar: int64 of shape (B,).

    Parameters
    ----------
    ticks : DataFrame of shape (N, F)
        Of one asset, indexed by UTC time, ascending; `price` and `volume`, NaN and 0 in a row that
        is no trade.
    cut : Cut
    ends : DatetimeIndex of N times, optional
        End of the span of the clock that each tick falls in: of time bars.

    Raises
    ------
    DataError
        SV-F03 for ticks out of order.
    """
    times = pd.DatetimeIndex(ticks.index)
    if not times.is_monotonic_increasing:
        raise DataError(
            "ticks are out of order",
            code="SV-F03",
            where=f"first at {times[1:][np.diff(times.asi8) < 0][0]}",
            cure="sort them by time",
        )
    if cut.by == "time":
        if ends is None or len(ends) != len(times):
            raise ValueError("time bars need the end of the span of each tick")
        known = ends.as_unit("us").asi8
        over = np.append(known[1:] != known[:-1], times.as_unit("us").asi8[-1:] >= known[-1:])
        return np.flatnonzero(over)
    traded = ticks["volume"].to_numpy("float64")
    amount = {"ticks": (traded > 0).astype("float64"), "volume": traded}.get(cut.by)
    if amount is None:
        amount = _money(ticks)
    last = np.append(times.asi8[1:] != times.asi8[:-1], len(times) > 0)
    return _full(amount, last[: len(times)], float(cut.size))


def gather(
    ticks: pd.DataFrame, last: np.ndarray, cut: Cut, ends: pd.DatetimeIndex | None = None
) -> pd.DataFrame:
    """The bars that end with the ticks `last`, indexed by the time at which each is known.

    Parameters
    ----------
    ticks : DataFrame of shape (N, F)
        See `split`. With `bid`, `ask`, `bid_size` and `ask_size` the book after each tick; with
        `side` 1 for a buyer and -1 for a seller, else the tick rule says.
    last : int ndarray of shape (B,)
        What `split` gave.
    cut : Cut
    ends : DatetimeIndex of N times, optional
        Of time bars, as for `split`; others are known at their last tick.

    Returns
    -------
    DataFrame of B rows
        Open, high, low and close of the mid where there are quotes, of the trades elsewhere; and
        the columns of `stages.features.microstructure` and `stages.features.trades`. Sums over
        the bars are the sums over the ticks up to the last of `last`.
    """
    full = ticks.iloc[: last[-1] + 1 if len(last) else 0]
    starts = np.concatenate([[0], last[:-1] + 1]).astype("int64")[: len(last)]
    columns = {str(name): full[name].to_numpy("float64", copy=True) for name in full}
    quotes = "bid" in columns
    level = mid(columns["bid"], columns["ask"]) if quotes else columns["price"]
    made = {"open": level[starts], "close": level[last]}
    made |= {"high": _reduce(np.maximum, level, starts), "low": _reduce(np.minimum, level, starts)}
    side = columns["side"] if "side" in columns else tick_rule(columns["price"], cut.memory)
    flows = _trades(columns["volume"], _money(full), side, cut)
    if quotes:
        made |= {name: columns[name][last] for name in ("bid", "ask")}
    if "bid_size" in columns:
        made |= {name: columns[name][last] for name in ("bid_size", "ask_size")}
        book = [columns[name] for name in ("bid", "ask", "bid_size", "ask_size")]
        flows["ofi"] = order_flow(*book)
        depth, count = (book[2] + book[3]) / 2, np.diff(np.append(starts, len(full)))
        made["depth"] = _reduce(np.add, depth, starts) / count
    if quotes:
        flows["cost"] = _cost(columns, side, shifted(level, 1))
    made |= {name: _reduce(np.add, flow, starts) for name, flow in flows.items()}
    return pd.DataFrame(made, (full.index if ends is None else ends)[last])


def _trades(
    volume: np.ndarray, value: np.ndarray, side: np.ndarray, cut: Cut
) -> dict[str, np.ndarray]:
    """What each tick adds to the sums of its bar; a trade without a side is of neither."""
    small, large = cut.sizes
    traded = volume > 0
    return {
        "volume": volume,
        "value": value,
        "trades": traded.astype("float64"),
        "buy_volume": np.where(side > 0, volume, 0.0),
        "sell_volume": np.where(side < 0, volume, 0.0),
        "signed_volume": np.where(side > 0, volume, 0.0) - np.where(side < 0, volume, 0.0),
        "signed_value": np.where(side > 0, value, 0.0) - np.where(side < 0, value, 0.0),
        "small_volume": np.where(volume < small, volume, 0.0),
        "large_volume": np.where(volume >= large, volume, 0.0),
        "size_squares": volume**2,
    }


def _cost(columns: dict[str, np.ndarray], side: np.ndarray, met: np.ndarray) -> np.ndarray:
    """Twice what the taker of each tick paid beyond the mid that it met, money; 0 of no trade."""
    beyond = 2 * columns["volume"] * np.sign(side) * (columns["price"] - met)
    return np.where(columns["volume"] > 0, beyond, 0.0)


def _money(ticks: pd.DataFrame) -> np.ndarray:
    volume = ticks["volume"].to_numpy("float64")
    return np.where(volume > 0, ticks["price"].to_numpy("float64") * volume, 0.0)


def _reduce(add: np.ufunc, x: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return add.reduceat(x, starts) if len(starts) else np.empty(0)


@njit(cache=True, nogil=True)
def _full(amount: np.ndarray, last: np.ndarray, size: float) -> np.ndarray:
    """Ticks at which an instant ends and what has come since the bar before reaches `size`."""
    ends = np.empty(len(amount), np.int64)
    count, held = 0, 0.0
    for i in range(len(amount)):
        held += amount[i]
        if last[i] and held >= size:
            ends[count] = i
            count, held = count + 1, 0.0
    return ends[:count]
