"""Is a direction believed that is not there? ``python -m experiments.benchmarks.stage3.null``.

Words: ``draws=30``, ``blocks=20,5`` (bars whose directions are turned together).
"""

import os
import sys

from pipeline.cli import THREADS

for name in THREADS:  # before numpy, numba and torch are imported and count the cores
    os.environ.setdefault(name, "1")

from dataclasses import dataclass, replace  # noqa: E402
from typing import Self  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from stages.ensemble.stacker import BayesianStacker  # noqa: E402

WORDS = {"draws": "30", "blocks": "20,5"}
LEARNT: list[tuple[pd.DataFrame, pd.DataFrame]] = []


@dataclass
class Keeping(BayesianStacker):
    """Stage 3 that keeps what it learnt from."""

    def fit(self, panel: pd.DataFrame, y: pd.DataFrame) -> Self:
        LEARNT.append((panel, y))
        return super().fit(panel, y)


def main(words: list[str]) -> None:
    """Train on the packaged data, turn directions by the toss of a coin, and ask stage 3 again."""
    given = WORDS | dict(word.partition("=")[::2] for word in words)
    if set(given) != set(WORDS):
        sys.exit(f"words are {', '.join(f'{name}=…' for name in WORDS)}; got {' '.join(words)}")
    stage, panel, y = learnt()
    print("| directions | mean odds of evidence | 90 % of the draws below | believed (over 1/2) |")
    print("|---|---|---|---|")
    print(f"| as they came | {odds(replace(stage).fit(panel, y), stage.doubt):.2f} | | |")
    bar, bars = y.index.get_level_values("time").factorize(sort=True)
    for block in map(int, given["blocks"].split(",")):
        found = []
        for seed in range(int(given["draws"])):
            coin = np.random.default_rng(seed).choice([-1, 1], size=len(bars) // block + 1)
            turned = y.assign(side=(y["side"] * coin[bar // block]).astype("int8"))
            found.append(odds(replace(stage).fit(panel, turned), stage.doubt))
        spread = np.std(found, ddof=1) / np.sqrt(len(found))
        high, prior = np.quantile(found, 0.9), (1 - stage.doubt) / stage.doubt
        believed = np.mean(np.array(found) * prior > 1)
        print(
            f"| turned in blocks of {block} bars, {len(found)} draws "
            f"| {np.mean(found):.2f} ±{1.96 * spread:.2f} | {high:.2f} | {believed:.0%} |"
        )


def learnt() -> tuple[BayesianStacker, pd.DataFrame, pd.DataFrame]:
    """Stage 3 of the quick start, and the most rows it learnt from."""
    from hydra import compose, initialize_config_module

    from pipeline.assemble import assemble, load_source

    with initialize_config_module("conf", version_base="1.3"):
        cfg = compose("train", overrides=["+experiment=quickstart", "refiner.progress=false"])
    pipeline = assemble(cfg, "pipeline")
    stage = pipeline.ensemble
    source = load_source(cfg)
    keeping = Keeping(stage.context, stage.interactions, stage.doubt, stage.forget)
    replace(pipeline, ensemble=keeping).fit(source.bars, source.y)
    panel, y = max(LEARNT, key=lambda one: len(one[1]))
    return stage, panel.loc[y.index], y


def odds(stage: BayesianStacker, doubt: float) -> float:
    """Evidence that something is known of the direction, over that nothing is."""
    share = float(stage.direction_.share[1])
    return share / (1 - share) * doubt / (1 - doubt)


if __name__ == "__main__":
    main(sys.argv[1:])
