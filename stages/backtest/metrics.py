"""What a series of returns is worth, by the field's definitions; which mean is meant is said.

Returns are simple, of one period each, as fractions: shape (T,). `per_year` is the number of
periods in a year. What is not defined is NaN, never 0.
"""

import numpy as np
import pandas as pd
from scipy.stats import kurtosis, skew

from stages.backtest.drawdowns import drawdown, drawdowns
from stages.backtest.tails import KINDS, expected_shortfall, value_at_risk
from stages.base import DataError
from stages.evaluate.sharpe import sharpe_ratio

NONE = float("nan")
LEVEL = 0.95  # of value at risk and expected shortfall


def total_return(returns: np.ndarray) -> float:
    """What a unit gained over all periods, compounded."""
    return float(np.prod(1 + np.asarray(returns)) - 1)


def geometric_return(returns: np.ndarray, per_year: float) -> float:
    """Compound growth of a year (CAGR): what was had."""
    if not len(returns):
        return NONE
    return float((1 + total_return(returns)) ** (per_year / len(returns)) - 1)


def arithmetic_return(returns: np.ndarray, per_year: float) -> float:
    """Mean of the periods times those of a year, not compounded: what a Sharpe ratio is made of."""
    return float(np.mean(returns) * per_year) if len(returns) else NONE


def volatility(returns: np.ndarray, per_year: float) -> float:
    """Standard deviation (divisor T - 1) times the root of the periods of a year."""
    return float(np.std(returns, ddof=1) * np.sqrt(per_year)) if len(returns) > 1 else NONE


def sharpe(returns: np.ndarray, per_year: float, rate: np.ndarray | float = 0.0) -> float:
    """Annual Sharpe ratio of what exceeds `rate`, the riskless return of each period."""
    return sharpe_ratio(np.asarray(returns) - rate) * float(np.sqrt(per_year))


def sortino(returns: np.ndarray, per_year: float, rate: np.ndarray | float = 0.0) -> float:
    """Annual mean above `rate` over the root mean square of what falls below it.

    References
    ----------
    Sortino & Price (1994), J. Investing 3(3): all periods count in the divisor, not the losses
    alone.
    """
    excess = np.asarray(returns) - rate
    below = np.sqrt(np.mean(np.minimum(excess, 0.0) ** 2)) if len(excess) else 0.0
    return float(excess.mean() / below * np.sqrt(per_year)) if below > 0 else NONE


def calmar(returns: np.ndarray, per_year: float) -> float:
    """Geometric return of a year over the deepest drawdown."""
    deepest = -drawdown(returns).min() if len(returns) else 0.0
    return float(geometric_return(returns, per_year) / deepest) if deepest > 0 else NONE


def profit_factor(gains: np.ndarray) -> float:
    """Sum of the gains over the sum of the losses; infinite without a loss, NaN without either."""
    gains = np.asarray(gains)
    won, lost = gains[gains > 0].sum(), -gains[gains < 0].sum()
    if lost > 0:
        return float(won / lost)
    return float("inf") if won > 0 else NONE


def measure(
    returns: pd.Series, per_year: float, rate: np.ndarray | float = 0.0
) -> dict[str, float]:
    """All figures of one series of returns.

    Parameters
    ----------
    returns : Series of T floats
        Finite, by time.
    per_year : float > 0
        See `stages.evaluate.sharpe.bars_per_year`.
    rate : float or ndarray of shape (T,), default=0
        Riskless return of a period, for the Sharpe and the Sortino ratio.

    Returns
    -------
    dict of str to float
        Returns, volatility, drawdowns and tails are fractions, tails and drawdowns as losses
        above 0 and of one period; ``longest_drawdown`` is in periods, from peak to recovery or to
        the end. See docs/backtest.md.

    Raises
    ------
    DataError
        SV-F12 for a return that is not finite.
    """
    x = checked(returns).to_numpy()
    falls = drawdowns(returns)
    figures = {
        "total_return": total_return(x) if len(x) else NONE,
        "geometric_return": geometric_return(x, per_year),
        "arithmetic_return": arithmetic_return(x, per_year),
        "volatility": volatility(x, per_year),
        "sharpe": sharpe(x, per_year, rate),
        "sortino": sortino(x, per_year, rate),
        "calmar": calmar(x, per_year),
        "max_drawdown": float(falls["depth"].max()) if len(falls) else 0.0,
        "longest_drawdown": float(falls["length"].max()) if len(falls) else 0.0,
        "periods_up": float(np.mean(x > 0)) if len(x) else NONE,
        "best": float(x.max()) if len(x) else NONE,
        "worst": float(x.min()) if len(x) else NONE,
        "skew": float(skew(x)) if len(x) > 2 and np.ptp(x) > 0 else NONE,
        "kurtosis": float(kurtosis(x, fisher=False)) if len(x) > 3 and np.ptp(x) > 0 else NONE,
    }
    for kind in KINDS:
        figures[f"var_{kind}"] = value_at_risk(x, LEVEL, kind)
        figures[f"cvar_{kind}"] = expected_shortfall(x, LEVEL, kind)
    return figures


def by_group(
    returns: pd.Series, groups: pd.Series, per_year: float, rate: np.ndarray | float = 0.0
) -> pd.DataFrame:
    """`measure` of the periods of each group, in order of first appearance.

    Parameters
    ----------
    returns : Series of T floats
    groups : Series of T labels
        On the same times, such as a year or a regime; a missing label is in no group.
    per_year, rate
        See `measure`. Drawdowns and totals are those of the group's periods put side by side.

    Returns
    -------
    DataFrame
        A row a group: ``periods`` and the figures.
    """
    if not groups.index.equals(returns.index):
        raise DataError(
            "groups and returns stand at different times",
            code="SV-F20",
            why="a period would be counted in another one's group",
            cure="groups.reindex(returns.index)",
        )
    rates = np.broadcast_to(np.asarray(rate, dtype="float64"), len(returns))
    rows = {}
    for name in groups.dropna().unique():
        mine = (groups == name).to_numpy(dtype=bool)
        figures = measure(returns[mine], per_year, rates[mine])
        rows[name] = {"periods": float(mine.sum())} | figures
    return pd.DataFrame(rows).T


def by_year(returns: pd.Series, per_year: float, rate: np.ndarray | float = 0.0) -> pd.DataFrame:
    """`by_group` of calendar years, UTC."""
    years = pd.DatetimeIndex(returns.index).year
    return by_group(returns, pd.Series(years, returns.index), per_year, rate)


def by_month(returns: pd.Series) -> pd.DataFrame:
    """Compounded return of every calendar month: a row a year, columns 1 to 12 and ``year``."""
    times = pd.DatetimeIndex(returns.index)
    growth = np.log1p(checked(returns))
    months = growth.groupby([times.year, times.month]).sum().unstack()
    months = months.reindex(columns=range(1, 13)).rename_axis(index="year", columns=None)
    return np.expm1(months.assign(year=growth.groupby(times.year).sum()))


def market_regimes(close: pd.Series, bars: int = 200) -> pd.Series:
    """``rising`` or ``falling`` at each bar: whether the bar before closed above its mean.

    Parameters
    ----------
    close : Series of T floats
        Of a market index, by time.
    bars : int, default=200
        Of the mean; no label before it is full.
    """
    above = (close > close.rolling(bars).mean()).shift()
    known = close.rolling(bars).count().shift() >= bars
    labels = pd.Series(np.where(above == 1, "rising", "falling"), close.index, dtype="object")
    return labels.where(known).rename("regime")


def checked(returns: pd.Series) -> pd.Series:
    """`returns` as float64, or an error that names the first that is not finite."""
    values = returns.astype("float64")
    odd = ~np.isfinite(values.to_numpy())
    if odd.any():
        raise DataError(
            f"the return at {returns.index[odd][0]} is {values[odd].iloc[0]}",
            code="SV-F12",
            why="figures of the other periods alone would hide it",
            cure="fill the price in that is missing, or begin later",
        )
    return values
