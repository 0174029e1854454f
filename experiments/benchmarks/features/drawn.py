"""Bars that look like daily ones, and the feature sets of conf/ that the benchmark times."""

from dataclasses import replace

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_module

from pipeline.recipe import instantiate
from stages.features.build import FeatureSet
from stages.features.functions import reads


def bars(assets: int, times: int, seed: int = 0) -> pd.DataFrame:
    """Open, high, low, close, vwap and volume of `assets` assets with a common factor."""
    rng = np.random.default_rng(seed)
    days = pd.bdate_range("2012-01-02", periods=times, tz="UTC").as_unit("us")
    common = rng.normal(0.0003, 0.008, (1, times))
    moves = common + rng.standard_t(5, (assets, times)) * 0.012
    close = rng.uniform(10, 200, (assets, 1)) * np.exp(moves.cumsum(axis=1))
    before = np.concatenate([close[:, :1], close[:, :-1]], axis=1)
    opened = before * np.exp(rng.normal(0, 0.004, close.shape))
    wiggle = np.exp(np.abs(rng.normal(0, 0.006, (2, *close.shape))))
    high = np.maximum(close, opened) * wiggle[0]
    low = np.minimum(close, opened) / wiggle[1]
    table = {
        "open": opened,
        "high": high,
        "low": low,
        "close": close,
        "volume": rng.lognormal(13, 0.7, close.shape).round(),
        "vwap": (high + low + close) / 3,
    }
    names = [f"A{number:04d}" for number in range(assets)]
    index = pd.MultiIndex.from_product([names, days], names=["asset", "time"])
    return pd.DataFrame({name: values.ravel() for name, values in table.items()}, index)


def feature_set(name: str) -> FeatureSet:
    """The set of ``features=NAME``, without rules and context: columns alone are timed."""
    with initialize_config_module("conf", version_base="1.3"):
        whole = instantiate(compose("config", overrides=[f"features={name}"]).features)
    return replace(whole, rules={}, context={})


def only(features: FeatureSet, names: list[str]) -> FeatureSet:
    """The columns `names` of a set, and those that they read, which are not kept."""
    needed = set(names)
    for name in reversed(list(features.columns)):
        if name in needed:
            needed |= set(reads(features.columns[name]).values())
    columns = {name: f for name, f in features.columns.items() if name in needed}
    return replace(features, columns=columns, inner=[n for n in columns if n not in names])
