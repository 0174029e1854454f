"""The columns of a feature set in the order in which a stream of bars computes them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from stages.base import ConfigError
from stages.features.functions import across_assets, bound, reads
from stages.features.index import MARKET, EqualWeight
from stages.features.ring import Rings
from stages.panel import warmup


@dataclass(frozen=True)
class Step:
    """One column of a set, ready to run on windows.

    Attributes
    ----------
    name : str
    short : str
        Under which name others read it; its own where none does: of a rule, of a context, and
        of a feature that is called like a column of the bars.
    run : callable
        The function with its settings bound: takes its inputs alone.
    sources : tuple of str
        Columns that it reads, in order.
    bars : int
        Rows of its window.
    across : bool
        Whether it runs across the assets of a time.
    beside : bool
        Whether it may run on assets side by side; else asset by asset.
    """

    name: str
    short: str
    run: Callable[..., np.ndarray]
    sources: tuple[str, ...]
    bars: int
    across: bool
    beside: bool

    @cached_property
    def looks_back(self) -> bool:
        """Whether it reads earlier times of all assets."""
        return self.across and self.bars > 1

    @cached_property
    def keys(self) -> tuple[tuple[str, int], ...]:
        """Columns that it reads, and how many bars of each."""
        return tuple((column, self.bars) for column in self.sources)

    @cached_property
    def of_market(self) -> bool:
        """Whether it reads the market and nothing else."""
        return self.sources == (MARKET,)


def steps(functions: dict[str, Any]) -> list[Step]:
    """One for each function, in their order.

    Parameters
    ----------
    functions : dict of str to callable
        By the name of their column.

    Raises
    ------
    ConfigError
        For a function across the assets that looks back further than it declares.
    """
    made, given = [], bar_columns(functions)
    for name, function in functions.items():
        bars, across = warmup(function) + 1, across_assets(function)
        run, sources = bound(function), tuple(reads(function).values())
        if across and bars > 1 and not _looks_no_further(run, len(sources), bars):
            raise ConfigError(
                f"{name} looks back further across the assets than the {bars - 1} bars it declares",
                code="SV-F33",
                why="a stream keeps those, and whether an asset was listed before them",
                cure="declare more with warms_up, or build it from tables: FeatureSet.build",
            )
        beside = across or _runs_beside(run, len(sources), bars)
        short = name.removeprefix("feature.")
        short = name if short in given else short
        made.append(Step(name, short, run, sources, bars, across, beside))
    return made


def bar_columns(functions: dict[str, Any]) -> list[str]:
    """Columns that the functions read of the bars: those that no function before makes."""
    found: dict[str, None] = {}
    made: set[str] = set()
    for name, function in functions.items():
        found |= dict.fromkeys(c for c in reads(function).values() if c not in made)
        made.add(name.removeprefix("feature."))
    return list(found)


def rounds(made: Sequence[Step]) -> list[list[Step]]:
    """The same steps in as few groups as may be, along the assets and across them by turns.

    The first group runs along each asset. A step comes after those that it reads.
    """
    turns: list[list[Step]] = []
    turn_of: dict[str, int] = {}
    for step in made:
        above = max((turn_of[c] for c in step.sources if c in turn_of), default=0)
        turn = above + (above % 2 != step.across)  # odd turns run across
        turn_of[step.short] = turn
        while len(turns) <= turn:
            turns.append([])
        turns[turn].append(step)
    return turns


class Windows:
    """The last bars of some assets, each column taken out of the rings once.

    Parameters
    ----------
    rings : Rings
    at : int ndarray of shape (a,)
        Numbers of the assets.
    now : dict of str to ndarray of shape (a,)
        Newest values of each column.
    index : EqualWeight, optional
        The market, where it is made of the assets.
    """

    def __init__(
        self,
        rings: Rings,
        at: np.ndarray,
        now: dict[str, np.ndarray],
        index: EqualWeight | None = None,
    ) -> None:
        self.rings, self.at, self.now, self.index = rings, at, now, index
        self.alone = len(at) == 1
        self.in_step = index.in_step(at) if index and not self.alone else 0
        self.held: dict[str, np.ndarray] = {}
        self.cut: dict[tuple[str, int], np.ndarray] = {}  # to the length that a step reads

    def newest(self, step: Step) -> np.ndarray:
        """What the step makes of the newest bars: shape (a,), or (1,) where it is the same."""
        if step.of_market and step.bars <= self.in_step:
            return step.run(self._market(step.bars))[-1:]  # all have the same
        cut = self.cut
        inputs = [cut[key] if key in cut else self.last(*key) for key in step.keys]
        if step.across:
            return step.run(*(x.reshape(step.bars, -1) for x in inputs))[-1]
        if self.alone:
            return step.run(*inputs)[-1:]
        if step.beside:
            return step.run(*inputs)[-1]
        alone = (step.run(*(x[:, j].copy() for x in inputs))[-1] for j in range(len(self.at)))
        return np.fromiter(alone, "float64", len(self.at))

    def last(self, name: str, bars: int) -> np.ndarray:
        """Last `bars` values of a column: shape (bars, a), or (bars,) of one asset."""
        if bars == 1:
            found = self.now[name] if self.alone else self.now[name][None]
        else:
            if name not in self.held:
                window = self.rings.row if self.alone else self.rings.window
                self.held[name] = window(name, self.at)
            found = self.held[name][-bars:]
        self.cut[name, bars] = found
        return found

    def _market(self, bars: int) -> np.ndarray:
        """The last values of the index: the same array each time, for what is shared."""
        key = ("", bars)
        if self.index and key not in self.cut:
            self.cut[key] = self.index.window(bars)
        return self.cut[key]

    def add(self, name: str, newest: np.ndarray) -> None:
        """Let later steps read what one has made."""
        self.now[name] = newest
        self.rings.put(name, self.at, newest)


def _runs_beside(run: Callable[..., np.ndarray], inputs: int, bars: int) -> bool:
    """Whether assets side by side get the bits that each gets alone; tried on drawn numbers."""
    rng = np.random.default_rng(0)
    drawn = rng.lognormal(size=(inputs, bars + 3, 3))
    drawn[:, bars // 2, 2] = np.nan
    with np.errstate(all="ignore"):
        alone = [run(*(np.ascontiguousarray(x[:, j]) for x in drawn)) for j in range(3)]
        try:
            together = run(*(x.copy() for x in drawn))
        except Exception:  # noqa: BLE001 - what it cannot take at once it will get one by one
            return False
    shape = np.shape(together) == drawn.shape[1:]
    return shape and np.array_equal(together, np.column_stack(alone), equal_nan=True)


def _looks_no_further(run: Callable[..., np.ndarray], inputs: int, bars: int) -> bool:
    """Whether a window of times and the row before it give the bits of all times; on drawn ones."""
    rng = np.random.default_rng(0)
    drawn = rng.lognormal(size=(inputs, bars + 12, 12))
    drawn[rng.random(drawn.shape) < 0.02] = np.nan
    drawn[:, : bars // 2, 3] = np.nan  # listed late, and absent for a while
    drawn[:, 5 : 5 + max(bars // 20, 1), 4] = np.nan
    with np.errstate(all="ignore"):
        whole = run(*(x.copy() for x in drawn))
        for end in range(bars + 1, drawn.shape[1] + 1):
            last = run(*(_with_row_before(x[:end], bars) for x in drawn))[-1]
            if not np.array_equal(last, whole[end - 1], equal_nan=True):
                return False
    return bool(np.isfinite(whole[bars:]).any())


def _with_row_before(x: np.ndarray, bars: int) -> np.ndarray:
    """The last `bars` rows, and above them the newest number of each column from before."""
    before = np.full(x.shape[1], np.nan)
    for row in x[:-bars]:
        before = np.where(np.isfinite(row), row, before)
    return np.vstack([before, x[-bars:]])
