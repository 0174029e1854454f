"""How often detectors of drift alarm where nothing changed, and how soon where something did.

python experiments/benchmarks/drift/run.py [seeds]
"""

import sys
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from river.drift import ADWIN, PageHinkley
from scipy.stats import chi2, ks_2samp, norm

from stages.online.change import ChangeWatch
from stages.online.drift import SERIES, SPELLS, WATCHES, DriftWatch, settled_bars
from stages.online.duel import wealth
from stages.online.shift import shift
from stages.signal import ODDS

ASSETS, BARS, CHANGE, AFTER = 20, 10_000, 1_000, 500
WATCH = DriftWatch()
Rows = pd.DataFrame


def odds(z: np.ndarray, width: float, sd: float = 1.0) -> np.ndarray:
    """Of sell, hold, buy, where a move z + sd e beyond `width` is a side."""
    sell, buy = norm.cdf((-width - z) / sd), norm.sf((width - z) / sd)
    return np.stack([sell, 1 - sell - buy, buy], axis=-1)


def persistent(rng: np.random.Generator, shape: tuple[int, ...], memory: float) -> np.ndarray:
    x = rng.standard_normal(shape)
    for t in range(1, shape[-1]):
        x[..., t] = memory * x[..., t - 1] + np.sqrt(1 - memory**2) * x[..., t]
    return x


def market(  # noqa: PLR0913  what is planted
    seed: int,
    bars: int,
    assets: int = ASSETS,
    span: int = 1,
    skill: float = 0.3,
    common: float = 0.3,
    clustered: bool = False,
    turned: int | None = None,
    bold: int | None = None,
) -> Rows:
    """What a model that knows the odds said, and what came.

    Moves overlap by `span` bars and have the part `common` in common; leans hang together. With
    `clustered` the volatility moves and the model does not know. From bar `turned` on leans mean
    the opposite; from bar `bold` on the model says twice what it should.
    """
    rng = np.random.default_rng(seed)
    lean = skill * persistent(rng, (assets, bars), 0.8)
    shock = np.sqrt(common) * rng.standard_normal(bars + span)
    shock = shock + np.sqrt(1 - common) * rng.standard_normal((assets, bars + span))
    if clustered:
        shock *= np.exp(0.35 * persistent(rng, (bars + span,), 0.97))
    noise = sum(shock[:, k + 1 : k + 1 + bars] for k in range(span)) / np.sqrt(span)
    true, said = lean.copy(), lean.copy()
    if turned is not None:
        true[:, turned:] *= -1
    if bold is not None:
        said[:, bold:] *= 2
    width = 0.43
    move = true + noise
    p = odds(said, width, float(noise.std()) if clustered else 1.0)
    side = np.where(move > width, 1.0, np.where(move < -width, -1.0, 0.0))
    times = pd.date_range("1990-01-01", periods=bars, freq="h", tz="UTC").as_unit("us")
    index = pd.MultiIndex.from_product(
        [[f"A{a:02d}" for a in range(assets)], times], names=["asset", "time"]
    )
    rows = pd.DataFrame(p.reshape(-1, 3), index, ODDS).assign(side=side.ravel())
    return rows.assign(end=index.get_level_values("time") + pd.Timedelta(hours=span))


def ours(bars: pd.DataFrame, span: int) -> list[int]:
    """Bars at which any of the sequential detectors of `DriftWatch` alarms."""
    found = []
    for kind, by in WATCHES:
        x = bars[kind].dropna()
        skipped = len(bars) - len(x)
        block = max(WATCH.block, span)
        watch = ChangeWatch(by, SPELLS * WATCH.share, block, WATCH.slack, SERIES[kind])
        found += [t + skipped for t, v in enumerate(x.tolist()) if watch.update(v)]
    return sorted(found)


def by_river(make: Callable[[], object]) -> Callable[[pd.DataFrame, int], list[int]]:
    def found(bars: pd.DataFrame, span: int) -> list[int]:
        detector, out = make(), []
        for t, value in enumerate(bars["concept"].tolist()):
            detector.update(value)
            if detector.drift_detected:
                out.append(t)
        return out

    return found


def always(bars: pd.DataFrame, span: int) -> list[int]:
    return list(range(len(bars)))


def three_sigma(bars: pd.DataFrame, span: int) -> list[int]:
    """Mean loss of the last 20 bars beyond three deviations of the mean of the first 100."""
    x = bars["concept"]
    last = x.rolling(20).mean()
    limit = x[:100].mean() + 3 * x[:100].std() / np.sqrt(20)
    over = (last > limit).to_numpy()
    return np.flatnonzero(over & ~np.roll(over, 1)).tolist()


METHODS: dict[str, Callable[[pd.DataFrame, int], list[int]]] = {
    "DriftWatch, all 5 detectors": ours,
    "river ADWIN, its defaults, clock 1": by_river(lambda: ADWIN(clock=1)),
    "river Page-Hinkley, its defaults": by_river(PageHinkley),
    "20-bar mean beyond 3 deviations": three_sigma,
    "always fire": always,
}
STILL: dict[str, dict] = {
    "20 assets, h 1": {},
    "20 assets, h 5": {"span": 5},
    "20 assets, h 5, volatility clusters": {"span": 5, "clustered": True},
    "1 asset, h 1": {"assets": 1},
}
CHANGED: dict[str, dict] = {
    "leans turn, skill 0.3": {"turned": CHANGE},
    "leans turn, skill 0.6": {"turned": CHANGE, "skill": 0.6},
    "leans turn, skill 0.3, h 5": {"turned": CHANGE, "span": 5},
    "odds too bold, skill 0.3": {"bold": CHANGE},
    "odds too bold, skill 0.6": {"bold": CHANGE, "skill": 0.6},
}


def table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def false_alarms(seeds: int) -> Iterator[str]:
    """Bars per false alarm with a 95 % Poisson interval."""
    rows = []
    for name, settings in STILL.items():
        span = settings.get("span", 1)
        streams = [settled_bars(market(s, BARS, **settings), span) for s in range(seeds)]
        total = sum(len(stream) for stream in streams)
        for method, detect in METHODS.items():
            count = sum(len(detect(stream, span)) for stream in streams)
            low, high = chi2.ppf(0.025, 2 * count) / 2, chi2.ppf(0.975, 2 * count + 2) / 2
            length = f"{total / count:,.0f}" if count else f"over {total:,}"
            most = f"{total / low:,.0f}" if count else "never"
            span_ = f"{total / high:,.0f} to {most}"
            rows.append([name, method, f"{count:,}", length, span_])
    yield from table(["nothing changes", "method", "alarms", "bars per alarm", "95 %"], rows)


def delays(seeds: int) -> Iterator[str]:
    rows = []
    for name, settings in CHANGED.items():
        span = settings.get("span", 1)
        streams = [settled_bars(market(s, CHANGE + AFTER, **settings), span) for s in range(seeds)]
        for method, detect in METHODS.items():
            first = [
                next((t - CHANGE for t in detect(stream, span) if t >= CHANGE), AFTER)
                for stream in streams
            ]
            early = np.mean([any(t < CHANGE for t in detect(x, span)) for x in streams])
            found = np.mean(np.array(first) < AFTER)
            rows.append([name, method, f"{found:.0%}", f"{np.median(first):.0f}", f"{early:.0%}"])
    head = [
        "change at bar 1,000",
        "method",
        f"found in {AFTER} bars",
        "median bars",
        "alarm before",
    ]
    yield from table(head, rows)


def inputs(seed: int, memory: float, moved: float = 0.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    x = persistent(rng, (10, 10, 1250), memory) + persistent(rng, (1, 10, 1250), memory)
    times = pd.date_range("2015-01-01", periods=1250, tz="UTC").as_unit("us")
    index = pd.MultiIndex.from_product([[f"A{a}" for a in range(10)], times])
    values = x.transpose(0, 2, 1).reshape(-1, 10) / np.sqrt(2)
    panel = pd.DataFrame(values, index.set_names(["asset", "time"]), [f"x{k}" for k in range(10)])
    late = panel.index.get_level_values("time") >= times[1000]
    after = panel[late].copy()
    after["x3"] += moved
    return panel[~late], after


def looks(seeds: int) -> Iterator[str]:
    """One look at 10 inputs of 10 assets: 1,000 bars against 250."""
    rows = []
    for memory in (0.0, 0.5, 0.8, 0.95):
        for moved in (0.0, 1.0):
            hits, usual, psi, judged = [], [], [], []
            for seed in range(2 * seeds):
                before, after = inputs(seed, memory, moved)
                found = shift(before, after, list(before), draws=999)
                hits.append(found.least <= 0.05)
                judged.append(found.table["judged"].mean())
                psi.append(found.table["psi"].max() >= 0.25)
                least = min(ks_2samp(before[name], after[name]).pvalue for name in before)
                usual.append(least <= 0.05 / 10)
            cells = (f"{np.mean(x):.0%}" for x in (judged, hits, usual, psi))
            rows.append([f"{memory:g}", f"{moved:g}", *cells])
    head = [
        "memory of a bar",
        "x3 moves by",
        "judged",
        "ours, p 0.05",
        "KS by rows, p 0.05",
        "PSI 0.25",
    ]
    yield from table(head, rows)


def promotions(streams: int) -> Iterator[str]:
    """A challenger that is no better, or is: how often and when it wins 20."""
    rows = []
    for span in (1, 5):
        for edge in (0.0, 0.1, 0.2, 0.4):
            count = streams if edge == 0 else streams // 4
            when = []
            for seed in range(count):
                rng = np.random.default_rng(seed)
                shock = rng.standard_t(4, 1000 + span)
                outcome = np.convolve(shock, np.ones(span), "valid")[1:1001] / np.sqrt(span)
                gain = 0.02 * (persistent(rng, (1000,), 0.8) * outcome + edge)
                due = np.arange(1000) + span
                won = wealth(gain, np.where(due > 1000, 1001, due), span)[60:]
                when.append(60 + int(np.argmax(won >= 20)) if won.max() >= 20 else 1000)
            hit = np.array(when) < 1000
            median = f"{np.median(np.array(when)[hit]):.0f}" if hit.any() else ""
            rows.append([f"{span}", f"{edge:g}", f"{count}", f"{hit.mean():.1%}", median])
    head = ["h", "advantage a bar, deviations", "streams", "promoted in 1,000 bars", "median bar"]
    yield from table(head, rows)


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    for title, lines in (
        ("False alarms", false_alarms(seeds)),
        ("Delays", delays(seeds)),
        ("Inputs", looks(seeds)),
        ("Promotions", promotions(20 * seeds)),
    ):
        print(f"\n{title}, {seeds} seeds\n", flush=True)
        for line in lines:
            print(line, flush=True)


if __name__ == "__main__":
    main()
