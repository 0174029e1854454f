"""Does the service grow while it answers: ``python -m experiments.benchmarks.service.soak``.

A real process serves a planted model and its signals. It is asked at an even pace for what people
and programs ask for, and its resident memory is read all the while.
"""

import argparse
import asyncio
import itertools
import os
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np

from experiments.benchmarks.service.api import Process, fill, model, posted
from pipeline import artifacts
from stages.markets.planted import mixed

LOOKS = 90  # readings of the memory
HTML = {"Accept": "text/html"}


def asked(market):
    """What 100 requests of a day are, over and over: method, path, and what goes with them."""
    bodies = [{"bars": posted(market, k), "explain": k % 2 == 0} for k in range(20)]
    reads = [("GET", "/healthz", {}), ("GET", "/readyz", {})] * 20
    reads += [("GET", f"/v1/signals/{1 + 17 * k}", {}) for k in range(25)]
    reads += [("GET", f"/v1/signals?asset=A{k % 4}&n=10", {}) for k in range(15)]
    reads += [("GET", "/v1/signals/active?n=10", {}), ("GET", "/metrics", {})] * 3
    pages = ("/", "/?show=latest", "/signals/7", "/performance", "/model", "/static/style.css")
    reads += [("GET", place, {"headers": HTML}) for place in pages]
    reads += [("GET", "/v1/health", {}), ("GET", "/v1/performance?by=side", {})]
    reads += [("GET", "/v1/signals/999999999", {}), ("GET", "/v1/signals?n=nine", {})]
    for k in itertools.count():
        yield from reads
        for j in range(2):
            yield "POST", "/v1/predict", {"json": bodies[(2 * k + j) % len(bodies)]}


async def load(url, market, seconds, rate, callers=4):
    """Ask `rate` times a second for `seconds`; how often each status or fault came, and ms."""
    statuses, took, todo = {}, [], asked(market)
    began = time.monotonic()
    numbers = itertools.count()

    async def one_caller(client):
        for method, place, more in todo:
            due = began + next(numbers) / rate
            if due > began + seconds:
                return
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            start = time.perf_counter()
            try:
                said = (await client.request(method, place, **more)).status_code
            except httpx.TransportError as error:  # such as a connection closed while it was idle
                said = type(error).__name__
            took.append(1000 * (time.perf_counter() - start))
            statuses[said] = statuses.get(said, 0) + 1

    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        await asyncio.gather(*(one_caller(client) for _ in range(callers)))
    return statuses, np.percentile(took, [50, 95, 99])


async def watched(process, seconds, work):
    """Do `work` and read the memory meanwhile: its result, seconds, MB."""
    began, times, memory = time.monotonic(), [], []
    task = asyncio.ensure_future(work)
    while not task.done():
        times.append(time.monotonic() - began)
        memory.append(process.memory())
        await asyncio.wait([task], timeout=seconds / LOOKS)
    return task.result(), np.array(times), np.array(memory)


def told(times, memory, warm):
    """Memory by tenths of the time after the warm-up; growth from the first to the last of them."""
    late = times >= warm * times[-1]
    parts = np.array_split(memory[late], 10)
    middles = [float(np.median(part)) for part in parts]
    hours = times[late] / 3600
    slope = np.polyfit(hours - hours[0], memory[late], 1)[0]
    return middles, middles[-1] / middles[0] - 1, slope


def main():
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--seconds", type=float, default=1800.0)
    words.add_argument("--rate", type=float, default=100.0, help="requests a second")
    words.add_argument("--signals", type=int, default=20_000)
    words.add_argument("--warm", type=float, default=1 / 3, help="share of the time")
    found = words.parse_args()
    market = mixed(seed=0, times=300, assets=4, snr=2.0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        fitted = model(market, 0, root)
        artifacts.promote(root, fitted.digest)
        rows = fill(root / "signals.db", fitted, market, found.signals)
        process = Process(root, root / "signals.db")
        try:
            work = load(process.url, market, found.seconds, found.rate)
            result, times, memory = asyncio.run(watched(process, found.seconds, work))
            ticks = Path(f"/proc/{process.process.pid}/stat").read_text().split()[13:15]
        finally:
            process.end()
    statuses, late = result
    count, cpu = sum(statuses.values()), sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    counts = ", ".join(f"{n:,} of {code}" for code, n in sorted(statuses.items(), key=str))
    print(f"{count:,} requests in {times[-1]:.0f} s over {rows:,} signals: {counts}")
    print("ms: median {:.1f}, 95 % {:.1f}, 99 % {:.1f}".format(*late))
    print(f"{cpu:.0f} s of processor time, {1000 * cpu / count:.2f} ms a request")
    middles, growth, slope = told(times, memory, found.warm)
    print("MB by tenths after the warm-up: " + ", ".join(f"{mb:.1f}" for mb in middles))
    print(f"growth {growth:+.2%}, {slope:+.2f} MB an hour; {memory[0]:.0f} MB at the start")


if __name__ == "__main__":
    main()
