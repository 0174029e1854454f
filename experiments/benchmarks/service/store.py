"""How fast a store takes signals in, and finds them among many.

Run with ``python -m experiments.benchmarks.service.store append``, or ``… latest URL``.

Explained signals carry 60 contributions and an appraisal, short ones neither. Appends are durable:
each call of 5,000 returns when it is on the disk. PostgreSQL at $SIEVE_TEST_POSTGRES.
"""

import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import count, islice
from os import environ
from pathlib import Path

import numpy as np
import pandas as pd
import psycopg

from pipeline.store.append import append
from pipeline.store.rows import digest_of, row_of
from pipeline.store.signal_store import SignalStore
from stages.signal import Appraisal, Finding, Reasons, Signal

SERVER = environ.get("SIEVE_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/test")
START = pd.Timestamp("2020-01-01", tz="UTC")
ASSETS, BATCH, ASKED = 500, 5_000, 1_000
RNG = np.random.default_rng(0)
PUSHES = {f"feature_{i:02d}": float(x) for i, x in enumerate(RNG.normal(0, 0.1, 60))}
WHY = Reasons(
    side=1,
    baseline=0.1,
    margin=0.1 + sum(PUSHES.values()),
    contributions=PUSHES,
    by_stage={"filter.lightgbm": 0.2, "refiner.lstm": 0.3},
    raw_gap=1e-9,
    references="ab12",
    text=("momentum_20 1.2 favours BUY (+0.750)",) * 5,
)
FOUND = Finding("stale", "timing", "error", -20, "5.0 bars old, at most 4", "fetch newer bars")
RISK = {"risk": 55.2, "band": (30.0, 80.0), "raw": 69.6, "calibrated": 50.5}
APPRAISED = Appraisal(80, True, (FOUND,), 35, 41, size=0.05, chance=0.6, expected=0.002, **RISK)
ONE = Signal(
    asset="A000",
    time=START,
    side=1,
    status="fired",
    probabilities={-1: 0.25, 0: 0.35, 1: 0.4},
    confidence=0.4,
    certainty=0.85,
    epistemic=0.01,
    aleatoric=1.05,
    expires=START + pd.Timedelta("7D"),
    model="m" * 64,
    strength="strong",
    stages={"filter": 0.1, "refiner": 0.15, "ensemble": 0.2, "gate": True},
    reasons=WHY,
    prices={"close": 163.2, "target": 170.0, "stop": 156.4},
    appraisal=APPRAISED,
    interval={"low": -0.031, "high": 0.042, "level": 0.95},
    sides=(0, 1),
)


def signal(number: int, explained: bool) -> Signal:
    """Signal `number`: one of 500 assets at one of many hours."""
    at = START + pd.Timedelta(hours=number // ASSETS)
    return replace(
        ONE,
        asset=f"A{number % ASSETS:03d}",
        time=at,
        expires=at + pd.Timedelta("7D"),
        reasons=WHY if explained else None,
        appraisal=APPRAISED if explained else None,
    )


def filled(store: SignalStore, rows: int, explained: bool) -> tuple[float, float]:
    """Append `rows` signals; seconds to make rows of them, and to store these durably."""
    made = stored = 0.0
    for start in range(0, rows, BATCH):
        signals = [signal(n, explained) for n in range(start, min(start + BATCH, rows))]
        begin = time.perf_counter()
        batch = [row_of(s, "c", "s") | {"revision": 0} for s in signals]
        made += time.perf_counter() - begin
        begin = time.perf_counter()
        store.database.write(lambda c, b=batch: append(c, store._now(), b, "bench"))
        stored += time.perf_counter() - begin
    return made, stored


def asked(store: SignalStore) -> np.ndarray:
    """Milliseconds for the latest 50 of an asset, drawn anew each time."""
    out = np.empty(ASKED)
    assets = RNG.integers(0, ASSETS, ASKED)
    for at, asset in enumerate(assets):
        begin = time.perf_counter()
        found = store.latest(50, asset=f"A{asset:03d}")
        out[at] = 1e3 * (time.perf_counter() - begin)
        assert len(found) == 50
    return out


def fast(store: SignalStore, rows: int) -> None:
    """Short signals, all but asset and times alike: so they are quickly made."""
    one = row_of(signal(0, explained=False), "c", "s") | {"revision": 0}
    start, hour = one["time"], 3_600_000_000
    for first in range(store.last(), rows, 10 * BATCH):
        batch = []
        for number in range(first, min(first + 10 * BATCH, rows)):
            at = start + number // ASSETS * hour
            row = one | {"asset": f"A{number % ASSETS:03d}", "time": at, "expires": at + 168 * hour}
            batch.append(row | {"digest": digest_of(row)})
        store.database.write(lambda c, b=batch: append(c, store._now(), b, "bench"))


def bulk(name: str, url: str, rows: int, explained: bool) -> None:
    """How many are stored in a second, without and with making their rows."""
    with SignalStore(url) as store:
        made, stored = filled(store, rows, explained)
        kind = "explained" if explained else "short"
        told = f"{rows / stored:,.0f} | {rows / (made + stored):,.0f}"
        print(f"| {name} | {kind} | {rows:,} | {told} |", flush=True)


def latest(name: str, url: str, rows: int) -> None:
    """How long the latest 50 of an asset take, in a store that is filled first if it is not."""
    with SignalStore(url) as store:
        if store.last() < rows:
            fast(store, rows)
        took = asked(store)
        told = " | ".join(f"{np.percentile(took, q):.2f}" for q in (50, 95, 99))
        print(f"| {name} | {store.last():,} | {told} |", flush=True)


def stores(folder: str) -> Iterator[tuple[str, str]]:
    """Name and URL of an empty store of each kind, gone afterwards."""
    for number in count():
        yield "SQLite", f"sqlite:///{Path(folder) / str(number)}.db"
        schema = f"bench_{secrets.token_hex(4)}"
        with psycopg.connect(SERVER, autocommit=True) as server:
            server.execute(f"CREATE SCHEMA {schema}")
            try:
                yield "PostgreSQL", f"{SERVER}?options=-csearch_path%3D{schema}"
            finally:
                server.execute("SET client_min_messages = error")
                server.execute(f"DROP SCHEMA {schema} CASCADE")


def main() -> None:
    """``append [rows]``, or ``latest URL [rows]`` for a store that is kept."""
    words = dict(enumerate(sys.argv[1:]))
    if words.get(0) == "latest":
        print("| store | signals | latest 50 of an asset, ms: p50 | p95 | p99 |")
        print("|---|---|---|---|---|")
        name = "PostgreSQL" if words[1].startswith("postgresql") else "SQLite"
        latest(name, words[1], int(words.get(2, 1_000_000)))
        return
    rows = int(words.get(1, 100_000))
    print("| store | signals | rows | stored a second | made and stored |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, closing(stores(folder)) as places:
        for number, (name, url) in enumerate(islice(places, 4)):
            bulk(name, url, rows if number < 2 else rows // 5, explained=number > 1)


if __name__ == "__main__":
    main()
