"""How stored signals went by confidence and by stretch of time, counted where they are stored."""

import json
import math
import time as clock
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import sqlalchemy as sa

from pipeline.store.database import Database
from pipeline.store.queries import Where, conditions, newest
from pipeline.store.rows import timestamp
from pipeline.store.tables import EVENTS, OUTCOMES, SIGNALS

T = TypeVar("T")

BINS = 20  # of the confidence, from 0 to 1
MILLION = 1_000_000
DAY = 86_400_000_000  # microseconds
KEPT = 30.0  # seconds for which a count is not made again: it reads all that came of signals
MOST = 200  # counts kept
RUNS = ("run", "appended")  # events that tell of a run


class Counts:
    """Counts over a store, each made at most once in a while.

    Parameters
    ----------
    database : Database
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self._known: dict[Hashable, tuple[float, Any]] = {}

    def bins(self, where: Where) -> list[dict[str, Any]]:
        """Signals with a side and an outcome by confidence: how often they came true."""
        millionths = sa.cast(SIGNALS.c.confidence * MILLION, sa.BigInteger)  # floor() is not in all
        said = (millionths // (MILLION // BINS)).label("bin")
        query = (
            sa.select(said, *_means())
            .select_from(_JUDGED)
            .where(*_sided(where), SIGNALS.c.confidence.is_not(None))
            .group_by("bin")
            .order_by("bin")
        )
        out = []
        for row in self._once(("bins", *sorted(where.items())), query):
            low, high = wilson(row["hit_rate"], row["signals"])
            found = {"confidence": row["confidence"], "accuracy": row["hit_rate"]}
            out.append(found | {"low": low, "high": high, "rows": row["signals"]})
        return out

    def periods(self, days: int, where: Where) -> list[dict[str, Any]]:
        """The same by stretches of `days` days of the decision."""
        width = days * DAY
        begins = (SIGNALS.c.time - SIGNALS.c.time % width).label("begins")
        query = (
            sa.select(begins, *_means())
            .select_from(_JUDGED)
            .where(*_sided(where))
            .group_by("begins")
            .order_by("begins")
        )
        found = self._once(("periods", days, *sorted(where.items())), query)
        return [row | {"begins": timestamp(int(row["begins"]))} for row in found]

    def drift(self, model: str, days: int, since: int) -> list[dict[str, Any]]:
        """What a model said of its own doubt, by stretches of `days` days after `since`."""
        width = days * DAY
        begins = (SIGNALS.c.time - SIGNALS.c.time % width).label("begins")
        query = (
            sa.select(
                begins,
                sa.func.count().label("signals"),
                sa.func.avg(SIGNALS.c.novelty).label("novelty"),
                sa.func.avg(SIGNALS.c.epistemic).label("epistemic"),
                sa.func.avg(sa.case((SIGNALS.c.status == "abstain", 1.0), else_=0.0)).label(
                    "abstained"
                ),
            )
            .where(SIGNALS.c.model == model, SIGNALS.c.time >= since, newest())
            .group_by("begins")
            .order_by("begins")
        )
        found = self._once(("drift", model, days, since // DAY), query)
        return [row | {"begins": timestamp(int(row["begins"]))} for row in found]

    def last_run(self) -> dict[str, Any] | None:
        """The newest event that tells of a run: its kind, and when it was, UTC."""
        query = (
            sa.select(EVENTS.c.time, EVENTS.c.kind)
            .where(EVENTS.c.kind.in_(RUNS))
            .order_by(EVENTS.c.id.desc())
            .limit(1)
        )
        found = self.database.read(lambda c: c.execute(query).first())
        return None if found is None else {"at": timestamp(found.time), "kind": found.kind}

    def account(self) -> dict[str, Any] | None:
        """Figures of the newest run that left an account of itself, see `pipeline.account`."""
        query = (
            sa.select(EVENTS.c.time, EVENTS.c.details)
            .where(EVENTS.c.kind == RUNS[0])
            .order_by(EVENTS.c.id.desc())
            .limit(1)
        )
        found = self.database.read(lambda c: c.execute(query).first())
        return None if found is None else {"at": timestamp(found.time), **json.loads(found.details)}

    def _once(self, key: Hashable, query: sa.Select[Any]) -> list[dict[str, Any]]:
        def rows(connection: sa.Connection) -> list[dict[str, Any]]:
            return [dict(row) for row in connection.execute(query).mappings()]

        return self.once(key, lambda: self.database.read(rows))

    def once(self, key: Hashable, count: Callable[[], T]) -> T:
        """What `count` gives, or gave a short while ago."""
        now = clock.monotonic()
        known = self._known.get(key)
        if known is None or now - known[0] > KEPT:
            if len(self._known) >= MOST:
                self._known.clear()
            known = self._known[key] = now, count()
        return known[1]


def wilson(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share by Wilson (1927), JASA 22: inside [0, 1] for small counts too.

    Rows that overlap in time count as if they did not, so it is too narrow for these.
    """
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    spread = math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    reach = z * spread / (1 + z * z / count)
    return max(0.0, middle - reach), min(1.0, middle + reach)


_JUDGED = SIGNALS.join(OUTCOMES, OUTCOMES.c.signal == SIGNALS.c.id)


def _sided(where: Where) -> list[Any]:
    return [SIGNALS.c.side.in_(("SELL", "BUY")), newest(), *conditions(where)]


def _means() -> list[sa.ColumnElement[Any]]:
    hit = sa.case((SIGNALS.c.side == OUTCOMES.c.label, 1.0), else_=0.0)
    sign = sa.case((SIGNALS.c.side == "BUY", 1.0), else_=-1.0)
    return [
        sa.func.count().label("signals"),
        sa.func.avg(hit).label("hit_rate"),
        sa.func.avg(SIGNALS.c.confidence).label("confidence"),
        sa.func.avg(sign * OUTCOMES.c.ret).label("mean_return"),
    ]
