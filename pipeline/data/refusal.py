"""What a refused row is told: the fault, why it matters, and the change that cures it."""

import numpy as np

from pipeline.data.quality import EXAMPLES, Findings, QualityReport
from stages.base import DataError

ASIDE = "or set data.on_bad=quarantine"
# code: what was found, why it matters, what cures it
FAULTS: dict[str, tuple[str, str, str]] = {
    "SV-F02": (
        "two different rows of one asset and time",
        "nothing says which of the two was known first",
        f"remove one of the rows, {ASIDE} to leave out both",
    ),
    "SV-F05": (
        "a bar outside of the exchange's sessions",
        "it was not traded there, or its date or zone is wrong",
        f"check data.calendar and data.timezone, {ASIDE}",
    ),
    "SV-F06": (
        "a bar that the exchange calendar does not reach",
        "whether it is a session, and when it closes, would be a guess",
        f"update exchange_calendars, name another data.calendar, {ASIDE}",
    ),
    "SV-F07": (
        "a local time that is ambiguous or does not exist",
        "clocks were changed, or some times carry an offset and some do not",
        f"write times with their UTC offset, {ASIDE}",
    ),
    "SV-F08": (
        "a time that cannot be read, or lies outside of 1970..2100",
        "mixed units put a bar a thousand times too early or too late",
        f"write all times in one unit and set data.time_format, {ASIDE}",
    ),
    "SV-F12": (
        "an infinite or absurdly large or small number",
        "the tree engines read it differently",
        f"correct the value, {ASIDE}",
    ),
    "SV-F14.price": (
        "a price that is not above 0",
        "it has no logarithm, and vendors write 0 for no trade",
        f"leave it empty, leave the column out (data.columns.NAME=null), {ASIDE}; where prices "
        "may be negative, set negative_price in the instruments table",
    ),
    "SV-F14.quote": (
        "an ask below its bid",
        "nobody leaves such a quote standing: one of the two is of another time",
        f"correct the row, {ASIDE}",
    ),
    "SV-F14.range": (
        "a price outside of [low, high]",
        "columns are swapped, or adjusted differently",
        f"correct the row, leave the column out (data.columns.NAME=null), {ASIDE}",
    ),
    "SV-F14.volume": ("a negative volume", "no such trade", f"correct the row, {ASIDE}"),
    "SV-F15": (
        "a price at a level that the asset leaves again by the same jump",
        "vendors splice in prices of another split factor",
        f"correct the rows, raise data.limits.spike or data.limits.level, {ASIDE}",
    ),
    "SV-F19.number": (
        "a value that is not a number",
        "it would become a missing price without a word",
        f"correct the value, or declare it (csv: data.dialect.thousands, .decimal, .missing), "
        f"{ASIDE}",
    ),
    "SV-F20.asset": ("a row without its asset", "it belongs nowhere", f"complete it, {ASIDE}"),
}


def refusal(found: Findings) -> DataError:
    """The error of the first refused row, with up to five more examples of its fault."""
    row = int(np.flatnonzero(found.faulty)[0])
    code = str(found.code[row])
    what, why, cure = FAULTS[code]
    same = np.flatnonzero(found.code == code)
    others = f"; {len(same)} such rows" if len(same) > 1 else ""
    refused = int(found.faulty.sum())
    if refused > len(same):
        others += f"; {refused} refused rows in all"
    column = str(found.column[row])
    return DataError(
        f"{what}: {column} = {found.value[row]}",
        code=code,
        where=" | ".join(map(found.place, same[:EXAMPLES])) + others,
        why=why,
        cure=cure.replace("NAME", column),
    )


def too_many(report: QualityReport, allowed: float) -> DataError:
    """The error of a quarantine that has grown past the allowed share."""
    code = max(report.refused, key=lambda fault: report.refused[fault])
    what, why, _ = FAULTS[code]
    counts = ", ".join(f"{fault}: {n}" for fault, n in sorted(report.refused.items()))
    return DataError(
        f"{report.refused_share:.1%} of the rows are refused, {allowed:.1%} are allowed",
        code=code,
        where=f"{counts}; most often {what}, first {report.examples[code][0]}",
        why=why,
        cure=f"mend the data, or raise data.max_refused_share above {report.refused_share:.4f}",
    )
