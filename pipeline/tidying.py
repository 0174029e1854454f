"""What may go of a root: logs of old runs, and old models that nothing needs any more."""

import secrets
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline import artifacts
from pipeline.files import storing
from pipeline.pointer import history, read_pointer
from pipeline.registry import facts, models
from pipeline.tracking import RUN

GOING = ".removed"  # folder of the root for what is on its way out: nobody looks there


@dataclass(frozen=True)
class Tidy:
    """What may go.

    Attributes
    ----------
    runs : tuple of Path
        Folders of runs that trained nothing.
    models : tuple of Path
        Folders of models.
    bytes : int
        What both take on the disk.
    """

    runs: tuple[Path, ...]
    models: tuple[Path, ...]
    bytes: int


def old(root: Path, before: pd.Timestamp, needed: Iterable[str] = ()) -> Tidy:
    """What of a root is older than `before` and not needed.

    Runs that trained stay, as their records are what models are compared by. A model stays that
    has a role, had one after `before`, is an ancestor of one of these, is `needed`, or was made
    after `before`. Sweeps, books and the cache (which is bounded) are left alone.

    Parameters
    ----------
    root : Path
    before : Timestamp
        UTC.
    needed : iterable of str
        Digests of models whose signals wait for an outcome.
    """
    runs = [path for path in sorted(root.glob("runs/*/*")) if _is_over(path, before)]
    kept = _kept(root, before, set(needed))
    gone = [path for digest, path in models(root).items() if digest not in kept]
    gone = [path for path in gone if _made(path / artifacts.MANIFEST) < before]
    return Tidy(tuple(runs), tuple(gone), sum(map(_size, (*runs, *gone))))


def remove(root: Path, found: Tidy) -> None:
    """Take what may go off the disk; hold `pipeline.lock.lock` on the root.

    What an interrupted removal left is taken too.

    Raises
    ------
    StoreError
        SV-F34 if the disk refuses; a model is there whole or not at all.
    """
    outside = root / GOING
    with storing(outside):
        outside.mkdir(exist_ok=True)
        for number, path in enumerate((*found.models, *found.runs)):
            path.rename(outside / f"{number}-{secrets.token_hex(4)}")
        shutil.rmtree(outside)
    for day in {path.parent for path in found.runs}:
        if not any(day.iterdir()):
            day.rmdir()


def _is_over(path: Path, before: pd.Timestamp) -> bool:
    """Whether a folder is of a run that trained nothing, and nothing in it is newer."""
    if not path.is_dir() or path.is_symlink() or (path / RUN).exists():
        return False
    return all(_made(inner) < before for inner in (path, *path.rglob("*")))


def _kept(root: Path, before: pd.Timestamp, needed: set[str]) -> set[str]:
    """Models with a role now or since `before`, needed ones, and the ancestors of all."""
    kept, now = set(needed), read_pointer(root)
    changes = [*history(root), *([now] if now else [])]
    recent = [c for c in changes if not c.time or pd.Timestamp(c.time) >= before]
    for change in {*recent, *changes[-1:]}:
        kept |= {digest for _, digest in change.roles()}
    known, new = models(root), set(kept)
    while new:
        parents = {str(facts(known[digest]).get("parent", "")) for digest in new & known.keys()}
        new = parents - kept
        kept |= new
    return kept


def _made(path: Path) -> pd.Timestamp:
    return pd.Timestamp(path.lstat().st_mtime, unit="s", tz="UTC")


def _size(path: Path) -> int:
    return sum(inner.lstat().st_size for inner in path.rglob("*") if inner.is_file())
