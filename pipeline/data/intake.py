"""The boundary: what a foreign table must pass to become a checked panel of bars."""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from pipeline.data.columns import BAR, FAMILIES
from pipeline.data.files import Raw
from pipeline.data.instruments import Instruments
from pipeline.data.nearest import nearest
from pipeline.data.quality import Findings, QualityReport, shown, write_quarantine
from pipeline.data.refusal import refusal, too_many
from pipeline.data.rules import (
    Limits,
    check_copies,
    check_jumps,
    check_missing,
    check_sessions,
    check_values,
)
from pipeline.data.times import Clock
from stages.base import ConfigError, DataError
from stages.panel import check_panel

log = logging.getLogger(__name__)

BY_INSTRUMENT = "instruments"  # data.calendar: each asset's own
PLACE = ("file", "row", "asset", "time", "known", "session")  # columns that are no values


@dataclass(frozen=True)
class Source:
    """What a data source hands to the pipeline.

    Attributes
    ----------
    bars : DataFrame of shape (N, F)
        A checked panel of float64 bars with ``session``.
    y, truth : DataFrame or None
        Planted markets only: the labels, and the exact posterior ``p_sell p_hold p_buy``.
    digest : str
        SHA-256 of the content, in sorted order.
    report : QualityReport
    survivors : bool
        Whether the assets were chosen knowing that they lasted.
    name : str
    """

    bars: pd.DataFrame
    y: pd.DataFrame | None
    truth: pd.DataFrame | None
    digest: str
    report: QualityReport
    survivors: bool
    name: str


@dataclass(frozen=True)
class Intake:
    """Turns a foreign table into bars, or refuses it by its first fault.

    Parameters
    ----------
    columns : mapping of str to str or None
        Panel name to column of the file; see `pipeline.data.columns.resolve`.
    timezone, time_format, delay : str
        See `Clock`.
    calendar : str or None
        Exchange whose sessions the bars must lie in (exchange_calendars name), or
        ``instruments`` for each asset's own. Needed for date-only bars.
    start, end : str or None
        First and last session to take, inclusive.
    assets : sequence of str or None
        Assets to take; None takes all.
    market : str or None
        Asset whose last known close becomes the column ``market`` of every row.
    on_bad : {'refuse', 'quarantine'}
        Stop at the first bad row, or set bad rows aside and go on.
    max_refused_share : float in [0, 1], default=0.05
        Quarantine beyond it stops too.
    quarantine : str or None
        CSV that the rows set aside are written to.
    limits : mapping
        See `pipeline.data.rules.Limits`.
    instruments : Instruments or None
    survivors : bool, default=False
        Whether the universe was chosen with hindsight; told in every report.
    """

    columns: Mapping[str, str | None] = field(default_factory=dict)
    timezone: str | None = None
    time_format: str | None = None
    delay: str = "0min"
    calendar: str | None = None
    start: str | None = None
    end: str | None = None
    assets: Sequence[str] | None = None
    market: str | None = None
    on_bad: Literal["refuse", "quarantine"] = "refuse"
    max_refused_share: float = 0.05
    quarantine: str | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)
    instruments: Instruments | None = None
    survivors: bool = False

    def __post_init__(self) -> None:
        if self.on_bad not in ("refuse", "quarantine"):
            raise ValueError(f"need on_bad refuse or quarantine, got {self.on_bad!r}")
        if not 0 <= self.max_refused_share <= 1:
            raise ValueError(f"need max_refused_share in [0, 1], got {self.max_refused_share}")
        if self.calendar == BY_INSTRUMENT and self.instruments is None:
            raise ConfigError(
                "data.calendar=instruments needs the instruments table",
                code="SV-F33",
                cure="set data.instruments, or name an exchange calendar",
            )
        Limits(**self.limits)
        for name in ("start", "end"):
            value = getattr(self, name)
            if value is not None and pd.isna(pd.to_datetime(str(value), errors="coerce")):
                raise ValueError(f"need {name} as a date YYYY-MM-DD, got {value!r}")

    def take(self, raw: Raw, name: str) -> Source:
        """Check `raw` and return its bars.

        Raises
        ------
        DataError
            On the first fault (`on_bad` refuse), on too many of them (quarantine), or when
            nothing is left.
        """
        found = self._checked(self._timed(self._chosen(raw.table), raw.known))
        report = found.report()
        self._settle(found, report)
        if not report.rows_kept:
            raise DataError(
                f"{name} has no bars",
                code="SV-F18",
                where=f"{report.rows_in} rows in, {sum(report.refused.values())} refused",
                cure="check data.path, data.start, data.end and data.assets",
            )
        bars = self._with_market(_as_panel(found.table[found.sound]))
        for line in report.lines():
            log.info("%s: %s", name, line)
        return Source(bars, None, None, digest(bars), report, self.survivors, name)

    def _chosen(self, table: pd.DataFrame) -> pd.DataFrame:
        table = table.assign(asset=table["asset"].astype("str"))
        if self.assets is None:
            return table
        wanted = [*map(str, self.assets), *([self.market] if self.market else [])]
        present = table["asset"].dropna().unique()
        for asset in wanted:
            if asset not in present:
                raise _absent(asset, present)
        # a row without an asset stays, to be refused by its place
        return table[table["asset"].isin(wanted) | table["asset"].isna()]

    def _timed(self, table: pd.DataFrame, known: bool) -> pd.DataFrame:
        """Add when each bar was known, its session and the fault of its time; sort."""
        clock = Clock(self.timezone, self.time_format, self.delay)
        stamps = clock.stamps(table["time"])
        if known:
            timed = stamps.as_known(table.get("session"))
        else:
            timed = stamps.known(clock, self._calendars(table["asset"]))
        table = table.assign(known=timed.known, session=timed.session, fault=timed.code)
        unsure = (table["fault"] != "").to_numpy()
        inside = np.ones(len(table), dtype=bool)
        if self.start is not None:
            inside &= (table["session"] >= pd.Timestamp(str(self.start))).to_numpy()
        if self.end is not None:
            inside &= (table["session"] <= pd.Timestamp(str(self.end))).to_numpy()
        return table[inside | unsure].sort_values(["asset", "known"], kind="stable")

    def _calendars(self, assets: pd.Series) -> pd.Series | None:
        if self.calendar is None:
            return None
        if self.calendar != BY_INSTRUMENT or self.instruments is None:
            return pd.Series(self.calendar, assets.index, dtype="str")
        return pd.Series(self.instruments.column("calendar", assets.fillna("")), assets.index)

    def _checked(self, table: pd.DataFrame) -> Findings:
        found = Findings(table.drop(columns="fault"))
        for code in table["fault"].unique():
            if code:
                found.refuse(table["fault"] == code, code, "time")
        found.refuse(table["asset"].isna(), "SV-F20.asset", "asset")
        values = [c for c in found.table.columns if c not in PLACE]
        for name in values:
            numbers = pd.to_numeric(found.table[name], errors="coerce").astype("float64")
            text = numbers.isna() & found.table[name].notna()
            found.refuse(text, "SV-F19.number", name)
            found.table[name] = numbers
        limits, codes = Limits(**self.limits), table["asset"].factorize()[0]
        check_copies(found, codes, values)
        check_values(found, limits, self._may_be_negative(table["asset"]))
        if "adj_close" in values:
            found.table = _adjusted(found.table)
        check_jumps(found, limits, codes)
        check_missing(found)
        check_sessions(found, codes, self._calendars(table["asset"]))
        return found

    def _may_be_negative(self, assets: pd.Series) -> np.ndarray:
        if self.instruments is None:
            return np.zeros(len(assets), dtype=bool)
        return self.instruments.column("negative_price", assets.fillna("")).astype(bool)

    def _settle(self, found: Findings, report: QualityReport) -> None:
        """Stop, or set the refused rows aside, as configured."""
        if self.on_bad == "refuse":
            if report.refused:
                raise refusal(found)
            return
        # an older report must not outlive the fault it tells of
        if self.quarantine and (report.refused or Path(self.quarantine).exists()):
            write_quarantine(self.quarantine, found.refused())
        if report.refused_share > self.max_refused_share:
            raise too_many(report, self.max_refused_share)

    def _with_market(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Add the last close of the market asset that was known at each time."""
        if self.market is None:
            return bars
        if "market" in bars:
            raise ConfigError(
                f"data.market={self.market} and a column market are both given",
                code="SV-F33",
                cure="set data.market=null, or data.columns.market=null",
            )
        asset, time = (bars.index.get_level_values(level) for level in ("asset", "time"))
        mine = bars.loc[asset == self.market, "close"].dropna()
        if not len(mine):
            raise _absent(self.market, asset.unique())
        place = mine.index.get_level_values("time").searchsorted(time, side="right") - 1
        close = np.where(place >= 0, mine.to_numpy()[place], np.nan)
        bars = _ordered(bars.assign(market=close))
        if self.assets is not None and self.market not in self.assets:
            return bars[asset != self.market]
        return bars


def digest(bars: pd.DataFrame) -> str:
    """SHA-256 of index and values; the same for any order of columns and any NaN."""
    content = hashlib.sha256()
    assets = bars.index.get_level_values("asset")
    times = pd.DatetimeIndex(bars.index.get_level_values("time")).as_unit("us")
    names, counts = np.unique(assets.to_numpy(dtype="str"), return_counts=True)
    head = {"assets": names.tolist(), "bars": counts.tolist(), "columns": sorted(bars.columns)}
    content.update(json.dumps(head).encode())
    content.update(times.asi8.astype("<i8").tobytes())
    for name in sorted(bars.columns):
        column = bars[name]
        if column.dtype.kind == "M":
            content.update(pd.DatetimeIndex(column).as_unit("us").asi8.astype("<i8").tobytes())
        else:
            number = column.to_numpy(dtype="<f8", copy=True)
            number[np.isnan(number)] = np.nan  # one bit pattern for all NaN
            content.update((number + 0.0).tobytes())  # and one for both zeros
    return content.hexdigest()


def _adjusted(table: pd.DataFrame) -> pd.DataFrame:
    """Bars scaled by adj_close / close; volume stays, because dividends do not change it."""
    ratio = table["adj_close"] / table["close"]
    scaled = {c: table[c] * ratio for c in ("open", "high", "low") if c in table}
    table = table.assign(**scaled, close=table["adj_close"]).drop(columns="adj_close")
    # the scaling rounds: it must not lift a close over its own high
    if "high" in table:
        table["high"] = table["high"].where(~(table["high"] < table["close"]), table["close"])
    if "low" in table:
        table["low"] = table["low"].where(~(table["low"] > table["close"]), table["close"])
    return table


def _as_panel(table: pd.DataFrame) -> pd.DataFrame:
    values = [c for c in table.columns if c not in PLACE]
    kinds = {c: "float32" if c.startswith(FAMILIES) else "float64" for c in values}
    panel = _ordered(table[[*values, "session"]].astype(kinds))
    panel.index = pd.MultiIndex.from_arrays(
        [table["asset"].astype("str"), pd.DatetimeIndex(table["known"])], names=["asset", "time"]
    )
    return check_panel(panel, ["close"])


def _ordered(bars: pd.DataFrame) -> pd.DataFrame:
    first = [c for c in (*BAR, "market") if c in bars]
    rest = [c for c in bars.columns if c not in (*first, "session")]
    return bars[[*first, *rest, "session"]]


def _absent(asset: str, present: Iterable[str]) -> DataError:
    names = sorted(map(str, present))
    return DataError(
        f"asset {shown(asset)!r} is not in the data",
        code="SV-F20",
        where=f"{len(names)} assets: {', '.join(map(shown, names[:20]))}",
        cure=nearest(asset, names) or "check data.assets and data.market",
    )
