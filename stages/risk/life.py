"""The life of signals that were emitted: told once, in conflict, expired, archived.

Every function takes a table of signals, one a row (see `signal_table`), and the time it is to
speak of; there is no clock inside. What a row is follows from rows of its own time and before.
"""

from bisect import insort
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from stages.signal import SIDE_TEXT, Signal

PLAYED = ("fired", "unproven")  # statuses with a side
ABSENT = 9  # side of an abstention, to be compared with others


def signal_table(
    signals: Iterable[Signal],
    classes: Sequence[str],
    strategy: str,
    costs: Sequence[float] | float = np.nan,
) -> pd.DataFrame:
    """Lay N signals out as the table that the functions here read.

    Parameters
    ----------
    signals : iterable of N Signal
    classes : sequence of N str
        Asset class of each.
    strategy : str
        What made them.
    costs : float or sequence of N, default=NaN
        Round trip, fraction; NaN is not known.

    Returns
    -------
    DataFrame of shape (N, 16)
        `asset`, `asset_class`, `strategy`, `model`, `time`, `expires`, `side` (Int8), `status`,
        `strength`, `confidence`, `certainty`, `quality` and `valid` (None where the signal was
        not appraised), `price`, `cost` and `edge`: the odds of the side less those of the other,
        times the way to the target, less the cost; NaN if one of them is not known.
    """
    records = [_record(signal) for signal in signals]
    table = pd.DataFrame(records, columns=list(COLUMNS))
    table = table.assign(asset_class=list(classes), strategy=strategy, cost=costs)
    table["side"] = table["side"].astype("Int8")
    table["edge"] = table["edge"].astype("float64") - table["cost"]
    return table


COLUMNS = (
    *("asset", "asset_class", "strategy", "model", "time", "expires", "side", "status"),
    *("strength", "confidence", "certainty", "quality", "valid", "price", "cost", "edge"),
)


def _record(signal: Signal) -> dict[str, Any]:
    """What a signal says of itself; its edge is before costs."""
    price, target = (signal.prices.get(name, np.nan) for name in ("close", "target"))
    edge = np.nan
    if signal.side in (-1, 1):
        odds = signal.probabilities
        edge = (odds[signal.side] - odds[-signal.side]) * abs(target / price - 1)
    told = {name: getattr(signal, name, None) for name in COLUMNS}
    found = signal.appraisal
    if found is not None:
        told |= {"quality": found.quality, "valid": found.valid}
    return told | {"price": price, "edge": edge}


def duplicates(
    table: pd.DataFrame,
    earlier: pd.DataFrame | None = None,
    jitter: str = "1s",
    tolerance: float = 1e-6,
) -> np.ndarray:
    """Find signals that say again what one before them said.

    A duplicate has the asset, strategy, model and side of another, a time within `jitter` of its
    time, and a confidence within `tolerance` of its confidence. All else is another signal: the
    same bar with other odds is a revision. The first to arrive stays.

    Parameters
    ----------
    table : DataFrame of shape (N, F)
        In order of arrival.
    earlier : DataFrame of shape (M, F), optional
        Signals that arrived before. Hand over those that have not expired: older ones cannot have
        duplicates that matter.
    jitter : str, default='1s'
        Shorter than half a bar, or two bars might pass for one.
    tolerance : float >= 0, default=1e-6

    Returns
    -------
    int64 ndarray of shape (N,)
        Row number of the original, counted through `earlier` and then `table`; -1 for an original.
    """
    both = table if earlier is None else pd.concat([earlier, table], ignore_index=True)
    times, near = pd.DatetimeIndex(both["time"]).as_unit("ns").asi8, pd.Timedelta(jitter).value
    said, side = both["confidence"].to_numpy("float64"), both["side"].fillna(ABSENT)
    names = zip(*(both[name] for name in ("asset", "strategy", "model")), side, strict=True)
    originals: defaultdict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
    out = np.full(len(both), -1)
    for row, name in enumerate(names):
        for other in _within(originals[name], times[row] - near, times[row] + near):
            same = abs(said[row] - said[other]) <= tolerance
            if same or (np.isnan(said[row]) and np.isnan(said[other])):
                out[row] = other
                break
        if out[row] < 0:
            insort(originals[name], (int(times[row]), row))
    return out[len(both) - len(table) :]


def phase(table: pd.DataFrame, now: pd.Timestamp) -> np.ndarray:
    """``pending`` before the time of a signal, ``active`` until it expires, ``expired`` from then.

    Returns
    -------
    ndarray of N str
    """
    cases = [table["time"] > now, table["expires"] > now]
    return np.select([case.to_numpy() for case in cases], ["pending", "active"], "expired")


def standing(table: pd.DataFrame, now: pd.Timestamp, margin: float = 0.0) -> pd.DataFrame:
    """Resolve what the active signals of each asset say against each other.

    Signals of one asset that are active at `now` overlap. If they are of both sides, the side of
    the one with the largest calibrated `edge` stands, whatever made it and whenever, and those
    against it are overruled. Where the best of both sides are within `margin`, or neither edge is
    known, no side stands: a coin decides no position. Signals of the same side never conflict.

    Parameters
    ----------
    table : DataFrame of shape (N, F)
        See `signal_table`.
    now : Timestamp
    margin : float >= 0, default=0
        Edge, as a fraction.

    Returns
    -------
    DataFrame of shape (active, F + 2)
        Active rows with a side, with `stands` and `overruled`, the reason, empty if it stands.
    """
    live = table[(phase(table, now) == "active") & table["status"].isin(PLAYED).to_numpy()]
    edges = live["edge"].astype("float64").tolist()
    rows = zip(live["asset"].tolist(), live["side"].astype("int64").tolist(), edges, strict=True)
    reasons = conflicts(list(rows), margin)
    overruled = pd.Series(reasons, live.index, dtype="str")
    return live.assign(stands=overruled == "", overruled=overruled)


def conflicts(rows: Sequence[tuple[str, int, float]], margin: float = 0.0) -> list[str]:
    """What overrules each of N rows of (asset, side, edge), empty if nothing; see `standing`."""
    best: defaultdict[str, dict[int, float]] = defaultdict(dict)
    for asset, side, edge in rows:
        known = edge if edge == edge else -np.inf
        best[asset][side] = max(best[asset].get(side, -np.inf), known)
    said = {asset: _sentences(asset, sides, margin) for asset, sides in best.items()}
    return [said[asset].get(side, "") for asset, side, _ in rows]


def _sentences(asset: str, best: dict[int, float], margin: float) -> dict[int, str]:
    """Of one asset, the sides that do not stand, and why; `best` is the edge of each side."""
    if len(best) < 2:
        return {}
    ahead = _ahead(best[1], best[-1])
    if abs(ahead) <= margin:
        undecided = f"conflict: no edge decides between BUY and SELL of {asset}"
        return {1: undecided, -1: undecided}
    winner = 1 if ahead > 0 else -1
    return {-winner: f"conflict: {SIDE_TEXT[winner]} has an edge of {best[winner]:+.2%}"}


def archive(table: pd.DataFrame, now: pd.Timestamp) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Signals that may still be acted upon, and those that have expired; none is lost."""
    over = phase(table, now) == "expired"
    return table[~over], table[over]


def _ahead(one: float, other: float) -> float:
    return 0.0 if one == other else one - other  # two that are unknown are -inf


def _within(originals: list[tuple[int, int]], low: int, high: int) -> list[int]:
    """Rows of the originals, sorted by time, whose time lies in [low, high]; oldest first."""
    out = []
    for pair in reversed(originals):  # what arrives is nearly always the newest
        if pair[0] < low:
            break
        if pair[0] <= high:
            out.append(pair[1])
    return out[::-1]
