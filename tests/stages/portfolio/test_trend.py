"""The trend portfolio day by day: causal, capped, risk first, and plain about what it left out."""

from collections import Counter
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from stages.base import DataError
from stages.panel import until
from stages.portfolio.book import Book, Position, exact
from stages.portfolio.checks import CircuitBreaker, DrawdownLimit
from tests.stages.portfolio.conftest import bars_of, holding, run


def test_every_prepared_value_is_the_same_without_the_future(policy, bars, prepared):
    for row in (180, 305, 322, 400):
        short = policy.prepare(until(bars, prepared.times[row]))
        assert short.times.equals(prepared.times[: row + 1])
        for name, table in short.columns.items():
            np.testing.assert_array_equal(table, prepared.columns[name][: row + 1], err_msg=name)
        for name in ("last", "seen", "open", "market"):
            np.testing.assert_array_equal(getattr(short, name), getattr(prepared, name)[: row + 1])


def test_the_daily_rebalance_orders_what_the_simulation_orders(policy, bars, steps):
    for _, book, plan in steps[20::23]:
        day = plan.book.as_of
        fresh = policy.plan(policy.prepare(until(bars, day)), day, book)
        assert fresh.orders == plan.orders
        assert fresh.book == plan.book
        assert (fresh.signals, fresh.skipped, fresh.checks) == (
            plan.signals,
            plan.skipped,
            plan.checks,
        )
        pd.testing.assert_frame_equal(fresh.scores, plan.scores)


def test_every_part_of_the_policy_acts_in_the_run(steps):
    words = Counter(
        o.reason.split(":")[0].split(" ")[0] for _, _, plan in steps for o in plan.orders
    )
    assert {"enter", "add", "trim", "trailing", "time", "trend", "rank"} <= set(words)


def test_buys_need_the_trend_and_the_rank(policy, steps):
    bought = 0
    for _, book, plan in steps:
        for order in plan.orders:
            if order.action == "BUY":
                bought += 1
                rank = plan.scores.loc[order.asset, "rank"]
                limit = policy.buffer.hold if order.asset in book.positions else policy.buffer.buy
                assert plan.signals[order.asset] == 1
                assert rank <= limit
    assert bought > 40


def test_no_order_breaks_a_cap_and_all_are_whole_lots(policy, steps):
    sizes = policy.sizes
    for _, book, plan in steps:
        prices = plan.scores["price"].to_dict()
        total = Fraction(plan.book.value(prices))
        after = {asset: held.shares for asset, held in book.positions.items()}
        for order in plan.orders:
            signed = order.shares if order.action == "BUY" else -order.shares
            after[order.asset] = after.get(order.asset, 0) + signed
            assert order.shares % sizes.lot == 0
        worth = {a: Fraction(exact(prices[a])) * n for a, n in after.items()}
        assert min(after.values(), default=0) >= 0
        for order in plan.orders:
            if order.action == "BUY":
                group = plan.book.clusters.get(order.asset, order.asset)
                mates = [a for a in worth if plan.book.clusters.get(a, a) == group]
                assert worth[order.asset] <= Fraction(exact(sizes.each)) * total
                assert sum(worth[a] for a in mates) <= Fraction(exact(sizes.cluster)) * total
                assert sum(worth.values()) <= Fraction(exact(sizes.exposure)) * total
                assert sum(map(bool, (after[a] for a in mates))) <= policy.buffer.per_cluster


def test_sells_come_first_and_their_value_is_shares_times_price(steps):
    for _, _, plan in steps:
        actions = [order.action for order in plan.orders]
        assert actions == sorted(actions, reverse=True)
        for order in plan.orders:
            assert order.value == float(exact(order.price) * order.shares)


def test_orders_do_not_depend_on_the_order_in_which_a_book_holds_its_positions(
    policy, prepared, steps
):
    exits = 0
    for row, book, plan in steps:
        turned = replace(book, positions=dict(reversed(list(book.positions.items()))))
        assert policy.plan(prepared, prepared.times[row], turned).orders == plan.orders
        exits = max(exits, sum(order.action == "SELL" for order in plan.orders))
    assert exits > 1


def test_regular_orders_come_every_five_days_and_stops_on_any(steps):
    regular, stops = set(), set()
    for row, _, plan in steps:
        for order in plan.orders:
            risk = order.reason.startswith(("trailing stop", "time stop"))
            (stops if risk else regular).add((row - 175) % 5)
    assert regular == {0}
    assert stops == {0, 1, 2, 3, 4}


def test_what_a_stop_sells_is_not_kept_by_its_rank(policy, prepared):
    row = 300
    day = prepared.day(prepared.times[row])
    empty = Book.opened(1_000_000)
    best = policy.plan(prepared, day.time, empty).orders[0].asset
    price = day.price(best)
    stopped = holding(
        replace(empty, clusters={}), **{best: Position(100, prepared.times[290], price, 2 * price)}
    )
    orders = policy.plan(prepared, day.time, stopped).orders
    mine = [order for order in orders if order.asset == best]
    assert [(o.action, o.shares) for o in mine] == [("SELL", 100)]
    assert mine[0].reason.startswith("trailing stop")


def test_the_breaker_stops_buys_and_lets_exits_through(policy, closes):
    market = pd.Series(1.0, closes.index)
    market.iloc[290:] = 0.8
    bars = bars_of(closes, market=market)
    steps = list(run(policy, policy.prepare(bars), Book.opened(1_000_000), range(250, 340)))
    after = [order for row, _, plan in steps if row >= 290 for order in plan.orders]
    assert after
    assert {order.action for order in after} == {"SELL"}
    assert any(order.action == "BUY" for row, _, p in steps if row < 290 for order in p.orders)


def test_an_unavailable_breaker_is_told_in_every_plan(policy, bars):
    dry = bars.drop(columns="market")
    plan = policy.plan(policy.prepare(dry), dry.index[300][1], Book.opened(1000))
    assert plan.checks["circuit_breaker"].startswith("unavailable")
    off = replace(policy, checks={**policy.checks, "circuit_breaker": None})
    assert (
        "circuit_breaker"
        not in off.plan(off.prepare(dry), dry.index[300][1], Book.opened(1)).checks
    )


def test_what_cannot_be_judged_is_named_with_its_reason_and_gets_no_signal(policy, prepared):
    reasons = {}
    for row in (100, 160, 305, 322):
        plan = policy.plan(prepared, prepared.times[row], Book.opened(1000))
        assert not set(plan.signals) & set(plan.skipped)
        assert set(plan.signals) | set(plan.skipped) == set(prepared.assets)
        reasons[row] = plan.skipped
    assert reasons[100]["E10"] == "not listed yet"
    assert reasons[160]["E10"] == f"short history: 11 bars, {policy.warmup + 1} needed"
    assert reasons[305]["E03"] == "no bar"
    assert reasons[322]["E05"] == "halted: no volume"


def test_a_holding_that_is_halted_is_neither_sold_nor_counted_as_gone(policy, prepared):
    day = prepared.times[322]
    price = float(prepared.last[322, prepared.place["E05"]])
    book = holding(Book.opened(100_000), E05=Position(500, prepared.times[200], price, 9 * price))
    plan = policy.plan(prepared, day, book)
    assert "E05" not in {order.asset for order in plan.orders}
    assert plan.book.positions["E05"] == book.positions["E05"]
    spent = sum(o.value for o in plan.orders if o.action == "BUY") + 500 * price
    assert spent <= 0.95 * float(book.value({"E05": price}))


def test_the_plan_keeps_holdings_and_cash_and_brings_the_rest_up_to_date(steps):
    peak = 0.0
    for _, book, plan in steps:
        after = plan.book
        assert (after.cash, set(after.positions)) == (book.cash, set(book.positions))
        peak = max(peak, float(after.value(plan.scores["price"].to_dict())))
        assert after.peak == peak
        for asset, position in after.positions.items():
            assert position.highest >= max(book.positions[asset].highest, 0)
            assert position.highest >= plan.scores.loc[asset, "price"]
    times = {plan.book.clustered for _, _, plan in steps}
    assert len(times) == int(np.ceil(245 / 20))


def test_a_holding_without_bars_stops_the_plan(policy, prepared):
    book = holding(Book.opened(1), GONE=Position(1, prepared.times[0], 1.0, 1.0))
    with pytest.raises(DataError, match="GONE is held and not in the data"):
        policy.plan(prepared, prepared.times[300], book)


def test_a_book_from_the_future_and_a_time_before_the_data_are_refused(policy, prepared):
    later = replace(Book.opened(1), as_of=prepared.times[301])
    with pytest.raises(DataError) as caught:
        policy.plan(prepared, prepared.times[300], later)
    assert caught.value.code == "SV-X611"
    with pytest.raises(DataError, match="no bar up to"):
        policy.plan(prepared, prepared.times[0] - pd.Timedelta(days=1), Book.opened(1))


def test_missing_columns_are_named_before_anything_is_reckoned(policy, bars):
    with pytest.raises(DataError, match=r"columns \['high', 'low'\] are missing"):
        policy.prepare(bars.drop(columns=["high", "low"]))


def test_the_lots_of_the_instruments_reach_the_orders(policy, prepared):
    own = policy.with_lots({"E00": 700, "E04": 300})
    orders = own.plan(prepared, prepared.times[300], Book.opened(Decimal(5_000_000))).orders
    assert orders
    assert all(order.shares % own.sizes.lot_of(order.asset) == 0 for order in orders)
    assert own.sizes.lot_of("E00") == 700


def test_a_drawdown_limit_that_sells_empties_the_book(policy, bars):
    careful = replace(policy, checks={"limit": DrawdownLimit(-0.01, sell=True)})
    prepared = careful.prepare(bars)
    steps = list(run(careful, prepared, Book.opened(1_000_000), range(200, 330)))
    hit = [(book, plan) for _, book, plan in steps if "limit" in str(plan.orders)]
    assert hit
    for book, plan in hit:
        if all(o.reason.startswith("drawdown limit") for o in plan.orders):
            assert {o.asset for o in plan.orders} <= set(book.positions)


def test_the_default_policy_is_the_documented_one(policy):
    plain = type(policy)()
    assert (plain.buffer.buy, plain.buffer.hold, plain.buffer.per_cluster) == (10, 15, 2)
    assert (plain.sizes.positions, plain.sizes.each, plain.sizes.cluster) == (20, 0.15, 0.30)
    assert (plain.sizes.exposure, plain.every, plain.momentum.inertia) == (0.95, 5, 0.05)
    assert CircuitBreaker().drawdown == -0.10


def test_an_asset_that_jumps_is_left_alone_that_day(policy, closes):
    table = closes.copy()
    table.iloc[300:, 0] /= 2  # a split that nobody adjusted
    bars = bars_of(table)
    prepared = policy.prepare(bars)
    price = float(table.iloc[299, 0])
    book = holding(Book.opened(1_000_000), E00=Position(100, prepared.times[290], price, price))
    plan = policy.plan(prepared, prepared.times[300], book)
    moved = table.iloc[300, 0] / table.iloc[299, 0] - 1
    assert plan.skipped["E00"] == f"jump of {moved:+.1%} in one bar: a split, or news"
    assert "E00" not in {order.asset for order in plan.orders} | set(plan.signals)
    trusting = replace(policy, jump=None).plan(prepared, prepared.times[300], book)
    assert [o.action for o in trusting.orders if o.asset == "E00"] == ["SELL"]


def test_a_regular_rebalance_waits_until_most_assets_trade(policy, closes):
    table = closes.copy()
    table.iloc[300, :7] = np.nan  # the holiday of one exchange of two
    prepared = policy.prepare(bars_of(table))
    steps = list(run(policy, prepared, Book.opened(1_000_000), range(300, 307)))
    rebalanced = [plan.book.rebalanced for _, _, plan in steps]
    assert rebalanced == [None, *[prepared.times[301]] * 5, prepared.times[306]]
    eager = replace(policy, quorum=0.3).plan(prepared, prepared.times[300], Book.opened(1_000_000))
    assert eager.book.rebalanced == prepared.times[300]


def test_clusters_that_cannot_be_made_are_told_and_those_of_before_stay(policy, closes):
    prepared = policy.prepare(bars_of(closes.iloc[:50]))
    day = prepared.times[40]
    fresh = policy.plan(prepared, day, Book.opened(1)).checks["clusters"]
    assert fresh == "unavailable: no two assets have 60 returns; each asset stands alone"
    kept = policy.plan(prepared, day, replace(Book.opened(1), clusters={"E00": 3}))
    assert kept.checks["clusters"].endswith("those of before stay")
    assert kept.book.clusters == {"E00": 3}
