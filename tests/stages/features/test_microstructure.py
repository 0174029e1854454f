"""Quotes and trades against numbers worked by hand, plain loops, and the contract of features."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from pipeline.recipe import instantiate
from stages.features import microstructure as quotes
from stages.features import trades
from stages.features.functions import reads
from stages.features.rows import Rows
from stages.features.stream import FeatureStream
from stages.panel import warmup
from tests.conftest import composed
from tests.stages.features import contract

NOON = pd.Timestamp("2020-06-01", tz="UTC")
SIZES = (
    *("volume", "bid_size", "ask_size", "ofi", "depth", "buy_volume", "sell_volume"),
    *("signed_volume", "small_volume", "large_volume"),
)
nan = np.nan


def a(*numbers):
    return np.array(numbers, dtype="float64")


# by hand


def test_a_quote_has_a_spread_a_mid_and_a_microprice():
    bid, ask = a(99.0, 100.0, 100.0), a(101.0, 100.0, 102.0)
    bid_size, ask_size = a(30.0, 5.0, 10.0), a(10.0, 5.0, 30.0)
    assert_array_equal(quotes.spread(bid, ask), a(2.0, 0.0, 2.0))
    assert_array_equal(quotes.mid(bid, ask), a(100.0, 100.0, 101.0))
    assert_allclose(quotes.relative_spread(bid, ask), a(0.02, 0.0, 2 / 101))
    assert_array_equal(quotes.queue_imbalance(bid_size, ask_size), a(0.5, 0.0, -0.5))
    # 3/4 of the queues stand at the bid: 99 * 1/4 + 101 * 3/4
    assert_array_equal(quotes.microprice(bid, ask, bid_size, ask_size), a(100.5, 100.0, 100.5))
    lean = quotes.microprice_lean(bid, ask, bid_size, ask_size)
    assert_allclose(lean, np.log(a(1.005, 1.0, 100.5 / 101)), atol=1e-15)


def test_a_crossed_quote_is_no_quote_and_is_not_repaired():
    bid, ask = a(100.0, 101.0, 100.0, 0.0, -1.0), a(101.0, 100.0, 101.0, 1.0, 1.0)
    unknown = [False, True, False, True, True]
    sizes = np.full(5, 7.0)
    for made in (
        quotes.spread(bid, ask),
        quotes.relative_spread(bid, ask),
        quotes.mid(bid, ask),
        quotes.microprice(bid, ask, sizes, sizes),
        quotes.spread_beside_usual(bid, ask, 1),
    ):
        assert_array_equal(np.isnan(made), unknown)
    flow = quotes.order_flow(bid, ask, sizes, sizes)
    assert_array_equal(np.isnan(flow), [True] * 5)  # each neighbours a crossed quote
    assert_array_equal(np.isnan(trades.effective_spread(bid, bid, ask)), [1, 0, 1, 0, 1])


def test_queues_of_no_size_or_below_0_are_unknown():
    assert_array_equal(np.isnan(quotes.queue_imbalance(a(0, -1, 3), a(0, 5, 0))), [1, 1, 0])


def test_order_flow_is_that_of_cont_kukanov_and_stoikov():
    #         start  bid grows  bid up   bid down   ask shrinks  ask down  ask up
    bid = a(10.0, 10.0, 10.1, 10.0, 10.0, 10.0, 10.0)
    ask = a(10.2, 10.2, 10.2, 10.2, 10.2, 10.1, 10.3)
    bid_size = a(5, 8, 4, 6, 6, 6, 6)
    ask_size = a(9, 9, 9, 9, 7, 3, 2)
    # +3 joined; +4 a new bid; -4 the better bid is gone; +2 offers left; -3 a new offer; +3 gone
    assert_array_equal(quotes.order_flow(bid, ask, bid_size, ask_size), a(nan, 3, 4, -4, 2, -3, 3))
    made = quotes.order_flow_imbalance(bid, ask, bid_size, ask_size, bars=2)
    assert_allclose(made[2:4], [7 / (8.5 + 6.5), 0.0])


def test_a_trade_is_a_buyers_after_a_rise_of_the_price():
    close = a(10, 10, 11, 11, 11, 11, 10, 10, 12)
    assert_array_equal(trades.tick_rule(close, 3), a(nan, nan, nan, 1, 1, 0, -1, -1, 1))


def test_lee_and_ready_compare_with_the_quote_before_and_then_with_the_price_before():
    close = a(10.0, 10.0, 10.2, 10.1, 10.1)
    bid, ask = a(10.0, 10.0, 10.0, 10.0, 10.3), a(10.2, 10.2, 10.2, 10.2, 10.5)
    # above 10.1; at the mid after a fall; at the mid, which the new quote is no part of
    assert_array_equal(trades.lee_ready(close, bid, ask, 2), a(nan, nan, 1, -1, -1))


def test_pressure_weighs_sides_with_volume():
    close, volume = a(10, 11, 10, 11, 12), a(1, 1, 3, 2, 5)
    assert_allclose(trades.tick_pressure(close, volume, 2, 1)[2:], [-0.5, -0.2, 1.0])
    assert_allclose(trades.net_bought(a(3, 1), a(1, 3), 1), [0.5, -0.5])


def test_sizes_of_trades_by_hand():
    volume, squares, large = a(10, 10, 0), a(100, 50, 0), a(10, 5, 0)
    assert_allclose(trades.size_concentration(squares, volume, 1), [1.0, 0.5, nan])
    assert_allclose(trades.size_share(large, volume, 2), [nan, 0.75, 0.5])
    made = trades.trade_size(a(10, 10, 40), a(10, 10, 10), 1, 3)
    assert_allclose(made, [nan, nan, np.log(4 / 2)])


def test_costs_of_trades_by_hand():
    bid, ask = a(99.0, 99.0, 100.0, 101.0), a(101.0, 101.0, 102.0, 103.0)
    close = a(100.0, 101.0, 101.5, 102.0)
    assert_allclose(trades.effective_spread(close, bid, ask), [nan, 0.02, 0.03, 2 / 101])
    # the buyer of row 1 paid 101, one row later the mid is 101: its maker kept nothing;
    # the buyer of row 2 paid 101.5 and the mid went to 102: its maker lost 0.5 of the 100
    made = trades.realised_spread(close, bid, ask, horizon=1, memory=1)
    assert_allclose(made, [nan, nan, 0.0, -2 * 0.5 / 100], atol=1e-15)
    cost = trades.effective_cost(a(2.0, 1.0), a(100.0, 200.0), 2)
    assert_allclose(cost, [nan, 0.01])
    assert_allclose(
        trades.vwap_deviation(a(10, 12), a(10, 30), a(1, 2), 2)[1], np.log(12 / (40 / 3))
    )


def test_realised_cost_holds_the_trades_of_a_bar_against_a_later_mid():
    bid, ask = a(99.0, 100.0, 97.0), a(101.0, 102.0, 99.0)
    made = trades.realised_cost(bid, ask, a(2, 0, 0), a(202, 0, 0), a(202, 0, 50), 1, 2)
    assert_allclose(made, [nan, nan, 2 * (202 - 2 * 98) / 202])


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="memory >= 1"):
        trades.tick_rule(a(1, 2), 0)
    with pytest.raises(ValueError, match="fast < slow"):
        trades.trade_size(a(1), a(1), 3, 3)


# against plain loops


def table(seed, rows=90, hole=None):
    """Ticks on a coarse grid, so that quotes stand still, lock, and trades meet the mid."""
    rng = np.random.default_rng(seed)
    bid = 100 + 0.1 * rng.integers(-2, 3, rows).cumsum()
    made = {
        "bid": bid,
        "ask": bid + 0.1 * rng.integers(0, 4, rows),
        "bid_size": rng.integers(1, 50, rows) * 1.0,
        "ask_size": rng.integers(1, 50, rows) * 1.0,
        "close": bid + 0.1 * rng.integers(0, 4, rows),
        "volume": rng.integers(1, 20, rows) * 1.0,
    }
    if hole is not None:
        made = {name: np.where(np.arange(rows) == hole, nan, x) for name, x in made.items()}
    return made


def flows(bid, ask, bid_size, ask_size):
    out = [nan]
    for n in range(1, len(bid)):
        e = 0.0
        if bid[n] >= bid[n - 1]:
            e += bid_size[n]
        if bid[n] <= bid[n - 1]:
            e -= bid_size[n - 1]
        if ask[n] <= ask[n - 1]:
            e -= ask_size[n]
        if ask[n] >= ask[n - 1]:
            e += ask_size[n - 1]
        known = np.isfinite([bid[n], ask[n], bid[n - 1], ask[n - 1]]).all()
        out.append(e if known else nan)
    return np.array(out)


def sides(close, bid, ask, memory):
    out = []
    for i in range(len(close)):
        window = close[max(i - memory, 0) : i + 1]
        if i < memory or np.isnan(window).any():
            out.append((nan, nan))
            continue
        moves = [m for m in np.diff(window) if m != 0]
        tick = float(np.sign(moves[-1])) if moves else 0.0
        met = (bid[i - 1] + ask[i - 1]) / 2
        quote = nan if np.isnan(met) else np.sign(close[i] - met) or tick
        out.append((tick, quote))
    return np.array(out).T


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    hole=st.none() | st.integers(0, 89),
    memory=st.integers(1, 12),
    bars=st.integers(1, 15),
    horizon=st.integers(1, 6),
)
def test_formulas_are_those_of_plain_loops(seed, hole, memory, bars, horizon):
    t = table(seed, hole=hole)
    bid, ask, close, volume = (t[name] for name in ("bid", "ask", "close", "volume"))
    flow = flows(bid, ask, t["bid_size"], t["ask_size"])
    assert_array_equal(quotes.order_flow(bid, ask, t["bid_size"], t["ask_size"]), flow)
    tick, quote = sides(close, bid, ask, memory)
    assert_array_equal(trades.tick_rule(close, memory), tick)
    assert_array_equal(trades.lee_ready(close, bid, ask, memory), quote)
    middle = (bid + ask) / 2
    kept = np.full(90, nan)
    pressure = np.full(90, nan)
    for i in range(90):
        j = i - horizon
        if j > 0:
            kept[i] = 2 * quote[j] * (close[j] - middle[i]) / middle[j - 1]
        if i >= bars - 1:
            window = slice(i - bars + 1, i + 1)
            pressure[i] = (quote * volume)[window].sum() / volume[window].sum()
    assert_allclose(
        trades.realised_spread(close, bid, ask, horizon, memory), kept, rtol=1e-12, atol=1e-15
    )
    made = trades.quote_pressure(close, volume, bid, ask, bars, memory)
    assert_allclose(made, pressure, rtol=1e-12, atol=1e-15)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), cut=st.integers(20, 80), horizon=st.integers(1, 8))
def test_what_a_trade_left_to_its_maker_is_not_known_before_its_horizon(seed, cut, horizon):
    """Garbage after a row, or nothing, leaves what was known by then; a row sooner would not."""
    t = table(seed)
    run = partial(trades.realised_spread, horizon=horizon, memory=4)
    columns = [t[name] for name in ("close", "bid", "ask")]
    whole = run(*columns)
    assert_array_equal(run(*(x[:cut] for x in columns)), whole[:cut])
    rng = np.random.default_rng(seed)
    late = [np.append(x[:cut], rng.lognormal(size=90 - cut)) for x in columns]
    assert_array_equal(run(*late)[:cut], whole[:cut])
    early = np.append(whole[1:], nan)  # the same values, one row too soon, do change
    garbled = np.append(run(*late)[1:], nan)
    same = np.array_equal(early[:cut], garbled[:cut], equal_nan=True)
    assert not same


# the contract, for every column of the yaml


@pytest.fixture(scope="module")
def whole():
    return instantiate(composed("config", "features=microstructure").features)


@pytest.fixture(scope="module")
def market():
    return with_ticks(contract.clean_bars(np.random.default_rng(3), "BA", 420, stagger=20))


def with_ticks(bars):
    """Bars with everything that a book and its trades leave behind."""
    rng = np.random.default_rng(11)
    n, close = len(bars), bars["close"]
    half = close * rng.uniform(1e-4, 1e-3, n)
    volume = bars["volume"]
    bought, small = rng.uniform(0.1, 0.9, (2, n))
    trades_ = rng.integers(5, 50, n) * 1.0
    signed = (2 * bought - 1) * volume
    return bars.assign(
        bid=close - half,
        ask=close + half,
        bid_size=rng.lognormal(5, 1, n),
        ask_size=rng.lognormal(5, 1, n),
        ofi=rng.normal(0, 500, n),
        depth=rng.lognormal(5, 0.5, n),
        value=volume * bars["vwap"],
        trades=trades_,
        buy_volume=bought * volume,
        sell_volume=(1 - bought) * volume,
        signed_volume=signed,
        signed_value=signed * bars["vwap"] * (1 + rng.normal(0, 1e-4, n)),
        small_volume=small * volume,
        large_volume=(1 - small) / 2 * volume,
        size_squares=volume**2 / trades_,
        cost=half * volume * rng.uniform(0.5, 1.5, n),
    )


def maker(features):
    """The columns of a set in float64, but its rules, which are judged in test_contract."""
    own = {n: f for n, f in features.functions() if not n.startswith("rule.")}

    def make(bars):
        rows = Rows.of(bars, {c for f in own.values() for c in reads(f).values()})
        return pd.DataFrame({name: rows.run(f) for name, f in own.items()}, bars.index)

    return make


def test_every_column_of_the_yaml_is_built_from_a_book_and_its_trades(whole, market):
    made = maker(whole)(market)
    names = {f"feature.{c}" for c in whole.columns} | {f"context.{c}" for c in whole.context}
    assert set(made) == names
    assert (made.nunique() > 1).all()


def test_columns_start_when_warm_and_need_no_more(whole, market):
    warmups = {n: b for n, b in whole.warmups.items() if not n.startswith("rule.")}
    single = market.loc[["A"]]
    contract.starts_when_warm(maker(whole), single, warmups)
    bars = max(warmups.values())
    contract.needs_no_more_than_its_warmup(maker(whole), single, bars)


def test_the_past_does_not_see_the_future(whole, market):
    contract.does_not_see_the_future(maker(whole), market, NOON)


def test_the_order_of_assets_does_not_matter(whole, market):
    contract.does_not_care_for_the_order_of_assets(maker(whole), market)


def test_a_missing_row_spoils_only_its_windows(whole, market):
    warmups = {n: b for n, b in whole.warmups.items() if not n.startswith("rule.")}
    contract.loses_only_the_windows_that_span_a_missing_bar(
        maker(whole), market.loc[["A"]], warmups, row=200
    )


def test_values_do_not_depend_on_the_currency_or_the_lot(whole, market):
    dear = market.copy()
    money = ["value", "signed_value", "cost"]
    prices = [*contract.PRICES, "bid", "ask"]
    dear[[*prices, *money]] *= 1000.0
    dear[[*SIZES, *money]] *= 7.0
    dear["size_squares"] *= 49.0
    pd.testing.assert_frame_equal(
        maker(whole)(dear), maker(whole)(market), check_exact=False, rtol=1e-6, atol=1e-9
    )


def test_a_stream_gives_what_the_table_gives(whole, market):
    features = replace(whole, rules={}).fit(market)
    stream, batch = FeatureStream(features), features.build(market)
    told = stream.push(market)
    pd.testing.assert_frame_equal(told.astype("float32"), batch[list(told)], check_exact=True)


def test_a_leak_of_one_row_is_caught_in_each_module(whole, market):
    for column, function in (
        ("spread", quotes.relative_spread),
        ("bought", partial(trades.net_bought, bars=5)),
    ):
        kind = type(whole)
        honest = kind({column: function})
        contract.does_not_see_the_future(maker(honest), market, NOON)

        def make(bars, honest=honest):
            return maker(honest)(bars).groupby("asset").shift(-1)

        with pytest.raises(AssertionError):
            contract.does_not_see_the_future(make, market, NOON)


@pytest.mark.parametrize(
    "function",
    [f for m in (quotes, trades) for f in vars(m).values() if hasattr(f, "warmup")],
    ids=lambda f: f.__name__,
)
def test_every_function_starts_when_it_says(function, market):
    rows = market.loc["A"]
    rows = rows.assign(size_volume=rows["small_volume"])
    made = function(*(rows[c].to_numpy(copy=True) for c in reads(function).values()))
    assert np.flatnonzero(np.isfinite(made))[0] == warmup(function)
