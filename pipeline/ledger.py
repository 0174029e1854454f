"""Counts every trial of a root, for good: what is chosen among many must not pass for one of one.

One line a trial, only ever appended. Each line holds the digest of the line before it, so that a
line that is changed or taken out shows.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.files import append_line, json_bytes, line_values
from pipeline.lock import lock
from stages.base import StoreError
from stages.evaluate.standing import Standing, standing

FOLDER, FILE = "ledger", "trials.jsonl"
WAIT = 120.0  # seconds for other jobs to have entered theirs


@dataclass(frozen=True)
class Trial:
    """One look at rows that were held back.

    Attributes
    ----------
    kind : str
        What looked: ``train``, ``evaluate``.
    recipe : str
        Digest of what was judged: of the recipe and the split of a training, of the model that a
        stored one was.
    data : str
        Digest of the bars.
    name : str
        Of the source of the bars; trials on one source are compared.
    part : str
        What was held back: ``out-of-fold``, ``valid``, ``test``, ``since …``.
    figures : mapping of str to float or None
    returns : Series of T floats
        Net return of each bar of the book that follows the scores, by UTC time.
    cost : float
        Mean round trip of that book, basis points.
    span : int
        Bars for which a position is held.
    seed : int or None
    time : str
        When it was entered, ISO, UTC.
    digest : str
        SHA-256 of the line, which names the trial; empty until entered.
    """

    kind: str
    recipe: str
    data: str
    name: str
    part: str
    figures: Mapping[str, float | None] = field(default_factory=dict)
    returns: pd.Series = field(default_factory=lambda: pd.Series(dtype="float64"))
    cost: float = 0.0
    span: int = 1
    seed: int | None = None
    time: str = ""
    digest: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes a trial another one: a rerun of the same is none."""
        return self.recipe, self.data, self.part


@dataclass(frozen=True)
class Ledger:
    """All lines of a ledger.

    Attributes
    ----------
    trials : tuple of Trial
        In the order in which they were entered, reruns among them.
    torn : int
        Lines that a crash cut short. Each counts as a trial: something was looked at.
    head : str
        Digest of the last line.
    """

    trials: tuple[Trial, ...] = ()
    torn: int = 0
    head: str = ""

    @property
    def distinct(self) -> dict[tuple[str, str, str], Trial]:
        """The newest entry of each distinct trial, by key."""
        return {trial.key: trial for trial in self.trials}

    @property
    def count(self) -> int:
        """N: distinct trials, and lines cut short."""
        return len(self.distinct) + self.torn

    def find(self, digest: str) -> Trial | None:
        """The trial of that name."""
        return next((trial for trial in self.trials if trial.digest == digest), None)

    def standing(
        self,
        trial: Trial,
        resamples: int = 500,
        known: MutableMapping[frozenset[str], float] | None = None,
    ) -> Standing:
        """What the Sharpe ratio of `trial` is worth among all trials entered here.

        Parameters
        ----------
        trial : Trial
        resamples : int
            Of its interval.
        known
            See `stages.evaluate.standing.standing`.
        """
        distinct = self.distinct
        others = {t.digest: t.returns for key, t in distinct.items() if key != trial.key}
        alike = {t.digest: t.returns for t in distinct.values() if t.name == trial.name}
        alike = {digest: returns for digest, returns in alike.items() if digest in others}
        newest = distinct.get(trial.key, trial)  # a rerun goes by the name of the last
        returns = trial.returns.rename(newest.digest)
        count = len(others) + 1 + self.torn
        seed = trial.seed or 0
        return standing(returns, alike, count, trial.span, resamples, seed, known)


def place(root: Path | str) -> Path:
    """The file of the ledger of `root`."""
    return Path(root) / FOLDER / FILE


def digest_of(*descriptions: Any) -> str:
    """SHA-256 of JSON values, such as a recipe and a split."""
    return hashlib.sha256(json_bytes(list(descriptions))).hexdigest()


def enter(root: Path | str, trial: Trial) -> tuple[Ledger, Trial]:
    """Append one trial, durably, and return the ledger with it and the trial as entered.

    Processes that enter at once wait for each other. A line that a crash cut short is closed and
    kept.

    Raises
    ------
    StoreError
        SV-X523 for a ledger that was changed; SV-F34 if the disk refuses; SV-F40 if another
        process holds it for too long.
    """
    path = place(root)
    with lock(path.parent, wait=WAIT):
        before = read(root)
        line = _line(trial, datetime.now(UTC).isoformat(timespec="microseconds"), before.head)
        append_line(path, line)
    entered = _trial(json.loads(line), _sha256(line))  # as others will read it
    return Ledger((*before.trials, entered), before.torn, entered.digest), entered


def read(root: Path | str) -> Ledger:
    """Every trial of `root`, after checking that no line was changed or taken out.

    Raises
    ------
    StoreError
        SV-X523 naming the first line that does not follow the one before it.
    """
    path = place(root)
    text = path.read_bytes() if path.exists() else b""
    lines = text.split(b"\n")
    lines = lines[:-1] if not lines[-1] else lines
    trials, torn, head = [], 0, ""
    for number, line in enumerate(lines, start=1):
        values = line_values(line)
        if values is None or "before" not in values:
            torn += 1
        elif values["before"] != head:
            raise _changed(path, number)
        else:
            trials.append(_trial(values, _sha256(line)))
        head = _sha256(line)
    return Ledger(tuple(trials), torn, head)


def beside(folder: Path | str, otherwise: Path | str) -> Path:
    """The root above `folder` that has a ledger, or else `otherwise`."""
    above = Path(folder).resolve()
    found = (root for root in (above, *above.parents) if place(root).is_file())
    return next(found, Path(otherwise))


def _line(trial: Trial, time: str, before: str) -> bytes:
    times = pd.DatetimeIndex(trial.returns.index).as_unit("us").asi8
    values = {
        "before": before,
        "time": time,
        "kind": trial.kind,
        "recipe": trial.recipe,
        "data": trial.data,
        "name": trial.name,
        "part": trial.part,
        "seed": trial.seed,
        "figures": dict(trial.figures),
        "cost": trial.cost,
        "span": trial.span,
        "bars": len(times),
        # microseconds between bars, and returns in float32: zlib of little-endian numbers, base64
        "times": _packed(np.diff(times, prepend=0), "<i8"),
        "returns": _packed(trial.returns.to_numpy(), "<f4"),
    }
    return json_bytes(values)


def _trial(values: dict[str, Any], digest: str) -> Trial:
    times = _unpacked(values["times"], "<i8").cumsum().astype("datetime64[us]")
    index = pd.DatetimeIndex(times).tz_localize("UTC").rename("time")
    returns = pd.Series(_unpacked(values["returns"], "<f4").astype("float64"), index)
    plain = ("kind", "recipe", "data", "name", "part", "seed", "figures", "cost", "span", "time")
    return Trial(**{name: values[name] for name in plain}, returns=returns, digest=digest)


def _packed(numbers: np.ndarray, kind: str) -> str:
    return base64.b64encode(zlib.compress(numbers.astype(kind).tobytes())).decode("ascii")


def _unpacked(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=kind)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _changed(path: Path, number: int) -> StoreError:
    return StoreError(
        f"line {number} of the trial ledger does not follow the line before it",
        code="SV-X523",
        where=str(path),
        why="a line was changed or taken out, so the number of trials is not known any more",
        cure="put the file back from a copy, or begin another root",
    )
