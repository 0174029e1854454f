"""What a trade would cost, read from prices alone."""

import numpy as np

from stages.features.kernels import (
    change,
    log_ratio,
    shifted,
    window_covariance,
    window_max,
    window_mean,
    window_min,
)
from stages.features.returns import log_return
from stages.panel import warms_up

NARROW = 3 - 2 * np.sqrt(2)


@warms_up(lambda bars, **_: bars)
def high_low_spread(high: np.ndarray, low: np.ndarray, bars: int = 20) -> np.ndarray:
    """Bid-ask spread implied by high and low, mean of `bars` pairs of bars, fraction: (T,).

    A range holds variance, which grows with time, and the spread, which does not: two bars
    together tell them apart. As usual negative estimates of a pair count as 0; the paper's
    shift for overnight moves is left out.

    References
    ----------
    Corwin & Schultz (2012), "A Simple Way to Estimate Bid-Ask Spreads from Daily High and Low
    Prices", J. Finance 67(2), equations 14 and 18.
    """
    each = log_ratio(high, low) ** 2
    both = each + shifted(each, 1)
    span = log_ratio(window_max(high, 2), window_min(low, 2)) ** 2
    alpha = (np.sqrt(2 * both) - np.sqrt(both)) / NARROW - np.sqrt(span / NARROW)
    spread = 2 * np.expm1(alpha) / (1 + np.exp(alpha))
    return window_mean(np.maximum(spread, 0), bars)


@warms_up(lambda bars, **_: bars + 1)
def bounce(close: np.ndarray, bars: int = 20) -> np.ndarray:
    """Bid-ask spread implied by returns that reverse, fraction; 0 if they do not: shape (T,).

    References
    ----------
    Roll (1984), "A Simple Implicit Measure of the Effective Bid-Ask Spread in an Efficient
    Market", J. Finance 39(4).
    """
    move = log_return(close)
    return 2 * np.sqrt(np.maximum(-window_covariance(move, shifted(move, 1), bars), 0))


@warms_up(lambda bars, **_: bars)
def standing(close: np.ndarray, bars: int = 60) -> np.ndarray:
    """Share of the last `bars` bars that closed where the bar before did: [0, 1], shape (T,).

    References
    ----------
    Lesmond, Ogden & Trzcinka (1999), "A New Estimate of Transaction Costs", Review of Financial
    Studies 12(5).
    """
    move = change(close)
    return window_mean(np.where(move == 0, 1.0, 0.0 * move), bars)
