"""The bars of the requirement: ``python -m experiments.benchmarks.backtest.planted seeds=3``.

A pipeline is trained on the first bars of a market whose truth is known, and what it decides on
the rest is traded with costs, a bar after each decision, by ``portfolio=top_scores`` as it is.
Words: ``seeds=N``, ``bars=N`` and ``assets=N`` of a market, ``train=N`` of the bars, ``only=TEXT``
(markets with that in their name), ``peek=true`` (what a fill at the deciding close would report).
"""

import os
import sys

from pipeline.cli import THREADS

for name in THREADS:  # before numpy and numba are imported and count the cores
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from hydra import compose, initialize_config_module  # noqa: E402

from experiments.benchmarks.backtest.markets import STAYS, lasting  # noqa: E402
from pipeline.assemble import assemble  # noqa: E402
from pipeline.unseen import evaluated  # noqa: E402
from stages.backtest.judgement import judge  # noqa: E402
from stages.backtest.metrics import sharpe  # noqa: E402
from stages.backtest.simulate import simulate  # noqa: E402
from stages.backtest.wealth import wealth  # noqa: E402
from stages.panel import until  # noqa: E402

WORDS = {"seeds": "3", "bars": "1500", "assets": "20", "train": "900", "only": "", "peek": "false"}
COST = 0.002  # round trip: that of an unknown instrument in conf/costs/default.yaml
# figure, bar and floor of the requirement (C160, K10); a drawdown has one only
BARS = {
    "sharpe": (1.5, 1.0),
    "max_drawdown": (0.15, 0.15),
    "hit_rate": (0.60, 0.55),
    "mean_trade": (0.03, 0.0),
}
SMALL = (
    *("data=synthetic", "features=given", "labels=fixed_horizon", "filter=quick", "refiner=quick"),
    *("window=8", "refiner.members.lstm.hidden=8", "refiner.progress=false"),
    *("folds.n_folds=4", "folds.first=0.4"),
)
LASTS = ("horizon=5", "delay=1")  # filled at the bar after the decision
GONE = ("horizon=1", "delay=0")
# name: snr, how much of a feature stays, the labels to learn, and whether only what fired is bought
MARKETS = {
    "planted, snr 0.5": (0.5, STAYS, LASTS, True),
    "planted, snr 0.25": (0.25, STAYS, LASTS, True),
    "planted, gone in a bar": (1.0, 0.0, GONE, True),
    "noise": (0.0, STAYS, LASTS, True),
    "noise, traded all the same": (0.0, STAYS, LASTS, False),
}


def composed(command, *more):
    with initialize_config_module("conf", version_base="1.3"):
        return compose(command, list(more))


def decided(said):
    """Margin of the rows that fired a purchase; the others are sold: Series of n floats."""
    fired = (said["status"] == "fired") & (said["side"] > 0)
    return said["margin"].where(fired, -1.0)


def learnt(name, seed, words):
    """A market, its times, and what a pipeline that learnt from the first says of the rest."""
    snr, stays, labels, _ = MARKETS[name]
    bars, assets, train = (int(words[word]) for word in ("bars", "assets", "train"))
    market = lasting(seed, bars, assets, snr, stays)
    times = market.panel.index.get_level_values("time").unique()
    sieve = assemble(composed("train", *SMALL, *labels, f"seed={seed}"), "pipeline")
    sieve.fit(until(market.panel, times[train - 1]))
    return (
        market,
        times,
        evaluated(sieve, market.panel, after(market.panel.index, times[train - 1])),
    )


def peeked(words):
    """A short signal, filled at the close that decided and a bar later."""
    market, _, said = learnt("planted, gone in a bar", 0, words)
    score = decided(said).unstack("asset")
    prices = market.panel["close"].unstack("asset").loc[score.index]
    bought = (score > 0).astype(float)
    weights = 0.95 * bought.div(bought.sum(axis=1).clip(lower=5), axis=0)
    for late in (0, 1):
        run = wealth(weights.shift(late).fillna(0.0), prices, costs=COST)
        ratio = sharpe(run.returns.to_numpy(), 252)
        print(f"{late} bars later: {run.value.iloc[-1]:.2f} times the capital, Sharpe {ratio:.1f}")


def followed(name, seed, words):
    """Judgement of what the decisions on a market earned, and the share of rows that fired."""
    market, times, said = learnt(name, seed, words)
    train, strict = int(words["train"]), MARKETS[name][3]
    score = decided(said) if strict else said["margin"]
    panel = market.panel.assign(decided=score.reindex(market.panel.index))
    asked = ("portfolio=top_scores", "portfolio.score.values=decided", "horizon=5")
    policy = assemble(composed("rebalance", *asked), "portfolio")
    run = simulate(panel, policy, costs=COST, start=times[train])
    fired = float((said["status"] == "fired").mean())
    return judge(run, panel, resamples=200, seed=seed), fired


def after(index, time):
    return index[index.get_level_values("time") > time]


def reached(figures, which):
    """Whether all figures reach their bar (0) or floor (1)."""
    good = []
    for name, ends in BARS.items():
        value = figures[name]
        good.append(value < ends[which] if name == "max_drawdown" else value > ends[which])
    return all(good)


def rows_of(words):
    """A row a market and seed."""
    for name in [name for name in MARKETS if words["only"] in name]:
        for seed in range(int(words["seeds"])):
            said, fired = followed(name, seed, words)
            figures = said.figures
            yield {
                "market": name,
                "seed": seed,
                "rows fired": f"{fired:.1%}",
                "Sharpe": _written(figures["sharpe"], ".2f"),
                "95 %": _interval(said.intervals.loc["sharpe"]),
                "drawdown": _written(figures["max_drawdown"], ".1%"),
                "win rate": _written(figures["hit_rate"], ".1%"),
                "mean trade": _written(figures["mean_trade"], "+.2%"),
                "trades": f"{figures['trades']:.0f}",
                "floors": "reached" if reached(figures, 1) else "not reached",
                "bars": "reached" if reached(figures, 0) else "not reached",
            }


def _written(value, form):
    return f"{value:{form}}" if np.isfinite(value) else "none"


def _interval(ends):
    return f"{ends['low']:.2f} to {ends['high']:.2f}" if np.isfinite(ends).all() else "none"


def main(words):
    given_words = WORDS | dict(word.split("=", 1) for word in words)
    if given_words["peek"] == "true":
        peeked(given_words)
        return
    rows = []
    for row in rows_of(given_words):
        rows.append(row)
        print(" | ".join(map(str, row.values())), flush=True)
    table = pd.DataFrame(rows)
    print("\n| " + " | ".join(table) + " |")
    print("|" + "---|" * table.shape[1])
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")


if __name__ == "__main__":
    main(sys.argv[1:])
