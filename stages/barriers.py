"""Kernels of the labels: volatility known at a bar, first touch after it, uniqueness.

Arrays cover all assets, one after the other; ``starts`` of shape (A + 1,) marks where each begins.
"""

import numpy as np
from numba import njit

MIN_RETURNS = 20  # fewer squared returns than a trading month say little about volatility
FORGOTTEN = 1e-3  # weight below which an old return no longer counts


def volatility(close: np.ndarray, starts: np.ndarray, decay: float) -> np.ndarray:
    """Exponentially weighted standard deviation of the log returns known at each bar.

    The weights end where they fall below `FORGOTTEN` (112 bars at 0.94), so that a value depends
    on those bars alone and not on where the history begins.

    Parameters
    ----------
    close : ndarray of shape (N,)
        NaN where a price is missing; a return needs both of its prices.
    starts : int ndarray of shape (A + 1,)
    decay : float in (0, 1)

    Returns
    -------
    float64 ndarray of shape (N,)
        Per bar, fraction; NaN before `MIN_RETURNS` returns, at a missing price, and where the
        price never moved.
    """
    window = max(MIN_RETURNS, int(np.ceil(np.log(FORGOTTEN) / np.log(decay))))
    with np.errstate(divide="ignore", invalid="ignore"):
        square = np.diff(np.log(np.where(close > 0, close, np.nan)), prepend=np.nan) ** 2
    square[starts[:-1]] = np.nan  # from the last close of one asset to the first of the next
    sigma = _volatility(square, starts, decay ** np.arange(window))
    return np.where((close > 0) & (sigma > 0), sigma, np.nan)


@njit(cache=True)
def _volatility(square: np.ndarray, starts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    out = np.full(len(square), np.nan)
    for a in range(len(starts) - 1):
        for i in range(starts[a], starts[a + 1]):
            # summed afresh at each bar: a running sum would remember the start of the history
            total, weight, count = 0.0, 0.0, 0
            for lag in range(min(len(weights), i - starts[a] + 1)):
                if square[i - lag] >= 0:  # false for NaN
                    total += weights[lag] * square[i - lag]
                    weight += weights[lag]
                    count += 1
            if count >= MIN_RETURNS:
                out[i] = np.sqrt(total / weight)
    return out


@njit(cache=True)
def first_touch(
    prices: np.ndarray, starts: np.ndarray, width: np.ndarray, enter: np.ndarray, steps: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Follow each bar's position to its first barrier.

    Parameters
    ----------
    prices : float64 ndarray of shape (4, N)
        Open (NaN: unknown, no gap is seen), high, low, close.
    starts : int ndarray of shape (A + 1,)
    width : float64 ndarray of shape (N,)
        Log distance of both barriers from the entry; NaN: no position.
    enter : float64 ndarray of shape (N,)
        Price at which a position taken at that bar starts.
    steps : int ndarray of shape (3,)
        Bars from the decision to the entry, to the first and to the last watched bar.

    Returns
    -------
    side : int8 ndarray of shape (N,)
    last : int64 ndarray of shape (N,)
        Last bar at which the position was open as far as the prices reach; the bar itself where
        there was none.
    ret : float64 ndarray of shape (N,)
        Return from entry to exit, NaN unless all bars to the vertical barrier are known.
    reach : float64 ndarray of shape (N,)
        Largest log distance from the entry up to the vertical barrier; NaN like `ret`.
    """
    n = len(width)
    side, last = np.zeros(n, dtype=np.int8), np.arange(n)
    ret, reach = np.full(n, np.nan), np.full(n, np.nan)
    for a in range(len(starts) - 1):
        stop = starts[a + 1]
        for i in range(starts[a], stop):
            if not width[i] > 0:
                continue
            last[i] = min(i + steps[0], stop - 1)
            if i + steps[0] < stop and enter[i + steps[0]] > 0:
                price, until = enter[i + steps[0]], i + steps[2] + 1
                span = prices[:, i + steps[1] : min(until, stop)]
                side[i], held, paid, most = _follow(span, price, width[i])
                last[i] = max(last[i], i + steps[1] + held - 1)
                if until <= stop and most >= 0:  # false for NaN
                    ret[i], reach[i] = paid / price - 1, most
    return side, last, ret, reach


@njit(cache=True)
def _follow(prices: np.ndarray, price: float, width: float) -> tuple[int, int, float, float]:
    """Side, bars held, price at the exit and reach of one position; NaN reach: a bar is missing."""
    upper, lower = price * np.exp(width), price * np.exp(-width)
    side, held, paid, most, inside = 0, 0, np.nan, 0.0, True
    for b in range(prices.shape[1]):
        at_open, high, low, close = prices[:, b]
        if not (high > 0 and low > 0 and close > 0):
            return side, held, paid, np.nan
        most = max(most, np.log(high / price), np.log(price / low))
        if inside:
            held = b + 1
            side, paid = _meet(at_open, high, low, close, upper, lower)
            inside = np.isnan(paid)
    return side, held, prices[3, -1] if inside else paid, most


@njit(cache=True)
def _meet(
    at_open: float, high: float, low: float, close: float, upper: float, lower: float
) -> tuple[int, float]:
    """Side and price at which one bar ends a position; NaN where it does not."""
    if at_open >= upper:
        return 1, at_open
    if at_open <= lower:
        return -1, at_open
    if high >= upper and low <= lower:
        return 0, close  # which came first is not known
    if high >= upper:
        return 1, max(upper, low)
    if low <= lower:
        return -1, min(lower, high)
    return 0, np.nan


@njit(cache=True)
def uniqueness(last: np.ndarray) -> np.ndarray:
    """Mean of 1 / (labels alive) over the bars of each label.

    Parameters
    ----------
    last : int64 ndarray of shape (N,)
        Last bar of the label of each bar, which lives from the bar after; i where there is none.
        Labels still open count too: what is known later must not change a weight.

    Returns
    -------
    float64 ndarray of shape (N,)
        In (0, 1]; NaN where there is no label.

    References
    ----------
    Lopez de Prado (2018), "Advances in Financial Machine Learning", ch. 4.4.
    """
    alive, out = np.zeros(len(last)), np.full(len(last), np.nan)
    for i in range(len(last)):
        for b in range(i + 1, last[i] + 1):
            alive[b] += 1
    for i in range(len(last)):
        if last[i] > i:
            share = 0.0
            for b in range(i + 1, last[i] + 1):
                share += 1 / alive[b]
            out[i] = share / (last[i] - i)
    return out
