"""Train again when it is time, or when the market has moved: beside all that serves."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import artifacts, registry
from pipeline.lock import lock
from pipeline.pointer import Pointer
from pipeline.registry import SHORT
from pipeline.watching import Watched
from stages.base import ArtifactError, SieveError
from stages.online.drift import ACTIONS

PATIENT = 15  # niceness: what serves goes first
# set here, or unwanted
OWN = ("promote", "json", "root", "debug", "predictions", "split", "hydra.")


@dataclass(frozen=True)
class Due:
    """Whether to train again, and with which words.

    Attributes
    ----------
    due : bool
    why : str
    words : tuple of str
        Of ``python -m pipeline.train``.
    """

    due: bool
    why: str
    words: tuple[str, ...]


def due(found: Watched, every: int, drift: bool = True, words: Sequence[str] = ()) -> Due:
    """Whether the champion of a root is due for a new training.

    Parameters
    ----------
    found : Watched
    every : int
        Settled bars after which its line is trained anew; 0 is never.
    drift : bool, default=True
        Whether an alarm that asks for a new training, or for more, is reason enough.
    words : sequence of str, optional
        Settings that the new training has beside those of the first, which a run has recorded.

    Raises
    ------
    ArtifactError
        SV-X413 when no run says how the champion was trained.
    """
    model = found.standing.models["champion"]
    told = shlex.split(model.lineage.command)
    if "pipeline.train" not in told:
        raise ArtifactError(
            f"nothing says how the champion {model.digest[:SHORT]} was trained",
            code="SV-X413",
            where="runs/*/run.json",
            why="its run was moved away, or it was trained elsewhere",
            cure="python -m pipeline.train promote=false, then pipeline.promote to=challenger",
        )
    old = [w for w in told[told.index("pipeline.train") + 1 :] if not w.startswith(OWN)]
    mine = (*old, *words)
    settled = len(found.drift.bars)
    strong = ACTIONS.index(found.drift.action) >= ACTIONS.index("retrain")
    beside = found.standing.models.get("challenger")
    if beside is not None and beside.lineage.first != model.lineage.first:
        return Due(False, "a challenger is in the shadow already", mine)
    if drift and strong:
        return Due(True, f"drift: {found.drift.text}", mine)
    if every and settled >= every:
        return Due(True, f"{settled} bars have settled since the training, of {every}", mine)
    left = f", in {every - settled} bars by the clock" if every else ""
    return Due(False, f"no alarm asks for it{left}", mine)


def retrain(root: Path | str, asked: Due) -> Pointer:
    """Train in a process of low priority, and let the new model speak in the shadow.

    Nothing waits for it: `root` is locked only while the model is stored, as in any training.

    Parameters
    ----------
    root : Path or str
    asked : Due

    Raises
    ------
    SieveError
        SV-X414 if the training failed; the champion stays.
    """
    words = [*asked.words, f"root={root}", "promote=false", "json=true"]
    command = [sys.executable, "-m", "pipeline.train", *words]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, preexec_fn=lambda: os.nice(PATIENT)
    )
    if done.returncode:
        raise SieveError(
            f"the new training ended with {done.returncode}",
            code="SV-X414",
            where=f"python -m pipeline.train {shlex.join(words)}",
            why=done.stderr.strip()[-500:],
            cure="run that command by itself, or say what to change: words=[key=value]",
        )
    folder = Path(json.loads(done.stdout.strip().splitlines()[-1])["model"])
    digest = artifacts.read(folder).digest
    with lock(root, wait=60):
        if digest == registry.serving(root).champion:
            return registry.serving(root)  # the same bars and settings give the same model
        return registry.challenge(root, digest, f"trained again: {asked.why}"[:300])
