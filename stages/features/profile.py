"""The volume profile: at which prices the volume of the last bars traded."""

import numpy as np
from numba import njit

from stages.features.candles import typical_price
from stages.features.kernels import (
    beside,
    checked,
    log_ratio,
    window_max,
    window_min,
    window_sum,
    windowed,
)
from stages.features.shared import shared
from stages.panel import warms_up


@warms_up(lambda bars, **_: bars - 1)
def distance_to_busiest(
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,
    volume: np.ndarray,
    bars: int = 60,
    bins: int = 12,
) -> np.ndarray:
    """Log distance of the close from the price at which most volume traded: shape (T,).

    Each bar's volume counts at its typical price; `bins` equal bins span the typical prices of
    the window, and the middle of the busiest is its price (the lowest of equals).

    Parameters
    ----------
    high, low, close, volume : ndarray of shape (T,)
    bars : int, default=60
    bins : int, default=12

    References
    ----------
    Steidlmayer & Koy (1986), "Markets and Market Logic": the point of control.
    """
    return log_ratio(close, _profile(high, low, close, volume, bars, bins)[0])


@warms_up(lambda bars, **_: bars - 1)
def busiest_share(
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,
    volume: np.ndarray,
    bars: int = 60,
    bins: int = 12,
) -> np.ndarray:
    """Share of the volume that traded in the busiest bin: (0, 1], shape (T,).

    References
    ----------
    Steidlmayer & Koy (1986), "Markets and Market Logic": the point of control.
    """
    return _profile(high, low, close, volume, bars, bins)[1]


@warms_up(lambda bars, **_: bars - 1)
def volume_below(
    high: np.ndarray, low: np.ndarray, close: np.ndarray, volume: np.ndarray, bars: int = 60
) -> np.ndarray:
    """Share of the volume whose typical price was below the close, ties half: [0, 1], (T,).

    Those who bought it hold a gain.

    References
    ----------
    Grinblatt & Han (2005), "Prospect theory, mental accounting, and momentum", J. Financial
    Economics 78(2): the capital gains overhang.
    """
    return windowed(_below, [typical_price(high, low, close), close, volume], bars)


@shared
def _profile(
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,
    volume: np.ndarray,
    bars: int,
    bins: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Price of the busiest bin and its share of the volume."""
    if bins < 2:
        raise ValueError(f"a profile needs 2 bins, got {bins}")
    price, traded = checked(typical_price(high, low, close), bars), checked(volume, bars)
    spans = window_min(price, bars), window_max(price, bars), window_sum(traded, bars)
    low, high, total = (checked(x, bars).reshape(-1) for x in spans)
    flat = price.reshape(-1), traded.reshape(-1)
    found = _busiest(*flat, (low, high, total), bars, bins, beside(price))
    return found[0].reshape(price.shape), found[1].reshape(price.shape)


@njit(cache=True, nogil=True)
def _busiest(
    price: np.ndarray,
    volume: np.ndarray,
    spans: tuple[np.ndarray, np.ndarray, np.ndarray],
    bars: int,
    bins: int,
    step: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Middle of the busiest bin and its share; `spans` are low, high and volume of each window."""
    low, high, total = spans
    middle, share = np.full(len(price), np.nan), np.full(len(price), np.nan)
    held, other = np.zeros(bins), np.zeros(bins)  # two, as a sum waits for the one before it
    window, place = np.empty(bars), np.empty(bars, np.int32)
    for i in range((bars - 1) * step, len(price)):
        first, bottom, span = i - (bars - 1) * step, low[i], high[i] - low[i]
        # not a single comparison holds for NaN: unknown, as a window that never moved or traded
        if not (total[i] > 0.0 and span > 0.0):
            continue
        for k in range(bars):
            window[k] = price[first + k * step]
        for k in range(bars):  # on its own: these are vector instructions
            place[k] = np.int32((window[k] - bottom) / span * bins)
        held[:] = 0.0
        other[:] = 0.0
        for k in range(0, bars - 1, 2):
            held[min(place[k], bins - 1)] += volume[first + k * step]
            other[min(place[k + 1], bins - 1)] += volume[first + (k + 1) * step]
        if bars % 2:
            held[min(place[bars - 1], bins - 1)] += volume[i]
        for k in range(bins):
            held[k] += other[k]
        best = np.argmax(held)
        middle[i] = bottom + span * (best + 0.5) / bins
        share[i] = held[best] / total[i]
    return middle, share


@njit(cache=True, nogil=True)
def _below(
    price: np.ndarray, close: np.ndarray, volume: np.ndarray, out: np.ndarray, bars: int, step: int
) -> None:
    out[:] = np.nan
    for i in range((bars - 1) * step, len(price)):
        total = below = 0.0
        for j in range(i - (bars - 1) * step, i + 1, step):
            total += volume[j] + 0.0 * price[j]
            below += volume[j] * (0.5 * (price[j] < close[i]) + 0.5 * (price[j] <= close[i]))
        if total > 0.0:
            out[i] = below / total
