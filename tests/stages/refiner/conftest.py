from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest

from stages.refiner.lstm import Lstm
from stages.refiner.refiner import SequenceRefiner
from stages.refiner.transformer import Transformer

LABEL = pd.Timedelta(days=3)


def panel_and_labels(assets=6, bars=240, features=6, seed=0):
    """A market whose side follows x0 of the last four bars and what the filter says of x1."""
    draw = np.random.default_rng(seed)
    times = pd.date_range("2020-01-01", periods=bars, tz="UTC", unit="us")
    index = pd.MultiIndex.from_product(
        [[f"A{number}" for number in range(assets)], times], names=["asset", "time"]
    )
    x = draw.standard_normal((assets, bars, features)).astype("float32")
    memory = sum(np.roll(x[..., 0], lag, axis=1) for lag in range(4)) / 2
    noisy = memory + x[..., 1] + 0.5 * draw.standard_normal((assets, bars))
    side = np.digitize(noisy.ravel(), np.quantile(noisy, [1 / 3, 2 / 3])) - 1
    panel = pd.DataFrame(
        x.reshape(-1, features), index, [f"feature.x{number}" for number in range(features)]
    )
    for member, doubt in {"a": 0.1, "b": 0.5}.items():
        noise = doubt * draw.standard_normal((2, len(panel)))
        panel[f"filter.{member}.z_sell"] = -x[..., 1].ravel() + noise[0]
        panel[f"filter.{member}.z_buy"] = x[..., 1].ravel() + noise[1]
    panel["filter.gate"] = (draw.random(len(panel)) > 0.1).astype("float64")
    end = index.get_level_values("time") + LABEL
    y = pd.DataFrame({"side": side.astype("int8"), "end": end, "weight": 1.0}, index)
    return panel, y


@pytest.fixture(scope="package")
def market():
    return panel_and_labels()


@pytest.fixture(scope="package")
def template():
    """An LSTM and a Transformer too small to be slow."""
    members = {
        "lstm": partial(Lstm, hidden=8, dropout=0.1),
        "transformer": partial(Transformer, hidden=8, heads=2, dropout=0.1),
    }
    return SequenceRefiner(
        members, window=6, epochs=4, batch=64, learning_rate=0.02, seeds=[3], accelerator="cpu"
    )


@pytest.fixture(scope="package")
def refiner(template, market):
    panel, y = market
    return replace(template).fit(panel, y)


@pytest.fixture(scope="package")
def said(refiner, market):
    return refiner.predict(market[0])
