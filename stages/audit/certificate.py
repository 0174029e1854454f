"""What an audit vouches for: which pipeline, on which bars, by which code, and what was found."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

from stages.audit.leak import LeakAudit, LeakReport


@dataclass(frozen=True)
class Certificate:
    """The verdict of one audit, and everything it depends on.

    Attributes
    ----------
    verdict : {'passed', 'leak'}
    recipe, data, code : str
        SHA-256 of the pipeline's configuration, of the bars and of the computing code.
    audit : mapping
        Settings of the audit, its seed among them.
    checked : mapping of str to int
        Comparisons by component.
    times : tuple of str
        Decision times, ISO, UTC.
    findings : tuple of str
        Component, column, asset and first bad time of each leak.
    remarks : tuple of str
        What could not be audited.
    made : str
        When, ISO, UTC; outside the hash, so that the same audit has the same hash.
    """

    verdict: Literal["passed", "leak"]
    recipe: str
    data: str
    code: str
    audit: Mapping[str, Any]
    checked: Mapping[str, int]
    times: tuple[str, ...]
    findings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    made: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.verdict not in ("passed", "leak") or (self.verdict == "leak") != bool(
            self.findings
        ):
            raise ValueError(f"a verdict of {self.verdict!r} with {len(self.findings)} findings")

    @classmethod
    def of(cls, report: LeakReport, audit: LeakAudit, made: str, **digests: str) -> "Certificate":
        """Certify a report; `digests` are ``recipe``, ``data`` and ``code``."""
        return cls(
            verdict="passed" if report.passed else "leak",
            audit=asdict(audit),
            checked=dict(report.checked),
            times=tuple(time.isoformat() for time in report.times),
            findings=tuple(
                f"{f.component} {f.column} {f.asset} {f.time.isoformat()}" for f in report.findings
            ),
            remarks=report.remarks,
            made=made,
            **digests,
        )

    @property
    def hash(self) -> str:
        """SHA-256 of all but `made`."""
        content = {name: value for name, value in asdict(self).items() if name != "made"}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain values, the hash among them."""
        return {**asdict(self), "hash": self.hash}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read back what `to_json` gave.

        Raises
        ------
        ValueError
            If the values do not follow the schema, or are not those that were hashed.
        """
        given = dict(values)
        told = given.pop("hash", None)
        if set(given) != {f.name for f in fields(cls)}:
            raise ValueError(f"a certificate does not hold {sorted(given)}")
        for name in ("times", "findings", "remarks"):
            given[name] = tuple(given[name])
        certificate = cls(**given)
        if certificate.hash != told:
            raise ValueError("the certificate is not what was hashed")
        return certificate
