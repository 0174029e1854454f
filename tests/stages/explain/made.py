"""Explanations whose truth is known, without a model."""

import numpy as np
import pandas as pd

from stages.base import Explanation
from stages.markets.market import Market

UNIT = "log-odds of buy against sell"


def rows_of(times: int, assets: int, begin: str = "2020-01-01") -> pd.MultiIndex:
    names = [f"A{k}" for k in range(assets)]
    days = pd.bdate_range(begin, periods=times, tz="UTC").as_unit("us")
    return pd.MultiIndex.from_product([names, days], names=["asset", "time"])


def explanation(contributions: pd.DataFrame, by_stage: pd.DataFrame | None = None) -> Explanation:
    """Closed: the margin is what the contributions sum to, on a baseline of 0.1."""
    rows = contributions.index
    if by_stage is None:
        by_stage = contributions.sum(axis=1).to_frame("filter.lightgbm")
    return Explanation(
        contributions=contributions,
        baseline=pd.Series(0.1, rows),
        output=0.1 + contributions.sum(axis=1),
        by_stage=by_stage,
        raw_gap=pd.Series(0.0, rows),
        unit=UNIT,
    )


def dependent(
    rng: np.random.Generator, rho: float, times: int, assets: int, inputs: int
) -> pd.DataFrame:
    """Pushes that follow an AR(1) in time, and those of one bar a common factor."""

    def path(*shape: int) -> np.ndarray:
        steps = rng.standard_normal((times + 100, *shape)) * np.sqrt(1 - rho**2)
        for k in range(1, len(steps)):
            steps[k] += rho * steps[k - 1]
        return steps[100:]

    c_TAF = np.sqrt(0.3) * path(1, inputs) + np.sqrt(0.7) * path(assets, inputs)
    values = c_TAF.swapaxes(0, 1).reshape(-1, inputs)
    return pd.DataFrame(values, rows_of(times, assets), [f"x{k}" for k in range(inputs)])


def truth(market: Market) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The exact contributions of a planted market, named as explanations name them; its panel."""
    names = {name: name.removeprefix("feature.") for name in market.contributions}
    return market.contributions.rename(columns=names), market.panel


def between(table: pd.DataFrame, first: float, last: float) -> pd.DataFrame:
    """Rows of a share of the bars."""
    times = table.index.get_level_values("time")
    known = times.unique().sort_values()
    begin, end = (round(share * len(known)) for share in (first, last))
    return table[times.isin(known[begin:end])]
