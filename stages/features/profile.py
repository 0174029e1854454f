"""The volume profile: at which prices the volume of the last bars traded."""

import numpy as np
from numba import njit

from stages.features.kernels import beside, checked, log_ratio
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
    """Share of the volume that traded in the busiest bin: (0, 1], shape (T,)."""
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
    price = checked((high + low + close) / 3, bars)
    own, traded = checked(close, bars), checked(volume, bars)
    flat = (price.reshape(-1), own.reshape(-1), traded.reshape(-1))
    return _below(*flat, bars, beside(price)).reshape(price.shape)


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
    price, traded = checked((high + low + close) / 3, bars), checked(volume, bars)
    found = _busiest(price.reshape(-1), traded.reshape(-1), bars, bins, beside(price))
    return found[0].reshape(price.shape), found[1].reshape(price.shape)


@njit(cache=True)
def _busiest(
    price: np.ndarray, volume: np.ndarray, bars: int, bins: int, step: int
) -> tuple[np.ndarray, np.ndarray]:
    middle, share = np.full(len(price), np.nan), np.full(len(price), np.nan)
    held = np.zeros(bins)
    for i in range((bars - 1) * step, len(price)):
        first = i - (bars - 1) * step
        low, high, total = np.inf, -np.inf, 0.0
        for j in range(first, i + 1, step):
            low, high = min(low, price[j]), max(high, price[j])
            total += volume[j] + 0.0 * price[j]
        # not a single comparison holds for NaN: unknown, as a window that never moved or traded
        if not (total > 0.0 and high > low):
            continue
        held[:] = 0.0
        for j in range(first, i + 1, step):
            place = int((price[j] - low) / (high - low) * bins)
            held[min(place, bins - 1)] += volume[j]
        best = np.argmax(held)
        middle[i] = low + (high - low) * (best + 0.5) / bins
        share[i] = held[best] / total
    return middle, share


@njit(cache=True)
def _below(
    price: np.ndarray, close: np.ndarray, volume: np.ndarray, bars: int, step: int
) -> np.ndarray:
    out = np.full(len(price), np.nan)
    for i in range((bars - 1) * step, len(price)):
        total = below = 0.0
        for j in range(i - (bars - 1) * step, i + 1, step):
            total += volume[j] + 0.0 * price[j]
            below += volume[j] * (0.5 * (price[j] < close[i]) + 0.5 * (price[j] <= close[i]))
        if total > 0.0:
            out[i] = below / total
    return out
