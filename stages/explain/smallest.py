"""Finds the smallest change of a row's inputs that gives what is asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from stages.explain.trials import Change, Trials

COUNT = {1: "one input", 2: "two inputs", 3: "three inputs"}
DIGITS = (2, 3, 4, 6)  # of a value that is told, the fewest that do


@dataclass(frozen=True)
class Search:
    """How far to look.

    Parameters
    ----------
    most : int in 1 ... 3, default=3
        Inputs that may move.
    low, high : float in [0, 1], default=0.01, 0.99
        Quantiles of the training between which an input may move.
    levels : int, default=21
        Values tried of each input, evenly spaced in rank; the best are refined.
    columns : int, default=64
        Inputs tried, those with the largest contributions first; all, if no contributions are
        given.
    wide : int, default=16
        Inputs that come nearest alone, of which pairs and triples are made.
    batch : int, default=1024
        Pairs, and triples, that are tried: those whose parts promise most.
    """

    most: int = 3
    low: float = 0.01
    high: float = 0.99
    levels: int = 21
    columns: int = 64
    wide: int = 16
    batch: int = 1024

    def __post_init__(self) -> None:
        if self.most not in COUNT or not 0 <= self.low < self.high <= 1:
            raise ValueError(f"need most in 1 ... 3 and 0 <= low < high <= 1, got {self}")
        if min(self.levels, self.columns, self.wide, self.batch) < 2:
            raise ValueError(f"need at least 2 levels, columns, wide and batch, got {self}")


class Asked:
    """Puts changes to the trials; counts them, and remembers which came nearest."""

    def __init__(self, trials: Trials) -> None:
        self.trials, self.count = trials, 0
        self.nearest: Change = {}
        self._least = np.inf

    def about(self, changes: Sequence[Change]) -> tuple[np.ndarray, np.ndarray]:
        """Whether each hits, and what it lacks: two arrays of shape (C,)."""
        if not changes:
            return np.zeros(0, dtype=bool), np.zeros(0)
        judged = self.trials.judge(changes)
        self.count += len(changes)
        best = int(judged.lack.argmin())
        if judged.lack[best] < self._least:
            self._least, self.nearest = judged.lack[best], changes[best]
        return judged.hit, judged.lack


def smallest(asked: Asked, columns: list[str], search: Search) -> Change | None:
    """The change of fewest inputs, and of those the smallest, that hits; None if none did."""
    memory = asked.trials.memory
    shares = np.linspace(search.low, search.high, search.levels)
    singles: list[Change] = [
        {column: float(value)}
        for column in columns
        for value in np.unique(memory.quantile(column, shares))
        if np.float32(value) != np.float32(asked.trials.start(column))
    ]
    hit, lack = asked.about([{}, *singles])
    if hit.any():
        return _least_of(asked, [c for c, h in zip(singles, hit[1:], strict=True) if h], search)
    base, parts = lack[0], _promising(asked, singles, lack[1:], search)
    beam: list[tuple[Change, float]] = parts
    for size in range(2, search.most + 1):
        joined = {
            tuple(sorted({**one, **other}.items())): gap + part - base
            for (one, gap), (other, part) in _pairs(beam, parts, first=size == 2)
        }
        order = sorted(joined, key=lambda key: (joined[key], key))[: search.batch]
        tried: list[Change] = [dict(key) for key in order]
        hit, lack = asked.about(tried)
        if hit.any():
            return _least_of(asked, [c for c, h in zip(tried, hit, strict=True) if h], search)
        best = np.argsort(lack, kind="stable")[: search.batch // 8]
        beam = [(tried[i], float(lack[i])) for i in best if np.isfinite(lack[i])]
    return None


def _promising(
    asked: Asked, singles: list[Change], lack: np.ndarray, search: Search
) -> list[tuple[Change, float]]:
    """Of the inputs that come nearest, up to four levels each that no smaller shift betters."""
    of: dict[str, list[tuple[float, float, Change]]] = {}
    for change, gap in zip(singles, lack, strict=True):
        of.setdefault(next(iter(change)), []).append((asked.trials.shift(change), gap, change))
    front: dict[str, list[tuple[Change, float]]] = {}
    for column, tried in of.items():
        least = np.inf
        kept: list[tuple[Change, float]] = []
        for _, gap, change in sorted(tried, key=lambda t: t[0]):
            if gap < least:
                least = gap
                kept.append((change, float(gap)))
        places = np.linspace(0, len(kept) - 1, min(4, len(kept))).round().astype(int)
        front[column] = [kept[i] for i in places]
    ranked = sorted(front, key=lambda c: min((g for _, g in front[c]), default=np.inf))
    return [part for column in ranked[: search.wide] for part in front[column]]


def _pairs(
    beam: list[tuple[Change, float]], parts: list[tuple[Change, float]], first: bool
) -> Iterator[tuple[tuple[Change, float], tuple[Change, float]]]:
    both = combinations(parts, 2) if first else product(beam, parts)
    return ((one, other) for one, other in both if not set(one[0]) & set(other[0]))


def _least_of(asked: Asked, hits: list[Change], search: Search) -> Change:
    """The smallest of the changes that hit, made smaller while it hits, in round numbers."""
    by_shift = sorted(hits, key=asked.trials.shift)
    several: dict[tuple[str, ...], Change] = {}
    for change in by_shift:
        several.setdefault(tuple(change), change)
    shrunk = _shrunk(asked, list(several.values())[:4])
    return _rounded(asked, min(shrunk, key=asked.trials.shift), search)


def _shrunk(asked: Asked, changes: list[Change]) -> list[Change]:
    """Draw inputs back, one at a time, towards where they are, as far as each change still hits."""
    for _ in range(2 * len(changes[0])):
        tried = [
            (i, {**change, column: value})
            for i, change in enumerate(changes)
            for column in change
            for value in _between(asked.trials, column, change[column])
        ]
        hit, _ = asked.about([change for _, change in tried])
        best = list(changes)
        for (i, change), hits in zip(tried, hit, strict=True):
            if hits and asked.trials.shift(change) < asked.trials.shift(best[i]):
                best[i] = change
        if best == changes:
            break
        changes = best
    return changes


def _between(trials: Trials, column: str, end: float, count: int = 15) -> list[float]:
    """Values between an input's own and `end`: those seen, where these are few."""
    start, seen = trials.start(column), trials.memory.distinct(column)
    if len(seen) <= count:
        return [float(v) for v in seen if min(start, end) < v < max(start, end)]
    return [float(v) for v in start + (end - start) * np.arange(1, count + 1) / (count + 1)]


def _rounded(asked: Asked, change: Change, search: Search) -> Change:
    """The same with the fewest digits with which it still hits, so that what is said is so."""
    memory = asked.trials.memory
    for column in change:
        start, end = asked.trials.start(column), float(np.float32(change[column]))
        low, high = memory.quantile(column, [search.low, search.high])
        rounded = (float(f"{end:.{digits}g}") for digits in DIGITS)
        near = 0.1 * abs(end - start)  # round, but not much farther
        fit = [v for v in rounded if low <= v <= high and abs(v - end) <= near]
        tried: list[Change] = [{**change, column: v} for v in fit]
        hit, _ = asked.about(tried)
        change = tried[int(hit.argmax())] if hit.any() else {**change, column: exact(end)}
    return change


def exact(value: float) -> float:
    """The shortest number that a float32 reads as the same value."""
    return float(f"{np.float32(value):.9g}")
