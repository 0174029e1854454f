"""Averages that lag less than the plain ones, and lines through the last closes."""

import numpy as np

from stages.features import trend
from stages.features.kernels import (
    change,
    log_ratio,
    ratio,
    shifted,
    window_mean,
    window_sum,
)
from stages.features.line import window_fit, window_slope, window_weighted_mean
from stages.features.trend import exponential, ordered
from stages.panel import warms_up


@warms_up(lambda span, **_: 2 * trend.SPANS * span - 2)
def distance_to_double_average(close: np.ndarray, span: int = 20) -> np.ndarray:
    """Log distance of the close from its double exponential average (DEMA): shape (T,).

    References
    ----------
    Mulloy (1994), "Smoothing data with faster moving averages", Technical Analysis of Stocks &
    Commodities 12(1).
    """
    once = exponential(close, span)
    return log_ratio(close, 2 * once - exponential(once, span))


@warms_up(lambda bars, **_: bars + int(np.sqrt(bars)) - 2)
def distance_to_hull_average(close: np.ndarray, bars: int = 20) -> np.ndarray:
    """Log distance of the close from its Hull average (HMA): shape (T,).

    The weighted average over the root of `bars` of twice the one over half of them less the one
    over all; half and root are rounded down.

    References
    ----------
    Hull (2005), "How to reduce lag in a moving average", alanhull.com/hull-moving-average.
    """
    if bars < 2:
        raise ValueError(f"half of the bars must be at least 1, got bars={bars}")
    ahead = 2 * window_weighted_mean(close, bars // 2) - window_weighted_mean(close, bars)
    return log_ratio(close, window_weighted_mean(ahead, int(np.sqrt(bars))))


@warms_up(lambda slow, **_: slow - 1)
def simple_average_cross(close: np.ndarray, fast: int = 50, slow: int = 200) -> np.ndarray:
    """Log of the fast over the slow simple average, windows in bars: shape (T,).

    References
    ----------
    Brock, Lakonishok & LeBaron (1992), "Simple Technical Trading Rules and the Stochastic
    Properties of Stock Returns", J. Finance 47(5).
    """
    ordered(fast, slow)
    return log_ratio(window_mean(close, fast), window_mean(close, slow))


@warms_up(lambda bars, **_: bars - 1)
def slope(close: np.ndarray, bars: int = 20) -> np.ndarray:
    """Slope of the least-squares line through the log closes, fraction per bar: shape (T,).

    References
    ----------
    TA-Lib's LINEARREG_SLOPE, of logarithms.
    """
    return window_slope(log_ratio(close, np.ones_like(close)), bars)


@warms_up(lambda bars, **_: bars - 1)
def straightness(close: np.ndarray, bars: int = 60) -> np.ndarray:
    """Share of the variance of the log closes that their line explains: [0, 1], shape (T,).

    NaN for a price that stands still. `slope` says which way the line goes.

    References
    ----------
    Chande & Kroll (1994), "The New Technical Trader": r squared of the regression line.
    """
    return window_fit(log_ratio(close, np.ones_like(close)), bars)


@warms_up(lambda span, **_: 3 * trend.SPANS * span - 2)
def triple_average_change(close: np.ndarray, span: int = 15) -> np.ndarray:
    """TRIX: change of the triple exponential average from the bar before, percent: shape (T,).

    References
    ----------
    Hutson (1983), "Good TRIX", Technical Analysis of Stocks & Commodities 1(5).
    """
    thrice = exponential(exponential(exponential(close, span), span), span)
    return 100 * (ratio(thrice, shifted(thrice, 1)) - 1)


@warms_up(lambda slow, **_: trend.SPANS * slow - 1)
def percentage_oscillator(close: np.ndarray, fast: int = 12, slow: int = 26) -> np.ndarray:
    """PPO: fast over slow exponential average, less 1, percent: shape (T,).

    References
    ----------
    Appel (2005), "Technical Analysis: Power Tools for Active Investors", ch. 8.
    """
    ordered(fast, slow)
    return 100 * (ratio(exponential(close, fast), exponential(close, slow)) - 1)


@warms_up(lambda slow, signal, **_: trend.SPANS * (slow + signal) - 2)
def percentage_histogram(
    close: np.ndarray, fast: int = 12, slow: int = 26, signal: int = 9
) -> np.ndarray:
    """PPO less its own exponential average over `signal` bars, percent: shape (T,).

    References
    ----------
    Appel (2005), "Technical Analysis: Power Tools for Active Investors", ch. 8.
    """
    line = percentage_oscillator(close, fast, slow)
    return line - exponential(line, signal)


@warms_up(lambda bars, **_: bars)
def efficiency(close: np.ndarray, bars: int = 20) -> np.ndarray:
    """Net move over the path walked, with its sign: [-1, 1], shape (T,).

    References
    ----------
    Kaufman (1995), "Smarter Trading", ch. 7: the efficiency ratio.
    """
    path = window_sum(np.abs(change(close)), bars)
    return ratio(close - shifted(close, bars), path)


@warms_up(lambda slow, **_: slow - 1)
def trend_state(close: np.ndarray, fast: int = 50, slow: int = 200) -> np.ndarray:
    """1 where close, fast and slow average stand in rising order, -1 in falling, else 0: (T,).

    References
    ----------
    Faber (2007), "A Quantitative Approach to Tactical Asset Allocation", J. Wealth Management 9(4).
    """
    ordered(fast, slow)
    quick, steady = window_mean(close, fast), window_mean(close, slow)
    state = np.where((close > quick) & (quick > steady), 1.0, 0.0)
    state = np.where((close < quick) & (quick < steady), -1.0, state)
    return np.where(np.isnan(steady), np.nan, state)
