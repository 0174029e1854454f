from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.backtest.wealth import wealth, wealth_of_relatives
from stages.base import ConfigError, DataError

DAYS = pd.date_range("2024-01-01", periods=6, freq="D", tz="UTC", name="time")


def market(seed=0, bars=60, assets=4):
    rng = np.random.default_rng(seed)
    prices = 50 * np.exp(rng.normal(0, 0.02, (bars, assets)).cumsum(axis=0))
    weights = rng.dirichlet(np.ones(assets + 1), bars)[:, :assets]
    return weights, prices


def by_hand(weights, prices, trip, every_bar):
    """The same account in exact fractions, one holding at a time; costs by bisection."""
    half, cash, held = Fraction(trip) / 2, Fraction(1), [Fraction(0)] * len(prices[0])
    values, newest = [Fraction(1)], None
    for t in range(len(prices) - 1):
        row = None if np.isnan(weights[t]).all() else [Fraction(w) for w in weights[t]]
        newest = row or newest
        if row or (every_bar and newest):
            total = cash + sum(held)
            low, high = total / 2, total
            for _ in range(80):
                after = (low + high) / 2
                paid = half * sum(abs(w * after - h) for w, h in zip(newest, held, strict=True))
                low, high = (after, high) if after + paid < total else (low, after)
            held = [w * after for w in newest]
            cash = after - sum(held)
        held = [h * Fraction(prices[t + 1][i]) / Fraction(prices[t][i]) for i, h in enumerate(held)]
        held = [h.limit_denominator(10**24) for h in held]
        values.append(cash + sum(held))
    return np.array([float(v) for v in values])


def test_a_book_worked_out_on_paper():
    """Half in A, which doubles and then halves; the rest is cash."""
    prices = pd.DataFrame({"A": [10.0, 20.0, 10.0]}, DAYS[:3])
    half = pd.DataFrame({"A": [0.5, 0.5]}, DAYS[:2])
    back = wealth(half, prices, costs="none")
    assert back.value.tolist() == [1.0, 1.5, 1.125]
    assert back.traded.tolist() == [0.5, pytest.approx(0.25 / 1.5)]
    left = wealth(half.iloc[:1], prices, costs="none")
    assert left.value.tolist() == [1.0, 1.5, 1.0]
    assert left.before_costs
    assert list(left.returns.index) == list(DAYS[1:3])


def test_a_cost_is_paid_from_what_is_traded():
    """Buying w of what is left: V + c w V = 1."""
    out = wealth(np.full((2, 1), 0.8), np.array([[10.0], [10.0]]), costs=0.01)
    assert out.value.iloc[1] == pytest.approx(1 / (1 + 0.005 * 0.8), rel=1e-15)
    assert out.cost.iloc[0] == pytest.approx(1 - out.value.iloc[1], rel=1e-12)
    assert not out.before_costs


@pytest.mark.parametrize("every_bar", [True, False])
def test_accounts_agree_with_exact_fractions(every_bar):
    weights, prices = market(bars=12, assets=3)
    weights[[3, 4, 8]] = np.nan
    out = wealth(weights, prices, costs=0.02, every_bar=every_bar)
    np.testing.assert_allclose(out.value, by_hand(weights, prices, 0.02, every_bar), rtol=1e-13)


def test_rebalancing_every_bar_is_the_product_of_weighted_relatives():
    weights, prices = market()
    moved = prices[1:] / prices[:-1]
    said = np.cumprod(1 + (weights[:-1] * (moved - 1)).sum(axis=1))
    np.testing.assert_allclose(wealth(weights, prices, costs="none").value[1:], said, rtol=1e-13)
    out = wealth_of_relatives(weights[:-1], moved, costs="none")
    np.testing.assert_allclose(out.value, said, rtol=1e-13)
    np.testing.assert_allclose((1 + out.returns).cumprod(), out.value, rtol=1e-13)


def test_holdings_that_drift_are_a_number_of_shares():
    weights, prices = market()
    out = wealth(weights[:1].repeat(60, axis=0), prices, costs="none")
    assert out.traded[1:].max() > 0.001  # a row of weights is a trade, even if it repeats
    weights[1:] = np.nan
    held = wealth(weights, prices, costs="none")
    worth = (weights[0] / prices[0] * prices).sum(axis=1) + 1 - weights[0].sum()
    np.testing.assert_allclose(held.value, worth, rtol=1e-13)
    assert not held.traded[1:].any()


def test_sparse_weights_meet_their_own_bars_and_any_order_of_assets():
    weights, prices = market(bars=6, assets=2)
    prices = pd.DataFrame(prices, DAYS, ["A", "B"])
    monthly = pd.DataFrame(weights[[1, 4]], DAYS[[1, 4]], ["A", "B"])
    dense = pd.DataFrame(np.nan, DAYS, ["A", "B"])
    dense.iloc[[1, 4]] = weights[[1, 4]]
    sparse = wealth(monthly[["B", "A"]], prices, costs=0.001)
    pd.testing.assert_series_equal(sparse.value, wealth(dense, prices, costs=0.001).value)
    assert (sparse.value[:2] == 1).all()  # cash until the first weights


def test_cash_earns_and_what_is_sold_short_is_paid_for():
    flat = np.full((3, 1), 10.0)
    out = wealth(np.zeros((3, 1)), flat, costs="none", cash_rate=np.array([0.01, 0.02]))
    assert out.value.tolist() == pytest.approx([1, 1.01, 1.01 * 1.02], rel=1e-15)
    out = wealth(np.full((3, 1), -0.5), flat, costs="none", borrow_rate=0.01)
    assert out.value.iloc[1] == pytest.approx(1 - 0.005, rel=1e-15)


@given(
    st.integers(0, 10_000),
    st.floats(0.0001, 0.05),
    arrays("float64", (8, 3), elements=st.floats(-0.4, 0.9)),
)
def test_costs_are_what_is_traded_times_the_rate_and_never_help(seed, trip, weights):
    prices = market(seed, bars=8, assets=3)[1]
    free, paid = (wealth(weights, prices, costs=c) for c in ("none", trip))
    before = paid.value.to_numpy()[:-1]
    np.testing.assert_allclose(paid.cost, paid.traded * before * trip / 2, rtol=1e-9, atol=1e-15)
    if (weights.sum(axis=1) <= 1).all() and (weights >= 0).all():
        assert (paid.value <= free.value * (1 + 1e-12)).all()


def test_a_price_may_be_missing_only_where_nothing_is_held():
    prices = pd.DataFrame({"A": [1.0, 1.1, 1.2], "NEW": [np.nan, 5.0, 6.0]}, DAYS[:3])
    weights = pd.DataFrame({"A": [1.0, 0.5], "NEW": [0.0, 0.5]}, DAYS[:2])
    assert wealth(weights, prices, costs="none").value.iloc[-1] == pytest.approx(
        1.1 * (1 + 0.5 * (1.2 / 1.1 - 1) + 0.5 * 0.2)
    )
    weights.iloc[0] = [0.5, 0.5]
    with pytest.raises(DataError, match="NEW is held at 2024-01-02") as refused:
        wealth(weights, prices, costs="none")
    assert refused.value.code == "SV-F20"


@pytest.mark.parametrize("costs", [0, 0.0, {"default": 0.0}, np.zeros(2)])
def test_a_backtest_without_costs_must_be_asked_for_by_name(costs):
    with pytest.raises(ConfigError, match="every trade is free") as refused:
        wealth(np.ones((2, 2)), np.ones((2, 2)), costs=costs)
    assert refused.value.code == "SV-F28"


@pytest.mark.parametrize(
    ("costs", "said"),
    [
        ("free", "neither a number nor 'none'"),
        (10, "a round trip costs 10"),
        ({"x": 1e-3}, "0 has"),
    ],
)
def test_a_cost_that_is_none_is_refused(costs, said):
    with pytest.raises(ConfigError, match=said):
        wealth(np.ones((2, 1)), np.ones((2, 1)), costs=costs)


def test_costs_may_differ_by_asset():
    costs = {"0": 0.02, "default": 0.001}
    out = wealth(np.eye(2), np.ones((2, 2)), costs=costs)
    assert out.cost.iloc[0] == pytest.approx(0.01 / 1.01)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (pd.DataFrame({"A": [1.0], "C": [0.0]}, DAYS[:1]), r"\['B', 'C'\] have weights or prices"),
        (pd.DataFrame({"A": [1.0], "B": [0.0]}, DAYS[5:]), "no price at 2024-01-06"),
        (pd.DataFrame({"A": [1.0], "B": [np.nan]}, DAYS[:1]), "that of B is not"),
        (pd.DataFrame(1.0, DAYS[[0, 0]], ["A", "B"]), "stands twice"),
        (pd.DataFrame(1.0, DAYS[[1, 0]], ["A", "B"]), "out of order"),
        (np.ones((7, 2)), "7 rows of weights for 5 bars"),
        (np.ones((5, 3)), r"shape \(5, 3\), for 2 assets"),
    ],
)
def test_tables_that_do_not_fit_are_refused(weights, said):
    prices = pd.DataFrame(1.0, DAYS[:5], ["A", "B"])
    with pytest.raises(DataError, match=said):
        wealth(weights, prices, costs="none")


def test_a_lost_capital_ends_the_account():
    with pytest.raises(DataError, match="lost at 1"):
        wealth(np.full((2, 1), 3.0), np.array([[10.0], [5.0]]), costs="none")
