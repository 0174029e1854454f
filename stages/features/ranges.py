"""Volatility from the ranges of bars, bands around an average, and how volatility itself moves."""

import numpy as np

from stages.features import trend
from stages.features.kernels import (
    log_ratio,
    ratio,
    shifted,
    smoothed,
    window_mean,
    window_sd,
    window_sum,
)
from stages.features.oscillators import bollinger_width
from stages.features.returns import log_return
from stages.features.shared import shared
from stages.features.trend import exponential
from stages.features.volatility import realised_volatility, true_range
from stages.panel import warms_up

CLOSE_WEIGHT = 2 * np.log(2) - 1  # of the squared body, in Garman and Klass's estimator


@warms_up(lambda bars, **_: bars - 1)
def parkinson(high: np.ndarray, low: np.ndarray, bars: int = 20) -> np.ndarray:
    """Volatility from high and low, fraction per bar: shape (T,).

    References
    ----------
    Parkinson (1980), "The Extreme Value Method for Estimating the Variance of the Rate of
    Return", J. Business 53(1).
    """
    return _root(window_mean(log_ratio(high, low) ** 2, bars) / (4 * np.log(2)))


@warms_up(lambda bars, **_: bars - 1)
def garman_klass(
    open: np.ndarray, high: np.ndarray, low: np.ndarray, close: np.ndarray, bars: int = 20
) -> np.ndarray:
    """Volatility from range and body, fraction per bar: shape (T,).

    References
    ----------
    Garman & Klass (1980), "On the Estimation of Security Price Volatilities from Historical
    Data", J. Business 53(1).
    """
    bar = 0.5 * log_ratio(high, low) ** 2 - CLOSE_WEIGHT * log_ratio(close, open) ** 2
    return _root(window_mean(bar, bars))


@warms_up(lambda bars, **_: bars - 1)
def rogers_satchell(
    open: np.ndarray, high: np.ndarray, low: np.ndarray, close: np.ndarray, bars: int = 20
) -> np.ndarray:
    """Volatility from the shadows of bars, free of their drift, fraction per bar: shape (T,).

    References
    ----------
    Rogers & Satchell (1991), "Estimating Variance from High, Low and Closing Prices", Annals of
    Applied Probability 1(4).
    """
    return _root(window_mean(_shadows(open, high, low, close), bars))


@warms_up(lambda bars, **_: bars)
def yang_zhang(
    open: np.ndarray, high: np.ndarray, low: np.ndarray, close: np.ndarray, bars: int = 20
) -> np.ndarray:
    """Volatility from gaps, bodies and shadows, fraction per bar: shape (T,).

    References
    ----------
    Yang & Zhang (2000), "Drift-Independent Volatility Estimation Based on High, Low, Open, and
    Close Prices", J. Business 73(3).
    """
    weight = 0.34 / (1.34 + (bars + 1) / (bars - 1)) if bars > 1 else 0.0
    gap = window_sd(log_ratio(open, shifted(close, 1)), bars) ** 2
    body = window_sd(log_ratio(close, open), bars) ** 2
    shadows = window_mean(_shadows(open, high, low, close), bars)
    return _root(gap + weight * body + (1 - weight) * shadows)


@warms_up(lambda span, memory, **_: max(trend.SPANS * span - 1, memory))
def keltner_position(
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,
    span: int = 20,
    period: int = 10,
    width: float = 2.0,
    memory: int = 100,
) -> np.ndarray:
    """Place of the close between Keltner's bands: 0 at the lower, 1 at the upper: shape (T,).

    Parameters
    ----------
    high, low, close : ndarray of shape (T,)
    span : int, default=20
        Of the exponential average in the middle, bars.
    period, memory : int
        Wilder's period of the average true range, and the bars it looks back on.
    width : float, default=2
        Average true ranges from the middle to a band.

    References
    ----------
    Keltner (1960), "How to Make Money in Commodities"; bands of true ranges as in Raschke's form
    (StockCharts ChartSchool, "Keltner Channels").
    """
    middle = exponential(close, span)
    reach = width * smoothed(true_range(high, low, close), 1 / period, memory)
    return 0.5 + ratio(close - middle, 2 * reach)


@warms_up(lambda span, memory, **_: max(trend.SPANS * span - 1, memory))
def keltner_width(
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,
    span: int = 20,
    period: int = 10,
    width: float = 2.0,
    memory: int = 100,
) -> np.ndarray:
    """Distance between Keltner's bands over the average in the middle, fraction: shape (T,).

    References
    ----------
    Keltner (1960), "How to Make Money in Commodities"; see `keltner_position`.
    """
    reach = width * smoothed(true_range(high, low, close), 1 / period, memory)
    return ratio(2 * reach, exponential(close, span))


@warms_up(lambda bars, **_: bars)
def squeeze(high: np.ndarray, low: np.ndarray, close: np.ndarray, bars: int = 20) -> np.ndarray:
    """Log of Bollinger's over the mean true range's width: low before a breakout: shape (T,).

    References
    ----------
    Carter (2005), "Mastering the Trade", ch. 11: bands inside of Keltner's are a squeeze.
    """
    reach = window_mean(true_range(high, low, close), bars)
    return log_ratio(bollinger_width(close, bars), 4 * ratio(reach, window_mean(close, bars)))


@warms_up(lambda bars, history, **_: bars + history - 1)
def volatility_of_volatility(close: np.ndarray, bars: int = 20, history: int = 60) -> np.ndarray:
    """Standard deviation of the realised volatility over its mean, last `history` bars: (T,).

    References
    ----------
    Baltussen, van Bekkum & van der Grient (2018), "Unknown Unknowns: Uncertainty About Risk and
    Stock Returns", J. Financial and Quantitative Analysis 53(4), on implied volatilities.
    """
    volatility = realised_volatility(close, bars)
    return ratio(window_sd(volatility, history), window_mean(volatility, history))


@warms_up(lambda bars, **_: bars)
def downside(close: np.ndarray, bars: int = 60) -> np.ndarray:
    """Share of the squared returns that were falls: [0, 1], shape (T,).

    References
    ----------
    Barndorff-Nielsen, Kinnebrock & Shephard (2010), "Measuring Downside Risk: Realised
    Semivariance", in Volatility and Time Series Econometrics.
    """
    move = log_return(close)
    return ratio(window_sum(np.minimum(move, 0) ** 2, bars), window_sum(move**2, bars))


@warms_up(lambda memory, **_: memory)
def range_expansion(
    high: np.ndarray, low: np.ndarray, close: np.ndarray, period: int = 14, memory: int = 140
) -> np.ndarray:
    """Log of the bar's true range over Wilder's average of it; NaN without a range: (T,).

    References
    ----------
    Wilder (1978), "New Concepts in Technical Trading Systems", p. 21.
    """
    span = true_range(high, low, close)
    return log_ratio(span, smoothed(span, 1 / period, memory))


@shared
def _shadows(open: np.ndarray, high: np.ndarray, low: np.ndarray, close: np.ndarray) -> np.ndarray:
    up = log_ratio(high, close) * log_ratio(high, open)
    return up + log_ratio(low, close) * log_ratio(low, open)


def _root(variance: np.ndarray) -> np.ndarray:
    """Square root; prices outside of their own range can make a variance negative: NaN."""
    return np.sqrt(np.where(variance < 0, np.nan, variance))
