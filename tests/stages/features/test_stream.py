"""Bar by bar, the columns are those of the whole table, to the last bit."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_module
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal

from pipeline.recipe import instantiate
from stages.base import ConfigError, DataError, State
from stages.features.build import FeatureSet
from stages.features.cross_section import cross_section, rank, z_score
from stages.features.peers import average, idiosyncratic, size, total
from stages.features.returns import log_return, momentum
from stages.features.ring import Rings
from stages.features.stream import FeatureStream
from stages.features.volatility import realised_volatility
from stages.panel import PanelError, warms_up
from tests.stages.features.contract import clean_bars


def named(name, *words):
    with initialize_config_module("conf", version_base="1.3"):
        return instantiate(compose("config", overrides=[f"features={name}", *words]).features)


@pytest.fixture(scope="module")
def ragged():
    """Late listings, gaps, a long halt, an asset that stops, and numbers that are missing."""
    rng = np.random.default_rng(7)
    bars = clean_bars(rng, "DBCAEF", 340, stagger=13)
    time = bars.index.get_level_values("time")
    asset = bars.index.get_level_values("asset")
    here = rng.random(len(bars)) > 0.02
    here &= ~((asset == "B") & (time > time.unique()[300]))
    here &= ~((asset == "A") & (time > time.unique()[150]) & (time < time.unique()[190]))
    here &= ~((asset != "E") & (time == time.unique()[320]))  # nearly all of them absent
    bars = bars.mask(rng.random(bars.shape) < 0.0005)[here]
    return bars.assign(sector=np.where(bars.index.get_level_values(0) < "C", "banks", "mines"))


def by_time(bars):
    return [now for _, now in bars.groupby("time", sort=True)]


def test_every_column_of_the_default_set_has_the_bits_of_the_whole_table(ragged):
    features = named("default").fit(ragged)
    stream = FeatureStream(features)
    assert not [s.name for group in stream.rounds for s in group if not s.beside]
    made, ready = [], []
    for now in by_time(ragged):
        made.append(stream.push(now))
        ready.append(pd.Series(stream.ready_, now.index))
    made, ready = pd.concat(made).loc[ragged.index], pd.concat(ready).loc[ragged.index]
    whole = features.values(ragged)[stream.names]
    assert len(stream.names) == 155 + 8 + 6
    assert_frame_equal(made, whole, check_exact=True)
    assert_array_equal(ready, features.ready(ragged))
    assert ready.sum() > 100
    stored = features.build(ragged)[stream.names]
    assert_frame_equal(made.astype("float32"), stored, check_exact=True)


@pytest.mark.parametrize("name", ["core", "alpha158"])
def test_a_table_pushed_at_once_gives_the_columns_of_other_sets(ragged, name):
    features = named(name).fit(ragged)
    stream = FeatureStream(features)
    made = stream.push(ragged)
    whole = features.values(ragged)[stream.names]
    # TA-Lib sums in an order that depends on where its series began: three columns of core
    assert_allclose(made, whole, rtol=1e-12, atol=1e-10)
    alone = [s.name for group in stream.rounds for s in group if not s.beside]
    assert (
        alone
        == {
            "core": ["feature.stochastic_k", "feature.stochastic_d", "feature.cci_20"],
            "alpha158": [],
        }[name]
    )
    exact = [c for c in stream.names if c not in alone]
    assert_frame_equal(made[exact], whole[exact], check_exact=True)


FEW = {
    "return_3": partial(log_return, bars=3),
    "volatility": partial(realised_volatility, bars=5),
    "rank": partial(rank, of="return_3"),
    "z": partial(z_score, of="volatility"),
    "usual_rank": partial(average, of="rank", bars=3),
    "rank_of_it": partial(rank, of="usual_rank"),
    "market": partial(momentum, close="market", bars=4),
    "own": partial(idiosyncratic, of="return_3", bars=4, factors=1),
    "own_2": partial(total, of="own", bars=2),
}


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_whatever_is_missing_the_stream_agrees_with_the_table(data):
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    bars = clean_bars(rng, "CAB", 24)[["close"]].round(1)
    bars = bars[rng.random(len(bars)) > data.draw(st.floats(0, 0.7))]
    bars = bars.mask(rng.random(bars.shape) < 0.05)
    if bars.index.unique("asset").size < 2:
        return
    features = FeatureSet(FEW, min_coverage=0.6, inner=["return_3"]).fit(bars)
    stream = FeatureStream(features, block=data.draw(st.integers(1, 3)))
    made = stream.push(bars)
    assert_frame_equal(made, features.values(bars)[stream.names], check_exact=True)
    assert_array_equal(stream.ready_, features.ready(bars))


def test_a_saved_state_goes_on_where_it_stopped(ragged):
    features = named("default").fit(ragged)
    time = ragged.index.get_level_values("time")
    cut, end = time.unique().sort_values()[[260, 300]]
    stream = FeatureStream(features)
    stream.push(ragged[time <= cut])
    state = stream.state()
    assert all(isinstance(part, bytes) for part in state.parts.values())
    again = State(json.loads(json.dumps(state.values)), state.parts)
    fresh = FeatureStream(named("default").restore(features.state())).restore(again)
    rest = ragged[(time > cut) & (time <= end)]
    assert_frame_equal(fresh.push(rest), stream.push(rest), check_exact=True)


def test_a_state_of_other_features_is_refused(bars):
    state = FeatureStream(FeatureSet(FEW).fit(bars)).state()
    other = FeatureSet({"r": partial(log_return, bars=1)}).fit(bars)
    elsewhere = FeatureSet(FEW).fit(bars.drop("A"))
    for features in (other, elsewhere):
        with pytest.raises(DataError, match="the stream belongs to other features") as caught:
            FeatureStream(features).restore(state)
        assert caught.value.code == "SV-F20"


def small(bars, **columns):
    columns = columns or {"r": partial(log_return, bars=1)}
    return FeatureStream(FeatureSet(columns).fit(bars))


def test_bars_out_of_order_or_twice_are_refused(bars):
    stream, (first, second, *_) = small(bars), by_time(bars)
    stream.push(first)
    stream.push(second)
    for late in (first, second):
        with pytest.raises(DataError, match="comes after those of 2019-01-02") as caught:
            stream.push(late)
        assert caught.value.code == "SV-F03"
    time = bars.index.get_level_values("time")[-1]
    with pytest.raises(DataError, match="D has two bars at") as caught:
        stream.take(time, ["D", "D"], {"close": np.ones(2)})
    assert caught.value.code == "SV-F02"
    with pytest.raises(PanelError, match="close"):
        stream.push(bars[["open"]])


@warms_up(lambda **_: 1)
def inverse(close):
    with np.errstate(divide="ignore"):
        return 1 / (close - 7)


def test_what_is_refused_leaves_no_trace(bars):
    columns = {
        "x": inverse,
        "z": partial(log_return, bars=2),
        "m": partial(momentum, close="market"),
    }
    stream, clean = small(bars, **columns), small(bars, **columns)
    now = by_time(bars)
    for table in now[:100]:
        assert_frame_equal(stream.push(table), clean.push(table))
    wrong = now[100].assign(close=7.0)
    with pytest.raises(DataError, match="feature.x is infinite for") as caught:
        stream.push(wrong)
    assert caught.value.code == "SV-F12"
    for table in now[100:200]:
        assert_frame_equal(stream.push(table), clean.push(table), check_exact=True)


@warms_up(lambda **_: 3)
def one_by_one(close):
    """Right along one asset; side by side it would sum over everything."""
    return np.append(np.full(3, np.nan), np.convolve(close, np.ones(4), "valid"))


@warms_up(lambda **_: 2)
def wrong_beside(close):
    """Raises nothing side by side, and would be wrong."""
    flat = np.ravel(close)
    out = np.full(len(flat), np.nan)
    out[2:] = flat[2:] + flat[:-2]
    return out.reshape(close.shape)


def test_functions_of_one_asset_alone_are_run_one_by_one(bars):
    features = FeatureSet({"sum": one_by_one, "pair": wrong_beside}).fit(bars)
    stream = FeatureStream(features)
    assert [s.beside for group in stream.rounds for s in group] == [False, False]
    made = stream.push(bars)
    assert_frame_equal(made, features.values(bars)[stream.names], check_exact=True)


def test_a_market_of_its_own_comes_with_the_bars(ragged):
    given = ragged.assign(market=ragged["close"].groupby("time").transform("mean"))
    features = named("default").fit(given)
    stream = FeatureStream(features)
    few = given.iloc[-250:]
    assert "market" in stream.inputs
    made = stream.push(few)
    whole = features.values(few)[stream.names]
    assert_frame_equal(made, whole, check_exact=True)


def test_a_single_asset_is_a_stream_too(bars):
    one = bars.loc[["B"]]
    features = named("default").fit(one)
    stream = FeatureStream(features)
    made = pd.concat([stream.push(now) for now in by_time(one.iloc[-300:])])
    whole = features.values(one.iloc[-300:])[stream.names]
    assert_frame_equal(made, whole, check_exact=True)


def test_one_asset_alone_has_the_columns_of_a_library_that_remembers(bars):
    one = bars.loc[["B"]]
    features = named("core").fit(one)
    stream = FeatureStream(features)
    made = stream.push(one.iloc[-300:])
    assert_allclose(made, features.values(one.iloc[-300:])[stream.names], rtol=1e-12, atol=1e-10)


seen = []


@cross_section
@warms_up(lambda **_: 0)
def counted_rank(of):
    seen.append(of.shape)
    return rank(of)


def test_what_a_time_cannot_stand_for_is_not_computed(bars):
    columns = {"r": partial(log_return, bars=1), "rank": partial(counted_rank, of="r")}
    stream, now = small(bars, **columns), by_time(bars)
    for table in now[:100]:
        stream.push(table)
    for table, shapes in ((now[100], [(1, 4)]), (now[101].iloc[[0]], []), (now[102], [(1, 4)])):
        seen.clear()
        made = stream.push(table)
        assert seen == shapes
        assert made["feature.rank"].isna().all() == (not shapes)
        assert made["feature.r"].notna().all()


def test_an_asset_that_training_did_not_see_is_taken(bars):
    features = FeatureSet(FEW).fit(bars.drop("D"))
    stream = FeatureStream(features)
    made = stream.push(bars)
    assert_frame_equal(made, features.values(bars)[stream.names], check_exact=True)


PEERS = {
    "return_1": partial(log_return, bars=1),
    "own": partial(idiosyncratic, of="return_1", bars=30, factors=2),
    "own_5": partial(total, of="own", bars=5),
    "rank_own": partial(rank, of="own_5"),
    "next_to_it": partial(idiosyncratic, of="own_5", bars=12, factors=1),
    "money": partial(size),
}


def test_what_an_asset_does_beside_its_peers_has_the_bits_of_the_whole_table(ragged):
    some = ragged.groupby("asset").head(200)
    features = FeatureSet(PEERS, min_coverage=0.4).fit(some)
    stream = FeatureStream(features)
    now = by_time(some)
    made = [stream.push(table) for table in now[:120]]
    state = stream.state()  # in the midst of late listings and of a halt
    again = State(json.loads(json.dumps(state.values)), state.parts)
    fresh = FeatureStream(FeatureSet(PEERS, min_coverage=0.4).restore(features.state()))
    fresh.restore(again)
    made += [fresh.push(table) for table in now[120:]]
    made = pd.concat(made).loc[some.index]
    assert_frame_equal(made, features.values(some)[stream.names], check_exact=True)
    assert (made.notna().groupby("asset").sum() > 20).all(axis=None)


def test_the_set_of_the_next_day_has_the_bits_of_the_whole_table(ragged):
    bars = ragged.groupby("asset").tail(190)
    features = named("next_day", "rules=ranks").fit(ragged)
    stream = FeatureStream(features)
    assert stream.board.values.keys() == {("return_1", 120)}
    made, whole = stream.push(bars), features.values(bars)[stream.names]
    own = [name for name in made if "idiosyncratic" in name]
    assert made[own].notna().any().sum() > 15
    rounded = [f"rule.{name}" for name in ("stochastic_k", "stochastic_d", "cci_20")]  # by TA-Lib
    exact = [name for name in made if name not in rounded]
    assert_frame_equal(made[exact], whole[exact], check_exact=True)


def test_what_is_refused_leaves_no_trace_across_assets(bars):
    columns = PEERS | {"x": inverse}
    stream, clean = small(bars, **columns), small(bars, **columns)
    now = by_time(bars)
    for table in now[:150]:
        assert_frame_equal(stream.push(table), clean.push(table))
    with pytest.raises(DataError, match="feature.x is infinite for"):
        stream.push(now[150].iloc[:3].assign(close=7.0))
    for table in now[151:170]:  # another time, with other assets
        assert_frame_equal(stream.push(table), clean.push(table), check_exact=True)


@cross_section
@warms_up(lambda **_: 2)
def ever_highest(of):
    """Looks back on all of history, whatever it declares."""
    return np.fmax.accumulate(of, axis=0) + 0.0 * of


def test_looking_back_across_assets_without_end_is_refused(bars):
    features = FeatureSet({"top": partial(ever_highest, of="close")}).fit(bars)
    with pytest.raises(ConfigError, match="feature.top looks back further across") as caught:
        FeatureStream(features)
    assert caught.value.code == "SV-F33"


def test_only_fitted_features_make_a_stream(bars):
    with pytest.raises(Exception, match="no built_ yet"):
        FeatureStream(replace(FeatureSet(FEW)))
    with pytest.raises(ValueError, match="block must be at least 1"):
        FeatureStream(FeatureSet(FEW).fit(bars), block=0)


def test_a_ring_keeps_the_last_bars_of_each_asset():
    rings, seen = Rings({"x": 3, "y": 2}), {0: [], 1: [], 2: []}
    rng = np.random.default_rng(0)
    for step in range(40):
        rings.hold(2 if step < 10 else 3)
        at = np.flatnonzero(rng.random(2 if step < 10 else 3) < 0.7)
        newest = rng.normal(size=len(at))
        before = rings.before("x", at)
        rings.put("x", at, 99.0)  # put, but never kept
        rings.put("x", at, newest)
        rings.put("nobody", at, newest)
        for number, value in zip(at, newest, strict=True):
            seen[number].append(value)
        window = rings.window("x", at)
        assert window.shape == (3, len(at))
        for column, number in enumerate(at):
            wanted = np.concatenate([np.full(3, np.nan), seen[number]])
            assert_array_equal(window[:, column], wanted[-3:])
            assert_array_equal(before[column], wanted[-2])
        rings.advance(at)
