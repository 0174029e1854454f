"""Which signals leave: floors, caps an hour and strategies, by the class of the asset."""

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from stages.base import DataError
from stages.risk.classes import AssetClass, AssetClasses
from stages.risk.life import PLAYED

HOUR = pd.Timedelta("1h")


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
    left = _Left()
    if earlier is not None and len(earlier) and len(table):
        _refuse_later(earlier["time"].max(), table["time"].min())
        for row in earlier.sort_values("time").to_dict("records"):
            left.note(row)
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
class _Left:
    """Times at which signals left within the hour, by class and by asset."""

    times: defaultdict[tuple[str, str], deque[pd.Timestamp]] = field(
        default_factory=lambda: defaultdict(deque)
    )

    def note(self, row: Mapping[Any, Any]) -> None:
        for name in ("asset_class", "asset"):
            self.times[name, row[name]].append(row["time"])

    def full(self, row: Mapping[Any, Any], rules: AssetClass) -> str:
        """Which cap the row would break, empty if none."""
        for name, cap in (("asset_class", rules.per_hour), ("asset", rules.per_hour_asset)):
            times = self.times[name, row[name]]
            while times and times[0] <= row["time"] - HOUR:
                times.popleft()
            if cap is not None and len(times) >= cap:
                return f"cap: {cap} signals of {row[name]} within the hour"
        return ""


def _barred(row: Mapping[Any, Any], rules: AssetClass, measure: str) -> str:
    """What of the row itself keeps it back, empty if nothing."""
    if row["status"] not in PLAYED:
        return f"status: {row['status']}"
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
