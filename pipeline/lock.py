"""Let one process at a time write below a root, and say who holds it."""

import contextlib
import fcntl
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from pipeline.files import storing
from stages.base import StoreError

PAUSE = 0.1  # seconds between two tries


@contextlib.contextmanager
def lock(root: Path | str, wait: float = 0.0) -> Iterator[None]:
    """Hold `root` while the block runs; the lock ends with the process, however it ends.

    Parameters
    ----------
    root : Path or str
        A folder on a local disk; made if absent.
    wait : float, default=0
        Seconds to wait for the process that holds it.

    Raises
    ------
    StoreError
        SV-F40, naming who holds it, if it is still held after `wait`.
    """
    path = Path(root) / ".lock"
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    with file:
        _take(file.fileno(), path, time.monotonic() + wait)
        file.truncate(0)
        file.write(json.dumps(_whoami()))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _take(descriptor: int, path: Path, until: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= until:
                raise _held(path) from error
            time.sleep(PAUSE)
        else:
            return


def _whoami() -> dict[str, str | int]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv)[:200],
    }


def _held(path: Path) -> StoreError:
    try:
        who = json.loads(path.read_text(encoding="utf-8"))
        holder = f"process {who['pid']} on {who['host']} since {who['since']}: {who['command']}"
    except (ValueError, KeyError, TypeError):  # taken just now, its name not written yet
        holder = "another process"
    return StoreError(
        f"{path.parent.name} is held by {holder}",
        code="SV-F40",
        where=str(path),
        why="two writers on one root could each overwrite what the other stored",
        cure="wait until it ends, allow more waiting, or use another root=PATH",
    )
