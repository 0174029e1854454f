"""What a bad period costs: value at risk and expected shortfall, by three kinds of distribution."""

from typing import Literal, get_args

import numpy as np
from scipy.special import ndtri
from scipy.stats import kurtosis, norm, skew

Kind = Literal["historical", "gaussian", "cornish_fisher"]
KINDS = get_args(Kind)


def value_at_risk(returns: np.ndarray, level: float = 0.95, kind: Kind = "historical") -> float:
    """Loss of a period that is not exceeded with probability `level`; below 0 it is a gain.

    Parameters
    ----------
    returns : float ndarray of shape (T,)
    level : float in (0.5, 1), default=0.95
    kind : {'historical', 'gaussian', 'cornish_fisher'}
        The empirical quantile, linear between returns; that of a normal distribution with their
        mean and deviation (divisor T - 1); or that quantile corrected for their skewness and
        kurtosis.

    References
    ----------
    Favre & Galeano (2002), J. Alternative Investments 5(2) (Cornish-Fisher). The correction is an
    expansion: far from the normal it need not rise with the level.
    """
    x = np.asarray(returns, dtype="float64")
    if len(x) < 2:
        return float("nan")
    if kind == "historical":
        return float(-np.quantile(x, 1 - level))
    z = ndtri(1 - level)
    shape = _shape(x, kind)
    corrected = z + shape @ [z**2 - 1, z**3 - 3 * z, -(2 * z**3 - 5 * z)]
    return float(-(x.mean() + x.std(ddof=1) * corrected))


def expected_shortfall(
    returns: np.ndarray, level: float = 0.95, kind: Kind = "historical"
) -> float:
    """Mean loss of a period in the worst ``1 - level`` of cases (conditional value at risk).

    Parameters
    ----------
    returns, level, kind
        See `value_at_risk`: the mean of its quantiles beyond the level. The historical one counts
        the return at the edge by the part of it that belongs to the tail.

    References
    ----------
    Acerbi & Tasche (2002), J. Banking & Finance 26(7).
    """
    x = np.asarray(returns, dtype="float64")
    if len(x) < 2:
        return float("nan")
    tail = 1 - level
    if kind == "historical":
        counted = tail * len(x)
        if abs(counted - round(counted)) < 1e-9 * len(x):  # 1 - 0.95 is not quite a twentieth
            counted = round(counted)
        weight = np.clip(counted - np.arange(len(x)), 0, 1)
        return float(-(np.sort(x) @ weight) / counted)
    z = ndtri(tail)
    density = norm.pdf(z)
    # integrals of z, z**2 and z**3 under the density, from minus infinity to z
    one, two, three = -density, tail - z * density, -(z**2 + 2) * density
    part = one + _shape(x, kind) @ [two - tail, three - 3 * one, -(2 * three - 5 * one)]
    return float(-(x.mean() + x.std(ddof=1) * part / tail))


def _shape(x: np.ndarray, kind: Kind) -> np.ndarray:
    """Coefficients of the expansion: skewness / 6, excess kurtosis / 24, skewness ** 2 / 36."""
    if kind == "gaussian" or np.ptp(x) == 0:
        return np.zeros(3)
    lean = float(skew(x))
    return np.array([lean / 6, float(kurtosis(x)) / 24, lean**2 / 36])
