"""The columns of a feature set in the order in which a stream of bars computes them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.base import ConfigError
from stages.features.ring import Rings
from stages.features.rows import across_assets, bound, reads
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
    after : int
        Bars of an asset before the first value, those of the columns it reads included.
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
    after: int
    across: bool
    beside: bool


def steps(functions: dict[str, Any], warmups: dict[str, int]) -> list[Step]:
    """One for each function, in their order.

    Parameters
    ----------
    functions : dict of str to callable
        By the name of their column.
    warmups : dict of str to int
        Bars before the first value of each.

    Raises
    ------
    ConfigError
        For a function that looks back across the assets.
    """
    made, given = [], bar_columns(functions)
    for name, function in functions.items():
        bars, across = warmup(function) + 1, across_assets(function)
        if across and bars > 1:
            raise ConfigError(
                f"{name} looks back {bars - 1} bars across the assets",
                code="SV-F33",
                why="a stream keeps the last bars of each asset, not of all assets together",
                cure="leave the column out, or build it from tables: FeatureSet.build",
            )
        run, sources = bound(function), tuple(reads(function).values())
        beside = across or _runs_beside(run, len(sources), bars)
        short = name.removeprefix("feature.")
        short = name if short in given else short
        made.append(Step(name, short, run, sources, bars, warmups[name], across, beside))
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
    """The last bars of some assets, each column taken out of the rings once."""

    def __init__(self, rings: Rings, at: np.ndarray, now: dict[str, np.ndarray]) -> None:
        self.rings, self.at, self.now = rings, at, now
        self.held: dict[str, np.ndarray] = {}
        self.cut: dict[tuple[str, int], np.ndarray] = {}  # to the length that a step reads

    def newest(self, step: Step) -> np.ndarray:
        """What the step makes of the newest bars: shape (a,)."""
        inputs = [self.last(column, step.bars) for column in step.sources]
        if step.across:
            return step.run(*inputs)[-1]
        if len(self.at) == 1:
            return step.run(*(x[:, 0] for x in inputs))[-1:]
        if step.beside:
            return step.run(*inputs)[-1]
        alone = (step.run(*(x[:, j].copy() for x in inputs))[-1] for j in range(len(self.at)))
        return np.fromiter(alone, "float64", len(self.at))

    def last(self, name: str, bars: int) -> np.ndarray:
        """Last `bars` values of a column: shape (bars, a)."""
        if (found := self.cut.get((name, bars))) is not None:
            return found
        if bars == 1:
            return self.now[name][None]
        if name not in self.held:
            self.held[name] = self.rings.window(name, self.at)
        return self.cut.setdefault((name, bars), self.held[name][-bars:])

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
