import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from scipy.stats import percentileofscore

from pipeline.recipe import build, describe, instantiate
from stages.base import ConfigError, DataError, State
from stages.markets.noise import noise_garch
from stages.risk.classes import AssetClass, AssetClasses
from stages.risk.factors import FACTORS, risk_factors, worst_loss
from stages.risk.score import RiskScore, calibration_error, place, risk_calibration
from tests.conftest import ROOT

ASSETS: AssetClasses = instantiate(OmegaConf.load(ROOT / "conf" / "assets" / "default.yaml"))
BANDS = {"daily_option": (70, 95), "equity": (30, 80), "etf": (20, 70), "bond": (5, 40)}
BANDS |= {"safe": (0, 20)}
SPAN = 5


@pytest.fixture(scope="module")
def history():
    """Bars whose volatility clusters; sides at random, since nothing can be known of them."""
    rng = np.random.default_rng(3)
    panel = noise_garch(11, times=1200, assets=10).panel
    index = panel["close"].unstack("asset").mean(axis=1)
    panel["market"] = index.reindex(panel.index.get_level_values("time")).to_numpy()
    panel["epistemic"] = rng.gamma(2, 0.01, len(panel))
    side = rng.choice([-1, 1], len(panel))
    assets = panel.index.get_level_values("asset")
    classes = np.where(assets.isin(["A0", "A1", "A2", "A3", "A4"]), "equity", "bond")
    return risk_factors(panel), worst_loss(panel, side, SPAN), classes


def parts(history, train=0.6):
    """Rows of the training and later ones, apart by the span of the losses."""
    factors, loss, classes = history
    times = factors.index.get_level_values("time")
    cut = int(train * len(times.unique()))
    before, after = (times < times.unique()[cut - SPAN]), times >= times.unique()[cut]
    return [(factors[rows], loss[rows], classes[rows]) for rows in (before, after)]


@pytest.fixture(scope="module")
def fitted_score(history):
    return RiskScore(ASSETS).fit(*parts(history)[0])


# the classes


def test_the_bands_are_those_that_were_asked_for():
    assert {name: ASSETS.of(name).band for name in BANDS} == BANDS
    assert ASSETS.of("daily_option").per_hour == 50
    assert ASSETS.of("daily_option").floor == 0.7
    assert ASSETS.of("fx") == ASSETS.of("default")
    assert build(describe(ASSETS)) == ASSETS


def test_a_class_without_rules_is_refused():
    with pytest.raises(ConfigError, match=r"SV-X642(.|\n)*add assets.classes.fx"):
        AssetClasses({"bond": {"band": [5, 40]}}).of("fx")


def test_weights_of_strategies_are_normalised_over_the_active_ones():
    """0.3, 0.25 and 0.2 sum to 0.75."""
    options = AssetClass((70, 95), strategies={"flow": 0.3, "skew": 0.25, "gamma": 0.2})
    assert options.shares(["flow", "skew", "gamma"])["flow"] == pytest.approx(0.4)
    assert options.shares(["skew", "gamma", "other"]) == pytest.approx(
        {"skew": 5 / 9, "gamma": 4 / 9}
    )
    assert options.strategies["flow"] == 0.3
    assert AssetClass((0, 1)).shares(["a", "b"]) == {"a": 0.5, "b": 0.5}
    with pytest.raises(ValueError, match="no active strategy"):
        options.shares(["other"])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"band": [40, 5]}, "low < high"),
        ({"band": [0, 101]}, "high <= 100"),
        ({"band": [0, 9], "floor": 1.1}, "floor"),
        ({"band": [0, 9], "per_hour": 0}, "at least 1"),
        ({"band": [0, 9], "strategies": {"a": -1, "b": 2}}, "weights >= 0"),
        ({"band": [0, 9], "strategies": {"a": 0}}, "one above 0"),
        ({"band": [0, 9], "flor": 0.5}, "no field 'flor'"),
    ],
)
def test_wrong_rules_are_refused(row, message):
    with pytest.raises(ValueError, match=message):
        AssetClasses({"bond": row})


# factors and losses


def test_factors_are_what_pandas_says():
    panel = noise_garch(2, times=200, assets=2).panel
    panel["market"] = panel["close"].groupby("time").transform("mean")
    panel["epistemic"] = np.linspace(0, 1, len(panel))
    got = risk_factors(panel).loc["A1"]
    one = panel.loc["A1"]
    close, move = one["close"], np.log(one["close"]).diff()
    money = (close * one["volume"]).rolling(20).sum()
    want = {
        "volatility": move.rolling(20).std(),
        "liquidity": np.log(move.abs().rolling(20).sum() / money),
        "drawdown": 1 - close / close.rolling(120).max(),
        "concentration": move.rolling(60).corr(np.log(one["market"]).diff()) ** 2,
        "event": move.abs().rolling(5).max() / move.rolling(60).std().shift(5),
        "model": one["epistemic"],
    }
    pd.testing.assert_frame_equal(got, pd.DataFrame(want), check_names=False)
    assert got.iloc[-1].notna().all()


def test_factors_of_a_row_do_not_change_when_bars_follow():
    panel = noise_garch(2, times=200, assets=2).panel
    early = panel[panel.index.get_level_values("time") <= panel.index.unique("time")[150]]
    pd.testing.assert_frame_equal(risk_factors(panel).loc[early.index], risk_factors(early))


def test_what_is_not_in_the_bars_is_not_known():
    factors = risk_factors(noise_garch(2, times=200, assets=1).panel[["close"]])
    assert factors[["liquidity", "concentration", "model"]].isna().all(axis=None)
    assert factors["volatility"].notna().sum() == 180


def test_the_worst_loss_is_that_of_the_worst_bar():
    panel = noise_garch(4, times=30, assets=2).panel
    side = np.tile([1, -1, 0], 20)
    got = worst_loss(panel, side, 3).to_numpy()
    for i in range(len(panel)):
        later = panel.iloc[i + 1 : i + 4]
        if i % 30 > 26 or side[i] == 0:
            assert np.isnan(got[i])
            continue
        close = panel["close"].iloc[i]
        worst = 1 - later["low"].min() / close if side[i] > 0 else later["high"].max() / close - 1
        assert got[i] == pytest.approx(max(worst, 0))
    with pytest.raises(ValueError, match="at least 1 bar"):
        worst_loss(panel, side, 0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=30), st.lists(st.integers(-7, 7)))
def test_a_place_is_the_share_below(knots, x):
    want = [percentileofscore(knots, v, kind="mean") / 100 for v in x]
    assert place(np.sort(np.array(knots, float)), np.array(x, float)) == pytest.approx(want)


# the score


def test_the_score_comes_to_what_it_says_on_later_rows(history, fitted_score):
    """5 points are asked for; a random order of the same rows would err as the raw score does."""
    factors, loss, classes = parts(history)[1]
    said, came = fitted_score.predict(factors, classes), fitted_score.loss_place(loss, classes)
    table = risk_calibration(said["calibrated"].to_numpy(), came)
    assert table["rows"].sum() > 4000
    assert calibration_error(table) <= 5
    assert calibration_error(risk_calibration(said["raw"].to_numpy(), came)) > 5
    assert table["came"].iloc[-1] - table["came"].iloc[0] > 10  # it tells them apart
    for name in ("equity", "bond"):
        rows = classes == name
        own = risk_calibration(said["calibrated"].to_numpy()[rows], came[rows])
        assert calibration_error(own) <= 5


def test_the_score_lies_in_the_band_of_the_class(history, fitted_score):
    factors = parts(history)[1][0].iloc[:300]
    for name, (low, high) in BANDS.items():
        told = fitted_score.predict(factors, [name] * len(factors))
        risk = told["risk"]
        assert risk.between(low, high).all()
        assert risk.to_numpy() == pytest.approx(low + (high - low) * told["calibrated"] / 100)
    assert told.filter(like="part.").sum(axis=1).to_numpy() == pytest.approx(told["raw"])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_more_of_a_factor_is_never_less_risk(fitted_score, history, data):
    factors = parts(history)[0][0].dropna()
    row = factors.iloc[[data.draw(st.integers(0, len(factors) - 1))]]
    name = data.draw(st.sampled_from(FACTORS))
    more = row.assign(**{name: row[name] + data.draw(st.floats(0, 10))})
    kind = data.draw(st.sampled_from([*BANDS, "default"]))
    before, after = (fitted_score.predict(r, [kind])["risk"].iloc[0] for r in (row, more))
    assert after >= before


def test_a_row_that_lacks_a_factor_has_no_score(history, fitted_score):
    factors, _, classes = parts(history)[1]
    told = fitted_score.predict(factors.assign(event=np.nan), classes)
    assert told[["raw", "calibrated", "risk"]].isna().all(axis=None)
    assert set(told["missing"]) == {"event"}


def test_a_factor_that_the_training_lacks_is_left_out(history):
    factors, loss, classes = parts(history)[0]
    score = RiskScore(ASSETS).fit(factors.assign(model=np.nan), loss, classes)
    assert score.used_ == FACTORS[:-1]
    assert score.predict(factors.iloc[-5:], classes[-5:])["risk"].notna().all()


def test_weights_say_what_counts(history):
    factors, loss, classes = parts(history)[0]
    score = RiskScore(ASSETS, weights={"volatility": 3, "event": 1}).fit(factors, loss, classes)
    told = score.predict(factors.iloc[-5:], classes[-5:])
    assert [c for c in told if c.startswith("part.")] == ["part.volatility", "part.event"]
    assert (told["part.volatility"] <= 75).all()
    assert (told["part.event"] <= 25).all()


def test_a_small_class_shares_the_quantiles_of_all(history):
    factors, loss, classes = parts(history)[0]
    names = classes.copy()
    names[:400] = "crypto"
    score = RiskScore(ASSETS).fit(factors, loss, names)
    assert set(score.scales_) == {"default", "equity", "bond"}
    rows = sum(scale.rows.sum() for name, scale in score.scales_.items() if name != "default")
    assert (
        rows
        < score.scales_["default"].rows.sum()
        == np.isfinite(factors.to_numpy()).all(axis=1).sum()
    )


def test_a_stored_score_says_the_same(history, fitted_score):
    factors, _, classes = parts(history)[1]
    values = json.loads(json.dumps(fitted_score.state().values))
    again = RiskScore(ASSETS).restore(State(values))
    pd.testing.assert_frame_equal(
        again.predict(factors, classes), fitted_score.predict(factors, classes)
    )


def test_it_learns_on_from_what_came(history):
    """After a change, losses are twice as large; the score follows, and forgets beyond memory."""
    (factors, loss, classes), (later, after, names) = parts(history)
    score = RiskScore(ASSETS, memory=1000).fit(factors, loss, classes)
    before = score.predict(later, names)["calibrated"].mean()
    in_time = later.index.get_level_values("time").argsort()
    for rows in np.array_split(in_time, 10):
        score.update(later.iloc[rows], 2 * after.iloc[rows], names[rows])
    moved = score.predict(later, names)["calibrated"]
    came = score.loss_place(2 * after, names)
    assert moved.mean() > before + 5
    assert abs(moved.mean() - np.nanmean(came)) < 5
    assert [s.rows.sum() for s in score.scales_.values()] == pytest.approx([1000] * 3)


def test_too_short_a_history_is_refused(history):
    factors, loss, classes = parts(history)[0]
    with pytest.raises(DataError, match=r"SV-F18(.|\n)*quantiles of a few rows are noise"):
        RiskScore(ASSETS).fit(factors[:400], loss[:400], classes[:400])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"weights": {"luck": 1}}, "luck"),
        ({"weights": {"event": 0}}, "one above 0"),
        ({"least": 10}, "50 <= least"),
        ({"least": 900, "memory": 800}, "least <= memory"),
    ],
)
def test_wrong_settings_of_the_score_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        replace(RiskScore(ASSETS), **words)
