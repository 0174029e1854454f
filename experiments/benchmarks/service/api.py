"""How fast and how whole are the answers: ``python -m experiments.benchmarks.service.api``.

A planted model is fitted, a store is filled with its explained signals over and over, each time a
second earlier, and a real process serves both.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import sqlalchemy as sa
from lightgbm import LGBMClassifier

from pipeline import artifacts
from pipeline.data.sources import frame
from pipeline.signal_pipeline import SignalPipeline
from pipeline.signals_io import to_record
from pipeline.store.signal_store import SignalStore
from pipeline.store.tables import SIGNALS
from stages.ensemble.decide import Decide
from stages.ensemble.stacker import BayesianStacker
from stages.features.given import GivenFeatures
from stages.filter.tree_filter import TreeFilter
from stages.folds import PurgedWalkForward
from stages.labels import Given
from stages.markets.planted import mixed
from stages.online.replay import ReplayBuffer

CONFIG = "91aa"
PAGE = 50  # signals of an asset


def model(market, seed, root):
    trees = LGBMClassifier(n_estimators=8, num_leaves=7, n_jobs=1, verbosity=-1, random_state=seed)
    pipeline = SignalPipeline(
        features=GivenFeatures(),
        labels=Given(),
        folds=PurgedWalkForward(n_folds=4, first=0.3, embargo=1),
        filter=TreeFilter({"lightgbm": trees}),
        refiner=None,
        ensemble=BayesianStacker(),
        decide=Decide(),
        replay=ReplayBuffer(window=1, capacity=300),
    ).fit(market.panel, market.y)
    pipeline.save(root / "models")
    return pipeline


def fill(path, pipeline, market, wanted):
    """`wanted` signals: those of the last bars, and copies of them, each a second earlier."""
    bars = market.panel
    late = bars.index.get_level_values("time") >= bars.index.unique("time")[-40]
    with SignalStore(str(path)) as store:
        own = store.append(pipeline.signals(bars[late], newest=False), CONFIG)
    names = [column.name for column in SIGNALS.c]
    changed = {"id": "id + {k} * {own}", "time": "time - {k} * 1000000"}
    chosen = ", ".join(changed.get(name, f'"{name}"') for name in names)
    listed = ", ".join(f'"{name}"' for name in names)
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:  # past the store: only its speed is asked here
        for k in range(1, -(-wanted // own)):
            words = {"k": k, "own": own}
            copy = f"INSERT INTO signals ({listed}) SELECT {chosen} FROM signals WHERE id <= {own}"
            connection.exec_driver_sql(copy.format(**words))
    with engine.connect() as connection:
        return connection.exec_driver_sql("SELECT max(id) FROM signals").scalar()


class Process:
    """``python -m pipeline.serve`` on a free port."""

    def __init__(self, root, store):
        words = ["data=synthetic", f"root={root}", f"store={store}", "service.port=0"]
        words += ["service.rate=1000000", "service.burst=1000000", f"hydra.run.dir={root}/run"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.serve", *words], stderr=subprocess.PIPE, text=True
        )
        self.url = next(
            found[1]
            for line in self.process.stderr
            if (found := re.search(r"serving (http://\S+),", line))
        )
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        while not httpx.get(f"{self.url}/readyz").is_success:
            time.sleep(0.2)

    def memory(self):
        """Resident, MB."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGESIZE") / 2**20

    def end(self):
        self.process.terminate()
        self.process.wait(30)


def posted(market, k, bars=12, step=2):
    times = market.panel.index.unique("time")
    until = times[100 + step * k % (len(times) - 100)]
    table = market.panel[market.panel.index.get_level_values("time") <= until]
    flat = table.groupby(level="asset").tail(bars).reset_index()
    flat["time"] = flat["time"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    return flat.drop(columns=[c for c in ("session",) if c in flat]).to_dict("records")


def timed(count, ask):
    """Milliseconds: median, 95th and 99th percentile of `count` calls."""
    ask(0)
    out = []
    for k in range(count):
        began = time.perf_counter()
        ask(k)
        out.append(1000 * (time.perf_counter() - began))
    return np.percentile(out, [50, 95, 99])


def reads(url, assets, count):
    with httpx.Client(base_url=url) as client:

        def latest(k):
            found = client.get("/v1/signals", params={"asset": assets[k % len(assets)], "n": PAGE})
            assert found.is_success, found.text

        def one(k):
            assert client.get(f"/v1/signals/{1 + 37 * k}").is_success

        return {
            f"latest {PAGE} of an asset": timed(count, latest),
            "one signal": timed(count, one),
        }


def predictions(url, market, count):
    with httpx.Client(base_url=url, timeout=60) as client:

        def ask(k, explain):
            body = {"bars": bodies[k % len(bodies)], "explain": explain}
            assert client.post("/v1/predict", json=body).is_success

        bodies = [posted(market, k) for k in range(20)]
        out = {
            "predict 4 assets, explained": timed(count, lambda k: ask(k, True)),
            "predict 4 assets": timed(count, lambda k: ask(k, False)),
        }
        began = time.perf_counter()
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda k: ask(k, False), range(4 * count)))
        return out, 4 * count / (time.perf_counter() - began)


def swaps(url, root, digests, market, count):
    """Concurrent requests while the pointer moves; each must be wholly from the model it names."""
    bodies = [posted(market, k) for k in range(10)]
    expected = {}
    for digest in digests:
        fitted = SignalPipeline.load(artifacts.find(root, digest))
        for k, body in enumerate(bodies):
            said = fitted.signals(frame(pd.DataFrame(body)).bars, explain=False)
            expected[digest, k] = [to_record(one, "") for one in said]
    ended = threading.Event()

    def turn():
        k = 0
        while not ended.is_set():
            k += 1
            artifacts.promote(root, digests[k % 2])
            time.sleep(0.5)

    turning = threading.Thread(target=turn)
    turning.start()

    async def run():
        limits = httpx.Limits(max_connections=48)
        async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:

            async def ask(k):
                body = {"bars": bodies[k % 10], "explain": False}
                return await client.post("/v1/predict", json=body)

            return await asyncio.gather(*map(ask, range(count)))

    answers = asyncio.run(run())
    ended.set()
    turning.join()
    seen, mixed_up = {}, 0
    for k, answer in enumerate(answers):
        assert answer.status_code == 200, answer.text
        said = answer.json()
        seen[said["model"]] = seen.get(said["model"], 0) + 1
        plain = [one | {"config": ""} for one in said["signals"]]
        mixed_up += plain != expected[said["model"], k % 10]
    return seen, mixed_up


def soak(process, assets, market, seconds):
    """Requests of all kinds, and the memory after a warm-up and at the end, MB."""
    kinds = [
        "/v1/signals",
        "/v1/signals/active",
        "/v1/performance",
        "/v1/health",
        "/",
        "/signals/7",
    ]
    body, count, marks = {"bars": posted(market, 3)}, 0, []
    until = time.monotonic() + seconds
    warm = time.monotonic() + seconds / 3
    with httpx.Client(base_url=process.url, timeout=60) as client:
        while time.monotonic() < until:
            for place in kinds:
                client.get(place, headers={"Accept": "text/html"})
            for asset in assets:
                client.get("/v1/signals", params={"asset": asset, "n": 10})
            client.post("/v1/predict", json=body)
            count += len(kinds) + len(assets) + 1
            if not marks and time.monotonic() > warm:
                marks.append((count, process.memory()))
    return count, marks[0], process.memory()


def main():
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--signals", type=int, default=1_000_000)
    asked.add_argument("--count", type=int, default=500, help="requests of each kind")
    asked.add_argument("--swaps", type=int, default=1000, help="requests while models are swapped")
    asked.add_argument("--soak", type=float, default=60.0, help="seconds")
    asked.add_argument("--folder", help="where root and store lie; one that is there is used again")
    words = asked.parse_args()
    root = Path(words.folder or tempfile.mkdtemp())
    market = mixed(seed=0, times=300, assets=4, snr=2.0)
    if (root / "digests.json").exists():
        digests = json.loads((root / "digests.json").read_text())
    else:
        first, second = (model(market, seed, root) for seed in (0, 1))
        digests = [first.digest, second.digest]
        began = time.perf_counter()
        rows = fill(root / "signals.db", first, market, words.signals)
        print(f"{rows:,} signals in {time.perf_counter() - began:.0f} s", flush=True)
        (root / "digests.json").write_text(json.dumps(digests))
    artifacts.promote(root, digests[0])
    assets = [f"A{k}" for k in range(4)]
    process = Process(root, root / "signals.db")
    try:
        with SignalStore(str(root / "signals.db")) as store:
            newest = sa.select(sa.func.max(SIGNALS.c.id))
            held = store.database.read(lambda c: c.execute(newest).scalar())
            print(f"{held:,} signals are stored", flush=True)
        found = reads(process.url, assets, words.count) if words.count else {}
        rate = None
        if words.count:
            more, rate = predictions(process.url, market, max(10, words.count // 5))
            found |= more
        for name, (middle, late, last) in found.items():
            print(f"| {name} | {middle:.1f} ms | {late:.1f} ms | {last:.1f} ms |", flush=True)
        if rate:
            print(f"predict, 16 callers at once: {rate:.0f} requests/s", flush=True)
        if words.swaps:
            seen, wrong = swaps(process.url, root, digests, market, words.swaps)
            counts = ", ".join(f"{n} of {d[:12]}" for d, n in seen.items())
            print(f"{words.swaps} requests while models were swapped: {counts}; {wrong} mixed")
        if words.soak:
            count, (warm, before), after = soak(process, assets, market, words.soak)
            growth = after / before - 1
            print(
                f"soak: {count} requests in {words.soak:g} s, {before:.0f} MB after {warm}, "
                f"{after:.0f} MB at the end ({growth:+.1%})"
            )
    finally:
        process.end()


if __name__ == "__main__":
    main()
