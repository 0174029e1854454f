"""Intervals of the figures of a backtest: what they would be in other histories of its kind."""

import numpy as np
import pandas as pd
from arch.bootstrap import StationaryBootstrap

from stages.backtest.drawdowns import drawdown
from stages.backtest.metrics import LEVEL, checked
from stages.backtest.tails import expected_shortfall
from stages.evaluate.bootstrap import autocovariance, block_length, interval, resample

NAMES = ("geometric_return", "arithmetic_return", "volatility", "sharpe", "sortino")
PATHS = ("max_drawdown", "cvar_historical")
ACTIVE = ("alpha", "beta", "information_ratio")


def intervals(
    returns: pd.Series,
    per_year: float,
    benchmark: pd.Series | None = None,
    rate: np.ndarray | float = 0.0,
    span: int = 1,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """95 % intervals of the figures of `measure` and `measure_against`, by blocks of periods.

    Parameters
    ----------
    returns : Series of T floats
        Simple; finite.
    per_year : float
    benchmark : Series of T floats, optional
        On the same times.
    rate : float or ndarray of shape (T,), default=0
    span : int >= 1, default=1
        Periods for which a position is held: the least length of a block.
    resamples : int >= 2, default=1000
    seed : int

    Returns
    -------
    DataFrame
        A row a figure: `low`, `high`. What depends on sums over periods is drawn and spread by
        `stages.evaluate.bootstrap.resample`. The deepest drawdown and the expected shortfall depend
        on the order or on the tail: theirs are percentiles of paths of blocks, which say how they
        scatter and not how far off the estimate is.
    """
    x = checked(returns).to_numpy()
    if len(x) < 4 or np.ptp(x) == 0:
        names = (*NAMES, *PATHS, *(ACTIVE if benchmark is not None else ()))
        return pd.DataFrame(np.nan, list(names), ["low", "high"])
    sums = np.column_stack([np.ones_like(x), np.log1p(x), *_moments(x - rate), x, x**2])
    drawn = resample(lambda s: _figures(s, per_year), sums, span, resamples, seed).drawn
    rows = dict(zip(NAMES, map(interval, drawn.T), strict=True))
    rows |= dict(zip(PATHS, map(interval, _paths(x, span, resamples, seed).T), strict=True))
    if benchmark is not None:
        both = _both(x - rate, checked(benchmark).to_numpy() - rate)
        drawn = resample(lambda s: _active(s, per_year), both, span, resamples, seed).drawn
        rows |= dict(zip(ACTIVE, map(interval, drawn.T), strict=True))
    return pd.DataFrame(rows, ["low", "high"]).T


def _moments(excess: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return excess, excess**2, np.minimum(excess, 0.0) ** 2


def _figures(sums: np.ndarray, per_year: float) -> np.ndarray:
    n, grown, excess, square, below, total, whole = np.moveaxis(sums, -1, 0)
    year = np.sqrt(per_year)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt((square - excess**2 / n) / (n - 1))
        return np.stack(
            [
                np.expm1(grown / n * per_year),
                total / n * per_year,
                np.sqrt((whole - total**2 / n) / (n - 1)) * year,
                excess / n / spread * year,
                excess / n / np.sqrt(below / n) * year,
            ],
            axis=-1,
        )


def _both(x: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones_like(x), x, b, x * b, b**2, (x - b) ** 2])


def _active(sums: np.ndarray, per_year: float) -> np.ndarray:
    n, x, b, product, square, gap = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        beta = (product - x * b / n) / (square - b**2 / n)
        error = np.sqrt((gap - (x - b) ** 2 / n) / (n - 1))
        ratio = (x - b) / n / error * np.sqrt(per_year)
        return np.stack([(x - beta * b) / n * per_year, beta, ratio], axis=-1)


def _paths(x: np.ndarray, span: int, resamples: int, seed: int) -> np.ndarray:
    block = max(block_length(autocovariance(x), len(x)), round(len(x) ** (1 / 3)), span)
    draws = StationaryBootstrap(block, x, seed=seed)
    return np.array(
        [
            (-drawdown(path).min(), expected_shortfall(path, LEVEL))
            for path in (np.asarray(drawn[0][0]) for drawn in draws.bootstrap(resamples))
        ]
    )
