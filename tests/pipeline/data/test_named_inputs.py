"""Features of real quotes and real trades: see test_ticks for the book and the currencies."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pipeline.data.ticks import quotes, trades
from pipeline.recipe import instantiate
from stages.features import trades as flows
from stages.features.microstructure import microprice
from tests.conftest import composed


def built(bars):
    features = instantiate(composed("config", "features=microstructure").features)
    return features.fit(bars), features.build(bars)


@pytest.mark.realdata
def test_real_quotes_have_spreads_and_prices_between_bid_and_ask(realdata):
    columns = {"asset": "symbol", "time": "timestamp", "bid": "bc", "ask": "ac"}
    columns |= {"bid_size": "bs", "ask_size": "as_"}
    path = str(realdata("spy_minute_quotes_2013_10.parquet"))
    bars = quotes(path, columns=columns, timezone="America/New_York").bars
    assert len(bars) == 5412
    features, made = built(bars)
    assert any("trades" in why for why in features.left_out_.values())  # quotes alone
    late = made[features.ready(bars)]
    spread = late["feature.spread"]
    assert spread.notna().all()
    assert (spread >= 0).all()
    assert 0 < spread.median() < 1e-3
    book = [bars[name].to_numpy("float64") for name in ("bid", "ask", "bid_size", "ask_size")]
    inside = microprice(*book)
    known = np.isfinite(inside)
    assert known.mean() > 0.99
    assert (bars["bid"][known] <= inside[known] + 1e-9).all()
    assert (inside[known] <= bars["ask"][known] + 1e-9).all()


@pytest.mark.realdata
def test_real_trades_become_bars_of_volume_whose_sides_equal_pandas(realdata):
    columns = {"asset": None, "time": "timestamp", "close": "price", "volume": "volume"}
    path = realdata("es_future_trades_500k_2013_09.parquet")
    bar = {"by": "volume", "size": 1000, "sizes": (2, 20)}
    source = trades(str(path), bar, columns=columns, timezone="America/Chicago")
    bars, raw = source.bars, pd.read_parquet(path)
    done = int(bars["trades"].sum())
    assert 0 <= len(raw) - done < 1000  # of the bar that is not full
    assert bars["volume"].sum() == raw["volume"].iloc[:done].sum()
    assert (bars["volume"] >= 1000).all()
    value = (raw["price"] * raw["volume"]).iloc[:done].sum()
    assert_allclose(bars["value"].sum(), value, rtol=1e-12)
    side = flows.tick_rule(raw["price"].to_numpy("float64", copy=True), memory=100)
    sign = np.sign(raw["price"].diff()).replace(0.0, np.nan).ffill(limit=99).fillna(0.0)
    assert_array_equal(side[100:], sign[100:])
    features, made = built(bars)
    late = made[features.ready(bars)]
    assert late["feature.bought_20"].abs().max() <= 1
    assert late["feature.tick_pressure_20"].notna().mean() > 0.99
