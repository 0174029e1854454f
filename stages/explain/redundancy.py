"""Inputs that carry the same information: clusters by rank correlation, and what they share."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
from scipy.spatial.distance import squareform

from stages.base import DataError
from stages.explain.memory import column_of

LEAST = 30  # rows below which nothing is said of how two inputs hang together


@dataclass(frozen=True)
class Cluster:
    """Inputs any two of which carry much the same information.

    Attributes
    ----------
    inputs : tuple of str
        As explanations name them, the largest share first.
    least : float in [0, 1]
        Smallest absolute rank correlation between two of them.
    share : float in [0, 1]
        Of all pushes, summed over the inputs; NaN where no shares were given.
    """

    inputs: tuple[str, ...]
    least: float
    share: float


@dataclass(frozen=True)
class Redundancy:
    """How the inputs hang together.

    Attributes
    ----------
    correlation : DataFrame of shape (F, F)
        Rank correlations, in an order in which what belongs together stands together; NaN where
        an input never varies, or two have too few rows in common.
    clusters : tuple of Cluster
        Of two inputs or more, the largest share first.
    threshold : float
        Absolute rank correlation that any two of a cluster have.
    """

    correlation: pd.DataFrame
    clusters: tuple[Cluster, ...]
    threshold: float

    @property
    def distinct(self) -> int:
        """How many inputs are left if one stands for each cluster."""
        return len(self.correlation) - sum(len(c.inputs) - 1 for c in self.clusters)

    def record(self) -> dict[str, Any]:
        """Plain values, without the table of correlations."""
        clusters = [asdict(c) | {"inputs": list(c.inputs)} for c in self.clusters]
        for cluster in clusters:
            cluster["share"] = cluster["share"] if np.isfinite(cluster["share"]) else None
        return {
            "threshold": self.threshold,
            "inputs": len(self.correlation),
            "distinct": self.distinct,
            "clusters": clusters,
        }


def redundancy(
    inputs: pd.DataFrame,
    names: list[str],
    shares: Mapping[str, float] | None = None,
    threshold: float = 0.7,
) -> Redundancy:
    """Gather inputs into clusters, any two inputs of which are strongly rank-correlated.

    Parameters
    ----------
    inputs : DataFrame of shape (N, columns)
        Panel rows with the inputs.
    names : list of F str
        Inputs as explanations name them; those without a column, such as the gate, are left out.
    shares : mapping of str to float, optional
        Of each input in all pushes, such as ``Importance.inputs["share"]``.
    threshold : float in (0, 1), default=0.7

    Raises
    ------
    DataError
        SV-F18 for fewer than 30 rows.

    Notes
    -----
    Trees and weights decide which of two equal inputs gets the push that both deserve, so a small
    share is no proof of a useless input: read the share of its cluster. Complete linkage: an input
    joins only where it is close to all of a cluster, so chains of weak links do not form one.

    References
    ----------
    Hastie, Tibshirani & Friedman (2009), "The Elements of Statistical Learning", 14.3.12. Strobl
    et al. (2008), "Conditional variable importance for random forests", BMC Bioinformatics 9: how
    correlated inputs split what one of them alone would get.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"need threshold in (0, 1), got {threshold}")
    if len(inputs) < LEAST:
        raise DataError(
            f"{len(inputs)} rows do not tell which inputs hang together",
            code="SV-F18",
            cure=f"bring {LEAST} rows or more",
        )
    known = [name for name in names if column_of(name) in inputs]
    ranks = inputs[[column_of(name) for name in known]].rank().set_axis(known, axis=1)
    correlation = ranks.corr(min_periods=LEAST)
    if len(known) < 2:
        return Redundancy(correlation, (), threshold)
    close = correlation.abs().fillna(0.0).to_numpy().copy()
    np.fill_diagonal(close, 1.0)
    tree = linkage(squareform(np.clip(1 - close, 0, 1), checks=False), "complete")
    # a hair wider, or rounding would part two that stand at the threshold
    member = fcluster(tree, 1 - threshold + 1e-12, "distance")
    order = [known[i] for i in leaves_list(tree)]
    clusters = []
    for number in np.unique(member):
        at = np.flatnonzero(member == number)
        if len(at) > 1:
            clusters.append(_cluster([known[i] for i in at], close[np.ix_(at, at)], shares))
    rank = sorted(clusters, key=lambda c: (-np.nan_to_num(c.share), -len(c.inputs), c.inputs))
    return Redundancy(correlation.loc[order, order], tuple(rank), threshold)


def _cluster(names: list[str], close: np.ndarray, shares: Mapping[str, float] | None) -> Cluster:
    least = float(close.min())
    if shares is None:
        return Cluster(tuple(names), least, float("nan"))
    mine = {name: float(shares.get(name, 0.0)) for name in names}
    ranked = sorted(names, key=lambda name: (-mine[name], name))
    return Cluster(tuple(ranked), least, sum(mine.values()))
