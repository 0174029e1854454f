"""Returns, momentum and where the price stands within its own past."""

import numpy as np

from stages.features.kernels import (
    log_change,
    log_ratio,
    ratio,
    shifted,
    window_covariance,
    window_max,
    window_mean,
    window_min,
    window_moment,
    window_sd,
)
from stages.features.shared import shared
from stages.panel import warms_up


@warms_up(lambda bars, **_: bars)
@shared
def log_return(close: np.ndarray, bars: int = 1) -> np.ndarray:
    """Log return over the last `bars` bars, fraction: shape (T,)."""
    return log_change(close, bars)


@warms_up(lambda bars, **_: bars)
def momentum(close: np.ndarray, bars: int = 60) -> np.ndarray:
    """Log return over `bars` bars in units of its own standard deviation: shape (T,).

    References
    ----------
    Moskowitz, Ooi & Pedersen (2012), "Time series momentum", J. Financial Economics 104(2).
    """
    sd = window_sd(log_return(close), bars)
    return ratio(log_return(close, bars), sd * np.sqrt(bars))


@warms_up(lambda bars, **_: bars)
def skipped_momentum(close: np.ndarray, bars: int = 252, skip: int = 21) -> np.ndarray:
    """Log return from `bars` bars ago to `skip` bars ago, fraction: shape (T,).

    References
    ----------
    Jegadeesh & Titman (1993), "Returns to Buying Winners and Selling Losers", J. Finance 48(1):
    the last month reverses, so it is left out.
    """
    if not 0 <= skip < bars:
        raise ValueError(f"need 0 <= skip < bars, got skip={skip}, bars={bars}")
    return log_ratio(shifted(close, skip), shifted(close, bars))


@warms_up(lambda bars, **_: bars - 1)
def below_high(close: np.ndarray, bars: int = 252) -> np.ndarray:
    """Drawdown: log distance of the close from its highest of the last `bars` bars, <= 0.

    References
    ----------
    George & Hwang (2004), "The 52-Week High and Momentum Investing", J. Finance 59(5).
    """
    return log_ratio(close, window_max(close, bars))


@warms_up(lambda bars, **_: bars - 1)
def above_low(close: np.ndarray, bars: int = 252) -> np.ndarray:
    """Log distance of the close from its lowest of the last `bars` bars, >= 0: shape (T,).

    References
    ----------
    George & Hwang (2004), "The 52-Week High and Momentum Investing", J. Finance 59(5), from below.
    """
    return log_ratio(close, window_min(close, bars))


@warms_up(lambda bars, **_: bars)
def largest_return(close: np.ndarray, bars: int = 20) -> np.ndarray:
    """Largest one-bar log return of the last `bars` bars, fraction: shape (T,).

    References
    ----------
    Bali, Cakici & Whitelaw (2011), "Maxing out", J. Financial Economics 99(2).
    """
    return window_max(log_return(close), bars)


@warms_up(lambda bars, **_: bars)
def skewness(close: np.ndarray, bars: int = 60) -> np.ndarray:
    """Skewness of the last `bars` one-bar log returns (no bias correction): shape (T,).

    References
    ----------
    Joanes & Gill (1998), "Comparing measures of sample skewness and kurtosis", The Statistician
    47(1): g1.
    """
    sd, returns, mean = _spread(close, bars)
    return ratio(window_moment(returns, mean, bars, 3), sd**3)


@warms_up(lambda bars, **_: bars)
def excess_kurtosis(close: np.ndarray, bars: int = 60) -> np.ndarray:
    """Kurtosis of the last `bars` one-bar log returns, 0 for a Gaussian: shape (T,).

    References
    ----------
    Joanes & Gill (1998), "Comparing measures of sample skewness and kurtosis", The Statistician
    47(1): g2.
    """
    sd, returns, mean = _spread(close, bars)
    return ratio(window_moment(returns, mean, bars, 4), sd**4) - 3


@warms_up(lambda bars, lag, **_: bars + lag)
def autocorrelation(close: np.ndarray, bars: int = 60, lag: int = 1) -> np.ndarray:
    """Correlation of `bars` one-bar log returns with those `lag` bars earlier: [-1, 1]."""
    returns = log_return(close)
    earlier = shifted(returns, lag)
    scale = window_sd(returns, bars) * window_sd(earlier, bars) * (bars - 1) / bars
    return ratio(window_covariance(returns, earlier, bars), scale)


@shared
def _spread(close: np.ndarray, bars: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Population standard deviation, one-bar returns and their mean."""
    returns = log_return(close)
    sd = window_sd(returns, bars) * np.sqrt((bars - 1) / bars)
    return sd, returns, window_mean(returns, bars)
