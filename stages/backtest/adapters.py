"""Frames that pyfolio, alphalens and quantstats read, so that nobody has to reshape them."""

import pandas as pd

from stages.backtest.simulate import Backtest
from stages.panel import check_panel


def to_pyfolio(run: Backtest) -> tuple[pd.Series, pd.DataFrame, pd.DataFrame]:
    """``returns``, ``positions`` and ``transactions`` of `pyfolio.create_full_tear_sheet`.

    Returns
    -------
    returns : Series of T - 1 floats
        By midnight UTC of the day.
    positions : DataFrame of shape (T, A + 1)
        Value of each asset, and ``cash``.
    transactions : DataFrame
        By time: ``amount`` (shares, below 0 if sold), ``price``, ``symbol`` and ``txn_dollars``
        (what the cash gained, without cost).
    """
    returns = run.returns.copy()
    returns.index = _days(returns.index)
    positions = run.values.assign(cash=run.days["cash"]).rename_axis(columns=None)
    positions.index = _days(positions.index)
    fills = run.orders[run.orders["filled"] != 0]
    transactions = pd.DataFrame(
        {
            "amount": fills["filled"].to_numpy(),
            "price": fills["price"].to_numpy(),
            "symbol": fills["asset"].to_numpy(),
            "txn_dollars": (-fills["filled"] * fills["price"]).to_numpy(),
        },
        pd.DatetimeIndex(fills["time"], name="date"),
    )
    return returns, positions, transactions


def to_quantstats(run: Backtest) -> pd.Series:
    """Returns by naive date, as `quantstats.reports.html` takes them."""
    returns = run.returns.rename("strategy")
    returns.index = pd.DatetimeIndex(_days(returns.index)).tz_localize(None)
    return returns


def to_alphalens(score: pd.Series, bars: pd.DataFrame) -> tuple[pd.Series, pd.DataFrame]:
    """``factor`` and ``prices`` of `alphalens.utils.get_clean_factor_and_forward_returns`.

    Parameters
    ----------
    score : Series of n floats
        Indexed by (asset, time), such as ``margin`` of the pipeline; rows without one are left out.
    bars : DataFrame of shape (N, F)
        Panel; trades are taken to fill at the next bar, so prices are those of the next open, or
        close without one.

    Returns
    -------
    factor : Series
        Indexed by (date, asset), UTC.
    prices : DataFrame
        A row a date, a column an asset; that of a date is what its score can be traded at.
    """
    check_panel(bars, ["close"])
    level = bars["open"].fillna(bars["close"]) if "open" in bars else bars["close"]
    later = level.groupby(level="asset", sort=False).shift(-1)
    prices = later.unstack("asset").rename_axis(index="date", columns=None)
    factor = score.dropna().swaplevel().sort_index()
    return factor.rename_axis(["date", "asset"]).rename("factor"), prices


def _days(times: pd.Index) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(times).normalize().rename("date")
