"""Ranking by any score, Kelly's stake from odds, and skfolio's optimisers behind one call."""

from dataclasses import replace
from decimal import Decimal
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar
from skfolio.optimization import HierarchicalRiskParity, MeanRisk, RiskBudgeting

from stages.base import ConfigError, DataError
from stages.portfolio.book import Book, Position
from stages.portfolio.kelly import KellyPolicy, edge, stake
from stages.portfolio.optimised import OptimisedPolicy
from stages.portfolio.prepared import given, reading
from stages.portfolio.signals import Trend, macd
from stages.portfolio.sizes import Sizes, equal
from stages.portfolio.target import Buffer
from stages.portfolio.top import TopScores
from stages.rules.trend import moving_average_cross
from tests.stages.portfolio.conftest import holding, run

LOOSE = Sizes(each=1.0, cluster=1.0, exposure=0.95, band=0.0)


def planned(policy, bars, row=300, book=None):
    prepared = policy.prepare(bars)
    return policy.plan(prepared, prepared.times[row], book or Book.opened(Decimal(10_000_000)))


# the top of a ranking


def scored(bars, **scores):
    """Bars with a column `margin` that is the same on all days; 0 for the others."""
    assets = bars.index.get_level_values("asset")
    return bars.assign(margin=pd.Series(scores).reindex(assets).fillna(0.0).to_numpy())


def test_the_highest_scores_above_the_least_are_bought(bars):
    policy = TopScores(buffer=Buffer(2, 3), sizes=replace(LOOSE, volatility=equal, each=0.4))
    plan = planned(policy, scored(bars, E00=1.0, E04=3.0, E08=2.0, E09=-1.0))
    assert [order.asset for order in plan.orders] == ["E04", "E08"]
    assert plan.scores["rank"].dropna().to_dict() == {"E04": 1, "E08": 2, "E00": 3}
    assert (plan.signals["E00"], plan.signals["E01"], plan.signals["E09"]) == (1, 0, -1)
    assert [order.value for order in plan.orders] == pytest.approx([4e6, 4e6], rel=1e-4)


def test_a_holding_stays_in_the_zone_and_leaves_when_its_score_is_too_low(bars):
    policy = TopScores(buffer=Buffer(1, 2), sizes=LOOSE)
    book = Book.opened(Decimal(10_000_000))
    kept = holding(book, E00=Position(1, bars.index[0][1], 1.0, 1.0))
    assert {o.asset for o in planned(policy, scored(bars, E04=3, E00=1), book=kept).orders} == {
        "E00",
        "E04",
    }
    gone = planned(policy, scored(bars, E04=3, E00=-1), book=kept).orders
    assert [(o.asset, o.action, o.reason) for o in gone][0] == ("E00", "SELL", "score too low")
    even = planned(policy, scored(bars, E04=3), book=kept).orders
    assert "E00" not in {order.asset for order in even}  # not worth more, nor worth selling


def test_a_tilt_puts_more_into_higher_scores(bars):
    scores = {"E00": 1.0, "E04": 3.0, "E08": 2.0}
    even, tilted = (
        planned(
            TopScores(buffer=Buffer(3, 3), sizes=replace(LOOSE, volatility=equal, tilt=tilt)),
            scored(bars, **scores),
        ).scores["target_weight"]
        for tilt in (0.0, 0.4)
    )
    np.testing.assert_allclose(even[list(scores)], 0.95 / 3)
    z = pd.Series(scores).reindex(even.index).fillna(0.0)[even.notna()]
    claims = np.exp(0.4 * np.clip((z - z.mean()) / z.std(ddof=0), -3, 3))[list(scores)]
    np.testing.assert_allclose(tilted[list(scores)], 0.95 * claims / claims.sum())


def test_any_rule_can_be_the_score(bars):
    policy = TopScores(score=moving_average_cross, buffer=Buffer(3, 5))
    prepared = policy.prepare(bars)
    plan = policy.plan(prepared, prepared.times[300], Book.opened(1_000_000))
    best = plan.scores["signal_strength"].nlargest(3).index
    assert {order.asset for order in plan.orders} <= set(best)
    assert plan.orders


def test_a_score_that_the_panel_lacks_is_named(bars):
    with pytest.raises(DataError, match=r"columns \['margin'\] are missing"):
        TopScores().prepare(bars)


def test_an_asset_without_a_score_is_not_judged(bars):
    panel = scored(bars, E00=1.0, E04=np.nan)
    panel.loc["E04", "margin"] = np.nan
    plan = planned(TopScores(least=None), panel)
    assert plan.skipped["E04"] == "a value is missing within its windows"
    assert "E04" not in plan.signals


# Kelly


def growth(f, odds, scale, cost):
    p_sell, p_buy = odds
    outcomes = np.array([-scale, 0.0, scale]) - cost
    return np.array([p_sell, 1 - p_sell - p_buy, p_buy]) @ np.log1p(f * outcomes)


@pytest.mark.parametrize("odds", [(0.30, 0.34), (0.2, 0.23), (0.45, 0.47)])
@pytest.mark.parametrize("cost", [0.0, 0.0002])
def test_a_known_edge_is_staked_where_growth_is_greatest(odds, cost):
    scale = 0.02
    found = stake(*map(np.array, ([odds[0]], [odds[1]], [0.0], [scale], [cost])))[0]
    best = minimize_scalar(
        lambda f: -growth(f, odds, scale, cost), bounds=(0, 10), method="bounded"
    ).x
    assert found == pytest.approx(best, rel=0.03)
    assert found > 0.5


def test_a_doubtful_edge_is_staked_where_mean_growth_is_greatest():
    p_sell, p_buy, scale, sd = 0.28, 0.32, 0.02, 0.1
    rng = np.random.default_rng(2)
    moves, margin = p_sell + p_buy, np.log(p_buy / p_sell)
    lean = moves * np.tanh((margin + sd * rng.standard_normal(200_000)) / 2)
    e, v = scale * lean, scale**2 * (moves - (p_buy - p_sell) ** 2)
    # who stakes k times what a noisy estimate asks for grows by k e_hat e / v - (k e_hat)^2 / 2 v
    true = scale * (p_buy - p_sell)
    k = (e.mean() * true) / (e**2).mean()
    values = map(np.array, ([p_sell], [p_buy], [sd], [scale], [0.0]))
    assert stake(*values)[0] == pytest.approx(k * true / v, rel=0.02)


def test_no_edge_no_stake_and_no_odds_no_answer():
    columns = map(
        np.array, ([0.3, 0.3, np.nan], [0.3, 0.4, 0.4], [0.1] * 3, [0.02] * 3, [0.003] * 3)
    )
    np.testing.assert_array_equal(stake(*columns), [0.0, 0.0, np.nan])
    worth = edge(np.array([0.3]), np.array([0.4]), np.array([0.02]), np.array([0.001]))
    assert worth == pytest.approx(0.001)


def with_odds(bars, **p_buy):
    """The same odds on all days: a third each unless named, nothing in doubt."""
    assets = bars.index.get_level_values("asset")
    up = pd.Series(p_buy).reindex(assets).fillna(1 / 3).to_numpy()
    return bars.assign(p_buy=up, p_sell=2 / 3 - up, margin_sd=0.02, scale=0.05, cost=0.001)


def test_stakes_are_a_fraction_of_kelly_cut_by_the_caps_and_never_raised(bars):
    policy = KellyPolicy(fraction=0.1, sizes=replace(LOOSE, each=0.2))
    plan = planned(policy, with_odds(bars, E00=0.36, E04=0.5, E08=0.30))
    weights = plan.scores["target_weight"]
    values = map(np.array, ([2 / 3 - 0.36], [0.36], [0.02], [0.05], [0.001]))
    assert weights["E00"] == pytest.approx(0.1 * stake(*values)[0])
    assert weights["E04"] == 0.2
    assert set(weights[weights > 0].index) == {"E00", "E04"}
    assert (plan.signals["E04"], plan.signals["E08"], plan.signals["E01"]) == (1, -1, 0)
    assert {o.asset: o.action for o in plan.orders} == {"E00": "BUY", "E04": "BUY"}
    assert plan.orders[0].reason.startswith("enter: edge +")


def test_a_holding_whose_edge_is_gone_is_sold(bars):
    book = holding(Book.opened(Decimal(1_000)), E08=Position(5, bars.index[0][1], 1.0, 1.0))
    plan = planned(KellyPolicy(), with_odds(bars, E08=0.30), book=book)
    assert [(o.asset, o.action, o.reason) for o in plan.orders] == [
        ("E08", "SELL", "stake 0.0% is too small")
    ]


# optimisers of skfolio


@pytest.mark.parametrize("optimiser", [RiskBudgeting(), HierarchicalRiskParity(), MeanRisk()])
def test_weights_are_those_of_the_optimiser_on_the_window(bars, closes, optimiser):
    policy = OptimisedPolicy(optimiser=optimiser, bars=120, least=0.0, sizes=LOOSE)
    plan = planned(policy, bars, 290)
    returns = closes.ffill().pct_change().iloc[171:291]
    expected = 0.95 * pd.Series(optimiser.fit(returns).weights_, closes.columns)
    known = expected.index.difference(plan.skipped)
    assert len(known) == 12
    np.testing.assert_allclose(plan.scores["target_weight"], expected, atol=2e-6)
    ordered = {order.asset: order.value / 1e7 for order in plan.orders}
    for asset, weight in expected.items():
        assert ordered.get(asset, 0.0) == pytest.approx(weight, abs=2e-5)


def test_another_risk_measure_is_named_in_words(bars):
    weights = [
        planned(
            OptimisedPolicy(optimiser=RiskBudgeting(), choices=choices, bars=120, sizes=LOOSE), bars
        ).scores["target_weight"]
        for choices in ({}, {"risk_measure": "cvar"})
    ]
    assert np.abs(weights[0] - weights[1]).max() > 0.005


def test_only_assets_whose_trend_is_up_take_part(bars):
    policy = OptimisedPolicy(optimiser=RiskBudgeting(), bars=60, sizes=LOOSE, trend=Trend(macd))
    plan = planned(policy, bars)
    bought = {order.asset for order in plan.orders}
    assert 0 < len(bought) < 12
    assert bought == {asset for asset, side in plan.signals.items() if side > 0}


def test_an_optimiser_that_finds_nothing_stops_the_plan(bars):
    broken = OptimisedPolicy(optimiser=MeanRisk(min_return=9.0), bars=60)
    with pytest.raises(DataError, match="MeanRisk found no weights at") as caught:
        planned(broken, bars)
    assert caught.value.code == "SV-X612"


def test_a_short_position_is_refused(bars):
    bold = OptimisedPolicy(optimiser=MeanRisk(min_weights=-0.5, max_weights=1.0), bars=60)
    with pytest.raises(ConfigError, match="asks for a short position"):
        planned(bold, bars)


@pytest.mark.parametrize("choices", [{"risk_measure": "luck"}, {"solver": "CVAR"}])
def test_an_unknown_choice_is_refused_when_the_policy_is_built(choices):
    with pytest.raises(ConfigError, match="is not offered"):
        OptimisedPolicy(optimiser=RiskBudgeting(), choices=choices)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (KellyPolicy, {"fraction": 0}),
        (KellyPolicy, {"least": 1}),
        (TopScores, {"every": 0}),
        (partial(OptimisedPolicy, optimiser=RiskBudgeting()), {"bars": 2}),
    ],
)
def test_a_policy_out_of_range_is_refused(kind, wrong):
    with pytest.raises(ValueError, match="need"):
        kind(**wrong)


@pytest.mark.parametrize(
    "policy",
    [
        TopScores(score=reading(given, values="p_buy"), least=0.3, buffer=Buffer(3, 5)),
        KellyPolicy(sizes=Sizes(each=0.3)),
        OptimisedPolicy(optimiser=HierarchicalRiskParity(), bars=60, every=20),
    ],
    ids=lambda p: type(p).__name__,
)
def test_every_policy_trades_day_after_day_within_its_caps(policy, bars):
    rng = np.random.default_rng(0)
    panel = with_odds(bars).assign(p_buy=1 / 3 + 0.05 * rng.standard_normal(len(bars)))
    panel["p_sell"] = 2 / 3 - panel["p_buy"]
    prepared = policy.prepare(panel)
    assert policy.warmup < 200
    orders = 0
    for _, book, plan in run(policy, prepared, Book.opened(1_000_000), range(200, 300)):
        prices = plan.scores["price"]
        total = float(plan.book.value(prices.to_dict()))
        shares = {a: p.shares for a, p in book.positions.items()}
        for order in plan.orders:
            shares[order.asset] = shares.get(order.asset, 0) + (
                order.shares if order.action == "BUY" else -order.shares
            )
            orders += 1
        if any(order.action == "BUY" for order in plan.orders):
            assert sum(n * prices[a] for a, n in shares.items()) <= policy.sizes.exposure * total
    assert orders > 5
