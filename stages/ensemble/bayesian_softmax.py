"""A scikit-learn classifier that knows how sure it is: Bayesian multinomial logit."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from stages.ensemble.posterior import Posterior, assimilate, averaged, forget, laplace
from stages.ensemble.uncertainty import (
    attenuation,
    averaged_softmax,
    entropy,
    gaussian_rule,
    log_odds,
)

TAUS = tuple(10.0**power for power in range(-6, 2))
INTERCEPT_VARIANCE = 9.0  # a sd of 3 log-odds leaves any base rate open


class BayesianSoftmax(ClassifierMixin, BaseEstimator):
    """Multinomial logit with a Gaussian posterior, batch or online.

    Parameters
    ----------
    reference : class label, optional
        Class whose logit is 0; the first one by default.
    tau : float > 0, optional
        Prior variance of each coefficient; None averages over 1e-6 ... 10 by evidence.
    prior_mean : array-like of shape (K - 1, n_features + 1) or (G, K - 1, n_features + 1), optional
        Guesses at the coefficients, the intercept last; the posterior averages over all of them
        by evidence. Classes ascend, without the reference. 0 by default.
    intercept_variance : float > 0, optional
        Prior variance of the intercepts; the default, 9, leaves any base rate open. None gives
        them the variance of the coefficients: for features that hold a base rate already.
    forget : float in (0, 1], default=1.0
        Each `partial_fit` first gives up the share ``1 - forget`` of what earlier rows said; 1
        forgets nothing.
    shared : float >= 0, default=0.0
        Variance of what is added to the log-odds of all rows of a group alike, for two classes; see
        `fit`. Odds are those of a row of a new group.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
    mean_ : float64 ndarray of shape (K - 1, n_features + 1)
        Posterior mean; the last column is the intercept.
    covariance_ : float64 ndarray of shape ((K - 1) * (n_features + 1),) * 2
    tau_ : float
        Prior variance of the likeliest prior.
    prior_mean_ : float64 ndarray of shape (K - 1, n_features + 1)
    prior_precision_ : float64 ndarray of shape ((K - 1) * (n_features + 1),) * 2
        Of the likeliest prior: what is left when all is forgotten.
    log_evidence_ : float
        Of all priors in equal parts, nats; NaN if the model has only seen `partial_fit`.

    Notes
    -----
    Sample weights count rows: weight 2 is the same row twice. `partial_fit` knows no groups.

    Priors are averaged, not chosen: a choice forgets that "no skill" was almost as likely as
    "trust the members", and is then far too sure of its margin. The average is brought back to
    one Gaussian by its first two moments.

    References
    ----------
    Bishop (2006), "Pattern Recognition and Machine Learning", sections 4.4 and 4.5; Hoeting et
    al. (1999), "Bayesian model averaging", Statistical Science 14(4).
    """

    def __init__(
        self,
        reference: Any = None,
        tau: float | None = None,
        prior_mean: ArrayLike | None = None,
        intercept_variance: float | None = INTERCEPT_VARIANCE,
        forget: float = 1.0,
        shared: float = 0.0,
    ) -> None:
        self.reference = reference
        self.tau = tau
        self.prior_mean = prior_mean
        self.intercept_variance = intercept_variance
        self.forget = forget
        self.shared = shared

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Learn from all rows at once.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
            Two or more classes.
        sample_weight : array-like of shape (n_samples,), optional
        groups : array-like of shape (n_samples,), optional
            Rows of one label share an effect, where `shared` is above 0.
        """
        X, y = self._checked(X, y, reset=True)
        weight = _check_sample_weight(sample_weight, X, dtype="float64", ensure_non_negative=True)
        check_classification_targets(y)
        self._open(unique_labels(y))
        phi, hits = _with_intercept(X), self._hits(y)
        together = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
        found: list[tuple[float, np.ndarray, Posterior]] = []
        for m0 in self._prior_means(X.shape[1]):
            start = None
            for tau in (self.tau,) if self.tau is not None else TAUS:
                precision = self._precision(tau, X.shape[1])
                belief = laplace(phi, hits, weight, m0, precision, start, together, self.shared)
                start = belief.mean  # the next tau is never far
                found.append((float(tau), m0, belief))
        self.tau_, self.prior_mean_, _ = max(found, key=lambda prior: prior[2].log_evidence)
        self.prior_precision_ = self._precision(self.tau_, X.shape[1])
        whole = averaged([belief for *_, belief in found])
        self.mean_, self.covariance_ = whole.mean, whole.covariance
        self.log_evidence_ = whole.log_evidence
        return self

    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: Sequence[Any] | np.ndarray | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Move the posterior through the rows in order, after forgetting once.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
        classes : array-like of shape (K,), optional
            All classes; needed where `fit` has not run.
        sample_weight : array-like of shape (n_samples,), optional
        """
        first = not hasattr(self, "mean_")
        X, y = self._checked(X, y, reset=first)
        weight = _check_sample_weight(sample_weight, X, dtype="float64", ensure_non_negative=True)
        if first:
            self._open(unique_labels(y if classes is None else classes))
            self.tau_ = float(1.0 if self.tau is None else self.tau)
            self.log_evidence_ = float("nan")
            self.mean_ = np.zeros((len(self.classes_) - 1, X.shape[1] + 1))
            self.prior_mean_ = self.mean_.copy()
            self.prior_precision_ = self._precision(self.tau_, X.shape[1])
            self.covariance_ = np.linalg.inv(self.prior_precision_)
        belief = Posterior(self.mean_, self.covariance_, self.log_evidence_)
        if self.forget < 1:
            belief = forget(belief, self.forget, self.prior_mean_, self.prior_precision_)
        for phi, hit, w in zip(_with_intercept(X), self._hits(y), weight, strict=True):
            belief = assimilate(belief, phi, hit, w)
        self.mean_, self.covariance_ = belief.mean, belief.covariance
        return self

    def posterior(self, X: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Mean (N, K - 1) and covariance (N, K - 1, K - 1) of the log-odds of each row."""
        check_is_fitted(self, "mean_")
        X = np.asarray(validate_data(self, X, dtype="float64", reset=False))
        mu, S = log_odds(_with_intercept(X), self.mean_, self.covariance_)
        scale = attenuation(self.shared)
        return scale * mu, scale**2 * S

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Odds of each class, averaged over the posterior: shape (N, K)."""
        return self._average(*self.posterior(X))[0]

    def uncertainty(self, X: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Epistemic and aleatoric doubt of each row, nats: what more rows would cure, and not."""
        p, aleatoric = self._average(*self.posterior(X))
        return np.maximum(entropy(p) - aleatoric, 0), aleatoric

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Likeliest class of each row."""
        check_is_fitted(self, "mean_")
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def _average(self, mu: np.ndarray, S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return averaged_softmax(mu, S, *gaussian_rule(mu.shape[1]), self._reference())

    def _checked(self, X: ArrayLike, y: ArrayLike, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        X, y = validate_data(self, X, y, dtype="float64", reset=reset)
        return np.asarray(X), np.asarray(y)

    def _open(self, classes: np.ndarray) -> None:
        if self.tau is not None and not self.tau > 0:
            raise ValueError(f"tau must be above 0, got {self.tau}")
        if self.intercept_variance is not None and not self.intercept_variance > 0:
            raise ValueError(f"intercept_variance must be above 0, got {self.intercept_variance}")
        if not 0 < self.forget <= 1:
            raise ValueError(f"forget must lie in (0, 1], got {self.forget}")
        if not self.shared >= 0 or (self.shared and len(classes) > 2):
            raise ValueError(f"shared must be at least 0, and 0 beyond two classes: {self.shared}")
        if len(classes) < 2:
            raise ValueError(f"needs two or more classes, got one class: {classes.tolist()}")
        if self.reference is not None and self.reference not in classes:
            raise ValueError(f"reference {self.reference!r} is not one of the classes {classes}")
        self.classes_ = classes

    def _reference(self) -> int:
        if self.reference is None:
            return 0
        return int(np.flatnonzero(self.classes_ == self.reference)[0])

    def _hits(self, y: np.ndarray) -> np.ndarray:
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(f"y holds {unknown.tolist()}, which are none of {self.classes_}")
        return (y[:, None] == np.delete(self.classes_, self._reference())).astype("float64")

    def _precision(self, tau: float, features: int) -> np.ndarray:
        own = tau if self.intercept_variance is None else self.intercept_variance
        variance = np.append(np.full(features, tau), own)
        return np.diag(np.tile(1 / variance, len(self.classes_) - 1))

    def _prior_means(self, features: int) -> np.ndarray:
        """Guesses of shape (G, K - 1, n_features + 1)."""
        shape = (len(self.classes_) - 1, features + 1)
        if self.prior_mean is None:
            return np.zeros((1, *shape))
        given = np.asarray(self.prior_mean, dtype="float64")
        if given.shape[-2:] != shape or given.ndim not in (2, 3):
            raise ValueError(f"prior_mean has shape {given.shape}, not {shape}")
        return given.reshape(-1, *shape)


def _with_intercept(X: np.ndarray) -> np.ndarray:
    return np.column_stack([X, np.ones(len(X))])
