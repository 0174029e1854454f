"""Features of bars as they come: a time after another, and the bits that the whole table gives."""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import pandas as pd
from safetensors.numpy import load, save

from stages.base import DataError, State, fitted
from stages.features.build import FeatureSet
from stages.features.columns import finite
from stages.features.functions import reads
from stages.features.index import MARKET, EqualWeight
from stages.features.ring import Board, Rings
from stages.features.rows import sector_numbers, session_days
from stages.features.steps import Step, Windows, bar_columns, rounds, steps
from stages.panel import check_panel

PART = "stream.safetensors"


class FeatureStream:
    """The columns of a fitted `FeatureSet`, bar by bar, from no more than their windows.

    It keeps the last bars of each asset and runs the functions of the set on them, with the
    assets of a time side by side: a value depends on its window alone, so that these are the bits
    that the whole table gives. Gaps, late listings and assets that stop need no care.

    Parameters
    ----------
    features : FeatureSet
        Fitted: its columns, its universe and where its market comes from are those of the stream.
    block : int, default=256
        Assets that are computed side by side; few cost more calls, many more cache.

    Attributes
    ----------
    names : list of str
        Columns that come out, in order.
    inputs : list of str
        Columns of the bars that are read.
    ready_ : bool ndarray
        Rows of the last bars that `FeatureSet.ready` would call ready.

    Raises
    ------
    ConfigError
        For a feature that looks back across the assets further than it declares.
    """

    def __init__(self, features: FeatureSet, block: int = 256) -> None:
        if block < 1:
            raise ValueError(f"block must be at least 1, got {block}")
        built = fitted(features, "built_")
        functions = {name: f for name, f in features.functions() if name in set(built)}
        inner = features.hidden
        asked = {f"feature.{column}" for f in functions.values() for column in reads(f).values()}
        functions = {n: f for n, f in functions.items() if n not in inner or n in asked}
        made = steps(functions)
        self.features, self.block = features, block
        self.names = [name for name in functions if name not in inner]
        equal_weight = features.market_ == "equal weight"
        self.rounds = rounds(made)
        read = {column for step in made for column in step.sources}
        place = {name: number for number, name in enumerate(self.names)}
        self.plan = [  # with the place of each in what comes out, and whether others read it
            [(step, place.get(step.name, -1), step.short in read) for step in group]
            for group in self.rounds
        ]
        self.inputs = [c for c in bar_columns(functions) if not (equal_weight and c == MARKET)]
        if equal_weight and "close" not in self.inputs:
            self.inputs.append("close")
        self.warmup = features.warmup
        self.rings = Rings(_depths(made, self.inputs))
        self.board = Board((c, step.bars) for step in made if step.looks_back for c in step.sources)
        self.index = EqualWeight(self.rings.depths.get(MARKET, 1)) if equal_weight else None
        # whether a time that few of the assets have stands for the others too
        self.compares = (equal_weight and MARKET in read) or any(step.across for step in made)
        times = pd.DatetimeIndex(list(features.universe_.values())).as_unit("us")
        self.due = np.sort(times.asi8)
        self.numbers: dict[str, int] = {}  # of each asset, by name
        self.order = np.empty(0, int)  # numbers of all assets, by name
        self.counts = np.empty(0, int)  # bars of each asset
        self.time: int | None = None  # of the last bars, ns since 1970
        self.ready_ = np.empty(0, bool)

    def push(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Take the bars of one time or more, and return their columns, float64.

        Parameters
        ----------
        bars : DataFrame of shape (n, ...)
            A panel, see `stages.panel`; all later than what the stream has taken.

        Returns
        -------
        DataFrame of shape (n, F)
            The columns `names` of each row, in the order of `bars`. Cast to float32 they are what
            `FeatureSet.build` gives for these rows of the whole table.

        Raises
        ------
        DataError
            If a column is missing, the time is not later, or a value comes out infinite.
        """
        check_panel(bars, [name for name in self.inputs if name != "session_day"])
        columns = {name: _column(bars, name) for name in self.inputs}
        names = bars.index.get_level_values("asset").to_numpy(dtype=object)
        codes, times = bars.index.get_level_values("time").factorize(sort=True)
        order = np.argsort(codes, kind="stable")
        stops = np.searchsorted(codes[order], np.arange(len(times) + 1))
        out, ready = np.empty((len(bars), len(self.names))), np.empty(len(bars), bool)
        for number, time in enumerate(times):
            rows = order[stops[number] : stops[number + 1]]
            now = {name: values[rows] for name, values in columns.items()}
            out[rows] = self.take(time, names[rows].tolist(), now)
            ready[rows] = self.ready_
        self.ready_ = ready
        return pd.DataFrame(out, bars.index, self.names)

    def take(
        self, time: pd.Timestamp, assets: Sequence[str], columns: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """Take one bar of each of `assets`, and return their columns: `push` without tables.

        Parameters
        ----------
        time : Timestamp
            UTC, later than the last.
        assets : sequence of a str
            Each once.
        columns : mapping of str to ndarray of shape (a,)
            The columns `inputs`; sectors as numbers.

        Returns
        -------
        float64 ndarray of shape (a, F)
        """
        at = self._at(time, assets)
        held = {name: np.asarray(columns[name], dtype="float64") for name in self.inputs}
        by_name = np.argsort(np.asarray(assets, "str"))
        if self.index:
            level = self.index.move(held["close"], self.rings.before("close", at), by_name)
            held[MARKET] = np.full(len(at), level)
        covered = self._covered(time, assets)
        out = self._run(at, by_name, held, covered)
        _refuse_endless(out, self.names, assets, time)
        # until here nothing has been kept: bars that were refused may come again, corrected
        self.ready_ = (self.counts[at] >= self.warmup) & (covered or not self.compares)
        self.rings.advance(at)
        self.board.advance()
        if self.index:
            self.index.keep(at)
        self.counts[at] += 1
        self.time = time.value
        return out

    def state(self) -> State:
        """What was learnt from the bars so far: numbers as JSON, windows as safetensors."""
        held = len(self.numbers)
        arrays = self.rings.arrays(held) | self.board.arrays(held)
        arrays["counts"] = self.counts[:held].copy()
        if self.index:
            arrays |= self.index.arrays(held)
        values = {
            "assets": list(self.numbers),
            "time": self.time,
            "names": self.names,
            "features": dict(self.features.state().values),
        }
        return State(values, {PART: save(arrays)})

    def restore(self, state: State) -> Self:
        """Take back what `state` gave, of a stream of the same features.

        Raises
        ------
        DataError
            If the state is that of other columns, or of the same ones fitted on other bars.
        """
        values = state.values
        if values["names"] != self.names or values["features"] != self.features.state().values:
            raise DataError(
                "the state of the stream belongs to other features",
                code="SV-F20",
                where=f"it has {len(values['names'])} columns, the stream {len(self.names)}",
                cure="restore the features first, then make the stream, then restore its state",
            )
        arrays = load(state.parts[PART])
        self.rings.restore(arrays)
        self.board.restore(arrays)
        self.counts = arrays["counts"].copy()
        self.numbers = {name: number for number, name in enumerate(values["assets"])}
        self.order = _by_name(self.numbers)
        self.time = values["time"]
        if self.index:
            self.index.restore(arrays)
        return self

    def _at(self, time: pd.Timestamp, assets: Sequence[str]) -> np.ndarray:
        """Numbers of the assets; new ones are listed."""
        if self.time is not None and time.value <= self.time:
            raise DataError(
                f"a bar of {time} comes after those of {pd.Timestamp(self.time, tz='UTC')}",
                code="SV-F03",
                why="a stream has moved on, and its windows with it",
                cure="send each time once and in order; start again from a saved state",
            )
        if len(set(assets)) < len(assets):
            twice = next(name for name in assets if list(assets).count(name) > 1)
            raise DataError(
                f"{twice} has two bars at {time}", code="SV-F02", cure="keep one of the bars"
            )
        for name in assets:
            self.numbers.setdefault(name, len(self.numbers))
        if len(self.order) < len(self.numbers):
            self._list()
        return np.array([self.numbers[name] for name in assets])

    def _list(self) -> None:
        """Make room for the assets that are new; they have had no bar."""
        self.rings.hold(len(self.numbers))
        self.board.hold(len(self.numbers))
        self.order = _by_name(self.numbers)
        new = len(self.rings.ends) - len(self.counts)
        self.counts = np.append(self.counts, np.zeros(new, int))
        if self.index:
            self.index.hold(len(self.counts))

    def _covered(self, time: pd.Timestamp, assets: Sequence[str]) -> bool:
        present = sum(name in self.features.universe_ for name in assets)
        due = int(np.searchsorted(self.due, time.value // 1000, side="right"))
        return present / max(due, 1) >= self.features.min_coverage

    def _run(
        self, at: np.ndarray, by_name: np.ndarray, held: dict[str, np.ndarray], covered: bool
    ) -> np.ndarray:
        """Columns of the newest bars: shape (a, F)."""
        out, now = np.empty((len(at), len(self.names))), dict(held)
        unknown = np.full(len(at), np.nan)
        across = by_name if len(at) > 1 else slice(None)
        ages = self.counts[at]
        youngest = int(ages.min())
        for name, values in held.items():
            self.rings.put(name, at, values)
        for turn, group in enumerate(self.plan):
            now |= {step.short: np.empty(len(at)) for step, _, is_read in group if is_read}
            for rows in [across] if turn % 2 else self._blocks(len(at)):
                here = {column: values[rows] for column, values in now.items()}
                windows = Windows(self.rings, at[rows], here, self.index)
                for step, place, is_read in group:
                    if step.looks_back:
                        values = self._looking_back(step, at, now, covered)[rows]
                    elif step.across and not covered:
                        values = unknown
                    else:
                        values = windows.newest(step)
                    if youngest < step.bars - 1 and not step.across:
                        values = np.where(ages[rows] >= step.bars - 1, values, np.nan)
                    if place >= 0:
                        out[rows, place] = values
                    if is_read:
                        now[step.short][rows] = values
                        windows.add(step.short, now[step.short][rows])
        return out

    def _looking_back(
        self, step: Step, at: np.ndarray, now: dict[str, np.ndarray], covered: bool
    ) -> np.ndarray:
        """What a step across the assets makes of the last times, for those of now: shape (a,)."""
        for column in step.sources:
            self.board.put((column, step.bars), at, now[column])
        if not covered:
            return np.full(len(at), np.nan)
        inputs = [self.board.window((column, step.bars), self.order) for column in step.sources]
        place = np.empty(len(self.order), int)
        place[self.order] = np.arange(len(self.order))
        return step.run(*inputs)[-1, place[at]]

    def _blocks(self, assets: int) -> list[slice]:
        return [slice(first, first + self.block) for first in range(0, assets, self.block)]


def _depths(made: Sequence[Step], known: Sequence[str]) -> dict[str, int]:
    """How many bars of each column are looked back on, of those that are at all."""
    depths = {"close": 2} if "close" in known else {}  # the market is made of moves
    for step in made:
        for column in step.sources if not step.looks_back else ():
            depths[column] = max(depths.get(column, 1), step.bars)
    return {name: bars for name, bars in depths.items() if bars > 1}


def _by_name(numbers: Mapping[str, int]) -> np.ndarray:
    """Numbers of the assets in order of their names."""
    return np.argsort(np.asarray(list(numbers), "str"))


def _column(bars: pd.DataFrame, name: str) -> np.ndarray:
    if name == "session_day" and name not in bars:
        return session_days(bars)
    if name == "sector":
        return sector_numbers(bars[name])
    return bars[name].to_numpy(dtype="float64")


def _refuse_endless(
    out: np.ndarray, names: Sequence[str], assets: Sequence[str], time: pd.Timestamp
) -> None:
    with np.errstate(over="ignore"):
        endless = np.isinf(out.astype("float32")).any(axis=0)
    if endless.any():
        index = pd.MultiIndex.from_product([list(assets), [time]])
        number = int(endless.argmax())
        finite(names[number], out[:, number], index)
