"""What an asset does beside its peers: the part of its moves that common factors leave over.

`idiosyncratic` looks across the assets; the functions after it run along one asset and read its
column: ``{_target_: stages.features.peers.total, _partial_: true, of: idiosyncratic, bars: 5}``.
"""

import numpy as np
from numba import njit

from stages.features.cross_section import cross_section, moments_across
from stages.features.kernels import log_ratio, ratio, shifted, window_mean, window_sd, window_sum
from stages.panel import warms_up

PRESENT = 0.9  # least share of a window's returns that must be there


@cross_section
@warms_up(lambda bars, **_: bars - 1)
def idiosyncratic(of: np.ndarray, bars: int = 120, factors: int = 5) -> np.ndarray:
    """The newest return less what the main factors of the last `bars` returns explain: (T, A).

    Factors are the largest principal components of the standardised returns of all assets that
    were listed when the window began, in that window; it ends at the row itself, so the past
    does not see the future. A missing return counts as the asset's mean.

    Parameters
    ----------
    of : ndarray of shape (T, A)
        What to explain; in yaml the name of a one-bar log return listed above.
    bars : int, default=120
        Window of the factors.
    factors : int >= 1, default=5
        How many to take out, and at most a third as many as there are assets.

    References
    ----------
    Avellaneda & Lee (2010), "Statistical arbitrage in the US equities market", Quantitative
    Finance 10(7), section 2.
    """
    if factors < 1 or bars <= factors:
        raise ValueError(f"need 1 <= factors < bars, got factors={factors}, bars={bars}")
    known = np.isfinite(of)
    count = np.vstack([np.zeros((1, of.shape[1]), int), known.cumsum(axis=0)])
    out = np.full(of.shape, np.nan)
    for t in range(bars - 1, len(of)):
        first = t - bars + 1
        held = count[t + 1] - count[first]
        # a return at or before the window's first row: the asset was listed by then
        at = np.flatnonzero(known[t] & (count[first + 1] > 0) & (held >= PRESENT * bars))
        if len(at) >= 3:
            out[t, at] = _rest(of[first : t + 1, at], min(factors, len(at) // 3))
    return out


def _rest(window: np.ndarray, factors: int) -> np.ndarray:
    """Last row of `window`, (bars, a), less its main components; its mean is taken off too."""
    known = np.isfinite(window)
    filled = np.where(known, window, 0.0)
    count = known.sum(axis=0)
    centred = np.where(known, filled - filled.sum(axis=0) / count, 0.0)
    sd = np.sqrt((centred**2).sum(axis=0) / count)
    scaled = np.divide(centred, sd, out=np.zeros_like(centred), where=sd > 0)
    if scaled.shape[1] <= len(scaled):  # the smaller product; the components are the same
        main = np.linalg.eigh(scaled.T @ scaled)[1][:, -factors:]
        return (scaled[-1] - scaled[-1] @ main @ main.T) * sd
    main = np.linalg.eigh(scaled @ scaled.T)[1][:, -factors:]
    return (scaled[-1] - main[-1] @ (main.T @ scaled)) * sd


@cross_section
@warms_up(lambda **_: 0)
def size(close: np.ndarray, volume: np.ndarray) -> np.ndarray:
    """Log of the money traded, less its mean over the assets of the time: shape (T, A)."""
    traded = close * volume
    money = np.log(traded, out=np.full(traded.shape, np.nan), where=traded > 0)
    return _less_mean(money)


@njit(cache=True, nogil=True)
def _less_mean(of: np.ndarray) -> np.ndarray:
    out = np.empty(of.shape)
    for t in range(len(of)):
        out[t] = of[t] - moments_across(of[t])[0]
    return out


# along one asset


@warms_up(lambda bars, **_: bars - 1)
def average(of: np.ndarray, bars: int = 60) -> np.ndarray:
    """Mean of a column over the last `bars` bars: shape (T,)."""
    return window_mean(of, bars)


@warms_up(lambda bars, **_: bars - 1)
def total(of: np.ndarray, bars: int = 5) -> np.ndarray:
    """Sum of a column over the last `bars` bars: shape (T,)."""
    return window_sum(of, bars)


@warms_up(lambda bars, **_: bars)
def earlier(of: np.ndarray, bars: int = 1) -> np.ndarray:
    """A column as it was `bars` bars ago: shape (T,)."""
    return shifted(of, bars)


@warms_up(lambda bars, history, **_: max(bars, history) - 1)
def score(of: np.ndarray, bars: int = 5, history: int = 60) -> np.ndarray:
    """Sum over `bars` bars in standard deviations of the last `history`: shape (T,)."""
    return ratio(window_sum(of, bars), window_sd(of, history) * np.sqrt(bars))


@warms_up(lambda bars, **_: bars - 1)
def own_share(of: np.ndarray, whole: np.ndarray, bars: int = 60) -> np.ndarray:
    """Log of how much of the returns' spread is the asset's own, over `bars` bars: shape (T,).

    Parameters
    ----------
    of, whole : ndarray of shape (T,)
        In yaml the columns of the idiosyncratic and of the one-bar return.
    """
    return log_ratio(window_sd(of, bars), window_sd(whole, bars))


@warms_up(lambda bars, **_: bars - 1)
def common(of: np.ndarray, whole: np.ndarray, bars: int = 1) -> np.ndarray:
    """Return that the factors explain, over `bars` bars: shape (T,)."""
    return window_sum(whole - of, bars)


@warms_up(lambda bars, **_: bars - 1)
def traded(of: np.ndarray, usual: np.ndarray, bars: int = 5) -> np.ndarray:
    """Sum over `bars` bars, each weighed by its volume over the usual one: shape (T,).

    Parameters
    ----------
    of : ndarray of shape (T,)
    usual : ndarray of shape (T,)
        Mean volume over the bar's own; in yaml a column like VMA60.

    References
    ----------
    Campbell, Grossman & Wang (1993), "Trading volume and serial correlation in stock returns",
    QJE 108(4): moves on high volume revert.
    """
    return window_sum(ratio(of, usual), bars)


@warms_up(lambda bars, history, **_: bars + history - 2)
def jumps(of: np.ndarray, bars: int = 60, history: int = 60, least: float = 3.0) -> np.ndarray:
    """Sum over `bars` bars of the moves beyond `least` standard deviations: shape (T,).

    References
    ----------
    Bernard & Thomas (1989), "Post-earnings-announcement drift", J. Accounting Research 27:
    news moves a price once, and then on in the same direction.
    """
    sd = window_sd(of, history)
    return window_sum(np.where(np.abs(of) > least * sd, of, 0.0 * of * sd), bars)
