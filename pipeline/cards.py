"""A card of a stored model: roles, evaluation, audit, what it comes from, and what became of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import artifacts
from pipeline.pointer import history, read_pointer
from pipeline.registry import SHORT, lineage


@dataclass(frozen=True)
class Section:
    """A heading, a line below it, and a table, whose first row names the columns."""

    title: str
    text: str = ""
    rows: tuple[tuple[str, ...], ...] = ()


def card(root: Path | str, digest: str) -> tuple[str, list[Section]]:
    """Title and sections of the card of one model.

    Parameters
    ----------
    root : Path or str
    digest : str

    Raises
    ------
    ArtifactError
        SV-F29 if the model is not below `root`, or damaged.
    """
    folder = artifacts.find(root, digest)
    evaluation = artifacts.read(folder, digest).values["learned"]["evaluation_"]
    own, pointer = lineage(root, digest), read_pointer(root)
    roles = [role for role, d in pointer.roles() if d == digest] if pointer else []
    certificate = artifacts.read_certificate(folder)
    audited = "not audited" if certificate is None else f"{certificate.verdict}, {certificate.made}"
    known = {
        "model": digest,
        "made": own.made,
        "update of": ", ".join(a[:SHORT] for a in own.ancestors) or "none: it was trained",
        "data": ", ".join(d[:SHORT] for d in own.data if d),
        "configuration": own.config[:SHORT],
        "code": own.code[:SHORT],
        "command": own.command,
        "trials": ", ".join(f"{part} {t[:SHORT]}" for part, t in own.trials.items()),
    }
    changes = [
        (c.time[:16], c.action, c.why or "no reason given")
        for c in history(root)
        if c.champion == digest
    ]
    return f"Model {digest[:SHORT]}", [
        Section("Role", ", ".join(roles) or "none"),
        _evaluated(evaluation),
        Section("Leak audit", audited),
        Section(
            "Lineage",
            rows=(
                ("what", "which"),
                *((name, said or "not known") for name, said in known.items()),
            ),
        ),
        Section(
            "Changes while it was the champion",
            "" if changes else "none",
            (("time", "action", "why"), *changes) if changes else (),
        ),
    ]


def markdown(title: str, sections: list[Section]) -> str:
    """A card as Markdown."""
    lines = [f"# {title}"]
    for section in sections:
        lines += ["", f"## {section.title}"]
        if section.text:
            lines += ["", _escaped(section.text)]
        if section.rows:
            head, *rows = section.rows
            lines += ["", f"| {' | '.join(map(_escaped, head))} |", "|---" * len(head) + "|"]
            lines += [f"| {' | '.join(map(_escaped, row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    for sign in ("\\", "|", "`", "<", "*", "["):
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", " ")


def _evaluated(evaluation: Mapping[str, Any] | None) -> Section:
    if not evaluation:
        return Section("Evaluation", "none travels with it")
    begin, end = evaluation["span"]
    rows = [(name, *cells) for name, cells in evaluation["printed"].items()]
    text = f"{evaluation['part']}: {evaluation['rows']:,} unseen rows, {begin} to {end}"
    return Section("Evaluation", text, (("model", *evaluation["shown"]), *rows))
