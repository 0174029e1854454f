import json

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from stages.base import DataError, State
from stages.filter.rule_filter import RuleFilter
from tests.stages.filter.conftest import as_references, planted


def test_it_weighs_the_rule_that_pays(market):
    rules = RuleFilter().fit(*market)
    sell, buy = rules.weights_[:, 0]
    assert buy > 0 > sell
    assert np.abs(rules.weights_[:, 1]).max() < 0.3 * min(buy, -sell)
    assert rules.importance().idxmax() == "rule.trend"
    new, y = planted(seed=1)
    lean = rules.predict(new).loc[y.index] @ [-1, 1]
    assert lean.corr(y["side"].astype(float)) > 0.25


def test_its_weights_are_the_stationary_point_of_the_penalised_likelihood(market):
    panel, y = market
    rules = RuleFilter(strength=3.0).fit(panel, y)
    z = rules.predict(panel).loc[y.index].to_numpy()
    odds = np.exp(np.stack([z[:, 0], np.zeros(len(z)), z[:, 1]], axis=1))
    odds /= odds.sum(axis=1, keepdims=True)
    hits = y["side"].to_numpy()[:, None] == np.array([-1, 0, 1])
    weight = y["weight"].to_numpy()[:, None]
    off = weight * (hits - odds)
    scores = panel.loc[y.index, rules.columns_].to_numpy(dtype="float64")
    scores = np.where(np.isnan(scores), rules.mean_, scores)
    # three rows of weights w with sum 0 and pairs w - w_hold: the ridge pulls each by its own
    full = np.stack([rules.weights_[0], np.zeros(2), rules.weights_[1]])
    full -= full.mean(axis=0)
    np.testing.assert_allclose(off.T @ scores, 3.0 * full, atol=0.02)
    np.testing.assert_allclose(off.sum(axis=0), 0, atol=0.02)


def test_more_strength_means_smaller_weights(market):
    sizes = [np.abs(RuleFilter(s).fit(*market).weights_).sum() for s in (0.1, 100.0, 1e5)]
    assert sizes[0] > sizes[1] > sizes[2]


def test_a_silent_rule_counts_with_its_training_mean(market):
    panel, y = market
    rules = RuleFilter().fit(panel, y)
    seen = panel.loc[y.index, "rule.trend"]
    mean = np.average(seen.dropna(), weights=y["weight"][seen.notna()])
    assert rules.mean_[0] == pytest.approx(mean, abs=1e-12)
    silent = panel.assign(**{"rule.trend": np.float32("nan")})
    at_mean = panel.assign(**{"rule.trend": rules.mean_[0]})
    np.testing.assert_allclose(rules.predict(silent), rules.predict(at_mean), atol=1e-6)


def test_shares_add_up_and_silent_rules_have_none(market):
    panel, y = market
    rules = RuleFilter().fit(panel, y)
    rows, points = y.index[::50], y.index[::200]
    why = rules.attribute(panel, rows, as_references(panel, points))
    said = rules.predict(panel)
    want = said.loc[rows].to_numpy()[:, None] - said.loc[points].to_numpy()[None]
    np.testing.assert_allclose(why.values.sum(axis=3), want, atol=1e-12)
    silent = panel.assign(**{"rule.trend": np.float32("nan")})
    why = rules.attribute(silent, rows, as_references(silent, points))
    assert (why.values[..., 0] == 0).all()
    assert why.slopes.shape == (len(rows), len(points), 2, 0)


def test_a_restored_filter_predicts_the_same_bits(market):
    panel, y = market
    rules = RuleFilter().fit(panel, y)
    stored = State(json.loads(json.dumps(rules.state().values)))
    restored = RuleFilter().restore(stored)
    pd.testing.assert_frame_equal(restored.predict(panel), rules.predict(panel), check_exact=True)
    alone = restored.predict(panel.iloc[[5]])
    pd.testing.assert_frame_equal(alone, rules.predict(panel).iloc[[5]], check_exact=True)
    assert restored.update(panel, y) is restored
    assert restored.state() == rules.state()


def test_what_it_cannot_learn_from_is_named(market):
    panel, y = market
    with pytest.raises(NotFittedError):
        RuleFilter().predict(panel)
    with pytest.raises(DataError, match=r"no rule\.\* column"):
        RuleFilter().fit(panel.filter(like="feature."), y)
    with pytest.raises(DataError, match=r"rule\.noise.* no score on any training row"):
        RuleFilter().fit(panel.assign(**{"rule.noise": np.nan}), y)
    with pytest.raises(DataError, match="no training label is sell or hold"):
        RuleFilter().fit(panel, y[y["side"] == 1])
    with pytest.raises(ValueError, match="above 0 and finite, got 0"):
        RuleFilter(strength=0)
