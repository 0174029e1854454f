"""Leave beside every run what repeats it and what came of it, as plain files."""

import json
import math
import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from pipeline.files import json_bytes, storing, write_atomic
from pipeline.versions import versions
from stages.base import StoreError

ARTIFACT = "artifact"
CONFIG, METRICS, COMMAND, RUN, ERROR = (
    "config.yaml",
    "metrics.json",
    "command.txt",
    "run.json",
    "error.json",
)


def record_run(
    folder: Path | str,
    cfg: DictConfig | Mapping[str, Any],
    metrics: Mapping[str, Any],
    digest: str,
    data_digest: str,
    command: Sequence[str],
    trials: Mapping[str, str] | None = None,
) -> None:
    """Write ``config.yaml``, ``metrics.json``, ``command.txt`` and ``run.json`` into `folder`.

    Parameters
    ----------
    folder : Path or str
        The run's own folder.
    cfg : DictConfig or mapping
        Stored with every interpolation resolved.
    metrics : mapping
        Nested numbers, or objects whose ``metrics()`` gives them; NaN is stored as null.
    digest, data_digest : str
        Of the artifact and of the bars it learnt from.
    command : sequence of str
        The words that repeat the run.
    trials : mapping of str to str, optional
        Part evaluated to the digest of its line in the trial ledger.

    Raises
    ------
    StoreError
        SV-F34 if the disk refuses.
    """
    folder = Path(folder)
    cfg = cfg if isinstance(cfg, DictConfig) else OmegaConf.create(dict(cfg))
    run = {
        "artifact": digest,
        "data": data_digest,
        "seed": cfg.get("seed"),
        "command": shlex.join(command),
        "trials": dict(trials or {}),
        "commit": git_commit(),
        "libraries": versions(),
    }
    write_atomic(folder / CONFIG, OmegaConf.to_yaml(cfg, resolve=True).encode())
    write_atomic(folder / METRICS, json_bytes(_plain(metrics), indent=2))
    write_atomic(folder / COMMAND, f"{shlex.join(command)}\n".encode())
    write_atomic(folder / RUN, json_bytes(_plain(run), indent=2))  # last: it marks a whole record


def link_artifact(folder: Path | str, model: Path | str) -> None:
    """Put the artifact of a run into its folder, as a relative link named ``artifact``.

    Artifacts lie by their digest, so that a model made twice is stored once.

    Raises
    ------
    StoreError
        SV-F34 if the disk refuses.
    """
    link = Path(folder).resolve() / ARTIFACT
    with storing(link):
        link.symlink_to(os.path.relpath(Path(model).resolve(), link.parent))


def read_runs(folder: Path | str) -> pd.DataFrame:
    """Every run recorded below `folder`, one row each, by path.

    Returns
    -------
    DataFrame
        Index `run` (path below `folder`). Columns: those of ``run.json``, settings in which the
        runs differ (``config.seed`` …), figures (``metrics.…``), and ``error`` with the code and
        text of a job that failed.

    Raises
    ------
    StoreError
        SV-X522 for a run whose files cannot be read.
    """
    folder = Path(folder)
    found = sorted({path.parent for name in (RUN, ERROR) for path in folder.rglob(name)})
    rows = {str(path.relative_to(folder)): _whole_run(path) for path in found}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("run")
    same = [
        name
        for name in table.columns
        if name.startswith("config.") and table[name].astype(str).nunique() < 2
    ]
    return table.drop(columns=same)


def figures(folder: Path | str) -> dict[str, float]:
    """All numbers of the ``metrics.json`` of a run, by key."""
    metrics = json.loads((Path(folder) / METRICS).read_text(encoding="utf-8"))
    found = dict(_flat(metrics))
    numbers = {k: v for k, v in found.items() if isinstance(v, int | float)}
    return {key: float(value) for key, value in numbers.items() if not isinstance(value, bool)}


def settings(folder: Path | str) -> dict[str, Any]:
    """All settings of the ``config.yaml`` of a run, by key."""
    return dict(_flat(OmegaConf.to_container(OmegaConf.load(Path(folder) / CONFIG))))  # type: ignore[arg-type]


def git_commit(folder: Path | str | None = None) -> str | None:
    """Commit checked out where the code lies, with ``+changes`` if files differ from it.

    None outside a repository, and where git is not installed.
    """
    place = Path(folder) if folder is not None else Path(__file__).parent
    try:
        commit = _git(place, "rev-parse", "HEAD")
        changed = _git(place, "status", "--porcelain", "--untracked-files=no", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+changes" if changed else commit


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()


def _whole_run(folder: Path) -> dict[str, Any]:
    try:
        return _read_run(folder)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, YAMLError) as error:
        raise StoreError(
            f"the record of the run {folder.name} cannot be read: {str(error)[:100]}",
            code="SV-X522",
            where=str(folder),
            why="it was cut short, or edited",
            cure=f"move {folder} away, or repeat the run with the command in its {COMMAND}",
        ) from error


def _read_run(folder: Path) -> dict[str, Any]:
    if not (folder / RUN).is_file():
        failed = json.loads((folder / ERROR).read_text(encoding="utf-8"))
        return {"error": f"{failed['code']}  {failed['what']}"}
    run = json.loads((folder / RUN).read_text(encoding="utf-8"))
    run.pop("libraries", None)
    config = OmegaConf.to_container(OmegaConf.load(folder / CONFIG))
    metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    trials = run.pop("trials", {})
    return run | dict(_flat({"config": config, "trials": trials, "metrics": metrics}))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _plain(value: Any) -> Any:
    """JSON values of nested figures: numpy's numbers become Python's, NaN becomes null."""
    if callable(getattr(value, "metrics", None)):
        return _plain(value.metrics())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    return str(value)
