"""Certificates of leak audits, stored beside the models they vouch for."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import artifacts, recipe
from pipeline.files import json_bytes, write_atomic
from stages.audit.certificate import Certificate
from stages.base import ArtifactError

if TYPE_CHECKING:
    from pipeline.signal_pipeline import SignalPipeline

HOUSE = Path(__file__).parents[1]
CODE = (
    "stages/**/*.py",
    *(f"pipeline/{name}.py" for name in ("signal_pipeline", "signals", "learning", "e*")),
)
SHOWN = 12  # letters of a hash


def write_certificate(folder: Path | str, certificate: Certificate) -> Path:
    """Store it in the folder of a model or of a run, in place of an older one."""
    path = Path(folder) / artifacts.CERTIFICATE
    write_atomic(path, json_bytes(certificate.to_json(), indent=2))
    return path


def carry_certificate(old: Path | str, new: Path | str) -> None:
    """Put the certificate of a model beside its update: the configuration is the same."""
    found = artifacts.read_certificate(old)
    if found is not None and Path(old).resolve() != Path(new).resolve():
        write_certificate(new, found)


def standing(folder: Path | str, pipeline: "SignalPipeline") -> str:
    """One line on what the certificate beside a model says of it; a stale one says nothing."""
    try:
        found = artifacts.read_certificate(folder)
    except ArtifactError as error:
        return f"leak audit: not audited, for {error.what}"
    if found is None:
        return "leak audit: not audited (python -m pipeline.audit model=PATH)"
    if found.recipe != recipe_digest(pipeline):
        return "leak audit: not audited, the certificate is of another configuration"
    if found.code != code_digest():
        return f"leak audit: {found.verdict} {found.made[:10]} with other code, audit again"
    if found.verdict == "leak":
        return f"leak audit: LEAK FOUND {found.made[:10]} in {found.findings[0]}"
    return (
        f"leak audit: passed {found.made[:10]}, {len(found.times)} decision times, "
        f"certificate {found.hash[:SHOWN]}"
    )


def champion_of(root: Path | str, digest: str) -> list[Path]:
    """The folder of the champion of `root`, if it has the configuration with this digest."""
    if not (Path(root) / artifacts.CHAMPION).exists():
        return []
    folder = artifacts.champion(root)
    return [folder] if _digest(artifacts.read(folder).values["recipe"]) == digest else []


def recipe_digest(pipeline: Any) -> str:
    """SHA-256 of the configuration of a pipeline, fitted or not."""
    return _digest(recipe.describe(pipeline))


def code_digest() -> str:
    """SHA-256 of the code that computes: all of ``stages``, and the pipeline around it."""
    content = hashlib.sha256()
    for path in sorted({path for pattern in CODE for path in HOUSE.glob(pattern)}):
        content.update(path.relative_to(HOUSE).as_posix().encode())
        content.update(hashlib.sha256(path.read_bytes()).digest())
    return content.hexdigest()


def _digest(values: Any) -> str:
    return hashlib.sha256(json_bytes(values)).hexdigest()
