"""What following the scores would have earned, bar by bar, after costs: one simple book."""

import numpy as np
import pandas as pd

from stages.evaluate.cross_section import MIN_ASSETS
from stages.panel import age, asset_starts, check_panel


def score_weights(score: pd.Series) -> pd.Series:
    """Weights of one bar's new positions: in proportion to the score, half long and half short.

    Parameters
    ----------
    score : Series of N floats
        Indexed by (asset, time); NaN for a row without an opinion.

    Returns
    -------
    Series of N floats
        In each bar of three assets or more, score less its mean over the bar, so that long and
        short are alike; with fewer, the score itself. Their absolute values sum to 1 in a bar, or
        to 0 where all scores are equal.
    """
    times = score.index.get_level_values("time")
    by_bar = score.groupby(times)
    mean = by_bar.transform("mean").where(by_bar.transform("count") >= MIN_ASSETS, 0.0)
    centred = (score - mean).fillna(0.0)
    gross = centred.abs().groupby(times).transform("sum")
    # what rounding leaves of equal scores is no opinion
    return (centred / gross).where(gross > 1e-12, 0.0)


def book_returns(
    score: pd.Series,
    close: pd.Series,
    horizon: int,
    delay: int = 0,
    cost: pd.Series | None = None,
) -> pd.DataFrame:
    """Returns of a book that holds the scores of the last `horizon` bars in equal parts.

    At every bar ``1 / horizon`` of the capital follows the new `score_weights`; it enters `delay`
    bars later at the close and leaves `horizon` bars after that. Bars are the asset's own, as those
    of the labels. A change of the position costs half a round trip per unit.

    Parameters
    ----------
    score : Series of n floats
        Indexed by (asset, time), for rows of `close`; what is not in it has no position.
    close : Series of N floats
        Of all bars up to the last exit.
    horizon, delay : int
    cost : Series, optional
        Round trip by asset, fraction; absent assets, and all without it, trade for nothing.

    Returns
    -------
    DataFrame of shape (T, 4)
        By time, from the first to the last bar at which something is held: `gain` (fraction of
        the capital), `cost`, `net` (their difference) and `exposure` (sum of absolute weights, at
        most 1). Returns are arithmetic: profits are not invested again.

    References
    ----------
    Jegadeesh & Titman (1993), J. Finance 48(1) (books of overlapping vintages).
    """
    check_panel(close.to_frame("close"))
    index = close.index
    starts = asset_starts(close.to_frame("close"))
    first = np.repeat(starts[:-1], np.diff(starts))
    row = np.arange(len(index))
    weight = score_weights(score).reindex(index).fillna(0.0).to_numpy()
    sums = np.concatenate([[0.0], weight.cumsum()])

    def decided(lag: int) -> np.ndarray:  # sum of the asset's weights `lag` or more bars ago
        return sums[np.maximum(row - lag + 1, first)]

    held = (decided(delay + 1) - decided(delay + horizon + 1)) / horizon
    held[np.abs(held) < 1e-12] = 0.0
    price = close.where(close > 0).groupby(level="asset", sort=False).ffill()
    before = price.groupby(level="asset", sort=False).shift()
    earned = (price / before - 1).fillna(0.0).to_numpy()
    previous = np.where(age(close.to_frame("close")) > 0, np.roll(held, 1), 0.0)
    charge = np.zeros(len(index))
    if cost is not None:
        rate = cost.reindex(index.get_level_values("asset")).fillna(0.0).to_numpy()
        charge = np.abs(held - previous) * rate / 2
    table = pd.DataFrame({"gain": held * earned, "cost": charge, "exposure": np.abs(held)}, index)
    table = table.groupby(level="time").sum().sort_index()
    active = np.flatnonzero((table["exposure"] > 0) | (table["cost"] > 0))
    table = table.iloc[active[0] : active[-1] + 1] if len(active) else table.iloc[:0]
    return table.assign(net=table["gain"] - table["cost"])[["gain", "cost", "net", "exposure"]]
