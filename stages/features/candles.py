"""Shapes of bars beside the bars before; those of a single bar stand in `alpha158`."""

import numpy as np

from stages.features.kernels import ratio, shifted, window_sum
from stages.features.shared import shared
from stages.panel import warms_up


@shared
def typical_price(high: np.ndarray, low: np.ndarray, close: np.ndarray) -> np.ndarray:
    """Mean of high, low and close, in the asset's currency: shape (T,)."""
    return (high + low + close) / 3


@warms_up(lambda bars, **_: bars - 1)
def body_share(
    open: np.ndarray, high: np.ndarray, low: np.ndarray, close: np.ndarray, bars: int = 20
) -> np.ndarray:
    """Bodies of the last `bars` bars over their ranges: [0, 1], shape (T,).

    References
    ----------
    Nison (1991), "Japanese Candlestick Charting Techniques", ch. 3: small bodies are indecision.
    """
    body = np.abs(close - open)
    return ratio(window_sum(body, bars), window_sum(high - low + 0.0 * body, bars))


@warms_up(lambda **_: 1)
def engulfing(open: np.ndarray, close: np.ndarray) -> np.ndarray:
    """How much of the body before, of the other colour, this body covers: [-1, 1], shape (T,).

    1 where a rising body covers all of a falling one, -1 the other way round, 0 where the colours
    are alike.

    References
    ----------
    Nison (1991), "Japanese Candlestick Charting Techniques", ch. 4.
    """
    first, last = shifted(open, 1), shifted(close, 1)
    before, body = last - first, close - open
    bottom = np.maximum(np.minimum(first, last), np.minimum(open, close))
    top = np.minimum(np.maximum(first, last), np.maximum(open, close))
    covered = ratio(np.maximum(top - bottom, 0), np.abs(before))
    return np.where(before * body < 0, np.sign(body) * covered, 0.0 * (before + body))


@warms_up(lambda **_: 1)
def inside(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Share of the bar's range that lies in the range of the bar before: [0, 1], shape (T,)."""
    top, bottom = np.minimum(high, shifted(high, 1)), np.maximum(low, shifted(low, 1))
    return ratio(np.maximum(top - bottom, 0), high - low)
