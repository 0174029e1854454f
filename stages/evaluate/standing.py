"""What a Sharpe ratio is worth among all the trials it was chosen from."""

from collections.abc import Mapping, MutableMapping
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy.stats import kurtosis, skew

from stages.evaluate.overfitting import overfitting
from stages.evaluate.sharpe import (
    bars_per_year,
    deflated_sharpe,
    expected_maximum,
    minimum_track_record,
    probabilistic_sharpe,
    sharpe_interval,
    sharpe_ratio,
)

BLOCKS = 16  # of the history, for the probability of overfitting
BLOCK = 10  # least bars of such a block
FEWEST = 6  # blocks: 20 halvings; fewer say nothing
SHARED = 0.5  # of the bars of a trial that another must have to be compared with it
PACE = 1.5  # factor by which the bars of a year may differ between trials that are compared


@dataclass(frozen=True)
class Standing:
    """A Sharpe ratio with its interval, and what choosing among the trials leaves of it.

    Attributes
    ----------
    sharpe, low, high : float
        Annual, arithmetic, with the 95 % interval; NaN where nothing was held.
    above_zero : float in [0, 1]
        Probability that the true ratio is above 0, were this the only trial.
    deflated : float in [0, 1]
        The same, given that it may have been chosen among `trials` (Deflated Sharpe Ratio).
    by_luck : float
        Annual ratio to expect of the best of so many trials without skill.
    trials : int
        N: distinct trials, this one among them.
    overfitting : float in [0, 1]
        Probability of backtest overfitting among `compared` trials on `common` bars; NaN for fewer
        than two trials, or too few bars.
    compared, common : int
    bars, bars_per_year, bars_needed : float
        Of this trial; needed for a probability of 0.95 that the ratio is above 0.
    """

    sharpe: float
    low: float
    high: float
    above_zero: float
    deflated: float
    by_luck: float
    trials: int
    overfitting: float
    compared: int
    common: int
    bars: int
    bars_per_year: float
    bars_needed: float

    def values(self) -> dict[str, float | None]:
        """JSON values, NaN and infinities as None."""
        return {k: v if np.isfinite(v) else None for k, v in asdict(self).items()}


def standing(
    returns: pd.Series,
    others: Mapping[str, pd.Series],
    trials: int,
    span: int = 1,
    resamples: int = 500,
    seed: int = 0,
    known: MutableMapping[frozenset[str], float] | None = None,
) -> Standing:
    """Judge the returns of one trial by those of all.

    Parameters
    ----------
    returns : Series of T floats
        Net return of each bar, indexed by UTC time; named as no other.
    others : mapping of str to Series
        By name, the other distinct trials that this one may have been chosen from. Those of about
        the same pace set how far the ratios of trials lie apart; those on the same bars are
        compared.
    trials : int >= 1
        N: all distinct trials, also those not among `others`.
    span : int
        Bars for which a position is held.
    resamples, seed
        Of the interval.
    known : mutable mapping, optional
        Probabilities of overfitting by the trials compared: worked out once for trials that share
        their bars.

    Notes
    -----
    Where no other trial can be compared, the ratios of trials are taken to vary as those of this
    length do by chance, ``1 / (T - 1)``. The probabilities take the larger of two standard errors:
    that of independent bars and that of the bootstrap.
    """
    times = pd.DatetimeIndex(returns.index)
    pace = bars_per_year(times)
    year = np.sqrt(pace)
    alike = {name: other for name, other in others.items() if _same_pace(other, pace)}
    value = sharpe_interval(returns.to_numpy(), span, resamples, seed)
    ratios = [sharpe_ratio(other.to_numpy()) for other in (returns, *alike.values())]
    seen = [ratio for ratio in ratios if np.isfinite(ratio)]
    variance = float(np.var(seen, ddof=1)) if len(seen) > 1 else 1 / max(len(returns) - 1, 1)
    probability, compared, common = _overfitting(returns, alike, {} if known is None else known)
    moments = {"skewness": 0.0, "kurt": 3.0}
    if np.isfinite(value["value"]):
        moments = {"skewness": float(skew(returns)), "kurt": float(kurtosis(returns, fisher=False))}
    return Standing(
        sharpe=value["value"] * year,
        low=value["low"] * year,
        high=value["high"] * year,
        above_zero=probabilistic_sharpe(returns.to_numpy(), error=value["error"]),
        deflated=deflated_sharpe(returns.to_numpy(), trials, variance, value["error"]),
        by_luck=expected_maximum(trials, variance) * year,
        trials=trials,
        overfitting=probability,
        compared=compared,
        common=common,
        bars=len(returns),
        bars_per_year=pace,
        bars_needed=minimum_track_record(value["value"], 0.0, **moments),
    )


def common_bars(returns: pd.Series, others: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Returns of one trial and of those that share half of its bars, on the bars of all.

    Returns
    -------
    DataFrame of shape (T', N)
        By name, the trial itself first.
    """
    least = SHARED * len(returns)
    shared = {n: s for n, s in others.items() if s.index.isin(returns.index).sum() >= least}
    return pd.concat({str(returns.name): returns} | shared, axis=1, join="inner")


def _overfitting(
    returns: pd.Series,
    others: Mapping[str, pd.Series],
    known: MutableMapping[frozenset[str], float],
) -> tuple[float, int, int]:
    table = common_bars(returns, others) if len(returns) else returns.to_frame()
    blocks = min(BLOCKS, 2 * (len(table) // (2 * BLOCK)))
    if table.shape[1] < 2 or blocks < FEWEST:
        return float("nan"), table.shape[1], len(table)
    names = frozenset(table.columns)
    if names not in known:
        known[names] = overfitting(table.to_numpy(), blocks).probability
    return known[names], table.shape[1], len(table)


def _same_pace(other: pd.Series, pace: float) -> bool:
    theirs = bars_per_year(pd.DatetimeIndex(other.index))
    return bool(1 / PACE <= theirs / pace <= PACE)
