"""What a capital becomes that follows target weights: exact accounting, and no model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import pandas as pd

from stages.backtest.account import follow
from stages.backtest.costs import FREE, Costs, round_trips
from stages.base import DataError

Table = pd.DataFrame | np.ndarray
Rate = float | np.ndarray


@dataclass(frozen=True)
class Wealth:
    """How a capital went over the T - 1 periods between T bars, or over T relatives.

    Attributes
    ----------
    value : Series of T floats
        Capital at each bar, before the trade of that bar: the first is what was put in. Given
        relatives, at the end of each.
    returns : Series of floats
        Of each period, by its end; they compound to the last value.
    cost : Series of floats
        Paid for the trade at the beginning of each period, in the unit of the capital.
    traded : Series of floats
        Value bought plus value sold at the beginning of each period, over the capital there.
    before_costs : bool
        Whether trading was taken to be free; whatever is said of it must then say so.
    """

    value: pd.Series
    returns: pd.Series
    cost: pd.Series
    traded: pd.Series
    before_costs: bool


def wealth(
    weights: Table,
    prices: Table,
    *,
    costs: Costs,
    every_bar: bool = False,
    capital: float = 1.0,
    cash_rate: Rate = 0.0,
    borrow_rate: Rate = 0.0,
) -> Wealth:
    """Follow target weights over time, given prices.

    Parameters
    ----------
    weights : DataFrame or float ndarray of shape (T, A) or (T - 1, A)
        Share of the capital in each asset from the bar of the row on, decided and traded at its
        close; what they leave is cash, below 0 is short. They earn the change to the next bar, so
        those of the last are not used. A row of NaN brings no weights: the holdings drift. A
        DataFrame may hold some of the bars only: the others are such rows.
    prices : DataFrame or float ndarray of shape (T, A)
        One may be missing where nothing is held.
    costs : float, ndarray of shape (A,), mapping, or ``"none"``
        Round trip, fraction; a change costs half of it. See `round_trips`.
    every_bar : bool, default=False
        Whether the newest weights are traded back to at every bar, not at their own only.
    capital : float > 0, default=1
    cash_rate, borrow_rate : float or ndarray of shape (T - 1,), default=0
        Interest of a period, as a fraction: on cash, also below 0, and on the value sold short.

    Returns
    -------
    Wealth

    Raises
    ------
    DataError
        SV-F20 for tables that do not fit each other, a row of weights that is NaN in part, a
        holding without a price, or a capital that is lost.
    ConfigError
        See `round_trips`.

    Notes
    -----
    A trade is paid from what is traded: the weights hold after its cost. So the capital V after a
    trade solves ``V + sum(c * abs(w * V - held)) = before``, by Newton's method, exactly.
    """
    settings = _Settings(costs, every_bar, capital, cash_rate, borrow_rate)
    return _account(weights, prices, True, settings)


def wealth_of_relatives(
    weights: Table,
    relatives: Table,
    *,
    costs: Costs,
    every_bar: bool = False,
    capital: float = 1.0,
    cash_rate: Rate = 0.0,
    borrow_rate: Rate = 0.0,
) -> Wealth:
    """The same, given price relatives: what a unit becomes within each of T - 1 periods.

    Parameters
    ----------
    weights, relatives : DataFrame or float ndarray of shape (T - 1, A)
        The weights of a row are held over the period of the same row.
    costs, every_bar, capital, cash_rate, borrow_rate
        See `wealth`.
    """
    settings = _Settings(costs, every_bar, capital, cash_rate, borrow_rate)
    return _account(weights, relatives, False, settings)


@dataclass(frozen=True)
class _Settings:
    costs: Costs
    every_bar: bool
    capital: float
    cash_rate: Rate
    borrow_rate: Rate


def _account(weights: Table, moves: Table, priced: bool, settings: _Settings) -> Wealth:
    index, assets, moved = _table(moves)
    target, rows = _aligned(weights, index, assets, len(index) - priced)
    if settings.every_bar:
        rows = np.maximum.accumulate(rows)
    rates = round_trips(settings.costs, assets) / 2
    interest = np.empty((2, len(rows)))
    interest[0], interest[1] = settings.cash_rate, settings.borrow_rate
    out = np.empty((3, len(rows) + 1))
    out[0, 0] = settings.capital
    went, held = follow(target, rows, moved, priced, rates, interest, out)
    if went < len(rows):
        aim = target[rows[went]] if rows[went] >= 0 else np.zeros(len(assets))
        _refuse(index[went + priced], aim, held, assets)
    ends = index[1:] if priced else index
    return Wealth(
        pd.Series(out[0] if priced else out[0, 1:], index, name="value"),
        pd.Series(out[0, 1:] / out[0, :-1] - 1, ends, name="return"),
        pd.Series(out[1, 1:], ends, name="cost"),
        pd.Series(out[2, 1:], ends, name="traded"),
        isinstance(settings.costs, str) and settings.costs == FREE,
    )


def _table(given: pd.DataFrame | np.ndarray) -> tuple[pd.Index, list[str], np.ndarray]:
    """Index, assets and values of shape (T, A), whichever way they were given."""
    if isinstance(given, pd.DataFrame):
        _once(given)
        return given.index, [str(name) for name in given.columns], _plain(given.to_numpy())
    values = _plain(given)
    if values.ndim != 2 or not len(values):
        raise _unfit(f"prices have the shape {values.shape}, not (bars, assets)")
    return pd.RangeIndex(len(values)), [str(k) for k in range(values.shape[1])], values


def _aligned(
    weights: Table, index: pd.Index, assets: Sequence[str], periods: int
) -> tuple[np.ndarray, np.ndarray]:
    """Weights, and the row of them that is traded to at the start of each period, or -1."""
    rows = np.arange(len(index))
    if isinstance(weights, pd.DataFrame):
        weights, rows = _placed(weights, index, assets)
    target = _plain(weights)
    if target.ndim != 2 or target.shape[1] != len(assets) or not target.size:
        raise _unfit(f"weights have the shape {target.shape}, for {len(assets)} assets")
    if rows[:periods].max() >= len(target) or len(target) > len(index):
        raise _unfit(f"there are {len(target)} rows of weights for {len(index)} bars")
    empty = np.flatnonzero(np.isnan(target[:, 0]))
    empty = empty[np.isnan(target[empty]).all(axis=1)]
    rows = rows[:periods]
    return target, np.where(np.isin(rows, empty), -1, rows)


def _placed(
    weights: pd.DataFrame, index: pd.Index, assets: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Weights in the order of `assets`, and the row that stands at each bar, or -1."""
    _once(weights)
    weights = weights.rename(columns=str)
    strange = set(weights.columns) ^ set(assets)
    if strange:
        raise _unfit(f"{sorted(strange)[:5]} have weights or prices, and not both")
    place = index.get_indexer(weights.index)
    if (place < 0).any():
        raise _unfit(f"there is no price at {weights.index[place < 0][0]}, where a weight stands")
    rows = np.full(len(index), -1)
    rows[place] = np.arange(len(place))
    return weights[list(assets)].to_numpy(), rows


def _once(table: pd.DataFrame) -> None:
    twice = [axis for axis in (table.index, table.columns) if not axis.is_unique]
    if twice:
        raise _unfit(f"{twice[0][twice[0].duplicated()][0]} stands twice")
    if not table.index.is_monotonic_increasing:
        raise _unfit("rows are out of order")


def _plain(values: np.ndarray) -> np.ndarray:
    # pandas 3 hands out read-only arrays, for which numba would compile again
    return np.require(values, "float64", ["C", "W"])


def _unfit(what: str) -> DataError:
    return DataError(
        what,
        code="SV-F20",
        why="a weight that meets the price of another bar or asset earns what it did not",
        cure="give weights and prices the same assets, bars in order, each once",
    )


def _refuse(bar: object, target: np.ndarray, held: np.ndarray, assets: Sequence[str]) -> NoReturn:
    for asset, aim in zip(assets, target, strict=True):
        if np.isnan(aim):
            raise DataError(
                f"some weights held at {bar} are numbers, that of {asset} is not",
                code="SV-F20",
                why="a row is traded to as a whole, or not at all",
                cure="0 for an asset without a position; NaN in the whole row lets holdings drift",
            )
    for asset, value in zip(assets, held, strict=True):
        if not np.isfinite(value):
            raise DataError(
                f"{asset} is held at {bar} and has no price there, or none before",
                code="SV-F20",
                why="a holding without a price is not worth nothing",
                cure="sell it while it has one, or fill the price in",
            )
    raise DataError(
        f"the capital is lost at {bar}",
        code="SV-F20",
        why="a capital of 0 or below has no return",
        cure="lower the weights: what is borrowed or sold short can cost more than there is",
    )
