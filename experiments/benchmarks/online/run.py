"""What does learning online help, and forget? ``python -m experiments.benchmarks.online.run``.

Words: ``seeds=5``, ``first=100`` (the first of them), ``assets=20``,
``markets=flip,recurring,stationary,poisoned``, ``nets=false`` (the ways with nets too),
``ways=all`` (``few``: what the replay share is compared among),
``cost=true`` (what an update costs), ``folder=PATH`` (where finished
jobs are kept, so that a run goes on where it stopped), ``readme=true`` (puts the tables into the
README).
"""

import os
import sys

from pipeline.cli import THREADS

for name in THREADS:  # before numpy and numba are imported and count the cores
    os.environ.setdefault(name, "1")

import json  # noqa: E402
import time  # noqa: E402
from dataclasses import replace  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from hydra import compose, initialize_config_module  # noqa: E402
from scipy.stats import t as student  # noqa: E402

from experiments.benchmarks.online.streams import (  # noqa: E402
    BACK,
    FLIP,
    POISON,
    TIMES,
    TRAINED,
    WAYS,
    Stream,
    Way,
    lived,
    pipeline,
    stream,
)
from pipeline import recipe  # noqa: E402
from pipeline.assemble import assemble  # noqa: E402
from pipeline.learning import learn  # noqa: E402
from stages.base import State  # noqa: E402
from stages.signal import ODDS  # noqa: E402

README = Path(__file__).with_name("README.md")
WORDS = {
    "seeds": "5",
    "first": "100",
    "assets": "20",
    "markets": "flip,recurring,stationary,poisoned",
    "nets": "false",
    "ways": "all",
    "cost": "true",
    "folder": "",
    "readme": "false",
}
MORE = {way.name for way in WAYS if way.alarmed or way.retrained or "grown" in way.name}
MORE |= {"trees, decay .9, share .5"}
CALM = {  # not asked where little happens
    "trees, decay .5, share 0.1",
    "trees, decay .5, share 1",
    "the same, stage 3 at every bar",
}
REMEMBERED, WARM = 113, 300  # bars: of the volatility of labels, and of the longest feature
RUN = 20  # bars of the trailing mean by which a recovery is dated
COLUMNS = {  # of each market: name of the column, first and last bar of the mean skill
    "flip": {
        "before": (TRAINED, FLIP),
        "bars 1-50": (FLIP, FLIP + 50),
        "51-100": (FLIP + 50, FLIP + 100),
        "101-150": (FLIP + 100, FLIP + 150),
        "last 200": (TIMES - 200, TIMES),
    },
    "recurring": {
        "A": (TRAINED, FLIP),
        "B, last 100": (BACK - 100, BACK),
        "A again, 1-60": (BACK, BACK + 60),
        "61-120": (BACK + 60, BACK + 120),
        "last 100": (TIMES - 100, TIMES),
    },
    "stationary": {"all": (TRAINED, TIMES)},
    "poisoned": {
        "before": (TRAINED, POISON[0]),
        "lies": POISON,
        "bars 1-60": (POISON[1], POISON[1] + 60),
        "61-120": (POISON[1] + 60, POISON[1] + 120),
    },
}


def skill(said: pd.DataFrame, at: Stream) -> np.ndarray:
    """Log 3 less the mean log-loss of each bar, nats, by number of the bar; NaN before."""
    side = at.market.y["side"].reindex(said.index).to_numpy().astype(int) + 1
    paid = said[ODDS].to_numpy()[np.arange(len(side)), side]
    bar = at.times.get_indexer(said.index.get_level_values("time"))
    count = np.bincount(bar, minlength=TIMES)
    with np.errstate(invalid="ignore"):
        return np.log(3) + np.bincount(bar, np.log(paid), TIMES) / count


def job(market: str, seed: int, assets: int, ways: list[Way], folder: Path | None) -> dict:
    """Skill of every way on one market, by name; finished ones are read from `folder`."""
    at, out, trained = stream(market, seed, assets), {}, {}
    for way in ways:
        slug = "".join(c if c.isalnum() else "_" for c in way.name)
        path = None if folder is None else folder / f"{market}.{seed}.{assets}.{slug}.json"
        if path is not None and path.exists():
            out[way.name] = np.array(json.loads(path.read_text()), dtype="float64")
            continue
        kind = (way.nets, way.twins)
        fresh = pipeline(seed, *kind)
        if kind not in trained:
            trained[kind] = State(*replace(fresh).fit(*at.upto(TRAINED)).content())
        out[way.name] = skill(lived(way, at, trained[kind], fresh), at)
        print(f"{market} seed {seed}: {way.name}", file=sys.stderr, flush=True)
        if path is not None:
            values = [None if np.isnan(x) else x for x in out[way.name].tolist()]
            path.write_text(json.dumps(values))
    return out


def interval(values: np.ndarray) -> str:
    """Mean over the seeds, and half of its 95 % interval."""
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return f"{values.mean():.3f}" if len(values) else "never"
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.3f} ± {half:.3f}"


def recovery(path: np.ndarray, since: int, needed: float) -> float:
    """Bars after `since` until the trailing mean of `RUN` bars reaches `needed`; NaN for never."""
    run = np.convolve(path[since:TIMES], np.ones(RUN) / RUN, mode="valid")
    over = np.flatnonzero(run >= needed)
    return float(over[0] + RUN) if len(over) else float("nan")


def table(market: str, runs: list[dict], oracle: np.ndarray) -> list[str]:
    """Lines of the table of one market: skill by stretch of bars, over the seeds."""
    columns, change = COLUMNS[market], {"flip": FLIP, "recurring": BACK}.get(market)
    head = ["way", *columns]
    if change is not None:
        head.append("bars to 90 %")
    if market != "flip":
        head.append("less than frozen" if market == "stationary" else "lost")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for way in runs[0]:
        paths = np.array([run[way] for run in runs])
        cells = [interval(np.nanmean(paths[:, a:b], axis=1)) for a, b in columns.values()]
        if change is not None:
            bars = [recovery(path, change, 0.9 * o) for path, o in zip(paths, oracle, strict=True)]
            known = [b for b in bars if np.isfinite(b)]
            found = [f"{np.median(known):.0f}"] if known else []
            found += [f"{len(bars) - len(known)} never"] if len(known) < len(bars) else []
            cells.append(", ".join(found))
        first, then = list(columns.values())[0], None
        if market == "recurring":
            then = columns["A again, 1-60"]
        elif market == "poisoned":
            then = columns["bars 1-60"]
        if then is not None:
            fall = np.nanmean(paths[:, slice(*first)], 1) - np.nanmean(paths[:, slice(*then)], 1)
            cells.append(interval(fall))
        elif market == "stationary":
            frozen = np.array([run[_frozen(way)] for run in runs])
            worse = np.nanmean(frozen[:, TRAINED:] - paths[:, TRAINED:], axis=1)
            cells.append(interval(worse))
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return lines


def _frozen(way: str) -> str:
    return "with nets: frozen" if way.startswith("with nets") else "frozen"


def costs() -> list[str]:
    """Processor seconds of an update of the pipeline `quickstart`, against training it anew."""
    with initialize_config_module("conf", version_base="1.3"):
        words = ["+experiment=quickstart", "online=members", "refiner.progress=false"]
        cfg = compose("update", words)
    bars, learning = assemble(cfg, "data").bars, assemble(cfg, "learning")
    cut = bars.index.unique("time").sort_values()[-57]  # 1,120 labels of 20 assets mature later
    past = bars[bars.index.get_level_values("time") <= cut]
    start = time.process_time()
    state = State(*assemble(cfg, "pipeline").fit(past).content())
    whole = time.process_time() - start
    lines = ["| work | s | share of training anew | goal |", "|---|---|---|---|"]
    lines.append(f"| training anew, {len(past):,} bars | {whole:.1f} | | |")
    trees = replace(learning, nets=None)
    # what volatility remembers, the warm-up, and the bars since the last time
    recent = bars.groupby(level="asset").tail(REMEMBERED + WARM + 57)
    ways = {
        "stage 3": (bars, None),
        "stages 1 and 3, two lessons": (bars, trees),
        "all stages, two lessons": (bars, learning),
        "stage 3, given recent bars only": (recent, None),
        "stages 1 and 3, given recent bars only": (recent, trees),
        "all stages, given recent bars only": (recent, learning),
    }
    for name, (known, how) in ways.items():
        took = []
        for _ in range(3):
            model = recipe.build(state.values["recipe"]).restore(state)
            start = time.process_time()
            learnt = learn(model, known, None, how)
            took.append(time.process_time() - start)
        share = float(np.median(took)) / whole
        lines.append(
            f"| update, {learnt.learned:,} labels: {name} | {np.median(took):.2f} "
            f"| {share:.1%} | ≤ 5 % |"
        )
    return lines


def main(words: list[str]) -> None:
    """Live through the markets, and print the tables."""
    given = WORDS | dict(word.partition("=")[::2] for word in words)
    if set(given) != set(WORDS):
        sys.exit(
            f"no such word as {', '.join(set(given) - set(WORDS))}; there are {', '.join(WORDS)}"
        )
    folder = Path(given["folder"]) if given["folder"] else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    first, assets = int(given["first"]), int(given["assets"])
    seeds = range(first, first + int(given["seeds"]))
    ways = [way for way in WAYS if given["nets"] == "true" or not way.nets]
    ways = [way for way in ways if given["ways"] != "few" or way.name not in MORE]
    stay = [way for way in ways if way.name == "frozen"]
    oracle = [job("stationary", seed, assets, stay, folder)["frozen"] for seed in seeds]
    level = np.array([np.nanmean(path[TRAINED:]) for path in oracle])
    parts = [
        f"{len(seeds)} seeds, {assets} assets; a model trained on the market that has come "
        f"has a skill of {interval(level)}.",
        "",
    ]
    runs: dict[str, list[dict]] = {market: [] for market in given["markets"].split(",")}
    for seed in seeds:
        for market, found in runs.items():
            calm = market not in ("flip", "recurring")
            asked = [way for way in ways if not calm or way.name not in CALM]
            found.append(job(market, seed, assets, asked, folder))
    for market, found in runs.items():
        parts += [f"**{market}**", "", *table(market, found, level), ""]
    if given["cost"] == "true":
        parts += ["**cost**", "", *costs(), ""]
    text = "\n".join(parts)
    print(text)
    if given["readme"] == "true":
        begin, end = "<!-- tables begin -->", "<!-- tables end -->"
        head, _, rest = README.read_text().partition(begin)
        README.write_text(f"{head}{begin}\n{text}{end}{rest.partition(end)[2]}")


if __name__ == "__main__":
    main(sys.argv[1:])
