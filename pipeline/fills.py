"""What was traded since a book was written: told in a file, or simulated on the next bars."""

import csv
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

import pandas as pd

from pipeline.data.instruments import Instruments
from pipeline.sessions import Session, row_of
from stages.backtest.costs import Costs
from stages.backtest.market import Market
from stages.backtest.terms import Terms
from stages.base import ConfigError, DataError
from stages.portfolio.book import Book, Fill, Order
from stages.portfolio.prepared import Prepared

COLUMNS = ("asset", "shares", "price", "cost", "time")


def read_fills(path: Path | str, prepared: Prepared) -> list[Fill]:
    """What was traded, from a CSV with the columns `COLUMNS`; sells first within a time.

    Parameters
    ----------
    path : Path or str
        Shares below 0 are sold; a date as time stands for the bar of that session.
    prepared : Prepared

    Raises
    ------
    DataError
        SV-F20 for a file or a column that is missing, SV-F19 for a cell that cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {path.name} of fills", code="SV-F20", cure="fills=PATH")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
        if missing:
            raise DataError(
                f"{path.name} has no column {missing[0]!r}",
                code="SV-F20",
                where=f"columns: {rows.fieldnames}",
                cure=f"write the columns {', '.join(COLUMNS)}",
            )
        fills = [_fill(path, number, row, prepared) for number, row in enumerate(rows, start=1)]
    return sorted(fills, key=lambda fill: (fill.time, fill.shares > 0))


def _fill(path: Path, number: int, row: Mapping[str, str], prepared: Prepared) -> Fill:
    try:
        time = pd.Timestamp(row["time"])
        if time.tz is None:
            time = _bar_of(time.normalize(), prepared)
        price, cost = Decimal(row["price"]), Decimal(row["cost"])
        return Fill(row["asset"], int(row["shares"]), price, cost, time.tz_convert("UTC"))
    except (ValueError, TypeError, InvalidOperation) as error:
        raise DataError(
            f"row {number} of {path.name} is no fill",
            code="SV-F19",
            where=f"{dict(row)}: {error}",
            cure="whole shares below 0 if sold, price and cost as 12.34, time as 2024-03-01",
        ) from error


def _bar_of(day: pd.Timestamp, prepared: Prepared) -> pd.Timestamp:
    """When the bar of a session was known; a day that is still to come ends after all bars."""
    row, newest = row_of(prepared, Session(day, None)), prepared.times[-1]
    if row is not None:
        return prepared.times[row]
    if day.tz_localize("UTC") <= newest:
        raise ValueError(f"there is no bar of {day:%Y-%m-%d}")
    return day.tz_localize("UTC") + pd.Timedelta(days=1)


def filled(book: Book, fills: Sequence[Fill], at: pd.Timestamp) -> tuple[Book, int]:
    """`book` with what was traded after it and up to `at`, and how many fills that were."""
    new = [f for f in fills if f.time <= at and (book.as_of is None or f.time > book.as_of)]
    for fill in new:
        book = book.filled(fill)
    return book, len(new)


def simulated(
    book: Book, orders: Sequence[Order], bars: pd.DataFrame, costs: Costs, terms: Terms
) -> tuple[Book, int]:
    """`book` after its orders met the bar that follows it, and how many were filled.

    Parameters
    ----------
    book : Book
    orders : sequence of Order
        Decided at ``book.as_of``.
    bars : DataFrame of shape (N, F)
        Up to the decision.
    costs : float, mapping of str to float, or ``"none"``
        See `stages.backtest.costs.round_trips`.
    terms : Terms

    Notes
    -----
    As `stages.backtest.simulate.simulate` does it: what the bar after the decision does not fill
    is cancelled. Delistings are left to a person: the data of the day cannot tell them.
    """
    if book.as_of is None:
        return book, 0
    market, decided = Market.of(bars, costs, terms), book.as_of
    first, fills = market.grid.row(decided) + 1, 0
    for row in range(first, len(market.grid.times)):
        book = book.paid(market.interest(row, book))
        if row == first:
            book, outcomes = market.meet(row, book, orders, decided)
            fills = sum(outcome.fill is not None for outcome in outcomes)
    return book, fills


def round_trips(
    bps: Mapping[str, float], instruments: Instruments | None, assets: Sequence[str]
) -> dict[str, float]:
    """Cost of buying and selling by asset, fraction, from basis points by asset class.

    Raises
    ------
    ConfigError
        SV-X101 for a class without a cost.
    """
    out = {}
    kinds = ["default"] * len(assets) if instruments is None else instruments.classes(assets)
    for asset, kind in zip(assets, kinds, strict=True):
        found = bps.get(kind, bps.get("default"))
        if found is None:
            raise ConfigError(
                f"costs has none for the asset class {str(kind)!r}",
                code="SV-X101",
                where=f"it names {sorted(bps)}",
                why="a missing cost is not a cost of 0",
                cure=f"add costs.{kind}, or costs.default",
            )
        out[asset] = float(found) / 1e4
    return out
