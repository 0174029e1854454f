"""Features of tables larger than memory: from Parquet to Parquet, some assets at a time."""

import logging
import multiprocessing
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.chunks import Chunk, chunks_of, read_chunk
from pipeline.data.intake import Intake
from pipeline.files import replace_atomic
from stages.base import DataError, State
from stages.features.build import FeatureSet, joined
from stages.features.functions import across_assets, bound, reads
from stages.features.rows import Rows, level_of, sector_numbers
from stages.panel import asset_starts, warmup

log = logging.getLogger(__name__)

BLOCK = 512  # times of a cross-section that are computed together


@dataclass(frozen=True)
class Written:
    """What was computed.

    Attributes
    ----------
    files : tuple of Path
        One for each chunk, in order of the names of the assets.
    rows, assets, columns : int
    """

    files: tuple[Path, ...]
    rows: int
    assets: int
    columns: int


@dataclass(frozen=True)
class _Held:
    """What a chunk holds: numbers only, as they pass between processes."""

    number: int
    assets: tuple[str, ...]
    starts: np.ndarray
    times: np.ndarray  # of each row, microseconds since 1970


def write_features(
    features: FeatureSet,
    path: str,
    target: Path | str,
    intake: Intake,
    chunk: int = 250_000,
    workers: int = 1,
) -> Written:
    """Compute a set for all bars of some Parquet files, and write a folder of Parquet files.

    The values are those that one table of all bars gives, bit for bit. What compares the assets
    of a time is computed between two passes over the chunks, a column at a time.

    Parameters
    ----------
    features : FeatureSet
    path : str
        A file, folder or glob of Parquet files, best sorted by asset.
    target : Path or str
        Folder for ``part-00000.parquet`` …: asset, time, the bars and the columns of the set.
    intake : Intake
        How the files are read and checked.
    chunk : int >= 1, default=250000
        Rows of bars that a worker holds at a time, more only where one asset has more.
    workers : int >= 1, default=1
        Processes, each with one thread.

    Returns
    -------
    Written

    Raises
    ------
    DataError
        SV-F02 if the folder holds parts already; see `Intake.take` and `FeatureSet.build`.
    """
    target = Path(target)
    if list(target.glob("part-*.parquet")):
        raise DataError(
            f"{target.name} holds parts already",
            code="SV-F02",
            where=str(target.parent),
            why="parts of two computations in one folder would be read as one table",
            cure="name another folder, or empty this one",
        )
    chunks = chunks_of(path, intake, chunk)
    target.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=target, prefix=".scratch-") as scratch,
        _running(workers) as run,
    ):
        place = Path(scratch)
        held = run(partial(_take, place, intake), chunks)
        fitted, whole = _fit(features, place, held)
        _across(fitted, whole, run)
        files = run(partial(_finish, place, fitted, target), [h.number for h in held])
    columns = len(pq.read_schema(files[0]).names)
    return Written(tuple(files), whole.rows, sum(len(h.assets) for h in held), columns)


@dataclass
class _Whole:
    """All chunks: where their rows stand among the times, and columns on the disk."""

    place: Path
    held: Sequence[_Held]
    times: np.ndarray  # distinct, ascending
    covered: np.ndarray  # whether a time has enough of the universe: (T,)

    @property
    def rows(self) -> int:
        return sum(len(h.times) for h in self.held)

    def at(self, held: _Held) -> np.ndarray:
        """Number of the time of each row."""
        return np.searchsorted(self.times, held.times)


def _fit(features: FeatureSet, place: Path, held: Sequence[_Held]) -> tuple[FeatureSet, _Whole]:
    """The set as all bars would fit it, with their market beside the bars of each chunk."""
    sample = pd.concat([_bars(place, h.number).groupby(level="asset").head(1) for h in held[:2]])
    fitted = replace(features).fit(sample)
    firsts = {a: h.times[s] for h in held for a, s in zip(h.assets, h.starts[:-1], strict=True)}
    times = np.unique(np.concatenate([np.unique(h.times) for h in held]))
    due = np.searchsorted(np.sort(list(firsts.values())), times, side="right")
    present = np.zeros(len(times))
    whole = _Whole(place, held, times, present)
    total, count = np.zeros(len(times)), np.zeros(len(times))
    made = fitted.market_ == "equal weight" and fitted.reads_market
    for h in held:  # in order of name, as a single table has it
        at = whole.at(h)
        present += np.bincount(at, minlength=len(times))
        if made:
            Rows.of(_bars(place, h.number), {"close"}).add_moves(at, total, count)
    whole.covered = present / np.maximum(due, 1) >= features.min_coverage
    values = dict(fitted.state().values)
    values["universe"] = {
        a: pd.Timestamp(t, unit="us", tz="UTC").isoformat() for a, t in firsts.items()
    }
    if made:
        level = level_of(total, count)
        for h in held:
            np.save(place / f"{h.number}.market.npy", level[whole.at(h)])
    values["market"] = "given" if fitted.reads_market and fitted.market_ != "absent" else "absent"
    return replace(features).restore(State(values)), whole


def _across(fitted: FeatureSet, whole: _Whole, run: Callable[..., list[Any]]) -> None:
    """Compute each column that compares assets, once those that it reads are there."""
    functions = {name: f for name, f in fitted.functions() if name in set(fitted.built_)}
    left = [name for name, function in functions.items() if across_assets(function)]
    done: list[str] = []
    while left:
        ready = [n for n in left if not (_needs(functions, n) - {n}) & set(left)]
        inputs = {c for n in ready for c in reads(functions[n]).values()}
        made = [n for n in functions if n.removeprefix("feature.") in inputs and n not in done]
        made = [n for n in made if n.startswith("feature.")]
        if made:
            part = _part(fitted, made)
            run(
                partial(_inputs, whole.place, part, made, tuple(done)),
                [h.number for h in whole.held],
            )
        for name in ready:
            _compare(functions[name], name, whole)
        done += ready
        left = [name for name in left if name not in ready]


def _compare(function: Any, name: str, whole: _Whole) -> None:
    """Run a function across the assets of each time, a block of times after the other."""
    order = np.argsort(np.concatenate([whole.at(h) for h in whole.held]), kind="stable")
    at = np.concatenate([whole.at(h) for h in whole.held]).astype("int32")
    counts = [np.diff(h.starts) for h in whole.held]
    asset = np.repeat(np.arange(sum(map(len, counts))), np.concatenate(counts)).astype("int32")
    columns = [_column(whole, source) for source in reads(function).values()]
    out, run = np.empty(len(at)), bound(function)
    block = BLOCK if warmup(function) == 0 else len(whole.times)
    edges = np.searchsorted(at[order], np.arange(0, len(whole.times) + block, block))
    for number, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        rows, first = order[low:high], number * block
        shape = (min(block, len(whole.times) - first), int(asset[-1]) + 1)
        where = at[rows] - first, asset[rows]
        wide = [np.full(shape, np.nan) for _ in columns]
        for table, values in zip(wide, columns, strict=True):
            table[where] = values[rows]
        out[rows] = np.where(whole.covered[at[rows]], function_of(run, wide)[where], np.nan)
    first = 0
    for h in whole.held:
        np.save(whole.place / f"{h.number}.{name}.npy", out[first : first + len(h.times)])
        first += len(h.times)


def function_of(run: Any, wide: Sequence[np.ndarray]) -> np.ndarray:
    """Values of a cross-section, float64."""
    return np.asarray(run(*wide), dtype="float64")


def _column(whole: _Whole, source: str) -> np.ndarray:
    """A column of all rows: one that was computed, or of the bars."""
    parts = []
    for h in whole.held:
        made = whole.place / f"{h.number}.feature.{source}.npy"
        if made.exists():
            parts.append(np.load(made))
        elif source == "sector":
            parts.append(_bars(whole.place, h.number, [source])[source])
        else:
            rows = Rows.of(_bars(whole.place, h.number), {source})
            parts.append(rows.columns[source])
    if source == "sector":
        return sector_numbers(pd.concat(parts))
    return np.concatenate(parts)


def _needs(functions: Mapping[str, Any], name: str) -> set[str]:
    """A column and all that it reads, directly or not."""
    found, asked = set(), [name]
    while asked:
        now = asked.pop()
        if now in functions and now not in found:
            found.add(now)
            asked += [f"feature.{column}" for column in reads(functions[now]).values()]
    return found


def _part(fitted: FeatureSet, names: Iterable[str]) -> FeatureSet:
    """The columns `names` and what they read, all of them kept."""
    functions = dict(fitted.functions())
    needed = set().union(*(_needs(functions, name) for name in names))
    columns = {n: f for n, f in fitted.columns.items() if f"feature.{n}" in needed}
    values = dict(fitted.state().values)
    values |= {"built": [n for n in values["built"] if n in needed], "dropped": []}
    part = replace(fitted, columns=columns, rules={}, context={}, inner=[])
    values["market"] = values["market"] if part.reads_market else "absent"
    return part.restore(State(values))


# what a worker does with one chunk


def _take(place: Path, intake: Intake, chunk: Chunk) -> _Held:
    """Read and check the bars of a chunk, and lay them aside."""
    if intake.quarantine:  # one file of refused rows a chunk
        own = Path(intake.quarantine)
        intake = replace(intake, quarantine=str(own.with_stem(f"{own.stem}-{chunk.number:05d}")))
    bars = read_chunk(chunk, intake).bars
    bars.reset_index().to_parquet(place / f"{chunk.number}.parquet", compression="lz4")
    starts = asset_starts(bars)
    names = bars.index.get_level_values("asset")[starts[:-1]]
    times = pd.DatetimeIndex(bars.index.get_level_values("time")).as_unit("us").asi8
    return _Held(chunk.number, tuple(map(str, names)), starts, times.copy())


def _inputs(
    place: Path, part: FeatureSet, names: Sequence[str], done: Sequence[str], number: int
) -> None:
    """Lay the columns aside that are compared across assets."""
    made = part.values(_bars(place, number), _given(place, number, part, done))
    for name in names:
        if name not in done:
            np.save(place / f"{number}.{name}.npy", made[name].to_numpy())


def _finish(place: Path, fitted: FeatureSet, target: Path, number: int) -> Path:
    """Write the bars of a chunk with all columns of the set."""
    bars = _bars(place, number)
    across = [name for name, f in fitted.functions() if across_assets(f)]
    table = fitted.table(bars, given=_given(place, number, fitted, across))
    own = bars.drop(columns="market") if (place / f"{number}.market.npy").exists() else bars
    flat = joined(own, table).reset_index()
    flat["asset"] = flat["asset"].astype("category")
    file = target / f"part-{number:05d}.parquet"
    arrow = pa.Table.from_pandas(flat, preserve_index=False)
    replace_atomic(
        file, lambda path: pq.write_table(arrow, path, compression="lz4", use_dictionary=["asset"])
    )
    return file


def _given(
    place: Path, number: int, features: FeatureSet, names: Sequence[str]
) -> dict[str, np.ndarray]:
    own = {name for name, _ in features.functions()}
    files = {name: place / f"{number}.{name}.npy" for name in names if name in own}
    return {name: np.load(file) for name, file in files.items() if file.exists()}


def _bars(place: Path, number: int, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The bars of a chunk, with the market of all."""
    wanted = None if columns is None else ["asset", "time", *columns]
    table = pd.read_parquet(place / f"{number}.parquet", columns=wanted)
    times = pd.DatetimeIndex(table["time"]).as_unit("us")
    index = pd.MultiIndex.from_arrays(
        [table["asset"].astype("str"), times], names=["asset", "time"]
    )
    bars = table.drop(columns=["asset", "time"]).set_axis(index)
    market = place / f"{number}.market.npy"
    return bars.assign(market=np.load(market)) if market.exists() else bars


class _running:  # noqa: N801 - read as a word: with _running(workers) as run
    """A function that maps another over items, here or in processes, in order."""

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        # spawned, as threads of arrow and numba do not survive a fork
        context = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(workers, context) if workers > 1 else None

    def __enter__(self) -> Callable[..., list[Any]]:
        return self.run

    def run(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        return list(self.pool.map(function, items) if self.pool else map(function, items))

    def __exit__(self, *fault: object) -> None:
        if self.pool:
            self.pool.shutdown(cancel_futures=True)
