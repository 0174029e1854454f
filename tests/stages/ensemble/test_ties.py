"""How much a label is worth beside those of its bar, and of its neighbours."""

import json
from dataclasses import astuple, replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from stages.base import ArtifactError, State
from stages.ensemble.bayesian_softmax import BayesianSoftmax
from stages.ensemble.posterior import Posterior, assimilate, assimilate_group, laplace
from stages.ensemble.stacker import BayesianStacker
from stages.ensemble.ties import BLOCK, ties
from stages.ensemble.uncertainty import attenuation

START = pd.Timestamp("2020-01-01 21:00", tz="UTC")


def table(side_TA: np.ndarray, weight: float | np.ndarray = 1.0) -> pd.DataFrame:
    """Labels of A assets over T bars, asset-major."""
    times, assets = side_TA.shape
    bars = pd.date_range(START, periods=times, freq="D", unit="us")
    names = [f"A{a:02d}" for a in range(assets)]
    index = pd.MultiIndex.from_product([names, bars], names=["asset", "time"])
    side = side_TA.T.ravel().astype("int8")
    end = index.get_level_values("time") + pd.Timedelta(days=1)
    return pd.DataFrame({"side": side, "end": end, "weight": weight}, index)


def drawn(seed: int, times: int, assets: int, shared: float = 0.0, slope: float = 0.0):
    """Votes and hits whose log-odds a bar moves by a normal of variance `shared`."""
    rng = np.random.default_rng(seed)
    vote = rng.normal(size=(times, assets))
    moved = np.sqrt(shared) * rng.normal(size=(times, 1))
    hit = rng.random((times, assets)) < expit(slope * vote + moved)
    return vote, hit.astype(int)


def tied(hit_TA: np.ndarray, vote_TA: np.ndarray, weight: float = 1.0, **given):
    return ties(table(hit_TA, weight), hit_TA.T.ravel() == 1, vote_TA.T.ravel(), **given)


def rows_of(vote: np.ndarray, hit: np.ndarray):
    """Features with an intercept, hits, weights and bars, bar by bar."""
    phi = np.column_stack([vote.ravel(), np.ones(vote.size)])
    bar = np.repeat(np.arange(len(vote)), vote.shape[1])
    return phi, hit.reshape(-1, 1).astype(float), np.ones(vote.size), bar


# what is measured


def test_independent_labels_count_in_full():
    for seed in range(5):
        vote, hit = drawn(seed, 2000, 10, slope=0.5)
        found = tied(hit, vote)
        assert found.shared < 0.03
        assert found.effect < 1.7  # the upper end of what a hundred blocks tell


@pytest.mark.parametrize("shared", [0.3, 1.0, 3.0])
def test_what_a_bar_shares_is_found(shared):
    vote, hit = drawn(1, 3000, 12, shared)
    found = tied(hit, vote)
    assert found.shared == pytest.approx(shared * attenuation(shared) ** 2, rel=0.3)
    assert found.effect < 1.7  # beyond it nothing is shared
    assert found.persists < 1.7


def test_what_a_bar_shares_may_persist():
    rng = np.random.default_rng(0)
    level = np.repeat(rng.normal(size=200), 10)[:, None]
    vote = rng.normal(size=(2000, 8))
    hit = (rng.random((2000, 8)) < expit(1.5 * level)).astype(int)
    assert tied(hit, vote).persists == pytest.approx(9, rel=0.4)
    assert tied(hit, vote).effect < 2


def test_peers_that_move_together_count_as_one():
    """Four groups of three that are one asset under three names, their votes too."""
    vote, hit = drawn(3, 2500, 4)
    found = tied(np.repeat(hit, 3, axis=1), np.repeat(vote, 3, axis=1))
    assert 3 < found.effect < 5


def test_what_can_be_learnt_is_not_taken_for_a_tie():
    """A vote that is right moves its score all one way: that is its use, no dependence."""
    vote, hit = drawn(4, 2000, 10, slope=2.0)
    assert tied(hit, vote).effect < 1.8


def test_what_was_foreseen_is_no_surprise():
    rng = np.random.default_rng(5)
    level = np.repeat(2 * rng.normal(size=100), 20)[:, None] * np.ones(6)
    vote = level + 0.1 * rng.normal(size=level.shape)
    hit = (rng.random(level.shape) < expit(level)).astype(int)
    blind = tied(hit, vote)
    knowing = tied(hit, vote, foreseen=expit(level).T.ravel())
    assert blind.shared > 0.5 > 0.1 > knowing.shared


def test_labels_that_overlap_count_for_their_weights_only():
    """A side held over h bars is h labels of weight 1 / h: together one, as their weights say."""
    vote, hit = (np.repeat(x, 5, axis=0) for x in drawn(6, 600, 4))
    assert tied(hit, vote, weight=1 / 5).effect < 1.8
    assert tied(hit, vote).effect == pytest.approx(6, rel=0.35)


def test_a_halt_of_one_asset_does_not_stretch_the_blocks():
    vote, hit = drawn(7, 400, 5)
    y = table(hit)
    halted = y.copy()
    halted.iloc[3, halted.columns.get_loc("end")] = y["end"].max()
    told = [ties(t, hit.T.ravel() == 1, vote.T.ravel()) for t in (y, halted)]
    assert told[0] == told[1]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    times=st.integers(3, 60),
    assets=st.integers(1, 4),
    shared=st.floats(0, 4),
)
def test_the_order_of_rows_does_not_matter_and_bounds_hold(seed, times, assets, shared):
    vote, hit = drawn(seed, times, assets, shared)
    rng = np.random.default_rng(seed)
    y = table(hit, rng.uniform(0.1, 3, times * assets))
    order = rng.permutation(len(y))
    hits, votes = hit.T.ravel() == 1, vote.T.ravel()
    found = ties(y, hits, votes)
    again = ties(y.iloc[order], hits[order], votes[order])
    assert astuple(again) == pytest.approx(astuple(found), rel=1e-6, abs=1e-9)
    assert found.shared >= 0
    assert 1 <= found.persists <= 2 * max(BLOCK, 1)
    assert found.effect >= 1


def test_one_side_alone_surprises_nobody():
    for side in (0, 1):
        hit = np.full((30, 3), side)
        assert tied(hit, np.zeros((30, 3))) == ties(table(hit), hit.T.ravel() == 1, np.zeros(90))
        assert astuple(tied(hit, np.zeros((30, 3)))) == (0.0, 1.0, 1.0)


# what is learnt in spite of them


def exact(vote, hit, shared, tau):
    """Mean and sd of slope and intercept, and the evidence, by sums over fine grids."""
    w, b = np.meshgrid(np.linspace(-4, 4, 161), np.linspace(-4, 4, 161), indexing="ij")
    x, share = np.polynomial.hermite_e.hermegauss(40)
    share = share / share.sum()
    fit = -(w**2 + b**2) / (2 * tau) - np.log(2 * np.pi * tau)
    for t in range(len(vote)):
        eta = w[..., None] * vote[t] + b[..., None]
        each = eta[..., None, :] + np.sqrt(shared) * x[:, None]
        sign = np.where(hit[t] == 1, 1, -1)
        said = -np.logaddexp(0, -sign * each).sum(axis=-1)
        top = said.max(axis=-1, keepdims=True)
        fit = fit + np.log(np.exp(said - top) @ share) + top[..., 0]
    cell = (8 / 160) ** 2
    evidence = np.log(np.exp(fit - fit.max()).sum() * cell) + fit.max()
    density = np.exp(fit - fit.max())
    density /= density.sum()
    means = [(density * v).sum() for v in (w, b)]
    sds = [np.sqrt((density * (v - m) ** 2).sum()) for v, m in zip((w, b), means, strict=True)]
    return np.array(means), np.array(sds), evidence


@pytest.mark.parametrize(("seed", "shared"), [(1, 0.5), (2, 2.0), (3, 6.0)])
def test_the_batch_is_that_of_exact_integration(seed, shared):
    vote, hit = drawn(seed, 12, 8, shared, slope=0.8)
    phi, hits, weight, bar = rows_of(vote, hit)
    mean, sd, evidence = exact(vote, hit, shared, 4.0)
    prior = np.zeros((1, 2)), np.eye(2) / 4
    found = laplace(phi, hits, weight, *prior, groups=bar, shared=shared)
    # known to pull towards 0 where bars are small: Breslow & Clayton (1993), section 5
    np.testing.assert_allclose(found.mean[0], mean, atol=0.35 * sd.max())
    np.testing.assert_allclose(np.sqrt(np.diag(found.covariance)), sd, rtol=0.12)
    assert found.log_evidence == pytest.approx(evidence, abs=0.8)


@pytest.mark.parametrize(("seed", "shared"), [(1, 0.5), (2, 2.0), (3, 6.0)])
def test_bar_by_bar_ends_near_the_batch_and_foretells_its_evidence(seed, shared):
    vote, hit = drawn(seed, 60, 8, shared, slope=0.8)
    phi, hits, weight, bar = rows_of(vote, hit)
    prior = np.zeros((1, 2)), np.eye(2) / 4
    batch = laplace(phi, hits, weight, *prior, groups=bar, shared=shared)
    belief, gain = Posterior(prior[0], np.eye(2) * 4, 0.0), 0.0
    for t in range(len(vote)):
        at = bar == t
        belief, more = assimilate_group(belief, phi[at], hits[at], weight[at], shared)
        gain += more
    sd = np.sqrt(np.diag(batch.covariance))
    np.testing.assert_allclose(belief.mean[0], batch.mean[0], atol=0.5 * sd.max())
    np.testing.assert_allclose(np.sqrt(np.diag(belief.covariance)), sd, rtol=0.2)
    assert gain == pytest.approx(batch.log_evidence, abs=0.03 * abs(gain))


def test_where_nothing_is_shared_a_group_is_its_rows_in_turn():
    vote, hit = drawn(4, 3, 10, slope=1.0)
    phi, hits, weight, _ = rows_of(vote, hit)
    start = Posterior(np.zeros((1, 2)), np.eye(2), -1.0)
    together, gain = assimilate_group(start, phi, hits, weight, 0.0)
    alone = start
    for row, came, w in zip(phi, hits, weight, strict=True):
        alone = assimilate(alone, row, came, w)
    np.testing.assert_allclose(together.mean, alone.mean, rtol=1e-10)
    np.testing.assert_allclose(together.covariance, alone.covariance, rtol=1e-10)
    assert (together.log_evidence, gain < 0) == (-1.0, True)
    batch = laplace(phi, hits, weight, np.zeros((1, 2)), np.eye(2))
    assert gain == pytest.approx(batch.log_evidence, abs=0.3)


def test_a_shared_surprise_says_little_of_the_level_and_much_of_the_difference():
    vote, hit = drawn(5, 40, 50, 1.0, slope=0.5)
    phi, hits, weight, bar = rows_of(vote, hit)
    prior = np.zeros((1, 2)), np.eye(2) / 9
    free = laplace(phi, hits, weight, *prior)
    held = laplace(phi, hits, weight, *prior, groups=bar, shared=1.0)
    wider = np.sqrt(np.diag(held.covariance) / np.diag(free.covariance))
    assert wider[1] > 2.5  # forty bars, not two thousand labels
    assert wider[0] < 1.3
    assert held.mean[0, 0] == pytest.approx(0.5, abs=3 * np.sqrt(held.covariance[0, 0]))


def test_groups_share_the_log_odds_of_two_sides_only():
    with pytest.raises(ValueError, match="one log-odds, not 2"):
        laplace(
            np.ones((4, 1)),
            np.zeros((4, 2)),
            np.ones(4),
            np.zeros((2, 1)),
            np.eye(2),
            groups=np.zeros(4, int),
            shared=1.0,
        )


def test_the_classifier_takes_groups_of_any_name():
    vote, hit = drawn(6, 30, 20, 2.0, slope=0.7)
    names = np.repeat([f"day {t}" for t in range(30)], 20)
    X, y = vote.reshape(-1, 1), hit.ravel()
    told = BayesianSoftmax(shared=2.0).fit(X, y, groups=names)
    deaf = BayesianSoftmax().fit(X, y)
    assert told.covariance_[1, 1] > 4 * deaf.covariance_[1, 1]
    assert told.predict_proba([[2.0]])[0, 1] < 0.5 + 1.1 * (deaf.predict_proba([[2.0]])[0, 1] - 0.5)
    with pytest.raises(ValueError, match="beyond two classes"):
        BayesianSoftmax(shared=2.0).fit(X, np.arange(len(y)) % 3, groups=names)
    with pytest.raises(ValueError, match="at least 0"):
        BayesianSoftmax(shared=-1.0).fit(X, y, groups=names)
    same = BayesianSoftmax().fit(X, y, groups=names)  # no variance: nothing is shared
    np.testing.assert_array_equal(same.mean_, deaf.mean_)


# in stage 3


def shocked(make, seed: int, times: int, assets: int):
    """A panel whose labels of a bar are all alike: nothing is to be learnt from one asset more."""
    panel, y = make(seed=seed, times=times, assets=assets, silent=0)
    bars = y.index.get_level_values("time").factorize()[0]
    sides = np.random.default_rng(0).integers(-1, 2, times)[bars].astype("int8")
    return panel, y.assign(side=sides), bars


def test_a_market_that_moves_as_one_is_few_witnesses(make):
    panel, y, _ = shocked(make, 5, 300, 6)
    stage = BayesianStacker(interactions=("context.regime",)).fit(panel, y)
    for found in stage.ties_.values():
        assert found.shared > 1
    scattered = y.assign(side=np.random.default_rng(1).permutation(y["side"]))
    loose = replace(stage).fit(panel, scattered)
    assert max(found.shared for found in loose.ties_.values()) < 0.3


def test_updates_take_labels_as_the_fit_did(make):
    panel, y, bars = shocked(make, 5, 200, 4)
    early, late = y[bars < 150], y[bars >= 150]
    stage = BayesianStacker().fit(panel, early)
    again = replace(stage).restore(State(json.loads(json.dumps(stage.state().values))))
    assert again.ties_ == stage.ties_
    pd.testing.assert_frame_equal(again.predict(panel), stage.predict(panel))
    for one in (stage, again):
        one.update(panel, late)
    pd.testing.assert_frame_equal(again.predict(panel), stage.predict(panel))


def test_a_stage_of_before_is_refused(scored):
    values = BayesianStacker().fit(*scored).state().values
    del values["moves"]["ties"]
    with pytest.raises(ArtifactError, match="how its labels are tied"):
        BayesianStacker().restore(State(values))


def test_odds_of_a_bar_to_come_allow_for_its_surprise():
    """Conditional log-odds against marginal ones, by simulation."""
    surprise = np.random.default_rng(0).normal(size=400_000)
    for shared in (0.3, 1.0, 4.0):
        marginal = logit(expit(0.5 + np.sqrt(shared) * surprise).mean()) / 0.5
        assert attenuation(shared) == pytest.approx(marginal, rel=0.08)
