import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from stages.base import DataError
from stages.ensemble.decide import Decide
from stages.ensemble.soft_vote import SoftVote
from stages.ensemble.stacker import BayesianStacker

ODDS = ["p_sell", "p_hold", "p_buy"]
SIGN = {"sell": -1, "buy": 1}


@pytest.fixture
def stacker() -> BayesianStacker:
    return BayesianStacker(interactions=["context.regime"])


def log_loss(said: pd.DataFrame, y: pd.DataFrame) -> float:
    chosen = said[ODDS].to_numpy()[np.arange(len(y)), y["side"] + 1]
    return float(-np.average(np.log(chosen), weights=y["weight"]))


def test_it_beats_each_member_and_the_vote_on_new_rows(stacker, make):
    new, y = make(seed=1)
    losses = {
        "stack": log_loss(stacker.fit(*make(seed=0)).predict(new), y),
        **{
            name: log_loss(SoftVote(weights).fit(*make(seed=0)).predict(new), y)
            for name, weights in {
                "vote": {"boosted": 1, "forest": 1, "lstm": 1},
                "boosted": {"boosted": 1},
                "lstm": {"lstm": 1},
            }.items()
        },
    }
    assert losses["stack"] < min(v for k, v in losses.items() if k != "stack") - 0.05


def test_the_context_turns_the_members_round_where_the_regime_flips(stacker, make):
    new, y = make(seed=1)
    flat = replace(stacker, interactions=())
    turned, plain = (log_loss(s.fit(*make(seed=0)).predict(new), y) for s in (stacker, flat))
    assert turned < plain - 0.1
    margin = stacker.predict(new)["margin"]
    flipped = new["context.regime"] < 0
    assert margin[flipped].corr(new["filter.boosted.z_buy"][flipped]) < -0.5


def test_its_odds_are_calibrated(stacker, make):
    new, y = make(seed=1, times=800)
    p = stacker.fit(*make(seed=0)).predict(new)["p_buy"]
    for low, high in ((0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 1)):
        inside = p.between(low, high)
        assert (y["side"][inside] == 1).mean() == pytest.approx(p[inside].mean(), abs=0.04)


def test_the_odds_of_a_move_may_rise_at_once_with_the_lean():
    """Two members know the direction and nothing else; the smooth lean alone is flat at 0."""
    rng = np.random.default_rng(0)
    bars = pd.date_range("2020-01-01 21:00", periods=2000, tz="UTC").as_unit("us")
    assets = pd.Index([f"A{a}" for a in range(8)], dtype="str")
    index = pd.MultiIndex.from_product([assets, bars], names=["asset", "time"])
    margin = 1.5 * rng.normal(size=len(index))
    move, up = expit(np.abs(margin) - 1), expit(margin)
    draws = rng.random((2, len(index)))
    side = np.where(draws[0] > move, 0, np.where(draws[1] < up, 1, -1))
    columns = {f"filter.{m}.z_{s}": way * margin / 2 for m in "ab" for s, way in SIGN.items()}
    panel = pd.DataFrame(columns | {"ready": True}, index)
    y = pd.DataFrame({"side": side.astype("int8"), "weight": 1.0, "ret": 0.0}, index)
    y["end"] = index.get_level_values("time") + pd.Timedelta(days=1)
    early = index.get_level_values("time") < bars[1000]
    hold = BayesianStacker().fit(panel, y[early]).predict(panel)["p_hold"][~early]
    gap = (hold - (1 - move)[~early]).groupby(pd.qcut(margin[~early], 10)).mean()
    assert gap.abs().max() < 0.02


def test_with_few_rows_it_starts_from_the_members_vote(make):
    panel, y = make(seed=0, times=1000, skill=1.0)
    steady = panel[panel["context.regime"] > 0]
    few = y.loc[steady.index[::60]]
    margin = BayesianStacker(context=False).fit(panel, few).predict(panel)["margin"]
    vote = SoftVote({"boosted": 1, "forest": 1, "lstm": 1}).fit(panel, few).predict(panel)
    assert margin.corr(vote["margin"]) > 0.95


def test_a_market_of_noise_hardly_ever_fires(make):
    fired = []
    for seed in range(5):
        panel, y = make(seed=seed, skill=0.0, times=300)
        half = y[y.index.get_level_values("time") < y.index.levels[1][150]]
        said = BayesianStacker(interactions=["context.regime"]).fit(panel, half).predict(panel)
        status = Decide().decide(panel.join(said))["status"]
        fired.append((status == "unproven").mean())
    assert np.mean(fired) < 0.02


def test_a_product_is_shared_like_the_two_player_shapley_value(stacker, scored):
    panel, y = scored
    stacker.fit(panel, y)
    row = panel[panel["refiner.lstm.z_buy"].notna()].iloc[[3]]
    reference = panel[panel["refiner.lstm.z_buy"].notna()].iloc[[-3]]
    logits = list(stacker.logits_.columns_)

    def margin(logits_of: pd.DataFrame, regime_of: pd.DataFrame) -> float:
        mixed = reference.copy()
        mixed[logits] = logits_of[logits].to_numpy()
        mixed["context.regime"] = regime_of["context.regime"].to_numpy()
        return float(stacker.predict(mixed)["margin"].iloc[0])

    alone = margin(reference, row) - margin(reference, reference)
    after = margin(row, row) - margin(row, reference)
    why = stacker.attribute(panel, row.index, reference)
    share = why.values[0, 0, 0, why.inputs.index("context.regime")]
    assert share == pytest.approx((alone + after) / 2, abs=1e-12)


def test_a_context_that_is_missing_in_a_row_counts_as_its_mean(stacker, scored):
    panel, y = scored
    stacker.fit(panel, y)
    column = "context.liquidity"
    blank = panel.assign(**{column: np.nan})
    middle = dict(zip(stacker.contexts_, stacker.center_, strict=True))[column]
    mean = panel.astype({column: "float64"}).assign(**{column: middle})
    pd.testing.assert_frame_equal(stacker.predict(blank), stacker.predict(mean), rtol=1e-9)


def test_a_constant_context_does_no_harm(scored):
    panel, y = scored
    panel = panel.assign(**{"context.liquidity": np.float32(3), "context.empty": np.float32("nan")})
    assert BayesianStacker().fit(panel, y).predict(panel).notna().all(axis=None)


def test_context_may_be_chosen_or_left_out(scored):
    panel, y = scored
    assert BayesianStacker(context=False).fit(panel, y).contexts_ == ()
    assert BayesianStacker(context=["context.liquidity"]).fit(panel, y).contexts_ == (
        "context.liquidity",
    )
    with pytest.raises(DataError, match="context.mood"):
        BayesianStacker(context=["context.mood"]).fit(panel, y)


def test_an_interaction_the_panel_lacks_is_left_out_aloud(stacker, scored, caplog):
    panel, y = scored
    with caplog.at_level(logging.INFO):
        stacker.fit(panel.drop(columns="context.regime"), y)
    assert stacker.interactions_ == ()
    assert "context.regime" in caplog.text


def test_updates_in_parts_or_at_once_end_in_the_same_bits(stacker, scored):
    panel, y = scored
    cut = y.index.levels[1][125]
    time = y.index.get_level_values("time")
    old, new = y[time < cut], y[time >= cut]
    states = []
    for parts in (
        [new],
        [new[new["end"] < new["end"].median()], new[new["end"] >= new["end"].median()]],
    ):
        learner = replace(stacker).fit(panel, old)
        for part in parts:
            learner.update(panel, part)
        states.append(learner.state().values)
    assert states[0] == states[1]


def test_updates_learn_what_a_refit_would_have_learnt(stacker, scored, make):
    panel, y = scored
    stacker.forget = (1.0,)
    old = y[y.index.get_level_values("time") < y.index.levels[1][60]]
    whole = replace(stacker).fit(panel, y)
    online = replace(stacker).fit(panel, old).update(panel, y.drop(old.index))
    new, _ = make(seed=3)
    assert online.predict(new)["margin"].corr(whole.predict(new)["margin"]) > 0.99


def test_forgetting_stackers_follow_a_market_that_turned(stacker, make):
    panel, y = make(seed=0, times=300)
    turned = y.assign(side=-y["side"])
    learners = {f: replace(stacker, forget=f).fit(panel, y) for f in ((1.0,), (1.0, 0.97))}
    before = log_loss(learners[(1.0,)].predict(panel), turned)
    after = {
        f: log_loss(s.update(panel, turned).predict(panel), turned) for f, s in learners.items()
    }
    assert after[(1.0, 0.97)] < after[(1.0,)] < before


def test_members_that_foresee_moves_are_not_trusted_with_the_direction():
    """Volatility clusters, so the members' word on moves is good: it must not vouch for sides."""
    rng = np.random.default_rng(0)
    index = pd.MultiIndex.from_product(
        [list("ABCD"), pd.date_range("2020-01-01", periods=400, tz="UTC", unit="us")],
        names=["asset", "time"],
    )
    size, lean = rng.normal(size=len(index)), 0.3 * rng.normal(size=len(index))
    moved = rng.random(len(index)) < 1 / (1 + np.exp(-size))
    side = np.where(moved, rng.choice([-1, 1], len(index)), 0).astype("int8")
    panel = pd.DataFrame({"filter.a.z_sell": size - lean, "filter.a.z_buy": size + lean}, index)
    end = index.get_level_values("time") + pd.Timedelta(days=1)
    y = pd.DataFrame({"side": side, "end": end, "weight": 1.0, "ret": 0.0}, index)
    stage = BayesianStacker().fit(panel, y)
    said = stage.predict(panel)
    assert said["p_hold"].corr(y["side"] == 0) > 0.35
    assert stage.direction_.share[0] > 0.9  # nothing is known of the direction
    assert said[["certainty_sell", "certainty_buy"]].max(axis=None) < 0.8


def test_its_certainty_of_no_skill_is_a_half_and_less_than_that_after_costs(make):
    panel, y = make(seed=2, skill=0.0, times=300)
    stage = BayesianStacker().fit(panel, y)
    free = stage.predict(panel)[["certainty_sell", "certainty_buy"]]
    dear = stage.predict(panel.assign(cost=0.001, scale=0.02))[["certainty_sell", "certainty_buy"]]
    assert free.mean(axis=None) == pytest.approx(0.5, abs=0.02)
    assert dear.max(axis=None) < 0.3


def test_more_doubt_asks_for_more_evidence(make):
    panel, y = make(seed=0, skill=0.15, times=120)
    sure = []
    for doubt in (0.05, 0.5, 0.9, 0.99):
        said = BayesianStacker(doubt=doubt).fit(panel, y).predict(panel)
        sure.append(said[["certainty_sell", "certainty_buy"]].max(axis=1).mean())
    assert (np.diff(sure) < 0).all()


def test_doubt_of_the_margin_shrinks_with_the_root_of_the_labels(make):
    """sd as 1 / sqrt(n), the epistemic part of the entropy as 1 / n; the rest stays."""
    new, _ = make(seed=9, times=60)
    sd, epistemic, aleatoric = [], [], []
    for times in (500, 2000):
        said = BayesianStacker().fit(*make(seed=0, times=times)).predict(new)
        sd.append(said["margin_sd"].median())
        epistemic.append(said["epistemic"].median())
        aleatoric.append(said["aleatoric"].mean())
    assert sd[0] / sd[1] == pytest.approx(2, rel=0.3)
    assert epistemic[0] / epistemic[1] == pytest.approx(4, rel=0.3)
    assert aleatoric[0] == pytest.approx(aleatoric[1], rel=0.05)


def test_an_update_with_a_row_nobody_scored_is_refused(stacker, scored):
    panel, y = scored
    stacker.fit(panel, y)
    quiet = panel.assign(**{"filter.forest.z_buy": np.nan})
    with pytest.raises(DataError, match="says nothing about A0"):
        stacker.update(quiet, y)


def test_a_side_that_never_occurs_is_named(stacker, scored):
    panel, y = scored
    with pytest.raises(DataError, match="sell") as refusal:
        stacker.fit(panel, y[y["side"] >= 0])
    assert refusal.value.code == "SV-F44"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"forget": (1.5,)}, r"\(0, 1\], got \(1.5,\)"),
        ({"forget": ()}, "must hold factors"),
        ({"doubt": 1.0}, r"\(0, 1\), got 1.0"),
    ],
)
def test_a_setting_out_of_range_is_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        BayesianStacker(**setting)
