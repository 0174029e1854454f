"""Risk checks: what must be sold whatever its rank, and when nothing may be bought."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np

from stages.features.volatility import average_true_range, volatility_ratio
from stages.portfolio.book import Book
from stages.portfolio.prepared import Column, Day


@dataclass(frozen=True)
class Verdict:
    """What a check found at one decision time.

    Attributes
    ----------
    said : str
        In words, for the result of the run; a check that could not run says ``unavailable``.
    exits : mapping of str to str
        Asset to the reason it is sold for.
    blocked : str
        Why nothing may be bought; empty if it may.
    """

    said: str
    exits: Mapping[str, str] = field(default_factory=dict)
    blocked: str = ""


class Check(Protocol):
    """A risk check. A custom one is a dataclass with these two functions and a yaml that names it.

    `columns` names what must be prepared, as features; `judge` reads the day and the book, whose
    highest closes and peak have been brought up to the day.
    """

    def columns(self) -> Mapping[str, Column]: ...

    def judge(self, day: Day, book: Book) -> Verdict: ...


@dataclass(frozen=True)
class TrailingStop:
    """Sell what closes some average true ranges below its highest close since entry.

    Parameters
    ----------
    period : int >= 1, default=14
        Wilder's period of the average true range.
    multiple : float > 0, default=2

    References
    ----------
    Wilder (1978), "New Concepts in Technical Trading Systems", p. 21 (the range); LeBeau & Lucas
    (1992), "Technical Traders Guide to Computer Analysis of the Futures Market" (the exit).
    """

    period: int = 14
    multiple: float = 2.0

    def __post_init__(self) -> None:
        if self.period < 1 or not self.multiple > 0:
            raise ValueError(f"need period >= 1 and multiple > 0, got {self}")

    def columns(self) -> dict[str, Column]:
        memory = 10 * self.period  # leaves out a weight of e^-10
        return {
            f"range.{self.period}": partial(average_true_range, period=self.period, memory=memory)
        }

    def judge(self, day: Day, book: Book) -> Verdict:
        prices, traded = day.quotes(book.positions)
        highest = np.array([position.highest for position in book.positions.values()])
        floors = highest - self.multiple * prices * day.values(
            f"range.{self.period}", book.positions
        )
        known, names = np.isfinite(floors), list(book.positions)
        exits = {
            names[k]: f"trailing stop: close {prices[k]:.6g} below {floors[k]:.6g}, "
            f"the highest {highest[k]:.6g} less {self.multiple:g} ranges"
            for k in np.flatnonzero(traded & (prices < floors)).tolist()
        }
        unknown = [names[k] for k in np.flatnonzero(traded & ~known).tolist()]
        return Verdict(_counted(exits, "sold", unknown), exits)


@dataclass(frozen=True)
class TimeStop:
    """Sell what has not paid after some time.

    Parameters
    ----------
    bars : int >= 1, default=60
        Decision times since entry.
    below : float, default=-0.05
        Return since entry, before cost, under which it is sold, fraction.
    """

    bars: int = 60
    below: float = -0.05

    def __post_init__(self) -> None:
        if self.bars < 1:
            raise ValueError(f"need bars >= 1, got {self.bars}")

    def columns(self) -> dict[str, Column]:
        return {}

    def judge(self, day: Day, book: Book) -> Verdict:
        exits = {}
        prices, traded = day.quotes(book.positions)
        entries = np.array([position.entry_price for position in book.positions.values()])
        gains, names = prices / entries - 1, list(book.positions)
        for k in np.flatnonzero(traded & (gains < self.below)).tolist():
            held = day.since(book.positions[names[k]].entered)
            if held >= self.bars:
                exits[names[k]] = f"time stop: {gains[k]:+.1%} after {held} bars"
        return Verdict(_counted(exits, "sold"), exits)


@dataclass(frozen=True)
class CircuitBreaker:
    """Buy nothing while the market stands far below its high.

    Parameters
    ----------
    drawdown : float in (-1, 0), default=-0.10
        From the highest market close of the last `bars`.
    bars : int >= 2, default=252
        A window, so that the answer does not depend on where the history begins.

    Notes
    -----
    Without market data it says ``unavailable``; it is never silently off.
    """

    drawdown: float = -0.10
    bars: int = 252

    def __post_init__(self) -> None:
        if not -1 < self.drawdown < 0 or self.bars < 2:
            raise ValueError(f"need drawdown in (-1, 0) and bars >= 2, got {self}")

    def columns(self) -> dict[str, Column]:
        return {}

    def judge(self, day: Day, book: Book) -> Verdict:
        market = day.prepared.market
        if market is None:
            return Verdict("unavailable: the data have no market column (data.market=ASSET)")
        past = day.past(market, self.bars)
        if not np.isfinite(past[-1]):
            return Verdict(f"unavailable: the market has no close at {day.time:%Y-%m-%d}")
        depth = float(past[-1] / np.fmax.reduce(past) - 1)  # the highest of those that are known
        said = f"market {depth:+.1%} from its high of {len(past)} bars"
        if depth < self.drawdown:
            return Verdict(said, blocked=f"circuit breaker: {said}, limit {self.drawdown:+.0%}")
        return Verdict(said)


@dataclass(frozen=True)
class VolatilitySpike:
    """Sell what moves much more than it used to.

    Parameters
    ----------
    fast, slow : int
        Bars of the two standard deviations compared.
    times : float > 1, default=3
        Ratio of fast to slow from which it is sold.
    """

    fast: int = 5
    slow: int = 60
    times: float = 3.0

    def __post_init__(self) -> None:
        if not 1 < self.fast < self.slow or not self.times > 1:
            raise ValueError(f"need 1 < fast < slow and times > 1, got {self}")

    def columns(self) -> dict[str, Column]:
        spread = partial(volatility_ratio, fast=self.fast, slow=self.slow)
        return {f"spike.{self.fast}.{self.slow}": spread}

    def judge(self, day: Day, book: Book) -> Verdict:
        exits, unknown = {}, []
        for asset in book.positions:
            if not day.traded(asset):
                continue
            ratio = float(np.exp(day.value(f"spike.{self.fast}.{self.slow}", asset)))
            if not np.isfinite(ratio):
                unknown.append(asset)
            elif ratio > self.times:
                exits[asset] = f"volatility spike: {ratio:.1f} times that of {self.slow} bars"
        return Verdict(_counted(exits, "sold", unknown), exits)


@dataclass(frozen=True)
class CorrelationBreakdown:
    """Buy nothing while the holdings have begun to move as one.

    Parameters
    ----------
    fast, slow : int
        Bars of the two mean pairwise correlations compared.
    rise : float in (0, 2), default=0.3
        By how much the fast one may exceed the slow one.
    """

    fast: int = 20
    slow: int = 120
    rise: float = 0.3

    def __post_init__(self) -> None:
        if not 2 < self.fast < self.slow or not 0 < self.rise < 2:
            raise ValueError(f"need 2 < fast < slow and rise in (0, 2), got {self}")

    def columns(self) -> dict[str, Column]:
        return {}

    def judge(self, day: Day, book: Book) -> Verdict:
        held = [day.prepared.place[asset] for asset in book.positions]
        if len(held) < 2:
            return Verdict("fewer than two holdings")
        prices = day.past(day.prepared.last, self.slow + 1)[:, held]
        returns = np.diff(np.log(prices), axis=0)
        if len(returns) < self.slow or not np.isfinite(returns).all():
            return Verdict(f"unavailable: a holding has no {self.slow} returns")
        moves = (np.ptp(returns[-self.fast :], axis=0) > 0).nonzero()[0]
        if len(moves) < 2:
            return Verdict("unavailable: prices stand still")
        now, before = (
            float(np.corrcoef(part[:, moves], rowvar=False)[np.triu_indices(len(moves), 1)].mean())
            for part in (returns[-self.fast :], returns)
        )
        said = f"mean correlation {now:.2f} over {self.fast} bars, {before:.2f} over {self.slow}"
        if now - before > self.rise:
            return Verdict(said, blocked=f"correlation breakdown: {said}")
        return Verdict(said)


@dataclass(frozen=True)
class DrawdownLimit:
    """Buy nothing, or sell all, while the portfolio itself stands far below its peak.

    Parameters
    ----------
    drawdown : float in (-1, 0), default=-0.15
        Of the total value from the highest at a decision time.
    sell : bool, default=False
        Whether it also sells everything.
    """

    drawdown: float = -0.15
    sell: bool = False

    def __post_init__(self) -> None:
        if not -1 < self.drawdown < 0:
            raise ValueError(f"need drawdown in (-1, 0), got {self.drawdown}")

    def columns(self) -> dict[str, Column]:
        return {}

    def judge(self, day: Day, book: Book) -> Verdict:
        prices = {asset: day.price(asset) for asset in book.positions}
        depth = float(book.value(prices)) / book.peak - 1 if book.peak > 0 else 0.0
        said = f"portfolio {depth:+.1%} from its peak"
        if depth >= self.drawdown:
            return Verdict(said)
        why = f"drawdown limit: {said}, limit {self.drawdown:+.0%}"
        return Verdict(said, dict.fromkeys(book.positions, why) if self.sell else {}, why)


def _counted(exits: Mapping[str, str], word: str, unknown: list[str] | None = None) -> str:
    found = f"{len(exits)} {word}" if exits else "nothing"
    missing = ", ".join(unknown or [])
    return f"{found}; unavailable for {missing}: too short a history" if missing else found
