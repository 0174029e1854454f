"""What every policy does at a decision time: value, cluster, check, choose, size, order."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cache, cached_property
from typing import ClassVar

import numpy as np
import pandas as pd

from stages.base import DataError
from stages.features.returns import log_return
from stages.panel import warmup
from stages.portfolio.book import Book, Order, Plan, Position
from stages.portfolio.checks import Check, Verdict
from stages.portfolio.clusters import Clusters, cluster_of
from stages.portfolio.members import MEMBER, membership
from stages.portfolio.prepared import Column, Day, Prepared, prepare
from stages.portfolio.situation import (
    MOVE,
    LazyPlan,
    Opinion,
    Situation,
    order,
    scores,
    signals,
    skipped,
)
from stages.portfolio.sizes import Sizes, lots
from stages.portfolio.target import Choice

LEFT = "left the universe"


@dataclass(frozen=True, kw_only=True)
class Rebalancing(ABC):
    """A policy that rebalances every few days and lets risk checks act every day.

    Parameters
    ----------
    every : int >= 1, default=5
        Decision times from one regular rebalance to the next.
    clusters : Clusters
    checks : mapping of str to Check or None, optional
        Risk comes first: what a check sells is sold on any day and whatever its rank. None is off.
    sizes : Sizes
    quorum : float in [0, 1], default=0.5
        Share of the listed assets that must be traded at a regular rebalance; with fewer, as on the
        holiday of one exchange of several, it waits for the next decision time.
    jump : float > 0 or None, default=0.4
        An asset whose last bar moved by more, as a log return, is not judged and its holding not
        touched that day: a split that nobody adjusted, or news for a person. None judges all.
    """

    tilts_by: ClassVar[str] = "signal_strength"  # column that `Sizes.tilt` reads
    by_volatility: ClassVar[bool] = True  # whether the sizes decide, or the policy itself

    every: int = 5
    clusters: Clusters = field(default_factory=Clusters)
    checks: Mapping[str, Check | None] = field(default_factory=dict)
    sizes: Sizes = field(default_factory=Sizes)
    quorum: float = 0.5
    jump: float | None = 0.4

    def __post_init__(self) -> None:
        if self.every < 1 or not (self.jump is None or self.jump > 0):
            raise ValueError(f"need every >= 1 and jump > 0, got {self.every} and {self.jump}")
        if not 0 <= self.quorum <= 1:
            raise ValueError(f"need quorum in [0, 1], got {self.quorum}")

    @abstractmethod
    def judged_by(self) -> Mapping[str, Column]:
        """Columns that `opinion` reads."""

    @abstractmethod
    def opinion(self, day: Day, held: np.ndarray) -> Opinion:
        """What to think of each asset; `held` is bool of shape (A,)."""

    def ranks(self, now: Situation) -> Mapping[str, int]:
        """Rank from 1 of the assets that are ranked, in order; none by default."""
        return {}

    @abstractmethod
    def choose(self, now: Situation, ranks: Mapping[str, int]) -> Choice:
        """What to hold."""

    @property
    def _checks(self) -> dict[str, Check]:
        return {name: check for name, check in self.checks.items() if check is not None}

    @property
    def columns(self) -> dict[str, Column]:
        """All that must be prepared."""
        parts = [check.columns() for check in self._checks.values()]
        sizes = self.sizes.columns() if self.by_volatility else {}
        merged: dict[str, Column] = {MOVE: log_return, **sizes, **self.judged_by()}
        for part in parts:
            merged |= part
        return merged

    @cached_property
    def warmup(self) -> int:
        """Bars before the first at which everything is known."""
        return max([self.clusters.bars, *(warmup(column) for column in self.columns.values())])

    def with_lots(self, sizes: Mapping[str, int]) -> "Rebalancing":
        """The same policy with these lots, shares by asset."""
        return replace(self, sizes=replace(self.sizes, lots=dict(sizes)))

    def prepare(self, bars: pd.DataFrame) -> Prepared:
        """Causal columns of all rows at once; see `stages.portfolio.prepared.prepare`.

        Where `bars` have the column `stages.portfolio.members.MEMBER`, only assets that belong on
        the day are judged, and a holding that has left is sold as for risk.
        """
        belongs = {MEMBER: membership} if MEMBER in bars else {}
        return prepare(bars, self.columns | belongs)

    def plan(self, prepared: Prepared, at: pd.Timestamp, book: Book) -> Plan:
        """What to do at the bar after `at`.

        Parameters
        ----------
        prepared : Prepared
        at : Timestamp
            A decision time; the last row known by then is looked at, and none after it.
        book : Book

        Returns
        -------
        Plan

        Raises
        ------
        DataError
            SV-F18 for a time before the first bar, SV-F20 for a holding without any bar, SV-X611
            for a book of a later time.
        """
        day = prepared.day(at)
        if book.as_of is not None and book.as_of > day.time:
            raise _later(book.as_of, day.time)
        worth = _worth(day, book)
        book, said = self._up_to_date(day, book, worth)
        verdicts = {name: check.judge(day, book) for name, check in self._checks.items()}
        said |= {name: verdict.said for name, verdict in verdicts.items()}
        exits = self._forced(day, book, verdicts.values())
        blocked = "; ".join(v.blocked for v in verdicts.values() if v.blocked)
        kept = book

        @cache  # on most days of a simulation nobody asks
        def now() -> Situation:
            return self._situation(day, kept, exits, blocked)

        due = self._due(day, book) and now().judged.any()
        choice = self.choose(now(), self.ranks(now())) if due else None
        weights: dict[str, float] = {}
        orders: tuple[Order, ...] = ()
        if choice is not None:
            book = replace(book, rebalanced=day.time)
            weights = self._weights(now(), choice)
            orders = self._orders(now(), choice, weights, exits, worth)
        elif exits:
            orders = _exits(now(), exits)
        return LazyPlan(
            orders,
            book,
            said,
            lambda: signals(now()),
            lambda: scores(now(), self.ranks(now()), weights if choice else None),
            lambda: skipped(now(), self.warmup, self.jump),
        )

    def _due(self, day: Day, book: Book) -> bool:
        """Whether a regular rebalance is, and enough of what is listed was traded."""
        if book.rebalanced is not None and 0 <= day.since(book.rebalanced) < self.every:
            return False
        living = day.living
        return bool(day.prepared.open[day.row].sum() >= self.quorum * living.sum())

    def _up_to_date(self, day: Day, book: Book, worth: Decimal) -> tuple[Book, dict[str, str]]:
        """The book with today's highest closes, peak and clusters."""
        positions, (prices, traded) = dict(book.positions), day.quotes(book.positions)
        higher = traded & (prices > [position.highest for position in positions.values()])
        if higher.any():
            for (asset, held), price, up in zip(
                book.positions.items(), prices, higher, strict=True
            ):
                if up:
                    bought = (held.shares, held.entered, held.entry_price)
                    positions[asset] = Position(*bought, float(price))
        book = replace(book, as_of=day.time, positions=positions, peak=max(book.peak, float(worth)))
        if not self.clusters.due(day, book):
            return book, {}
        found = self.clusters.at(day)
        if not found:
            kept = "those of before stay" if book.clusters else "each asset stands alone"
            why = f"unavailable: no two assets have {self.clusters.bars} returns; {kept}"
            return book, {"clusters": why}
        count = f"{len(found)} assets in {len(set(found.values()))} clusters"
        return replace(book, clusters=found, clustered=day.time), {"clusters": count}

    def _situation(self, day: Day, book: Book, exits: Mapping[str, str], blocked: str) -> Situation:
        held, barred = (np.zeros(len(day.assets), dtype=bool) for _ in range(2))
        held[[day.prepared.place[asset] for asset in book.positions]] = True
        barred[[day.prepared.place[asset] for asset in exits]] = True
        opinion = self.opinion(day, held)
        judged = self._calm(day) & day.belongs & np.isfinite(opinion.signals)
        if self.by_volatility:
            judged &= np.isfinite(day.column("volatility"))
        for values in opinion.columns.values():
            judged &= np.isfinite(values)
        stuck = int((held & ~judged & ~barred).sum())
        return Situation(
            day,
            book,
            opinion,
            judged,
            held & judged & ~barred,
            barred,
            blocked,
            max(self.sizes.positions - stuck, 0),
        )

    def _forced(self, day: Day, book: Book, verdicts: Iterable[Verdict]) -> dict[str, str]:
        """Holdings that must go and can be traded, and why: the first check has the word."""
        found = [(asset, why) for verdict in verdicts for asset, why in verdict.exits.items()]
        if MEMBER in day.prepared.columns:
            belong = day.belongs.take(day.prepared.places(book.positions)).tolist()
            found += [
                (a, LEFT) for a, is_in in zip(book.positions, belong, strict=True) if not is_in
            ]
        if not found:
            return {}
        calm, place = self._calm(day), day.prepared.place
        return {a: why for a, why in reversed(found) if a in book.positions and calm[place[a]]}

    def _calm(self, day: Day) -> np.ndarray:
        """Assets that were traded and did not jump: bool of shape (A,)."""
        most = np.inf if self.jump is None else self.jump
        return day.prepared.open[day.row] & ~(np.abs(day.column(MOVE)) > most)

    def _weights(self, now: Situation, choice: Choice) -> dict[str, float]:
        """Weights of what was chosen, under the caps."""
        names = list(choice.reasons)
        if not names:
            return {}
        clusters = [cluster_of(asset, now.book.clusters) for asset in names]
        if choice.claims is None:
            places = [now.day.prepared.place[asset] for asset in names]
            spread = now.day.column("volatility")[places]
            z = now.z(self.tilts_by)[places] if self.sizes.tilt else np.zeros(len(names))
            claims = self.sizes.claims(spread, z)
        else:
            claims = np.array([choice.claims[asset] for asset in names])
        weights = self.sizes.weights(claims, clusters, choice.full)
        return dict(zip(names, weights.tolist(), strict=True))

    def _orders(
        self,
        now: Situation,
        choice: Choice,
        weights: Mapping[str, float],
        exits: Mapping[str, str],
        worth: Decimal,
    ) -> tuple[Order, ...]:
        held = now.book.positions
        gone = {**choice.leave, **exits}
        stuck = {a: p.shares for a, p in held.items() if a not in gone and a not in weights}
        prices = {asset: now.day.price(asset) for asset in (*weights, *stuck)}
        clusters = {asset: cluster_of(asset, now.book.clusters) for asset in prices}
        shares = {asset: p.shares for asset, p in held.items()}
        target = lots(weights, prices, clusters, self.sizes, worth, stuck, shares)
        sells = list(_exits(now, gone))
        buys = []
        for asset, wanted in target.items():
            have = shares.get(asset, 0)
            if wanted < have:
                sells.append(order(now, asset, wanted - have, _trim(choice, asset), weights))
            elif wanted > have and not now.blocked and asset not in choice.unconfirmed:
                word = "add" if have else "enter"
                why = f"{word}: {choice.reasons[asset]}"
                buys.append(order(now, asset, wanted - have, why, weights))
        return (*sells, *buys)


def _later(book: pd.Timestamp, at: pd.Timestamp) -> DataError:
    return DataError(
        f"the book is of {book}, later than the decision at {at}",
        code="SV-X611",
        why="it holds what was bought on what was not known then",
        cure="take the book of the day before, or newer bars",
    )


def _worth(day: Day, book: Book) -> Decimal:
    """Total value at the newest closes."""
    missing = [asset for asset in book.positions if asset not in day.prepared.place]
    if missing:
        raise DataError(
            f"{missing[0]} is held and not in the data",
            code="SV-F20",
            where=f"{len(missing)} of {len(book.positions)} holdings",
            why="a holding that is not looked at would keep its shares for ever",
            cure="bring its bars, or book the sale",
        )
    prices = day.quotes(book.positions)[0].tolist()
    return book.value(dict(zip(book.positions, prices, strict=True)))


def _exits(now: Situation, reasons: Mapping[str, str]) -> tuple[Order, ...]:
    # by name: a book that was stored and restored holds them in another order
    held, sold = now.book.positions, sorted(reasons.items())
    return tuple(order(now, asset, -held[asset].shares, why, {}) for asset, why in sold)


def _trim(choice: Choice, asset: str) -> str:
    return f"trim: {choice.reasons[asset]}, above its weight"
