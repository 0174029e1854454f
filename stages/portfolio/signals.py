"""Trend signals: above 0 up, below 0 down, as far as the move stands in daily volatilities."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from stages.features.kernels import log_ratio, ratio, window_mean
from stages.features.line import window_slope
from stages.features.trend import SPANS, distance_to_adaptive_average, macd_histogram
from stages.features.volatility import ewma_volatility
from stages.panel import warms_up
from stages.portfolio.prepared import Column, Day, settled

MEMORY = 160  # bars of the volatility that strengths are measured in


@warms_up(lambda slow, signal, **_: max(SPANS * (slow + signal) - 2, MEMORY))
def macd(close: np.ndarray, fast: int = 12, slow: int = 26, signal: int = 9) -> np.ndarray:
    """MACD less its signal line, in daily volatilities: shape (T,).

    References
    ----------
    Appel (2005), "Technical Analysis: Power Tools for Active Investors", ch. 8.
    """
    return ratio(macd_histogram(close, fast, slow, signal), ewma_volatility(close, memory=MEMORY))


@warms_up(lambda bars, memory, **_: max(bars + memory - 1, MEMORY))
def kama(
    close: np.ndarray, bars: int = 10, quick: int = 2, slow: int = 30, memory: int = 200
) -> np.ndarray:
    """Distance of the close from Kaufman's adaptive average, in daily volatilities: shape (T,).

    Parameters
    ----------
    close : ndarray of shape (T,)
    bars : int, default=10
        Window of the efficiency ratio.
    quick, slow : int
        Spans between which the efficiency moves the average.
    memory : int, default=200
        Bars that the average looks back on.

    References
    ----------
    Kaufman (1995), "Smarter Trading", ch. 7.
    """
    distance = distance_to_adaptive_average(close, bars, quick, slow, memory)
    return ratio(distance, ewma_volatility(close, memory=MEMORY))


@warms_up(lambda slow, signal, memory, **_: max(SPANS * (slow + signal) - 2, memory + 9, MEMORY))
def combo(
    close: np.ndarray, fast: int = 12, slow: int = 26, signal: int = 9, memory: int = 200
) -> np.ndarray:
    """The weaker of `macd` and `kama` where they agree, 0 where they do not: shape (T,)."""
    one, other = macd(close, fast, slow, signal), kama(close, memory=memory)
    weaker = np.where(np.abs(one) < np.abs(other), one, other)
    return np.where(
        one * other > 0, weaker, 0.0 * np.abs(one + other)
    )  # NaN where either is unknown


@warms_up(lambda bars, **_: bars - 1)
def slope(close: np.ndarray, bars: int = 20) -> np.ndarray:
    """Least-squares slope of the log close over `bars` bars, fraction per bar: shape (T,)."""
    return window_slope(log_ratio(close, np.ones_like(close)), bars)


@warms_up(lambda bars, **_: bars - 1)
def relative_volume(volume: np.ndarray, bars: int = 20) -> np.ndarray:
    """Volume over its mean of the last `bars` bars: shape (T,)."""
    return ratio(volume, window_mean(volume, bars))


@warms_up(lambda bars, **_: bars - 1)
def traded_value(close: np.ndarray, volume: np.ndarray, bars: int = 20) -> np.ndarray:
    """Mean of close times volume over `bars` bars, currency per bar: shape (T,)."""
    return window_mean(close * volume, bars)


@dataclass(frozen=True)
class Filter:
    """Lets an upward signal through where a column is high enough; exits pass always.

    Parameters
    ----------
    value : callable
        As a feature.
    least : float or None, default=None
        None switches the filter off.
    """

    value: Callable[..., np.ndarray]
    least: float | None = None

    def __post_init__(self) -> None:
        settled(self.value)


@dataclass(frozen=True)
class Trend:
    """Which way each asset moves, on its own.

    Parameters
    ----------
    signal : callable
        As a feature: its sign is the signal, its size the strength.
    filters : mapping of str to Filter, optional
    """

    signal: Callable[..., np.ndarray]
    filters: Mapping[str, Filter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settled(self.signal)

    def columns(self) -> dict[str, Column]:
        """What must be prepared."""
        on = {f"filter.{n}": f.value for n, f in self.filters.items() if f.least is not None}
        return {"strength": self.signal, **on}

    def at(self, day: Day) -> np.ndarray:
        """1, 0, -1 per asset, NaN where signal or filter cannot be told: shape (A,)."""
        side = np.sign(day.column("strength"))
        for name, part in self.filters.items():
            if part.least is None:
                continue
            value = day.column(f"filter.{name}")
            stopped = (side > 0) & ~(value >= part.least)
            side = np.where(stopped, np.where(np.isnan(value), np.nan, 0.0), side)
        return side
