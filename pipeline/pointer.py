"""Which model of a root serves, which may follow, which came before: one file, changed at once."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pipeline.files import append_line, json_bytes, line_values, write_atomic
from stages.base import ArtifactError

POINTER = "champion"
HISTORY = "champions.jsonl"
DIGEST = re.compile(r"[0-9a-f]{64}")
ACTIONS = ("promote", "challenge", "withdraw", "roll back", "advance")


@dataclass(frozen=True)
class Pointer:
    """The roles of a root, and the change that made them so.

    Attributes
    ----------
    champion : str
        Digest of the model that serves.
    challenger : str or None
        Of the model that speaks in the shadow and may take over.
    previous : str or None
        Of the model that served before, to which a rollback returns.
    number : int
        Changes so far.
    action : {'promote', 'challenge', 'withdraw', 'roll back', 'advance'}
        What was done; `advance` puts a model's own update in its place.
    why : str
    time : str
        UTC, ISO format.
    bar : str
        Newest bar when the champion took over, UTC, ISO format; empty where that was not told.
    """

    champion: str
    challenger: str | None = None
    previous: str | None = None
    number: int = 1
    action: str = "promote"
    why: str = ""
    time: str = ""
    bar: str = ""

    def roles(self) -> Iterator[tuple[str, str]]:
        """Role and digest of every model there is."""
        for role in ("champion", "challenger", "previous"):
            if digest := getattr(self, role):
                yield role, digest


def read_pointer(root: Path | str) -> Pointer | None:
    """The pointer of `root`: one read of one file, so the roles belong together; None without.

    Raises
    ------
    ArtifactError
        SV-F29 if it is not what was written.
    """
    path = Path(root) / POINTER
    try:
        head, _, rest = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    try:
        values = json.loads(rest) if rest.strip() else {}
        pointer = Pointer(champion=head.decode("ascii").strip(), **values)
        digests = [digest for _, digest in pointer.roles()]
        sound = all(DIGEST.fullmatch(digest) for digest in digests) and pointer.number >= 1
    except (ValueError, TypeError) as error:
        raise _damaged(path) from error
    if not sound:
        raise _damaged(path)
    return pointer


def move(root: Path | str, to: Pointer, why: str = "") -> Pointer:
    """Put `to` in the place of the pointer of `root`, at once and durably; return it as written.

    The change before it goes into the history first, so that a process that dies at any moment
    leaves one of the two pointers, and a history without gaps. Hold `pipeline.lock.lock` on
    `root`: of two writers the later would win.

    Parameters
    ----------
    root : Path or str
    to : Pointer
        Its number and time are set here.
    why : str

    Raises
    ------
    StoreError
        SV-F34 if the disk refuses; the old pointer stays.
    """
    before = read_pointer(root)
    if before is not None:
        _keep(root, before)
    number = 1 if before is None else before.number + 1
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    to = replace(to, number=number, time=now, why=why)
    write_atomic(Path(root) / POINTER, _text(to))
    return to


def promoted(before: Pointer | None, digest: str, bar: str = "") -> Pointer:
    """The pointer after the model with this digest took over: the old one becomes the previous."""
    if before is None:
        return Pointer(digest, bar=bar)
    challenger = None if before.challenger == digest else before.challenger
    previous = before.previous if before.champion == digest else before.champion
    return Pointer(digest, challenger, previous, action="promote", bar=bar)


def history(root: Path | str) -> list[Pointer]:
    """Every change of the pointer of `root`, the oldest first, the present one last.

    Raises
    ------
    ArtifactError
        SV-F29 for a line that was changed.
    """
    now = read_pointer(root)
    if now is None:
        return []
    path = Path(root) / HISTORY
    found = {}
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        if (values := line_values(line)) is not None:
            try:
                found[values["number"]] = Pointer(**values)
            except (TypeError, KeyError) as error:
                raise _damaged(path) from error
    kept = [found[number] for number in sorted(found) if number < now.number]
    return [*kept, now]


def _keep(root: Path | str, pointer: Pointer) -> None:
    """Append a change to the history, unless it is its last line already."""
    path = Path(root) / HISTORY
    line = json_bytes(asdict(pointer))
    if not (path.exists() and path.read_bytes().endswith(line + b"\n")):
        append_line(path, line)


def _text(pointer: Pointer) -> bytes:
    values = asdict(pointer)
    return f"{values.pop('champion')}\n".encode("ascii") + json_bytes(values) + b"\n"


def _damaged(path: Path) -> ArtifactError:
    return ArtifactError(
        f"{path.name} is not what was written",
        code="SV-F29",
        where=str(path),
        why="it says which models serve, so a changed one must not be guessed at",
        cure=f"put the digest of a model of this root into {path.parent / POINTER}, on one line",
    )
