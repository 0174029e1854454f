"""What an audit prints: the guilty part first, what was compared, and what could not be."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.report.terminal import console, relative, say, show_json, table_of
from stages.audit.certificate import Certificate
from stages.audit.examine import Finding
from stages.audit.leak import LeakReport
from stages.base import LeakError

LABELS = ("labels", "folds", "split", "training labels")
INPUTS = ("bars", "features", "rules", "context", "readiness", "stake")
MEMORY = ("memory", "explanation", "update")
ROWS = 20  # findings shown
WHY = {
    "SV-F22": "an input of the model depends on bars that come after its row",
    "SV-F25": "a label is used, or counted as known, before it is settled",
    "SV-F26": "what is reported as unseen had a part in what was learnt or chosen",
    "SV-F27": "an explanation or a memory holds what came after the decision",
}
CURES = {
    "SV-F22": "make the column from bars up to its own row; fit what is fitted on training rows",
    "SV-F25": "purge by the end of the label, and keep the embargo at the horizon or above",
    "SV-F26": "fit, tune and calibrate on rows before the block, and report what was said then",
    "SV-F27": "choose references and rows to remember from what was known at the decision",
}


def show_leaks(
    report: LeakReport,
    certificate: Certificate,
    path: Path,
    seconds: float,
    survivors: bool = False,
    as_json: bool = False,
) -> None:
    """The findings in the order in which information flows, or that there are none."""
    remarks = [*report.remarks]
    if survivors:
        remarks.append("the assets were chosen knowing that they lasted: no audit of bars sees it")
    if as_json:
        show_json(_values(report, certificate, path, seconds) | {"remarks": remarks})
        return
    if report.findings:
        table = table_of("leaks: the first line is the guilty part, the others may follow from it")
        for name in ("part", "column", "asset", "first bad time", "future"):
            table.add_column(name, overflow="fold")
        for name in ("bars ahead", "rows", "value", "with another future"):
            table.add_column(name, justify="right", overflow="fold")
        for place, finding in enumerate(report.findings[:ROWS]):
            table.add_row(*_cells(finding), style="bold red" if place == 0 else None)
        console.print(table)
        if len(report.findings) > ROWS:
            console.print(f"and {len(report.findings) - ROWS} more: json=true shows all")
    checked = ", ".join(f"{name} {count}" for name, count in report.checked.items())
    console.print(f"comparisons: {checked}", highlight=False)
    for null in report.nulls:
        console.print(
            f"direction {null.name}: {null.direction:+.3f} ± {2 * null.error:.3f} "
            f"({null.rows:,} unseen rows of a probe; no part of the verdict)",
            style="dim",
            highlight=False,
        )
    for remark in remarks:
        console.print(f"not audited: {remark}", style="italic", highlight=False)
    found = len(report.findings)
    verdict = "passed" if report.passed else f"LEAK FOUND, {found} column{'s' * (found > 1)}"
    console.print(
        f"leak audit: {verdict}, {len(report.times)} decision times, {seconds:.0f} s, "
        f"certificate {certificate.hash[:12]}",
        style="bold green" if report.passed else "bold red",
        highlight=False,
    )
    say(f"certificate {relative(path)}")


def leak_error(report: LeakReport, path: Path) -> LeakError:
    """The error that a command with a finding ends with."""
    first = report.findings[0]
    code = code_of(first.component)
    return LeakError(
        f"{first.component}: {first.column} of {first.asset} at {first.time} knows the future",
        code=code,
        where=f"{len(report.findings)} columns in all; {relative(path)}",
        why=WHY[code],
        cure=CURES[code],
    )


def code_of(component: str) -> str:
    """The fault code of a leak in this part."""
    if component in INPUTS:
        return "SV-F22"
    if component in LABELS:
        return "SV-F25"
    return "SV-F27" if component in MEMORY else "SV-F26"


def _cells(finding: Finding) -> list[str]:
    return [
        finding.component,
        finding.column,
        finding.asset,
        f"{finding.time:%Y-%m-%d %H:%M}",
        f"{finding.future} after {finding.decision:%Y-%m-%d}",
        str(finding.ahead),
        f"{finding.rows:,}",
        finding.here[:24],
        finding.there[:24],
    ]


def _values(
    report: LeakReport, certificate: Certificate, path: Path, seconds: float
) -> dict[str, Any]:
    findings = [asdict(f) for f in report.findings]
    for values in findings:
        values |= {name: values[name].isoformat() for name in ("time", "decision")}
    return {
        "verdict": certificate.verdict,
        "findings": findings,
        "checked": dict(report.checked),
        "times": [time.isoformat() for time in report.times],
        "nulls": [asdict(null) for null in report.nulls],
        "certificate": certificate.hash,
        "path": str(path),
        "seconds": round(seconds, 1),
    }
