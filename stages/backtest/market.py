"""The market that orders meet: fills, interest and delistings, in exact money."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd

from stages.backtest.costs import Costs, round_trips
from stages.backtest.terms import Terms
from stages.portfolio.book import Book, Fill, Order, exact, money, worth
from stages.portfolio.prepared import Prepared, given, prepare

YEAR = 365  # days of interest


@dataclass(frozen=True)
class Outcome:
    """What became of an order.

    Attributes
    ----------
    order : Order
    decided : Timestamp
    fill : Fill or None
    said : str
        ``filled``, or why less or nothing was.
    """

    order: Order
    decided: pd.Timestamp
    fill: Fill | None
    said: str


@dataclass(frozen=True)
class Market:
    """Prices and volumes by row and asset, on the rows of `Prepared`.

    Attributes
    ----------
    grid : Prepared
    price : float64 ndarray of shape (T, A)
        At which orders fill; NaN where there is no bar.
    volume : float64 ndarray of shape (T, A)
        NaN where it is not known.
    ends : int ndarray of shape (A,)
        Last row with a bar, or T for an asset that is not delisted.
    halves : tuple of A Decimal
        Cost of one side of a trade, fraction.
    terms : Terms
    """

    grid: Prepared
    price: np.ndarray
    volume: np.ndarray
    ends: np.ndarray
    halves: tuple[Decimal, ...]
    terms: Terms

    @classmethod
    def of(cls, bars: pd.DataFrame, costs: Costs, terms: Terms) -> "Market":
        """The market of a panel of bars."""
        names = [name for name in ("open", "volume") if name in bars]
        read: dict[str, Any] = {name: {"values": name} for name in names}  # a column, not values
        grid = prepare(bars, {name: partial(given, **column) for name, column in read.items()})
        close = grid.columns["close"]
        price = close
        if terms.fill == "open" and "open" in names:
            opened = grid.columns["open"]
            price = np.where(np.isfinite(opened) & np.isfinite(close), opened, close)
        rows = len(close)
        last = rows - 1 - np.argmax(np.isfinite(close)[::-1], axis=0)
        return cls(
            grid,
            price,
            grid.columns["volume"] if "volume" in names else np.full_like(close, np.nan),
            np.where(rows - 1 - last >= terms.delisted, last, rows),
            tuple(exact(rate) / 2 for rate in round_trips(costs, grid.assets).tolist()),
            terms,
        )

    def values(self, row: int, book: Book) -> dict[str, Decimal]:
        """What each holding is worth at the newest closes, to the cent."""
        held = book.positions
        prices = self.grid.last[row].take(self.grid.places(held)).tolist()
        return {
            asset: worth(price, position.shares)
            for (asset, position), price in zip(held.items(), prices, strict=True)
        }

    def interest(self, row: int, book: Book) -> Decimal:
        """What the cash earns from the row before to `row`."""
        if not self.terms.cash_rate:
            return Decimal(0)
        days = (self.grid.stamps[row] - self.grid.stamps[row - 1]) / pd.Timedelta(days=YEAR)
        return money(book.cash * exact(self.terms.cash_rate) * exact(days))

    def delisted(self, row: int, book: Book) -> list[Outcome]:
        """Sales of holdings whose last bar was the one before `row`."""
        if row <= self._first_end:
            return []
        gone = [asset for asset in book.positions if self.ends[self.grid.place[asset]] == row - 1]
        out = []
        for asset in gone:
            shares, close = book.positions[asset].shares, self._last(row, asset)
            price = exact(close) * exact(self.terms.recovered)
            why = "delisted"
            nan = float("nan")
            order = Order(asset, "SELL", shares, why, nan, nan, 0.0, close, 0.0)
            paid = price if price > 0 else Decimal("1e-9")  # what is worth nothing is given away
            time = self.grid.stamps[row]
            out.append(Outcome(order, time, Fill(asset, -shares, paid, Decimal(0), time), why))
        return out

    def meet(
        self, row: int, book: Book, orders: Sequence[Order], decided: pd.Timestamp
    ) -> tuple[Book, list[Outcome]]:
        """Fill orders in turn at `row`, as far as there is volume and cash."""
        out, cash, fills = [], book.cash, []
        changed: dict[str, int] = {}  # by the orders before
        for order in orders:
            held = book.positions.get(order.asset)
            shares = (held.shares if held else 0) + changed.get(order.asset, 0)
            fill, said = self._filled(row, cash, shares, order)
            if fill is not None:
                cash += fill.cash
                changed[order.asset] = changed.get(order.asset, 0) + fill.shares
                fills.append(fill)
            out.append(Outcome(order, decided, fill, said))
        return book.filled(*fills) if fills else book, out

    @cached_property
    def _first_end(self) -> int:
        """The last row before which nothing was delisted."""
        return int(self.ends.min(initial=len(self.price)))

    @cached_property
    def _worse(self) -> dict[bool, Decimal]:
        """What a price is multiplied with, of a purchase and of a sale."""
        slip = exact(self.terms.slippage)
        return {True: 1 + slip, False: 1 - slip}

    @cached_property
    def _fee(self) -> Decimal:
        return exact(self.terms.commission)

    def _filled(self, row: int, cash: Decimal, held: int, order: Order) -> tuple[Fill | None, str]:
        place = self.grid.place[order.asset]
        price, volume = float(self.price[row, place]), float(self.volume[row, place])
        if not np.isfinite(price):
            return None, "not filled: no bar"
        if volume == 0:
            return None, "not filled: not traded"
        lot, shares, said = self.terms.lot_of(order.asset), order.shares, "filled"
        cap = self.terms.volume_cap
        if cap is not None and volume * cap < shares:  # NaN is unknown, not little
            shares, said = int(volume * cap) // lot * lot, "volume"
        buys = order.action == "BUY"
        paid = exact(price) * self._worse[buys]
        if not buys:
            shares = min(shares, held)
        elif shares:
            most = self._affordable(cash, paid, place, lot)
            if most < shares:
                shares, said = most, "cash"
        if shares <= 0:
            return None, f"not filled: {said if said != 'filled' else 'not held'}"
        cost = self._cost(paid, shares, place)
        fill = Fill(order.asset, shares if buys else -shares, paid, cost, self.grid.stamps[row])
        return fill, said if shares == order.shares else f"in part: {said}"

    def _affordable(self, cash: Decimal, price: Decimal, place: int, lot: int) -> int:
        """Most shares in whole lots that `cash` pays, cost included."""
        each = price * (1 + self.halves[place]) * lot
        spare = max(cash - self._fee, Decimal(0))
        lots = int((spare / each).to_integral_value(ROUND_FLOOR))
        while lots and money(price * lots * lot) + self._cost(price, lots * lot, place) > cash:
            lots -= 1  # cents that were rounded up
        return lots * lot

    def _cost(self, price: Decimal, shares: int, place: int) -> Decimal:
        return money(price * shares * self.halves[place] + self._fee)

    def _last(self, row: int, asset: str) -> float:
        return float(self.grid.last[row, self.grid.place[asset]])
