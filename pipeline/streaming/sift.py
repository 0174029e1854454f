"""The row rules for messages: which are bars, and why the others are not."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pipeline.data.bars import adjusted
from pipeline.data.columns import resolve, take
from pipeline.data.intake import Intake
from pipeline.data.quality import Findings
from pipeline.data.refusal import FAULTS
from pipeline.data.rules import Limits, check_missing, check_sessions, check_values
from stages.base import SieveError

PLACED = ("asset", "time", "file", "row", "known", "session")
HALF = re.compile("[\0\ud800-\udfff]")  # what no database keeps


@dataclass(frozen=True)
class Sifted:
    """Bars, and what was refused.

    Attributes
    ----------
    places : list of int
        Which messages are bars.
    assets : list of str
    times : int64 ndarray
        When each was known, microseconds since 1970.
    names : list of str
        Columns, with ``session`` in microseconds.
    values : float64 ndarray of shape (n, F)
    refused : dict of int to str
        Reason by place.
    others : list of int
        Messages of assets or dates that were not asked for.
    """

    places: list[int]
    assets: list[str]
    times: np.ndarray
    names: list[str]
    values: np.ndarray
    refused: dict[int, str]
    others: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Sift(Intake):
    """`Intake` for messages that come a few at a time.

    The rules of one row are the same: times, sessions, prices, numbers. Those that look at other
    rows are not asked here: a stream knows copies by what it holds, and of a jump (SV-F15) nobody
    can say yet whether it will be undone.
    """

    def sift(self, messages: Sequence[Mapping[str, object]]) -> list[Sifted]:
        """Check messages; those that break a rule for all are told apart by halves.

        Returns
        -------
        list of Sifted
            Whose places together are those of `messages`.
        """
        places = list(range(len(messages)))
        return self._sifted(messages, places) if places else []

    def finished(self, panel: pd.DataFrame) -> pd.DataFrame:
        """Bars with the columns that are made of other assets: ``market`` and ``sector``."""
        return self._with_sector(self._with_market(panel))

    def _sifted(
        self, messages: Sequence[Mapping[str, object]], places: Sequence[int]
    ) -> list[Sifted]:
        try:
            return [self._bars([messages[at] for at in places], places)]
        except (SieveError, ValueError, TypeError, OverflowError) as error:
            if len(places) == 1:
                said = str(error).splitlines()[0]
                return [_nothing({places[0]: said})]
            middle = len(places) // 2
            halves = (places[:middle], places[middle:])
            return [found for half in halves for found in self._sifted(messages, half)]

    def _bars(self, messages: Sequence[Mapping[str, object]], places: Sequence[int]) -> Sifted:
        frame = pd.DataFrame.from_records([dict(fields) for fields in messages])
        mapped = {name: column for name, column in self.columns.items() if name != "asset"}
        mapped["asset"] = self.columns.get("asset") or "asset"  # no file's name stands for it here
        raw = take(frame, resolve(mapped, frame.columns, "the message"))
        assets = [None if pd.isna(name) else str(name) for name in raw["asset"].tolist()]
        nameless = {place for place, name in zip(places, assets, strict=True) if not name}
        raw["asset"] = pd.Series([name or "?" for name in assets], raw.index, dtype="str")
        raw["file"], raw["row"] = "stream", np.asarray(places)
        table = self._timed(self._among(raw), known=False)
        found = self._ruled(table, nameless)
        sound = found.table[found.sound]
        names = [n for n in sound.columns if n not in PLACED]
        session = sound["session"].to_numpy().astype("M8[us]").astype("int64").astype("float64")
        values = np.column_stack([*(sound[name].to_numpy("float64") for name in names), session])
        known = pd.DatetimeIndex(sound["known"]).as_unit("us").asi8
        return Sifted(
            sound["row"].tolist(),
            sound["asset"].tolist(),
            known,
            [*names, "session"],
            values,
            _reasons(found),
            sorted(set(places) - set(table["row"].tolist())),
        )

    def _among(self, raw: pd.DataFrame) -> pd.DataFrame:
        """The assets that are asked for; `_chosen` would refuse a batch that lacks one of them."""
        if self.assets is None:
            return raw
        wanted = {*map(str, self.assets), *([self.market] if self.market else [])}
        return raw[raw["asset"].isin(wanted)]

    def _ruled(self, table: pd.DataFrame, nameless: set[int]) -> Findings:
        """What the rules of one row find."""
        found = Findings(table.drop(columns="fault"))
        for code in table["fault"].unique():
            if code:
                found.refuse(table["fault"] == code, code, "time")
        found.refuse(table["known"].isna(), "SV-F08", "time")
        found.refuse(table["row"].isin(nameless), "SV-F20.asset", "asset")
        odd = table["asset"].map(lambda name: bool(HALF.search(name)))
        found.refuse(odd.to_numpy(bool), "SV-F17", "asset")
        for name in [c for c in found.table.columns if c not in PLACED]:
            numbers = pd.to_numeric(found.table[name], errors="coerce").astype("float64")
            found.refuse(numbers.isna() & found.table[name].notna(), "SV-F19.number", name)
            found.table[name] = numbers
        check_values(found, Limits(**self.limits), self._may_be_negative(table["asset"]))
        if "adj_close" in found.table:
            found.table = adjusted(found.table)
        check_missing(found)
        codes = table["asset"].factorize()[0]
        check_sessions(found, codes, self._calendars(table["asset"]))
        return found


def _reasons(found: Findings) -> dict[int, str]:
    out = {}
    for at in np.flatnonzero(found.faulty):
        code = str(found.code[at])
        what = FAULTS[code][0] if code in FAULTS else "a name that no store keeps"
        said = f"{code}  {what}: {found.column[at]} = {found.value[at]}"
        out[int(found.table["row"].iloc[at])] = said
    return out


def _nothing(refused: dict[int, str]) -> Sifted:
    return Sifted([], [], np.empty(0, "int64"), [], np.empty((0, 0)), refused)
