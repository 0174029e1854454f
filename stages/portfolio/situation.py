"""What a policy sees of one day, and the rows in which it is told."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from stages.portfolio.book import Action, Book, Order, Plan, exact
from stages.portfolio.members import MEMBER
from stages.portfolio.prepared import Day

MOVE = "move"  # one-bar log return
SCORES = ("rank", "cluster", "price", "volatility", "target_weight")


@dataclass(frozen=True)
class Opinion:
    """What a policy thinks of each of A assets on one day.

    Attributes
    ----------
    signals : float64 ndarray of shape (A,)
        1, 0, -1; NaN where it cannot be told.
    columns : mapping of str to float64 ndarray of shape (A,)
        What else was judged; ``signal_strength`` and ``momentum_score`` go into the orders. An
        asset with a NaN in any of them is not judged.
    """

    signals: np.ndarray
    columns: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Situation:
    """What a policy chooses from.

    Attributes
    ----------
    day : Day
    book : Book
        Brought up to the day.
    opinion : Opinion
    judged : bool ndarray of shape (A,)
        Traded today, and nothing of the opinion is missing.
    held : bool ndarray of shape (A,)
        Judged holdings that are not sold for risk.
    barred : bool ndarray of shape (A,)
        Sold for risk today.
    blocked : str
        Why nothing may be bought; empty if it may.
    room : int
        Positions there is room for, besides holdings that cannot be traded.
    """

    day: Day
    book: Book
    opinion: Opinion
    judged: np.ndarray
    held: np.ndarray
    barred: np.ndarray
    blocked: str
    room: int

    def z(self, name: str) -> np.ndarray:
        """A column of the opinion against the assets that were judged: shape (A,)."""
        values = self.opinion.columns[name]
        mean, spread = values[self.judged].mean(), values[self.judged].std()
        return (values - mean) / spread if spread > 0 else np.zeros(len(values))

    @property
    def holdings(self) -> list[str]:
        """Names of `held`."""
        return [self.day.assets[place] for place in np.flatnonzero(self.held).tolist()]


class LazyPlan(Plan):
    """A plan whose tables are made when somebody looks at them; a simulation does not.

    Parameters
    ----------
    orders, book, checks
        See `Plan`.
    signals, scores, skipped : callable
        Make what `Plan` holds under these names.
    """

    def __init__(
        self,
        orders: tuple[Order, ...],
        book: Book,
        checks: Mapping[str, str],
        signals: Callable[[], Mapping[str, int]],
        scores: Callable[[], pd.DataFrame],
        skipped: Callable[[], Mapping[str, str]],
    ) -> None:
        made = {"signals": signals, "scores": scores, "skipped": skipped}
        for name, value in (
            ("orders", orders),
            ("book", book),
            ("checks", checks),
            ("_made", made),
        ):
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:  # of what is not there yet
        make = self.__dict__.get("_made", {}).get(name)
        if make is None:
            raise AttributeError(name)
        object.__setattr__(self, name, make())
        return self.__dict__[name]


def order(
    now: Situation, asset: str, shares: int, reason: str, weights: Mapping[str, float]
) -> Order:
    """An order for `shares`, below 0 to sell."""
    place, price = now.day.prepared.place[asset], now.day.price(asset)
    columns = now.opinion.columns
    strength, score = (
        float(columns[name][place]) if name in columns else float("nan")
        for name in ("signal_strength", "momentum_score")
    )
    action: Action = "BUY" if shares > 0 else "SELL"
    value = float(exact(price) * abs(shares))
    weight = weights.get(asset, 0.0)
    return Order(asset, action, abs(shares), reason, strength, score, weight, price, value)


def signals(now: Situation) -> dict[str, int]:
    """1, 0 or -1 of each asset that was judged."""
    judged = np.flatnonzero(now.judged)
    sides = now.opinion.signals[judged].astype(int).tolist()
    return {now.day.assets[p]: side for p, side in zip(judged.tolist(), sides, strict=True)}


def scores(
    now: Situation, ranks: Mapping[str, int], weights: Mapping[str, float] | None
) -> pd.DataFrame:
    """One row an asset; what was not judged stays NaN, and so do weights between rebalances."""
    columns = now.opinion.columns
    table = np.full((len(now.day.assets), len(columns) + len(SCORES)), np.nan)
    for number, values in enumerate(columns.values()):
        table[:, number] = values
    rest = len(columns)
    place = now.day.prepared.place
    for asset, rank in ranks.items():
        table[place[asset], rest] = rank
    if weights is not None:
        table[now.judged, rest + 4] = 0.0
        for asset, weight in weights.items():
            table[place[asset], rest + 4] = weight
    for asset, cluster in now.book.clusters.items():
        if asset in place:
            table[place[asset], rest + 1] = cluster
    table[:, rest + 2] = now.day.prepared.last[now.day.row]
    if "volatility" in now.day.prepared.columns:
        table[:, rest + 3] = now.day.column("volatility")
    return pd.DataFrame(table, index=now.day.prepared.names, columns=_index((*columns, *SCORES)))


@lru_cache(maxsize=8)
def _index(names: tuple[str, ...]) -> pd.Index:
    """Made once: it takes longer than the table itself."""
    return pd.Index(names, dtype="str")


def skipped(now: Situation, need: int, jump: float | None) -> dict[str, str]:
    """Why each of the other assets was not judged; `need` bars are the longest warm-up."""
    out = {}
    prepared, row = now.day.prepared, now.day.row
    for place in np.flatnonzero(~now.judged).tolist():
        seen = int(prepared.seen[row, place])
        if not np.isfinite(prepared.columns["close"][row, place]):
            why = "no bar" if seen else "not listed yet"
        elif MEMBER in prepared.columns and not prepared.columns[MEMBER][row, place]:
            why = "not in the universe"
        elif not prepared.open[row, place]:
            why = "halted: no volume"
        elif jump is not None and abs(moved := prepared.columns[MOVE][row, place]) > jump:
            why = f"jump of {np.expm1(moved):+.1%} in one bar: a split, or news"
        elif seen <= need:
            why = f"short history: {seen} bars, {need + 1} needed"
        else:
            why = "a value is missing within its windows"
        out[prepared.assets[place]] = why
    return out
