"""How many signals a minute, from bars to verdicts on the disk: ``... service.life ROOT``.

ROOT holds a champion, as ``python -m pipeline.train +experiment=quickstart`` leaves it. Its newest
sessions are predicted anew, appraised, judged by the rules of emission and stored; then a
planted model answers one new bar after the other over HTTP, stored before the answer.
"""

import argparse
import tempfile
import time
from contextlib import closing
from pathlib import Path

import httpx
import numpy as np
from hydra import compose, initialize_config_module

from experiments.benchmarks.service.api import Process, model, posted
from experiments.benchmarks.service.store import stores
from pipeline import artifacts
from pipeline.assemble import assemble
from pipeline.signal_pipeline import SignalPipeline
from pipeline.store.emission import Rules
from pipeline.store.signal_store import SignalStore
from stages.markets.planted import mixed


def loaded(root):
    """The champion of a root, its bars, and the rules of emission."""
    with initialize_config_module("conf", version_base="1.3"):
        cfg = compose("predict", ["+experiment=quickstart"])
    pipeline = SignalPipeline.load(artifacts.champion(root))
    return pipeline, assemble(cfg, "data").bars, assemble(cfg, "emit")


def life(pipeline, bars, emission, sessions, explain, url):
    """Signals of the newest sessions, seconds to make and to store them, processor seconds."""
    times = bars.index.unique("time").sort_values()
    first = times[-sessions - pipeline.warmup]
    part = bars[bars.index.get_level_values("time") >= first]
    pipeline.signals(part, explain=explain)  # what is compiled and cached once
    with SignalStore(url) as store:
        began, cpu = time.perf_counter(), time.process_time()
        found = [
            s for s in pipeline.signals(part, newest=False, explain=explain) if s.side is not None
        ]
        made = time.perf_counter() - began
        classes = pipeline.instruments.classes([s.asset for s in found])
        costs = pipeline.decide.cost(classes).tolist()
        rules = Rules(emission, classes.tolist(), costs) if emission is not None else None
        stored = store.append(found, "c", strategy="life", rules=rules)
        took = time.perf_counter() - began
        return stored, made, took - made, time.process_time() - cpu


def one_by_one(count):
    """Milliseconds from a posted bar of 4 assets to its stored, explained signals: percentiles."""
    market = mixed(seed=0, times=300 + count, assets=4, snr=2.0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        artifacts.promote(root, model(mixed(seed=0, times=300, assets=4, snr=2.0), 0, root).digest)
        SignalStore(str(root / "signals.db")).close()
        process, took = Process(root, root / "signals.db"), []
        try:
            with httpx.Client(base_url=process.url, timeout=60) as client:
                for k in range(count + 5):
                    body = {"bars": posted(market, k, step=1), "keep": True}
                    began = time.perf_counter()
                    said = client.post("/v1/predict", json=body).json()
                    took.append(1000 * (time.perf_counter() - began))
                    assert said["stored"] == 4, said
        finally:
            process.end()
    return np.percentile(took[5:], [50, 95, 99])


def main():
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("root", type=Path)
    words.add_argument("--explained", type=int, default=50, help="sessions of explained signals")
    words.add_argument("--plain", type=int, default=500, help="sessions of signals without reasons")
    words.add_argument("--count", type=int, default=300, help="bars over HTTP")
    asked = words.parse_args()
    parts = loaded(asked.root)
    print(
        "| signals | store | stored | making them | storing them | a minute "
        "| a minute of processor time |"
    )
    print("|---|---|---|---|---|---|---|")
    kinds = (("explained", asked.explained, True), ("without reasons", asked.plain, False))
    with tempfile.TemporaryDirectory() as folder, closing(stores(folder)) as places:
        for (name, sessions, explain), (kind, url) in zip(
            (one for one in kinds for _ in range(2)), places, strict=False
        ):
            stored, made, kept, cpu = life(*parts, sessions, explain, url)
            rate = f"{60 * stored / (made + kept):,.0f} | {60 * stored / cpu:,.0f}"
            told = f"{kind} | {stored:,} | {made:.1f} s | {kept:.1f} s | {rate}"
            print(f"| {name} | {told} |", flush=True)
    if asked.count:
        middle, late, last = one_by_one(asked.count)
        print(f"one bar of 4 assets over HTTP: {middle:.1f} ms, {late:.1f} ms, {last:.1f} ms")


if __name__ == "__main__":
    main()
