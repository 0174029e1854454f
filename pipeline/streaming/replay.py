"""Messages that are not waited for: the rows of a file, or what was set aside before."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import pandas as pd

from pipeline.data.files import CsvReader, as_dialect, read_files, read_parquet
from pipeline.store.step import Aside
from pipeline.store.stream import StreamStore
from pipeline.streaming.messages import Message

PARQUET, CSV = (".parquet", ".pq"), (".csv", ".txt")


class Rows:
    """The rows of Parquet or CSV files in the order of their times, each a message.

    Parameters
    ----------
    path : str
        File, folder or glob.
    columns : mapping of str to str or None, optional
        ``data.columns``, by which the time is found; see `pipeline.data.columns.resolve`.
    dialect : mapping, optional
        Of CSV; fields of `pipeline.data.files.Dialect`.
    name : str, optional
        Under which the store keeps what it brought; default the path.

    Notes
    -----
    It begins at the beginning each time: what is stored adds nothing.
    """

    redelivers = False

    def __init__(
        self,
        path: str,
        columns: Mapping[str, str | None] | None = None,
        dialect: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        self.name, self.stop = name or f"file {path}", Event()
        self._rows = self._read(path, dict(columns or {}), dialect)

    def read(self, n: int) -> list[Message] | None:
        """The next `n` rows; None after the last."""
        found = [message for message, _ in zip(self._rows, range(n), strict=False)]
        return found or None

    def ack(self, ids: Sequence[str]) -> None:
        """Nobody asks."""

    def leave(self, ids: Sequence[str]) -> None:
        """A row does not come again."""

    def passed(self) -> list[Message]:
        """Nothing was forgotten."""
        return []

    def gauges(self) -> dict[str, int]:
        """A file does not wait."""
        return {}

    def _read(
        self, path: str, columns: dict[str, str | None], dialect: Mapping[str, Any] | None
    ) -> Iterator[Message]:
        suffixes = PARQUET if _is_parquet(path) else CSV
        reader = read_parquet if suffixes is PARQUET else CsvReader(as_dialect(dialect))
        table = read_files(path, suffixes, columns, reader).table
        order = pd.to_datetime(table["time"], errors="coerce", utc=True).argsort(kind="stable")
        back = {name: column for name, column in columns.items() if column}  # as in the file
        names = [name for name in table.columns if name not in ("file", "row")]
        for row in table.iloc[order].to_dict("records"):
            kept = {back.get(name, name): row[name] for name in names if not _missing(row[name])}
            yield Message(f"{row['file']}:{row['row']}", kept)


class Again:
    """What was set aside before: each once more, whatever its age.

    Parameters
    ----------
    kept : StreamStore
    kinds : sequence of str
        Which to take up; none takes all but what was lost.
    """

    redelivers = False

    def __init__(self, kept: StreamStore, kinds: Sequence[str] = ()) -> None:
        self.name, self.stop = kept.source, Event()
        self.kept, self.kinds = kept, kinds or ("poison", "late", "future", "failed")
        self.after = 0
        self.given: dict[str, Aside] = {}

    def read(self, n: int) -> list[Message] | None:
        """The next `n` of them; None after the last."""
        found = self.kept.aside(self.after, n, self.kinds)
        if not found:
            return None
        self.after = found[-1].id
        self.given |= {one.message: one for one in found}
        return [Message(one.message, _fields(one), one.deliveries + 1) for one in found]

    def ack(self, ids: Sequence[str]) -> None:
        """They were taken up, but for those that have been set aside once more."""
        self.kept.taken_up([self.given.pop(id) for id in ids])

    def leave(self, ids: Sequence[str]) -> None:
        """They stay set aside."""

    def passed(self) -> list[Message]:
        """Nothing was forgotten."""
        return []

    def gauges(self) -> dict[str, int]:
        """Nothing waits."""
        return {}


def _fields(one: Aside) -> dict[str, object]:
    try:
        found = json.loads(one.content)
    except ValueError:
        return {"content": one.content}
    return dict(found) if isinstance(found, dict) else {"content": one.content}


def _missing(value: object) -> bool:
    return value is None or value is pd.NaT or (isinstance(value, float) and value != value)


def _is_parquet(path: str) -> bool:
    for suffixes in (PARQUET, CSV):
        if path.endswith(suffixes):
            return suffixes is PARQUET
    return any(Path(path).expanduser().glob("*.p*q*"))
