"""Round trips: from the first share bought to the last one sold, and what each earned."""

from typing import Any

import numpy as np
import pandas as pd

from stages.backtest.metrics import profit_factor

TRIP = (
    *("asset", "entered", "exited", "open", "bars", "paid", "received", "cost", "gain", "return"),
    *("entry_reason", "exit_reason"),
)


def round_trips_of(
    orders: pd.DataFrame, times: pd.DatetimeIndex, values: pd.Series
) -> pd.DataFrame:
    """Pair buys with sales of an asset, from flat to flat.

    Parameters
    ----------
    orders : DataFrame
        Of `Backtest`.
    times : DatetimeIndex of T times
        Rows of the backtest; `bars` counts them.
    values : Series of A floats
        What is held of each asset at the last of them.

    Returns
    -------
    DataFrame
        A row a trip, by exit: `open` ones are valued at the newest close, and carry no cost of a
        sale yet. `paid` and `received` are values without cost; `gain` is after cost, and
        `return` is the gain over what was paid. A sale of what a resumed simulation already held
        is no trip.
    """
    rows: list[tuple[Any, ...]] = []
    begun: dict[str, list[Any]] = {}  # first time, first reason, shares, and the sums so far
    done = orders[orders["filled"] != 0]
    columns = (
        done[name].tolist() for name in ("asset", "time", "reason", "filled", "value", "cost")
    )
    for asset, time, reason, filled, value, cost in zip(*columns, strict=True):
        if asset not in begun and filled < 0:
            continue
        trip = begun.setdefault(asset, [time, reason, 0, 0.0, 0.0, 0.0])
        trip[2] += filled
        trip[3 if filled > 0 else 4] += value
        trip[5] += cost
        if not trip[2]:
            rows.append(_trip(asset, begun.pop(asset), time, reason))
    for asset, trip in begun.items():
        trip[4] += float(values[asset])
        rows.append(_trip(asset, trip, times[-1], None))
    table = pd.DataFrame(rows, columns=[name for name in TRIP if name != "bars"])
    kinds = {"entered": times.dtype, "exited": times.dtype, "open": bool}
    table = table.astype(kinds)
    ends = [times.get_indexer(pd.DatetimeIndex(table[n])) for n in ("exited", "entered")]
    table.insert(TRIP.index("bars"), "bars", ends[0] - ends[1])
    return table.sort_values(["exited", "entered", "asset"], ignore_index=True)


def measure_trips(trips: pd.DataFrame) -> dict[str, float]:
    """Figures of the round trips that are closed.

    Returns
    -------
    dict of str to float
        `trades`, `open_trades`, `hit_rate` (share with a gain after cost), `profit_factor`,
        `mean_trade` and `median_trade` (return), `best_trade`, `worst_trade`, and `bars_held`
        (mean). NaN without a trade.
    """
    closed = trips[~trips["open"]]
    earned, gains = closed["return"].to_numpy(), closed["gain"].to_numpy()
    some = len(closed) > 0
    return {
        "trades": float(len(closed)),
        "open_trades": float(trips["open"].sum()),
        "hit_rate": float((gains > 0).mean()) if some else np.nan,
        "profit_factor": profit_factor(gains),
        "mean_trade": float(earned.mean()) if some else np.nan,
        "median_trade": float(np.median(earned)) if some else np.nan,
        "best_trade": float(earned.max()) if some else np.nan,
        "worst_trade": float(earned.min()) if some else np.nan,
        "bars_held": float(closed["bars"].mean()) if some else np.nan,
    }


def _trip(asset: str, trip: list[Any], exited: pd.Timestamp, why: str | None) -> tuple[Any, ...]:
    """A row; `why` it was closed, None if it was not."""
    entered, reason, _, paid, received, cost = trip
    gain = received - paid - cost
    said = (paid, received, cost, gain, gain / paid, reason, why or "")
    return (asset, entered, exited, why is None, *said)
