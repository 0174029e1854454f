"""Sharpe ratios with what luck, and the choice among many trials, would give."""

import math

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri
from scipy.stats import kurtosis, skew

from stages.evaluate.bootstrap import interval, resample

YEAR = pd.Timedelta(days=365.25)


def sharpe_ratio(returns: np.ndarray) -> float:
    """Mean return of a bar over its standard deviation; arithmetic, nothing subtracted.

    Parameters
    ----------
    returns : float ndarray of shape (T,)
        Fraction a bar; finite.

    Returns
    -------
    float
        Per bar: times the root of the bars of a year it is annual. NaN for fewer than two bars, or
        returns that never differ.
    """
    returns = np.asarray(returns, dtype="float64")
    if len(returns) < 2 or np.ptp(returns) == 0:
        return float("nan")
    return float(returns.mean() / returns.std(ddof=1))


def sharpe_interval(
    returns: np.ndarray, span: int = 1, resamples: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Sharpe ratio per bar with its 95 % interval and standard error, from blocks of bars.

    Parameters
    ----------
    returns : float ndarray of shape (T,)
    span : int >= 1
        Bars for which a position is held: the least length of a block.
    resamples, seed
        See `stages.evaluate.bootstrap.resample`.

    Returns
    -------
    dict
        ``value``, ``low``, ``high``, ``error``.
    """
    value = sharpe_ratio(returns)
    if not np.isfinite(value):
        return dict.fromkeys(("value", "low", "high", "error"), float("nan"))
    x = np.asarray(returns, dtype="float64")

    def ratio(sums: np.ndarray) -> np.ndarray:
        n, total, square = np.moveaxis(sums, -1, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = (square - total**2 / n) / (n - 1)
            return np.asarray(total / n / np.sqrt(variance))[..., None]

    sums = np.column_stack([np.ones_like(x), x, x**2])
    out = resample(ratio, sums, span, resamples, seed)
    low, high = interval(out.drawn[:, 0])
    return {"value": value, "low": low, "high": high, "error": float(out.error[0])}


def probability_above(
    sharpe: float, benchmark: float, bars: int, skewness: float = 0.0, kurt: float = 3.0
) -> float:
    """Probability that a true Sharpe ratio exceeds a benchmark, from what was seen of it.

    Parameters
    ----------
    sharpe, benchmark : float
        Per bar.
    bars : int >= 2
        T.
    skewness, kurt : float
        Of the returns; the kurtosis of a Gaussian is 3.

    Returns
    -------
    float
        In [0, 1]; NaN where the moments leave no variance.

    References
    ----------
    Bailey & Lopez de Prado (2012), "The Sharpe Ratio Efficient Frontier", J. Risk 15(2), eq. 11;
    the variance is that of Mertens (2002), and takes bars to be independent.
    """
    variance = 1 - skewness * sharpe + (kurt - 1) / 4 * sharpe**2
    if not variance > 0:
        return float("nan")
    return float(ndtr((sharpe - benchmark) * math.sqrt((bars - 1) / variance)))


def probabilistic_sharpe(returns: np.ndarray, benchmark: float = 0.0, error: float = 0.0) -> float:
    """`probability_above` of the returns of T bars.

    Parameters
    ----------
    returns : float ndarray of shape (T,)
    benchmark : float, default=0
        Sharpe ratio per bar.
    error : float, default=0
        Standard error of the ratio per bar where bars depend on each other, such as that of
        `sharpe_interval`; it counts where it is larger than that of independent bars.
    """
    returns = np.asarray(returns, dtype="float64")
    value = sharpe_ratio(returns)
    if not np.isfinite(value) or len(returns) < 4:
        return float("nan")
    moments = float(skew(returns)), float(kurtosis(returns, fisher=False))
    said = probability_above(value, benchmark, len(returns), *moments)
    if not error > 0:
        return said
    doubtful = float(ndtr((value - benchmark) / error))
    return doubtful if abs(doubtful - 0.5) < abs(said - 0.5) else said


def expected_maximum(trials: int, variance: float) -> float:
    """Largest Sharpe ratio to expect of so many trials that all have none.

    Parameters
    ----------
    trials : int >= 1
        N; of one trial, 0 is expected.
    variance : float >= 0
        Of the Sharpe ratios of the trials.

    References
    ----------
    Bailey & Lopez de Prado (2014), "The Deflated Sharpe Ratio", J. Portfolio Management 40(5),
    eq. 1.
    """
    if trials < 1 or not variance >= 0:
        raise ValueError(f"need trials >= 1 and variance >= 0, got {trials}, {variance}")
    if trials == 1:
        return 0.0
    best = (1 - np.euler_gamma) * ndtri(1 - 1 / trials)
    best += np.euler_gamma * ndtri(1 - 1 / (trials * math.e))
    return float(math.sqrt(variance) * best)


def deflated_sharpe(returns: np.ndarray, trials: int, variance: float, error: float = 0.0) -> float:
    """Probability that the true Sharpe ratio is above 0, given that it was chosen among trials.

    `probabilistic_sharpe` against the `expected_maximum` of N trials without skill. Trials that
    resemble each other have a small variance, so they count for less.

    Parameters
    ----------
    returns : float ndarray of shape (T,)
        Of the trial that was chosen.
    trials : int >= 1
        N.
    variance : float >= 0
        Of the trials' Sharpe ratios, per bar.
    error : float, default=0
        See `probabilistic_sharpe`.

    References
    ----------
    Bailey & Lopez de Prado (2014), eq. 2.
    """
    return probabilistic_sharpe(returns, expected_maximum(trials, variance), error)


def minimum_track_record(
    sharpe: float,
    benchmark: float = 0.0,
    skewness: float = 0.0,
    kurt: float = 3.0,
    level: float = 0.95,
) -> float:
    """Bars from which `probability_above` the benchmark reaches `level`; infinite if never.

    References
    ----------
    Bailey & Lopez de Prado (2012), eq. 13.
    """
    if not sharpe > benchmark:
        return math.inf if np.isfinite(sharpe) else float("nan")
    variance = 1 - skewness * sharpe + (kurt - 1) / 4 * sharpe**2
    return float(1 + variance * (ndtri(level) / (sharpe - benchmark)) ** 2)


def bars_per_year(times: pd.DatetimeIndex) -> float:
    """Bars of a year at the mean pace of `times`, in whole numbers from 10 on; NaN for one."""
    if len(times) < 2:
        return float("nan")
    pace = float((len(times) - 1) / ((times.max() - times.min()) / YEAR))
    return round(pace) if pace >= 10 else pace
