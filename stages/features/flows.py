"""Volume that flows in and out: where bars close on it, what it paid, when it is unusual."""

import numpy as np

from stages.features import trend
from stages.features.candles import typical_price
from stages.features.kernels import (
    log_ratio,
    ratio,
    shifted,
    smoothed,
    window_covariance,
    window_mean,
    window_sd,
    window_sum,
)
from stages.features.line import window_slope
from stages.features.order import window_quantile
from stages.features.returns import log_return
from stages.features.shared import shared
from stages.features.trend import ordered
from stages.panel import warms_up


@warms_up(lambda bars, **_: bars - 1)
def chaikin_flow(
    high: np.ndarray, low: np.ndarray, close: np.ndarray, volume: np.ndarray, bars: int = 20
) -> np.ndarray:
    """CMF: volume weighed by where its bar closed, over all of it: [-1, 1], shape (T,).

    It is the change of the accumulation/distribution line over `bars` bars, over what traded.

    References
    ----------
    Chaikin, as in Achelis (2000), "Technical Analysis from A to Z", p. 85.
    """
    flow = _accumulation(high, low, close, volume)
    return ratio(window_sum(flow, bars), window_sum(volume + 0.0 * flow, bars))


@warms_up(lambda slow, bars, **_: max(trend.SPANS * slow, bars) - 1)
def accumulation_oscillator(
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,
    volume: np.ndarray,
    fast: int = 3,
    slow: int = 10,
    bars: int = 20,
) -> np.ndarray:
    """Fast less slow average of the accumulation/distribution line, over the mean volume: (T,).

    The line is a sum over all the past, but the difference of its averages is not: with w the
    weight of a span's newest bar, line less average is (1 - w) / w times the average of the flow.

    References
    ----------
    Chaikin, as in Achelis (2000), "Technical Analysis from A to Z", p. 83; TA-Lib's ADOSC.
    """
    ordered(fast, slow)
    flow = _accumulation(high, low, close, volume)
    quick, steady = 2 / (fast + 1), 2 / (slow + 1)
    memory = trend.SPANS * slow
    ahead = (1 - steady) / steady * smoothed(flow, steady, memory)
    ahead -= (1 - quick) / quick * smoothed(flow, quick, memory)
    return ratio(ahead, window_mean(volume, bars))


@warms_up(lambda bars, **_: bars - 1)
def distance_to_vwap(
    high: np.ndarray, low: np.ndarray, close: np.ndarray, volume: np.ndarray, bars: int = 20
) -> np.ndarray:
    """Log distance of the close from the mean price paid over `bars` bars: shape (T,).

    The price of a bar is its typical one, weighed by its volume.

    References
    ----------
    Berkowitz, Logue & Noser (1988), "The Total Cost of Transactions on the NYSE", J. Finance
    43(1).
    """
    typical = typical_price(high, low, close)
    paid = ratio(window_sum(typical * volume, bars), window_sum(volume + 0.0 * typical, bars))
    return log_ratio(close, paid)


@warms_up(lambda bars, **_: bars)
def unusual_volume(volume: np.ndarray, bars: int = 20) -> np.ndarray:
    """``log(1 + volume / median)`` of the `bars` bars before this one: shape (T,).

    References
    ----------
    Gervais, Kaniel & Mingelgrin (2001), "The High-Volume Return Premium", J. Finance 56(3).
    """
    usual = shifted(window_quantile(volume, bars, 0.5), 1)
    return np.log1p(ratio(volume, usual))


@warms_up(lambda bars, history, **_: bars + history - 2)
def volume_spikes(
    volume: np.ndarray, bars: int = 20, history: int = 60, least: float = 2.0
) -> np.ndarray:
    """Share of the last `bars` bars with over `least` times their mean volume: [0, 1], (T,).

    Parameters
    ----------
    volume : ndarray of shape (T,)
    bars : int, default=20
    history : int, default=60
        Window of the mean volume of each bar.
    least : float, default=2
    """
    usual = window_mean(volume, history)
    return window_mean(np.where(volume > least * usual, 1.0, 0.0 * usual), bars)


@warms_up(lambda bars, **_: bars - 1)
def volume_slope(volume: np.ndarray, bars: int = 20) -> np.ndarray:
    """Slope of the line through the volumes over their mean, fraction per bar: shape (T,)."""
    return ratio(window_slope(volume, bars), window_mean(volume, bars))


@warms_up(lambda bars, **_: bars)
def return_volume_correlation(close: np.ndarray, volume: np.ndarray, bars: int = 60) -> np.ndarray:
    """Correlation of the one-bar log return with the volume: [-1, 1], shape (T,).

    References
    ----------
    Karpoff (1987), "The Relation Between Price Changes and Trading Volume", J. Financial and
    Quantitative Analysis 22(1).
    """
    move = log_return(close)
    traded = volume + 0.0 * move
    scale = window_sd(move, bars) * window_sd(traded, bars) * ((bars - 1) / bars)
    return ratio(window_covariance(move, traded, bars), scale)


@warms_up(lambda slow, **_: slow - 1)
def money_trend(
    close: np.ndarray, volume: np.ndarray, fast: int = 20, slow: int = 120
) -> np.ndarray:
    """Log of the money traded per bar, fast window over slow: shape (T,).

    References
    ----------
    Brennan, Chordia & Subrahmanyam (1998), "Alternative factor specifications, security
    characteristics, and the cross-section of expected stock returns", J. Financial Economics 49(3).
    """
    ordered(fast, slow)
    money = close * volume
    return log_ratio(window_mean(money, fast), window_mean(money, slow))


@shared
def _accumulation(
    high: np.ndarray, low: np.ndarray, close: np.ndarray, volume: np.ndarray
) -> np.ndarray:
    """Volume times where the bar closed in its range, -1 to 1; a bar without a range gives 0."""
    span = high - low
    place = ratio((close - low) - (high - close), span)
    return np.where(span == 0, 0.0, place) * volume
