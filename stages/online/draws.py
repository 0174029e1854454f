"""Which remembered rows are replayed: those that were badly foretold, or the younger ones, more."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

DAY = 86_400_000_000  # microseconds


@dataclass(frozen=True)
class Remembered:
    """What a draw may look at, of N rows.

    Attributes
    ----------
    time : int64 ndarray of shape (N,)
        Of the row, microseconds since 1970.
    loss : float64 ndarray of shape (N,)
        Cross-entropy of what the members said of it in its time, nats; NaN where nothing was.
    """

    time: np.ndarray
    loss: np.ndarray


class Policy(Protocol):
    """How rows are drawn from the memory."""

    def draw(self, rows: Remembered, n: int, generator: np.random.Generator) -> np.ndarray:
        """Numbers of at most `n` rows, each at most once."""
        ...


@dataclass(frozen=True)
class ByLoss:
    """Some rows by how badly they were foretold, the rest as a fair draw.

    A loss counts no more than the `clip` quantile of all: the largest losses are of labels that
    nobody could have foretold, and a memory of those teaches noise.

    Parameters
    ----------
    share : float in [0, 1], default=0.3
        Of the rows drawn, those that are drawn by their loss.
    clip : float in (0, 1], default=0.95

    References
    ----------
    Schaul et al. (2016), "Prioritized Experience Replay".
    """

    share: float = 0.3
    clip: float = 0.95

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or not 0 < self.clip <= 1:
            raise ValueError(
                f"need share in [0, 1] and clip in (0, 1], got share={self.share}, clip={self.clip}"
            )

    def draw(self, rows: Remembered, n: int, generator: np.random.Generator) -> np.ndarray:
        """The rows by loss first, then fair ones of the rest."""
        total = len(rows.loss)
        n = min(n, total)
        known = rows.loss[np.isfinite(rows.loss)]
        usual = float(known.mean()) if len(known) else 1.0
        most = float(np.quantile(known, self.clip)) if len(known) else 1.0
        weight = np.minimum(np.nan_to_num(rows.loss, nan=usual), most)
        first = weighted(weight, round(self.share * n), generator)
        rest = np.setdiff1d(np.arange(total), first)
        return np.concatenate([first, generator.permutation(rest)[: n - len(first)]])


@dataclass(frozen=True)
class ByAge:
    """Younger rows more often: a row counts half as much as one that is `half_life` younger.

    Parameters
    ----------
    half_life : float > 0, default=365
        Days.
    """

    half_life: float = 365.0

    def __post_init__(self) -> None:
        if not self.half_life > 0:
            raise ValueError(f"half_life must be above 0 days, got {self.half_life}")

    def draw(self, rows: Remembered, n: int, generator: np.random.Generator) -> np.ndarray:
        """Rows by their age, the newest being of age 0."""
        if not len(rows.time):
            return np.empty(0, dtype=int)
        age = (rows.time.max() - rows.time) / DAY
        return weighted(-np.log(2) * age / self.half_life, n, generator, logs=True)


def weighted(
    weight: np.ndarray, n: int, generator: np.random.Generator, logs: bool = False
) -> np.ndarray:
    """Numbers of `n` rows drawn one after the other, each by its weight among those left.

    Parameters
    ----------
    weight : float64 ndarray of shape (N,)
        At least 0; with `logs` their logarithms.
    n : int
    generator : Generator
    logs : bool, default=False
        Weights of very old rows would vanish as plain numbers.

    References
    ----------
    Efraimidis & Spirakis (2006), "Weighted random sampling with a reservoir", algorithm A-Res.
    """
    with np.errstate(divide="ignore"):
        log_weight = weight if logs else np.log(weight)
    # log(u) / w is largest for the row that is drawn first; so is log(w) - log(-log(u))
    key = log_weight - np.log(-np.log(generator.random(len(weight))))
    return np.argsort(-key, kind="stable")[:n]
