"""Features that are kept on disk: the cache, and tables larger than memory."""

import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from experiments.benchmarks.features import drawn
from pipeline.data.bulk import write_features
from pipeline.data.cached import FeatureCache
from pipeline.data.intake import Intake
from stages.panel import until

TIMES = 2520
INTAKE = Intake(columns={"vwap": "vwap"}, calendar="24/7")


def timed(work):
    """Seconds of wall-clock and the result."""
    start = time.perf_counter()
    made = work()
    return time.perf_counter() - start, made


def cache_rows(bars, pairs):
    """Seconds without a cache, with an empty one, a second time, and for a day more."""
    features = drawn.feature_set("default")
    newest = bars.index.unique("time").sort_values()[-2]
    before = until(bars, newest)
    fitted = features.fit(before)
    fitted.build(before)
    found = []
    for _ in range(pairs):
        with tempfile.TemporaryDirectory() as folder:
            kept = FeatureCache(folder)
            bare, expected = timed(lambda: fitted.build(bars))
            first, _ = timed(lambda k=kept: k.build(fitted, before))
            second, _ = timed(lambda k=kept: k.build(fitted, before))
            day, made = timed(lambda k=kept: k.build(fitted, bars))
            names = [name for name in made if name not in bars]
            same = np.array_equal(made[names], expected[names], equal_nan=True)
            found.append((bare, first, second, day, same))
    return [np.median(column) for column in zip(*found, strict=True)]


def write_bars(file, rows):
    """Drawn bars of at least `rows` rows, sorted by asset, in row groups of some assets."""
    writer, block = None, 100
    for number in range(-(-rows // (TIMES * block))):
        bars = drawn.bars(block, TIMES, seed=number).reset_index()
        bars["asset"] = [f"B{number:04d}{name}" for name in bars["asset"]]
        table = pa.Table.from_pandas(bars, preserve_index=False)
        writer = writer or pq.ParquetWriter(file, table.schema)
        writer.write_table(table, row_group_size=TIMES * block)
    writer.close()


def bulk(rows, workers):
    """Write features of drawn bars; print rows, seconds, processor seconds, bytes, peak GB."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "bars.parquet")
        # the bars are drawn in another process, so that its memory is not counted
        draw = "from experiments.benchmarks.features.stored import write_bars; "
        draw += f"write_bars({str(file)!r}, {rows})"
        subprocess.run([sys.executable, "-c", draw], check=True)
        watch, before = Peak(), processor()
        features = drawn.feature_set("default")
        seconds, done = timed(
            lambda: write_features(
                features, str(file), Path(folder, "out"), INTAKE, workers=workers
            )
        )
        size = sum(part.stat().st_size for part in done.files)
        used = processor() - before
        print(done.rows, f"{seconds:.1f}", f"{used:.1f}", size, f"{watch.stop():.2f}", flush=True)


def processor():
    """Processor seconds of this process and of those that it started and that have ended."""
    both = (resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


class Peak:
    """The largest memory of this process and those that it started, GB. Linux only."""

    def __init__(self):
        self.peak, self.over = 0.0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self):
        while not self.over.wait(0.2):
            self.peak = max(self.peak, sum(map(_resident, _family(os.getpid()))))

    def stop(self):
        self.over.set()
        self.thread.join()
        return self.peak


def _family(process):
    """A process and all below it."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [process]
    for one in found:
        found += parents.get(one, [])
    return found


def _resident(process):
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(x.split()[1]) / 2**20 for x in lines if x.startswith("VmRSS")), 0.0)


if __name__ == "__main__":
    bulk(int(sys.argv[1]), int(sys.argv[2]))
