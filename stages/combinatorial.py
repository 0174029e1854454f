"""Combinatorial purged cross-validation: many histories out of one, each row unseen in all."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd

from stages.base import DataError
from stages.folds import reaches
from stages.panel import asset_codes, check_labels, settled


@dataclass(frozen=True)
class CombinatorialPurged:
    """Test every choice of groups of bars, trained on all other groups, before and after.

    Each group is tested by several splits, each time by another model. Put together, group by
    group, they make `n_paths` whole histories, each of unseen rows alone: the spread of a figure
    over them shows how much of it was luck. No path was tradable, for most models have seen
    what came after; a walk forward says what would have been.

    Parameters
    ----------
    n_groups : int >= 2, default=6
        N groups of bars, in time, of equal length; all assets of a bar fall in one.
    n_test : int >= 1, default=2
        k groups tested at a time; C(N, k) splits, each a whole training.
    embargo : int >= 0, default=5
        Bars before a tested group in which no training label may be open, and after it in which
        no training row may stand; at least the horizon.
    look_back : int >= 0, optional
        Bars of its asset that lie between the embargo and a training row after a tested group:
        those which its inputs reach back to. 0 lets windows hold tested bars. As an outer split
        None takes what the pipeline reads; `split` wants a number.

    Notes
    -----
    A training label is dropped if the span from its row to the end of its horizon meets the span
    from the first bar of a tested group to the end of the last horizon of its labels, ends
    included. Bars are counted on those that hold a label, look-backs on the labelled rows of the
    asset: where rows are missing more is dropped than need be, never less.

    References
    ----------
    Lopez de Prado (2018), "Advances in Financial Machine Learning", ch. 7.4 (purge, embargo) and
    12.4 (paths).
    """

    n_groups: int = 6
    n_test: int = 2
    embargo: int = 5
    look_back: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.n_test < self.n_groups or self.embargo < 0 or (self.look_back or 0) < 0:
            raise ValueError(
                f"need 1 <= n_test < n_groups, embargo >= 0 and look_back >= 0, got {self}"
            )

    @property
    def n_splits(self) -> int:
        """C(N, k)."""
        return comb(self.n_groups, self.n_test)

    @property
    def n_paths(self) -> int:
        """C(N - 1, k - 1), or k / N * C(N, k): how often each group is tested."""
        return comb(self.n_groups - 1, self.n_test - 1)

    def tested(self) -> np.ndarray:
        """Groups of each split, int of shape (n_splits, k), in lexicographic order."""
        return np.array(list(combinations(range(self.n_groups), self.n_test)))

    def paths(self) -> np.ndarray:
        """Split whose model speaks of each group on each path: int of shape (n_paths, N).

        Path p takes, for each group, the p-th of the splits that test it.
        """
        tests = self.tested()
        return np.array([np.flatnonzero((tests == g).any(1)) for g in range(self.n_groups)]).T

    def split(self, y: pd.DataFrame) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (train, test) row numbers of `y`, once for each choice of k groups.

        Parameters
        ----------
        y : DataFrame of shape (n, 3 to 5)
            See `check_labels`.

        Raises
        ------
        DataError
            If there are fewer bars than groups, or nothing is left to train on (SV-F18).
        """
        for train, tests in self._splits(y):
            yield train, np.sort(np.concatenate(list(tests.values())))

    def parts(self, y: pd.DataFrame) -> Iterator[dict[str, np.ndarray]]:
        """Yield ``train`` and, by path, the groups that this split's model speaks of.

        As an outer split: rows of ``path 1`` … over all splits make up each path, and each path
        is reported as one history. The odds of several models for one row are not averaged:
        nobody would run that ensemble, and its log loss is never above the mean of theirs.
        """
        paths = self.paths()
        for number, (train, tests) in enumerate(self._splits(y)):
            parts = {"train": train}
            for group, rows in tests.items():
                path = f"path {np.flatnonzero(paths[:, group] == number)[0] + 1}"
                parts[path] = np.sort(np.concatenate([parts.get(path, rows[:0]), rows]))
            yield parts

    def _splits(self, y: pd.DataFrame) -> Iterator[tuple[np.ndarray, dict[int, np.ndarray]]]:
        """Rows to train on, and the rows of each tested group."""
        if self.look_back is None:
            raise ValueError(
                "look_back is None: say how many bars a row's inputs reach back, 0 for none"
            )
        code, bars = check_labels(y).index.get_level_values("time").factorize(sort=True)
        if len(bars) < self.n_groups:
            raise DataError(
                f"{len(bars)} labelled bars do not make {self.n_groups} groups",
                code="SV-F18",
                cure=f"bring more history, or lower n_groups={self.n_groups}",
            )
        edges = np.linspace(0, len(bars), self.n_groups + 1).astype(int)
        times, over = (pd.DatetimeIndex(t).as_unit("ns").asi8 for t in (bars, settled(y)))
        asset = asset_codes(y)
        shadow = shadows(code, times, over, asset, edges, self.embargo, self.look_back)
        group = np.searchsorted(edges, code, side="right") - 1
        for tests in self.tested():
            train = np.flatnonzero(~shadow[tests].any(axis=0))
            if not len(train):
                raise DataError(
                    f"nothing is left to train on when groups {tests.tolist()} are tested",
                    code="SV-F18",
                    where=f"{len(bars)} bars in {self.n_groups} groups, embargo {self.embargo}, "
                    f"look_back {self.look_back}",
                    cure="bring more history, test fewer groups, or lower embargo or look_back",
                )
            yield train, {int(g): np.flatnonzero(group == g) for g in tests}


def shadows(
    bar: np.ndarray,
    times: np.ndarray,
    over: np.ndarray,
    asset: np.ndarray,
    edges: np.ndarray,
    embargo: int,
    look_back: int,
) -> np.ndarray:
    """Rows that may not be learnt from when a group of bars is tested.

    Parameters
    ----------
    bar : int ndarray of shape (n,)
        Number of the bar of each row, in 0 ... T - 1; ascending within an asset.
    times : ndarray of shape (T,)
        Time of each bar, ascending.
    over : ndarray of shape (n,)
        When the horizon of each row's label is over, in the unit of `times`.
    asset : int ndarray of shape (n,)
        Number of the asset; its rows stand together.
    edges : int ndarray of shape (G + 1,)
        First bar of each group, and T.
    embargo, look_back : int
        See `CombinatorialPurged`.

    Returns
    -------
    bool ndarray of shape (G, n)
        True for the rows of the group itself, too.
    """
    counts = np.bincount(asset)
    rank = np.arange(len(bar)) - np.repeat(counts.cumsum() - counts, counts)
    out = np.empty((len(edges) - 1, len(bar)), dtype=bool)
    for g, (first, stop) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        late = bar >= stop
        open_until = over[~late & (bar >= first)].max()
        own = np.bincount(asset[bar < stop + embargo], minlength=len(counts))
        near = (rank - own[asset] < look_back) | (times[bar] <= open_until)
        # the group's own labels are open in it, and so reach into it too
        out[g] = np.where(late, near, reaches(over, times, first, embargo))
    return out
