"""Chances and their two kinds of doubt, from a Gaussian over log-odds or from several opinions.

Every function works row by row in a fixed order, so that the values of a row do not depend on
how many rows come along.
"""

from itertools import product

import numpy as np
from numba import njit

NODES = 7  # Gauss-Hermite nodes per log-odds
PRODUCT = 400  # most nodes of the product rule: three log-odds


def gaussian_rule(dims: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights that integrate over a standard normal vector.

    Parameters
    ----------
    dims : int >= 1
        Log-odds of the model: one less than its classes.

    Returns
    -------
    nodes : float64 ndarray of shape (Q, dims)
    weights : float64 ndarray of shape (Q,)
        Positive, so that averaged odds are odds; they sum to 1.

    Notes
    -----
    Up to three log-odds the product of 7-point Gauss-Hermite rules. Beyond, its nodes would
    explode, and the spherical-radial cubature of degree 3 takes over, two nodes per log-odds:
    Arasaratnam & Haykin (2009), "Cubature Kalman filters", IEEE TAC 54(6), eq. 32.
    """
    if NODES**dims <= PRODUCT:
        x, w = np.polynomial.hermite_e.hermegauss(NODES)
        nodes = np.array(list(product(x, repeat=dims)))
        weights = np.prod(list(product(w / w.sum(), repeat=dims)), axis=1)
        return nodes, weights / weights.sum()
    nodes = np.sqrt(dims) * np.concatenate([np.eye(dims), -np.eye(dims)])
    return nodes, np.full(2 * dims, 0.5 / dims)


def attenuation(shared: float) -> float:
    """What takes log-odds given a shared effect of this variance to those where it is unknown.

    References
    ----------
    Zeger, Liang & Albert (1988), "Models for longitudinal data", Biometrics 44, eq. 3.4.
    """
    return float(1 / np.sqrt(1 + 16**2 * 3 / (15 * np.pi) ** 2 * shared))


@njit(cache=True)
def log_odds(phi, mean, covariance):  # type: ignore[no-untyped-def]
    """Mean and covariance of each row's log-odds under Gaussian coefficients.

    Parameters
    ----------
    phi : float64 ndarray of shape (N, d)
    mean : float64 ndarray of shape (D, d)
    covariance : float64 ndarray of shape (D * d, D * d)

    Returns
    -------
    mu : float64 ndarray of shape (N, D)
    S : float64 ndarray of shape (N, D, D)
    """
    N, d = phi.shape
    D = mean.shape[0]
    mu, S = np.zeros((N, D)), np.zeros((N, D, D))
    for n in range(N):
        for a in range(D):
            for j in range(d):
                mu[n, a] += mean[a, j] * phi[n, j]
            for b in range(a + 1):
                total = 0.0
                for i in range(d):
                    inner = 0.0
                    for j in range(d):
                        inner += covariance[a * d + i, b * d + j] * phi[n, j]
                    total += phi[n, i] * inner
                S[n, a, b] = S[n, b, a] = total
    return mu, S


@njit(cache=True)
def _root(S):  # type: ignore[no-untyped-def]
    """Lower triangular L with L L' = S; what rounding made negative counts as 0."""
    D = S.shape[0]
    L = np.zeros((D, D))
    for a in range(D):
        for b in range(a + 1):
            rest = S[a, b]
            for j in range(b):
                rest -= L[a, j] * L[b, j]
            if a == b:
                L[a, a] = np.sqrt(rest) if not rest < 0 else 0.0  # NaN stays NaN
            elif L[b, b] != 0:
                L[a, b] = rest / L[b, b]
    return L


@njit(cache=True)
def _softmax(eta, reference, out):  # type: ignore[no-untyped-def]
    """Write the odds of K classes into `out`; return their entropy in nats."""
    K = out.shape[0]
    top = 0.0
    for a in range(K - 1):
        top = max(top, eta[a])
    total = 0.0
    for k in range(K):
        logit = 0.0 if k == reference else eta[k if k < reference else k - 1]
        out[k] = np.exp(logit - top)
        total += out[k]
    doubt = 0.0
    for k in range(K):
        out[k] /= total
        if out[k] > 0:
            doubt -= out[k] * np.log(out[k])
    return doubt


@njit(cache=True)
def averaged_softmax(mu, S, nodes, weights, reference):  # type: ignore[no-untyped-def]
    """Odds averaged over Gaussian log-odds, and the mean entropy of the odds averaged.

    Parameters
    ----------
    mu : float64 ndarray of shape (N, K - 1)
    S : float64 ndarray of shape (N, K - 1, K - 1)
    nodes, weights : float64 ndarrays
        See `gaussian_rule`.
    reference : int
        Class whose logit is 0.

    Returns
    -------
    p : float64 ndarray of shape (N, K)
    aleatoric : float64 ndarray of shape (N,)
        Nats; ``entropy(p) - aleatoric`` is the epistemic part.
    """
    N, D = mu.shape
    p, aleatoric = np.zeros((N, D + 1)), np.zeros(N)
    eta, odds = np.empty(D), np.empty(D + 1)
    for n in range(N):
        L = _root(S[n])
        for q in range(len(weights)):
            for a in range(D):
                eta[a] = mu[n, a]
                for b in range(a + 1):
                    eta[a] += L[a, b] * nodes[q, b]
            aleatoric[n] += weights[q] * _softmax(eta, reference, odds)
            for k in range(D + 1):
                p[n, k] += weights[q] * odds[k]
        if np.isnan(mu[n]).any():
            p[n], aleatoric[n] = np.nan, np.nan
    return p, aleatoric


@njit(cache=True)
def softmax(eta, reference):  # type: ignore[no-untyped-def]
    """Odds (N, K) of log-odds (N, K - 1) against class `reference`, and their entropies (N,)."""
    N, D = eta.shape
    p, doubt = np.empty((N, D + 1)), np.empty(N)
    for n in range(N):
        doubt[n] = _softmax(eta[n], reference, p[n])
        if np.isnan(eta[n]).any():
            p[n], doubt[n] = np.nan, np.nan
    return p, doubt


@njit(cache=True)
def entropy(p):  # type: ignore[no-untyped-def]
    """Shannon entropy of each row of `p`, shape (N, K), in nats."""
    N, K = p.shape
    out = np.zeros(N)
    for n in range(N):
        for k in range(K):
            if p[n, k] > 0:
                out[n] -= p[n, k] * np.log(p[n, k])
            elif np.isnan(p[n, k]):
                out[n] = np.nan
    return out
