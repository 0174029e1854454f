import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.base import DataError
from stages.explain.memory import Memory, column_of
from stages.markets import mixed
from stages.online.replay import ReplayBuffer
from stages.panel import age, named

MARKET = mixed(5, times=200, assets=3, features=5, snr=1)
PANEL, Y = MARKET.panel, MARKET.y


def remembered(**columns) -> Memory:
    """A memory of one asset with these columns."""
    n = len(next(iter(columns.values())))
    time = pd.date_range("2020-01-01", periods=n, tz="UTC").as_unit("us")
    index = pd.MultiIndex.from_product([pd.Index(["A"], dtype="str"), time])
    index.names = ["asset", "time"]
    table = pd.DataFrame(columns, index).astype("float32")
    table.columns = [c.replace("_", ".", 1) for c in table]
    y = pd.DataFrame({"side": np.int8(1), "end": time + pd.Timedelta("1D"), "weight": 1.0}, index)
    return Memory(table, y, np.ones(n), np.arange(n))


# what it holds


def test_a_buffer_with_room_is_remembered_row_by_row():
    held = Memory.of(ReplayBuffer(window=4).add(PANEL, Y))
    rows = Y[(age(PANEL) >= 3)[PANEL.index.get_indexer(Y.index)]]
    all_of_them = Memory.learnt(PANEL, rows)
    pd.testing.assert_frame_equal(
        held.inputs, all_of_them.inputs.astype("float32"), check_index_type=False
    )
    for name in ("side", "end", "ret"):
        assert held.y[name].tolist() == rows[name].tolist()
    np.testing.assert_array_equal(held.weight, 1)
    np.testing.assert_array_equal(held.bar, all_of_them.bar)


def test_rows_of_a_full_buffer_stand_for_the_rows_they_were_drawn_from():
    """The buffer keeps sides even, so its own rates are not those of the stream."""
    common = Y[(Y["side"] == 1) | (np.arange(len(Y)) % 7 == 0)]
    buffer = ReplayBuffer(window=4, capacity=90).add(PANEL, common)
    held = Memory.of(buffer)
    seen = common[(age(PANEL) >= 3)[PANEL.index.get_indexer(common.index)]]
    assert held.weight.sum() == pytest.approx(len(seen))
    buys = (held.y["side"] == 1).to_numpy()
    rate = (seen["side"] == 1).mean()
    assert abs(buys.mean() - rate) > 0.2
    assert held.weight @ buys / held.weight.sum() == pytest.approx(rate)


def test_rows_are_never_fewer_bars_apart_than_their_places_say():
    buffer = ReplayBuffer(window=6, capacity=80, seed=2).add(PANEL, Y)
    held = Memory.of(buffer)
    true = age(PANEL)[PANEL.index.get_indexer(held.y.index)]
    for asset in held.y.index.unique("asset"):
        mine = (held.y.index.get_level_values("asset") == asset).nonzero()[0]
        said, real = np.diff(held.bar[mine]), np.diff(true[mine])
        assert (said <= real).all()
        near = real < 6  # within a window, so every bar between is known
        np.testing.assert_array_equal(said[near], real[near])
        assert near.any()


def test_an_empty_memory_is_refused():
    with pytest.raises(DataError, match="no row of its past") as refused:
        Memory.of(ReplayBuffer(window=4).add(PANEL, Y[:0]))
    assert refused.value.code == "SV-F18"


def test_columns_go_by_their_plain_names():
    assert column_of("rsi_14") == "feature.rsi_14"
    assert column_of("rule.rsi") == "rule.rsi"
    assert column_of("context.regime") == "context.regime"


# where a value stands


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.sampled_from([-1.5, 0.0, 0.25, 2.0]), min_size=1, max_size=12),
    st.lists(st.floats(0.1, 5), min_size=12, max_size=12),
    st.sampled_from([-9.0, -1.5, 0.0, 0.1, 0.25, 2.0, 9.0]),
)
def test_a_place_is_the_share_below_with_ties_counted_half(values, weights, value):
    held = remembered(feature_x=values)
    weight = np.array(weights[: len(values)])
    held = Memory(held.inputs, held.y, weight, held.bar)
    x = np.array(values)
    expected = (weight[x < value].sum() + weight[x == value].sum() / 2) / weight.sum()
    assert held.place("feature.x", [value])[0] == pytest.approx(expected, abs=1e-12)
    for share in (0.0, 0.3, 1.0):
        at = held.quantile("feature.x", share)
        assert at in x
        assert weight[x <= at].sum() / weight.sum() >= share - 1e-9
        assert share == 0 or weight[x < at].sum() / weight.sum() <= share + 1e-9


def test_missing_values_have_no_place_and_do_not_count():
    held = remembered(feature_x=[1, 2, np.nan, 3])
    np.testing.assert_array_equal(held.place("feature.x", [np.nan, 2.5]), [np.nan, 2 / 3])
    assert held.span("feature.x") == (1, 3)
    center, spread = held.scale
    assert center[0] == 2
    assert spread[0] == pytest.approx(np.std([1, 2, 3]))
    np.testing.assert_array_equal(held.rows[:, 0][2], 0)


def test_the_scale_is_weighted():
    held = remembered(feature_x=[0, 10])
    held = Memory(held.inputs, held.y, np.array([3.0, 1.0]), held.bar)
    center, spread = held.scale
    assert center[0] == 2.5
    assert spread[0] == pytest.approx(np.sqrt(0.75 * 2.5**2 + 0.25 * 7.5**2))


# what settles what


def test_inputs_that_another_one_settles_are_led_by_it():
    x = np.random.default_rng(0).normal(size=400)
    noise = np.random.default_rng(1).normal(size=400)
    held = remembered(
        feature_x=x,
        feature_noise=noise,
        feature_near=x + 0.01 * noise,
        rule_sign=np.sign(x),
        rule_clipped=np.clip(-2 * x, -1, 1),
        context_twin=x,
        context_bent=np.exp(x),
        context_flat=np.ones(400),
        context_state=np.where(x > 1, 1.0, np.where(x < -1, -1.0, 0.0)),
    )
    led = {"rule.sign", "rule.clipped", "context.twin", "context.bent", "context.state"}
    assert dict(held.leader) == dict.fromkeys(led, "feature.x")


def test_a_value_seen_twice_beside_two_others_settles_nothing():
    x = np.repeat(np.arange(50.0), 2)
    held = remembered(feature_x=x, rule_r=np.arange(100.0), feature_coarse=x // 10)
    assert dict(held.leader) == {"feature.coarse": "rule.r", "feature.x": "rule.r"}


def test_chance_does_not_make_a_leader():
    """A score that is rarely anything but 0 is monotone in many things."""
    rng = np.random.default_rng(2)
    rare = np.zeros(300)
    rare[:2] = 1
    held = remembered(rule_rare=rare, **{f"feature_x{k}": rng.normal(size=300) for k in range(40)})
    assert not held.leader
    short = remembered(feature_x=np.arange(20.0), rule_r=np.arange(20.0))
    assert not short.leader


def test_gaps_hide_no_leader():
    x = np.random.default_rng(3).normal(size=200)
    gone = np.where(np.arange(200) % 3 == 0, np.nan, np.sign(x))
    assert dict(remembered(feature_x=x, rule_r=gone).leader) == {"rule.r": "feature.x"}


def test_what_is_led_follows():
    x = np.random.default_rng(4).normal(size=3000)
    held = remembered(feature_x=x, rule_r=np.clip(x, -1, 1), rule_free=np.roll(x, 1))
    at = np.array([-9.0, -0.5, 0.0, 0.7, 9.0])
    moved = held.follow("feature.x", at)
    assert set(moved) == {"rule.r"}
    np.testing.assert_allclose(moved["rule.r"], np.clip(at, -1, 1), atol=0.02)
    assert held.follow("rule.free", at) == {}


def test_companions_are_those_whose_ranks_go_together():
    rng = np.random.default_rng(5)
    x = rng.normal(size=500)
    held = remembered(
        feature_x=x,
        feature_near=np.exp(x + 0.1 * rng.normal(size=500)),
        feature_against=-x + 0.4 * rng.normal(size=500),
        feature_far=rng.normal(size=500),
    )
    assert held.companions("feature.x") == ["feature.near", "feature.against"]
    assert held.companions("feature.far") == []


def test_every_column_of_the_panel_is_remembered():
    assert Memory.learnt(PANEL, Y).columns == named(PANEL, "feature", "rule", "context")
