"""A small stack with every kind of input, and the panel it was fitted on: made once."""

from functools import cache, partial

import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier

from stages.base import Explanation
from stages.ensemble.decide import Decide
from stages.ensemble.stacker import BayesianStacker
from stages.explain.explainer import Explainer
from stages.explain.memory import Memory
from stages.filter.rule_filter import RuleFilter
from stages.filter.tree_filter import TreeFilter
from stages.folds import PurgedWalkForward
from stages.markets import mixed
from stages.panel import age
from stages.refiner.lstm import Lstm
from stages.refiner.refiner import SequenceRefiner
from stages.stack import Stack, pass_forward

WINDOW = 5


@cache
def market() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Six features; a rule that is read off one, a context that is another, and a free rule."""
    made = mixed(3, times=330, assets=4, features=6, snr=2)
    panel = made.panel.drop(columns="close")
    rng = np.random.default_rng(3)
    panel["rule.stretched"] = (-panel["feature.x0"]).clip(-1, 1)
    panel["rule.free"] = np.sign(rng.normal(size=len(panel))).astype("float32")
    panel["context.twin"] = panel["feature.x1"]
    panel["context.liquidity"] = rng.normal(size=len(panel)).astype("float32")
    panel["ready"] = age(panel) >= 2
    panel["cost"], panel["scale"] = 0.0002, 0.01
    y = made.y[panel["ready"].loc[made.y.index].to_numpy()]
    return panel, y.assign(horizon_end=y["end"] + pd.Timedelta("2D"))


@cache
def passed():
    """What the purged pass over the market leaves: filter with rules, LSTM, stacker, gate."""
    panel, y = market()
    boosted = LGBMClassifier(n_estimators=20, num_leaves=7, n_jobs=1, verbosity=-1)
    lstm = SequenceRefiner(
        {"lstm": partial(Lstm, hidden=16, dropout=0.1)},
        window=WINDOW,
        epochs=2,
        batch=64,
        learning_rate=0.01,
        accelerator="cpu",
    )
    template = Stack(
        TreeFilter({"lightgbm": boosted}, RuleFilter(), recall=0.6),
        lstm,
        BayesianStacker(interactions=("context.regime",)),
    )
    return pass_forward(template, panel, y, PurgedWalkForward(4, 0.4, 1), Decide())


@cache
def trained() -> tuple[Stack, pd.DataFrame]:
    """The stack, and the panel with what it says of every row."""
    panel, _ = market()
    return passed().stack, passed().stack.predict(panel)


@cache
def memory() -> Memory:
    return Memory.learnt(*market())


@cache
def explained(count: int = 26) -> tuple[pd.MultiIndex, Explanation, pd.DataFrame]:
    """Rows that are evaluated, their explanation, and the references."""
    stack, panel = trained()
    explainer = Explainer(n_references=6, tail=80, seed=1, reasons="full")
    references = explainer.choose(stack, panel, WINDOW)
    at = np.flatnonzero(panel["ready"].to_numpy())
    some = np.sort(np.random.default_rng(4).choice(at, count, replace=False))
    rows = panel.index[some]
    return rows, explainer.explain(stack, panel, rows, references), references
