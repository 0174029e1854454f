"""The Gaussian posterior of a multinomial logit: fitted at once, or moved label by label."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from stages.ensemble.uncertainty import gaussian_rule

MAX_STEPS = 100
LEAST_ODDS = 1e-12  # an expert that was sure and wrong loses 28 nats, not all
NEAR = 1e-6  # Newton decrement, nats, from which one more step is exact to rounding
RULE = gaussian_rule(1)


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


def laplace(  # noqa: PLR0913  the rows, the prior, and what groups of rows share
    phi: np.ndarray,
    hits: np.ndarray,
    weight: np.ndarray,
    prior_mean: np.ndarray,
    prior_precision: np.ndarray,
    start: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    shared: float = 0.0,
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
    groups : int ndarray of shape (N,), optional
        Number of each row's group, from 0.
    shared : float >= 0, default=0.0
        Variance of what is added to the log-odds of all rows of a group alike. It is integrated
        out, by the same approximation; for one log-odds (D = 1) only.

    References
    ----------
    MacKay (1992), "The evidence framework applied to classification networks"; Breslow & Clayton
    (1993), "Approximate inference in generalized linear mixed models", JASA 88.
    """
    D, d = prior_mean.shape
    m0 = prior_mean.ravel()
    G = 0 if groups is None or not shared else int(groups.max(initial=-1)) + 1
    if G and D > 1:
        raise ValueError(f"groups share one log-odds, not {D}")
    loose = 1 / shared if G else 0.0
    w, u = (prior_mean if start is None else start).ravel().copy(), np.zeros(G)

    def objective(at: np.ndarray, of: np.ndarray) -> tuple[float, np.ndarray]:
        eta = phi @ at.reshape(D, d).T
        eta = eta + of[groups, None] if G else eta
        top = np.maximum(eta.max(axis=1, keepdims=True), 0)
        norm = np.exp(-top) + np.exp(eta - top).sum(axis=1, keepdims=True)
        likelihood = weight @ ((hits * eta).sum(axis=1) - (top + np.log(norm))[:, 0])
        off = at - m0
        prior = 0.5 * (off @ prior_precision @ off + loose * of @ of)
        return prior - likelihood, np.exp(eta - top) / norm

    loss, p = objective(w, u)
    for _ in range(MAX_STEPS):
        precision, both, own = _precisions(phi, p, weight, prior_precision, groups, G, loose)
        off = (p - hits) * weight[:, None]
        slope = (off.T @ phi).ravel() + prior_precision @ (w - m0)
        pull = _sums(groups, off[:, 0], G) + loose * u
        step = np.linalg.solve(precision, slope - both.T @ (pull / own))
        turn = (pull - both @ step) / own
        decrement = float(slope @ step + pull @ turn)
        if decrement < NEAR:
            w, u = w - step, u - turn
            loss, p = objective(w, u)
            break
        size = 1.0
        while True:
            trial, p_trial = objective(w - size * step, u - size * turn)
            if trial <= loss - 1e-4 * size * decrement or size < 1e-6:
                break
            size /= 2
        w, u, loss, p = w - size * step, u - size * turn, trial, p_trial
    precision, _, own = _precisions(phi, p, weight, prior_precision, groups, G, loose)
    volumes = [np.linalg.slogdet(matrix)[1] for matrix in (prior_precision, precision)]
    log_evidence = -loss + 0.5 * (volumes[0] - volumes[1] - np.log(own * shared).sum())
    covariance = np.linalg.inv(precision)
    return Posterior(w.reshape(D, d), (covariance + covariance.T) / 2, float(log_evidence))


def _precisions(  # noqa: PLR0913  the rows, the prior, and the groups
    phi: np.ndarray,
    p: np.ndarray,
    weight: np.ndarray,
    prior: np.ndarray,
    groups: np.ndarray | None,
    count: int,
    loose: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the coefficients, once G groups are integrated out; of both, (G, D d); of the groups."""
    hessian = _curvature(phi, p, weight) + prior
    if not count:
        return hessian, np.zeros((0, len(hessian))), np.ones(0)
    r = weight * p[:, 0] * (1 - p[:, 0])
    own = _sums(groups, r, count) + loose
    both = np.stack([_sums(groups, r * column, count) for column in phi.T], axis=1)
    return hessian - both.T @ (both / own[:, None]), both, own


def _sums(groups: np.ndarray | None, values: np.ndarray, count: int) -> np.ndarray:
    return np.zeros(0) if groups is None or not count else np.bincount(groups, values, count)


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


def assimilate_group(
    posterior: Posterior, phi: np.ndarray, hits: np.ndarray, weight: np.ndarray, shared: float
) -> tuple[Posterior, float]:
    """Move a posterior by labels that came together; and the log-odds it gave to all of them.

    What the rows share is one more coefficient, of variance `shared`, that is learnt along with the
    others and then integrated out. Row by row the odds of a label are those given all before it, so
    a group that went wrong together counts as one surprise, not as many.

    Parameters
    ----------
    posterior : Posterior
        Of one log-odds (D = 1).
    phi : float64 ndarray of shape (n, d)
    hits : float64 ndarray of shape (n, 1)
    weight : float64 ndarray of shape (n,)
    shared : float >= 0

    Returns
    -------
    Posterior
    float
        Weighted sum of the logarithms of the odds, nats.
    """
    d = phi.shape[1]
    mean, covariance = posterior.mean, posterior.covariance
    if shared:
        mean = np.column_stack([mean, np.zeros(1)])
        wide = np.zeros((d + 1, d + 1))
        wide[:d, :d], wide[d, d] = covariance, shared
        phi, covariance = np.column_stack([phi, np.ones(len(phi))]), wide
    mean, covariance, gain = _one_by_one(mean, covariance, phi, hits, weight, *RULE)
    moved = Posterior(
        np.ascontiguousarray(mean[:, :d]),
        np.ascontiguousarray(covariance[:d, :d]),
        posterior.log_evidence,
    )
    return moved, float(gain)


@njit(cache=True)
def _one_by_one(mean, covariance, phi, hits, weight, nodes, shares):  # type: ignore[no-untyped-def]
    """Assimilate rows of one log-odds in turn; log-odds of each, given those before it."""
    mean, covariance, gain = mean.copy(), covariance.copy(), 0.0
    d = phi.shape[1]
    PH = np.empty(d)
    for n in range(len(phi)):
        mu, S = 0.0, 0.0
        for i in range(d):
            PH[i] = 0.0
            for j in range(d):
                PH[i] += covariance[i, j] * phi[n, j]
            mu += mean[0, i] * phi[n, i]
        for i in range(d):
            S += phi[n, i] * PH[i]
        S, p = max(S, 0.0), 0.0
        for k in range(len(shares)):
            p += shares[k] / (1 + np.exp(-(mu + np.sqrt(S) * nodes[k, 0])))
        gain += weight[n] * np.log(max(p if hits[n, 0] == 1 else 1 - p, LEAST_ODDS))
        e, g = mu, 0.0
        for _ in range(2):
            p = 1 / (1 + np.exp(-e))
            R = p * (1 - p)
            g = weight[n] * (hits[n, 0] - p + R * (e - mu)) / (1 + weight[n] * R * S)
            e = mu + S * g
        p = 1 / (1 + np.exp(-e))
        R = p * (1 - p)
        shrink = weight[n] * R / (1 + weight[n] * R * S)
        for i in range(d):
            mean[0, i] += PH[i] * g
            for j in range(d):
                covariance[i, j] -= PH[i] * shrink * PH[j]
    return mean, covariance, gain


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
