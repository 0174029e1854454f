"""What the model keeps of its past: rows it learnt from, how they ended, and where inputs lay."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd

from stages.base import DataError
from stages.explain.words import Word, words
from stages.panel import age, check_labels, check_panel, named
from stages.signal import SIDES

FAMILIES = ("feature", "rule", "context")
LEAST = 30  # rows below which nothing is said of how two inputs hang together
ODD = 3  # rows off the commonest value, below which an input is as good as constant


def column_of(name: str) -> str:
    """Panel column of an input as explanations name it: ``rsi_14`` is ``feature.rsi_14``."""
    return name if name.split(".")[0] in FAMILIES else f"feature.{name}"


@dataclass(frozen=True)
class Memory:
    """Rows that the model learnt from, with the inputs of their last bar and their outcomes.

    Attributes
    ----------
    inputs : DataFrame of shape (n, F)
        ``feature.*``, ``rule.*`` and ``context.*``; a panel.
    y : DataFrame of shape (n, 3 to 5)
        Their labels, see `check_labels`.
    weight : float64 ndarray of shape (n,)
        Rows of the training that each stands for: above 1 where a sample of them is kept.
    bar : int64 ndarray of shape (n,)
        Place among the bars of its asset. Two rows are at least as many bars apart as their
        places are; exactly as many where the bars between them are known.
    words : mapping of str to Word
        What the inputs are called, see `stages.explain.words`.
    """

    inputs: pd.DataFrame
    y: pd.DataFrame
    weight: np.ndarray
    bar: np.ndarray
    words: Mapping[str, Word] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_panel(self.inputs)
        if not self.inputs.index.equals(check_labels(self.y).index):
            raise ValueError("inputs and labels of a memory must be of the same rows")
        if not len(self.y) == len(self.weight) == len(self.bar):
            raise ValueError(f"weight and bar must be of {len(self.y)} rows")
        if not len(self.y):
            raise DataError(
                "the model keeps no row of its past",
                code="SV-F18",
                why="what training saw, and what happened then, is read from such rows",
                cure="train with a replay buffer that has room for some rows",
            )

    @classmethod
    def learnt(cls, panel: pd.DataFrame, y: pd.DataFrame, features: Any = None) -> Self:
        """All rows of `y`, with their inputs from `panel`."""
        at = panel.index.get_indexer(y.index)
        inputs = panel.iloc[at][named(panel, *FAMILIES)]
        return cls(inputs, y, np.ones(len(y)), age(panel)[at], words(inputs.columns, features))

    @classmethod
    def of(cls, replay: Any, features: Any = None) -> Self:
        """What a `ReplayBuffer` holds: all that an artifact needs to remember by.

        The buffer keeps sides and regimes even, so each row is weighed by how many rows of its
        stratum it stands for; without that, rates among them would be those of the buffer.

        Parameters
        ----------
        replay : ReplayBuffer
        features : FeatureSet, optional
            Whose functions say what the inputs are called.
        """
        count = len(replay)
        panel, y = replay.sample(count, seed=0)
        length = len(panel) // count if count else 1
        asset = y.index.get_level_values("asset").str.split(" ", n=1).str[1]
        times = pd.DatetimeIndex(panel.index.get_level_values("time"))
        index = pd.MultiIndex.from_arrays(
            [asset, times[length - 1 :: length]], names=["asset", "time"]
        )
        inputs = panel[named(panel, *FAMILIES)].iloc[length - 1 :: length].set_axis(index)
        bar = _bars(asset.factorize()[0], times.asi8.reshape(-1, length))
        weight = _stands_for(replay, panel.iloc[length - 1 :: length], y["side"])
        order = np.lexsort((index.get_level_values("time"), asset.factorize(sort=True)[0]))
        y = y.set_axis(index).iloc[order]
        named_so = words(inputs.columns, features)
        return cls(inputs.iloc[order], y, weight[order], bar[order], named_so)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def columns(self) -> list[str]:
        """Columns of `inputs`."""
        return list(self.inputs.columns)

    def word(self, column: str) -> Word:
        """What an input is called; its own name, if nothing else is known."""
        return self.words.get(column) or words([column])[column]

    def place(self, column: str, values: Any) -> np.ndarray:
        """Share of the training below each value, ties counted half: in [0, 1], NaN kept."""
        held, _, below = self._sorted[column]
        values = np.asarray(values, dtype="float64")
        low, high = (below[held.searchsorted(values, side)] for side in ("left", "right"))  # type: ignore[call-overload]
        return np.where(np.isnan(values), np.nan, (low + high) / 2)

    def quantile(self, column: str, shares: Any) -> np.ndarray:
        """Values, all of them seen, at which such shares of the training lie at or below."""
        held, _, below = self._sorted[column]
        at = below[1:].searchsorted(np.asarray(shares) - 1e-12)
        return held[np.minimum(at, len(held) - 1)]

    def span(self, column: str) -> tuple[float, float]:
        """Smallest and largest value seen."""
        held = self._sorted[column][0]
        return float(held[0]), float(held[-1])

    def distinct(self, column: str) -> np.ndarray:
        """Values seen, each once, in order."""
        return np.unique(self._sorted[column][0])

    @cached_property
    def scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Weighted mean and standard deviation of each input, (F,); 1 where that is 0."""
        x = self.inputs.to_numpy(dtype="float64")
        known = np.isfinite(x) * self.weight[:, None]
        mass = np.maximum(known.sum(axis=0), 1e-300)
        center = (known * np.nan_to_num(x)).sum(axis=0) / mass
        square = (known * (np.nan_to_num(x) - center) ** 2).sum(axis=0) / mass
        return center, np.where(square > 0, np.sqrt(square), 1.0)

    def standardised(self, x: np.ndarray) -> np.ndarray:
        """Inputs (N, F) less their mean, in standard deviations; what is missing is 0."""
        center, spread = self.scale
        return np.nan_to_num((np.asarray(x, dtype="float64") - center) / spread)

    @cached_property
    def rows(self) -> np.ndarray:
        """`inputs`, standardised: (n, F)."""
        return self.standardised(self.inputs.to_numpy())

    @cached_property
    def varies(self) -> np.ndarray:
        """Whether an input took more than one value on more than a few rows: bool of shape (F,)."""
        held = [self._sorted[name][0] for name in self.columns]
        most = [np.unique(v, return_counts=True)[1].max(initial=0) for v in held]
        return np.array([len(v) - m >= ODD for v, m in zip(held, most, strict=True)])

    @cached_property
    def leader(self) -> Mapping[str, str]:
        """For each input that another one settles, that other one.

        A score that a rule reads off an indicator, or a context that is a feature as well, cannot
        move alone. Found in the rows: one is a monotone function of the other in all of them.
        Of two that settle each other the feature leads, then the one that comes first.
        """
        names = sorted(self.columns, key=lambda c: FAMILIES.index(c.split(".")[0]))
        settles = self._settles()
        led: dict[str, str] = {}
        for place, name in enumerate(names):
            above = [
                other
                for rank, other in enumerate(names)
                if settles.get((other, name)) and (rank < place or not settles.get((name, other)))
            ]
            if above:
                led[name] = above[0]
        return {name: _first(led, name) for name in led}

    def follow(self, column: str, values: Any) -> dict[str, np.ndarray]:
        """What the inputs led by `column` were where it came nearest to each of `values`."""
        out = {}
        for name, (held, after) in self._led.get(column, {}).items():
            at = held.searchsorted(values).clip(1, len(held) - 1)
            nearer = np.abs(held[at - 1] - values) <= np.abs(held[at] - values)
            out[name] = after[np.where(nearer, at - 1, at)]
        return out

    def companions(self, column: str, least: float = 0.7) -> list[str]:
        """Other inputs whose rank correlation with `column` is at least `least`, closest first."""
        row = np.abs(self._correlation[self.columns.index(column)])
        order = np.argsort(-row, kind="stable")
        return [self.columns[i] for i in order if row[i] >= least and self.columns[i] != column]

    @cached_property
    def _sorted(self) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Of each column its sorted values, their rows, and the share of rows before each."""
        out = {}
        for name in self.columns:
            values = self.inputs[name].to_numpy(dtype="float64")
            order = np.argsort(values, kind="stable")[: np.isfinite(values).sum()]
            below = np.concatenate([[0.0], np.cumsum(self.weight[order])])
            out[name] = values[order], order, below / max(below[-1], 1e-300)
        return out

    @cached_property
    def _led(self) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
        """By leader and led: values of both on rows that have them, in the leader's order."""
        out: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
        for name, leader in self.leader.items():
            pair = self.inputs[[leader, name]].to_numpy(dtype="float64")
            pair = pair[np.isfinite(pair).all(axis=1)]
            pair = pair[np.argsort(pair[:, 0], kind="stable")]
            out.setdefault(leader, {})[name] = pair[:, 0], pair[:, 1]
        return out

    @cached_property
    def _correlation(self) -> np.ndarray:
        ranks = self.inputs.rank().to_numpy()
        ranks = np.nan_to_num(ranks - np.nanmean(ranks, axis=0))
        size = np.sqrt((ranks**2).sum(axis=0))
        return (ranks.T @ ranks) / np.maximum(np.outer(size, size), 1e-300)

    def _settles(self) -> dict[tuple[str, str], bool]:
        """Pairs (one, other) of inputs such that the first settles the second."""
        x = self.inputs.to_numpy(dtype="float64")
        found = {}
        for i, one in enumerate(self.columns):
            held, order, _ = self._sorted[one]
            if len(order) < LEAST or not self.varies[i]:
                continue
            # rounding to float32 may part two values of the second where the first has one
            near = 1e-6 * np.nan_to_num(np.nanmax(np.abs(x), axis=0, initial=0.0))
            step = np.diff(x[order], axis=0)
            known = np.isfinite(step)
            tied = (np.diff(held) == 0)[:, None]
            still = (~tied | (np.abs(step) <= near) | ~known).all(axis=0)
            up = ((step >= -near) | ~known).all(axis=0)
            down = ((step <= near) | ~known).all(axis=0)
            enough = known.sum(axis=0) >= LEAST - 1
            for j in np.flatnonzero(still & (up | down) & enough & self.varies):
                if i != j:
                    found[one, self.columns[j]] = True
        return found


def _first(led: Mapping[str, str], name: str) -> str:
    """Where the chain of leaders that starts at `name` ends."""
    while name in led:
        name = led[name]
    return name


def _bars(asset: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Place of the last of each row's times (n, L) among all times known of its asset: (n,)."""
    out = np.empty(len(times), dtype="int64")
    for code in np.unique(asset):
        mine = asset == code
        out[mine] = np.unique(times[mine]).searchsorted(times[mine, -1])
    return out


def _stands_for(replay: Any, rows: pd.DataFrame, side: pd.Series) -> np.ndarray:
    """Rows of the stream in each row's stratum over those of it that are kept, (n,)."""
    strata = side.map(SIDES).to_numpy(dtype="object")
    if any("/" in name for name in replay.seen_):
        regime = rows[replay.regime].to_numpy(dtype="float64")
        names = ["nan" if np.isnan(r) else f"{round(r):d}" for r in regime]
        strata = np.array([f"{s}/{r}" for s, r in zip(strata, names, strict=True)], dtype="object")
    kept = pd.Series(strata).map(pd.Series(strata).value_counts()).to_numpy(dtype="float64")
    return np.array([replay.seen_[name] for name in strata], dtype="float64") / kept
