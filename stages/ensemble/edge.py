"""What a side must be worth to pay its cost, and how sure a posterior is that it does."""

import numpy as np
import pandas as pd
from scipy.special import ndtr

from stages.base import DataError

Pair = tuple[np.ndarray, np.ndarray]


def required_edge(panel: pd.DataFrame) -> np.ndarray:
    """Cost of a round trip over the return at stake, at most 1; shape (N,).

    Parameters
    ----------
    panel : DataFrame of shape (N, F)
        `cost` and `scale` (fractions) are read where they are there; no cost asks for no edge.

    Returns
    -------
    float64 ndarray of shape (N,)
        NaN where there is a cost and the return at stake is unknown.

    Raises
    ------
    DataError
        If there is a cost, but no column says what return is at stake.
    """
    cost = panel["cost"].to_numpy(dtype="float64") if "cost" in panel else np.zeros(len(panel))
    if "scale" not in panel:
        if (cost > 0).any():
            raise DataError(
                "trading costs something, but no column says what return is at stake",
                code="SV-X102",
                where="column scale of the panel",
                cure="use labels that know it, or make trading free: costs=none",
            )
        return cost
    scale = panel["scale"].to_numpy(dtype="float64")
    with np.errstate(divide="ignore", invalid="ignore"):
        edge = np.minimum(cost / scale, 1.0)
    return np.where(cost == 0, 0.0, edge)


def certainty(margin: np.ndarray, sd: np.ndarray, p_hold: np.ndarray, edge: np.ndarray) -> Pair:
    """Posterior probability that selling, and that buying, earns more than it costs.

    A position earns the return at stake where its side pays, loses it where the other does, and
    pays its cost in either case and in a hold: it is worth ``scale * (p_buy - p_sell) - cost``.
    With a Gaussian margin D = log(p_buy / p_sell) that is above 0 where
    ``D > log((1 + e) / (1 - e))``, ``e = edge / (1 - p_hold)``.

    Parameters
    ----------
    margin, sd : float64 ndarray of shape (N,)
        Posterior mean and standard deviation of the log-odds of buy over sell.
    p_hold : float64 ndarray of shape (N,)
    edge : float64 ndarray of shape (N,)
        See `required_edge`.

    Returns
    -------
    sell, buy : float64 ndarray of shape (N,)
        In [0, 1]; NaN where an input is.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        e = np.minimum(edge / (1 - p_hold), 1.0)
        asked = np.log1p(e) - np.log1p(-e)  # infinite where no odds would pay

        def of(lean: np.ndarray) -> np.ndarray:
            sure = ndtr((lean - asked) / sd)
            return np.where((sd == 0) & (lean == asked), 0.5, sure)

        return of(-margin), of(margin)
