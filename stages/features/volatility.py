"""How much an asset moves, from its closes or from its ranges."""

import numpy as np

from stages.features.kernels import log_ratio, ratio, shifted, smoothed, window_sd
from stages.features.returns import log_return
from stages.features.shared import shared
from stages.panel import warms_up


@warms_up(lambda bars, **_: bars)
@shared
def realised_volatility(close: np.ndarray, bars: int = 20) -> np.ndarray:
    """Standard deviation of the last `bars` one-bar log returns, fraction per bar.

    References
    ----------
    Andersen, Bollerslev, Diebold & Labys (2003), "Modeling and Forecasting Realized Volatility",
    Econometrica 71(2).
    """
    return window_sd(log_return(close), bars)


@warms_up(lambda memory, **_: memory)
def ewma_volatility(close: np.ndarray, decay: float = 0.94, memory: int = 160) -> np.ndarray:
    """Root of the exponentially weighted mean square return, fraction per bar: shape (T,).

    Parameters
    ----------
    close : ndarray of shape (T,)
    decay : float in (0, 1), default=0.94
        Weight of the bar before against this one.
    memory : int, default=160
        Bars that count; older ones would weigh ``decay ** memory`` together.

    References
    ----------
    J.P. Morgan/Reuters (1996), "RiskMetrics: Technical Document", 4th ed., ch. 5 (decay 0.94).
    """
    return np.sqrt(smoothed(log_return(close) ** 2, 1 - decay, memory))


@warms_up(lambda slow, **_: slow)
def volatility_ratio(close: np.ndarray, fast: int = 10, slow: int = 60) -> np.ndarray:
    """Log of fast over slow realised volatility; above 0 while the asset wakes: shape (T,)."""
    if not 1 < fast < slow:
        raise ValueError(f"need 1 < fast < slow, got fast={fast}, slow={slow}")
    return log_ratio(realised_volatility(close, fast), realised_volatility(close, slow))


@shared
def true_range(high: np.ndarray, low: np.ndarray, close: np.ndarray) -> np.ndarray:
    """Range of the bar, stretched to the close before it, in the asset's currency: shape (T,)."""
    before = shifted(close, 1)
    return np.maximum(high, before) - np.minimum(low, before)


@warms_up(lambda memory, **_: memory)
def average_true_range(
    high: np.ndarray, low: np.ndarray, close: np.ndarray, period: int = 14, memory: int = 140
) -> np.ndarray:
    """Wilder's average true range over the close, fraction: shape (T,).

    References
    ----------
    Wilder (1978), "New Concepts in Technical Trading Systems", p. 21.
    """
    return ratio(smoothed(true_range(high, low, close), 1 / period, memory), close)
