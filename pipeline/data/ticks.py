"""Where quotes, trades, books and bars within the day come from, checked tick by tick."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data.bars import PLACE, digest, ordered
from pipeline.data.files import Raw, read_files, read_parquet
from pipeline.data.frames import framed, sessions_of
from pipeline.data.intake import Intake, Source
from pipeline.data.quality import Findings
from pipeline.data.rules import Limits, check_values
from pipeline.data.sources import parquet
from stages.base import ConfigError, DataError
from stages.features.bars import Cut, gather, split
from stages.features.timeframes import spans
from stages.panel import check_panel

log = logging.getLogger(__name__)

SUFFIXES = (".parquet", ".pq")


def quotes(path: str, **intake: Any) -> Source:
    """Rows of a bid and an ask from Parquet; the close is their mid, unless one is mapped.

    A row whose ask lies below its bid is refused, or set aside, as any other bad row.

    Parameters
    ----------
    path : str
        As in `pipeline.data.sources.parquet`.
    **intake
        Fields of `Intake`.

    Raises
    ------
    DataError
        See `Intake.take`; SV-F14 for a crossed quote.
    """
    taker = Intake(**intake)
    columns = dict(taker.columns)
    own = columns.get("close") is None
    if own:
        columns["close"] = columns["bid"] = columns.get("bid") or "bid"
        columns["ask"] = columns.get("ask") or "ask"
    raw = read_files(path, SUFFIXES, columns, read_parquet)
    if own:
        bid, ask = (pd.to_numeric(raw.table[name], errors="coerce") for name in ("bid", "ask"))
        raw = Raw(raw.table.assign(close=(bid + ask) / 2))
    return taker.take(raw, "quotes")


def trades(path: str, bar: Mapping[str, Any], **intake: Any) -> Source:
    """Bars from trades: Parquet with a time, a price (``close``) and a volume.

    Parameters
    ----------
    path : str
    bar : mapping
        Fields of `stages.features.bars.Cut`; of time bars also `span`, such as ``1min``.
    **intake
        Fields of `Intake`; a `calendar` says where the bars of a session begin.

    Raises
    ------
    DataError
        On the first bad trade, or on too many of them; SV-F18 where no bar is full.
    """
    taker = Ticks(**intake, bar=bar)
    return taker.take(read_files(path, SUFFIXES, taker.columns, _in_time), "trades")


def book(
    path: str,
    bar: Mapping[str, Any],
    trade_kinds: Sequence[int] = (4, 5),
    **intake: Any,
) -> Source:
    """Bars from a book and its messages: Parquet with the best quote after each message.

    Columns beside `bid`, `ask`, `bid_size` and `ask_size`: the price of the message (``close``),
    its size (``volume``), its `kind`, and `resting`: 1 where it is about an order to buy, -1 to
    sell. Who takes from an order to sell has bought.

    Parameters
    ----------
    path : str
    bar : mapping
        As in `trades`.
    trade_kinds : sequence of int, default=(4, 5)
        Kinds of messages that are trades: of LOBSTER, visible and hidden executions.
    **intake
        Fields of `Intake`.

    Raises
    ------
    DataError
        As in `trades`; SV-F14 for a crossed quote.
    """
    taker = Ticks(**intake, bar=bar, trade_kinds=tuple(trade_kinds))
    return taker.take(read_files(path, SUFFIXES, taker.columns, _in_time), "book")


def intraday(
    path: str,
    frames: Mapping[str, Mapping[str, Any]],
    frame_delay: str = "0min",
    lag: str = "0min",
    late: int = 0,
    sessions: str | None = None,
    quoted: bool = False,
    **intake: Any,
) -> Source:
    """Bars of a minute, or so, from Parquet, with the longer bars that they make up.

    Parameters
    ----------
    path : str
        As in `pipeline.data.sources.parquet`.
    frames, frame_delay, lag, late
        `frames`, `delay`, `lag` and `late` of `pipeline.data.frames.framed`.
    sessions : str or None
        `calendar` of `framed`; None takes the calendar of the bars.
    quoted : bool, default=False
        Whether the rows are a bid and an ask, see `quotes`.
    **intake
        Fields of `Intake`.
    """
    source = quotes(path, **intake) if quoted else parquet(path, **intake)
    calendar = sessions or intake.get("calendar")
    return framed(source, frames, calendar, frame_delay, lag, late, intake.get("instruments"))


def _in_time(file: Any, columns: Mapping[str, str | None]) -> pd.DataFrame:
    """A Parquet file whose nanoseconds are rounded up: nothing is known before it happened."""
    table = read_parquet(file, columns)
    if table["time"].dtype.kind == "M":
        table["time"] = table["time"].dt.ceil("us")
    return table


@dataclass(frozen=True)
class Ticks(Intake):
    """Turns a foreign table of ticks into bars, or refuses it by its first fault.

    Parameters
    ----------
    bar : mapping
        Fields of `Cut`, and `span` of time bars.
    trade_kinds : sequence of int
        Empty where every tick is a trade.
    """

    bar: Mapping[str, Any] = field(default_factory=dict)
    trade_kinds: Sequence[int] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._cut()
        if self.bar.get("by", "time") == "time":
            self._span()
        if self.market is not None:
            raise ConfigError(
                "data.market does not go with bars of ticks",
                code="SV-F33",
                cure="set data.market=null: such bars of two assets seldom end at one time",
            )

    def take(self, raw: Raw, name: str) -> Source:
        """Check every tick of `raw` and return the bars that they fill."""
        found = self._checked(self._timed(self._chosen(raw.table), raw.known))
        report = found.report()
        self._settle(found, report)
        table = found.table[found.sound]
        made = [self._bars(ticks) for _, ticks in table.groupby("asset", sort=False)]
        bars = pd.concat(made) if made else pd.DataFrame()
        if not len(bars):
            raise DataError(
                f"{name} fill no bar",
                code="SV-F18",
                where=f"{len(raw.table)} ticks read, {report.rows_kept} kept",
                cure="make the bars of data.bar smaller, or bring more ticks",
            )
        for line in report.lines():
            log.info("%s: %s", name, line)
        bars = check_panel(ordered(bars), ["close"])
        log.info("%s: %d bars by %s", name, len(bars), self._cut().by)
        return Source(bars, None, None, digest(bars), report, self.survivors, name)

    def _checked(self, table: pd.DataFrame) -> Findings:
        """Row rules alone: ticks of one instant are no copies of each other."""
        found = Findings(table.drop(columns="fault").reset_index(drop=True))
        for code in table["fault"].unique():
            if code:
                found.refuse(table["fault"] == code, code, "time")
        found.refuse(found.table["asset"].isna(), "SV-F20.asset", "asset")
        for name in [c for c in found.table.columns if c not in PLACE]:
            numbers = pd.to_numeric(found.table[name], errors="coerce").astype("float64")
            found.refuse(numbers.isna(), "SV-F19.number", name)
            found.table[name] = numbers
        # a message that is no trade may carry any price
        trade = self._is_trade(found.table)
        prices = found.table["close"].copy()
        found.table["close"] = prices.where(trade)
        check_values(found, Limits(**self.limits), self._may_be_negative(found.table["asset"]))
        return found

    def _is_trade(self, table: pd.DataFrame) -> pd.Series:
        if not self.trade_kinds:
            return pd.Series(True, table.index)
        if "kind" not in table:
            raise DataError(
                "nothing says which messages are trades",
                code="SV-F20",
                cure="map the column of the kinds: data.columns.kind=NAME",
            )
        return table["kind"].isin(list(self.trade_kinds))

    def _bars(self, table: pd.DataFrame) -> pd.DataFrame:
        """The full bars of one asset."""
        asset, cut = str(table["asset"].iloc[0]), self._cut()
        trade = self._is_trade(table)
        kept = [c for c in ("bid", "ask", "bid_size", "ask_size") if c in table]
        ticks = table[kept].assign(
            price=table["close"].where(trade), volume=table["volume"].where(trade, 0.0)
        )
        if "resting" in table:
            ticks["side"] = -table["resting"].where(trade, 0.0)
        ticks.index = pd.DatetimeIndex(table["known"])
        ends = self._ends(ticks.index, asset) if cut.by == "time" else None
        last = split(ticks, cut, ends)
        bars = gather(ticks, last, cut, ends)
        bars["session"] = table["session"].to_numpy()[last]
        names = pd.Index(np.repeat(asset, len(bars)), dtype="str")
        bars.index = pd.MultiIndex.from_arrays(
            [names, pd.DatetimeIndex(bars.index).as_unit("us")], names=["asset", "time"]
        )
        return bars

    def _ends(self, times: pd.DatetimeIndex, asset: str) -> pd.DatetimeIndex:
        calendar = self.calendar
        if self.instruments is not None and calendar == "instruments":
            calendar = str(self.instruments.column("calendar", [asset])[0])
        table = sessions_of(calendar or "24/7", times)
        bar, _ = spans(times, table, self._span())
        return pd.to_datetime((bar * 1e6).round(), unit="us", utc=True)

    def _cut(self) -> Cut:
        return Cut(**{name: value for name, value in self.bar.items() if name != "span"})

    def _span(self) -> pd.Timedelta:
        span = self.bar.get("span")
        if span is None:
            raise ConfigError(
                "time bars need their length",
                code="SV-F33",
                cure="set data.bar.span, such as 1min",
            )
        return pd.Timedelta(str(span))
