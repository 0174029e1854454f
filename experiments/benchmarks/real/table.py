"""Figures of many seeds as one Markdown table a panel: means, intervals, differences."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from experiments.benchmarks.real.job import PEER
from stages.evaluate.bootstrap import interval, resample

COLUMNS = ("IC", "rank IC", "log-loss", "accuracy", "MCC", "ECE", "IC less Qlib's")
COLUMNS += ("rank IC less Qlib's",)
SPAN = 2  # bars that a label covers: the delay and the day
AGAIN = ("pipeline, every year", f"{PEER}, every year")
ORDER = ("base rate", "last sign", "reversal", PEER)


def markdown(records: Iterable[dict[str, Any]], resamples: int) -> str:
    """A table a panel, in the order of the records."""
    by_panel: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_panel.setdefault(record["panel"], []).append(record)
    return "\n\n".join(_panel(seeds, resamples) for seeds in by_panel.values())


def _panel(seeds: list[dict[str, Any]], resamples: int) -> str:
    seeds = sorted(seeds, key=lambda record: record["seed"])
    first = seeds[0]
    begin, end = first["span"]
    base = np.mean([s["models"]["pipeline"]["odds"]["base_rate"][0] for s in seeds])
    trees = ", ".join(str(s["trees"]) for s in seeds)
    chosen = "; ".join(
        f"{name} {_mean(seeds, name, 'ic')} and {_mean(seeds, name, 'rank_ic')}"
        for name in first["valid"]
    )
    lines = [
        f"**{first['panel']}**: test {begin} to {end}, {first['rows']:,} rows, {len(seeds)} "
        f"seeds; the commonest side is {base:.3f} of the rows; trees of {PEER}: {trees}. "
        f"On valid, IC and rank IC: {chosen}.",
        "",
        f"| model | {' | '.join(COLUMNS)} |",
        f"|---|{'---|' * len(COLUMNS)}",
    ]
    names = list(first["models"])
    known = [n for n in ORDER if n in names]
    for name in [*known, *(n for n in names if n not in known)]:
        lines.append(f"| {name} | {' | '.join(_cells(name, seeds, resamples))} |")
    if all(name in first["models"] for name in AGAIN):
        lines += ["", f"{' less '.join(AGAIN)}: {_apart(seeds, *AGAIN, resamples)}"]
    return "\n".join(lines)


def _apart(seeds: list[dict[str, Any]], one: str, other: str, resamples: int) -> str:
    """Difference of both coefficients, paired by day."""
    said = []
    for kind, short in (("ic", "IC"), ("rank_ic", "rank IC")):
        mine, theirs = (_mean_by_day([s["models"][n] for s in seeds], kind) for n in (one, other))
        said.append(f"{short} {_with_interval(mine - theirs, resamples, '+.4f')}")
    return ", ".join(said)


def _mean(seeds: list[dict[str, Any]], name: str, kind: str) -> str:
    values = [s["valid"][name][kind] for s in seeds]
    return "none" if None in values else f"{np.mean(values):.4f}"


def _cells(name: str, seeds: list[dict[str, Any]], resamples: int) -> list[str]:
    models = [record["models"][name] for record in seeds]
    peers = [record["models"][PEER] for record in seeds]
    skill, gap = [], []
    for kind in ("ic", "rank_ic"):
        if "by_day" not in models[0]:
            skill, gap = ["", ""], ["", ""]
            break
        mine, theirs = (_mean_by_day(side, kind) for side in (models, peers))
        skill.append(_with_interval(mine, resamples, "+.4f"))
        # a day without a cross-section counts for neither
        gap.append("" if name == PEER else _with_interval(mine - theirs, resamples, "+.4f"))
    odds = [""] * 4
    if "odds" in models[0]:
        wanted = zip(("log_loss", "accuracy", "mcc", "ece"), (4, 3, 3, 3), strict=True)
        odds = [_mean_interval([m["odds"][metric] for m in models], n) for metric, n in wanted]
    return [*skill, *odds, *gap]


def _mean_by_day(models: list[dict[str, Any]], kind: str) -> np.ndarray:
    """Information coefficient of each day, mean over the seeds; NaN where one has none."""
    return np.array([m["by_day"][kind] for m in models], dtype="float64").mean(axis=0)


def _with_interval(by_day: np.ndarray, resamples: int, form: str) -> str:
    known = by_day[np.isfinite(by_day)]
    if not len(known):
        return ""

    def mean(sums: np.ndarray) -> np.ndarray:
        return sums[..., :1] / sums[..., 1:]

    sums = np.column_stack([known, np.ones(len(known))])
    said = resample(mean, sums, SPAN, resamples)
    low, high = interval(said.drawn[:, 0])
    return f"{known.mean():{form}} [{low:{form}}, {high:{form}}]"


def _mean_interval(parts: list[list[float | None]], digits: int) -> str:
    if any(part[0] is None for part in parts):
        return ""
    value, low, high = np.array(parts, dtype="float64").mean(axis=0)
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
