"""Prices that held before: support, resistance, breakouts beyond them, gaps between bars."""

import numpy as np
from numba import njit

from stages.features.kernels import (
    log_ratio,
    ratio,
    shifted,
    window_max,
    window_min,
    window_sum,
    windowed,
)
from stages.panel import warms_up


@warms_up(lambda bars, **_: bars)
def distance_to_support(low: np.ndarray, close: np.ndarray, bars: int = 20) -> np.ndarray:
    """Log distance of the close from the lowest low of the `bars` bars before this: (T,).

    References
    ----------
    Osler (2000), "Support for Resistance: Technical Analysis and Intraday Exchange Rates",
    FRBNY Economic Policy Review 6(2).
    """
    return log_ratio(close, shifted(window_min(low, bars), 1))


@warms_up(lambda bars, **_: bars)
def distance_to_resistance(high: np.ndarray, close: np.ndarray, bars: int = 20) -> np.ndarray:
    """Log distance of the close from the highest high of the `bars` bars before this: (T,).

    References
    ----------
    Osler (2000), "Support for Resistance: Technical Analysis and Intraday Exchange Rates",
    FRBNY Economic Policy Review 6(2).
    """
    return log_ratio(close, shifted(window_max(high, bars), 1))


@warms_up(lambda bars, **_: bars)
def breakout(high: np.ndarray, low: np.ndarray, close: np.ndarray, bars: int = 20) -> np.ndarray:
    """How far the close is beyond the range of the `bars` bars before, in ranges: shape (T,).

    0 within, above 0 over the top, below 0 under the bottom; NaN after bars without a range.

    References
    ----------
    Donchian's channel, as in Faith (2007), "Way of the Turtle", ch. 10.
    """
    top = shifted(window_max(high, bars), 1)
    bottom = shifted(window_min(low, bars), 1)
    beyond = np.maximum(close - top, 0) - np.maximum(bottom - close, 0)
    return ratio(beyond, top - bottom)


@warms_up(lambda bars, **_: bars - 1)
def congestion(low: np.ndarray, high: np.ndarray, close: np.ndarray, bars: int = 60) -> np.ndarray:
    """Share of the last `bars` bars whose range holds the close: (0, 1], shape (T,).

    References
    ----------
    Edwards & Magee (1948), "Technical Analysis of Stock Trends", ch. 13: trading at a price is
    what makes it support or resistance.
    """
    return windowed(_holding, [low, high, close], bars)


@warms_up(lambda **_: 1)
def gap(open: np.ndarray, close: np.ndarray) -> np.ndarray:
    """Log of the open over the close before, fraction: shape (T,)."""
    return log_ratio(open, shifted(close, 1))


@warms_up(lambda bars, **_: bars)
def overnight(open: np.ndarray, close: np.ndarray, bars: int = 20) -> np.ndarray:
    """Sum of the gaps of the last `bars` bars, fraction: shape (T,).

    References
    ----------
    Lou, Polk & Skouras (2019), "A tug of war: Overnight versus intraday expected returns",
    J. Financial Economics 134(1).
    """
    return window_sum(gap(open, close), bars)


@warms_up(lambda bars, **_: bars - 1)
def within_bars(open: np.ndarray, close: np.ndarray, bars: int = 20) -> np.ndarray:
    """Sum of the log returns from open to close of the last `bars` bars, fraction: (T,)."""
    return window_sum(log_ratio(close, open), bars)


@njit(cache=True, nogil=True)
def _holding(
    low: np.ndarray, high: np.ndarray, close: np.ndarray, out: np.ndarray, bars: int, step: int
) -> None:
    out[:] = np.nan
    rows = len(close) - (bars - 1) * step
    if rows > 0:
        last, own = out[(bars - 1) * step :], close[(bars - 1) * step :]
        last[:] = 0.0
        for k in range(bars):
            bottom, top = low[k * step :], high[k * step :]
            for i in range(rows):
                held = (bottom[i] <= own[i]) * (own[i] <= top[i])
                last[i] += held + 0.0 * (bottom[i] + top[i])
        for i in range(rows):
            last[i] = last[i] / bars + (own[i] - own[i])  # 0, or NaN
