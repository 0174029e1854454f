"""All figures of a backtest, of its benchmark and of the two together, with intervals."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from stages.backtest.benchmarks import EQUAL, benchmark_returns, riskless
from stages.backtest.intervals import intervals
from stages.backtest.metrics import by_group, by_month, by_year, market_regimes, measure
from stages.backtest.relative import measure_against
from stages.backtest.simulate import Backtest
from stages.backtest.trips import measure_trips
from stages.base import DataError
from stages.evaluate.sharpe import bars_per_year
from stages.portfolio.prepared import prepare

WEIGHTING = 0.01  # a year, from which another weighting of the same assets is worth a warning


@dataclass(frozen=True)
class Judgement:
    """What a backtest is worth.

    Attributes
    ----------
    figures : Series of float
        Of the returns (`measure`), of the trades (`measure_trips`) and of the book (`book`), and
        beside the benchmark (`measure_against`).
    beside : Series of float
        `measure` of the benchmark.
    intervals : DataFrame
        See `stages.backtest.intervals.intervals`.
    years, regimes, months : DataFrame
        By calendar year, by whether the equal-weight book of all assets rises, and by month.
    returns, benchmark, rate : Series of T floats
        Simple, of each period; of the backtest, of the benchmark, and of cash.
    per_year : float
        Periods of a year.
    warnings : tuple of str
    """

    figures: pd.Series
    beside: pd.Series
    intervals: pd.DataFrame
    years: pd.DataFrame
    regimes: pd.DataFrame
    months: pd.DataFrame
    returns: pd.Series
    benchmark: pd.Series
    rate: pd.Series
    per_year: float
    warnings: tuple[str, ...]


def judge(
    run: Backtest,
    bars: pd.DataFrame,
    benchmark: str = EQUAL,
    cash_rate: float = 0.0,
    resamples: int = 500,
    seed: int = 0,
) -> Judgement:
    """Measure a backtest beside a benchmark.

    Parameters
    ----------
    run : Backtest
    bars : DataFrame
        What it was simulated on.
    benchmark : str, default='equal_weight'
        See `stages.backtest.benchmarks.benchmark_returns`.
    cash_rate : float, default=0
        That of the backtest; ratios are of what exceeds it.
    resamples, seed
        Of the intervals.

    Raises
    ------
    DataError
        SV-F18 for fewer than three rows: one return has no deviation.
    """
    times = pd.DatetimeIndex(run.days.index)
    if len(times) < 3:
        raise DataError(
            f"{len(times)} decisions are too few to judge",
            code="SV-F18",
            where=f"{times[0]} to {times[-1]}",
            cure="begin earlier, or end later",
        )
    returns, rate = run.returns, riskless(times, cash_rate)
    other = benchmark_returns(bars, benchmark, times, cash_rate)
    equal = other if benchmark == EQUAL else benchmark_returns(bars, EQUAL, times)
    pace = bars_per_year(times)
    rates = rate.to_numpy()
    figures = {
        **measure(returns, pace, rates),
        **measure_trips(run.trips),
        **book(run, pace),
        **measure_against(returns, other, pace, rates),
    }
    beside = measure(other, pace, rates)
    whole = benchmark_returns(bars, EQUAL, prepare(bars, {}).times)
    regimes = market_regimes((1 + whole).cumprod()).reindex(returns.index)
    return Judgement(
        pd.Series(figures),
        pd.Series(beside),
        intervals(returns, pace, other, rates, span_of(run), resamples, seed),
        by_year(returns, pace, rates),
        by_group(returns, regimes, pace, rates),
        by_month(returns),
        returns,
        other,
        rate,
        pace,
        tuple(_warnings(run, other, equal, pace)),
    )


def book(run: Backtest, per_year: float) -> dict[str, float]:
    """What the book was like, and what trading it took.

    Returns
    -------
    dict of str to float
        `exposure` (mean share of the equity that is invested), `time_in_market` (share of the rows
        with a holding), `holdings` (mean number, where there are any), `turnover` (a year: half of
        what was bought and sold over the mean equity), `cost_per_year` (over the mean equity),
        `cost_share` (of the gain before costs; NaN if there was none), and `most_in_one` (largest
        weight of an asset at any row).
    """
    days = run.days
    equity, mean = days["equity"], float(days["equity"].mean())
    years = (len(days) - 1) / per_year
    paid = float(days["cost"].sum())
    gross = float(equity.iloc[-1] - equity.iloc[0]) + paid
    held = days["holdings"].to_numpy()
    return {
        "exposure": float((1 - days["cash"] / equity).mean()),
        "time_in_market": float((held > 0).mean()),
        "holdings": float(held[held > 0].mean()) if held.any() else 0.0,
        "turnover": float(days["traded"].sum()) / 2 / mean / years,
        "cost_per_year": paid / mean / years,
        "cost_share": paid / gross if gross > 0 else float("nan"),
        "most_in_one": float(np.max(run.weights.to_numpy())),
    }


def span_of(run: Backtest) -> int:
    """Periods for which a position was held in the mean, at least 1: the length of blocks.

    At most a tenth of the history: what is held from the first day to the last would leave a block
    or two, and fewer than ten tell nothing of how they scatter.
    """
    held = round(float(run.trips["bars"].mean())) if len(run.trips) else 1
    return max(min(held, len(run.days) // 10), 1)


def _warnings(run: Backtest, benchmark: pd.Series, equal: pd.Series, per_year: float) -> list[str]:
    said = []
    if run.before_costs:
        said.append("Before costs: trading was taken to be free, so every figure is too good.")
    if len(benchmark) < per_year:
        share = len(benchmark) / per_year
        said.append(f"Only {share:.1f} years: a backtest of less than one says next to nothing.")
    if benchmark.name != EQUAL:
        grown = [measure(r, per_year)["geometric_return"] for r in (equal, benchmark)]
        gap = grown[0] - grown[1]
        if abs(gap) > WEIGHTING:
            more = "more" if gap > 0 else "less"
            said.append(
                f"The same assets in equal parts made {abs(gap):.1%} a year {more} than the "
                f"benchmark {benchmark.name}, without any skill: part of the difference between "
                "portfolio and benchmark is weighting. Compare with benchmark=equal_weight."
            )
    if not len(run.trips):
        said.append("Nothing was bought.")
    return said
