"""How an asset moves with its market beyond `market.beta`: correlation, tails, what is its own."""

import numpy as np
from numba import njit

from stages.features.kernels import (
    ratio,
    window_covariance,
    window_mean,
    window_sd,
    windowed,
)
from stages.features.market import beta
from stages.features.returns import log_return
from stages.features.shared import shared
from stages.panel import warms_up


@warms_up(lambda bars, **_: bars)
def correlation(close: np.ndarray, market: np.ndarray, bars: int = 60) -> np.ndarray:
    """Correlation of the asset's one-bar log returns with the market's: [-1, 1], shape (T,)."""
    own, common = log_return(close), log_return(market)
    scale = window_sd(own, bars) * window_sd(common, bars) * ((bars - 1) / bars)
    return ratio(window_covariance(own, common, bars), scale)


@warms_up(lambda bars, **_: bars)
def own_volatility(close: np.ndarray, market: np.ndarray, bars: int = 60) -> np.ndarray:
    """Standard deviation of the one-bar log returns that the market leaves over: shape (T,).

    Residuals of the least-squares line, divisor `bars` - 2, fraction per bar.

    References
    ----------
    Ang, Hodrick, Xing & Zhang (2006), "The Cross-Section of Volatility and Expected Returns",
    J. Finance 61(1).
    """
    if bars < 3:
        raise ValueError(f"residuals of a line need 3 bars, got {bars}")
    own = window_sd(log_return(close), bars) ** 2
    rest = own - beta(close, market, bars) ** 2 * window_sd(log_return(market), bars) ** 2
    return np.sqrt(np.maximum(rest, 0) * ((bars - 1) / (bars - 2)))


@warms_up(lambda bars, history, **_: max(bars, history))
def residual_return(
    close: np.ndarray, market: np.ndarray, bars: int = 5, history: int = 60
) -> np.ndarray:
    """Log return over `bars` bars less beta times the market's, fraction: shape (T,).

    Parameters
    ----------
    close, market : ndarray of shape (T,)
    bars : int, default=5
    history : int, default=60
        Window of the beta.

    References
    ----------
    Blitz, Huij, Lansdorp & Verbeek (2013), "Short-term residual reversal", J. Financial
    Markets 16(3).
    """
    return log_return(close, bars) - beta(close, market, history) * log_return(market, bars)


@warms_up(lambda bars, **_: bars)
def beyond_market(close: np.ndarray, market: np.ndarray, bars: int = 20) -> np.ndarray:
    """Log return over `bars` bars less the market's, fraction: shape (T,)."""
    return log_return(close, bars) - log_return(market, bars)


@warms_up(lambda bars, **_: bars)
def downside_beta(close: np.ndarray, market: np.ndarray, bars: int = 120) -> np.ndarray:
    """Beta over the bars in which the market did worse than its mean: shape (T,).

    References
    ----------
    Ang, Chen & Xing (2006), "Downside Risk", Review of Financial Studies 19(4).
    """
    common, move = _pair(close, market)
    return windowed(_slope_below, [move, common, window_mean(common, bars)], bars)


@warms_up(lambda bars, **_: bars)
def coskewness(close: np.ndarray, market: np.ndarray, bars: int = 120) -> np.ndarray:
    """Mean product of the own move and the market's squared one, in deviations: shape (T,).

    Below 0 for an asset that falls when the market moves a lot, up or down.

    References
    ----------
    Ang, Chen & Xing (2006), "Downside Risk", Review of Financial Studies 19(4), equation 11.
    """
    common, move = _pair(close, market)
    means = [window_mean(move, bars), window_mean(common, bars)]
    product = windowed(_squared_product, [move, common, *means], bars) / bars
    scale = window_sd(move, bars) * window_sd(common, bars) ** 2
    return ratio(product, scale * ((bars - 1) / bars) ** 1.5)


@shared
def _pair(close: np.ndarray, market: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns of the market and of the asset, both unknown where one is."""
    common, move = log_return(market), log_return(close)
    return common + 0.0 * move, move + 0.0 * common


@njit(cache=True, nogil=True)
def _slope_below(
    x: np.ndarray, y: np.ndarray, mean_y: np.ndarray, out: np.ndarray, bars: int, step: int
) -> None:
    """Slope of x on y over the bars of the window in which y is below its mean."""
    out[:] = np.nan
    first = (bars - 1) * step
    rows = len(x) - first
    if rows > 0:
        centre, count = mean_y[first:], np.zeros(rows)
        mean, both, square = np.zeros(rows), np.zeros(rows), np.zeros(rows)
        level = np.zeros(rows)
        for k in range(bars):
            a, b = x[k * step :], y[k * step :]
            for i in range(rows):
                below = 1.0 if b[i] < centre[i] else 0.0
                count[i] += below
                mean[i] += below * a[i]
                level[i] += below * b[i]
        for i in range(rows):
            mean[i] /= max(count[i], 1.0)
            level[i] /= max(count[i], 1.0)
        for k in range(bars):
            a, b = x[k * step :], y[k * step :]
            for i in range(rows):
                gap = b[i] - level[i] if b[i] < centre[i] else 0.0
                both[i] += gap * (a[i] - mean[i])
                square[i] += gap * gap
        last = out[first:]
        for i in range(rows):
            if square[i] > 0.0:  # not where the mean is NaN
                last[i] = both[i] / square[i]


@njit(cache=True, nogil=True)
def _squared_product(
    x: np.ndarray,
    y: np.ndarray,
    mean_x: np.ndarray,
    mean_y: np.ndarray,
    out: np.ndarray,
    bars: int,
    step: int,
) -> None:
    out[:] = np.nan
    rows = len(x) - (bars - 1) * step
    if rows > 0:
        last = out[(bars - 1) * step :]
        centre_x, centre_y = mean_x[(bars - 1) * step :], mean_y[(bars - 1) * step :]
        last[:] = 0.0
        for k in range(bars):
            a, b = x[k * step :], y[k * step :]
            for i in range(rows):
                gap = b[i] - centre_y[i]
                last[i] += (a[i] - centre_x[i]) * gap * gap
