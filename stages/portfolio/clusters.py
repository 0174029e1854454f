"""Which assets move together: few of each group may be held."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from stages.portfolio.book import Book
from stages.portfolio.prepared import Day


@dataclass(frozen=True)
class Clusters:
    """Hierarchical clusters of the correlation of daily log returns, by average linkage.

    Parameters
    ----------
    bars : int >= 3, default=60
        Returns that the correlation is estimated on.
    every : int >= 1, default=20
        Decision times from one clustering to the next; in between they are read from the book.
    correlation : float in (-1, 1), default=0.7
        Assets are joined while the mean correlation between their groups is at least this.
    least : float in (0, 1], default=0.8
        Share of the bars that an asset must have been traded in; others stand alone.

    References
    ----------
    Mantegna (1999), "Hierarchical structure in financial markets", Eur. Phys. J. B 11.
    """

    bars: int = 60
    every: int = 20
    correlation: float = 0.7
    least: float = 0.8

    def __post_init__(self) -> None:
        if self.bars < 3 or self.every < 1:
            raise ValueError(f"need bars >= 3 and every >= 1, got {self.bars} and {self.every}")
        if not (-1 < self.correlation < 1 and 0 < self.least <= 1):
            raise ValueError(f"need correlation in (-1, 1) and least in (0, 1], got {self}")

    def due(self, day: Day, book: Book) -> bool:
        """Whether the clusters of `book` are too old, or there are none."""
        return book.clustered is None or not 0 <= day.since(book.clustered) < self.every

    def at(self, day: Day) -> dict[str, int]:
        """Cluster of each asset with enough returns, numbered in order of name; may be empty."""
        prices = day.past(day.prepared.last, self.bars + 1)
        if len(prices) <= self.bars:
            return {}
        traded = day.past(day.prepared.open, self.bars).mean(axis=0) >= self.least
        returns = np.diff(np.log(prices), axis=0)
        # a price that stands still correlates with nothing
        known = np.flatnonzero(traded & np.isfinite(returns).all(axis=0) & (np.ptp(returns, 0) > 0))
        if len(known) < 2:
            return {}
        distance = np.clip(1 - np.corrcoef(returns[:, known], rowvar=False), 0, 2)
        np.fill_diagonal(distance, 0)
        tree = linkage(squareform(distance, checks=False), method="average")
        labels = fcluster(tree, 1 - self.correlation, criterion="distance")
        numbers: dict[int, int] = {}
        return {
            day.assets[place]: numbers.setdefault(label, len(numbers))
            for place, label in zip(known.tolist(), labels.tolist(), strict=True)
        }


def cluster_of(asset: str, clusters: Mapping[str, int]) -> int | str:
    """The cluster of an asset; one that is in none stands alone."""
    return clusters.get(asset, asset)
