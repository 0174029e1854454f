"""Bounded measures of how stretched a price is."""

from functools import partial

import numpy as np
import talib

from stages.features.candles import typical_price
from stages.features.guarded import moving, on_clean_runs
from stages.features.kernels import (
    change,
    ratio,
    smoothed,
    window_max,
    window_mean,
    window_min,
    window_sd,
    window_sum,
)
from stages.features.shared import shared
from stages.panel import warms_up


@warms_up(lambda memory, **_: memory)
@shared
def relative_strength(close: np.ndarray, period: int = 14, memory: int = 140) -> np.ndarray:
    """RSI: share of the upward moves in all moves, 0 to 100; NaN for a flat price: shape (T,).

    Parameters
    ----------
    close : ndarray of shape (T,)
    period : int, default=14
        Wilder's period: each bar weighs ``1 / period`` against those before it.
    memory : int, default=140
        Bars that count. Wilder's own recursion never forgets; ten periods leave out e^-10.

    References
    ----------
    Wilder (1978), "New Concepts in Technical Trading Systems", p. 63.
    """
    move = change(close)
    up = smoothed(np.maximum(move, 0), 1 / period, memory)
    down = smoothed(np.maximum(-move, 0), 1 / period, memory)
    return 100 * ratio(up, up + down)


@warms_up(lambda bars, **_: bars - 1)
def bollinger_percent(close: np.ndarray, bars: int = 20, width: float = 2.0) -> np.ndarray:
    """Bollinger's %b: 0 at the lower band, 1 at the upper; NaN where the bands meet: (T,).

    Parameters
    ----------
    close : ndarray of shape (T,)
    bars : int, default=20
    width : float, default=2
        Standard deviations (divisor `bars`, as Bollinger has it) from the average to a band.

    References
    ----------
    Bollinger (2002), "Bollinger on Bollinger Bands", ch. 7.
    """
    return 0.5 + ratio(close - window_mean(close, bars), 2 * width * _deviation(close, bars))


@warms_up(lambda bars, **_: bars - 1)
def bollinger_width(close: np.ndarray, bars: int = 20, width: float = 2.0) -> np.ndarray:
    """Distance between the bands over the average, fraction: shape (T,).

    References
    ----------
    Bollinger (2002), "Bollinger on Bollinger Bands": BandWidth.
    """
    return ratio(2 * width * _deviation(close, bars), window_mean(close, bars))


@warms_up(lambda bars, smooth, **_: bars + 2 * smooth - 3)
def stochastic_k(
    high: np.ndarray, low: np.ndarray, close: np.ndarray, bars: int = 14, smooth: int = 3
) -> np.ndarray:
    """Slow stochastic %K: place of the close in the range, averaged, 0 to 100: shape (T,).

    References
    ----------
    Lane (1984), "Lane's Stochastics", Technical Analysis of Stocks & Commodities 2(3).
    """
    return _stochastic(high, low, close, bars, smooth)[0]


@warms_up(lambda bars, smooth, **_: bars + 2 * smooth - 3)
def stochastic_d(
    high: np.ndarray, low: np.ndarray, close: np.ndarray, bars: int = 14, smooth: int = 3
) -> np.ndarray:
    """Slow stochastic %D: average of %K over `smooth` bars, 0 to 100: shape (T,).

    References
    ----------
    Lane (1984), "Lane's Stochastics", Technical Analysis of Stocks & Commodities 2(3).
    """
    return _stochastic(high, low, close, bars, smooth)[1]


@warms_up(lambda bars, **_: bars - 1)
def williams_r(high: np.ndarray, low: np.ndarray, close: np.ndarray, bars: int = 14) -> np.ndarray:
    """Williams %R: distance from the top of the range, -100 to 0: shape (T,).

    References
    ----------
    Williams (1973), "How I Made One Million Dollars Last Year Trading Commodities".
    """
    top, bottom = window_max(high, bars), window_min(low, bars)
    known = 0.0 * window_sum(close, bars)  # 0, or NaN: the whole window is there or nothing is
    return ratio(top - close, (top - bottom) / -100.0) + known


@warms_up(lambda bars, **_: bars - 1)
def commodity_channel(
    high: np.ndarray, low: np.ndarray, close: np.ndarray, bars: int = 20
) -> np.ndarray:
    """CCI: typical price from its average, in 0.015 mean absolute deviations: shape (T,).

    References
    ----------
    Lambert (1980), "Commodity Channel Index", Commodities magazine, October.
    """
    indicator = partial(talib.CCI, timeperiod=bars)
    typical = typical_price(high, low, close)
    return on_clean_runs(indicator, bars - 1, high, low, close) * moving(typical, typical, bars)


@shared
def _stochastic(
    high: np.ndarray, low: np.ndarray, close: np.ndarray, bars: int, smooth: int
) -> tuple[np.ndarray, np.ndarray]:
    """%K and %D; TA-Lib starts both lines together."""
    lines = partial(talib.STOCH, fastk_period=bars, slowk_period=smooth, slowd_period=smooth)
    lookback, known = bars + 2 * smooth - 3, moving(high, low, bars)
    k = on_clean_runs(lambda *run: lines(*run)[0], lookback, high, low, close)
    d = on_clean_runs(lambda *run: lines(*run)[1], lookback, high, low, close)
    # a flat range spoils each average that holds it: adds NaN there, and 0 elsewhere
    return k + 0.0 * window_sum(known, smooth), d + 0.0 * window_sum(known, 2 * smooth - 1)


@shared
def _deviation(close: np.ndarray, bars: int) -> np.ndarray:
    return window_sd(close, bars) * np.sqrt((bars - 1) / bars)
