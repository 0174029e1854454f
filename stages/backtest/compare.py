"""Is one variant better than another, or than all: paired blocks, tests that know of the many."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from arch.bootstrap import MCS, SPA, StepM

from stages.base import DataError
from stages.evaluate.bootstrap import autocovariance, block_length, interval, resample
from stages.evaluate.overfitting import overfitting

SIZE = 0.05  # of the tests, and of the model confidence set
PAIRS = 100  # variants up to which every pair is compared; beyond, each with the mean of all
BLOCKS = 16  # of the history, for the probability of overfitting


@dataclass(frozen=True)
class Contest:
    """What many variants are beside a benchmark, given how many there are.

    Attributes
    ----------
    p_value : float
        Test for superior predictive ability, consistent: probability that the best of so many
        variants without skill would lie this far above the benchmark.
    p_lower, p_upper : float
        Its liberal and its conservative form (White's reality check, studentised).
    superior : tuple of str
        Variants that are better than the benchmark, with at most `SIZE` probability that any one
        of them is not (StepM).
    confidence_set : Series
        Model confidence set: p-value of every variant, the benchmark among them; those above
        `SIZE` cannot be told from the best.
    overfitting : float
        Probability of backtest overfitting, see `stages.evaluate.overfitting`; NaN for too few
        bars.
    block : int
        Mean length of a block, in periods.
    """

    p_value: float
    p_lower: float
    p_upper: float
    superior: tuple[str, ...]
    confidence_set: pd.Series
    overfitting: float
    block: int


def paired(
    one: pd.Series, other: pd.Series, per_year: float, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """What one series of returns has over another, on the same periods drawn together.

    Parameters
    ----------
    one, other : Series of T floats
        Simple returns, on the same times.
    per_year : float
    resamples, seed
        See `stages.evaluate.bootstrap.resample`.

    Returns
    -------
    DataFrame
        Rows `geometric_return`, `arithmetic_return` and `sharpe`, annual: `value` (the
        difference), `low` and `high` (95 % interval). They differ where it does not hold 0.
    """
    table = _aligned(pd.concat([one.rename("one"), other.rename("other")], axis=1))
    x = table.to_numpy()
    sums = np.column_stack([np.ones(len(x)), np.log1p(x), x, x**2])

    def gap(totals: np.ndarray) -> np.ndarray:
        n = totals[..., :1]
        grown, mean, square = (totals[..., k : k + 2] for k in (1, 3, 5))
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = np.sqrt((square - mean**2 / n) / (n - 1))
            figures = np.stack(
                [
                    np.expm1(grown / n * per_year),
                    mean / n * per_year,
                    mean / n / spread * np.sqrt(per_year),
                ],
                axis=-2,
            )
        return np.asarray(figures[..., 0] - figures[..., 1])

    out = resample(gap, sums, 1, resamples, seed)
    ends = [interval(drawn) for drawn in out.drawn.T]
    names = ["geometric_return", "arithmetic_return", "sharpe"]
    low, high = zip(*ends, strict=True)
    return pd.DataFrame({"value": out.value, "low": low, "high": high}, names)


def contest(
    returns: pd.DataFrame, benchmark: pd.Series, resamples: int = 1000, seed: int = 0
) -> Contest:
    """Test all variants at once against a benchmark.

    Parameters
    ----------
    returns : DataFrame of shape (T, N)
        Simple returns of each variant; every one that was tried, not the best ones alone.
    benchmark : Series of T floats
        On the same times.
    resamples : int, default=1000
    seed : int

    Returns
    -------
    Contest

    Raises
    ------
    DataError
        SV-F20 for other times or a return that is missing; SV-F18 for no variant.

    Notes
    -----
    Variants with the same returns are tested once. One that equals the benchmark in every period
    is not superior, and shares its place in the confidence set.

    References
    ----------
    Hansen (2005), J. Business & Economic Statistics 23(4) (SPA). Romano & Wolf (2005),
    Econometrica 73(4) (StepM). Hansen, Lunde & Nason (2011), Econometrica 79(2) (MCS).
    """
    name = "benchmark"
    table = _aligned(pd.concat([benchmark.rename(name), returns.rename(columns=str)], axis=1))
    if table.shape[1] < 2:
        raise DataError(
            "there is no variant to compare",
            code="SV-F18",
            cure="hand in a column a variant",
        )
    same = table.T.duplicated().to_numpy()
    alone = table.loc[:, ~same]
    block = max(_block(alone, name), 1)
    losses = -alone
    drawing: dict[str, Any] = {"block_size": block, "reps": resamples, "seed": seed}
    p_values, superior = pd.Series({"lower": 1.0, "consistent": 1.0, "upper": 1.0}), set()
    if alone.shape[1] > 1:
        rivals = losses.drop(columns=name)
        spa = SPA(losses[name], rivals, **drawing)
        spa.compute()
        p_values = spa.pvalues
        step = StepM(losses[name], rivals, SIZE, **drawing)
        step.compute()
        superior = {str(found) for found in step.superior_models}
    values = table.to_numpy()
    twins = {column: alone.columns[_twin(alone, values[:, k])] for k, column in enumerate(table)}
    places = _confidence(losses, drawing)
    blocks = min(BLOCKS, 2 * (len(table) // 20))
    trials = table.drop(columns=name).to_numpy()
    enough = blocks >= 6 and trials.shape[1] > 1
    return Contest(
        float(p_values["consistent"]),
        float(p_values["lower"]),
        float(p_values["upper"]),
        tuple(c for c in table.columns[1:] if twins[c] in superior),
        places.reindex([twins[c] for c in table]).set_axis(table.columns),
        overfitting(trials, blocks).probability if enough else float("nan"),
        block,
    )


def _confidence(losses: pd.DataFrame, drawing: dict[str, Any]) -> pd.Series:
    if losses.shape[1] < 2:
        return pd.Series(1.0, losses.columns, name="p_value")
    every_pair = losses.shape[1] <= PAIRS
    found = MCS(losses, SIZE, method="R" if every_pair else "max", **drawing)
    found.compute()
    return found.pvalues["Pvalue"].astype("float64").rename("p_value")


def _twin(alone: pd.DataFrame, values: np.ndarray) -> int:
    return int((alone.to_numpy() == values[:, None]).all(axis=0).argmax())


def _block(table: pd.DataFrame, name: str) -> int:
    """Blocks long enough for the difference that depends most on its own past."""
    gaps = table.drop(columns=name).sub(table[name], axis=0).to_numpy().T
    least = round(len(table) ** (1 / 3))
    lengths = [block_length(autocovariance(gap), len(gap)) for gap in gaps]
    return int(np.ceil(max([least, *lengths])))


def _aligned(table: pd.DataFrame) -> pd.DataFrame:
    odd = ~np.isfinite(table.to_numpy("float64"))
    if odd.any():
        row, column = np.argwhere(odd)[0]
        raise DataError(
            f"{table.columns[column]} has no return at {table.index[row]}",
            code="SV-F20",
            why="variants are compared on the same periods",
            cure="take the periods that all have",
        )
    return table.astype("float64")
