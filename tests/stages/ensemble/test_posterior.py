import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_t, norm
from statsmodels.api import MNLogit

from stages.ensemble.posterior import Posterior, assimilate, forget, laplace


def draw(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features with an intercept, and one-hot classes of a known multinomial logit."""
    rng = np.random.default_rng(seed)
    phi = np.column_stack([rng.normal(size=(n, 2)), np.ones(n)])
    eta = np.column_stack([np.zeros(n), phi @ [[0.8, -0.5], [0.3, 0.6], [0.2, -0.4]]])
    side = (eta + rng.gumbel(size=(n, 3))).argmax(axis=1)
    return phi, np.eye(3)[side]


def log_posterior(w: np.ndarray, phi: np.ndarray, hits: np.ndarray, sd: np.ndarray) -> np.ndarray:
    eta = np.einsum("nj,sdj->snd", phi, w.reshape(-1, 2, 3))
    eta = np.concatenate([np.zeros((*eta.shape[:2], 1)), eta], axis=2)
    likelihood = (eta * hits).sum(axis=(1, 2)) - logsumexp(eta, axis=2).sum(axis=1)
    return likelihood + norm.logpdf(w, scale=np.tile(sd, 2)).sum(axis=1)


def test_a_flat_prior_gives_what_statsmodels_gives():
    phi, hits = draw(800)
    found = laplace(phi, hits[:, 1:], np.ones(800), np.zeros((2, 3)), 1e-12 * np.eye(6))
    oracle = MNLogit(hits.argmax(axis=1), phi).fit(disp=False)
    np.testing.assert_allclose(found.mean, oracle.params.T, atol=1e-6)
    np.testing.assert_allclose(found.covariance, oracle.cov_params(), atol=1e-6)


def test_mean_spread_and_evidence_match_importance_sampling():
    phi, hits = draw(150)
    sd = np.array([1.0, 1.0, 3.0])
    found = laplace(
        phi, hits[:, 1:], np.ones(150), np.zeros((2, 3)), np.diag(np.tile(1 / sd**2, 2))
    )
    wide = multivariate_t(found.mean.ravel(), found.covariance, df=5)
    w = wide.rvs(10_000, random_state=0)
    log_weight = log_posterior(w, phi, hits, sd) - wide.logpdf(w)
    weight = np.exp(log_weight - logsumexp(log_weight))
    mean = weight @ w
    spread = np.sqrt(weight @ (w - mean) ** 2)
    own = np.sqrt(np.diag(found.covariance))
    assert (np.abs(mean - found.mean.ravel()) < 0.2 * spread).all()
    assert ((own / spread > 0.8) & (own / spread < 1.25)).all()
    assert found.log_evidence == pytest.approx(logsumexp(log_weight) - np.log(10_000), abs=0.3)


def test_a_weight_of_two_is_the_row_twice():
    phi, hits = draw(100)
    prior = np.zeros((2, 3)), np.eye(6)
    double = laplace(phi, hits[:, 1:], np.full(100, 2.0), *prior)
    twice = laplace(np.tile(phi, (2, 1)), np.tile(hits[:, 1:], (2, 1)), np.ones(200), *prior)
    np.testing.assert_allclose(double.mean, twice.mean, atol=1e-9)
    np.testing.assert_allclose(double.covariance, twice.covariance, atol=1e-9)


def test_newton_finds_the_peak_from_far_away():
    phi, hits = draw(200)
    prior = np.zeros((2, 3)), 0.1 * np.eye(6)
    near = laplace(phi, hits[:, 1:], np.ones(200), *prior)
    far = laplace(phi, hits[:, 1:], np.ones(200), *prior, start=np.full((2, 3), 40.0))
    np.testing.assert_allclose(far.mean, near.mean, atol=1e-6)


def stream(phi: np.ndarray, hits: np.ndarray, prior: Posterior, weight: float = 1.0) -> Posterior:
    for row, hit in zip(phi, hits[:, 1:], strict=True):
        prior = assimilate(prior, row, hit, weight)
    return prior


def test_row_by_row_ends_where_the_batch_ends():
    phi, hits = draw(2000)
    batch = laplace(phi, hits[:, 1:], np.ones(2000), np.zeros((2, 3)), np.eye(6))
    online = stream(phi, hits, Posterior(np.zeros((2, 3)), np.eye(6), np.nan))
    sd = np.sqrt(np.diag(batch.covariance))
    assert (np.abs(online.mean - batch.mean).ravel() < 0.2 * sd).all()
    ratio = np.sqrt(np.diag(online.covariance)) / sd
    assert ((ratio > 0.8) & (ratio < 1.25)).all()


def test_a_weight_of_zero_teaches_nothing():
    prior = Posterior(np.zeros((2, 3)), np.eye(6), np.nan)
    phi, hits = draw(1)
    same = assimilate(prior, phi[0], hits[0, 1:], 0.0)
    np.testing.assert_array_equal(same.mean, prior.mean)
    np.testing.assert_array_equal(same.covariance, prior.covariance)


def test_sure_odds_do_no_harm():
    prior = Posterior(np.full((2, 3), 300.0), np.eye(6), np.nan)
    wrong = assimilate(prior, np.ones(3), np.zeros(2), 1.0)
    assert np.isfinite(wrong.mean).all()
    assert wrong.mean.sum() < prior.mean.sum()


def test_the_spread_stays_a_covariance_over_a_long_forgetful_stream():
    phi, hits = draw(10_000, seed=1)
    belief, prior = Posterior(np.zeros((2, 3)), np.eye(6), np.nan), (np.zeros((2, 3)), np.eye(6))
    for row, hit in zip(phi, hits[:, 1:], strict=True):
        belief = assimilate(forget(belief, 0.99, *prior), row, hit, 1.0)
    values = np.linalg.eigvalsh(belief.covariance)
    assert values.min() > 0
    np.testing.assert_array_equal(belief.covariance, belief.covariance.T)


def test_forgetting_leads_back_to_the_prior_and_no_further():
    narrow = Posterior(np.ones((2, 2)), 0.1 * np.eye(4), np.nan)
    prior = np.zeros((2, 2)), np.diag([1.0, 4.0, 1.0, 4.0])
    once = forget(narrow, 0.5, *prior)
    np.testing.assert_allclose(np.linalg.inv(once.covariance), 0.5 * (10 * np.eye(4) + prior[1]))
    far = narrow
    for _ in range(60):
        far = forget(far, 0.5, *prior)
    np.testing.assert_allclose(far.covariance, np.linalg.inv(prior[1]), atol=1e-9)
    np.testing.assert_allclose(far.mean, prior[0], atol=1e-9)


def polya_gamma(c: np.ndarray, rng: np.random.Generator, terms: int = 120) -> np.ndarray:
    """Draws of PG(1, c) by its sum of gammas (Polson, Scott & Windle 2013), tail by its mean."""
    k = np.arange(1, terms + 1) - 0.5
    spread = k**2 + (c[:, None] / (2 * np.pi)) ** 2
    drawn = (rng.exponential(size=spread.shape) / spread).sum(axis=1)
    mean = np.where(np.abs(c) < 1e-6, 0.25, np.tanh(c / 2) / (2 * np.where(c == 0, 1, c)))
    rest = mean - (1 / spread).sum(axis=1) / (2 * np.pi**2)
    return drawn / (2 * np.pi**2) + rest


def test_a_long_polya_gamma_chain_agrees():
    """Gibbs draws of the exact posterior of two classes: mean within .2 sd, sd within a quarter."""
    rng = np.random.default_rng(3)
    phi = np.column_stack([rng.normal(size=(120, 2)), np.ones(120)])
    hit = (rng.random(120) < 1 / (1 + np.exp(-phi @ [0.9, -0.4, 0.3]))).astype(float)
    found = laplace(phi, hit[:, None], np.ones(120), np.zeros((1, 3)), np.eye(3))
    w, draws = np.zeros(3), []
    for _ in range(3000):
        omega = polya_gamma(phi @ w, rng)
        covariance = np.linalg.inv((phi * omega[:, None]).T @ phi + np.eye(3))
        w = rng.multivariate_normal(covariance @ (phi.T @ (hit - 0.5)), covariance)
        draws.append(w)
    chain = np.array(draws[200:])
    sd = np.sqrt(np.diag(found.covariance))
    assert (np.abs(chain.mean(axis=0) - found.mean[0]) < 0.2 * sd).all()
    assert ((sd / chain.std(axis=0) > 0.8) & (sd / chain.std(axis=0) < 1.25)).all()
