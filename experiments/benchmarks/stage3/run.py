"""What a word of stage 3 costs: ``python -m experiments.benchmarks.stage3.run``.

Words: ``times=2000``, ``assets=20``, ``readme=true`` (puts the table into the README).
"""

import os
import sys

from pipeline.cli import THREADS

for name in THREADS:  # before numpy and numba are imported and count the cores
    os.environ.setdefault(name, "1")

import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from stages.ensemble.bayesian_softmax import BayesianSoftmax  # noqa: E402
from stages.ensemble.stacker import BayesianStacker  # noqa: E402
from stages.markets import mixed  # noqa: E402
from stages.panel import settled  # noqa: E402

README = Path(__file__).with_name("README.md")
WORDS = {"times": "2000", "assets": "20", "readme": "false"}
MEMBERS = ("filter.lightgbm", "filter.xgboost", "filter.forest", "filter.rules", "refiner.lstm")
MEMBERS += ("refiner.transformer",)
REPEATS = 7


def said(times: int, assets: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A market, and what six members of different skill might have said of it."""
    market = mixed(1, times=times, assets=assets)
    rng = np.random.default_rng(0)
    odds = market.posterior.to_numpy()
    truth = np.log(odds[:, [0, 2]] / odds[:, [1]])
    columns = {"filter.gate": np.ones(len(odds))}
    for i, member in enumerate(MEMBERS):
        z = truth * (0.3 + 0.1 * i) + rng.normal(0, 0.5, truth.shape)
        columns |= {f"{member}.z_sell": z[:, 0], f"{member}.z_buy": z[:, 1]}
    return market.panel.assign(**columns), market.y


def milliseconds(work: Callable[[], object], rows: int) -> float:
    """Median processor milliseconds a row."""
    work()
    took = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        took.append(time.process_time() - start)
    return 1e3 * float(np.median(took)) / rows


def measured(times: int, assets: int) -> list[tuple[str, float, float | None]]:
    """What was done, milliseconds a row, and the goal."""
    panel, y = said(times, assets)
    half = panel.index.unique("time").sort_values()[times // 2]
    early = (settled(y) < half).to_numpy()
    stacker = BayesianStacker(interactions=["context.regime"]).fit(panel, y[early])
    late = y[~early]
    new = panel.loc[late.index]
    bar = new[new.index.get_level_values("time") == new.index.get_level_values("time")[50]]
    due = late.loc[bar.index]
    held = BayesianStacker(interactions=["context.regime"]).restore(stacker.state())
    flat = new.filter(like=".z_").to_numpy()
    softmax = BayesianSoftmax().fit(
        flat[: len(flat) // 2], late["side"].to_numpy()[: len(flat) // 2]
    )
    return [
        ("predict, all rows at once", milliseconds(lambda: stacker.predict(new), len(new)), 0.2),
        (
            f"predict, a bar of {len(bar)} assets",
            milliseconds(lambda: stacker.predict(bar), len(bar)),
            0.2,
        ),
        ("predict, one row alone", milliseconds(lambda: stacker.predict(bar.iloc[:1]), 1), None),
        (
            "update, bar by bar, all at once",
            milliseconds(lambda: held.update(panel, late), len(late)),
            1.0,
        ),
        (
            f"update, a bar of {len(due)} labels",
            milliseconds(lambda: held.update(bar, due), len(due)),
            1.0,
        ),
        (
            "`BayesianSoftmax.predict_proba`",
            milliseconds(lambda: softmax.predict_proba(flat), len(flat)),
            None,
        ),
    ]


def markdown(rows: list[tuple[str, float, float | None]]) -> str:
    """The table: work, milliseconds a row, goal, whether it holds."""
    lines = ["| work | ms a row | goal | holds |", "|---|---|---|---|"]
    for what, took, goal in rows:
        verdict = ("", "") if goal is None else (f"≤ {goal:g}", "yes" if took <= goal else "no")
        lines.append(f"| {what} | {took:.3f} | {verdict[0]} | {verdict[1]} |")
    return "\n".join(lines)


def main(words: list[str]) -> None:
    """Measure, and print the table."""
    given = WORDS | dict(word.partition("=")[::2] for word in words)
    if set(given) != set(WORDS):
        sys.exit(
            f"no such word as {', '.join(set(given) - set(WORDS))}; there are {', '.join(WORDS)}"
        )
    table = markdown(measured(int(given["times"]), int(given["assets"])))
    print(table)
    if given["readme"] == "true":
        first, last = "<!-- table begins -->", "<!-- table ends -->"
        head, _, rest = README.read_text().partition(first)
        README.write_text(f"{head}{first}\n{table}\n{last}{rest.partition(last)[2]}")


if __name__ == "__main__":
    main(sys.argv[1:])
