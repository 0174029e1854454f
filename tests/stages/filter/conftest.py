import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMClassifier
from sklearn.ensemble import RandomForestClassifier
from xgboost import XGBClassifier

from stages.filter.rule_filter import RuleFilter
from stages.filter.tree_filter import TreeFilter


def planted(seed, times=400, assets=4):
    """`feature.x0` and `rule.trend` move the market, the rest is noise; some values are missing."""
    rng = np.random.default_rng(seed)
    days = pd.date_range("2020-01-01 21:00", periods=times, freq="D", tz="UTC", unit="us")
    names = [f"A{i}" for i in range(assets)]
    index = pd.MultiIndex.from_product([names, days], names=["asset", "time"])
    X = rng.normal(size=(len(index), 5)).astype("float32")
    trend = np.tanh(rng.normal(size=len(index)))
    score = 1.5 * X[:, 0] + trend + 0.7 * rng.normal(size=len(index))
    X[rng.random(X.shape) < 0.03] = np.nan
    panel = pd.DataFrame(X, index, [f"feature.x{i}" for i in range(5)])
    panel["rule.trend"] = np.where(rng.random(len(index)) < 0.05, np.nan, trend).astype("float32")
    panel["rule.noise"] = rng.uniform(-1, 1, len(index)).astype("float32")
    time = index.get_level_values("time")
    side = np.sign(score) * (np.abs(score) > 0.7)
    y = pd.DataFrame(
        {
            "side": side.astype("int8"),
            "end": time + pd.Timedelta(days=2),
            "weight": rng.uniform(0.2, 1, len(index)),
            "ret": 0.01 * score,
        },
        index,
    )
    return panel, y[(time >= days[20]) & (time < days[-2])]


def as_references(panel, rows, length=3):
    """A mini-panel: one pseudo-asset a row of `panel`, that row last."""
    ends = panel.index.get_indexer(rows)
    numbers = (ends[:, None] + np.arange(1 - length, 1)).ravel()
    names = np.repeat([f"r{i:03}" for i in range(len(rows))], length)
    time = panel.index.get_level_values("time")[numbers]
    return panel.iloc[numbers].set_axis(
        pd.MultiIndex.from_arrays([names, time], names=["asset", "time"])
    )


@pytest.fixture(scope="session")
def market():
    return planted(seed=0)


def tree_filter(**settings):
    """All four members, small."""
    members = {
        "lightgbm": LGBMClassifier(n_estimators=15, num_leaves=7, n_jobs=1, verbosity=-1),
        "xgboost": XGBClassifier(n_estimators=15, max_depth=3, n_jobs=1),
        "forest": RandomForestClassifier(
            20, max_depth=5, min_samples_leaf=10, max_samples=800, random_state=0
        ),
    }
    return TreeFilter(**{"members": members, "rules": RuleFilter()} | settings)


@pytest.fixture
def trees():
    return tree_filter()


@pytest.fixture(scope="session")
def trained(market):
    """Fitted once; tests must not change it."""
    return tree_filter().fit(*market)
