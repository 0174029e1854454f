"""What is held, what is to be done about it and what was done: books, orders, fills and plans."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal, Protocol

import pandas as pd

from stages.base import DataError

if TYPE_CHECKING:
    from stages.portfolio.prepared import Prepared

CENT = Decimal("0.01")
Action = Literal["BUY", "SELL"]


def exact(number: float | Decimal) -> Decimal:
    """The shortest decimal that reads as `number`: 0.1 is a tenth, not its nearest binary."""
    return number if isinstance(number, Decimal) else Decimal(repr(float(number)))


def money(amount: Decimal) -> Decimal:
    """`amount` to the cent, halves to even."""
    return amount.quantize(CENT, ROUND_HALF_EVEN)


@lru_cache(maxsize=1024)  # within a day a holding is valued more than once
def worth(price: float, shares: int) -> Decimal:
    """Shares times price, to the cent."""
    return money(exact(price) * shares)


@dataclass(frozen=True, slots=True)
class Position:
    """Shares of one asset, long.

    Attributes
    ----------
    shares : int > 0
    entered : Timestamp
        Time of the bar at which the first of them was bought.
    entry_price : float > 0
        Mean price paid a share, without cost.
    highest : float > 0
        Highest close since entry: what the trailing stop hangs from.
    """

    shares: int
    entered: pd.Timestamp
    entry_price: float
    highest: float

    def __post_init__(self) -> None:
        if isinstance(self.shares, bool) or int(self.shares) != self.shares or self.shares <= 0:
            raise ValueError(f"need a whole number of shares above 0, got {self.shares!r}")
        if not (0 < self.entry_price < float("inf") and 0 < self.highest < float("inf")):
            raise ValueError(f"need prices above 0, got {self.entry_price} and {self.highest}")


@dataclass(frozen=True)
class Fill:
    """What was bought or sold.

    Attributes
    ----------
    asset : str
    shares : int
        Below 0 if sold.
    price : Decimal > 0
        Paid or received a share.
    cost : Decimal >= 0
        Commission, spread and slippage together, in currency.
    time : Timestamp
        Of the bar at which it was filled.
    """

    asset: str
    shares: int
    price: Decimal
    cost: Decimal
    time: pd.Timestamp

    def __post_init__(self) -> None:
        if isinstance(self.shares, bool) or int(self.shares) != self.shares or self.shares == 0:
            raise ValueError(f"{self.asset}: need a whole number of shares, got {self.shares!r}")
        if not (self.price.is_finite() and self.price > 0):
            raise ValueError(f"{self.asset}: need a price above 0, got {self.price}")
        if not (self.cost.is_finite() and self.cost >= 0):
            raise ValueError(f"{self.asset}: need a cost of at least 0, got {self.cost}")

    @cached_property
    def cash(self) -> Decimal:
        """What it does to the cash, to the cent."""
        return -money(self.price * self.shares) - money(self.cost)


@dataclass(frozen=True)
class Book:
    """Holdings and cash at a time, and what a policy must remember from one day to the next.

    Attributes
    ----------
    as_of : Timestamp or None
        Decision time it was brought up to; None before the first.
    cash : Decimal
        To the cent.
    positions : mapping of str to Position
    clusters : mapping of str to int
        Correlation cluster of each asset; empty before the first clustering.
    clustered, rebalanced : Timestamp or None
        Decision times of the last clustering and of the last regular rebalance.
    peak : float
        Highest total value seen at a decision time.
    """

    as_of: pd.Timestamp | None
    cash: Decimal
    positions: Mapping[str, Position] = field(default_factory=dict)
    clusters: Mapping[str, int] = field(default_factory=dict)
    clustered: pd.Timestamp | None = None
    rebalanced: pd.Timestamp | None = None
    peak: float = 0.0

    def __post_init__(self) -> None:
        if self.cash != money(self.cash):
            raise ValueError(f"need cash to the cent, got {self.cash}")

    @classmethod
    def opened(cls, cash: float | Decimal) -> "Book":
        """An empty book with `cash` in it."""
        return cls(None, money(exact(cash)))

    def value(self, prices: Mapping[str, float]) -> Decimal:
        """Cash plus shares times price, each rounded to the cent.

        Raises
        ------
        DataError
            SV-F20 for a position without a price above 0: it is not worth nothing.
        """
        total = self.cash
        for asset, position in self.positions.items():
            price = prices.get(asset)
            if price is None or not 0 < price < float("inf"):
                raise DataError(
                    f"{asset} is held and has no price",
                    code="SV-F20",
                    why="a position without a price would be counted as nothing",
                    cure="bring its bars, or book the sale",
                )
            total += worth(price, position.shares)
        return total

    def paid(self, amount: Decimal) -> "Book":
        """The book with `amount` more cash, to the cent: interest, a dividend, a deposit."""
        return replace(self, cash=self.cash + money(amount)) if amount else self

    def filled(self, *fills: Fill) -> "Book":
        """The book after `fills`, one after the other, with exact cash.

        Raises
        ------
        DataError
            SV-X610 for more than the cash pays, or more shares sold than are held.
        """
        cash, positions = self.cash, dict(self.positions)
        for fill in fills:
            after = _after(fill, positions.get(fill.asset))
            if after is None:
                del positions[fill.asset]
            else:
                positions[fill.asset] = after
            if cash + fill.cash < 0 and fill.shares > 0:
                raise _refused(fill, f"{-fill.cash} to pay from {cash}")
            cash += fill.cash
        return replace(self, cash=cash, positions=positions)


@dataclass(frozen=True, slots=True)
class Order:
    """What to do at the next bar, and why.

    Attributes
    ----------
    asset : str
    action : {'BUY', 'SELL'}
    shares : int > 0
    reason : str
        In words, beginning with the part that asked for it.
    signal_strength, momentum_score : float
        What the asset was judged and ranked by; NaN where it was not.
    target_weight : float in [0, 1]
        Share of the total value after the order.
    price : float
        Close of the decision, per share.
    value : float
        Shares times price.
    """

    asset: str
    action: Action
    shares: int
    reason: str
    signal_strength: float
    momentum_score: float
    target_weight: float
    price: float
    value: float


@dataclass(frozen=True)
class Plan:
    """What a policy says at one decision time.

    Attributes
    ----------
    orders : tuple of Order
        Sells first.
    book : Book
        The same holdings and cash; clusters, highest closes, peak and dates brought up to date.
    signals : mapping of str to int
        1, 0 or -1 per asset that was judged.
    scores : DataFrame
        One row an asset: what it was ranked by.
    skipped : mapping of str to str
        Asset to the reason it was not judged: no bar, short history, halted.
    checks : mapping of str to str
        What each risk check, and the clustering, said; a check that could not run says so.
    """

    orders: tuple[Order, ...]
    book: Book
    signals: Mapping[str, int]
    scores: pd.DataFrame
    skipped: Mapping[str, str]
    checks: Mapping[str, str] = field(default_factory=dict)


class Policy(Protocol):
    """From bars and a book to a plan.

    Every prepared column of a time follows from bars up to it, so the daily rebalance (prepare
    what there is, plan the newest time) and a simulation (prepare all, plan each time) agree.
    The times to plan at are those of `Prepared.times`.
    """

    @property
    def warmup(self) -> int:
        """Bars an asset needs before it is judged."""
        ...

    def prepare(self, bars: pd.DataFrame) -> "Prepared": ...

    def plan(self, prepared: "Prepared", at: pd.Timestamp, book: Book) -> Plan: ...


def _after(fill: Fill, held: Position | None) -> Position | None:
    """The position once `fill` is booked; None where all of it was sold."""
    before = held.shares if held else 0
    after = before + fill.shares
    if after < 0:
        raise _refused(fill, f"{-fill.shares} sold where {before} are held")
    if held is None:
        price = float(fill.price)
        return Position(after, fill.time, price, price)
    if after == 0:
        return None
    if fill.shares < 0:
        return replace(held, shares=after)
    paid = exact(held.entry_price) * before + fill.price * fill.shares
    return replace(held, shares=after, entry_price=float(paid / after))


def _refused(fill: Fill, what: str) -> DataError:
    return DataError(
        f"{fill.asset} at {fill.time}: {what}",
        code="SV-X610",
        where=f"fill of {fill.shares} at {fill.price}, cost {fill.cost}",
        why="a book that goes below 0 is wrong from here on",
        cure="correct the fill, or add the cash or shares that came from elsewhere first",
    )
