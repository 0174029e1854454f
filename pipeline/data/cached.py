"""Computed features kept on disk by their content: the same bars, settings and code, once."""

import hashlib
import json
import logging
import os
import secrets
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from llvmlite import binding
from numba import njit

from pipeline.files import json_bytes
from pipeline.recipe import describe
from pipeline.versions import versions
from stages import panel as anchor
from stages.base import ConfigError
from stages.features.build import FeatureSet, joined
from stages.features.rows import sector_numbers
from stages.panel import asset_starts

log = logging.getLogger(__name__)

LATEST = 4  # entries of the same features that new bars are compared with
active: ContextVar["FeatureCache | None"] = ContextVar("cache", default=None)


def built(features: Any, bars: pd.DataFrame) -> pd.DataFrame:
    """``features.build(bars)``, out of the active cache where there is one."""
    kept = active.get()
    if kept is None or type(features) is not FeatureSet:  # what is given costs nothing
        return features.build(bars)
    return kept.build(features, bars)


@dataclass(frozen=True)
class FeatureCache:
    """A folder of feature tables, each named by what it was computed from.

    Bars that add later rows to those of an entry take the old rows from it and compute the new
    ones, which look back on their windows alone: the same bits. An entry that is damaged is
    computed again; one that cannot be written is done without. Entries are never changed, so that
    processes may share the folder without a lock.

    Parameters
    ----------
    folder : Path or str
    max_bytes : int > 0
        Beyond it the entries that were not used for longest go.
    """

    folder: Path | str
    max_bytes: int = 4 * 2**30

    def __post_init__(self) -> None:
        if self.max_bytes <= 0:
            raise ValueError(f"max_bytes must be above 0, got {self.max_bytes}")

    def build(self, features: FeatureSet, bars: pd.DataFrame) -> pd.DataFrame:
        """What ``features.build(bars)`` gives."""
        whole = _undropped(features)
        try:
            name = _made_by(whole)
        except ConfigError:  # a function without a name, such as one of a notebook
            return features.build(bars)
        return joined(bars, self._table(whole, name, bars).drop(columns=features.dropped_))

    def _table(self, features: FeatureSet, made_by: str, bars: pd.DataFrame) -> pd.DataFrame:
        name = f"{made_by}-{_fingerprint(features, bars)}"
        values = self._read(name, len(bars))
        if values is not None:
            return pd.DataFrame(values[1].T, bars.index, values[0]["columns"], copy=False)
        table = self._extended(features, made_by, bars)
        table = features.table(bars) if table is None else table
        self._write(name, table)
        return table

    def _extended(
        self, features: FeatureSet, made_by: str, bars: pd.DataFrame
    ) -> pd.DataFrame | None:
        """The table, of which an entry has all but the newest times; None if none has."""
        time = bars.index.get_level_values("time")
        for path in self._entries(f"{made_by}-*.json")[:LATEST]:
            said = _said(path)
            if said is None or not said["rows"] < len(bars):
                continue
            new = np.asarray(time > pd.Timestamp(said["last"]))
            if (~new).sum() != said["rows"] or not features.extends:
                continue
            name = f"{made_by}-{_fingerprint(features, bars[~new])}"
            held = self._read(name, said["rows"]) if name == path.stem else None
            if held is None:
                continue
            made = features.table(bars, new)
            if list(made) != held[0]["columns"]:
                continue
            out = _merged(held[1], made.to_numpy().T, new)
            log.info("%d of %d rows of features were kept from before", (~new).sum(), len(bars))
            return pd.DataFrame(out.T, bars.index, held[0]["columns"], copy=False)
        return None

    def _read(self, name: str, rows: int) -> tuple[dict[str, Any], np.ndarray] | None:
        """What an entry says of itself, and its values (F, N); None if it is absent or damaged."""
        path = Path(self.folder) / f"{name}.json"
        if not path.exists():
            return None
        said, data = _said(path), path.with_suffix(".f32")
        try:
            if said is None or said["rows"] != rows:
                raise ValueError("its description is damaged")
            shape = (len(said["columns"]), rows)
            values = np.asarray(np.memmap(data, "float32", "r", shape=shape))
            if data.stat().st_size != values.nbytes or _checksum(values) != said["checksum"]:
                raise ValueError("its values are damaged")
            for used in (path, data):
                os.utime(used)
        except (OSError, ValueError) as fault:
            log.warning("features %s are computed again: %s", name, fault)
            for damaged in (path, data):
                damaged.unlink(missing_ok=True)
            return None
        return said, values

    def _write(self, name: str, table: pd.DataFrame) -> None:
        """Store a table, first its values and then what says that they are whole."""
        values = np.ascontiguousarray(table.to_numpy().T)
        said = {
            "columns": list(table.columns),
            "rows": len(table),
            "last": table.index.get_level_values("time").max().isoformat(),
            "checksum": _checksum(values),
        }
        path = Path(self.folder) / f"{name}.json"
        text = json_bytes(said | {"self": _own(said)})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._make_room(values.nbytes)
            if values.nbytes <= self.max_bytes:
                _put(path.with_suffix(".f32"), values.data)
                _put(path, text)
        except OSError as fault:  # a full disk costs time, not the result
            log.warning("features are not kept in %s: %s", self.folder, fault)

    def _make_room(self, wanted: int) -> None:
        entries = self._entries("*.json")
        sizes = {p: _size(p.with_suffix(".f32")) for p in entries}
        total = sum(sizes.values()) + wanted
        for path in reversed(entries):  # the one that was not used for longest first
            if total <= self.max_bytes:
                break
            for file in (path, path.with_suffix(".f32")):
                file.unlink(missing_ok=True)
            total -= sizes[path]

    def _entries(self, pattern: str) -> list[Path]:
        """Descriptions of entries, the one that was used last first."""
        found = [(p.stat().st_mtime_ns, p) for p in Path(self.folder).glob(pattern) if p.exists()]
        return [path for _, path in sorted(found, reverse=True)]


def _merged(old: np.ndarray, made: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Values of the old rows and of the `new` ones, each in its place: shape (F, N)."""
    out = np.empty((len(old), len(new)), "float32")
    edges = np.flatnonzero(np.diff(new, prepend=~new[:1], append=~new[-1:]))
    before = np.concatenate([[0], np.cumsum(new)])
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        values, first = (made, before[start]) if new[start] else (old, start - before[start])
        out[:, start:stop] = values[:, first : first + stop - start]
    return out


def _undropped(features: FeatureSet) -> FeatureSet:
    """The set as it was fitted: what training drops later does not make another table."""
    whole = replace(features)
    if hasattr(features, "built_"):
        whole.restore(features.state())
    whole.dropped_, whole._said = [], features._said
    return whole


def _made_by(features: FeatureSet) -> str:
    """Digest of the settings, of what was fitted, and of the code that computes."""
    fitted = features.state().values if hasattr(features, "built_") else None
    modules = {getattr(f, "func", f).__module__ for _, f in features.functions()}
    text = json_bytes([describe(features), fitted, _code(tuple(sorted(modules)))])
    return hashlib.sha256(text).hexdigest()[:16]


@cache
def _code(modules: tuple[str, ...]) -> str:
    """Digest of the sources that compute features, of the libraries and of the processor."""
    home = Path(anchor.__file__).parent
    files = set(home.glob("*.py")) | set((home / "features").glob("*.py"))
    files |= {home.parent / f"{name.replace('.', '/')}.py" for name in modules}
    found = hashlib.sha256(json_bytes([versions(), binding.get_host_cpu_name()]))
    for path in sorted(files):
        found.update(path.read_bytes() if path.exists() else path.name.encode())
    return found.hexdigest()


def _fingerprint(features: FeatureSet, bars: pd.DataFrame) -> str:
    """Digest of the index, and of the columns that are read."""
    starts = asset_starts(bars)
    assets = bars.index.get_level_values("asset")[starts[:-1]]
    times = pd.DatetimeIndex(bars.index.get_level_values("time")).as_unit("us")
    names = sorted(features.sources(bars)) + [c for c in ("session",) if c in bars]
    head = [list(map(str, assets)), starts.tolist(), names]
    found = hashlib.blake2b(json_bytes(head))
    found.update(np.ascontiguousarray(times.asi8).data)
    for name in names:
        if name == "session":
            values = pd.DatetimeIndex(bars[name]).as_unit("us").asi8
        elif name == "sector":
            values = sector_numbers(bars[name])
        else:
            values = bars[name].to_numpy(dtype="float64")
        found.update(np.ascontiguousarray(values).data)
    return found.hexdigest()[:32]


def _said(path: Path) -> dict[str, Any] | None:
    """What an entry says of itself, if that is whole."""
    try:
        said = json.loads(path.read_bytes())
        return said if said.pop("self", None) == _own(said) else None
    except (OSError, ValueError, AttributeError):
        return None


def _own(said: dict[str, Any]) -> str:
    return hashlib.sha256(json_bytes(said)).hexdigest()


def _put(path: Path, content: Any) -> None:
    # not waited for: after a crash the checksum finds what did not reach the disk
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _checksum(values: np.ndarray) -> str:
    flat = values.reshape(-1)
    words = flat[: len(flat) // 2 * 2].view("uint64")
    first, second = _fletcher(words)
    odd = flat[len(words) * 2 :].tobytes().hex()
    return f"{first:016x}{second:016x}{odd}"


@njit(cache=True)
def _fletcher(words: np.ndarray) -> tuple[np.uint64, np.uint64]:
    """Sum of all words, and of all such sums: changed, moved and lost words show in it."""
    first, second = np.uint64(1), np.uint64(0)
    for word in words:
        first += word
        second += first
    return first, second
