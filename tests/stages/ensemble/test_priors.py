"""What a posterior over several priors is worth beside the priors themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from stages.ensemble.bayesian_softmax import TAUS, BayesianSoftmax
from stages.ensemble.posterior import laplace


def beliefs(X, y, m0, taus):
    """Laplace posteriors of a two-class model under each prior."""
    phi = np.column_stack([X, np.ones(len(X))])
    hits = (y == 1)[:, None].astype(float)
    out = []
    for mean in m0:
        for tau in taus:
            prior = np.diag(1 / np.append(np.full(X.shape[1], tau), 9.0))
            out.append(laplace(phi, hits, np.ones(len(X)), np.asarray(mean), prior, None))
    return out


def sample(seed: int, n: int, slope: float, features: int = 1):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, features))
    return X, (rng.random(n) < expit(slope * X[:, 0] - 0.3)).astype(int)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(5, 80), slope=st.floats(-2, 2))
def test_the_posterior_has_the_moments_of_the_mixture(seed, n, slope):
    """The mean, and by the law of total variance the covariance, of all priors together."""
    X, y = sample(seed, n, slope, features=2)
    if len(set(y)) < 2:
        return
    guesses = [np.zeros((1, 3)), [[0.7, 0.1, 0.0]]]
    model = BayesianSoftmax(prior_mean=guesses).fit(X, y)
    all_ = beliefs(X, y, guesses, TAUS)
    evidence = np.array([b.log_evidence for b in all_])
    share = np.exp(evidence - np.logaddexp.reduce(evidence))
    means = np.array([b.mean.ravel() for b in all_])
    centre = share @ means
    within = np.einsum("i,ijk->jk", share, np.array([b.covariance for b in all_]))
    between = np.einsum("i,ij,ik->jk", share, means - centre, means - centre)
    # Newton stops where it stops: the fit starts each prior from the one before, this does not
    np.testing.assert_allclose(model.mean_.ravel(), centre, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.covariance_, within + between, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(model.covariance_, model.covariance_.T)
    assert np.linalg.eigvalsh(model.covariance_).min() > 0
    assert model.tau_ == (TAUS * 2)[evidence.argmax()]
    assert model.log_evidence_ == pytest.approx(
        np.logaddexp.reduce(evidence) - np.log(len(evidence))
    )


def test_one_prior_is_its_own_average():
    X, y = sample(0, 60, 1.0)
    model = BayesianSoftmax(tau=0.5).fit(X, y)
    (only,) = beliefs(X, y, [np.zeros((1, 2))], [0.5])
    np.testing.assert_allclose(model.mean_, only.mean, atol=1e-9)
    np.testing.assert_allclose(model.covariance_, only.covariance, atol=1e-9)


@pytest.mark.parametrize(("seed", "slope"), [(1, 0.0), (2, 0.5), (3, 1.2)])
def test_the_average_is_that_of_exact_integration(seed, slope):
    """No Laplace: priors, evidence and moments summed over a fine grid of both coefficients."""
    X, y = sample(seed, 60, slope)
    model = BayesianSoftmax().fit(X, y)
    w, b = np.meshgrid(np.linspace(-6, 6, 801), np.linspace(-6, 6, 121), indexing="ij")
    eta = w[..., None] * X[:, 0] + b[..., None]
    fit = np.where(y == 1, -np.logaddexp(0, -eta), -np.logaddexp(0, eta)).sum(axis=-1)
    density = np.zeros_like(fit)
    for tau in TAUS:
        if tau < 1e-3:  # narrower than the grid: a spike at 0
            spike = np.zeros(len(w))
            spike[len(w) // 2] = 1
        else:
            spike = np.exp(-(w[:, 0] ** 2) / (2 * tau))
            spike /= spike.sum()
        density += spike[:, None] * np.exp(fit - fit.max()) * np.exp(-(b**2) / 18)
    density /= density.sum()
    mean = (density * w).sum()
    sd = np.sqrt((density * (w - mean) ** 2).sum())
    assert model.mean_[0, 0] == pytest.approx(mean, abs=0.15 * sd + 0.01)
    assert np.sqrt(model.covariance_[0, 0]) == pytest.approx(sd, rel=0.15)


def test_where_no_skill_is_nearly_as_likely_the_average_is_less_sure_than_the_choice():
    """The failure it cures: the likeliest prior alone forgets how near the others were."""
    chosen_skill = 0
    for seed in range(20):
        X, y = sample(seed, 40, 0.8)
        model = BayesianSoftmax().fit(X, y)
        chosen = BayesianSoftmax(tau=model.tau_).fit(X, y)
        if model.tau_ >= 0.1:  # skill was chosen
            sure = [abs(m.mean_[0, 0]) / np.sqrt(m.covariance_[0, 0]) for m in (model, chosen)]
            chosen_skill += 1
            assert sure[0] < sure[1]
    assert chosen_skill >= 5


def test_much_evidence_leaves_one_prior():
    X, y = sample(0, 4000, 1.5)
    model = BayesianSoftmax().fit(X, y)
    chosen = BayesianSoftmax(tau=model.tau_).fit(X, y)
    np.testing.assert_allclose(model.mean_, chosen.mean_, atol=0.02)
    np.testing.assert_allclose(model.covariance_, chosen.covariance_, rtol=0.05, atol=1e-5)
