import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import entropy as shannon

from stages.ensemble.uncertainty import averaged_softmax, entropy, gaussian_rule, log_odds, softmax


@pytest.mark.parametrize("dims", [1, 2, 3, 4, 9])
def test_the_rule_has_the_moments_of_a_normal_vector_and_positive_weights(dims):
    nodes, weights = gaussian_rule(dims)
    assert (weights > 0).all()
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights @ nodes, 0, atol=1e-12)
    np.testing.assert_allclose((nodes * weights[:, None]).T @ nodes, np.eye(dims), atol=1e-12)


@pytest.mark.parametrize("dims", [1, 2, 3, 5])
def test_averaged_odds_match_a_million_draws(dims):
    rng = np.random.default_rng(dims)
    mu, root = rng.normal(size=dims), 0.5 * np.tril(rng.normal(size=(dims, dims)))
    p, aleatoric = averaged_softmax(mu[None], (root @ root.T)[None], *gaussian_rule(dims), 0)
    eta = np.column_stack([np.zeros(200_000), mu + rng.normal(size=(200_000, dims)) @ root.T])
    draws = np.exp(eta - logsumexp(eta, axis=1, keepdims=True))
    # beyond three log-odds the rule is of third degree only
    tolerance = 4e-3 if dims <= 3 else 3e-2
    np.testing.assert_allclose(p[0], draws.mean(axis=0), atol=tolerance)
    np.testing.assert_allclose(aleatoric, shannon(draws, axis=1).mean(), atol=2 * tolerance)


def test_sure_log_odds_leave_only_aleatoric_doubt():
    eta = np.array([[0.3, -1.2], [400.0, -800.0]])
    sure, doubt = averaged_softmax(eta, np.zeros((2, 2, 2)), *gaussian_rule(2), 1)
    p, own = softmax(eta, 1)
    np.testing.assert_allclose(sure, p, rtol=1e-12)
    np.testing.assert_allclose(doubt, own, atol=1e-12)
    np.testing.assert_allclose(entropy(p), own, atol=1e-12)
    np.testing.assert_allclose(p[0], np.exp([0.3, 0, -1.2]) / np.exp([0.3, 0, -1.2]).sum())


def test_a_reference_may_stand_anywhere():
    eta = np.array([[0.3, -1.2]])
    for reference, order in ((0, [0, 0.3, -1.2]), (2, [0.3, -1.2, 0])):
        np.testing.assert_allclose(
            softmax(eta, reference)[0][0], np.exp(order) / np.exp(order).sum()
        )


def test_what_is_unknown_stays_unknown():
    mu, S = np.array([[np.nan, 0.0]]), np.zeros((1, 2, 2))
    p, aleatoric = averaged_softmax(mu, S, *gaussian_rule(2), 1)
    assert np.isnan(p).all()
    assert np.isnan(aleatoric).all()
    assert np.isnan(softmax(mu, 1)[0]).all()
    assert np.isnan(entropy(p)).all()


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 30))
def test_epistemic_doubt_is_never_negative_and_odds_sum_to_one(seed, scale):
    rng = np.random.default_rng(seed)
    root = scale * rng.normal(size=(2, 2))
    mu = 3 * rng.normal(size=(1, 2))
    p, aleatoric = averaged_softmax(mu, (root @ root.T)[None], *gaussian_rule(2), 1)
    assert p.sum() == pytest.approx(1)
    assert entropy(p)[0] - aleatoric[0] > -1e-12


def test_log_odds_of_a_row_match_the_matrix_formula():
    rng = np.random.default_rng(0)
    phi, mean, root = rng.normal(size=(5, 3)), rng.normal(size=(2, 3)), rng.normal(size=(6, 6))
    covariance = root @ root.T
    mu, S = log_odds(phi, mean, covariance)
    H = np.stack([np.kron(np.eye(2), row) for row in phi])
    np.testing.assert_allclose(mu, phi @ mean.T)
    np.testing.assert_allclose(S, H @ covariance @ H.transpose(0, 2, 1))
