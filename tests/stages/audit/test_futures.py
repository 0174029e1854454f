import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.audit.futures import AHEAD, FUTURES, delisted, later_than, mirrored, soon, worn
from stages.audit.zoo.honest import Bars
from stages.panel import check_panel, until

ALL = FUTURES | {"delisted": delisted}
SHAPED = ("garbage", "mirrored", "jumped")


@pytest.fixture(scope="module")
def bars():
    table = Bars(assets=4, times=90, seed=3, ragged=True).draw()
    return table.assign(
        **{
            "market": table["close"].groupby(level="time").transform("mean"),
            "bid": table["close"] * 0.999,
            "ask": table["close"] * 1.001,
            "feature.x": np.random.default_rng(0).standard_normal(len(table)).astype("float32"),
            "context.regime": np.sign(np.sin(np.arange(len(table)))),
            "session": pd.DatetimeIndex(table.index.get_level_values("time")).tz_localize(None),
        }
    )


@settings(max_examples=25, deadline=None)
@given(name=st.sampled_from(sorted(ALL)), at=st.integers(0, 88), seed=st.integers(0, 99))
def test_the_past_stays_as_it_was_and_every_bar_is_a_bar(bars, name, at, seed):
    time = bars.index.unique("time").sort_values()[at]
    made = ALL[name](bars, time, np.random.default_rng(seed))
    pd.testing.assert_frame_equal(until(check_panel(made), time), until(bars, time))
    assert (made.dtypes == bars.dtypes).all()
    assert (made["low"] <= made[["open", "close"]].min(axis=1) + 1e-9).all()
    assert (made["high"] >= made[["open", "close"]].max(axis=1) - 1e-9).all()
    assert (made[["low", "bid", "volume"]] > 0).all(axis=None)
    assert (made["bid"] <= made["ask"]).all()
    assert set(made["context.regime"]) <= {-1, 0, 1}


@pytest.mark.parametrize("name", SHAPED)
def test_a_shaped_future_has_the_same_rows_and_no_value_stays(bars, name):
    time = bars.index.unique("time").sort_values()[50]
    made = FUTURES[name](bars, time, np.random.default_rng(0))
    assert made.index.equals(bars.index)
    later = later_than(bars, time)
    for column in ("open", "high", "low", "close", "volume", "market", "feature.x"):
        assert (made[column] != bars[column])[later].mean() > 0.9, column


def test_a_mirrored_return_has_the_opposite_sign(bars):
    time = bars.index.unique("time").sort_values()[50]
    made = mirrored(bars, time, np.random.default_rng(0))
    moves = [np.log(t["close"]).groupby(level="asset").diff() for t in (bars, made)]
    later = later_than(bars, time) & moves[0].notna().to_numpy()
    np.testing.assert_allclose(moves[1][later], -moves[0][later], atol=1e-12)


def test_another_universe_loses_assets_and_sessions_and_lists_one(bars):
    time = bars.index.unique("time").sort_values()[50]
    made = FUTURES["relisted"](bars, time, np.random.default_rng(0))
    before, after = (t[later_than(t, time)].index for t in (bars, made))
    assert set(after.unique("asset")) - set(before.unique("asset")) == {"A00.new"}
    assert set(before.unique("asset")) - set(after.unique("asset"))
    assert len(after.unique("time")) < len(before.unique("time"))


def test_a_worn_past_has_holes_before_the_time_and_none_elsewhere(bars):
    time = bars.index.unique("time").sort_values()[50]
    made = worn(bars, time, np.random.default_rng(0))
    lost = bars.index.difference(made.index)
    assert len(lost)
    empty = made["close"].isna()
    assert empty.any()
    for rows in (lost, made.index[empty]):
        assert (rows.get_level_values("time") <= time).all()
    whole = made[~empty]
    pd.testing.assert_frame_equal(whole, bars.loc[whole.index])


def test_no_asset_loses_its_whole_history():
    bars = Bars(assets=3, times=20, seed=0).draw()
    first = bars.index.unique("time").min()
    made = worn(bars, first, np.random.default_rng(0))
    pd.testing.assert_frame_equal(made, bars)


def test_a_short_future_ends_soon(bars):
    times = bars.index.unique("time").sort_values()
    assert soon(bars, times[5]).index.unique("time").max() == times[5 + AHEAD]
    assert soon(bars, times[-2]).index.equals(bars.index)


def test_negative_prices_stay_valid():
    bars = Bars(assets=2, times=40, seed=0).draw()
    prices = ["open", "high", "low", "close"]
    bars[prices] = bars[prices] - 30
    time = bars.index.unique("time").sort_values()[10]
    for name in SHAPED:
        made = FUTURES[name](bars, time, np.random.default_rng(1))
        if name == "garbage":
            assert (made["low"] <= made[["open", "close"]].min(axis=1)).all()
        assert np.isfinite(made[prices]).all(axis=None)
