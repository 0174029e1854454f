"""The models of a root: who serves, who may follow, and what each one comes from."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline import artifacts
from pipeline.files import json_bytes
from pipeline.pointer import Pointer, history, move, promoted, read_pointer
from pipeline.tracking import RUN
from stages.base import ArtifactError, ConfigError

ROLES = ("champion", "challenger", "previous")
SHORT = 16  # letters of a digest that people see, and folders are named by
BRANCH = "branch"  # the fact that a model left the line of its parent
LONGEST = 10_000  # updates in a row: a longer line of parents goes in a circle


@dataclass(frozen=True)
class Lineage:
    """What a model comes from.

    Attributes
    ----------
    model : str
        Its digest.
    ancestors : tuple of str
        Digests of the models it is an update of, the nearest first.
    data : tuple of str
        Digests of the bars that it and its ancestors learnt from, its own first.
    config : str
        Digest of the recipe.
    code : str
        Commit, or the digest of the code that was audited; empty where neither is known.
    command : str
        What repeats the first training; empty where no run recorded it.
    trials : mapping of str to str
        Part evaluated to the digest of its line in the trial ledger.
    made : str
        UTC, ISO format.
    branch : str
        Digest of the nearest of itself and its ancestors that left the line it comes from, see
        `pipeline.succession`; empty where none did.
    """

    model: str
    ancestors: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    config: str = ""
    code: str = ""
    command: str = ""
    trials: Mapping[str, str] = field(default_factory=dict)
    made: str = ""
    branch: str = ""

    @property
    def line(self) -> str:
        """Digest of the model that its line began with: the branch, or else the first."""
        return self.branch or self.first

    @property
    def first(self) -> str:
        """Digest of the model that was trained, of which this one is an update, or itself."""
        return self.ancestors[-1] if self.ancestors else self.model

    @property
    def known(self) -> bool:
        """Whether data, configuration and code are all named."""
        return bool(self.data and all(self.data) and self.config and self.code)


def serving(root: Path | str) -> Pointer:
    """The pointer of `root`.

    Raises
    ------
    ArtifactError
        SV-X410 without a champion.
    """
    artifacts.champion(root)  # says what to do where there is none
    found = read_pointer(root)
    if found is None:  # taken away since
        raise _nobody(root, "there is no champion")
    return found


def challenge(root: Path | str, digest: str, why: str = "") -> Pointer:
    """Let the model with this digest speak in the shadow of the champion of `root`.

    Raises
    ------
    ArtifactError
        SV-F29 if no intact artifact has it; SV-X410 without a champion.
    ConfigError
        SV-F33 for the champion itself.
    """
    now = serving(root)
    artifacts.read(artifacts.find(root, digest), digest)
    if digest == now.champion:
        raise ConfigError(
            f"{digest[:SHORT]} is the champion already",
            code="SV-F33",
            where=str(root),
            cure="name another model",
        )
    return move(root, replace(now, challenger=digest, action="challenge"), why)


def withdraw(root: Path | str, why: str = "") -> Pointer:
    """Take the challenger of `root` out of the race."""
    return move(root, replace(serving(root), challenger=None, action="withdraw"), why)


def promote(root: Path | str, digest: str, why: str = "", bar: str = "") -> Pointer:
    """Make this model the champion; see `pipeline.artifacts.promote`."""
    artifacts.promote(root, digest, why, bar)
    return serving(root)


def advance(root: Path | str, digest: str, why: str = "") -> Pointer:
    """Put a champion's own update in its place; the previous champion stays the previous one.

    Raises
    ------
    ArtifactError
        SV-F29 if no intact artifact has the digest; SV-X412 if a leak was found in it; SV-X410
        without a champion.
    """
    now = serving(root)
    artifacts.refuse_unfit(root, digest)
    return move(root, replace(now, champion=digest, action="advance"), why)


def roll_back(root: Path | str, why: str = "", bar: str = "", to: str | None = None) -> Pointer:
    """Give the place back to a former champion of `root`, at once and for all readers.

    Parameters
    ----------
    root : Path or str
    why : str
    bar : str
        Newest bar, see `Pointer`.
    to : str, optional
        Digest of any model that was the champion once, such as the one before a bad update;
        default the previous champion.

    Raises
    ------
    ArtifactError
        SV-F29 if that model is not intact, SV-X412 if a leak was found in it: the present champion
        stays; SV-X411 if there is none.
    """
    now = serving(root)
    to = to or now.previous
    if to is None or to not in {change.champion for change in history(root)}:
        raise ArtifactError(
            f"{to[:SHORT]} was never the champion"
            if to
            else "there is no previous champion to roll back to",
            code="SV-X411",
            where=str(root),
            why="only what has served can be gone back to without evidence",
            cure="to=DIGEST names a former champion; python -m pipeline.promote tries a new one",
        )
    artifacts.refuse_unfit(root, to)
    return move(root, replace(promoted(now, to, bar), action="roll back"), why)


def digest_at(root: Path | str, name: str) -> str:
    """Digest of the model that `name` means: a role, a folder, or the beginning of a digest.

    Raises
    ------
    ArtifactError
        SV-X410 where there is no such model.
    """
    if name in ROLES:
        digest = getattr(serving(root), name)
        if digest is None:
            raise _nobody(root, f"there is no {name}")
        return str(digest)
    folder = Path(name)
    if (folder / artifacts.MANIFEST).is_file():
        return artifacts.read(folder).digest
    found = [d for d in models(root) if d.startswith(name)] if len(name) >= 4 else []
    if len(found) != 1:
        raise _nobody(root, f"{name} names {len(found)} models")
    return found[0]


def models(root: Path | str) -> dict[str, Path]:
    """Folder of every model of `root`, by digest; not yet verified."""
    found = {}
    for path in sorted(Path(root).glob(f"models/*/{artifacts.SEAL}")):
        digest = path.read_text(encoding="ascii", errors="replace").split()[:1]
        if digest and artifacts.DIGEST.fullmatch(digest[0]):
            found[digest[0]] = path.parent
    return found


def facts(folder: Path | str) -> dict[str, Any]:
    """What was noted beside a model when it was made; empty where that is not readable."""
    try:
        values = json.loads((Path(folder) / artifacts.FACTS).read_text(encoding="ascii"))
    except (OSError, ValueError):  # a sidecar: nothing rests on it but the lineage
        return {}
    return values if isinstance(values, dict) else {}


def config_of(folder: Path | str) -> str:
    """Digest of the recipe of a stored model, as a leak audit certifies it."""
    return hashlib.sha256(json_bytes(artifacts.read(folder).values["recipe"])).hexdigest()


def lineage(root: Path | str, digest: str) -> Lineage:
    """What the model with this digest comes from, as far as `root` knows.

    Raises
    ------
    ArtifactError
        SV-F29 if it is not below `root`.
    """
    folder = artifacts.find(root, digest)
    own, known = facts(folder), models(root)
    ancestors: list[str] = []
    data, at, branch = [str(own.get("data", ""))], own, digest if own.get(BRANCH) else ""
    while (parent := at.get("parent")) and parent != digest and len(ancestors) < LONGEST:
        ancestors.append(str(parent))
        if parent not in known:
            break
        at = facts(known[parent])
        branch = branch or (str(parent) if at.get(BRANCH) else "")
        data.append(str(at.get("data", "")))
    first = ancestors[-1] if ancestors else digest
    run = _run(root, first)
    certificate = artifacts.read_certificate(folder)
    code = run.get("commit") or (certificate.code if certificate else "")
    return Lineage(
        digest,
        tuple(ancestors),
        tuple(data),
        config_of(folder),
        str(code or ""),
        str(run.get("command", "")),
        dict(run.get("trials", {})),
        str(own.get("made", "")),
        branch,
    )


def entries(root: Path | str) -> pd.DataFrame:
    """Every model of `root`, the newest first: roles, when and from what it was made.

    Returns
    -------
    DataFrame
        Index `model` (digest). Columns `role` (empty for most), `made`, `parent`, `data`.
    """
    pointer = read_pointer(root)
    roles: dict[str, list[str]] = {}
    for role, digest in pointer.roles() if pointer else ():
        roles.setdefault(digest, []).append(role)
    rows = {}
    for digest, folder in models(root).items():
        own = facts(folder)
        said = {name: str(own.get(name, "")) for name in ("made", "parent", "data")}
        rows[digest] = {"role": ", ".join(roles.get(digest, [])), **said}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["role", "made", "parent", "data"])
    return table.rename_axis("model").sort_values("made", ascending=False, kind="stable")


def _run(root: Path | str, digest: str) -> dict[str, Any]:
    """The record of the run that trained this model; empty where there is none."""
    for path in sorted(Path(root).glob(f"*/**/{RUN}")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # another run's: `read_runs` says so
            continue
        if isinstance(values, dict) and values.get("artifact") == digest:
            return values
    return {}


def _nobody(root: Path | str, what: str) -> ArtifactError:
    return ArtifactError(
        what,
        code="SV-X410",
        where=str(root),
        cure=f"name one of {', '.join(ROLES)}, a folder, or more of a digest",
    )
