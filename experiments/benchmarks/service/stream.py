"""How long a bar takes to be a stored signal, how many messages a second, what a kill costs.

Run with ``python -m experiments.benchmarks.service.stream latency``, ``… speed``, ``… drill``,
``… kills`` or ``… predictions``; each prints a table. PostgreSQL at $SIEVE_TEST_POSTGRES; Redis is
a server of its own on a free port, which is killed and started again (``appendfsync always``).
"""

import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.benchmarks.service.store import stores
from pipeline.store.signal_store import SignalStore
from pipeline.store.stream import StreamStore
from pipeline.streaming.arrivals import Pace
from pipeline.streaming.messages import Message
from pipeline.streaming.model import Model
from pipeline.streaming.sift import Sift
from pipeline.streaming.worker import Worker
from tests.pipeline.streaming import drill
from tests.pipeline.streaming.samples import Given
from tests.pipeline.streaming.servers import Server

FORK = get_context("fork")
OWN = ("rank_momentum", "rank_reversal", "rank_volatility")  # features that compare assets
QUICK = ["+experiment=quickstart", "refiner.progress=false", "cache.folder=null"]
BARS = 300  # bars that are timed
HEAD = """| store | what | kills | stored | lost | half-written | doubled |
|---|---|---|---|---|---|---|"""


@contextmanager
def server() -> Iterator[Server]:
    """A Redis of our own."""
    with tempfile.TemporaryDirectory() as folder:
        made = Server(Path(folder)).start()
        try:
            yield made
        finally:
            made.kill()


def model(folder: Path, alone: bool) -> tuple[Any, pd.DataFrame]:
    """The quickstart model, fitted once; `alone` leaves out what compares assets."""
    from hydra import compose, initialize_config_module

    from pipeline.assemble import assemble, load_source
    from pipeline.signal_pipeline import SignalPipeline

    words = [*QUICK, *(f"~features.columns.{name}" for name in OWN if alone)]
    with initialize_config_module("conf", version_base="1.3"):
        cfg = compose("train", words)
    bars = load_source(cfg).bars
    kept = os.environ.get("SIEVE_BENCH_MODELS")  # a folder in which the models stay
    place = (Path(kept) if kept else folder) / ("alone" if alone else "compared")
    if not place.exists():
        assemble(cfg, "pipeline").fit(bars).save(place)
    return SignalPipeline.load(next(place.iterdir())), bars


def message(number: int, row: dict[str, Any]) -> Message:
    """A bar as Redis would hand it over."""
    fields = {name: str(row[name]) for name in ("asset", "close", "market")}
    return Message(f"{number}-0", fields | {"time": row["time"].isoformat()})


def latency(folder: Path) -> None:
    """One new bar after another: from its message to its signal on the disk."""
    sift = Sift(columns={"market": "market"}, calendar="24/7")
    print("| model | store | bars a step | signals | ms a step: p50 | p95 | CPU ms: p50 | p95 |")
    print("|---|---|---|---|---|---|---|---|")
    for alone in (True, False):
        pipeline, bars = model(folder, alone)
        says = Model(pipeline)
        names = ["AAPL"] if alone else bars.index.unique("asset").tolist()
        flat = bars.loc[names].reset_index()
        flat["time"] = pd.to_datetime(flat["time"], utc=True)
        times = flat["time"].drop_duplicates().sort_values()
        past = bars.loc[names]
        steps = BARS if alone else BARS // 5
        past = past[past.index.get_level_values("time") < times.iloc[-steps]]
        past = past.groupby(level="asset").tail(says.depth + 5)[["close", "market", "session"]]
        for name, url in islice(stores(tempfile.mkdtemp(dir=folder)), 2):
            with SignalStore(url) as store:
                kept = StreamStore(store, "bench", "c")
                worker = Worker(Given(), sift, says, kept, pace=Pace(late="1D"), past=past)
                took = [_step(worker, flat, at) for at in times.iloc[-steps:]]
                wall, cpu = 1e3 * np.array(took[5:]).T
                told = " | ".join(
                    f"{np.percentile(x, q):.1f}" for x in (wall, cpu) for q in (50, 95)
                )
                kind = "each asset alone" if alone else "assets compared"
                per = f"{len(names)} | {store.last():,}"
                print(f"| {kind} | {name} | {per} | {told} |", flush=True)


def _step(worker: Worker, flat: pd.DataFrame, at: pd.Timestamp) -> tuple[float, float]:
    rows = flat[flat["time"] == at].to_dict("records")
    messages = [message(worker.last + n, row) for n, row in enumerate(rows)]
    begin, cpu = time.perf_counter(), time.process_time()
    worker.take(messages)
    return time.perf_counter() - begin, time.process_time() - cpu


def speed(folder: Path, n: int = 50_000) -> None:
    """Messages a second without a model: read, checked, stored, told, acknowledged."""
    print("| store | messages | seconds | messages a second | a second of CPU time |")
    print("|---|---|---|---|---|")
    for name, url in islice(stores(str(folder)), 2):
        with server() as redis:
            rows, good, bad = drill.mixture(n, seed=1)
            drill.produce(redis.url, rows)
            begin, cpu = time.perf_counter(), time.process_time()
            drill.work(redis.url, url, batch=1000)
            wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
            drill.check(redis.url, url, good, bad)
        print(f"| {name} | {n:,} | {wall:.1f} | {n / wall:,.0f} | {n / cpu:,.0f} |", flush=True)


def whole(folder: Path, n: int = 200_000, kills: int = 20, restarts: int = 3) -> None:
    """Duplicates, disorder, poison; workers and Redis killed at random."""
    print("| store | messages | kills | restarts of Redis | seconds | good, stored once | poison |")
    print("|---|---|---|---|---|---|---|")
    for name, url in islice(stores(str(folder)), 2):
        draw = random.Random(2)
        with server() as redis:
            rows, good, bad = drill.mixture(n, seed=2)
            drill.produce(redis.url, rows)
            begin, many, broken = time.perf_counter(), 0, 0
            while True:
                process = FORK.Process(
                    target=drill.work, args=(redis.url, url), kwargs={"batch": 500}
                )
                process.start()
                if broken < restarts and many >= (broken + 1) * kills // (restarts + 1):
                    process.join(draw.uniform(0.5, 2))
                    redis.kill()
                    time.sleep(draw.uniform(0, 0.5))  # it is away for so long
                    redis.start()
                    broken += 1
                if many < kills:
                    process.join(n / 2000 / kills * draw.uniform(0.5, 1.5))
                else:
                    process.join()
                if process.exitcode is None:
                    os.kill(process.pid or 0, signal.SIGKILL)
                    process.join()
                    many += 1
                elif process.exitcode == 0:
                    break
            wall = time.perf_counter() - begin
            drill.check(redis.url, url, good, bad)
        told = f"{many} | {broken} | {wall:.0f} | {len(good):,} of {len(good):,} | {bad} of {bad}"
        print(f"| {name} | {n:,} | {told} |", flush=True)


def kills(folder: Path, n: int = 200) -> None:
    """A worker of a stream, killed at random points, one after another."""
    print(HEAD)
    with closing(stores(str(folder))) as found:
        for name, url in islice(found, 2):
            _killed_streams(name, url, n)


def predictions(folder: Path, n: int = 200) -> None:
    """A run of predict with a store, killed at random points, one after another."""
    print(HEAD)
    with closing(stores(str(folder))) as found:
        for name, url in islice(found, 2):
            _killed_predictions(folder, name, url, n)


def _killed_streams(name: str, url: str, n: int) -> None:
    draw = random.Random(3)
    with server() as redis:
        sent, rows, good, bad = 0, [], set(), 0
        rows, good, bad = drill.mixture(n * 400, seed=3)
        for _ in range(n):  # a little work for each of those that are killed
            drill.produce(redis.url, rows[sent : sent + 400])
            sent += 400
            ours, theirs = FORK.Pipe(duplex=False)
            words = {"batch": 50, "ready": theirs}
            process = FORK.Process(target=drill.work, args=(redis.url, url), kwargs=words)
            process.start()
            ours.recv()
            process.join(draw.uniform(0, 0.5))
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
        drill.work(redis.url, url, batch=500)
        last = drill.check(redis.url, url, good, bad)
    print(f"| {name} | stream | {n} | {last:,} signals | 0 | 0 | 0 |", flush=True)


def _killed_predictions(folder: Path, name: str, url: str, n: int) -> None:
    draw = random.Random(4)
    pipeline, bars = model(folder, alone=False)
    says, known, size = Model(pipeline), set(), len(bars.index.unique("asset"))
    times = bars.index.unique("time").sort_values()
    with SignalStore(url):
        pass
    pace = 0.0  # seconds of a run, as the first two took on this machine
    for number in range(n):
        ours, theirs = FORK.Pipe(duplex=False)
        words = (url, says, bars, times[-2 * n - 60 + 2 * number :], theirs)
        process = FORK.Process(target=_predict_on, args=words)
        process.start()
        theirs.close()
        ours.recv()
        if not pace:
            begin = time.perf_counter()
            known |= {ours.recv(), ours.recv()}
            pace = (time.perf_counter() - begin) / 2
        process.join(draw.uniform(0, 3 * pace))
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        while True:
            try:
                known.add(ours.recv())
            except EOFError:
                break
    with SignalStore(url) as store:
        found = pd.Series([s.time for s in store.follow(n=10**7)]).value_counts()
        assert (found == size).all(), "half a run is stored, or one twice"
        assert known <= set(found.index), "an acknowledged run is lost"
        assert len(known) > n / 4, "most were killed before they had stored anything"
        assert store.verify().signals == store.last()
    print(f"| {name} | predict | {n} | {len(known)} runs of {size} | 0 | 0 | 0 |", flush=True)


def _predict_on(
    url: str, says: Model, bars: pd.DataFrame, times: pd.DatetimeIndex, told: Any
) -> None:
    told.send("ready")
    with SignalStore(url) as store:
        for at in times:
            until = bars[bars.index.get_level_values("time") <= at]
            recent = until.groupby(level="asset", sort=False).tail(says.depth)
            store.append(says.pipeline.signals(recent), "c")
            told.send(at)


def main() -> None:
    """``latency``, ``speed [n]``, ``drill [n]``, ``kills [n]`` or ``predictions [n]``."""
    words = sys.argv[1:]
    number = [int(word) for word in words[1:2]]
    with tempfile.TemporaryDirectory() as folder:
        tables = {"latency": latency, "speed": speed, "drill": whole, "kills": kills}
        tables["predictions"] = predictions
        tables[words[0]](Path(folder), *number)


if __name__ == "__main__":
    main()
