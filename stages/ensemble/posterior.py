"""The Gaussian posterior of a multinomial logit: fitted at once, or moved label by label."""

from dataclasses import dataclass

import numpy as np

MAX_STEPS = 100
NEAR = 1e-6  # Newton decrement, nats, from which one more step is exact to rounding


@dataclass(frozen=True)
class Posterior:
    """Gaussian coefficients of the D = K - 1 log-odds against the reference class.

    Attributes
    ----------
    mean : float64 ndarray of shape (D, d)
    covariance : float64 ndarray of shape (D * d, D * d)
    log_evidence : float
        Laplace's approximation, nats.
    """

    mean: np.ndarray
    covariance: np.ndarray
    log_evidence: float


def laplace(
    phi: np.ndarray,
    hits: np.ndarray,
    weight: np.ndarray,
    prior_mean: np.ndarray,
    prior_variance: np.ndarray,
    start: np.ndarray | None = None,
) -> Posterior:
    """Most likely coefficients by Newton's method, and the curvature there.

    Parameters
    ----------
    phi : float64 ndarray of shape (N, d)
    hits : float64 ndarray of shape (N, D)
        1 where the row's class is that of the column; all 0 for the reference class.
    weight : float64 ndarray of shape (N,)
    prior_mean : float64 ndarray of shape (D, d)
    prior_variance : float64 ndarray of shape (d,)
    start : float64 ndarray of shape (D, d), optional
        Where Newton starts; the prior mean by default.

    References
    ----------
    MacKay (1992), "The evidence framework applied to classification networks".
    """
    D, d = prior_mean.shape
    precision = np.tile(1 / prior_variance, D)
    w = (prior_mean if start is None else start).ravel().copy()
    m0 = prior_mean.ravel()

    def objective(at: np.ndarray) -> tuple[float, np.ndarray]:
        eta = phi @ at.reshape(D, d).T
        top = np.maximum(eta.max(axis=1, keepdims=True), 0)
        norm = np.exp(-top) + np.exp(eta - top).sum(axis=1, keepdims=True)
        likelihood = weight @ ((hits * eta).sum(axis=1) - (top + np.log(norm))[:, 0])
        return 0.5 * precision @ (at - m0) ** 2 - likelihood, np.exp(eta - top) / norm

    loss, p = objective(w)
    for _ in range(MAX_STEPS):
        hessian = _curvature(phi, p, weight) + np.diag(precision)
        slope = (((p - hits) * weight[:, None]).T @ phi).ravel() + precision * (w - m0)
        step = np.linalg.solve(hessian, slope)
        decrement = float(slope @ step)
        if decrement < NEAR:
            w = w - step
            loss, p = objective(w)
            break
        size = 1.0
        while True:
            trial, p_trial = objective(w - size * step)
            if trial <= loss - 1e-4 * size * decrement or size < 1e-6:
                break
            size /= 2
        w, loss, p = w - size * step, trial, p_trial
    hessian = _curvature(phi, p, weight) + np.diag(precision)
    log_evidence = -loss + 0.5 * np.log(precision).sum() - 0.5 * np.linalg.slogdet(hessian)[1]
    covariance = np.linalg.inv(hessian)
    return Posterior(w.reshape(D, d), (covariance + covariance.T) / 2, float(log_evidence))


def _curvature(phi: np.ndarray, p: np.ndarray, weight: np.ndarray) -> np.ndarray:
    D, d = p.shape[1], phi.shape[1]
    out = np.empty((D * d, D * d))
    for a in range(D):
        for b in range(a + 1):
            r = weight * p[:, a] * ((a == b) - p[:, b])
            block = (phi * r[:, None]).T @ phi
            out[a * d : (a + 1) * d, b * d : (b + 1) * d] = block
            out[b * d : (b + 1) * d, a * d : (a + 1) * d] = block.T
    return out


def forget(posterior: Posterior, rate: float, prior_variance: np.ndarray) -> Posterior:
    """Widen a posterior by ``1 / rate``, nowhere beyond the prior.

    Rows and columns beyond the prior variance are scaled back, which keeps it a covariance.
    """
    wide = posterior.covariance / rate
    limit = np.tile(prior_variance, len(wide) // len(prior_variance))
    shrink = np.sqrt(np.minimum(1, limit / np.diag(wide)))
    wide = shrink[:, None] * wide * shrink
    return Posterior(posterior.mean, wide, posterior.log_evidence)


def assimilate(posterior: Posterior, phi: np.ndarray, hit: np.ndarray, weight: float) -> Posterior:
    """Move a posterior by one labelled row: assumed-density filtering.

    The row's Gaussian log-odds meet a quadratic of its log-likelihood, re-centred twice at the
    new mean (iterated extended Kalman step). The curvature R is never inverted, so sure odds do
    no harm.

    Parameters
    ----------
    posterior : Posterior
    phi : float64 ndarray of shape (d,)
    hit : float64 ndarray of shape (D,)
    weight : float >= 0

    References
    ----------
    Opper (1998), "A Bayesian approach to on-line learning"; McCormick, Raftery, Madigan & Burd
    (2012), "Dynamic logistic regression", Biometrics 68(1).
    """
    D, d = posterior.mean.shape
    PH = posterior.covariance.reshape(D * d, D, d) @ phi
    mu, S = posterior.mean @ phi, phi @ PH.reshape(D, d, D)
    e = mu
    for _ in range(2):
        R, p = _spread(e)
        g = np.linalg.solve(np.eye(D) + weight * R @ S, weight * (hit - p + R @ (e - mu)))
        e = mu + S @ g
    R, _ = _spread(e)
    gain = np.linalg.solve(np.eye(D) + weight * R @ S, weight * R)
    mean = posterior.mean + (PH @ g).reshape(D, d)
    covariance = posterior.covariance - PH @ gain @ PH.T
    return Posterior(mean, (covariance + covariance.T) / 2, posterior.log_evidence)


def _spread(e: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Covariance (D, D) of the one-hot class, and the odds (D,), at log-odds `e`."""
    top = max(e.max(), 0.0)
    p = np.exp(e - top)
    p = p / (np.exp(-top) + p.sum())
    return np.diag(p) - np.outer(p, p), p
