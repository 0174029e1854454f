"""Direction and strength of a trend: averages, their crossings, directional movement."""

import numpy as np

from stages.features.kernels import (
    change,
    log_ratio,
    ratio,
    shifted,
    smoothed,
    window_mean,
    window_sum,
)
from stages.features.shared import shared
from stages.features.volatility import true_range
from stages.panel import warms_up

SPANS = 5  # an exponential average of span s forgets after 5 s bars; left out: a weight of e^-10


@warms_up(lambda bars, **_: bars - 1)
def distance_to_average(close: np.ndarray, bars: int = 20) -> np.ndarray:
    """Log distance of the close from its simple average over `bars` bars: shape (T,).

    References
    ----------
    Brock, Lakonishok & LeBaron (1992), "Simple Technical Trading Rules and the Stochastic
    Properties of Stock Returns", J. Finance 47(5).
    """
    return log_ratio(close, window_mean(close, bars))


@warms_up(lambda slow, **_: SPANS * slow - 1)
def average_cross(close: np.ndarray, fast: int = 10, slow: int = 50) -> np.ndarray:
    """Log of the fast over the slow exponential average, spans in bars: shape (T,).

    References
    ----------
    Brock, Lakonishok & LeBaron (1992), "Simple Technical Trading Rules and the Stochastic
    Properties of Stock Returns", J. Finance 47(5), with exponential averages.
    """
    ordered(fast, slow)
    return log_ratio(exponential(close, fast), exponential(close, slow))


@warms_up(lambda slow, **_: SPANS * slow - 1)
def macd_line(close: np.ndarray, fast: int = 12, slow: int = 26) -> np.ndarray:
    """MACD: fast less slow exponential average, over the close, fraction: shape (T,).

    References
    ----------
    Appel (2005), "Technical Analysis: Power Tools for Active Investors", ch. 8.
    """
    return ratio(_macd(close, fast, slow), close)


@warms_up(lambda slow, signal, **_: SPANS * (slow + signal) - 2)
def macd_signal(close: np.ndarray, fast: int = 12, slow: int = 26, signal: int = 9) -> np.ndarray:
    """Exponential average of the MACD over `signal` bars, over the close, fraction: (T,).

    References
    ----------
    Appel (2005), "Technical Analysis: Power Tools for Active Investors", ch. 8.
    """
    return ratio(exponential(_macd(close, fast, slow), signal), close)


@warms_up(lambda slow, signal, **_: SPANS * (slow + signal) - 2)
def macd_histogram(
    close: np.ndarray, fast: int = 12, slow: int = 26, signal: int = 9
) -> np.ndarray:
    """MACD less its signal line, over the close, fraction: shape (T,).

    References
    ----------
    Appel (2005), "Technical Analysis: Power Tools for Active Investors", ch. 8.
    """
    line = _macd(close, fast, slow)
    return ratio(line - exponential(line, signal), close)


@warms_up(lambda bars, memory, **_: bars + memory - 1)
def distance_to_adaptive_average(
    close: np.ndarray, bars: int = 10, fast: int = 2, slow: int = 30, memory: int = 200
) -> np.ndarray:
    """Log distance of the close from Kaufman's adaptive average (KAMA): shape (T,).

    Parameters
    ----------
    close : ndarray of shape (T,)
    bars : int, default=10
        Window of the efficiency ratio: net move over the path walked.
    fast, slow : int
        Spans between which the efficiency moves the average.
    memory : int, default=200
        Bars that the average looks back on.

    References
    ----------
    Kaufman (1995), "Smarter Trading", ch. 7.
    """
    ordered(fast, slow)
    net = np.abs(change(close, bars))
    path = window_sum(np.abs(change(close)), bars)
    # a price that stands still has no efficiency and needs none: every average of it is the price
    efficiency = np.where(path == 0, 0.0, ratio(net, path))
    quickest, slowest = 2 / (fast + 1), 2 / (slow + 1)
    speed = (efficiency * (quickest - slowest) + slowest) ** 2
    return log_ratio(close, smoothed(close, speed, memory))


@warms_up(lambda memory, **_: memory)
def plus_directional_index(
    high: np.ndarray, low: np.ndarray, close: np.ndarray, period: int = 14, memory: int = 120
) -> np.ndarray:
    """+DI: upward directional movement in the true range, 0 to 100: shape (T,).

    References
    ----------
    Wilder (1978), "New Concepts in Technical Trading Systems", p. 35.
    """
    return _directional(high, low, close, period, memory)[0]


@warms_up(lambda memory, **_: memory)
def minus_directional_index(
    high: np.ndarray, low: np.ndarray, close: np.ndarray, period: int = 14, memory: int = 120
) -> np.ndarray:
    """-DI: downward directional movement in the true range, 0 to 100: shape (T,).

    References
    ----------
    Wilder (1978), "New Concepts in Technical Trading Systems", p. 35.
    """
    return _directional(high, low, close, period, memory)[1]


@warms_up(lambda memory, **_: 2 * memory - 1)
def average_directional_index(
    high: np.ndarray, low: np.ndarray, close: np.ndarray, period: int = 14, memory: int = 120
) -> np.ndarray:
    """ADX: how one-sided the directional movement is, 0 to 100: shape (T,).

    Parameters
    ----------
    high, low, close : ndarray of shape (T,)
    period : int, default=14
        Wilder's period of both averages.
    memory : int, default=120
        Bars that each of the two averages looks back on.

    References
    ----------
    Wilder (1978), "New Concepts in Technical Trading Systems", p. 35.
    """
    plus, minus = _directional(high, low, close, period, memory)
    return smoothed(100 * ratio(np.abs(plus - minus), plus + minus), 1 / period, memory)


@shared
def _directional(
    high: np.ndarray, low: np.ndarray, close: np.ndarray, period: int, memory: int
) -> tuple[np.ndarray, np.ndarray]:
    up, down = high - shifted(high, 1), shifted(low, 1) - low
    both = up + down  # NaN where either side is unknown
    plus = np.where((up > down) & (up > 0), up, 0.0 * both)
    minus = np.where((down > up) & (down > 0), down, 0.0 * both)
    span = smoothed(true_range(high, low, close), 1 / period, memory)
    return (
        100 * ratio(smoothed(plus, 1 / period, memory), span),
        100 * ratio(smoothed(minus, 1 / period, memory), span),
    )


@shared
def _macd(close: np.ndarray, fast: int, slow: int) -> np.ndarray:
    ordered(fast, slow)
    return exponential(close, fast) - exponential(close, slow)


@shared
def exponential(x: np.ndarray, span: int) -> np.ndarray:
    """Exponential average of span `span` over its last ``SPANS * span`` bars: shape (T,)."""
    return smoothed(x, 2 / (span + 1), SPANS * span)


def ordered(fast: int, slow: int) -> None:
    """Refuse two spans of which the first is not the shorter."""
    if not 0 < fast < slow:
        raise ValueError(f"need 0 < fast < slow, got fast={fast}, slow={slow}")
