"""Where accuracy is lost on `mixed`: ``python experiments/planted/parts.py SEED [OVERRIDE ...]``.

Each part of the pipeline is replaced by the exact odds given what that part can know.
"""

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_module
from scipy.special import ndtr

from pipeline.assemble import assemble
from stages.markets import Market, mixed
from stages.markets.market import AMPLITUDE, Moves, last_bar, third, total
from stages.markets.planted import TABULAR
from stages.panel import age, named
from stages.signal import ODDS
from stages.stack import Stack, pass_forward

FLIPPED = 0.2  # share of turned bars, as the market's default
NODES = 25  # of each factor of the product of lags


def exact(market: Market) -> dict[str, np.ndarray]:
    """Odds (N, 3) given all; given the newest bar; both without the regime as well."""
    tilt = market.contributions.sum(axis=1).to_numpy()
    cut, panel = third(tilt), market.panel
    turned = panel["context.regime"].to_numpy("float64")
    assets = panel.index.unique("asset").size
    x_ATF = (
        panel[named(panel, "feature")].to_numpy("float64").reshape(assets, len(panel) // assets, -1)
    )
    newest = turned * AMPLITUDE * np.sqrt(TABULAR) * total(last_bar(x_ATF)).ravel()
    points, share = np.polynomial.hermite_e.hermegauss(NODES)
    product = AMPLITUDE * np.sqrt(1 - TABULAR) * np.outer(points, points).ravel()
    share = np.outer(share, share).ravel() / share.sum() ** 2
    grid = np.linspace(-9, 9, 1801)  # the newest bar's tilt, at which to average over the product
    mean = sum(
        w * Moves(grid + step, np.zeros(1), cut, ndtr).odds()
        for w, step in zip(share, product, strict=True)
    )
    bar = np.column_stack([np.interp(newest, grid, column) for column in mean.T])
    known = {"all": market.posterior.to_numpy(), "newest bar": bar}
    straight = turned[:, None] > 0
    for name, odds in list(known.items()):
        plain = np.where(straight, odds, odds[:, ::-1])  # as they are where nothing is turned
        known[f"{name}, no regime"] = (1 - FLIPPED) * plain + FLIPPED * plain[:, ::-1]
    return known


def logits(odds: np.ndarray, member: str, index: pd.Index) -> pd.DataFrame:
    """Columns as a member's: log-odds of sell and of buy against hold."""
    z = np.log(odds[:, [0, 2]] / odds[:, [1]])
    return pd.DataFrame(z, index, [f"{member}.z_sell", f"{member}.z_buy"])


def main(seed: int, overrides: list[str]) -> None:
    with initialize_config_module("conf", version_base="1.3"):
        words = ["+experiment=planted", f"seed={seed}", "refiner.progress=false", *overrides]
        cfg = compose("train", overrides=words)
    given = {k: v for k, v in cfg.data.market.items() if k in ("times", "assets")}
    market = mixed(seed, **given)
    window = cfg.window
    panel = market.panel.assign(ready=age(market.panel) >= window - 1)
    y = market.y[panel["ready"].loc[market.y.index].to_numpy()]
    folds, decide = assemble(cfg, "folds"), assemble(cfg, "decide")
    stack = Stack(*(assemble(cfg, part) for part in ("filter", "refiner", "ensemble")))
    passed = pass_forward(stack, panel, y, folds, decide)
    known, labels = exact(market), passed.matured
    trees = passed.panel[[c for c in named(passed.panel, "filter") if ".z_" in c]]
    net = passed.panel[named(passed.panel, "refiner")]
    bar = logits(known["newest bar, no regime"], "filter.exact", panel.index)
    all_ = logits(known["all, no regime"], "refiner.exact", panel.index)
    seen, edges = panel[["context.regime"]], folds.edges(y)[2:]

    def learnt(*members: pd.DataFrame, blind: bool = False) -> pd.DataFrame:
        """What stage 3 says of the rows after the first block it can learn from."""
        table = pd.concat([seen, *members], axis=1)
        template = replace(
            stack.ensemble, **({"context": False, "interactions": ()} if blind else {})
        )
        parts = []
        for train, test in folds.split(labels, edges):
            stage = replace(template).fit(table, labels.iloc[train])
            parts.append(stage.predict(table.loc[labels.index[test]])[ODDS])
        return pd.concat(parts)

    told = {
        "trees exact, net exact": learnt(bar, all_),
        "trees learnt, net exact": learnt(trees, all_),
        "trees exact, net learnt": learnt(bar, net),
        "both learnt": learnt(trees, net),
        "both learnt, stage 3 without the regime": learnt(trees, net, blind=True),
        "trees learnt, no net": learnt(trees),
        "trees exact, no net": learnt(bar),
    }
    rows = told["both learnt"].index
    at, side = panel.index.get_indexer(rows), labels.loc[rows, "side"].to_numpy() + 1
    odds = {name: values[at] for name, values in known.items()}
    odds |= {name: table.loc[rows].to_numpy() for name, table in told.items()}
    right = {name: (p.argmax(axis=1) == side).mean() for name, p in odds.items()}
    loss = {name: -np.log(p[np.arange(len(p)), side]).mean() for name, p in odds.items()}
    print("| known or learnt | accuracy | of Bayes | information ratio |\n|---|---|---|---|")
    for name in odds:
        told_share = 1 - (loss[name] - loss["all"]) / (np.log(3) - loss["all"])
        print(
            f"| {name} | {right[name]:.4f} | {right[name] / right['all']:.3f} | {told_share:.2f} |"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
