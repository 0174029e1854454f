"""Bars of ticks: every unit is accounted for, and a bar is known when it closes."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal

from stages.base import DataError
from stages.features.bars import Cut, gather, split
from stages.features.microstructure import order_flow
from stages.features.trades import tick_rule

START = pd.Timestamp("2024-03-01 14:30", tz="UTC")


def ticks(*rows):
    """(second, price, volume) of each."""
    seconds, price, volume = zip(*rows, strict=True)
    times = START + pd.to_timedelta(seconds, unit="s")
    table = {"price": price, "volume": volume}
    return pd.DataFrame(table, pd.DatetimeIndex(times).as_unit("us"), dtype="float64")


def drawn(seed, n=200, apart=0.7):
    """Trades of which many share an instant; whole numbers, so that sums are exact."""
    rng = np.random.default_rng(seed)
    seconds = np.cumsum(rng.random(n) > apart)
    price = 100 + rng.integers(-2, 3, n).cumsum()
    return ticks(*zip(seconds.tolist(), price, rng.integers(1, 30, n), strict=True))


def made(table, cut, ends=None):
    last = split(table, cut, ends)
    return last, gather(table, last, cut, ends)


MINUTE = pd.Timedelta(minutes=1)


def minutes(table):
    return table.index.ceil("min")


def test_a_bar_of_volume_closes_with_the_trade_that_fills_it():
    table = ticks((0, 10, 4), (1, 12, 5), (2, 11, 3), (3, 9, 7), (4, 10, 2), (5, 10, 7), (6, 8, 1))
    last, bars = made(table, Cut("volume", 10, sizes=(4, 7)))
    assert last.tolist() == [2, 5]
    assert bars.index.tolist() == [table.index[2], table.index[5]]
    assert bars["open"].tolist() == [10, 9]
    assert bars["high"].tolist() == [12, 10]
    assert bars["low"].tolist() == [10, 9]
    assert bars["close"].tolist() == [11, 10]
    assert bars["volume"].tolist() == [12, 16]
    assert bars["value"].tolist() == [133, 63 + 20 + 70]
    assert bars["trades"].tolist() == [3, 3]
    assert bars["small_volume"].tolist() == [3, 2]
    assert bars["large_volume"].tolist() == [0, 14]
    assert bars["size_squares"].tolist() == [50, 102]


def test_bars_by_ticks_and_by_money():
    table = ticks((0, 10, 1), (1, 20, 1), (2, 30, 1), (3, 5, 4), (4, 1, 2))
    assert split(table, Cut("ticks", 2)).tolist() == [1, 3]
    assert split(table, Cut("value", 30)).tolist() == [1, 2]
    assert split(table, Cut("value", 29)).tolist() == [1, 2]
    assert split(table, Cut("volume", 100)).tolist() == []
    assert len(made(table, Cut("volume", 100))[1]) == 0


def test_trades_of_one_instant_stay_in_one_bar():
    table = ticks((0, 10, 5), (0, 10, 5), (0, 10, 5), (1, 10, 5), (1, 10, 1))
    last, bars = made(table, Cut("volume", 10))
    assert last.tolist() == [2]
    assert bars.index.is_unique
    assert bars["volume"].tolist() == [15]


def test_a_bar_of_a_minute_is_known_at_its_end_and_the_running_one_is_none():
    table = ticks((0.5, 10, 1), (59, 11, 1), (60, 12, 1), (61, 13, 1), (200, 14, 1), (201, 9, 1))
    last, bars = made(table, Cut("time"), minutes(table))
    assert last.tolist() == [2, 3]
    assert bars.index.tolist() == [START + MINUTE, START + 2 * MINUTE]
    assert bars["close"].tolist() == [12, 13]  # the trade at the end of the minute is known then
    ended = pd.concat([table, ticks((240, 9, 1))])
    assert made(ended, Cut("time"), minutes(ended))[1]["volume"].tolist() == [3, 1, 3]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    by=st.sampled_from(["time", "ticks", "volume", "value"]),
    size=st.integers(1, 60),
    cut=st.integers(1, 199),
)
def test_sums_are_kept_and_later_ticks_change_no_bar(seed, by, size, cut):
    table = drawn(seed)
    rule = Cut(by, size * 100 if by == "value" else size, memory=5)
    ends = minutes(table) if by == "time" else None
    last, bars = made(table, rule, ends)
    full = table.iloc[: last[-1] + 1] if len(last) else table.iloc[:0]
    side = np.nan_to_num(tick_rule(table["price"].to_numpy(), 5))[: len(full)]
    volume, value = full["volume"], full["price"] * full["volume"]
    for name, total in (
        ("volume", volume.sum()),
        ("value", value.sum()),
        ("trades", len(full)),
        ("buy_volume", volume[side > 0].sum()),
        ("sell_volume", volume[side < 0].sum()),
        ("signed_value", (side * value).sum()),
        ("size_squares", (volume**2).sum()),
    ):
        assert bars[name].sum() == total, name
    assert volume.sum() + table["volume"].iloc[len(full) :].sum() == table["volume"].sum()
    amount = {"volume": bars["volume"], "value": bars["value"], "ticks": bars["trades"]}.get(by)
    if amount is not None:
        assert (amount >= rule.size).all()
    assert bars.index.is_unique
    assert bars.index.is_monotonic_increasing
    # what has closed by an instant that is over does not change
    instant = table.index[cut]
    early = table[table.index < instant]
    then = made(early, rule, None if ends is None else minutes(early))[1]
    assert_frame_equal(then, bars.iloc[: len(then)])
    assert len(bars[bars.index < instant]) <= len(then) + (by == "time")


def loop(table, size):
    """Volume bars by the book, instant by instant."""
    bars, held = [], []
    for time, now in table.groupby(level=0):
        held += list(now.itertuples(index=False))
        if sum(t.volume for t in held) >= size:
            prices = [t.price for t in held]
            bars.append((time, prices[0], max(prices), min(prices), prices[-1]))
            held = []
    return bars


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.integers(1, 100))
def test_volume_bars_are_those_of_a_plain_loop(seed, size):
    table = drawn(seed)
    bars = made(table, Cut("volume", size))[1]
    told = [tuple(row) for row in bars[["open", "high", "low", "close"]].reset_index().to_numpy()]
    assert told == loop(table, size)


def test_a_book_gives_bars_of_the_mid_with_its_flow_and_its_costs():
    table = ticks((0, 10.5, 0), (1, 11, 3), (2, 10, 2), (3, 99, 0))
    table["bid"], table["ask"] = [10.0, 10.0, 10.0, 11.0], [11.0, 11.0, 11.0, 12.0]
    table["bid_size"], table["ask_size"] = [5.0, 5.0, 3.0, 1.0], [8.0, 5.0, 5.0, 1.0]
    table["side"] = [0.0, 1.0, -1.0, 0.0]
    table.loc[table["volume"] == 0, "price"] = np.nan
    whole = Cut("volume", 5, sizes=(3, 3))
    last, bars = made(table, whole)
    assert last.tolist() == [2]
    bar = bars.iloc[0]
    assert bar[["open", "high", "low", "close"]].tolist() == [10.5] * 4
    assert bar[["bid", "ask", "bid_size", "ask_size"]].tolist() == [10, 11, 3, 5]
    assert bar[["buy_volume", "sell_volume", "signed_value"]].tolist() == [3, 2, 13]
    assert bar["cost"] == 2 * 3 * 0.5 + 2 * 2 * 0.5
    assert_allclose(bar["depth"], (13 + 10 + 8) / 3 / 2)
    assert np.isnan(bar["ofi"])  # nothing stands before the first quote
    two = gather(table, np.array([0, 3]), whole)
    flow = order_flow(*(table[c].to_numpy() for c in ("bid", "ask", "bid_size", "ask_size")))
    assert two["ofi"].iloc[1] == flow[1:].sum() == 3 - 2 + 1 + 5


def test_a_trade_without_a_side_is_of_neither():
    table = ticks(*((k, 10, 1) for k in range(6)))
    bars = made(table, Cut("ticks", 3, memory=2))[1]
    assert_array_equal(bars[["buy_volume", "sell_volume", "volume"]], [[0, 0, 3], [0, 0, 3]])


def test_what_is_no_bar_is_refused():
    table = ticks((0, 10, 1), (1, 10, 1))
    with pytest.raises(DataError) as fault:
        split(table.iloc[::-1], Cut("ticks", 1))
    assert fault.value.code == "SV-F03"
    with pytest.raises(ValueError, match="end of the span"):
        split(table, Cut("time"))
    for wrong in (
        {"by": "money"},
        {"size": 0},
        {"size": float("nan")},
        {"memory": 0},
        {"sizes": (3, 2)},
        {"sizes": (1,)},
    ):
        with pytest.raises(ValueError, match="need|by must"):
            Cut(**wrong)
