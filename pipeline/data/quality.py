"""What validation found in a table: kept, counted, refused and flagged rows."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stages.base import StoreError

EXAMPLES = 5  # offenders named per rule
DUPLICATE = "duplicate"  # in place of a fault code: a copy is counted, not refused


@dataclass(frozen=True)
class QualityReport:
    """The books of one load: rows in = rows kept + duplicates + refused.

    Attributes
    ----------
    rows_in : int
        Rows of the chosen assets and dates.
    rows_kept, duplicates : int
        Rows of the panel; equal rows of which one was kept.
    refused, flagged : mapping of str to int
        Rows by fault code; what is set aside, and what is kept but worth a look.
    examples : mapping of str to tuple of str
        The first offenders of each code.
    """

    rows_in: int
    rows_kept: int
    duplicates: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    flagged: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def refused_share(self) -> float:
        """Refused rows over rows in, in [0, 1]."""
        return sum(self.refused.values()) / self.rows_in if self.rows_in else 0.0

    @property
    def score(self) -> float:
        """Rows that are neither refused nor flagged, in [0, 100]: 100 where none is."""
        odd = sum(self.refused.values()) + sum(self.flagged.values())
        return 100.0 * max(1.0 - odd / self.rows_in, 0.0) if self.rows_in else 0.0

    def as_dict(self) -> dict[str, Any]:
        """JSON-able content."""
        return {
            "score": self.score,
            "rows_in": self.rows_in,
            "rows_kept": self.rows_kept,
            "duplicates": self.duplicates,
            "refused": dict(self.refused),
            "flagged": dict(self.flagged),
            "examples": {code: list(texts) for code, texts in self.examples.items()},
        }

    def lines(self) -> list[str]:
        """The report as text, one finding a line."""
        head = f"{self.rows_in} rows in, {self.rows_kept} kept, {self.duplicates} duplicates"
        counts = {"refused": self.refused, "flagged": self.flagged}
        return [head] + [
            f"{kind} {code}: {n} rows, first {self.examples[code][0]}"
            for kind, found in counts.items()
            for code, n in found.items()
        ]


@dataclass
class Findings:
    """Faults collected while a table is checked; the first fault of a row is the one it keeps.

    Parameters
    ----------
    table : DataFrame of shape (N, F)
        Sorted by ``asset`` and ``known``; ``row`` (number in its ``file``, from 1), ``time`` as
        it came, ``known`` (UTC) and ``session`` as understood, then values.
    """

    table: pd.DataFrame

    def __post_init__(self) -> None:
        n = len(self.table)
        self.code, self.column, self.value = (np.full(n, "", dtype=object) for _ in range(3))
        self.flags: dict[str, np.ndarray] = {}

    def refuse(self, broken: np.ndarray | pd.Series, code: str, column: str) -> None:
        """Set rows aside, unless an earlier rule has already done so."""
        rows = np.flatnonzero(np.asarray(broken, dtype=bool) & (self.code == ""))
        if len(rows):
            self.code[rows], self.column[rows] = code, column
            self.value[rows] = [shown(v) for v in self.table[column].iloc[rows]]

    def flag(self, odd: np.ndarray | pd.Series, code: str) -> None:
        """Keep rows, but report them."""
        rows = np.asarray(odd, dtype=bool)
        self.flags[code] = self.flags.get(code, np.zeros(len(rows), dtype=bool)) | rows

    @property
    def sound(self) -> np.ndarray:
        """Rows that no rule has set aside: bool, shape (N,)."""
        return self.code == ""

    @property
    def faulty(self) -> np.ndarray:
        """Rows refused: neither sound nor the copy of a sound one."""
        return (self.code != "") & (self.code != DUPLICATE)

    def place(self, row: int) -> str:
        """File, row, asset and time of one row of the table."""
        at = self.table.iloc[row]
        time = at["time"] if pd.isna(at["known"]) else f"{at['known']:%Y-%m-%d %H:%M} UTC"
        return f"{at['file']} row {at['row']}, {shown(at['asset'])} at {shown(time)}"

    def offender(self, row: int) -> str:
        """Place, column and value of one refused row."""
        return f"{self.place(row)}, {self.column[row]} = {self.value[row]}"

    def refused(self) -> pd.DataFrame:
        """Refused rows: file, row, asset, time, code, column, value."""
        rows = np.flatnonzero(self.faulty)
        where = self.table[["file", "row", "asset", "time"]].iloc[rows]
        return where.assign(code=self.code[rows], column=self.column[rows], value=self.value[rows])

    def report(self) -> QualityReport:
        """Close the books."""
        codes, counts = np.unique(self.code[self.faulty].astype("str"), return_counts=True)
        refused = dict(zip(codes.tolist(), counts.tolist(), strict=True))
        kept_flags = {code: flag & self.sound for code, flag in self.flags.items()}
        flagged = {code: int(flag.sum()) for code, flag in kept_flags.items() if flag.any()}
        examples = {
            code: tuple(map(self.offender, np.flatnonzero(self.code == code)[:EXAMPLES]))
            for code in refused
        }
        for code in flagged:
            first = np.flatnonzero(kept_flags[code])[:EXAMPLES]
            examples[code] = tuple(map(self.place, first))
        duplicates = int((self.code == DUPLICATE).sum())
        kept = int(self.sound.sum())
        return QualityReport(len(self.table), kept, duplicates, refused, flagged, examples)


def shown(value: object) -> str:
    """A value as an error may show it: one line, no control characters, at most 80 long."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))
    return text if len(text) <= 80 else text[:77] + "..."


def write_quarantine(path: str, refused: pd.DataFrame) -> None:
    """Write the refused rows as CSV, replacing the file in one step."""
    target = Path(path)
    scratch = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        refused.to_csv(scratch, index=False)
        os.replace(scratch, target)
    except OSError as fault:
        raise StoreError(
            f"the report of refused rows cannot be written: {fault.strerror}",
            code="SV-F34",
            where=target.name,
            cure="set data.quarantine to a path that can be written",
        ) from fault
