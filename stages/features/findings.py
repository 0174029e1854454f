"""What can be wrong with the columns of a table, found and named."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numba import njit

NOTE, WARNING, FAULT = "note", "warning", "fault"
READ = ("feature", "rule", "context")  # families that stages read


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a column.

    Attributes
    ----------
    column : str
    kind : {'missing', 'infinite', 'constant', 'duplicate', 'correlated', 'stale'}
    severity : {'note', 'warning', 'fault'}
        A fault leaves nothing to learn from the column.
    share : float
        Of the rows, in [0, 1]; of a pair its correlation, in [-1, 1].
    other : str
        The column of which it is a copy, or with which it moves.
    """

    column: str
    kind: str
    severity: str
    share: float
    other: str = ""

    def __str__(self) -> str:
        if self.kind == "correlated":
            return f"{self.column} moves with {self.other}, correlation {self.share:+.3f}"
        if self.kind == "duplicate":
            return f"{self.column} is a copy of {self.other}"
        return f"{self.column} is {self.kind} in {self.share:.1%} of the rows"


@dataclass(frozen=True)
class Review:
    """What was found in a table.

    Attributes
    ----------
    rows : int
        Rows that were judged.
    scores : dict of str to float
        Of each column, in [0, 100]: share of the rows with a sound value, 0 for a fault.
    findings : tuple of Finding
        Worst first.
    dropped : dict of str to str
        Columns that are not learnt from, and why.
    """

    rows: int
    scores: dict[str, float]
    findings: tuple[Finding, ...]
    dropped: dict[str, str]

    @property
    def score(self) -> float:
        """Mean of the scores of the columns that are kept, in [0, 100]."""
        kept = [score for name, score in self.scores.items() if name not in self.dropped]
        return float(np.mean(kept)) if kept else 0.0

    def sources(self) -> dict[str, float]:
        """Mean score of the columns of each family; what has none is of the bars."""
        families: dict[str, list[float]] = {}
        for name, score in self.scores.items():
            family = name.partition(".")[0] if "." in name else "bars"
            families.setdefault(family, []).append(score)
        return {family: float(np.mean(found)) for family, found in families.items()}

    def as_dict(self) -> dict[str, Any]:
        """JSON-able content."""
        return {
            "rows": self.rows,
            "score": self.score,
            "sources": self.sources(),
            "columns": dict(self.scores),
            "dropped": dict(self.dropped),
            "findings": [dict(vars(finding)) for finding in self.findings],
        }

    def lines(self) -> list[str]:
        """The review in a few lines: score, what was dropped, how many findings of each kind."""
        kept = len(self.scores) - len(self.dropped)
        lines = [f"quality of {kept} columns: {self.score:.1f} of 100 over {self.rows:,} rows"]
        lines += [f"dropped {name}: {why}" for name, why in self.dropped.items()]
        for kind in dict.fromkeys(finding.kind for finding in self.findings):
            of_kind = [f for f in self.findings if f.kind == kind and f.column not in self.dropped]
            if of_kind:
                lines.append(f"{kind}: {len(of_kind)}, first {of_kind[0]}")
        return lines


@dataclass(frozen=True)
class Share:
    """Shares of a column's rows, in [0, 1], and its smallest and largest finite value."""

    missing: float
    infinite: float
    low: float
    high: float


def shares_of(part: pd.DataFrame) -> dict[str, Share]:
    """What each column lacks, and its span."""
    found = {}
    for name in part.columns:
        missing, infinite, low, high = _counted(part[name].to_numpy(dtype="float64", copy=True))
        rows = max(len(part), 1)
        found[str(name)] = Share(missing / rows, infinite / rows, low, high)
    return found


def faulty(part: pd.DataFrame, shares: dict[str, Share], limit: float) -> Iterable[Finding]:
    """What single columns lack, and which of them are copies."""
    first: dict[int, list[str]] = {}
    for name, share in shares.items():
        if share.infinite:
            yield Finding(name, "infinite", WARNING, share.infinite)
        if share.low > share.high:  # no finite value
            yield Finding(name, "missing", FAULT, share.missing)
            continue
        if share.missing > limit:
            yield Finding(name, "missing", WARNING, share.missing)
        if share.low == share.high:
            yield Finding(name, "constant", FAULT, 1.0 - share.missing - share.infinite)
            continue
        values = part[name].to_numpy() + 0.0  # both zeros alike
        alike = first.setdefault(hash(values.tobytes()), [])
        same = [n for n in alike if np.array_equal(part[n].to_numpy(), values, equal_nan=True)]
        if same:
            yield Finding(name, "duplicate", FAULT if _made(name) else NOTE, 1.0, same[0])
        alike.append(name)


def pairs_of(table: pd.DataFrame, limit: float, most: int) -> list[Finding]:
    """Pairs of columns, the later one named first, whose correlation is beyond the limit."""
    every = max(-(-len(table) // most), 1)
    x = table.iloc[::every].to_numpy(dtype="float64", copy=True)
    matrix = correlations(x)
    size = np.abs(np.tril(np.nan_to_num(matrix), -1))
    return [
        Finding(
            str(table.columns[i]), "correlated", NOTE, float(matrix[i, j]), str(table.columns[j])
        )
        for i, j in np.argwhere(size >= limit)
    ]


def correlations(x: np.ndarray) -> np.ndarray:
    """Pearson correlation of each pair of columns over the rows that both have: (F, F).

    Parameters
    ----------
    x : ndarray of shape (N, F)
        NaN and infinities count as missing. A pair with fewer than 2 rows, or of which one stands
        still, is NaN.
    """
    known = np.isfinite(x)
    held = known.astype("float64")
    count = held.sum(axis=0)
    centre = np.where(known, x, 0.0).sum(axis=0) / np.maximum(count, 1)
    gap = np.where(known, x - centre, 0.0)  # near the mean, so that nothing cancels
    scale = np.sqrt((gap**2).sum(axis=0) / np.maximum(count, 1))
    gap /= np.where(scale > 0, scale, 1.0)
    pairs, sums = held.T @ held, gap.T @ held  # sums[i, j]: of column i over the rows of j
    squares = (gap**2).T @ held
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt(squares - sums**2 / pairs)
        out = (gap.T @ gap - sums * sums.T / pairs) / (spread * spread.T)
    return np.where((pairs > 1) & (spread > 1e-9) & (spread.T > 1e-9), out, np.nan)


def _made(name: str) -> bool:
    return name.partition(".")[0] in READ


def is_feature(name: str) -> bool:
    """Whether a column may be dropped."""
    # rules are what voters were chosen for, context what the ensemble was: only features go
    return name.startswith("feature.")


@njit(cache=True, nogil=True)
def _counted(x: np.ndarray) -> tuple[int, int, float, float]:
    """How many are NaN, how many infinite, and the smallest and largest of the others."""
    missing, infinite, low, high = 0, 0, np.inf, -np.inf
    for value in x:
        if np.isnan(value):
            missing += 1
        elif np.isinf(value):
            infinite += 1
        else:
            low, high = min(low, value), max(high, value)
    return missing, infinite, low, high
