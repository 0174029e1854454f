"""How fast are features, and in a stream? ``python -m experiments.benchmarks.features.run``.

Words: ``assets=100 times=2520`` the panel, ``streamed=1000`` assets of the stream, ``replay=20000``
bars that are compared with the table one by one, ``pairs=3`` how often reference and Sieve run in
turn, ``only=plain,library,stream,memory,cache`` some of the rows, ``bulk=2000000,20000000`` rows of
bars from Parquet to Parquet, ``qlib=true`` Alpha158 against Qlib, which is installed into an
environment of its own in ``venv=PATH`` if it is not there.
"""

import os
import sys

from pipeline.cli import THREADS

for name in THREADS:  # before numpy, numba and pandas are imported and count the cores
    os.environ.setdefault(name, "1")

import statistics  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
import venv  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from experiments.benchmarks.features import (  # noqa: E402
    drawn,
    exact,
    library,
    plain,
    plain_rest,
    stored,
)
from stages.features.rows import Rows  # noqa: E402
from stages.features.stream import FeatureStream  # noqa: E402

HERE = Path(__file__).parent
SETTINGS = {
    "assets": "100",
    "times": "2520",
    "streamed": "1000",
    "replay": "20000",
    "pairs": "3",
    "only": "plain,library,stream,memory,cache",
    "bulk": "",
    "qlib": "false",
    "venv": str(Path(tempfile.gettempdir()) / "sieve-benchmark-qlib"),
}


def paired(reference, ours, pairs, clock=time.process_time):
    """Median processor seconds of both, run in turn, and the median ratio."""
    seconds = []
    for _ in range(pairs):
        both = []
        for work in (reference, ours):
            start = clock()
            work()
            both.append(clock() - start)
        seconds.append(both)
    theirs, own = (statistics.median(column) for column in zip(*seconds, strict=True))
    return theirs, own, statistics.median(a / b for a, b in seconds)


def row(work, reference, ours, ratio, goal):
    print(f"| {work} | {reference} | {ours} | {ratio} | {goal} |", flush=True)


def against_plain(bars, pairs):
    whole = drawn.feature_set("default")
    market = pd.Series(Rows.of(bars, {"close"}).equal_weight(), bars.index)
    given = bars.assign(market=market)
    for written in (plain.Plain, plain_rest.Whole):
        expected = written(given, market).columns()
        part = drawn.only(whole, list(expected))
        far = plain_rest.far(part.values(given), expected)
        theirs, own, ratio = paired(
            lambda w=written: w(given, market).columns(), lambda p=part: p.build(given), pairs
        )
        what = f"{len(expected)} columns of features=default, {len(expected) - len(far)} equal"
        row(what, f"pandas {theirs:.2f} s", f"{own:.2f} s", f"{ratio:.1f} x", ">= 20 x")
        if far:
            print(f"far from pandas: {', '.join(far)}")
    expected = plain_rest.Whole(given, market)
    theirs, own, ratio = paired(
        expected.columns, lambda: whole.build(given, threads=2), pairs, time.perf_counter
    )
    what = "the same, 2 threads, by the clock"
    row(what, f"pandas {theirs:.2f} s", f"{own:.2f} s", f"{ratio:.1f} x", ">= 20 x")


def against_library(bars, pairs):
    features = library.features()
    features.build(bars)
    theirs, own, ratio = paired(lambda: library.bare(bars), lambda: features.build(bars), pairs)
    what = f"{len(features.columns)} columns of TA-Lib"
    row(what, f"bare loop {theirs:.2f} s", f"{own:.2f} s", f"{1 / ratio - 1:+.0%}", "<= +25 %")


def streamed(assets, replay):
    times = 300
    bars = drawn.bars(assets, times)
    features = drawn.feature_set("default").fit(bars)
    by_time = [now for _, now in bars.groupby("time", sort=True)]
    stream = FeatureStream(features)
    stream.push(bars[bars.index.get_level_values("time") < by_time[-20].index[0][1]])
    many = _latencies(stream, by_time[-20:])
    rate = assets / statistics.median(many)
    row(
        f"one bar of {assets} assets, features=default",
        "",
        f"{rate:,.0f} symbols/s",
        "",
        ">= 10,000",
    )
    single = bars.loc[["A0000"]]
    one = FeatureStream(drawn.feature_set("default").fit(bars))
    one.push(single.iloc[:200])
    latencies = _latencies(one, [single.iloc[[t]] for t in range(200, times)])
    middle, late = 1e3 * np.quantile(latencies, [0.5, 0.95])
    row("one bar of one asset", "", f"median {middle:.2f} ms, p95 {late:.2f} ms", "", "p95 <= 2 ms")
    wide = min(assets, 200)
    long = drawn.bars(wide, max(replay // wide, 2), seed=1)
    rng = np.random.default_rng(2)  # gaps, late listings, assets that stop
    place = long.groupby("asset").cumcount().to_numpy() / (replay / wide)
    first = np.repeat(rng.uniform(-0.5, 0.3, wide), len(long) // wide)
    last = np.repeat(rng.uniform(0.8, 1.5, wide), len(long) // wide)
    long = long[(place >= first) & (place <= last) & (rng.random(len(long)) > 0.01)]
    features = drawn.feature_set("default").fit(long)
    stream = FeatureStream(features)
    start = time.process_time()
    made = stream.push(long)
    seconds = time.process_time() - start
    whole = features.values(long)[stream.names]
    same = (made == whole) | (made.isna() & whole.isna())
    what = f"{len(long):,} bars replayed, gaps and late listings, {wide} assets"
    other = f"{int((~same).to_numpy().sum())} of {made.size:,} values differ from the table"
    row(what, "", f"{len(long) / seconds:,.0f} symbols/s", other, "1e-12 relative")


def _latencies(stream, tables):
    found = []
    for now in tables:
        assets = now.index.get_level_values("asset").tolist()
        instant = now.index.get_level_values("time")[0]
        columns = {name: now[name].to_numpy() for name in stream.inputs if name in now}
        columns |= {
            name: np.full(len(now), instant.value // 86_400_000_000_000)
            for name in stream.inputs
            if name == "session_day"
        }
        start = time.process_time()
        stream.take(instant, assets, columns)
        found.append(time.process_time() - start)
    return found


def memory(assets, times):
    words = [f"assets={assets}", f"times={times}", "only=peak"]
    command = [sys.executable, "-m", "experiments.benchmarks.features.run", *words]
    peak, matrix = map(float, subprocess.check_output(command, text=True).split())
    what = f"memory of features=alpha158, {assets} x {times}"
    row(
        what,
        f"matrix {matrix:.0f} MB",
        f"peak +{peak:.0f} MB",
        f"{peak / matrix:.2f} x",
        "<= 1.5 x",
    )


def peak(assets, times):
    """Print what the process grew by while Alpha158 was built, at its peak, and the matrix, MB."""
    features = drawn.feature_set("alpha158")
    features.build(drawn.bars(3, 300))
    bars = drawn.bars(assets, times)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _status("VmRSS")
    made = features.build(bars)
    columns = made.shape[1] - bars.shape[1]
    print(_status("VmHWM") - before, len(bars) * columns * 4 / 2**20)


def _status(name):
    """A figure of Linux about this process, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def cache(bars, pairs):
    bare, first, second, day, same = stored.cache_rows(bars, pairs)
    said = "the same bits" if same else "other bits"
    for what, own in (("first time", first), ("second time", second), ("a day more", day)):
        goal = "saves >= 80 %" if own is second else ""
        what = f"features=default out of the cache, {what}" + (f", {said}" if own is day else "")
        row(what, f"without {bare:.2f} s", f"{own:.2f} s", f"saves {1 - own / bare:.0%}", goal)


def bulk(rows):
    command = [sys.executable, "-m", "experiments.benchmarks.features.stored", rows, "2"]
    found = subprocess.check_output(command, text=True).split()
    count, seconds, used, size, peak_of = int(found[0]), *map(float, found[1:])
    what = f"features=default, {count:,} rows from Parquet to Parquet, 2 processes"
    speed = f"{seconds:.0f} s, of the processor {used:.0f} s: {1e6 * used / count:.1f} us a row"
    row(what, f"{size / 2**30:.1f} GB written", speed, f"peak {peak_of:.1f} GB", "<= 4 GB, linear")


def against_qlib(bars, place):
    python = Path(place) / "bin" / "python"
    if not python.exists():
        venv.create(place, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "pyqlib==0.9.7"], check=True)
    features = drawn.feature_set("alpha158")
    bars = bars.astype("float32").astype("float64")  # Qlib stores bars so
    features.build(bars.iloc[:1000])
    with tempfile.TemporaryDirectory() as folder:
        bars.tz_localize(None, level="time").reset_index().to_parquet(f"{folder}/bars.parquet")
        job = [python, HERE / "qlib_job.py", folder, "2"]
        subprocess.run(job, check=True, env=os.environ | {"MLFLOW_ALLOW_FILE_STORE": "true"})
        theirs, used = map(float, Path(folder, "seconds.txt").read_text().split())
        table = pd.read_parquet(f"{folder}/alpha158.parquet")
    start, before = time.perf_counter(), time.process_time()
    made = features.build(bars, threads=2)
    own, spent = time.perf_counter() - start, time.process_time() - before
    names = table.columns[2:].tolist()
    table = table.set_axis(["asset", "time", *names], axis=1).sort_values(["asset", "time"])
    late = bars.groupby("asset").cumcount().to_numpy() >= 60  # Qlib fills windows that are not full
    far = {}
    for name in names:
        ours, qlib = made[f"feature.{name}"].to_numpy()[late], table[name].to_numpy()[late]
        known = np.isfinite(ours) & np.isfinite(qlib)
        gap = np.abs(ours - qlib)[known] > 1e-5 + 1e-4 * np.abs(qlib[known])
        if gap.any() or known.mean() < 0.99:
            far[name] = f"{gap.mean():.2%} of {known.mean():.1%} known values differ"
        if name in far and name[:4] in exact.KNOWN:
            ours = np.where(late, made[f"feature.{name}"], np.nan)
            far[name] += "; " + exact.whose(name, bars, ours, table[name].to_numpy())
    what = f"Alpha158, {len(names) - len(far)} of {len(names)} columns equal"
    reference = f"Qlib, 2 workers {theirs:.1f} s, of the processor {used:.1f} s"
    ratio = f"{theirs / own:.1f} x, of the processor {used / spent:.1f} x"
    row(what, reference, f"2 threads {own:.2f} s, {spent:.2f} s", ratio, ">= 20 x")
    for name, gap in far.items():
        print(f"{name}: {gap}")


def main(words):
    settings = SETTINGS | dict(word.split("=", 1) for word in words)
    if set(settings) != set(SETTINGS):
        raise SystemExit(f"the words are {', '.join(SETTINGS)}; got {words}")
    assets, times, pairs = (int(settings[name]) for name in ("assets", "times", "pairs"))
    wanted = settings["only"].split(",")
    if wanted == ["peak"]:
        peak(assets, times)
        return
    bars = drawn.bars(assets, times)
    print(f"{assets} assets x {times} days, {pairs} paired runs, processor time of one core\n")
    print("| work | reference | Sieve | ratio | goal |")
    print("|---|---|---|---|---|")
    if "plain" in wanted:
        against_plain(bars, pairs)
    if "library" in wanted:
        against_library(bars, pairs)
    if "stream" in wanted:
        streamed(int(settings["streamed"]), int(settings["replay"]))
    if "memory" in wanted:
        memory(assets, times)
    if "cache" in wanted:
        cache(bars, pairs)
    for rows in filter(None, settings["bulk"].split(",")):
        bulk(rows)
    if settings["qlib"] == "true":
        against_qlib(bars, settings["venv"])


if __name__ == "__main__":
    main(sys.argv[1:])
