"""Reversion rules: they lean against a stretched price. A rule scores one asset in [-1, 1]."""

import numpy as np

from stages.features.oscillators import bollinger_percent, relative_strength
from stages.panel import warms_up


@warms_up(lambda memory, **_: memory)
def rsi_reversal(
    close: np.ndarray, period: int = 14, low: float = 30, high: float = 70, memory: int = 140
) -> np.ndarray:
    """Score +1 where the RSI is oversold, -1 where overbought, in proportion between.

    Parameters
    ----------
    close : ndarray of shape (T,)
    period, memory : int
        See `relative_strength`.
    low, high : float
        RSI at and beyond which an asset is oversold or overbought, ``0 < low < 50 < high < 100``.

    References
    ----------
    Wilder (1978), "New Concepts in Technical Trading Systems", p. 68.
    """
    if not 0 < low < 50 < high < 100:
        raise ValueError(f"need 0 < low < 50 < high < 100, got low={low}, high={high}")
    return np.interp(relative_strength(close, period, memory), [low, 50, high], [1.0, 0.0, -1.0])


@warms_up(lambda bars, **_: bars - 1)
def bollinger_reversion(close: np.ndarray, bars: int = 20, width: float = 2.0) -> np.ndarray:
    """Score +1 at the lower Bollinger band and below, -1 at the upper and above.

    See `bollinger_percent`; NaN where the bands meet.
    """
    return np.clip(1 - 2 * bollinger_percent(close, bars, width), -1, 1)
