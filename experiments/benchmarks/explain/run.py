"""Are reasons exact, and how fast: ``python -m experiments.benchmarks.explain.run preset=small``.

Words: ``preset=small`` (or full), ``readme=true`` (puts the table into the README).
"""

import os
import sys

from pipeline.cli import THREADS

for name in THREADS:  # before numpy, numba and torch are imported and count the cores
    os.environ.setdefault(name, "1")

import json  # noqa: E402
import logging  # noqa: E402
import warnings  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402

from experiments.benchmarks.explain import work  # noqa: E402

README = Path(__file__).with_name("README.md")
WORDS = {"preset": "full", "readme": "false", "out": ""}
TREES = "filter.members.{}.n_estimators={}"


@dataclass(frozen=True)
class Preset:
    """How much of everything."""

    exact: tuple[str, ...]  # pipeline of 8 inputs
    default: tuple[str, ...]  # the default members
    rounds: int  # boosting rounds of the tree part, 3 trees each
    enumerated: int  # rows of each market
    markets: tuple[int, ...]  # seeds of the markets on which they are enumerated
    signals: int
    kernel: int  # coalitions of KernelSHAP on the default members; 0 leaves it out
    assets: int
    times: int


SMALL_TREES = tuple(TREES.format(m, 20) for m in ("lightgbm", "xgboost", "forest"))
EXACT = (
    *("+data.market.features=7", "data.market.snr=2.0", "window=5", "filter=quick"),
    *("refiner=quick", "refiner.members.lstm.hidden=16", "refiner.batch=64"),
    "refiner.learning_rate=0.01",
)
WIDE = ("+data.market.features=58", "filter=trees", "filter.rules=null")
PRESETS = {
    "full": Preset(
        (*EXACT, "data.market.times=600", "data.market.assets=6", "refiner.epochs=6"),
        (*WIDE, "data.market.times=700", "data.market.assets=20", "refiner.epochs=3"),
        200,
        70,
        (7, 8, 9),
        100,
        2048,
        100,
        250,
    ),
    "small": Preset(
        (*EXACT, *SMALL_TREES, "data.market.times=300", "data.market.assets=4", "refiner.epochs=3"),
        (
            *(*WIDE, *SMALL_TREES, "data.market.times=300", "data.market.assets=6"),
            *("refiner.epochs=1", "refiner.batch=64"),
        ),
        40,
        6,
        (7,),
        20,
        0,
        4,
        20,
    ),
}


def main(words: list[str]) -> None:
    """Measure everything once, and print the table."""
    given = WORDS | _parsed(words)
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
    found = measured(PRESETS[given["preset"]])
    if given["out"]:
        Path(given["out"]).write_text(json.dumps(found, indent=1))
    table = markdown(found)
    print(table)
    if given["readme"] == "true":
        first, last = (f"<!-- {given['preset']} {part} -->" for part in ("begins", "ends"))
        head, _, rest = README.read_text().partition(first)
        README.write_text(f"{head}{first}\n{table}\n{last}{rest.partition(last)[2]}")


def measured(preset: Preset) -> dict:
    """All figures, as JSON values."""
    found: dict = {"trees": work.trees_against_shap(preset.rounds, 32, 64)}
    _say("trees", found)
    models = [work.trained((*preset.exact, f"seed={seed}")) for seed in preset.markets]
    found["exact"] = work.exactness(models, preset.enumerated, [40, 80, 120, 160, 200, 254])
    _say("exact", found)
    pipeline, panel = work.trained(preset.default)
    found["one"] = work.one_by_one(pipeline, panel, preset.signals)
    _say("one", found)
    found["fidelity"] = pipeline.explainer.measure(
        pipeline.stack_, panel, pipeline.references_, pipeline.window
    )
    _say("fidelity", found)
    if preset.kernel:
        found["kernel"] = work.kernel_at_full_width(pipeline, panel, preset.kernel)
        _say("kernel", found)
    size = {"times": preset.times, "assets": preset.assets, "features": 58}
    found["batch"] = size | work.all_rows(pipeline, size)
    _say("batch", found)
    return found


def markdown(found: dict) -> str:
    """The table of the figures: what was asked, and what was measured."""
    trees, exact, one, batch = (found[name] for name in ("trees", "exact", "one", "batch"))
    full, fast, kernel = exact["full"], exact["fast"], exact["kernel_shap"][-1]
    gap = max(batch["gap"], *(one[e]["gap"] for e in ("fast", "full")))
    raw = max(batch["raw_gap"], *(one[e]["raw_gap"] for e in ("fast", "full")))
    per_core = batch["signals"] / batch["seconds"]
    rows = [
        ("sum after closure, every signal", "≤ 1e-5", f"{gap:.1e}", gap <= 1e-5),
        ("raw gap of the paths, every signal", "≤ 1e-3", f"{raw:.1e}", raw <= 1e-3),
        (
            "LightGBM against the sum of its leaves",
            "≤ 1e-9",
            f"{trees['additivity']:.1e}",
            trees["additivity"] <= 1e-9,
        ),
    ]
    for effort, said in (("full", full), ("fast", fast)):
        rows += _agreement(exact, said, effort)
    what = f"{trees['trees']:.0f} trees, 3 classes, 32 references"
    rows += [
        (
            f"{what}, one row: shap over ours",
            "≥ 5",
            f"{trees['one_ratio']:.1f} ({trees['one_ms']:.2f} ms)",
            trees["one_ratio"] >= 5,
        ),
        (
            f"{what}, 64 rows: shap over ours",
            "≥ 5",
            f"{trees['many_ratio']:.1f} ({trees['many_ms']:.2f} ms a row)",
            trees["many_ratio"] >= 5,
        ),
        (
            f"{what}: difference",
            "≤ 1e-7",
            f"{trees['difference']:.1e}",
            trees["difference"] <= 1e-7,
        ),
    ]
    ours = exact["ours"]["relative_l1"]
    reached = kernel["relative_l1"] <= ours
    ratio = kernel["seconds"] / full["seconds"]
    words = f"{ratio:.0f} ({kernel['samples']} coalitions, error {kernel['relative_l1']:.3f} "
    words += f"against {ours:.3f})"
    rows.append(
        (
            f"KernelSHAP at {'equal' if reached else 'larger'} error, "
            f"{exact['players']} players: its time over ours",
            "≥ 100",
            words,
            ratio >= 100,
        )
    )
    if "kernel" in found:
        wide = found["kernel"]
        ratio = wide["seconds"] / wide["ours"]
        words = f"{ratio:.0f} (error {wide['apart']:.3f} against {wide['ours_apart']:.3f})"
        rows.append(
            (
                f"KernelSHAP, {wide['samples']} coalitions, {wide['players']} players: "
                "its time over ours, fast",
                "≥ 100",
                words,
                ratio >= 100,
            )
        )
    for effort, goal in (("fast", 20), ("full", 60)):
        said = one[effort]
        words = f"{said['p95']:.1f} ms (median {said['p50']:.1f}, of it predict "
        words += f"{said['predict_p50']:.1f}; wall p95 {said['wall_p95']:.1f})"
        rows.append(
            (
                f"predict and explain one signal, {effort}, one core: p95",
                f"≤ {goal} ms",
                words,
                said["p95"] <= goal,
            )
        )
    words = f"{2 * per_core:.0f} ({1e3 / per_core:.2f} ms each; "
    words += f"wall {batch['signals'] / batch['wall']:.0f})"
    rows.append(
        (
            f"{batch['signals']:,} rows of {batch['assets']} assets, fast: "
            "signals a second of 2 cores",
            "≥ 500",
            words,
            2 * per_core >= 500,
        )
    )
    rows.append(
        (
            "the same: memory beyond what was there",
            "bounded",
            f"{batch['memory']:.0f} MiB a process",
            True,
        )
    )
    said = found["fidelity"]
    words = f"correlation {said['correlation']:.3f}, relative L1 {said['relative_l1']:.3f}, "
    words += f"top-1 {said['top_1']:.2f}"
    rows.append(
        (f"fast against full, {said['rows']:.0f} rows of the training tail", "told", words, True)
    )
    lines = ["| work | goal | measured | holds |", "|---|---|---|---|"]
    lines += [f"| {a} | {b} | {c} | {'yes' if d else 'no'} |" for a, b, c, d in rows]
    return "\n".join(lines)


def _agreement(exact: dict, said: dict, effort: str) -> list[tuple[str, str, str, bool]]:
    """Lines of the table: contributions of one effort against the enumeration."""
    what = f"{exact['players']} players, all coalitions, {exact['rows']} rows of "
    what += f"{exact['markets']} markets, {effort}"
    interval = f"{said['top_1_low']:.3f} to {said['top_1_high']:.3f}"
    lead = f"top 1 where it leads by 5 %, {said['clear']:.0%} of the rows"
    values = [
        ("correlation", "≥ 0.98", said["correlation"], said["correlation"] >= 0.98, ""),
        ("relative l1", "≤ 0.15", said["relative_l1"], said["relative_l1"] <= 0.15, ""),
        ("top 1", "≥ 0.95", said["top_1"], said["top_1"] >= 0.95, f" ({interval})"),
        (lead, "told", said["clear_top_1"], True, ""),
    ]
    return [
        (f"{what}: {name}", goal, f"{value:.3f}{more}", holds)
        for name, goal, value, holds, more in values
    ]


def _say(name: str, found: dict) -> None:
    print(f"{name}: {json.dumps(found[name])}", file=sys.stderr)


def _parsed(words: list[str]) -> dict[str, str]:
    given = dict(word.partition("=")[::2] for word in words)
    wrong = sorted(set(given) - set(WORDS))
    if wrong or given.get("preset", "full") not in PRESETS:
        sys.exit(f"no such word as {wrong or given['preset']}; there are {[*WORDS]}, {[*PRESETS]}")
    return given


if __name__ == "__main__":
    main(sys.argv[1:])
