"""Which labels are new, and old enough, to be learnt from."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from pipeline.store.rows import Stored, timestamp
from stages.barriers import uniqueness
from stages.base import DataError
from stages.panel import age, check_labels, check_panel, last_rows, settled


def newest_rows(y: pd.DataFrame) -> dict[str, pd.Timestamp]:
    """Time of the newest label of each asset."""
    return {str(asset): time for asset, time in last_rows(y).index}


def known(rows: pd.Index, learned: Mapping[str, pd.Timestamp]) -> np.ndarray:
    """Whether each of N rows is no newer than the newest of its asset that was learnt from.

    Not by label end: a barrier touched early matures before rows that were learnt long ago. An
    asset that is new is compared with the newest row of all.
    """
    assets, times = (rows.get_level_values(level) for level in ("asset", "time"))
    newest = pd.Series(learned)
    last = newest.reindex(assets).fillna(newest.max())
    return np.asarray(times <= pd.DatetimeIndex(last))


def refuse_open_horizons(y: pd.DataFrame, newest: pd.Timestamp) -> None:
    """Refuse labels whose horizon ends after the newest bar, even if a barrier was touched before.

    Raises
    ------
    DataError
        SV-F25, naming the first.
    """
    still_open = (settled(y) > newest).to_numpy()
    if still_open.any():
        asset, time = y.index[int(still_open.argmax())]
        raise DataError(
            f"the label of {asset} at {time} ends after the newest bar, {newest}",
            code="SV-F25",
            where=f"{int(still_open.sum())} of {len(y)} labels",
            why="an open horizon has no outcome yet",
            cure="leave these labels out until their end has passed, or bring newer bars",
        )


def newer_rows(
    panel: pd.DataFrame, spoken: pd.DataFrame, learned_until: pd.Timestamp
) -> pd.MultiIndex:
    """Evaluable rows that may be spoken of as unseen: newer than all before, and than all learnt.

    Parameters
    ----------
    panel : DataFrame of shape (N, F)
    spoken : DataFrame
        Rows that were spoken of before.
    learned_until : Timestamp
        Newest bar that a horizon of a label learnt from reaches.
    """
    times = pd.DatetimeIndex(panel.index.get_level_values("time"))
    fresh = panel["ready"].to_numpy() & (times >= learned_until)
    if len(spoken):
        fresh &= times > spoken.index.get_level_values("time").max()
    return panel.index[fresh]  # type: ignore[return-value]


def from_outcomes(stored: Iterable[Stored], bars: pd.DataFrame) -> pd.DataFrame:
    """Labels of stored signals whose horizon is over by the newest of `bars`.

    A signal without an outcome waits, and so does one whose outcome is known early: it matures
    when it expires, with those that were held to the end. Of several signals of an asset and a
    time the newest revision counts, of several models the one stored last.

    Parameters
    ----------
    stored : iterable of Stored
        In any order; see `SignalStore.follow`.
    bars : DataFrame of shape (N, F)
        Signals of bars that are not in it are left out.

    Returns
    -------
    DataFrame of shape (n, 5)
        See `check_labels`.
    """
    now = check_panel(bars).index.get_level_values("time").max()
    chosen: dict[tuple[str, pd.Timestamp], Stored] = {}
    for signal in sorted(stored, key=lambda one: (one.revision, one.id)):
        if signal.outcome is not None and _over(signal) <= now:
            chosen[signal.asset, signal.time] = signal
    keys = pd.MultiIndex.from_tuples(list(chosen), names=["asset", "time"]) if chosen else None
    at: list[int] = [] if keys is None else bars.index.get_indexer(keys).tolist()
    known = [(i, s) for i, s in zip(at, chosen.values(), strict=True) if i >= 0]
    known.sort(key=lambda pair: pair[0])
    rows, signals = [i for i, _ in known], [s for _, s in known]
    outcomes = [s.outcome for s in signals if s.outcome is not None]
    ends = pd.DatetimeIndex([o.ended for o in outcomes], dtype=_UTC)
    columns = {
        "side": np.array([o.label for o in outcomes], dtype="int8"),
        "end": ends,
        "weight": uniqueness(_last_bars(bars, rows, ends))[rows],
        "ret": np.array([o.ret for o in outcomes], dtype="float64"),
        "horizon_end": pd.DatetimeIndex([_over(s) for s in signals], dtype=_UTC),
    }
    return check_labels(pd.DataFrame(columns, bars.index[rows]))


_UTC = pd.DatetimeTZDtype("us", "UTC")


def _over(signal: Stored) -> pd.Timestamp:
    """When nothing about a signal with an outcome is open any more."""
    assert signal.outcome is not None
    return max(signal.outcome.ended, timestamp(signal.row["expires"]))


def _last_bars(bars: pd.DataFrame, rows: list[int], ends: pd.DatetimeIndex) -> np.ndarray:
    """Number of the last bar of the label of each bar; its own where it has no label."""
    last, times = np.arange(len(bars)), pd.DatetimeIndex(bars.index.get_level_values("time"))
    stops = np.append(np.flatnonzero(age(bars) == 0)[1:], len(bars))
    for row, end in zip(rows, ends, strict=True):
        stop = int(stops[np.searchsorted(stops, row, side="right")])
        last[row] = max(row + 1, row + int(times[row:stop].searchsorted(end, side="right")) - 1)
    return np.minimum(last, len(bars) - 1)
