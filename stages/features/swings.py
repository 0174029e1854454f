"""Momentum of ranges and runs: where the close, the extremes and the last moves stand."""

import numpy as np
from numba import njit

from stages.features.candles import typical_price
from stages.features.kernels import (
    log_ratio,
    ratio,
    shifted,
    window_max,
    window_mean,
    window_min,
    window_moment,
    window_sum,
    windowed,
)
from stages.features.order import window_age_of_max, window_age_of_min
from stages.features.oscillators import relative_strength
from stages.features.shared import shared
from stages.features.volatility import true_range
from stages.panel import warms_up


@warms_up(lambda bars, smooth, **_: bars + smooth - 2)
@shared
def stochastic_fast(
    high: np.ndarray, low: np.ndarray, close: np.ndarray, bars: int = 14, smooth: int = 3
) -> np.ndarray:
    """Stochastic %K, averaged over `smooth` bars, 0 to 100: shape (T,).

    As `oscillators.stochastic_k`, but summed afresh in each window instead of by TA-Lib's running
    sums, whose last digits depend on where the series began; and known as soon as its own window
    is, not only with %D.

    References
    ----------
    Lane (1984), "Lane's Stochastics", Technical Analysis of Stocks & Commodities 2(3).
    """
    top, bottom = window_max(high, bars), window_min(low, bars)
    return window_mean(100 * ratio(close - bottom, top - bottom), smooth)


@warms_up(lambda bars, smooth, **_: bars + 2 * smooth - 3)
def stochastic_slow(
    high: np.ndarray, low: np.ndarray, close: np.ndarray, bars: int = 14, smooth: int = 3
) -> np.ndarray:
    """Stochastic %D: average of %K over `smooth` bars, 0 to 100: shape (T,).

    References
    ----------
    Lane (1984), "Lane's Stochastics", Technical Analysis of Stocks & Commodities 2(3).
    """
    return window_mean(stochastic_fast(high, low, close, bars, smooth), smooth)


@warms_up(lambda bars, **_: bars - 1)
def channel_index(
    high: np.ndarray, low: np.ndarray, close: np.ndarray, bars: int = 20
) -> np.ndarray:
    """CCI: typical price from its average, in 0.015 mean absolute deviations: shape (T,).

    As `oscillators.commodity_channel`, but summed in the order of the bars, whatever the place
    of the window in the series.

    References
    ----------
    Lambert (1980), "Commodity Channel Index", Commodities magazine, October.
    """
    typical = typical_price(high, low, close)
    mean = window_mean(typical, bars)
    spread = window_moment(typical, mean, bars, 1)
    # where nothing moved, rounding may leave a spread
    moved = window_max(typical, bars) > window_min(typical, bars)
    return ratio(typical - mean, np.where(moved, 0.015 * spread, np.nan))


@warms_up(lambda memory, bars, **_: memory + bars - 1)
def stochastic_strength(
    close: np.ndarray, period: int = 14, bars: int = 14, memory: int = 140
) -> np.ndarray:
    """StochRSI: place of the RSI in its own range of `bars` bars, 0 to 100: shape (T,).

    Parameters
    ----------
    close : ndarray of shape (T,)
    period, memory : int
        See `relative_strength`.
    bars : int, default=14

    References
    ----------
    Chande & Kroll (1994), "The New Technical Trader", ch. 7.
    """
    strength = relative_strength(close, period, memory)
    top, bottom = window_max(strength, bars), window_min(strength, bars)
    return 100 * ratio(strength - bottom, top - bottom)


@warms_up(lambda slow, **_: slow)
def ultimate_oscillator(
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,
    fast: int = 7,
    middle: int = 14,
    slow: int = 28,
) -> np.ndarray:
    """Buying pressure in the true range over three windows, 0 to 100: shape (T,).

    References
    ----------
    Williams (1985), "The Ultimate Oscillator", Technical Analysis of Stocks & Commodities 3(4).
    """
    if not 0 < fast < middle < slow:
        raise ValueError(f"need 0 < fast < middle < slow, got {fast}, {middle}, {slow}")
    pressure = close - np.minimum(low, shifted(close, 1))
    span = true_range(high, low, close)
    shares = [ratio(window_sum(pressure, n), window_sum(span, n)) for n in (fast, middle, slow)]
    return 100 * (4 * shares[0] + 2 * shares[1] + shares[2]) / 7


@warms_up(lambda bars, **_: bars)
def aroon_up(high: np.ndarray, bars: int = 25) -> np.ndarray:
    """100 where the highest high of `bars` bars and this one is this one, 0 the oldest: (T,).

    References
    ----------
    Chande (1995), "A Time Price Oscillator", Technical Analysis of Stocks & Commodities 13(9).
    """
    return 100 * (bars - window_age_of_max(high, bars + 1)) / bars


@warms_up(lambda bars, **_: bars)
def aroon_down(low: np.ndarray, bars: int = 25) -> np.ndarray:
    """100 where the lowest low of `bars` bars and this one is this one, 0 the oldest: (T,).

    References
    ----------
    Chande (1995), "A Time Price Oscillator", Technical Analysis of Stocks & Commodities 13(9).
    """
    return 100 * (bars - window_age_of_min(low, bars + 1)) / bars


@warms_up(lambda bars, **_: bars)
def aroon(high: np.ndarray, low: np.ndarray, bars: int = 25) -> np.ndarray:
    """Aroon oscillator: up less down, -100 to 100: shape (T,).

    References
    ----------
    Chande (1995), "A Time Price Oscillator", Technical Analysis of Stocks & Commodities 13(9).
    """
    return aroon_up(high, bars) - aroon_down(low, bars)


@warms_up(lambda bars, **_: bars)
def choppiness(high: np.ndarray, low: np.ndarray, close: np.ndarray, bars: int = 14) -> np.ndarray:
    """Path of the true ranges over the range they span, log to the base `bars`: (T,).

    0 for a market that goes one way, 1 for one that goes nowhere.

    References
    ----------
    Dreiss (1993), the Choppiness Index, as in TradingView's "Choppiness Index (CHOP)".
    """
    before = shifted(close, 1)
    top = window_max(np.maximum(high, before), bars)
    bottom = window_min(np.minimum(low, before), bars)
    path = window_sum(true_range(high, low, close), bars)
    return log_ratio(path, top - bottom) / np.log(bars)


@warms_up(lambda bars, **_: bars)
def streak(close: np.ndarray, bars: int = 10) -> np.ndarray:
    """Bars in a row that the close rose (above 0) or fell (below), at most `bars`: (T,)."""
    return windowed(_streaks, [close], bars)


@njit(cache=True, nogil=True)
def _streaks(close: np.ndarray, out: np.ndarray, bars: int, step: int) -> None:
    out[:] = np.nan
    for first in range(min(step, len(close))):  # an asset after another
        streak = known = 0
        for i in range(first + step, len(close), step):
            move = close[i] - close[i - step]
            known = known + 1 if move == move else 0
            if move > 0.0:
                streak = max(streak, 0) + 1
            elif move < 0.0:
                streak = min(streak, 0) - 1
            else:
                streak = 0
            if known >= bars:
                out[i] = min(max(streak, -bars), bars)


@warms_up(lambda bars, **_: bars - 1)
def under_water(close: np.ndarray, bars: int = 252) -> np.ndarray:
    """Bars since the highest close of the last `bars`, as a share of them: [0, 1), shape (T,)."""
    return window_age_of_max(close, bars) / bars


@warms_up(lambda bars, **_: 2 * bars - 2)
def ulcer(close: np.ndarray, bars: int = 60) -> np.ndarray:
    """Root mean square drawdown from the highest close of `bars` bars, fraction: shape (T,).

    References
    ----------
    Martin & McCann (1989), "The Investor's Guide to Fidelity Funds", ch. 6: the Ulcer Index.
    """
    fall = ratio(close, window_max(close, bars)) - 1
    return np.sqrt(window_mean(fall**2, bars))
