import numpy as np
import pytest
from scipy.stats import entropy as shannon

from stages.base import ConfigError
from stages.ensemble.soft_vote import SoftVote
from stages.ensemble.uncertainty import softmax

WEIGHTS = {"boosted": 0.4, "forest": 0.3, "lstm": 0.3}


def test_the_vote_is_the_weighted_mean_of_log_odds_and_their_disagreement(scored):
    panel, y = scored
    heard = panel[panel["refiner.lstm.z_buy"].notna()]
    said = SoftVote(WEIGHTS).fit(panel, y).predict(heard)
    pairs = [
        heard[[f"{m}.z_sell", f"{m}.z_buy"]].to_numpy()
        for m in ("filter.boosted", "filter.forest", "refiner.lstm")
    ]
    w = np.array([0.4, 0.3, 0.3])
    pooled = np.tensordot(w, pairs, axes=1)
    odds = np.stack([softmax(np.ascontiguousarray(pair), 1)[0] for pair in pairs])
    margins = np.stack([pair[:, 1] - pair[:, 0] for pair in pairs])
    np.testing.assert_allclose(said[["p_sell", "p_hold", "p_buy"]], softmax(pooled, 1)[0])
    np.testing.assert_allclose(said["margin"], w @ margins)
    spread = np.sqrt(w @ (margins - w @ margins) ** 2)
    np.testing.assert_allclose(said["margin_sd"], spread)
    own = w @ shannon(odds, axis=2)
    np.testing.assert_allclose(said["aleatoric"], own)
    mixed = shannon(np.tensordot(w, odds, axes=1), axis=1)
    np.testing.assert_allclose(said["epistemic"], mixed - own, atol=1e-12)


def test_weights_are_scaled_and_updates_change_nothing(scored):
    panel, y = scored
    small = SoftVote(WEIGHTS).fit(panel, y)
    large = SoftVote({name: 20 * w for name, w in WEIGHTS.items()}).fit(panel, y).update(panel, y)
    np.testing.assert_allclose(small.predict(panel), large.predict(panel))


def test_an_absent_member_is_an_error(scored):
    with pytest.raises(ConfigError, match="'xgboost'") as refusal:
        SoftVote({"xgboost": 0.5, "boosted": 0.5}).fit(*scored)
    assert refusal.value.exit_code == 2
    assert "refiner.lstm" in str(refusal.value)


def test_a_name_that_both_stages_use_must_be_given_in_full(scored):
    panel, y = scored
    both = panel.rename(columns=lambda c: c.replace("refiner.lstm", "refiner.forest"))
    with pytest.raises(ConfigError, match="2 members"):
        SoftVote({"forest": 1}).fit(both, y)
    votes = SoftVote({"refiner.forest": 1}).fit(both, y).votes_
    assert votes == (("refiner.forest", 1.0),)


@pytest.mark.parametrize("weights", [{}, {"a": 0}, {"a": 1, "b": -1}, {"a": np.nan}, {"a": np.inf}])
def test_weights_that_are_no_vote_are_refused(weights):
    with pytest.raises(ValueError, match="none below 0"):
        SoftVote(weights)


def test_a_stage_stands_for_its_members_in_equal_parts(scored):
    panel, y = scored
    whole = SoftVote({"filter": 1.0}).fit(panel, y)
    assert dict(whole.votes_) == pytest.approx({"filter.boosted": 0.5, "filter.forest": 0.5})
    both = SoftVote({"boosted": 0.2, "filter": 0.8}).fit(panel, y)
    assert dict(both.votes_) == pytest.approx({"filter.boosted": 0.6, "filter.forest": 0.4})
