"""Walk-forward optimisation: what is chosen on the past is judged on what came after."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from stages.backtest.costs import Costs
from stages.backtest.simulate import Backtest, State, simulate
from stages.backtest.terms import Terms
from stages.backtest.trips import round_trips_of
from stages.base import DataError
from stages.evaluate.sharpe import sharpe_ratio
from stages.portfolio.book import Policy
from stages.portfolio.prepared import Prepared

Score = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Window:
    """Periods to choose on, and later ones to judge the choice on; half-open numbers of rows."""

    train: tuple[int, int]
    test: tuple[int, int]


@dataclass(frozen=True)
class WalkForward:
    """What choosing again and again would have earned.

    Attributes
    ----------
    chosen : DataFrame
        A row a window: `begin` and `end` of the test, the variant `chosen`, its `score` where it
        was chosen and its score `after` that.
    returns : Series of floats
        Of what was chosen, in the tests, one after another.
    trials : DataFrame of shape (T, N)
        Returns of every variant over the whole history: what was looked at.
    parts : tuple of Backtest
        One a window, each going on with the book of the one before; empty where no policies but
        returns were given.
    """

    chosen: pd.DataFrame
    returns: pd.Series
    trials: pd.DataFrame
    parts: tuple[Backtest, ...] = ()


def windows(
    periods: int, train: int, test: int, purge: int = 1, anchored: bool = False
) -> list[Window]:
    """Windows that follow each other: after the first training, every period is tested once.

    Parameters
    ----------
    periods : int
        T.
    train, test : int >= 2
        Periods of each.
    purge : int >= 0, default=1
        Periods left out between training and test: at least the horizon of the labels behind a
        score, and one for an order that fills at the next bar.
    anchored : bool, default=False
        Whether each training begins with the first period.

    Raises
    ------
    DataError
        SV-F18 if not one window fits.
    """
    if min(train, test) < 2 or purge < 0:
        raise ValueError(f"need train, test >= 2 and purge >= 0, got {train}, {test}, {purge}")
    out = []
    for begin in range(train + purge, periods - 1, test):
        end = begin - purge
        first = 0 if anchored else end - train
        last = begin + test
        # a single period that is left over belongs to the window before it
        out.append(Window((first, end), (begin, last if last < periods - 1 else periods)))
    if not out:
        raise DataError(
            f"{periods} periods hold no window of {train} to choose, {purge} between and a test",
            code="SV-F18",
            cure="bring more history, or shorten the windows",
        )
    return out


def choose_forward(
    returns: pd.DataFrame, cuts: list[Window], score: Score = sharpe_ratio
) -> WalkForward:
    """Choose among variants whose returns are known: no switch costs anything.

    Parameters
    ----------
    returns : DataFrame of shape (T, N)
        Simple returns of each variant, by time; finite.
    cuts : list of Window
    score : callable, default=sharpe_ratio
        Of returns, shape (t,); the highest is chosen, the first of equals. NaN is the lowest.
    """
    rows, parts = [], []
    for window, best, seen in _choices(returns, cuts, score):
        later = returns.iloc[slice(*window.test), best]
        parts.append(later)
        ends = (later.index[0], later.index[-1])
        rows.append((*ends, returns.columns[best], seen, score(later.to_numpy())))
    return WalkForward(_table(rows), pd.concat(parts).rename("return"), returns)


def walk_forward(
    bars: pd.DataFrame,
    policies: Mapping[str, Policy],
    cut: Callable[[int], list[Window]],
    *,
    costs: Costs,
    capital: float = 1_000_000.0,
    terms: Terms | None = None,
    score: Score = sharpe_ratio,
) -> WalkForward:
    """Choose among policies, and follow the choice with one book: switches cost what they cost.

    Parameters
    ----------
    bars : DataFrame of shape (N, F)
    policies : mapping of str to Policy
        Variants. Each is simulated once over the whole history; what a window sees of it is the
        part that lies in its training.
    cut : callable
        Number of periods to windows, such as ``partial(windows, train=750, test=250)``: periods
        are those of the simulations, which begin where all policies have enough bars.
    costs, capital, terms
        See `stages.backtest.simulate.simulate`.
    score
        See `choose_forward`.
    """
    ready = {name: _Ready(policy, policy.prepare(bars)) for name, policy in policies.items()}
    run = partial(simulate, bars, costs=costs, terms=terms)
    start = max(_begin(policy) for policy in ready.values())
    runs = [run(policy, begin=capital, start=start) for policy in ready.values()]
    returns = pd.DataFrame({name: r.returns for name, r in zip(ready, runs, strict=True)})
    decided = runs[0].days.index  # one more than there are returns
    rows, parts = [], []
    begin: float | State = capital
    for window, best, seen in _choices(returns, cut(len(returns)), score):
        name, times = returns.columns[best], returns.index[slice(*window.test)]
        # what is decided a row before the test is the first that fills in it
        part = run(ready[name], begin=begin, start=decided[window.test[0]], end=times[-1])
        begin = part.state
        parts.append(part)
        rows.append((times[0], times[-1], name, seen))
    followed = joined(parts).returns
    table = _table([(*row, score(followed.loc[row[0] : row[1]].to_numpy())) for row in rows])
    return WalkForward(table, followed, returns, tuple(parts))


def joined(parts: Sequence[Backtest]) -> Backtest:
    """Backtests that went on with each other's book, as one."""
    last = parts[-1]
    days, shares, values = (
        pd.concat([getattr(part, name) for part in parts]) for name in ("days", "shares", "values")
    )
    orders = pd.concat([part.orders for part in parts], ignore_index=True)
    skipped = pd.concat([part.skipped for part in parts])
    return replace(
        last,
        days=days,
        shares=shares,
        values=values,
        orders=orders,
        trips=round_trips_of(orders, pd.DatetimeIndex(days.index), values.iloc[-1]),
        skipped=skipped.groupby(level=0).sum().sort_values(ascending=False),
    )


@dataclass(frozen=True)
class _Ready:
    """A policy whose columns are there already."""

    policy: Policy
    prepared: Prepared

    @property
    def warmup(self) -> int:
        return self.policy.warmup

    def prepare(self, bars: pd.DataFrame) -> Prepared:
        return self.prepared

    def plan(self, prepared, at, book):  # type: ignore[no-untyped-def]
        return self.policy.plan(prepared, at, book)


def _begin(policy: _Ready) -> pd.Timestamp:
    ready = np.asarray((policy.prepared.seen > policy.warmup).any(axis=1))
    if not ready.any():
        raise DataError(
            f"{len(ready)} rows are too few for a policy that needs {policy.warmup + 1}",
            code="SV-F18",
            cure="bring more history, or leave that variant out",
        )
    return policy.prepared.times[int(ready.argmax())]


def _choices(
    returns: pd.DataFrame, cuts: list[Window], score: Score
) -> list[tuple[Window, int, float]]:
    """Each window with the number of the variant that scored highest before it."""
    values = returns.to_numpy("float64")
    out = []
    for window in cuts:
        part = values[slice(*window.train)]
        scores = np.array([score(part[:, k]) for k in range(part.shape[1])])
        best = int(np.where(np.isnan(scores), -np.inf, scores).argmax())
        out.append((window, best, float(scores[best])))
    return out


def _table(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["begin", "end", "chosen", "score", "after"])
