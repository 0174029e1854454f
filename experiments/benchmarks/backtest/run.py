"""How fast and how exact: ``python -m experiments.benchmarks.backtest.run preset=small``.

Words: ``preset=small`` (or full), ``sizing=N`` (random sizes), ``peers=PYTHON`` (an interpreter
that has vectorbt and backtesting; without it they are left out), ``only=policy,weights`` (of
policy, where, decision, weights, peers, sweep, exactness), ``readme=true`` (puts the table into
the README). Seconds are of the processor: others may be busy too.
"""

import os
import sys

from pipeline.cli import THREADS

for name in THREADS:  # before numpy and numba are imported and count the cores
    os.environ.setdefault(name, "1")

import json  # noqa: E402
import platform  # noqa: E402
import resource  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from dataclasses import dataclass, field, replace  # noqa: E402
from decimal import Decimal  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from hydra import compose, initialize_config_module  # noqa: E402

from experiments.benchmarks.backtest import plain  # noqa: E402
from experiments.benchmarks.backtest.markets import market, panel  # noqa: E402
from pipeline.assemble import assemble  # noqa: E402
from stages.backtest.simulate import simulate  # noqa: E402
from stages.backtest.sweep import crossings  # noqa: E402
from stages.backtest.wealth import wealth  # noqa: E402
from stages.portfolio.book import exact  # noqa: E402
from stages.portfolio.sizes import Sizes, lots  # noqa: E402

HERE = Path(__file__).parent
README = HERE / "README.md"
WORDS = {"preset": "full", "peers": "", "readme": "false", "sizing": "", "only": ""}
FEE = 0.0002  # of one side
MARK = "<!-- table -->"


@dataclass(frozen=True)
class Preset:
    """How much of everything."""

    assets: int
    bars: int
    wide: tuple[int, int]  # assets and bars of the weights
    sets: int  # parameter sets of the sweep, a square
    repeats: int
    sizing: int  # random cases


PRESETS = {
    "full": Preset(100, 2520, (1000, 5000), 1000, 7, 10_000_000),
    "small": Preset(20, 600, (100, 500), 40, 3, 2_000),
}


def paired(ours, theirs, repeats):
    """Seconds of both and the ratio theirs / ours: medians of runs one after the other."""
    ours(), theirs()
    seconds = []
    for _ in range(repeats):
        row = []
        for work in (ours, theirs):
            began = time.process_time()
            work()
            row.append(time.process_time() - began)
        seconds.append(row)
    one, other = np.array(seconds).T
    return float(np.median(one)), float(np.median(other)), float(np.median(other / one))


def policy():
    with initialize_config_module("conf", version_base="1.3"):
        cfg = compose("backtest")
    return assemble(cfg, "portfolio")


def pairs(sets):
    """So many different pairs of windows, none above 165 bars."""
    side = int(np.ceil(np.sqrt(sets)))
    fast = 2 + np.arange(side)
    slow = 45 + np.arange(side) * max(120 // side, 1)
    grid = np.stack(np.meshgrid(fast, slow, indexing="ij")).reshape(2, -1)[:, :sets]
    return grid[0], grid[1]


def printed(code):
    """Numbers that a new process prints."""
    words = [sys.executable, "-c", code]
    root = HERE.parents[2]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=root)
    return [float(word) for word in done.stdout.split()]


def first_call(code):
    """Seconds of a first call in a new process, after its imports: median of three."""
    return float(np.median([printed(code)[-1] for _ in range(3)]))


def rows_of(preset, peers, only):
    """Work, seconds here, reference, its seconds, ratio and goal."""
    prices = market(preset.assets, preset.bars)
    bars, trend = panel(prices), policy()
    parts = {
        "policy": lambda: simulated(prices, bars, trend, preset.repeats),
        "where": lambda: where(bars, trend),
        "decision": lambda: daily(preset),
        "weights": lambda: weights(preset),
        "peers": lambda: expressed(prices, preset, peers, ("crossing", "weights", "backtesting")),
        "sweep": lambda: expressed(prices, preset, peers, ("sweep",)),
        "exactness": lambda: exactness(bars, trend, preset.sizing),
    }
    for name in only or parts:
        yield from parts[name]()


def simulated(prices, bars, trend, repeats):
    """The trend policy, against the same in plain pandas."""
    tables = plain.frames(prices)
    runs = max(repeats // 2, 1)
    ours, theirs, ratio = paired(
        lambda: simulate(bars, trend, costs=2 * FEE),
        lambda: plain.simulate(tables, 2 * FEE),
        runs,
    )
    equity, fills = plain.simulate(tables, 2 * FEE)
    run = simulate(bars, trend, costs=2 * FEE)
    same = run.returns.corr(equity.pct_change())
    count = int((run.orders["filled"] != 0).sum())
    work = f"simulate the trend policy, {prices['close'].shape[1]} assets x {len(run.days)} days"
    note = f"correlation of returns {same:.3f}; {count} and {fills} fills"
    yield work, ours, "plain pandas", theirs, ratio, ">= 20", note


@dataclass(frozen=True)
class Timed:
    """A policy that notes how long its preparation and each of its plans take."""

    policy: object
    seconds: dict = field(default_factory=dict)

    @property
    def warmup(self):
        return self.policy.warmup

    def prepare(self, bars):
        began = time.perf_counter()
        prepared = self.policy.prepare(bars)
        self.seconds["indicators"] = [time.perf_counter() - began]
        return prepared

    def plan(self, prepared, at, book):
        began = time.perf_counter()  # process_time is too coarse for a plan
        plan = self.policy.plan(prepared, at, book)
        kind = "stops" if plan.orders else "quiet"
        if plan.book.rebalanced == at:
            kind = "clustering" if plan.book.clustered == at else "regular"
        self.seconds.setdefault(kind, []).append(time.perf_counter() - began)
        return plan


def where(bars, trend):
    """What the time of the simulation goes into, seconds of the clock."""
    simulate(bars, trend, costs=2 * FEE)
    timed = Timed(trend)
    began = time.perf_counter()
    run = simulate(bars, timed, costs=2 * FEE)
    whole = time.perf_counter() - began
    heads = {
        "indicators": "indicators of all days",
        "clustering": "regular decisions with new clusters",
        "regular": "other regular decisions",
        "stops": "days between them with a stop",
        "quiet": "days between them on which nothing happens",
    }
    for kind, head in heads.items():
        found = timed.seconds.get(kind, [])
        count = "" if kind == "indicators" else f"{len(found)} "
        yield f"of it: {count}{head}", sum(found), "", None, None, "", f"{sum(found) / whole:.0%}"
    rest = whole - sum(map(sum, timed.seconds.values()))
    fills = int((run.orders["filled"] != 0).sum())
    work = f"of it: market, {fills} fills, {len(run.days)} valuations, tables"
    yield work, rest, "", None, None, "", f"{rest / whole:.0%} of {whole * 1000:.0f} ms"


def daily(preset):
    """One decision with five years of history, and the memory above what the imports take."""
    bars = min(1260, preset.bars)
    code = f"""
import time
from experiments.benchmarks.backtest.run import policy
from experiments.benchmarks.backtest.markets import market, panel
from stages.portfolio.book import Book

def highest():  # getrusage would begin with what the parent had
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])

before = highest()
bars, trend = panel(market({preset.assets}, {bars})), policy()
began = time.process_time()
prepared = trend.prepare(bars)
plan = trend.plan(prepared, prepared.times[-1], Book.opened(1e6))
took = time.process_time() - began
print(highest() - before, took)
"""
    kilobytes, seconds = np.median([printed(code)[-2:] for _ in range(3)], axis=0).tolist()
    work = f"one decision, {preset.assets} assets, {bars} bars of history (a new process)"
    note = f"{kilobytes / 1024:.0f} MB above the imports, bars included; goal 200 MB"
    yield work, seconds, "requirement", 10.0, 10.0 / seconds, "<= 0.5 s", note


def weights(preset):
    """Target weights times prices, against the product that numpy makes of them."""
    assets, bars = preset.wide
    rng = np.random.default_rng(0)
    prices = np.exp(rng.normal(0, 0.01, (bars, assets)).cumsum(axis=0))
    held = rng.random((bars, assets))
    held /= held.sum(axis=1, keepdims=True)

    def product():
        moved = prices[1:] / prices[:-1]
        return np.cumprod((held[:-1] * moved).sum(axis=1))

    size = f"{assets} assets x {bars} days"
    for costs, word in (("none", "no costs"), (0.001, "with costs")):
        ours, theirs, ratio = paired(
            lambda costs=costs: wealth(held, prices, costs=costs), product, preset.repeats
        )
        gap = abs(wealth(held, prices, costs="none").value.iloc[-1] / product()[-1] - 1)
        name = "numpy: cumprod of weighted relatives"
        yield (
            f"wealth, {size}, {word}",
            ours,
            name,
            theirs,
            ratio,
            ">= 0.33",
            f"differ by {gap:.0e}",
        )
    ours, theirs, ratio = paired(
        lambda: wealth(held, prices, costs="none"),
        lambda: np.cumprod(prices[1:] / prices[:-1], axis=0),
        preset.repeats,
    )
    yield (
        f"wealth, {size}, no costs",
        ours,
        "numpy: cumprod of every relative",
        theirs,
        ratio,
        ">= 0.33",
        "",
    )


def expressed(prices, preset, peers, names):
    """What vectorbt and backtesting.py can express too."""
    close, opened = (pd.DataFrame(prices[name]) for name in ("close", "open"))
    months = np.arange(20, len(close), 21)
    rng = np.random.default_rng(1)
    target = rng.dirichlet(np.ones(close.shape[1]), len(months)) * 0.95
    table = pd.DataFrame(target, months, close.columns)
    fast, slow = pairs(preset.sets)
    one = (np.array([20]), np.array([50]))
    work = {
        "crossing": lambda: crossings(close, *one, costs=2 * FEE, opened=opened),
        "weights": lambda: wealth(table, close, costs=2 * FEE),
        "sweep": lambda: crossings(close, fast, slow, costs=2 * FEE, opened=opened),
    }
    ours = {}
    for name, do in work.items():
        if name not in names:
            continue
        do()
        seconds = []
        for _ in range(preset.repeats if name != "sweep" else 3):
            began = time.process_time()
            result = do()
            seconds.append(time.process_time() - began)
        ours[name] = (float(np.median(seconds)), result)
    theirs = ask_peers(prices, months, target, (fast, slow), (peers, names))
    heads = {
        "crossing": f"crossing of 20/50, {close.shape[1]} assets x {len(close)} days",
        "weights": "monthly target weights, the same market",
        "sweep": f"{len(fast)} pairs of windows, the same market",
    }
    for name, head in heads.items():
        if name not in names:
            continue
        seconds, result = ours[name]
        if name not in theirs:
            yield head, seconds, "vectorbt (not asked)", None, None, ">= 1", ""
            continue
        found = theirs[name]
        mine = result.value.iloc[-1] if name == "weights" else (1 + result).prod().to_numpy()
        gap = np.max(np.abs(np.asarray(found["result"]) / mine - 1))
        note = f"differ by {gap:.0e}"
        yield head, seconds, "vectorbt, warm", found["warm"], found["warm"] / seconds, ">= 1", note
        if name != "sweep":
            new = first_call(FIRST.format(name=name, assets=preset.assets, bars=preset.bars))
            row = (found["first"], found["first"] / new, ">= 10", "kernels compiled before")
            yield f"{head}, first call", new, "vectorbt, first call", *row
    if "backtesting" in theirs:
        few = close.iloc[:, :10]
        began = time.process_time()
        result = crossings(few, *one, costs=2 * FEE, opened=opened.iloc[:, :10])
        seconds = time.process_time() - began
        found = theirs["backtesting"]
        gap = abs(found["result"] / float((1 + result).prod().iloc[0]) - 1)
        row = (found["first"], found["first"] / seconds, ">= 1")
        note = f"differ by {gap:.0e}: it buys whole units"
        yield (
            f"crossing of 20/50, 10 assets x {len(close)} days",
            seconds,
            "backtesting.py",
            *row,
            note,
        )


FIRST = """
import time
import numpy as np, pandas as pd
from experiments.benchmarks.backtest.markets import market
from stages.backtest.sweep import crossings
from stages.backtest.wealth import wealth
prices = market({assets}, {bars})
close, opened = (pd.DataFrame(prices[name]) for name in ("close", "open"))
months = np.arange(20, len(close), 21)
table = pd.DataFrame(1 / close.shape[1], months, close.columns)
began = time.process_time()
if "{name}" == "weights":
    wealth(table, close, costs=0.0004)
else:
    crossings(close, np.array([20]), np.array([50]), costs=0.0004, opened=opened)
print(time.process_time() - began)
"""


def ask_peers(prices, months, target, windows, asked):
    """Their seconds and results of the works asked for; nothing without their interpreter."""
    peers, names = asked
    if not peers:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "market.npz"
        fast, slow = windows
        np.savez(file, **prices, months=months, weights=target, fast=fast, slow=slow, fee=FEE)
        return {name: ask(peers, file, name) for name in names}


def ask(peers, file, name):
    """One work in a process of its own, so that a first call is a first call."""
    words = [peers, str(HERE / "peers.py"), str(file), name]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def exactness(bars, trend, cases):
    """Cents that do not add up, and sizes above a cap."""
    run = simulate(bars, trend, costs=2 * FEE)
    fills = {time: part for time, part in run.orders.groupby("time")}
    cash, breaks = Decimal("1000000.00"), 0
    cent = Decimal("0.01")
    for time_, day in run.days.iterrows():
        for fill in fills.get(time_, pd.DataFrame()).itertuples():
            value, cost = (exact(x).quantize(cent) for x in (fill.value, fill.cost))
            cash += (-value if fill.filled > 0 else value) - cost
        worth = sum((exact(v).quantize(cent) for v in run.values.loc[time_] if v), Decimal(0))
        breaks += exact(day["cash"]).quantize(cent) != cash
        breaks += exact(day["equity"]).quantize(cent) != cash + worth
    yield (
        f"cash and positions are the equity to the cent, {len(run.days)} days",
        *[None] * 4,
        "0",
        (f"{breaks} breaks"),
    )
    rng, above, done = np.random.default_rng(0), 0, 0
    while done < cases:
        count = int(rng.integers(1, 40))
        names = [f"E{k}" for k in range(count)]
        sizes = Sizes(
            each=float(rng.uniform(0.01, 1)),
            cluster=float(rng.uniform(0.01, 1)),
            exposure=float(rng.uniform(0.1, 1)),
            lot=int(rng.choice([1, 10, 100])),
        )
        groups = {name: int(k) for name, k in zip(names, rng.integers(0, 5, count), strict=True)}
        prices = dict(
            zip(names, np.round(10 ** rng.uniform(-2, 4, count), 4).tolist(), strict=True)
        )
        claims = rng.random(count)
        weights = sizes.weights(claims, [groups[name] for name in names])
        total = Decimal(int(rng.integers(1_000_00, 10**9))) / 100
        out = lots(dict(zip(names, weights.tolist(), strict=True)), prices, groups, sizes, total)
        worth = {name: exact(prices[name]) * shares for name, shares in out.items()}
        above += sum(value > exact(sizes.each) * total for value in worth.values())
        above += sum(shares % sizes.lot for shares in out.values())
        above += sum(worth.values()) > exact(sizes.exposure) * total
        for group in set(groups.values()):
            inside = sum(worth[name] for name in names if groups[name] == group)
            above += inside > exact(sizes.cluster) * total
        done += count
    yield (
        f"{done:,} random sizes: whole lots, never above a cap",
        *[None] * 4,
        "0",
        f"{above} breaks",
    )


def table(rows):
    """The rows in Markdown."""
    out = ["| work | here | reference | there | ratio | goal | |", "|---|---|---|---|---|---|---|"]
    for work, ours, name, theirs, ratio, goal, note in rows:
        cells = [work, _seconds(ours), name or "", _seconds(theirs)]
        cells += ["" if ratio is None else f"{ratio:.2g}", goal, note]
        out.append(f"| {' | '.join(cells)} |")
    return "\n".join(out)


def _seconds(value):
    if value is None:
        return ""
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"


def main(words):
    given = WORDS | dict(word.split("=", 1) for word in words)
    rows = []
    preset = PRESETS[given["preset"]]
    if given["sizing"]:
        preset = replace(preset, sizing=int(given["sizing"]))
    only = [name for name in given["only"].split(",") if name]
    for row in rows_of(preset, given["peers"], only):
        rows.append(row)
        print(table([row]).splitlines()[-1], flush=True)
    said = table(rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    said += f"\n\nPython {platform.python_version()}, one core, peak {peak:.0f} MB.\n"
    print("\n" + said)
    if given["readme"] == "true":
        text = README.read_text(encoding="utf-8")
        before, _, after = text.partition(MARK)
        README.write_text(
            f"{before}{MARK}\n{said}{MARK}{after.partition(MARK)[2]}", encoding="utf-8"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
