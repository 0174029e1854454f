"""Time-ordered folds, so that nothing a stage says about a row was learnt from its future."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from stages.base import DataError, Stage
from stages.panel import check_labels, settled, until
from stages.roles import Roles, fold_of, roles_in


@dataclass(frozen=True)
class PurgedWalkForward:
    """Train on all that is known, test on the next block of bars, move on.

    Parameters
    ----------
    n_folds : int, default=4
        Test blocks, of equal length.
    first : float in (0, 1), default=0.4
        Share of the bars that comes before them and is only ever trained on.
    embargo : int, default=5
        Bars before each test block in which no training label may be open; at least the horizon.
    update_every : int >= 0, default=5
        Bars of a test block after which stage 3 learns the labels that have ended, as it does
        once deployed; 0 leaves it as it was at the start of the block.

    Notes
    -----
    A label is open until its whole horizon is over, even where a barrier ended it before: see
    `settled`.

    References
    ----------
    Lopez de Prado (2018), "Advances in Financial Machine Learning", ch. 7 (purging).
    """

    n_folds: int = 4
    first: float = 0.4
    embargo: int = 5
    update_every: int = 5

    def __post_init__(self) -> None:
        counts = self.n_folds >= 1 and self.embargo >= 0 and self.update_every >= 0
        if not counts or not 0 < self.first < 1:
            raise ValueError(
                f"need n_folds >= 1, first in (0, 1), embargo and update_every >= 0, got {self}"
            )

    def edges(self, y: pd.DataFrame) -> pd.DatetimeIndex:
        """First bar of each of the n_folds + 1 blocks of `y`, the training-only one included."""
        bars = check_labels(y).index.unique("time").sort_values()
        starts = np.linspace(self.first * len(bars), len(bars), self.n_folds + 1).astype(int)[:-1]
        if starts[0] < 1 or (np.diff(starts) < 1).any():
            raise DataError(
                f"{len(bars)} labelled bars do not make {self.n_folds} test blocks",
                code="SV-F18",
                cure=f"bring more history, or lower folds.n_folds={self.n_folds}",
            )
        return pd.DatetimeIndex(bars[np.concatenate([[0], starts])])

    def split(
        self, y: pd.DataFrame, edges: pd.DatetimeIndex | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (train, test) row numbers of `y`; all assets of a bar fall in one block.

        Parameters
        ----------
        y : DataFrame of shape (n, 3)
        edges : DatetimeIndex, optional
            Block starts to use instead of ``self.edges(y)``; the first block is not tested.

        Raises
        ------
        DataError
            If no label ends early enough to train on.
        """
        edges = self.edges(y) if edges is None else edges
        bar, bars = check_labels(y).index.get_level_values("time").factorize(sort=True)
        over = pd.DatetimeIndex(settled(y))
        firsts = np.append(np.searchsorted(bars, edges[1:]), len(bars))
        for start, stop in pairwise(firsts):
            if start == stop:
                first = bars[min(start, len(bars) - 1)]
                raise DataError(
                    f"no labelled bar lies in the test block from {first}",
                    code="SV-F18",
                    cure=f"bring more bars, or lower folds.n_folds={self.n_folds}",
                )
            # a label, not a row, is what reaches into the test block: purge by its horizon
            train = np.flatnonzero(~reaches(over, bars, start, self.embargo))
            if not len(train):
                raise DataError(
                    f"no label ends {self.embargo} bars before the test block at {bars[start]}",
                    code="SV-F18",
                    cure=f"bring more bars, lower folds.embargo or raise folds.first={self.first}",
                )
            yield train, np.flatnonzero((start <= bar) & (bar < stop))


def reaches(over: Any, bars: Any, start: int, embargo: int) -> np.ndarray:
    """True for labels still open `embargo` bars before bar number `start`, or later: shape (n,).

    Parameters
    ----------
    over : DatetimeIndex or ndarray of shape (n,)
        When the horizon of each label is over.
    bars : DatetimeIndex or ndarray of shape (T,)
        Times of the bars, in the unit of `over`.
    start, embargo : int
    """
    if start < embargo:
        return np.ones(len(over), dtype=bool)
    return np.asarray(over >= bars[start - embargo])


def out_of_fold(
    stage: Stage,
    panel: pd.DataFrame,
    y: pd.DataFrame,
    folds: PurgedWalkForward,
    edges: pd.DatetimeIndex | None = None,
    note: Callable[..., Any] | None = None,
) -> pd.DataFrame:
    """Predictions for each labelled row by a copy of `stage` that never saw its block.

    Parameters
    ----------
    panel : DataFrame of shape (N, F)
    y : DataFrame of shape (n <= N, 3)
        See `check_labels`.
    edges : DatetimeIndex, optional
        See `PurgedWalkForward.split`.
    note : callable, optional
        `Roles.record` of this part: called with the fold and the rows by role.

    Returns
    -------
    DataFrame
        The columns of ``stage.predict`` for the rows of `y` after the first block.

    Raises
    ------
    LeakError
        SV-F26 if the stage learnt from, or stopped by, rows of the block; see `roles_in`.
    """
    note = note or partial(Roles(panel.index).record, type(stage).__name__)
    time = y.index.get_level_values("time")
    parts, tested = [], []
    for train, test in folds.split(y, edges):
        known = y.iloc[train]
        learner = replace(stage).fit(until(panel, time[train].max()), known)
        note(fold_of(y.index[test]), {"test": y.index[test]} | roles_in(learner, known))
        said = learner.predict(until(panel, time[test].max()))
        parts.append(said.loc[y.index[test]])
        tested.append(test)
    return pd.concat(parts).loc[y.index[np.sort(np.concatenate(tested))]]


def cut_tail(y: pd.DataFrame, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the last bars of `y`, kept to say when training stops, and of those before.

    Parameters
    ----------
    y : DataFrame of shape (n, 3 to 5)
    share : float in [0, 1)
        Of the bars; 0 keeps none.

    Returns
    -------
    early, late : int ndarray of shape (a,), (b,)
        Row numbers of `y`; labels of earlier rows that are still open in the tail are in neither.
    """
    time = y.index.get_level_values("time")
    bars = time.unique().sort_values()
    cut = int(np.ceil((1 - share) * len(bars)))
    if cut >= len(bars):
        return np.arange(len(y)), np.arange(0)
    return np.flatnonzero(settled(y) < bars[cut]), np.flatnonzero(time >= bars[cut])


@dataclass(frozen=True)
class DateSplit:
    """One outer split by date: train, then valid, then test; each purged by label horizon.

    Parameters
    ----------
    train_end, valid_end, test_end : str or None
        Last date of each part, inclusive, UTC; None leaves the part out.
    """

    train_end: str
    valid_end: str | None = None
    test_end: str | None = None

    def __post_init__(self) -> None:
        ends = [e for e in (self.train_end, self.valid_end, self.test_end) if e is not None]
        if any(a > b for a, b in pairwise([_day_after(end) for end in ends])):
            raise ValueError(f"need train_end <= valid_end <= test_end, got {ends}")

    def parts(self, y: pd.DataFrame) -> Iterator[dict[str, np.ndarray]]:
        """Yield one mapping of part name to row numbers of `y`."""
        if y.empty:
            raise DataError(
                "no row has a label, so there is nothing to split",
                code="SV-F18",
                why="a label needs its horizon of bars after the row, and terciles enough assets",
                cure="bring more bars, or shorten labels.horizon",
            )
        time, over = y.index.get_level_values("time"), settled(y)
        bounds = {"train": self.train_end, "valid": self.valid_end, "test": self.test_end}
        parts: dict[str, np.ndarray] = {}
        start = time.min()
        for name, last in bounds.items():
            if last is None:
                continue
            stop = _day_after(last)
            inside = (time >= start) & (time < stop) & (over < stop).to_numpy()
            parts[name] = np.flatnonzero(inside)
            start = stop
            if not len(parts[name]) and name == "train":
                raise DataError(
                    f"no label ends before split.train_end={self.train_end}",
                    code="SV-F18",
                    where=f"labels run {time.min():%Y-%m-%d} to {time.max():%Y-%m-%d}",
                    cure="set split.train_end inside that span",
                )
        yield parts


@dataclass(frozen=True)
class RollingSplit:
    """Outer walk-forward: refit before each test block, on all that is known by then.

    Parameters
    ----------
    blocks : PurgedWalkForward
        Cuts the outer blocks; the inner folds of each refit are the pipeline's own.
    """

    blocks: PurgedWalkForward = field(default_factory=PurgedWalkForward)

    @property
    def embargo(self) -> int:
        """Bars before each test block in which no training label may be open."""
        return self.blocks.embargo

    def parts(self, y: pd.DataFrame) -> Iterator[dict[str, np.ndarray]]:
        """Yield a mapping of ``train`` and ``test`` to row numbers of `y`, once per block."""
        for train, test in self.blocks.split(y):
            yield {"train": train, "test": test}


def _day_after(date: str) -> pd.Timestamp:
    try:
        day = pd.Timestamp(date)
    except ValueError:
        raise ValueError(f"{date!r} is no date; write it as 2014-12-31") from None
    if day is pd.NaT or day.tz is not None:
        raise ValueError(f"{date!r} is no plain date; write it as 2014-12-31")
    return day.tz_localize("UTC").normalize() + pd.Timedelta(days=1)
