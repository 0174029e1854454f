"""What makes a signal risky, measured at its bar, and what it then lost at worst."""

import numpy as np
import pandas as pd

from stages.features.kernels import (
    log_ratio,
    ratio,
    shifted,
    window_covariance,
    window_max,
    window_sd,
    window_sum,
)
from stages.features.returns import log_return
from stages.features.volatility import realised_volatility
from stages.panel import asset_starts, check_panel

FACTORS = ("volatility", "liquidity", "drawdown", "concentration", "event", "model")
SHORT, LONG, DEEP, EVENT = 20, 60, 120, 5  # bars


def risk_factors(panel: pd.DataFrame) -> pd.DataFrame:
    """Measure the six factors of risk at every row, larger is riskier.

    Parameters
    ----------
    panel : DataFrame of shape (N, F)
        `close`; read where they are there: `volume`, `market` and `epistemic`.

    Returns
    -------
    DataFrame of shape (N, 6)
        ``volatility``
            standard deviation of 20 log returns, fraction per bar
        ``liquidity``
            log of summed |log return| over summed money traded, 20 bars (after Amihud)
        ``drawdown``
            distance below the highest close of 120 bars, fraction
        ``concentration``
            share of the variance of 60 bars that is the market's, in [0, 1]: a book of such
            signals is one bet
        ``event``
            largest |log return| of 5 bars in standard deviations of the 60 before them
        ``model``
            epistemic uncertainty, nats

        NaN where a factor cannot be measured; a value depends on its own and earlier bars alone.

    References
    ----------
    Amihud (2002), "Illiquidity and stock returns", J. Financial Markets 5(1).
    """
    check_panel(panel, ["close"])
    given = {name: _column(panel, name) for name in ("close", "volume", "market", "epistemic")}
    out = np.full((len(panel), len(FACTORS)), np.nan)
    starts = asset_starts(panel)
    for begin, end in zip(starts[:-1], starts[1:], strict=True):
        out[begin:end] = measured(**{name: x[begin:end] for name, x in given.items()})
    return pd.DataFrame(out, panel.index, list(FACTORS))


def worst_loss(bars: pd.DataFrame, side: np.ndarray, span: int) -> pd.Series:
    """The furthest that the price went against each row's side over the next `span` bars.

    Parameters
    ----------
    bars : DataFrame of shape (N, F)
        `close`, and `high` and `low` where they are there.
    side : int ndarray of shape (N,)
        -1 or 1; 0 for rows without a side.
    span : int >= 1

    Returns
    -------
    Series of N floats
        Fraction of the close of the row, >= 0; NaN where the `span` bars are not all there yet,
        or a price among them is missing or not above 0, or there is no side.
    """
    check_panel(bars, ["close"])
    if span < 1:
        raise ValueError(f"span must be at least 1 bar, got {span}")
    names = ("close", *(name if name in bars else "close" for name in ("low", "high")))
    close, low, high = (np.where(x > 0, x, np.nan) for x in (_column(bars, n) for n in names))
    adverse = np.zeros(len(bars))
    left = np.repeat(asset_starts(bars)[1:], np.diff(asset_starts(bars))) - np.arange(len(bars)) - 1
    for ahead in range(1, span + 1):
        later = np.minimum(np.arange(len(bars)) + ahead, len(bars) - 1)
        against = np.where(side > 0, 1 - low[later] / close, high[later] / close - 1)
        adverse = np.maximum(adverse, against)  # NaN stays
    known = (left >= span) & (np.asarray(side) != 0)
    return pd.Series(np.where(known, adverse, np.nan), bars.index, name="worst_loss")


def measured(
    close: np.ndarray, volume: np.ndarray, market: np.ndarray, epistemic: np.ndarray
) -> np.ndarray:
    """The factors of one asset, in the order of `FACTORS`: shape (T, 6); see `risk_factors`."""
    moves = log_return(close)
    drift, beta = log_ratio(market, shifted(market, 1)), window_covariance
    shared = ratio(
        beta(moves, drift, LONG) ** 2, beta(moves, moves, LONG) * beta(drift, drift, LONG)
    )
    usual = shifted(window_sd(moves, LONG), EVENT)
    return np.column_stack(
        [
            realised_volatility(close, SHORT),
            log_ratio(window_sum(np.abs(moves), SHORT), window_sum(close * volume, SHORT)),
            1 - ratio(close, window_max(close, DEEP)),
            np.minimum(shared, 1.0),
            ratio(window_max(np.abs(moves), EVENT), usual),
            epistemic,
        ]
    )


def _column(panel: pd.DataFrame, name: str) -> np.ndarray:
    if name not in panel:
        return np.full(len(panel), np.nan)
    return panel[name].to_numpy("float64", copy=True)
