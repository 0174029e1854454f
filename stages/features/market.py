"""An asset against its market, and the state the market is in."""

import numpy as np

from stages.features.kernels import (
    ratio,
    window_covariance,
    window_sd,
    window_share_below,
    window_sum,
)
from stages.features.returns import log_return
from stages.features.shared import shared
from stages.features.volatility import realised_volatility
from stages.panel import warms_up


@warms_up(lambda bars, **_: bars)
@shared
def beta(close: np.ndarray, market: np.ndarray, bars: int = 60) -> np.ndarray:
    """Slope of the asset's one-bar log returns on the market's, last `bars` bars: shape (T,).

    References
    ----------
    Sharpe (1964), "Capital Asset Prices", J. Finance 19(3).
    """
    own, common = log_return(close), log_return(market)
    variance = window_sd(common, bars) ** 2 * ((bars - 1) / bars)
    return ratio(window_covariance(own, common, bars), variance)


@warms_up(lambda bars, **_: bars)
def residual_momentum(close: np.ndarray, market: np.ndarray, bars: int = 60) -> np.ndarray:
    """Return beyond beta times the market's over `bars` bars, in standard deviations.

    The deviation is that of the residuals of the same window.

    References
    ----------
    Blitz, Huij & Martens (2011), "Residual momentum", J. Empirical Finance 18(3).
    """
    own, common = log_return(close), log_return(market)
    slope = beta(close, market, bars)
    total = window_sum(own, bars) - slope * window_sum(common, bars)
    own_var, common_var = window_sd(own, bars) ** 2, window_sd(common, bars) ** 2
    rest = own_var - slope**2 * common_var  # least squares: the explained part is taken off
    # an asset that is the market leaves rounding behind, not a residual
    sd = np.where(rest > 1e-9 * own_var, np.sqrt(np.maximum(rest, 0)), 0.0)
    return ratio(total, np.where(np.isnan(rest), np.nan, sd) * np.sqrt(bars))


@warms_up(lambda bars, history, **_: bars + history - 1)
def volatility_regime(
    market: np.ndarray, bars: int = 20, history: int = 232, low: float = 0.25, high: float = 0.75
) -> np.ndarray:
    """State of the market: -1 calm, 0 normal, 1 stormy: shape (T,).

    Parameters
    ----------
    market : ndarray of shape (T,)
        Level of the market.
    bars : int, default=20
        Window of the realised volatility.
    history : int, default=232
        Volatilities it is ranked among; with `bars` they span one trading year.
    low, high : float in (0, 1)
        Ranks below and above which the state is not normal.
    """
    if not 0 < low < high < 1:
        raise ValueError(f"need 0 < low < high < 1, got low={low}, high={high}")
    place = window_share_below(realised_volatility(market, bars), history)
    state = np.where(place < low, -1.0, np.where(place > high, 1.0, 0.0))
    return np.where(np.isnan(place), np.nan, state)


@warms_up(lambda bars, history, **_: bars + history - 1)
def volatility_place(market: np.ndarray, bars: int = 20, history: int = 232) -> np.ndarray:
    """Rank of the market's volatility in its own year, centred: in (-0.5, 0.5), shape (T,)."""
    return window_share_below(realised_volatility(market, bars), history) - 0.5
