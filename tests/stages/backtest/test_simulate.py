from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.backtest.simulate import State, simulate
from stages.backtest.terms import Terms
from stages.backtest.wealth import wealth
from stages.base import ConfigError, DataError
from stages.panel import until
from stages.portfolio.book import Book
from stages.portfolio.checks import CircuitBreaker, TimeStop, TrailingStop
from stages.portfolio.signals import Trend, macd
from stages.portfolio.trend import TrendPolicy
from tests.stages.backtest.conftest import Daily, Scripted, panel, walk

FREE = {"costs": "none", "terms": Terms(volume_cap=None)}


def trend_policy():
    return TrendPolicy(
        trend=Trend(macd),
        checks={"trailing": TrailingStop(), "time": TimeStop(), "breaker": CircuitBreaker()},
    )


def cents(number):
    return Decimal(repr(float(number))).quantize(Decimal("0.01"))


# fills


def test_a_book_worked_out_on_paper():
    """Buy 10 A at the second open, sell 4 at the third; 1 % a round trip, interest of a day."""
    bars = panel({"open": [[9.0], [10.0], [12.0]], "close": [[9.5], [11.0], [13.0]]}, ["A"])
    policy = Scripted({0: [("A", 10)], 1: [("A", -4)]})
    out = simulate(bars, policy, costs=0.01, begin=200.0, terms=Terms(cash_rate=0.365))
    cash = [200.0, 200 + 0.2 - 100 - 0.5]
    cash.append(cash[-1] + round(cash[-1] * 0.001, 2) + 48 - 0.24)
    assert out.days["cash"].tolist() == pytest.approx(cash, abs=1e-9)
    assert out.days["equity"].tolist() == pytest.approx([200, cash[1] + 110, cash[2] + 78])
    assert out.days["interest"].tolist() == [0.0, 0.2, 0.1]
    assert out.days["cost"].tolist() == [0.0, 0.5, 0.24]
    assert out.days["traded"].tolist() == [0.0, 100.0, 48.0]
    assert out.shares["A"].tolist() == [0, 10, 6]
    assert out.state.book.cash == cents(cash[2])


def test_an_order_never_fills_at_the_bar_that_made_it():
    bars = walk()
    script = {k: [("A0", 5 if k % 2 else -5)] for k in range(79)}
    out = simulate(bars, Scripted(script), costs=0.001)
    done = out.orders[out.orders["filled"] != 0]
    assert (done["time"] > done["decided"]).all()
    opened = bars["open"].xs("A0")
    assert (done["price"].to_numpy() == opened[done["time"]].to_numpy()).all()
    at_close = simulate(bars, Scripted(script), costs=0.001, terms=Terms(fill="close"))
    done = at_close.orders[at_close.orders["filled"] != 0]
    assert (done["time"] > done["decided"]).all()
    assert (done["price"].to_numpy() == bars["close"].xs("A0")[done["time"]].to_numpy()).all()


def test_costs_slippage_and_commissions_reduce_the_value():
    bars, policy = walk(), Scripted({k: [("A1", 50 if k % 4 < 2 else -50)] for k in range(79)})
    free = simulate(bars, policy, **FREE)
    assert free.before_costs
    ends = [free.days["equity"].iloc[-1]]
    for costs, terms in (
        (0.001, Terms(volume_cap=None)),
        (0.001, Terms(volume_cap=None, slippage=0.001)),
        (0.001, Terms(volume_cap=None, slippage=0.001, commission=1.0)),
    ):
        out = simulate(bars, policy, costs=costs, terms=terms)
        assert not out.before_costs
        ends.append(out.days["equity"].iloc[-1])
    assert ends == sorted(ends, reverse=True)
    assert len(set(ends)) == 4
    paid = out.orders.loc[out.orders["filled"] > 0]
    assert paid["price"].iloc[0] == pytest.approx(
        bars["open"].xs("A1")[paid["time"].iloc[0]] * 1.001, rel=1e-12
    )
    assert paid["cost"].iloc[0] == pytest.approx(paid["value"].iloc[0] * 0.0005 + 1, abs=0.006)


@pytest.mark.parametrize("costs", [0.0, {"default": 0.0}])
def test_a_simulation_without_costs_must_be_asked_for_by_name(costs):
    with pytest.raises(ConfigError) as refused:
        simulate(walk(), Scripted(), costs=costs)
    assert refused.value.code == "SV-F28"


def test_an_order_takes_no_more_than_its_share_of_the_volume_in_whole_lots():
    bars = panel({"close": [[10.0]] * 4, "volume": [[1000.0], [1000.0], [0.0], [np.nan]]}, ["A"])
    policy = Scripted({0: [("A", 200)], 1: [("A", 200)], 2: [("A", 200)]})
    terms = Terms(volume_cap=0.085, lots={"A": 25})
    out = simulate(bars, policy, costs="none", terms=terms)
    assert out.orders["filled"].tolist() == [75, 0, 200]
    assert out.orders["outcome"].tolist() == [
        "in part: volume",
        "not filled: not traded",
        "filled",  # a volume that is not known sets no limit
    ]


def test_a_buy_takes_no_more_than_the_cash_there_is():
    bars = panel({"open": [[10.0], [20.0], [20.0]], "close": [[10.0]] * 3}, ["A"])
    policy = Scripted({0: [("A", 100)], 1: [("A", 100)]})
    out = simulate(bars, policy, costs=0.01, begin=1000.0, terms=Terms(lot=5))
    assert out.orders["filled"].tolist() == [45, 0]  # 45 x 20 x 1.005 = 904.50; 50 would be 1005
    assert out.orders["outcome"].tolist() == ["in part: cash", "not filled: cash"]


def test_an_order_without_a_bar_is_cancelled_and_a_holding_keeps_its_last_close():
    bars = panel({"close": [[10.0, 5.0], [11.0, 5.0], [np.nan, 5.0], [12.0, 5.0], [13.0, 5.0]]})
    policy = Scripted({0: [("A0", 10)], 1: [("A0", -10)], 3: [("A0", -10)]})
    out = simulate(bars, policy, **FREE, begin=1000.0)
    assert out.orders["outcome"].tolist() == ["filled", "not filled: no bar", "filled"]
    assert out.values["A0"].tolist() == [0.0, 110.0, 110.0, 120.0, 0.0]


def test_a_delisted_holding_is_paid_out_at_its_last_close():
    close = np.full((20, 2), 10.0)
    close[5:, 1] = np.nan
    policy = Scripted({0: [("A1", 10)]})
    for recovered, cash in ((1.0, 1000.0), (0.25, 925.0), (0.0, 900.0)):
        terms = Terms(delisted=10, recovered=recovered)
        out = simulate(panel({"close": close}), policy, costs="none", begin=1000.0, terms=terms)
        assert out.days["cash"].iloc[-1] == cash
        assert out.orders["reason"].tolist() == ["written for row 0", "delisted"]
        assert out.shares["A1"].to_numpy().nonzero()[0].tolist() == [1, 2, 3, 4]
    late = Terms(delisted=16)  # 15 rows without a bar are not yet a delisting
    kept = simulate(panel({"close": close}), policy, costs="none", begin=1000.0, terms=late)
    assert kept.shares["A1"].iloc[-1] == 10


def test_sales_of_what_is_not_held_do_nothing():
    bars = panel({"close": [[10.0]] * 3}, ["A"])
    out = simulate(bars, Scripted({0: [("A", -5)]}), costs="none")
    assert out.orders["outcome"].tolist() == ["not filled: not held"]
    assert out.trips.empty


# accounts


moves = st.lists(
    st.tuples(st.integers(0, 28), st.integers(0, 3), st.integers(-400, 400).filter(bool)),
    max_size=40,
)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), moves, st.sampled_from(["none", 0.0013]), st.floats(0, 0.1))
def test_cash_and_positions_are_the_equity_to_the_cent_at_every_bar(seed, moves, costs, rate):
    bars = walk(seed, bars=30, assets=4)
    rng = np.random.default_rng(seed)
    bars = bars[rng.random(len(bars)) > 0.1]  # some bars are missing
    script = {}
    for row, asset, shares in moves:
        script.setdefault(row, []).append((f"A{asset}", shares))
    terms = Terms(cash_rate=rate, volume_cap=0.02, slippage=0.0007, commission=0.35, delisted=5)
    out = simulate(bars, Scripted(script), costs=costs, begin=20_000.0, terms=terms)
    cash, held, last = Decimal("20000.00"), {}, {}
    closes = bars["close"].unstack("asset")
    fills = {time: rows for time, rows in out.orders[out.orders["filled"] != 0].groupby("time")}
    for time, day in out.days.iterrows():
        cash += cents(day["interest"])
        for fill in fills.get(time, pd.DataFrame()).itertuples():
            cash += cents(fill.value) * (-1 if fill.filled > 0 else 1) - cents(fill.cost)
            held[fill.asset] = held.get(fill.asset, 0) + fill.filled
            assert cash >= 0
            assert held[fill.asset] >= 0
        last |= closes.loc[time].dropna().to_dict()
        worth = {a: cents(Decimal(repr(last[a])) * n) for a, n in held.items() if n}
        assert cents(day["cash"]) == cash
        assert cents(day["equity"]) == cash + sum(worth.values())
        assert {a: cents(v) for a, v in out.values.loc[time].items() if v} == worth
    assert out.state.book.cash == cash
    gains = out.trips["gain"].sum() + out.days["interest"].sum()
    assert gains == pytest.approx(out.days["equity"].iloc[-1] - 20_000, abs=1e-6)


def test_a_single_purchase_is_the_wealth_of_holdings_that_drift():
    bars = walk(3)
    out = simulate(bars, Scripted({0: [("A2", 400)]}), costs="none", begin=40_000.0)
    shares = out.orders["filled"].iloc[0]
    close, opened = (bars[name].xs("A2").to_numpy() for name in ("close", "open"))
    assert shares == 400
    paths = np.concatenate([[opened[1]], close[1:]])[:, None]
    weights = np.full_like(paths, np.nan)
    weights[0] = 400 * opened[1] / 40_000
    kept = wealth(weights, paths, costs="none", capital=40_000.0)
    assert out.days["equity"].iloc[1:].to_numpy() == pytest.approx(kept.value[1:], abs=0.011)


def test_round_trips_run_from_flat_to_flat():
    close = np.array([[10.0], [10], [12], [12], [15], [15], [9], [9]])
    script = {0: [("A", 10)], 1: [("A", 10)], 3: [("A", -20)], 5: [("A", 4)]}
    out = simulate(panel({"close": close}, ["A"]), Scripted(script), **FREE, begin=1000.0)
    trips = out.trips
    assert trips["paid"].tolist() == [100 + 120, 36]
    assert trips["received"].tolist() == [300, 36]
    assert trips["return"].tolist() == pytest.approx([80 / 220, 0])
    assert trips["bars"].tolist() == [3, 1]
    assert trips["open"].tolist() == [False, True]
    assert trips["entry_reason"].tolist() == ["written for row 0", "written for row 5"]
    assert trips["exit_reason"].tolist() == ["written for row 3", ""]


# one code path


def test_replaying_day_by_day_gives_identical_orders():
    bars, policy = walk(5, bars=260, assets=8), trend_policy()
    whole = simulate(bars, policy, costs=0.001)
    days = simulate(bars, Daily(policy, bars), costs=0.001)
    assert len(whole.orders) > 20
    pd.testing.assert_frame_equal(whole.orders, days.orders)
    pd.testing.assert_frame_equal(whole.days, days.days)
    assert whole.state == days.state


def test_killed_and_resumed_in_the_middle_it_ends_the_same():
    bars, policy = walk(6, bars=300, assets=8), trend_policy()
    settings = {"costs": 0.001, "terms": Terms(cash_rate=0.02)}
    whole = simulate(bars, policy, **settings)
    for row in (3, 40, len(whole.days) - 2):
        middle = whole.days.index[row]
        first = simulate(bars, policy, **settings, end=middle)
        rest = simulate(bars, policy, **settings, begin=first.state)
        for name in ("days", "shares", "values", "orders"):
            both = pd.concat([getattr(first, name), getattr(rest, name)])
            theirs = getattr(whole, name)
            pd.testing.assert_frame_equal(
                both.reset_index(drop=name == "orders"), theirs.reset_index(drop=name == "orders")
            )
        assert rest.state == whole.state


def test_later_bars_change_nothing_that_went_before():
    bars, policy = walk(7, bars=260, assets=6), trend_policy()
    cut = bars.index.get_level_values("time").unique()[230]
    whole = simulate(bars, policy, costs=0.001, end=cut)
    short = simulate(until(bars, cut), policy, costs=0.001)
    pd.testing.assert_frame_equal(whole.orders, short.orders)
    pd.testing.assert_frame_equal(whole.days, short.days)


def test_assets_that_could_not_be_judged_are_counted_with_the_reason():
    bars = walk(8, bars=260, assets=4)
    times = bars.index.get_level_values("time")
    late = (bars.index.get_level_values("asset") == "A3") & (times < times[220])
    run = simulate(bars[~late], trend_policy(), costs=0.001)
    assert set(run.skipped.index) == {"not listed yet", "short history"}
    regular = len(run.days) / 5
    assert run.skipped.sum() == pytest.approx(regular, abs=1.5)


# refusals


def test_a_policy_may_not_change_what_is_held():
    @dataclass(frozen=True)
    class Greedy(Scripted):
        def plan(self, prepared, at, book):
            plan = super().plan(prepared, at, book)
            return replace(plan, book=replace(plan.book, cash=book.cash + 1))

    with pytest.raises(DataError) as refused:
        simulate(walk(), Greedy(), costs=0.001)
    assert refused.value.code == "SV-X620"


def test_too_little_history_and_unknown_holdings_are_refused():
    with pytest.raises(DataError, match="no decision time is left") as refused:
        simulate(walk(bars=20), trend_policy(), costs=0.001)
    assert refused.value.code == "SV-F18"
    book = Book.opened(100.0)
    fill = simulate(walk(), Scripted({0: [("A0", 1)]}), costs=0.001, begin=1000.0).state
    gone = walk(assets=1).rename(index={"A0": "B"}, level="asset")
    with pytest.raises(DataError, match="A0 is held or ordered"):
        simulate(gone, Scripted(), costs=0.001, begin=fill)
    idle = simulate(walk(), Scripted(), costs=0.001, begin=State(book))
    assert (idle.days["equity"] == 100).all()


@pytest.mark.parametrize(
    "wrong",
    [
        *({"fill": "mid"}, {"slippage": 1.0}, {"commission": -1.0}, {"volume_cap": 0.0}),
        *(
            {"cash_rate": 1.0},
            {"delisted": 0},
            {"recovered": 1.1},
            {"lot": 0},
            {"lots": {"A": 1.5}},
        ),
    ],
    ids=str,
)
def test_terms_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match="out of range") as refused:
        Terms(**wrong)
    assert refused.value.code == "SV-F33"


def test_terms_are_said_in_words():
    said = " ".join(Terms(slippage=0.0005, commission=2.0).in_words("A round trip costs 4 bps."))
    for words in ("next bar's open", "4 bps", "5 bps worse", "pays 2", "5.0% of the bar", "0.00%"):
        assert words in said
    assert "no limit" in " ".join(Terms(fill="close", volume_cap=None).in_words(""))
