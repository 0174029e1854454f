"""One folder per model: written whole or not at all, and no byte reaches a loader unverified."""

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.files import json_bytes, storing, sync, write_synced
from pipeline.pointer import POINTER, move, promoted, read_pointer
from pipeline.versions import check_versions, versions
from stages.base import ArtifactError

if TYPE_CHECKING:
    from stages.audit.certificate import Certificate

SCHEMA_VERSION = 1
MANIFEST, VALUES = "manifest.json", "values.json"
SEAL = "manifest.sha256"  # as sha256sum writes it: a flipped bit of the manifest shows
FACTS = "facts.json"
CERTIFICATE = "certificate.json"  # of a leak audit: it may come later, and be renewed
BESIDE = {MANIFEST, SEAL, FACTS, CERTIFICATE}  # what the manifest does not list
CHAMPION = POINTER
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")  # what a part may be called
DIGEST = re.compile(r"[0-9a-f]{64}")
MANIFEST_LIMIT = 1 << 20  # bytes
PART_LIMIT = 1 << 30  # bytes


@dataclass(frozen=True)
class Artifact:
    """The verified content of an artifact.

    Attributes
    ----------
    values : mapping
        JSON values: the recipe and what the stages learnt.
    parts : mapping of str to bytes
        The very buffers that were hashed; hand these to the loaders, not the files.
    libraries : mapping of str to str
        Versions the model was trained with.
    digest : str
        SHA-256 of the manifest.
    """

    values: Mapping[str, Any]
    parts: Mapping[str, bytes]
    libraries: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""


def write(
    folder: Path | str,
    values: Mapping[str, Any],
    parts: Mapping[str, bytes],
    facts: Mapping[str, Any] | None = None,
) -> str:
    """Store an artifact as `folder`, or leave nothing there.

    Parameters
    ----------
    folder : Path or str
        Must not exist, or hold this very artifact already.
    values : mapping
        JSON values; NaN and infinities are refused. Key order is kept and counts.
    parts : mapping of str to bytes
        File name, lower case, to content.
    facts : mapping, optional
        Times and machine: kept beside the content, outside the digest.

    Returns
    -------
    str
        SHA-256 of the manifest: a function of `values`, `parts` and library versions only.

    Raises
    ------
    ValueError
        For a part that may not be called so.
    StoreError
        SV-F34 if the disk refuses, or `folder` holds something else.
    """
    folder = Path(folder)
    content, manifest = _packed(values, parts)
    digest = _sha256(manifest)
    with storing(folder):
        if folder.exists() and any(folder.iterdir()):
            if _digest_in(folder) == digest:
                return digest
            raise FileExistsError("the folder is taken by something else")
        beside = {SEAL: _seal(digest), FACTS: json_bytes(dict(facts or {}), indent=2)}
        _write_folder(folder, {**content, MANIFEST: manifest, **beside})
    return digest


def digest_of(values: Mapping[str, Any], parts: Mapping[str, bytes]) -> str:
    """The digest that `write` would return, without writing."""
    return _sha256(_packed(values, parts)[1])


def read(folder: Path | str, digest: str | None = None) -> Artifact:
    """Return the content of an artifact after checking every byte of it.

    Each file is opened once, without following links, read into memory, hashed there, and that
    buffer is returned, so that nothing can change between check and use.

    Parameters
    ----------
    folder : Path or str
    digest : str, optional
        What the manifest must hash to.

    Raises
    ------
    ArtifactError
        SV-X410 where there is no model; SV-F29 for anything missing, added, changed or of another
        kind than a plain file; SV-F35 for a library of another major version.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).exists() and not (folder / SEAL).exists():
        raise _no_model(folder)
    manifest = _read_file(folder, MANIFEST, MANIFEST_LIMIT)
    found = _sha256(manifest)
    if _read_file(folder, SEAL, MANIFEST_LIMIT) != _seal(found):
        raise _damaged(folder, f"{MANIFEST} is not what {SEAL} says")
    if digest is not None and found != digest:
        raise _damaged(folder, f"the manifest hashes to {found[:12]}, not {digest[:12]}")
    listed, libraries = _parse_manifest(folder, manifest)
    _check_file_set(folder, listed)
    content = {}
    for name, (size, sha256) in listed.items():
        content[name] = _read_file(folder, name, size)
        if len(content[name]) != size or _sha256(content[name]) != sha256:
            raise _damaged(folder, f"{name} is not what was written")
    values = _parse(folder, VALUES, content.pop(VALUES))
    check_versions(libraries, str(folder))
    return Artifact(values, content, libraries, found)


def promote(root: Path | str, digest: str, why: str = "", bar: str = "") -> None:
    """Make the artifact with this digest the champion of `root`, at once and for all readers.

    What served before is the previous champion from then on. `why` and the newest `bar` of the
    time go into the history.

    Raises
    ------
    ArtifactError
        SV-F29 if no intact artifact below `root` has the digest, SV-X412 if its certificate says
        that it leaks; the old champion stays.
    """
    refuse_unfit(root, digest)
    move(root, promoted(read_pointer(root), digest, bar), why)


def refuse_unfit(root: Path | str, digest: str) -> Path:
    """Folder of the artifact with this digest, if it may serve; whatever else opens, a leak shuts.

    Raises
    ------
    ArtifactError
        SV-F29 if it, or its certificate, is not intact; SV-X412 if a leak was found in it.
    """
    folder = find(root, digest)
    read(folder, digest)
    certificate = read_certificate(folder)
    if certificate is not None and certificate.verdict == "leak":
        raise ArtifactError(
            f"the model {digest[:16]} may not serve, closed: leak audit",
            code="SV-X412",
            where=f"{CERTIFICATE}: {'; '.join(map(str, certificate.findings))[:200]}",
            why="what it earned in the past rests on what nobody could know then",
            cure="take the leak out, train again, and audit: python -m pipeline.audit model=PATH",
        )
    return folder


def read_certificate(folder: Path | str) -> "Certificate | None":
    """The certificate beside a model; None where there is none.

    Raises
    ------
    ArtifactError
        SV-F29 if it is not what was written.
    """
    from stages.audit.certificate import Certificate

    path = Path(folder) / CERTIFICATE
    try:
        return Certificate.from_json(json.loads(path.read_text(encoding="ascii")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{CERTIFICATE} is not what was written",
            code="SV-F29",
            where=str(path),
            why="a changed certificate vouches for nothing",
            cure="audit the model again: python -m pipeline.audit model=PATH",
        ) from error


def champion(root: Path | str) -> Path:
    """Folder of the artifact that `promote` chose.

    Raises
    ------
    ArtifactError
        SV-X410 if there is none yet; SV-F29 if the pointer is not what was written.
    """
    pointer = read_pointer(root)
    if pointer is None:
        raise ArtifactError(
            "there is no champion model",
            code="SV-X410",
            where=str(root),
            why="nothing was trained here yet, or root names another folder",
            cure="run python -m pipeline.train first, or name a model with model=PATH",
        )
    return find(root, pointer.champion)


def find(root: Path | str, digest: str) -> Path:
    """Folder below `root` whose manifest hashes to `digest`; not yet verified further."""
    root = Path(root)
    if not DIGEST.fullmatch(digest):
        raise _damaged(root, f"{digest[:80]!r} is no digest, so it names no model")
    for pattern in (f"models/{digest[:16]}*", "models/*", "**"):  # the usual places first
        for path in sorted(root.glob(f"{pattern}/{MANIFEST}")):
            if _digest_in(path.parent) == digest:
                return path.parent
    raise ArtifactError(
        f"no artifact has the digest {digest[:12]}",
        code="SV-F29",
        where=str(root),
        why="its folder was moved or removed",
        cure="train again, or name another model with model=PATH",
    )


def _packed(
    values: Mapping[str, Any], parts: Mapping[str, bytes]
) -> tuple[dict[str, bytes], bytes]:
    """Content by file name, and the manifest over it."""
    for name in parts:
        if not NAME.fullmatch(name) or name in BESIDE | {VALUES}:
            raise ValueError(f"a part may not be called {name!r}; allowed is {NAME.pattern}")
    content = {VALUES: json_bytes(values), **{name: bytes(parts[name]) for name in sorted(parts)}}
    files = {n: {"size": len(data), "sha256": _sha256(data)} for n, data in content.items()}
    head = {"schema_version": SCHEMA_VERSION, "libraries": versions(), "files": files}
    return content, json_bytes(head)


def _write_folder(folder: Path, content: Mapping[str, bytes]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}")
    try:
        temporary.mkdir()
        for name, data in content.items():
            write_synced(temporary / name, data)
        sync(temporary)
        os.replace(temporary, folder)  # onto nothing, or onto an empty folder
        sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _digest_in(folder: Path) -> str | None:
    try:
        return _sha256(_read_file(folder, MANIFEST, MANIFEST_LIMIT))
    except ArtifactError:
        return None


def _read_file(folder: Path, name: str, limit: int) -> bytes:
    """Content of a plain file; a link, a device, a pipe or too large a file is refused unread."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        with open(os.open(folder / name, flags), "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
                raise _damaged(folder, f"{name} is no plain file, or has a second name")
            if facts.st_size > limit:
                raise _damaged(folder, f"{name} has {facts.st_size} bytes, allowed {limit}")
            return file.read(limit + 1)
    except OSError as error:
        raise _damaged(folder, f"{name} cannot be read: {error.strerror}") from error


def _parse(folder: Path, name: str, data: bytes) -> dict[str, Any]:
    """Values of a JSON object in the one spelling that `write` uses."""
    try:
        values = json.loads(data.decode("ascii"))
        canonical = json_bytes(values) == data  # no NaN, no key twice, no stray blank
    except (ValueError, RecursionError) as error:
        raise _damaged(folder, f"{name} is not JSON as it was written") from error
    if not canonical or not isinstance(values, dict):
        raise _damaged(folder, f"{name} is not JSON as it was written")
    return values


def _parse_manifest(folder: Path, data: bytes) -> tuple[dict[str, tuple[int, str]], dict[str, str]]:
    manifest = _parse(folder, MANIFEST, data)
    schema = manifest.get("schema_version")
    if schema != SCHEMA_VERSION:
        raise _damaged(folder, f"schema_version is {schema!r}, this version reads {SCHEMA_VERSION}")
    files, libraries = manifest.get("files"), manifest.get("libraries")
    sound = (
        set(manifest) == {"schema_version", "libraries", "files"}
        and isinstance(files, dict)
        and VALUES in files
        and all(NAME.fullmatch(name) and _is_entry(entry) for name, entry in files.items())
        and not BESIDE & set(files)
        and isinstance(libraries, dict)
        and all(isinstance(version, str) for version in libraries.values())
    )
    if not (sound and files and isinstance(libraries, dict)):
        raise _damaged(folder, "the manifest does not follow schemas/artifact-v1.json")
    return {name: (entry["size"], entry["sha256"]) for name, entry in files.items()}, libraries


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and set(entry) == {"size", "sha256"}
        and type(entry["size"]) is int
        and 0 <= entry["size"] <= PART_LIMIT
        and isinstance(entry["sha256"], str)
        and DIGEST.fullmatch(entry["sha256"]) is not None
    )


def _check_file_set(folder: Path, listed: Mapping[str, Any]) -> None:
    try:
        present = set(os.listdir(folder)) - BESIDE
    except OSError as error:
        raise _damaged(folder, f"the folder cannot be read: {error.strerror}") from error
    if present != set(listed):
        missing, added = sorted(set(listed) - present), sorted(present - set(listed))
        raise _damaged(folder, f"files missing: {missing[:5]}, not in the manifest: {added[:5]}")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _seal(digest: str) -> bytes:
    return f"{digest}  {MANIFEST}\n".encode("ascii")


def _no_model(folder: Path) -> ArtifactError:
    is_root = (folder / CHAMPION).is_file()
    return ArtifactError(
        f"there is no model at {folder}",
        code="SV-X410",
        where=f"no {MANIFEST} in it" if folder.is_dir() else "no such folder",
        cure=f"root={folder} takes the champion of this root"
        if is_root
        else "name a folder of a model, such as sieve_runs/models/NAME, or leave `model` out",
    )


def _damaged(folder: Path, what: str) -> ArtifactError:
    return ArtifactError(
        what[:300],
        code="SV-F29",
        where=str(folder),
        why="a damaged model can crash its loader or predict something else without a word",
        cure="copy the artifact again from where it was trained, or train again",
    )
