"""Pipeline against each member over seeds: ``python experiments/planted/compare.py FOLDER``.

FOLDER holds the runs of a multirun over seeds on a planted market. Intervals are 95 % Student
intervals of the paired differences over seeds: the seed draws the market and the training.
"""

import json
import sys
from pathlib import Path

import numpy as np
from scipy import stats


def figures(folder: Path, metric: str) -> dict[str, np.ndarray]:
    """Metric of each model, one value a run."""
    runs = [json.loads(p.read_text()) for p in sorted(folder.rglob("metrics.json"))]
    tables = [next(iter(run.values())) for run in runs]
    models = [m for m in tables[0] if tables[0][m].get(metric, {}).get("value") is not None]
    return {m: np.array([t[m][metric]["value"] for t in tables]) for m in models}


def interval(x: np.ndarray) -> str:
    """Mean and half of its 95 % interval over seeds."""
    half = stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    return f"{x.mean():+.4f} ±{half:.4f}"


def main(folder: Path) -> None:
    accuracy, loss = figures(folder, "accuracy"), figures(folder, "log_loss")
    best, base = figures(folder, "bayes_accuracy"), figures(folder, "base_rate")["pipeline"]
    skill, told = figures(folder, "skill_ratio"), figures(folder, "information_ratio")
    direction = figures(folder, "direction")
    print(f"{len(base)} seeds; ± half a 95 % Student interval over seeds\n")
    columns = [
        "model",
        "accuracy",
        "of Bayes",
        "skill ratio",
        "information ratio",
        "log-loss",
        "log-loss less pipeline's",
        "direction given a move",
    ]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for model in accuracy:
        share = accuracy[model] / best["pipeline"]
        gap = "" if model == "pipeline" else interval(loss[model] - loss["pipeline"])
        cells = (
            interval(accuracy[model]),
            interval(share),
            interval(skill[model]),
            interval(told[model]),
            interval(loss[model]),
            gap,
            interval(direction[model]),
        )
        print(f"| {model} | " + " | ".join(c if c is gap else c.lstrip("+") for c in cells) + " |")
    print(
        f"\nBayes accuracy {interval(best['pipeline']).lstrip('+')}, "
        f"majority base rate {interval(base).lstrip('+')}"
    )
    shares = ", ".join(f"{s:.3f}" for s in accuracy["pipeline"] / best["pipeline"])
    print(f"pipeline accuracy of Bayes, each seed: {shares}")
    decile = [figures(folder, f"accuracy_decile_{n:02d}")["pipeline"] for n in range(1, 11)]
    low = interval(np.mean(decile[:5], axis=0)).lstrip("+")
    top = interval(decile[-1]).lstrip("+")
    print(f"pipeline accuracy of the most confident tenth {top}, of the less confident half {low}")
    print(f"pipeline accuracy less base rate: {interval(accuracy['pipeline'] - base)}")
    print(f"pipeline log-loss less base rate's: {interval(loss['pipeline'] - loss['base rate'])}")
    print(f"pipeline direction less one half: {interval(direction['pipeline'] - 0.5)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
