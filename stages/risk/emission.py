"""Which signals leave: no duplicate, none below a floor or beyond a cap, none overruled."""

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

import numpy as np
import pandas as pd

from stages.base import DataError
from stages.risk.classes import AssetClass, AssetClasses
from stages.risk.life import PLAYED, conflicts, duplicates

HOUR = pd.Timedelta("1h")
Row = Mapping[Any, Any]  # of a table of signals
Measure = Literal["certainty", "confidence"]


@dataclass(frozen=True)
class Emission:
    """The rules by which signals leave, one after the other in time.

    A signal that says again what one before it said is withheld; then one without a side, one
    that its checks call not valid, one below the floor of its class or by a strategy that may not
    speak of it. Of what is left, and of what left before and is still active, the sides of an
    asset must not contradict each other, see `stages.risk.life.standing`; and neither a class nor
    an asset may have more than its fill within the hour.

    Parameters
    ----------
    assets : AssetClasses
    measure : {'certainty', 'confidence'}, default='certainty'
        What floors apply to.
    margin : float >= 0, default=0
        Edge, as a fraction, by which a side must be ahead of the other.
    jitter : str, default='1s'
        Two signals so near in time can be one.
    """

    assets: AssetClasses
    measure: Measure = "certainty"
    margin: float = 0.0
    jitter: str = "1s"

    def __post_init__(self) -> None:
        if self.measure not in get_args(Measure):
            raise ValueError(f"measure must be one of {get_args(Measure)}, got {self.measure!r}")
        if not self.margin >= 0 or not pd.Timedelta(self.jitter) >= pd.Timedelta(0):
            raise ValueError(f"margin and jitter must not be below 0: {self.margin}, {self.jitter}")

    def judge(
        self, table: pd.DataFrame, earlier: pd.DataFrame | None = None
    ) -> tuple[pd.DataFrame, dict[Any, str]]:
        """Say of each signal whether it leaves, and why not.

        Parameters
        ----------
        table : DataFrame of shape (N, F)
            See `stages.risk.life.signal_table`; in order of arrival, with an index of its own.
        earlier : DataFrame of shape (M, F + 1), optional
            Signals that arrived before and have not expired, or left within the hour before the
            first of `table`, with `emitted`.

        Returns
        -------
        verdicts : DataFrame of shape (N, 2)
            On the index of `table`: `emitted`, and `withheld`, the reason, empty if it leaves.
        overruled : dict
            Index of each signal that left earlier and no longer stands to the reason.
        """
        before = table.iloc[:0].assign(emitted=False) if earlier is None else earlier
        twin = duplicates(table, before, self.jitter)
        left = before[before["emitted"].astype(bool).to_numpy()]
        had = _Had.of(left)
        active: list[tuple[Any, Row]] = [*zip(left.index, left.to_dict("records"), strict=True)]
        reasons: dict[Any, str] = {}
        overruled: dict[Any, str] = {}
        by_time: defaultdict[pd.Timestamp, list[tuple[Any, Row]]] = defaultdict(list)
        rows = zip(table.index.tolist(), table.to_dict("records"), twin, strict=True)
        for at, row, original in rows:
            reasons[at] = "duplicate: it was said before" if original >= 0 else self._barred(row)
            if not reasons[at]:
                by_time[row["time"]].append((at, row))
        for time in sorted(by_time):
            active = [(at, row) for at, row in active if row["expires"] > time]
            said, fallen = self._at(by_time[time], active, had, time)
            reasons |= said
            overruled = fallen | overruled
            active += [(at, row) for at, row in by_time[time] if not said[at]]
        withheld = pd.Series(reasons, dtype="object").reindex(table.index).astype("str")
        return pd.DataFrame({"emitted": withheld == "", "withheld": withheld}), overruled

    def _barred(self, row: Row) -> str:
        return _barred(row, self.assets.of(row["asset_class"]), self.measure)

    def _at(
        self, rows: list[tuple[Any, Row]], active: list[tuple[Any, Row]], had: "_Had", time: Any
    ) -> tuple[dict[Any, str], dict[Any, str]]:
        """Reasons of the signals of one time, and which of those that left before fall.

        A weaker side does not leave, even where a cap keeps the stronger one back.
        """
        known = [(at, row) for at, row in active if row["time"] <= time] + rows
        sides = [(row["asset"], int(row["side"]), float(row["edge"])) for _, row in known]
        over = dict(zip((at for at, _ in known), conflicts(sides, self.margin), strict=True))
        fallen = {at: why for at, why in list(over.items())[: len(known) - len(rows)] if why}
        said = {at: over[at] for at, _ in rows}
        for at, row in sorted(rows, key=lambda one: _rank(one[1], self.measure)):
            if not said[at]:
                said[at] = had.full(row, self.assets.of(row["asset_class"]))
            if not said[at]:
                had.note(row)
        return said, fallen


def _rank(row: Row, measure: str) -> tuple[Any, ...]:
    """Of one time the surest comes first."""
    names = (row["asset"], row["asset_class"], row["strategy"], row["model"])
    return (-row[measure], *names)


def emit(
    table: pd.DataFrame,
    assets: AssetClasses,
    measure: str = "certainty",
    earlier: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Say which signals leave, by the rules of their asset class.

    A signal leaves if it has a side, its strategy may speak of the class, its measure reaches the
    floor, and neither its class nor its asset has had its fill in the hour up to it. Signals of
    one time leave by measure, the largest first; what is withheld counts for no cap. That the
    same side is not said again at once is seen to before: `stages.ensemble.repeats`.

    Parameters
    ----------
    table : DataFrame of shape (N, F)
        See `stages.risk.life.signal_table`.
    assets : AssetClasses
    measure : {'certainty', 'confidence'}, default='certainty'
        What floors apply to.
    earlier : DataFrame, optional
        Signals that left before, none later than those of `table`.

    Returns
    -------
    DataFrame of shape (N, 2)
        On the index of `table`: `emitted`, and `withheld`, the reason, empty if it leaves.

    Raises
    ------
    DataError
        SV-X641 if an earlier signal is later than one of `table`.
    """
    left = _Had()
    if earlier is not None and len(earlier) and len(table):
        _refuse_later(earlier["time"].max(), table["time"].min())
        left = _Had.of(earlier)
    reasons = np.full(len(table), "", dtype=object)
    ranked = table.assign(at=np.arange(len(table))).sort_values(
        ["time", measure, "asset", "asset_class", "strategy", "model"],
        ascending=[True, False, True, True, True, True],
        kind="stable",
    )
    for row in ranked.to_dict("records"):
        rules = assets.of(row["asset_class"])
        reason = _barred(row, rules, measure) or left.full(row, rules)
        reasons[row["at"]] = reason
        if not reason:
            left.note(row)
    withheld = pd.Series(reasons, table.index, dtype="str")
    return pd.DataFrame({"emitted": reasons == "", "withheld": withheld}, table.index)


@dataclass
class _Had:
    """Times at which signals left, ascending, by class and by asset."""

    times: defaultdict[tuple[str, str], list[pd.Timestamp]] = field(
        default_factory=lambda: defaultdict(list)
    )

    @classmethod
    def of(cls, left: pd.DataFrame) -> Self:
        """What left before."""
        had = cls()
        for row in left.sort_values("time").to_dict("records"):
            had.note(row)
        return had

    def note(self, row: Row) -> None:
        for name in ("asset_class", "asset"):
            insort(self.times[name, row[name]], row["time"])  # a late one is not the last

    def full(self, row: Row, rules: AssetClass) -> str:
        """Which cap the row would break, empty if none."""
        for name, cap in (("asset_class", rules.per_hour), ("asset", rules.per_hour_asset)):
            times, now = self.times[name, row[name]], row["time"]
            within = bisect_right(times, now) - bisect_right(times, now - HOUR)
            if cap is not None and within >= cap:
                return f"cap: {cap} signals of {row[name]} within the hour"
        return ""


def _barred(row: Row, rules: AssetClass, measure: str) -> str:
    """What of the row itself keeps it back, empty if nothing."""
    if row["status"] not in PLAYED:
        return f"status: {row['status']}"
    if row.get("valid") in (False,):  # None where it was not appraised
        score = row["quality"]
        found: str = "not known" if pd.isna(score) else f"{score:g}"
        return f"quality: {found}, too low or with a critical finding"
    if rules.strategies and row["strategy"] not in rules.strategies:
        return f"strategy: {row['strategy']} may not speak of {row['asset_class']}"
    if not row[measure] >= rules.floor:  # NaN too
        return f"floor: {measure} {row[measure]:.2f} < {rules.floor:.2f}"
    return ""


def _refuse_later(newest: pd.Timestamp, oldest: pd.Timestamp) -> None:
    if newest > oldest:
        raise DataError(
            f"a signal of {newest} is said to have left before one of {oldest}",
            code="SV-X641",
            why="caps that were told of later signals would depend on the future",
            cure="hand signals over in order of time; a late one is a revision",
        )
