"""Trend rules: they follow a move. A rule scores the bars of one asset in [-1, 1]."""

import numpy as np

from stages.features import trend
from stages.features.kernels import (
    ratio,
    shifted,
    window_max,
    window_mean,
    window_min,
)
from stages.features.returns import log_return
from stages.panel import warms_up


@warms_up(lambda slow, **_: slow - 1)
def moving_average_cross(close: np.ndarray, fast: int = 20, slow: int = 50) -> np.ndarray:
    """Score +1 while the fast average is above the slow one, -1 while below.

    Parameters
    ----------
    close : ndarray of shape (T,)
        Closing prices of one asset, in its currency.
    fast, slow : int
        Window lengths in bars, ``0 < fast < slow``.

    Returns
    -------
    ndarray of shape (T,)
        NaN until `slow` bars are known, and while a window lacks a price.

    References
    ----------
    Brock, Lakonishok & LeBaron (1992), "Simple Technical Trading Rules and the Stochastic
    Properties of Stock Returns", J. Finance 47(5).
    """
    if not 0 < fast < slow:
        raise ValueError(f"need 0 < fast < slow, got fast={fast}, slow={slow}")
    gap = window_mean(close, fast) / window_mean(close, slow) - 1
    return np.sign(gap.round(12))  # two averages of a flat price differ by rounding: no trend


@warms_up(lambda slow, signal, bars, **_: trend.SPANS * (slow + signal) + bars - 3)
def macd_cross(
    close: np.ndarray, fast: int = 12, slow: int = 26, signal: int = 9, bars: int = 60
) -> np.ndarray:
    """Score how far the MACD is above its signal line, in two of its usual distances.

    Parameters
    ----------
    close : ndarray of shape (T,)
    fast, slow, signal : int
        Spans of the three exponential averages, in bars.
    bars : int, default=60
        Window of the usual distance: the root mean square histogram.

    Returns
    -------
    ndarray of shape (T,)
        NaN for a price that stands still.

    References
    ----------
    Appel (2005), "Technical Analysis: Power Tools for Active Investors", ch. 8.
    """
    histogram = trend.macd_histogram(close, fast, slow, signal)
    usual = np.sqrt(window_mean(histogram**2, bars))
    usual = np.where(usual < 1e-13, 0.0, usual)  # the averages of a flat price differ by rounding
    return np.clip(ratio(histogram, 2 * usual), -1, 1)


@warms_up(lambda bars, **_: bars)
def breakout(close: np.ndarray, bars: int = 20) -> np.ndarray:
    """Score +1 for a close above the highest of the `bars` before it, -1 below the lowest.

    Donchian's channel on closes, so that it also holds where high and low are not known.

    References
    ----------
    Donchian (1960), "High finance in copper", Financial Analysts Journal 16(6).
    """
    before = shifted(close, 1)
    high, low = window_max(before, bars), window_min(before, bars)
    score = np.where(close > high, 1.0, np.where(close < low, -1.0, 0.0))
    return np.where(np.isnan(high + close), np.nan, score)


@warms_up(lambda bars, **_: bars)
def momentum_sign(close: np.ndarray, bars: int = 120) -> np.ndarray:
    """Score the sign of the return over `bars` bars.

    References
    ----------
    Moskowitz, Ooi & Pedersen (2012), "Time series momentum", J. Financial Economics 104(2).
    """
    return np.sign(log_return(close, bars))
