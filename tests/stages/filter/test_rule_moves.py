"""The rules as least squares on moves: the same stage, another lesson."""

import numpy as np
import pytest

from stages.filter.regression import link, standing
from stages.filter.rule_filter import RuleFilter
from tests.stages.filter.conftest import as_references, planted


def test_weights_are_those_of_a_ridge_regression(market):
    from sklearn.linear_model import Ridge

    panel, y = market
    rules = RuleFilter(strength=3.0, learns="moves").fit(panel, y)
    scores = panel.loc[y.index, rules.columns_].to_numpy("float64")
    filled = np.where(np.isnan(scores), rules.mean_, scores) - rules.mean_
    ridge = Ridge(3.0, fit_intercept=False).fit(filled, standing(y), y["weight"])
    shares = np.bincount(y["side"] + 1, y["weight"]) / y["weight"].sum()
    level, slope = link(shares)
    np.testing.assert_allclose(rules.weights_, slope[:, None] * ridge.coef_, rtol=1e-9)
    said = rules.predict(panel.loc[y.index]).to_numpy()
    np.testing.assert_allclose(said, level + slope * (filled @ ridge.coef_)[:, None], atol=1e-12)


def test_many_rows_are_learnt_in_parts(market, monkeypatch):
    whole = RuleFilter(learns="moves").fit(*market)
    monkeypatch.setattr("stages.filter.rule_filter.CHUNK", 100)
    parts = RuleFilter(learns="moves").fit(*market)
    np.testing.assert_allclose(parts.weights_, whole.weights_, rtol=1e-9)


def test_moves_are_measured_in_the_scale_of_the_asset(market):
    panel, y = market
    loud = np.where(panel.index.get_level_values("asset") == "A1", 50.0, 1.0)
    noisy = y.assign(ret=y["ret"] * loud[panel.index.get_indexer(y.index)])
    plain = RuleFilter(learns="moves").fit(panel, y)
    scaled = RuleFilter(learns="moves").fit(panel.assign(scale=loud), noisy)
    np.testing.assert_allclose(scaled.weights_, plain.weights_, rtol=1e-9)
    drowned = RuleFilter(learns="moves").fit(panel, noisy)
    assert np.abs(drowned.weights_ / plain.weights_ - 1).max() > 0.05


def test_it_finds_the_planted_rule_and_explains_itself(market):
    panel, y = market
    rules = RuleFilter(learns="moves").fit(panel, y)
    assert rules.importance().idxmax() == "rule.trend"
    new, later = planted(seed=1)
    said = rules.predict(new).loc[later.index]
    lean = said["filter.rules.z_buy"] - said["filter.rules.z_sell"]
    assert lean.corr(later["side"].astype(float)) > 0.25
    rows, points = y.index[::97], y.index[50:400:40]
    why = rules.attribute(panel, rows, as_references(panel, points))
    told = rules.predict(panel)
    want = told.loc[rows].to_numpy()[:, None] - told.loc[points].to_numpy()[None]
    np.testing.assert_allclose(why.values.sum(axis=3), want, atol=1e-12)


def test_a_rule_that_never_speaks_counts_for_nothing(market, caplog):
    panel, y = market
    mute = panel.assign(**{"rule.mute": np.float32(np.nan)})
    with caplog.at_level("INFO"):
        rules = RuleFilter(learns="moves").fit(mute, y)
    assert "rule.mute" in caplog.text
    plain = RuleFilter(learns="moves").fit(panel, y)
    np.testing.assert_array_equal(rules.predict(mute), plain.predict(panel))
    awake = mute.assign(**{"rule.mute": np.float32(0.7)})
    np.testing.assert_array_equal(rules.predict(awake), plain.predict(panel))


def test_what_it_learns_from_is_named():
    with pytest.raises(ValueError, match="sides"):
        RuleFilter(learns="returns")
