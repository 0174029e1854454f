"""What one day of a portfolio decided: as JSON, as tables, as files that are never half there."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.books import Snapshot, snapshot_bytes, write_snapshot
from pipeline.files import write_atomic
from stages.base import StoreError
from stages.portfolio.book import Order, Plan

log = logging.getLogger(__name__)

ORDERS = (
    *("asset", "action", "shares", "reason", "signal_strength", "momentum_score"),
    *("target_weight", "current_price", "estimated_value"),
)


@dataclass(frozen=True)
class Result:
    """What a run has to say.

    Attributes
    ----------
    key : str
        The session.
    plan : Plan
    prices : mapping of str to float
        Newest close of each asset.
    total : Decimal
        Value of the book before the orders.
    turnover : float
        Value of all orders over the total.
    notes, alerts : tuple of str
        What was done to the book, and what a person should look at.
    files : tuple of Path
        Written, if any were.
    """

    key: str
    plan: Plan
    prices: Mapping[str, float]
    total: Decimal
    turnover: float
    notes: tuple[str, ...]
    alerts: tuple[str, ...]
    files: tuple[Path, ...] = ()

    @classmethod
    def of(
        cls, key: str, plan: Plan, notes: Sequence[str], flagged: Sequence[str], limit: float
    ) -> "Result":
        """The result of a plan; `limit` is the turnover beyond which it alerts."""
        prices = {str(a): p for a, p in plan.scores["price"].items() if np.isfinite(p)}
        total = plan.book.value(prices)
        share = sum(o.value for o in plan.orders) / float(total) if total > 0 else 0.0
        said = list(flagged)
        if share > limit:
            said.append(f"turnover: the orders are {share:.0%} of the value, limit {limit:.0%}")
        said += [f"{a}: {why}" for a, why in plan.skipped.items() if why.startswith("jump")]
        said += [f"{n}: {text}" for n, text in plan.checks.items() if "unavailable" in text]
        for name, text in plan.checks.items():
            log.info("check %s: %s", name, text)
        for why, number in Counter(plan.skipped.values()).items():
            log.info("not judged: %d assets, %s", number, why)
        log.info("signals of %d assets, %d orders", len(plan.signals), len(plan.orders))
        for text in said:
            log.info("alert %s", text)
        return cls(key, plan, prices, total, share, tuple(notes), tuple(said))

    def snapshot(self, metadata: Mapping[str, Any]) -> Snapshot:
        """The book as it is stored."""
        held = {asset: self.prices[asset] for asset in self.plan.book.positions}
        return Snapshot(self.key, self.plan.book, held, self.plan.orders, metadata)

    def as_dict(self) -> dict[str, Any]:
        """JSON values; a number that is not known is null."""
        plan = self.plan
        return {
            "status": "planned",
            "session": self.key,
            "as_of": plan.book.as_of,
            "total_value": str(self.total),
            "cash": str(plan.book.cash),
            "holdings": {asset: p.shares for asset, p in plan.book.positions.items()},
            "orders": [dict(zip(ORDERS, _plain(order), strict=True)) for order in plan.orders],
            "turnover": self.turnover,
            "signals": dict(plan.signals),
            "skipped": dict(plan.skipped),
            "checks": dict(plan.checks),
            "notes": list(self.notes),
            "alerts": list(self.alerts),
            "files": [str(path) for path in self.files],
        }


def tables(plan: Plan) -> dict[str, pd.DataFrame]:
    """Tables of a plan by file name: ``signals``, ``scores`` and ``orders``.

    A signal that could not be told is an empty cell beside its reason, never 0.
    """
    judged = pd.Series(dict(plan.signals), dtype="Int64").reindex(plan.scores.index)
    reasons = pd.Series(dict(plan.skipped), dtype="str").reindex(plan.scores.index).fillna("")
    status = np.where(judged.isna(), "skipped", "judged")
    signals = pd.DataFrame({"signal": judged, "status": status, "reason": reasons})
    orders = pd.DataFrame([_plain(order) for order in plan.orders], columns=list(ORDERS))
    return {"signals": signals, "scores": plan.scores, "orders": orders.set_index("asset")}


def write_day(
    folder: Path, result: Result, metadata: Mapping[str, Any], keep: int
) -> tuple[Path, ...]:
    """Write ``signals_KEY.csv``, ``scores_KEY.csv``, ``orders_KEY.csv`` and ``book_KEY.json``.

    The book comes last: a run that was cut short before it is simply repeated. Of the books the
    newest `keep` stay.

    Raises
    ------
    StoreError
        SV-X615 for a file of the same session that says something else; SV-F34 if the disk
        refuses.
    """
    content = {
        folder / f"{name}_{result.key}.csv": table.to_csv(lineterminator="\n").encode()
        for name, table in tables(result.plan).items()
    }
    snapshot = result.snapshot(metadata)
    content[folder / f"book_{result.key}.json"] = snapshot_bytes(snapshot)
    for path, data in content.items():
        if path.exists() and path.read_bytes() != data:
            raise StoreError(
                f"{path.name} is stored with another content",
                code="SV-X615",
                where=str(folder),
                why="its orders may be placed already: bars, book or settings were changed since",
                cure="write to another folder with output=PATH, or move the old files away",
            )
    *plain, _ = content
    for path in plain:
        write_atomic(path, content[path])
    write_snapshot(folder, snapshot, keep)
    return tuple(content)


def _plain(order: Order) -> tuple[Any, ...]:
    values = (
        *(order.asset, order.action, order.shares, order.reason),
        *(order.signal_strength, order.momentum_score, order.target_weight),
        *(order.price, order.value),
    )
    return tuple(None if v != v else v for v in values)
