"""The arithmetic of a book of target weights, bar by bar, in one pass over the memory."""

import numpy as np
from numba import njit

STEPS = 60  # of Newton's method on a convex, piecewise linear equation: a few always suffice


@njit(cache=True)
def follow(  # type: ignore[no-untyped-def]
    target, rows, moved, priced, rates, interest, out
):
    """Trade to the rows of `target` and let the holdings move; how many periods went well.

    Parameters
    ----------
    target : float64 ndarray of shape (R, A)
        Weights to trade to.
    rows : int64 ndarray of shape (P,)
        Row of `target` at the start of each period; below 0 nothing is traded.
    moved : float64 ndarray of shape (P + 1, A) or (P, A)
        Prices of each bar, or the relatives of each period.
    priced : bool
        Which of the two.
    rates : float64 ndarray of shape (A,)
        Cost of a unit traded.
    interest : float64 ndarray of shape (2, P)
        On cash, and on what is sold short.
    out : float64 ndarray of shape (3, P + 1)
        Filled: value (the first is given), cost and traded of the period that ends there.

    Returns
    -------
    periods : int
        P, or the number of the period in which the value stopped being a number above 0.
    held : float64 ndarray of shape (A,)
        What is held at the end.
    """
    held = np.zeros(moved.shape[1])
    cash = out[0, 0]
    for t in range(len(rows)):
        out[1, t + 1] = out[2, t + 1] = 0.0
        if rows[t] >= 0:
            change, paid, cash = _trade(target[rows[t]], held, rates, out[0, t])
            out[1, t + 1], out[2, t + 1] = paid, change / out[0, t]
        sold = 0.0
        if interest[1, t] != 0.0:
            for i in range(len(held)):
                sold -= min(held[i], 0.0)
        cash += cash * interest[0, t] - sold * interest[1, t]
        total = cash + (_drift(held, moved[t + 1], moved[t]) if priced else _grow(held, moved[t]))
        if not 0.0 < total < np.inf:
            return t, held
        out[0, t + 1] = total
    return len(rows), held


@njit(cache=True)
def _trade(weights, held, rates, total):  # type: ignore[no-untyped-def]
    """Move `held` to the weights: value traded, its cost, and the cash that is left."""
    after = _after(weights, held, rates, total)
    change, paid, invested = 0.0, 0.0, 0.0
    for i in range(len(held)):
        aim = weights[i] * after
        step = abs(aim - held[i])
        change += step
        paid += rates[i] * step
        invested += aim
        held[i] = aim
    return change, paid, total - paid - invested


@njit(cache=True)
def _after(weights, held, rates, total):  # type: ignore[no-untyped-def]
    """Capital that is left when its cost is paid: the root of a convex, piecewise linear rise."""
    after = total
    if not rates.any():
        return after
    for _ in range(STEPS):
        gap, slope = after - total, 1.0
        for i in range(len(weights)):
            miss = weights[i] * after - held[i]
            gap += rates[i] * abs(miss)
            slope += rates[i] * weights[i] * np.sign(miss)
        better = after - gap / slope
        if abs(better - after) <= 1e-16 * total:
            break
        after = better
    return after


@njit(cache=True)
def _drift(held, now, before):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(held)):
        if held[i] != 0.0:  # a price may be missing where nothing is held
            held[i] *= now[i] / before[i]
        total += held[i]
    return total


@njit(cache=True)
def _grow(held, relative):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(held)):
        if held[i] != 0.0:
            held[i] *= relative[i]
        total += held[i]
    return total
