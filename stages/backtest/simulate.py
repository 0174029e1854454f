"""Bars and a policy to trades, cash, positions and equity: the code of the daily rebalance."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from stages.backtest.costs import FREE, Costs
from stages.backtest.market import Market, Outcome
from stages.backtest.terms import Terms
from stages.backtest.trips import round_trips_of
from stages.base import DataError
from stages.portfolio.book import Book, Order, Policy

ORDER = (
    *("decided", "asset", "action", "shares", "reason", "signal_strength", "momentum_score"),
    *("target_weight", "decision_price", "outcome", "time", "filled", "price", "value", "cost"),
)
DAY = ("equity", "cash", "cost", "traded", "interest", "holdings")


@dataclass(frozen=True)
class State:
    """Where a simulation stands: what it takes to go on as if it had never stopped.

    Attributes
    ----------
    book : Book
        After the last decision.
    pending : tuple of Order
        Decided, and not met the market yet.
    """

    book: Book
    pending: tuple[Order, ...] = ()


@dataclass(frozen=True)
class Backtest:
    """What following a policy would have been.

    Attributes
    ----------
    days : DataFrame of shape (T, 6)
        By decision time, after the fills of its row: `equity` and `cash` (currency, exact to the
        cent), `cost` and `traded` (value bought plus value sold) of the row, `interest`, and
        `holdings` (how many).
    shares, values : DataFrame of shape (T, A)
        Held of each asset, and what they are worth at the newest close, to the cent.
    orders : DataFrame
        Every order with its reason and what became of it; `filled` is in shares, below 0 if sold.
    trips : DataFrame
        See `stages.backtest.trips.round_trips_of`.
    state : State
    before_costs : bool
        Whether trading was taken to be free; whatever is said must then say so.
    skipped : Series of int
        Reasons why assets were not judged, and how often, at regular rebalances.
    checks : mapping of str to str
        What each risk check said last.
    """

    days: pd.DataFrame
    shares: pd.DataFrame
    values: pd.DataFrame
    orders: pd.DataFrame
    trips: pd.DataFrame
    state: State
    before_costs: bool
    skipped: pd.Series = field(default_factory=lambda: pd.Series(dtype="int64"))
    checks: Mapping[str, str] = field(default_factory=dict)

    @property
    def returns(self) -> pd.Series:
        """Simple return of each row after the first, net of costs unless `before_costs`."""
        equity = self.days["equity"]
        return (equity / equity.shift() - 1).iloc[1:].rename("return")

    @property
    def weights(self) -> pd.DataFrame:
        """Share of the equity in each asset: shape (T, A)."""
        return self.values.div(self.days["equity"], axis=0)


def simulate(
    bars: pd.DataFrame,
    policy: Policy,
    *,
    costs: Costs,
    begin: float | State = 1_000_000.0,
    terms: Terms | None = None,
    start: pd.Timestamp | None = None,
    end: pd.Timestamp | None = None,
) -> Backtest:
    """Follow a policy through the history: decide at each row, fill at the next.

    Parameters
    ----------
    bars : DataFrame of shape (N, F)
        Panel with a close; `open`, `volume`, `session` and `market` are read where they are there.
    policy : Policy
        Prepared once; it plans at every decision time as the daily rebalance would.
    costs : float, mapping of str to float, or ``"none"``
        Round trip as a fraction, by asset; see `stages.backtest.costs.round_trips`.
    begin : float > 0 or State, default=1,000,000
        Cash at the first decision, or where another simulation ended: this one goes on there.
    terms : Terms, optional
    start, end : Timestamp, optional
        First and last decision time; by default from the first at which an asset has the bars
        that the policy needs, to the end. A `State` goes on at the row after its own.

    Returns
    -------
    Backtest

    Raises
    ------
    DataError
        SV-F18 for too few bars; SV-X620 for a policy that changes what is held.
    ConfigError
        SV-F28 for free trading that was not asked for as ``costs="none"``.
    """
    terms = terms or Terms()
    market = Market.of(bars, costs, terms)
    prepared = policy.prepare(bars)
    times = prepared.stamps
    state = begin if isinstance(begin, State) else State(Book.opened(begin))
    book, pending, decided = state.book, state.pending, state.book.as_of
    _known(market, book, pending)
    rows = _rows(market, policy.warmup, start, end, book.as_of)
    log = _Log(market, rows)
    for row in rows:
        interest, outcomes = Decimal(0), []
        if decided is not None:
            interest = market.interest(row, book)
            book = book.paid(interest)
            outcomes = market.delisted(row, book)
            if outcomes:
                book = book.filled(*(o.fill for o in outcomes if o.fill is not None))
            book, met = market.meet(row, book, pending, decided)
            outcomes += met
        plan = policy.plan(prepared, times[row], book)
        _same(book, plan.book)
        regular = plan.book.rebalanced == times[row]
        log.enter(row, book, outcomes, interest, plan.skipped if regular else {})
        book, pending, decided = plan.book, plan.orders, times[row]
        checks = plan.checks
    return log.written(State(book, pending), isinstance(costs, str) and costs == FREE, checks)


class _Log:
    """What happened, row by row."""

    def __init__(self, market: Market, rows: range) -> None:
        self.market, self.first = market, rows[0]
        self.days: list[tuple[Any, ...]] = []
        shape = (len(rows), len(market.grid.assets))
        self.shares, self.values = np.zeros(shape, dtype="int64"), np.zeros(shape)
        self.orders: list[tuple[Any, ...]] = []
        self.skipped: dict[str, int] = {}

    def enter(
        self,
        row: int,
        book: Book,
        outcomes: list[Outcome],
        interest: Decimal,
        skipped: Mapping[str, str],
    ) -> None:
        line = row - self.first
        worth = self.market.values(row, book)
        places = self.market.grid.places(worth)
        self.shares[line, places] = [position.shares for position in book.positions.values()]
        self.values[line, places] = list(map(float, worth.values()))
        fills = [o.fill for o in outcomes if o.fill is not None]
        cost = sum((f.cost for f in fills), Decimal(0))
        traded = sum((abs(f.cash + f.cost) for f in fills), Decimal(0))
        equity = book.cash + sum(worth.values(), Decimal(0))
        money = (equity, book.cash, cost, traded, interest)
        self.days.append((*map(float, money), len(worth)))
        self.orders += [_told(outcome) for outcome in outcomes]
        for why in skipped.values():
            why = why.partition(":")[0].partition(" of ")[0]
            self.skipped[why] = self.skipped.get(why, 0) + 1

    def written(self, state: State, before_costs: bool, checks: Mapping[str, str]) -> Backtest:
        grid = self.market.grid
        times = grid.times[self.first : self.first + len(self.days)].rename("time")
        days = pd.DataFrame(self.days, times, list(DAY))
        orders = pd.DataFrame(self.orders, columns=list(ORDER))
        orders = orders.astype({"time": times.dtype, "decided": times.dtype})
        orders = orders.astype({"filled": "int64"})
        shares, values = (
            pd.DataFrame(table, times, pd.Index(grid.assets, name="asset"))
            for table in (self.shares, self.values)
        )
        return Backtest(
            days,
            shares,
            values,
            orders,
            round_trips_of(orders, times, values.iloc[-1]),
            state,
            before_costs,
            pd.Series(self.skipped, dtype="int64").sort_values(ascending=False),
            checks,
        )


def _told(outcome: Outcome) -> tuple[Any, ...]:
    order, fill = outcome.order, outcome.fill
    asked = (outcome.decided, order.asset, order.action, order.shares, order.reason)
    judged = (order.signal_strength, order.momentum_score, order.target_weight, order.price)
    if fill is None:
        return (*asked, *judged, outcome.said, None, 0, np.nan, 0.0, 0.0)
    value = float(abs(fill.cash + fill.cost))
    price, cost = float(fill.price), float(fill.cost)
    return (*asked, *judged, outcome.said, fill.time, fill.shares, price, value, cost)


def _rows(
    market: Market,
    warmup: int,
    start: pd.Timestamp | None,
    end: pd.Timestamp | None,
    after: pd.Timestamp | None,
) -> range:
    """Numbers of the rows to decide at."""
    times, seen = market.grid.times, market.grid.seen
    if after is not None:
        first = market.grid.row(after) + 1
    elif start is not None:
        first = int(np.searchsorted(times.as_unit("ns").asi8, start.value))
    else:
        ready = (seen > warmup).any(axis=1)
        first = int(ready.argmax()) if ready.any() else len(times)
    last = len(times) if end is None else market.grid.row(end) + 1
    if first >= last:
        raise DataError(
            f"no decision time is left: {len(times)} rows, {warmup + 1} bars needed to begin",
            code="SV-F18",
            where=f"{times[0]} to {times[-1]}" if len(times) else "no bars at all",
            cure="bring more history, or name an earlier start or a later end",
        )
    return range(first, last)


def _known(market: Market, book: Book, pending: tuple[Order, ...]) -> None:
    needed = [*book.positions, *(order.asset for order in pending)]
    missing = [asset for asset in needed if asset not in market.grid.place]
    if missing:
        raise DataError(
            f"{missing[0]} is held or ordered and not in the data",
            code="SV-F20",
            why="a holding without bars can be neither valued nor sold",
            cure="bring its bars, or begin from another book",
        )


def _same(before: Book, after: Book) -> None:
    held, now = ({a: p.shares for a, p in book.positions.items()} for book in (before, after))
    if before.cash != after.cash or held != now:
        raise DataError(
            "the policy changed cash or shares while it planned",
            code="SV-X620",
            where=f"cash {before.cash} to {after.cash}",
            why="only fills may: what is held would come from nowhere",
            cure="hand out orders, and return the book with the same holdings",
        )
