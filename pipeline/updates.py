"""Every update of a root, one line each, only ever appended: what it learnt, and what that did.

A line names the model it began with, the bars, the settings and the model it ended with, so that
all updates can be made again from the first model and must give the same digests. Each line holds
the digest of the line before it, so that one that is changed or taken out shows.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.files import append_line, json_bytes, line_values
from stages.base import StoreError

FOLDER, FILE = "updates", "updates.jsonl"


@dataclass(frozen=True)
class Update:
    """One update of a model.

    Attributes
    ----------
    parent, child : str
        Digests of the model before and after.
    data : mapping
        ``from`` and ``to`` (first and newest bar, ISO, UTC), ``bars``, ``digest`` of the bars;
        ``labels`` (bars, data or store: where they come from) and ``labels_digest``.
    settings : JSON value
        The `Learning`, as `recipe.describe` writes it; None where stage 3 alone learnt.
    drifted : bool
        Whether a change of the market was confirmed.
    answer : mapping
        What was done about alarms, see `pipeline.answers.Answer.record`; empty without a watch.
    counts : mapping of str to int
        Rows ``learned``, ``known``, ``incomplete``; ``lessons`` of the members.
    prequential, frozen : mapping
        `scores` of the rows learnt: as they were spoken of before each was learnt, and by the
        model before the update, which learnt nothing meanwhile.
    regimes : mapping
        ``before`` and ``after``: `by_regime` of remembered rows, by the model before and after.
    transfer : mapping
        ``backward``, ``backward_loss`` and ``forward``; see `stages.online.transfer`.
    memory : mapping
        The replay buffer after the update.
    code : str or None
        Commit.
    libraries : mapping of str to str
    time : str
        When it was entered, ISO, UTC.
    digest : str
        SHA-256 of the line; empty until entered.
    """

    parent: str
    child: str
    data: Mapping[str, Any]
    settings: Any = None
    drifted: bool = False
    answer: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    prequential: Mapping[str, Any] = field(default_factory=dict)
    frozen: Mapping[str, Any] = field(default_factory=dict)
    regimes: Mapping[str, Any] = field(default_factory=dict)
    transfer: Mapping[str, Any] = field(default_factory=dict)
    memory: Mapping[str, Any] = field(default_factory=dict)
    code: str | None = None
    libraries: Mapping[str, str] = field(default_factory=dict)
    time: str = ""
    digest: str = ""

    @property
    def key(self) -> tuple[str, str, str, str, bool]:
        """What makes it another update: made again after a crash, it is the same."""
        bars, labels = self.data["digest"], self.data["labels_digest"]
        return self.parent, self.child, bars, labels, self.drifted


def place(root: Path | str) -> Path:
    """The file of the updates of `root`."""
    return Path(root) / FOLDER / FILE


def enter(root: Path | str, update: Update) -> Update:
    """Append one update, durably; return it as entered. One that is there already stays alone.

    Hold `pipeline.lock.lock` on `root`. A line that a crash cut short is closed and passed over.

    Raises
    ------
    StoreError
        SV-X540 for a file that was changed; SV-F34 if the disk refuses.
    """
    path = place(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    before = read(root)
    for known in before:
        if known.key == update.key and known.settings == update.settings:
            return known
    time = datetime.now(UTC).isoformat(timespec="microseconds")
    values = asdict(update) | {"time": time}
    values.pop("digest")
    line = json_bytes({"before": before[-1].digest if before else "", **values})
    append_line(path, line)
    return _update(json.loads(line), _sha256(line))


def read(root: Path | str) -> list[Update]:
    """Every update of `root`, the oldest first; lines that a crash cut short are left out.

    Raises
    ------
    StoreError
        SV-X540 naming the first line that does not follow the one before it.
    """
    path = place(root)
    found: list[Update] = []
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    for number, line in enumerate(lines, start=1):
        values = line_values(line)
        if values is None:
            continue
        if values.get("before") != (found[-1].digest if found else ""):
            raise _changed(path, number)
        found.append(_update(values, _sha256(line)))
    return found


def answered(root: Path | str) -> set[str]:
    """Names of all alarms that an update of `root` has answered."""
    return {name for update in read(root) for name in update.answer.get("alarms", ())}


def _update(values: dict[str, Any], digest: str) -> Update:
    return Update(**{k: v for k, v in values.items() if k != "before"}, digest=digest)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _changed(path: Path, number: int) -> StoreError:
    return StoreError(
        f"line {number} of the updates does not follow the line before it",
        code="SV-X540",
        where=str(path),
        why="a line was changed or taken out, so the way to the model is not known any more",
        cure="put the file back from a copy",
    )
