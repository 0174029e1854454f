"""The Gaussian posterior of a multinomial logit: fitted at once, or moved label by label."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

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
    prior_precision: np.ndarray,
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
    prior_precision : float64 ndarray of shape (D * d, D * d)
    start : float64 ndarray of shape (D, d), optional
        Where Newton starts; the prior mean by default.

    References
    ----------
    MacKay (1992), "The evidence framework applied to classification networks".
    """
    D, d = prior_mean.shape
    w = (prior_mean if start is None else start).ravel().copy()
    m0 = prior_mean.ravel()

    def objective(at: np.ndarray) -> tuple[float, np.ndarray]:
        eta = phi @ at.reshape(D, d).T
        top = np.maximum(eta.max(axis=1, keepdims=True), 0)
        norm = np.exp(-top) + np.exp(eta - top).sum(axis=1, keepdims=True)
        likelihood = weight @ ((hits * eta).sum(axis=1) - (top + np.log(norm))[:, 0])
        off = at - m0
        return 0.5 * off @ prior_precision @ off - likelihood, np.exp(eta - top) / norm

    loss, p = objective(w)
    for _ in range(MAX_STEPS):
        hessian = _curvature(phi, p, weight) + prior_precision
        slope = (((p - hits) * weight[:, None]).T @ phi).ravel() + prior_precision @ (w - m0)
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
    hessian = _curvature(phi, p, weight) + prior_precision
    volumes = [np.linalg.slogdet(matrix)[1] for matrix in (prior_precision, hessian)]
    log_evidence = -loss + 0.5 * (volumes[0] - volumes[1])
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


def averaged(beliefs: Sequence[Posterior]) -> Posterior:
    """One Gaussian with the moments of the evidence-weighted mixture, and its mean evidence."""
    evidence = np.array([belief.log_evidence for belief in beliefs])
    share = np.exp(evidence - evidence.max())
    log_evidence = float(evidence.max() + np.log(share.mean()))
    share /= share.sum()
    mean = np.asarray(sum(w * b.mean for w, b in zip(share, beliefs, strict=True)))
    covariance = np.zeros_like(beliefs[0].covariance)
    for w, belief in zip(share, beliefs, strict=True):
        off = (belief.mean - mean).ravel()
        covariance += w * (belief.covariance + np.outer(off, off))
    return Posterior(mean, covariance, log_evidence)


def forget(
    posterior: Posterior, rate: float, prior_mean: np.ndarray, prior_precision: np.ndarray
) -> Posterior:
    """Give up the share ``1 - rate`` of what the labels said beyond the prior.

    Precisions are mixed: without new labels a posterior returns to its prior, and its covariance
    never passes the prior's.

    References
    ----------
    Kulhavy & Zarrop (1993), "On a general concept of forgetting", Int. J. Control 58(4).
    """
    known = np.linalg.inv(posterior.covariance)
    mixed = rate * known + (1 - rate) * prior_precision
    covariance = np.linalg.inv(mixed)
    said = rate * known @ posterior.mean.ravel() + (1 - rate) * prior_precision @ prior_mean.ravel()
    mean = (covariance @ said).reshape(posterior.mean.shape)
    return Posterior(mean, (covariance + covariance.T) / 2, posterior.log_evidence)


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
    mean, covariance = _assimilated(posterior.mean, posterior.covariance, phi, hit, float(weight))
    return Posterior(mean, covariance, posterior.log_evidence)


@njit(cache=True)
def _assimilated(mean, covariance, phi, hit, weight):  # type: ignore[no-untyped-def]
    D, d = mean.shape
    PH, mu, S = np.zeros((D * d, D)), np.zeros(D), np.zeros((D, D))
    for a in range(D):
        for j in range(d):
            mu[a] += mean[a, j] * phi[j]
        for i in range(D * d):
            for j in range(d):
                PH[i, a] += covariance[i, a * d + j] * phi[j]
    for a in range(D):
        for b in range(D):
            for j in range(d):
                S[a, b] += phi[j] * PH[a * d + j, b]
    e, g = mu.copy(), np.zeros(D)
    for _ in range(2):
        R, p = _spread(e)
        g = np.linalg.solve(np.eye(D) + weight * R @ S, weight * (hit - p + R @ (e - mu)))
        e = mu + S @ g
    R, p = _spread(e)
    gain = np.linalg.solve(np.eye(D) + weight * R @ S, weight * R)
    moved = mean + (PH @ g).reshape(D, d)
    narrower = covariance - PH @ gain @ PH.T
    return moved, (narrower + narrower.T) / 2


@njit(cache=True)
def _spread(e):  # type: ignore[no-untyped-def]
    """Covariance (D, D) of the one-hot class, and the odds (D,), at log-odds `e`."""
    top = max(e.max(), 0.0)
    p = np.exp(e - top)
    p = p / (np.exp(-top) + p.sum())
    return np.diag(p) - np.outer(p, p), p
