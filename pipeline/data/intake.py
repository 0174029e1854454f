"""The boundary: what a foreign table must pass to become a checked panel of bars."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from pipeline.data.bars import PLACE, adjusted, as_panel, digest, ordered
from pipeline.data.files import Raw
from pipeline.data.instruments import Instruments
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
from pipeline.nearest import nearest
from stages.base import ConfigError, DataError

log = logging.getLogger(__name__)

BY_INSTRUMENT = "instruments"  # data.calendar: each asset's own


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
        Whose price may be negative, each asset's calendar, and its sector: a column ``sector`` of
        numbers, where the table knows any and the file has none of its own.
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
        refuse_text(self.assets)
        if self.market is not None:  # yaml reads the symbol 510300 as a number
            object.__setattr__(self, "market", str(self.market))
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
                where=f"{len(raw.table)} rows read, {report.rows_in} of the assets and dates asked "
                f"for, {sum(report.refused.values())} refused",
                cure="check data.path, data.start, data.end and data.assets",
            )
        bars = self._with_sector(self._with_market(as_panel(found.table[found.sound])))
        for line in report.lines():
            log.info("%s: %s", name, line)
        return Source(bars, None, None, digest(bars), report, self.survivors, name)

    def _chosen(self, table: pd.DataFrame) -> pd.DataFrame:
        table = table.assign(asset=table["asset"].astype("str"))
        if self.assets is None:
            return table
        wanted = [*map(str, self.assets), *([self.market] if self.market else [])]
        refuse_absent(wanted, table["asset"].dropna().unique())
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
        kept = np.ones(len(table), dtype=bool)
        if self.start is not None:
            kept &= (table["session"] >= pd.Timestamp(str(self.start))).to_numpy()
        if self.end is not None:
            kept &= (table["session"] <= pd.Timestamp(str(self.end))).to_numpy()
        kept |= timed.code != ""
        table = table if kept.all() else table[kept]
        return table.sort_values(["asset", "known"], kind="stable") if len(table) > 1 else table

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
            found.table = adjusted(found.table)
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

    def _with_sector(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Add the number of each asset's sector, if the instruments table knows any of them."""
        if self.instruments is None or "sector" in bars:
            return bars
        numbers = self.instruments.sectors(bars.index.get_level_values("asset"))
        return ordered(bars.assign(sector=numbers)) if np.isfinite(numbers).any() else bars

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
        bars = ordered(bars.assign(market=close))
        if self.assets is not None and self.market not in self.assets:
            return bars[asset != self.market]
        return bars


def refuse_text(assets: Sequence[str] | None) -> None:
    """Refuse one text where a list is wanted: its letters would be taken for symbols."""
    if isinstance(assets, str):
        raise ConfigError(
            f"data.assets={assets} is no list",
            code="SV-F33",
            where="key data.assets",
            cure=f"data.assets=[{assets}]",
        )


def refuse_absent(wanted: Iterable[str], present: Iterable[str]) -> None:
    """Refuse the first asset that the data do not hold; DataError SV-F20."""
    names = set(map(str, present))
    for asset in wanted:
        if asset not in names:
            raise _absent(asset, names)


def _absent(asset: str, present: Iterable[str]) -> DataError:
    names = sorted(map(str, present))
    return DataError(
        f"asset {shown(asset)!r} is not in the data",
        code="SV-F20",
        where=f"{len(names)} assets: {', '.join(map(shown, names[:20]))}",
        cure=nearest(asset, names) or "check data.assets and data.market",
    )
