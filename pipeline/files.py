"""Write files so that a reader sees the old content or the new, never half of either."""

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stages.base import StoreError


def write_atomic(path: Path | str, content: bytes) -> None:
    """Replace the file at `path` by `content`, durably: what was there stays until all is down.

    Raises
    ------
    StoreError
        SV-F34 if the disk refuses; the old file is intact.
    """
    replace_atomic(path, lambda temporary: write_synced(temporary, content))


def replace_atomic(path: Path | str, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a file beside `path`, then put it in its place.

    Parameters
    ----------
    path : Path or str
    write : callable
        Given the path of a temporary file of the same folder.
    """
    path = Path(path)
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        try:
            write(temporary)
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_synced(path: Path, content: bytes) -> None:
    """Write a new file and wait until it is on the disk."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def append_line(path: Path, line: bytes) -> None:
    """Append one line and wait until it is on the disk; one that a crash cut short is closed first.

    Raises
    ------
    StoreError
        SV-F34 if the disk refuses.
    """
    with storing(path):
        fresh = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            closed = not size or os.pread(descriptor, 1, size - 1) == b"\n"
            content = (b"" if closed else b"\n") + line + b"\n"
            while content:
                content = content[os.write(descriptor, content) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if fresh:
            sync(path.parent)


def line_values(line: bytes) -> dict[str, Any] | None:
    """Values of a line of JSON; None for one that a crash cut short, or that closes such a one."""
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def json_bytes(values: Any, *, indent: int | None = None) -> bytes:
    """One spelling for given values: key order kept, no blanks unless indented, ASCII.

    Raises
    ------
    ValueError
        For NaN and infinities, which JSON does not have.
    TypeError
        For what is no JSON value.
    """
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(values, allow_nan=False, separators=separators, indent=indent)
    return text.encode("ascii")


@contextlib.contextmanager
def storing(path: Path | str) -> Iterator[None]:
    """Turn what the disk refuses into an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot write {Path(path).name}: {error.strerror or error}",
            code="SV-F34",
            where=str(Path(path).parent),
            why="nothing was replaced: what was stored before is intact",
            cure="free space, or name another place: root, output, report, predictions=PATH",
        ) from error
