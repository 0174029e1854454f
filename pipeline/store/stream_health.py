"""How streams are doing: counts, what was set aside, how far behind, how long a message takes."""

from collections import defaultdict
from typing import Any

import numpy as np
import sqlalchemy as sa

from pipeline.store.rows import micros, timestamp
from pipeline.store.signal_store import SignalStore
from pipeline.store.tables import OUTBOX, QUARANTINE, STREAM_COUNTS

COUNTS = (
    *("received", "stored", "corrected", "reordered", "duplicates", "others"),
    *("late", "future", "poison", "failed", "lost", "signals", "revisions", "published"),
)
GAUGES = ("lag", "pending")
FIRST, RATIO, BUCKETS = 0.1, 1.25, 80  # ms of the first bucket; each next is so much wider
MARK = "latency:"


def bucket(seconds: float) -> str:
    """Name of the count that a latency belongs to."""
    ms = max(1e3 * seconds, FIRST)
    return f"{MARK}{min(int(np.ceil(np.log(ms / FIRST) / np.log(RATIO))), BUCKETS)}"


def stream_health(store: SignalStore) -> dict[str, Any]:
    """State of every stream that a store knows of.

    Parameters
    ----------
    store : SignalStore

    Returns
    -------
    dict
        `waiting`, signals that are still to be told; and `sources`, by name: the counts
        `COUNTS` since the beginning, `quarantined` (set aside and not taken up again, by kind),
        the gauges `lag` (messages that were not yet read) and `pending` (read and not yet
        acknowledged), None for a source that cannot tell; `latency_ms` from reading a message to
        its signal being on the disk, with `p50`, `p95`, `p99`, upper ends of buckets 25 % wide,
        None where nothing was stored; `at`, UTC time of the last step, and `age_seconds`.
    """

    def read(connection: sa.Connection) -> dict[str, Any]:
        values: dict[str, dict[str, int]] = defaultdict(dict)
        at: dict[str, int] = {}
        for row in connection.execute(sa.select(STREAM_COUNTS)).mappings():
            values[row["source"]][row["name"]] = row["value"]
            at[row["source"]] = max(at.get(row["source"], 0), row["at"])
        aside: dict[str, dict[str, int]] = defaultdict(dict)
        held = sa.select(QUARANTINE.c.source, QUARANTINE.c.kind, sa.func.count())
        held = held.where(QUARANTINE.c.replayed.is_(None))
        for source, kind, many in connection.execute(
            held.group_by(QUARANTINE.c.source, QUARANTINE.c.kind)
        ):
            aside[source][kind] = many
        waiting = connection.execute(sa.select(sa.func.count()).select_from(OUTBOX)).scalar() or 0
        now = micros(store.clock())
        sources = {
            source: {name: found.get(name, 0) for name in COUNTS}
            | {name: found.get(name) for name in GAUGES}
            | {
                "quarantined": aside.get(source, {}),
                "latency_ms": _percentiles(found),
                "at": timestamp(at[source]),
                "age_seconds": max(0.0, (now - at[source]) / 1e6),
            }
            for source, found in sorted(values.items())
        }
        return {"waiting": waiting, "sources": sources}

    return store.database.read(read)


def _percentiles(found: dict[str, int]) -> dict[str, float | None]:
    counts = np.zeros(BUCKETS + 1, dtype="int64")
    for name, value in found.items():
        if name.startswith(MARK):
            counts[int(name.removeprefix(MARK))] = value
    total, below = counts.sum(), counts.cumsum()
    return {
        f"p{q}": float(FIRST * RATIO ** int(np.searchsorted(below, q / 100 * total)))
        if total
        else None
        for q in (50, 95, 99)
    }
