"""Flow rules: they read what trades. A rule scores the bars of one asset in [-1, 1]."""

import numpy as np

from stages.features.volume import money_flow, on_balance_volume
from stages.panel import warms_up


@warms_up(lambda bars, **_: bars)
def volume_trend(close: np.ndarray, volume: np.ndarray, bars: int = 20) -> np.ndarray:
    """Score the volume of rising bars less that of falling ones, over all of `bars` bars.

    See `on_balance_volume`.
    """
    return on_balance_volume(close, volume, bars)


@warms_up(lambda bars, **_: bars)
def money_flow_reversal(
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,
    volume: np.ndarray,
    bars: int = 14,
    oversold: float = 20,
    overbought: float = 80,
) -> np.ndarray:
    """Score +1 where the MFI is oversold, -1 where overbought, in proportion between.

    Parameters
    ----------
    high, low, close, volume : ndarray of shape (T,)
    bars : int, default=14
        See `money_flow`.
    oversold, overbought : float
        MFI at and beyond which the score is full, ``0 < oversold < 50 < overbought < 100``.
    """
    if not 0 < oversold < 50 < overbought < 100:
        raise ValueError(f"need 0 < oversold < 50 < overbought < 100, got {oversold}, {overbought}")
    flow = money_flow(high, low, close, volume, bars)
    return np.interp(flow, [oversold, 50, overbought], [1.0, 0.0, -1.0])
