"""Dynamic model averaging: several posteriors of one logit, weighed by what they foretold."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, Self

import numpy as np
from numba import njit
from scipy.special import expit

from stages.ensemble.posterior import RULE, Posterior, assimilate_group, forget
from stages.ensemble.ties import LOOSE, Ties
from stages.ensemble.uncertainty import (
    attenuation,
    averaged_softmax,
    entropy,
    log_odds,
)

FLATTEN = 0.99  # per bar, on the log-weights within a family: Raftery et al. (2010)
LEAST = 1e-3  # weight below which no expert and no family falls, so that it can come back
SHARPNESS_SD = 0.2  # prior of the inverse temperature about 1
SHARPNESS_KEPT = 0.999  # share of what is known of it that outlives a bar
SHARPNESS_LEAST, SHARPNESS_MOST = 0.2, 5.0  # a turned market is for the experts to find
AGAINST = 0  # class index whose logit is 0


@dataclass(frozen=True)
class Family:
    """A belief about the d coefficients of a logit before any update.

    Attributes
    ----------
    share : float in (0, 1]
        Probability of the belief, prior and training rows taken together.
    posterior : Posterior
    prior_mean : float64 ndarray of shape (1, d)
    prior_precision : float64 ndarray of shape (d, d)
        What forgetting leads back to.
    """

    share: float
    posterior: Posterior
    prior_mean: np.ndarray
    prior_precision: np.ndarray


@dataclass(frozen=True)
class Said:
    """What the bank foretells of N rows.

    Attributes
    ----------
    p : float64 ndarray of shape (N, 2)
        Odds against and for, averaged over experts and their posteriors.
    aleatoric, epistemic : float64 ndarray of shape (N,)
        Nats; the spread between experts is epistemic.
    mu : float64 ndarray of shape (N, 1)
        Mean log-odds.
    experts : tuple of (weight, mu (N, 1), S (N, 1, 1))
        Those that differ.
    """

    p: np.ndarray
    aleatoric: np.ndarray
    epistemic: np.ndarray
    mu: np.ndarray
    experts: tuple[tuple[float, np.ndarray, np.ndarray], ...]


class Bank:
    """Experts of a few families, each living at its own rate of forgetting.

    Within a family the weights of the experts react in about a hundred bars, so that a market
    that turned is soon followed. Between families they add up all evidence: whether there is any
    skill at all is not a question of the last hundred bars.

    Parameters
    ----------
    families : sequence of G Family
    rates : sequence of float in (0, 1], or None
        Of the posterior's precision per bar of matured labels; None never moves: the snapshot
        taken at training.
    ties : Ties
        How labels hang together; by default not at all. An expert is judged by the odds it gave to
        all labels of a bar together, in which one common surprise counts once.

    References
    ----------
    Raftery, Karny & Ettler (2010), "Online prediction under model uncertainty via dynamic model
    averaging", Technometrics 52(1); McCormick et al. (2012), Biometrics 68(1).
    """

    def __init__(
        self,
        families: Sequence[Family],
        rates: Sequence[float | None],
        ties: Ties = LOOSE,
    ) -> None:
        self.families, self.rates, self.ties = tuple(families), tuple(rates), ties
        G, E = len(self.families), len(self.rates)
        self.posteriors = [[family.posterior] * E for family in self.families]
        self.log_family = np.log(np.array([family.share for family in self.families]))
        self.log_weight = np.full((G, E), -np.log(E))
        self.sharpness = (1.0, SHARPNESS_SD**2)  # inverse temperature: mean and variance

    @property
    def share(self) -> np.ndarray:
        """Probability of each family now, (G,)."""
        return _normalised(self.log_family)

    @property
    def mean(self) -> np.ndarray:
        """Coefficients (D, d) whose log-odds are the mean log-odds of the bank."""
        total = sum(w * posterior.mean for w, posterior in self._experts())
        return np.asarray(self.scale * total)

    @property
    def scale(self) -> float:
        """What takes log-odds given what a bar shares to those of a bar to come."""
        return self.sharpness[0] * attenuation(self.ties.shared)

    def margin(self, phi: np.ndarray) -> np.ndarray:
        """Mean log-odds of N rows, (N,): `predict` without the spread, row by row."""
        mean, total = self.mean[0], np.zeros(len(phi))
        for j in range(phi.shape[1]):
            total += mean[j] * phi[:, j]
        return total

    def predict(self, phi: np.ndarray) -> Said:
        """Foretell N rows of features, shape (N, d), intercept included; row by row."""
        scale = self.scale
        experts = []
        for weight, posterior in self._experts():
            mu, S = log_odds(phi, posterior.mean, posterior.covariance)
            mu, S = scale * mu, scale**2 * S
            p, aleatoric = averaged_softmax(mu, S, *RULE, AGAINST)
            experts.append((weight, mu, S, p, aleatoric))
        mu, p, doubt = (
            np.asarray(sum(expert[0] * expert[k] for expert in experts)) for k in (1, 3, 4)
        )
        epistemic = np.maximum(entropy(p) - doubt, 0)
        return Said(p, doubt, epistemic, mu, tuple(expert[:3] for expert in experts))

    def update(self, phi: np.ndarray, hit: np.ndarray, weight: np.ndarray) -> Self:
        """Learn from the labels that matured together, after scoring what was foretold of them.

        Parameters
        ----------
        phi : float64 ndarray of shape (n, d)
        hit : bool ndarray of shape (n,)
        weight : float64 ndarray of shape (n,)
        """
        hits, weight = hit[:, None].astype("float64"), weight / self.ties.effect
        mean = sum(w * posterior.mean for w, posterior in self._experts())
        gain = np.zeros(self.log_weight.shape)
        for g, (family, posteriors) in enumerate(zip(self.families, self.posteriors, strict=True)):
            for e, rate in enumerate(self.rates):
                belief = posteriors[e]
                if rate is not None and rate < 1:
                    belief = forget(belief, rate, family.prior_mean, family.prior_precision)
                moved, gain[g, e] = assimilate_group(belief, phi, hits, weight, self.ties.variance)
                if rate is not None:
                    posteriors[e] = moved
        self._weigh(gain)
        eta = attenuation(self.ties.shared) * (phi @ np.asarray(mean).T)
        p = expit(eta[:, 0])
        # one temperature for all rows: what a bar shares moves it
        crowd = 1 + self.ties.variance * float(weight @ (p * (1 - p)))
        self.sharpness = _sharpened(eta, hits, weight / crowd, *self.sharpness)
        return self

    def _weigh(self, gain: np.ndarray) -> None:
        """Move the weights of experts and families by the logarithms of their odds, (G, E)."""
        E = gain.shape[1]
        for g in range(len(gain)):
            flat = _floored(FLATTEN * self.log_weight[g] - (1 - FLATTEN) * np.log(E))
            foretold = flat + gain[g]
            self.log_family[g] += foretold.max() + np.log(np.exp(foretold - foretold.max()).sum())
            self.log_weight[g] = _floored(foretold)
        self.log_family = _floored(self.log_family)

    def _experts(self) -> list[tuple[float, Posterior]]:
        """Weight and posterior of every expert that differs from the ones before it."""
        out: list[tuple[float, Posterior]] = []
        weights = self.share[:, None] * np.exp(self.log_weight)
        for posteriors, row in zip(self.posteriors, weights, strict=True):
            mine: list[tuple[float, Posterior]] = []
            for posterior, weight in zip(posteriors, row.tolist(), strict=True):
                for k, (held, same) in enumerate(mine):
                    if same is posterior:
                        mine[k] = (held + weight, same)
                        break
                else:
                    mine.append((weight, posterior))
            out += mine
        return out

    def state(self) -> dict[str, Any]:
        """JSON values; floats survive exactly."""
        families = [
            {
                "share": family.share,
                "prior_mean": family.prior_mean.tolist(),
                "prior_precision": family.prior_precision.tolist(),
                "start": _listed(family.posterior),
                "moved": [
                    None if posterior is family.posterior else _listed(posterior)
                    for posterior in posteriors
                ],
            }
            for family, posteriors in zip(self.families, self.posteriors, strict=True)
        ]
        return {
            "families": families,
            "rates": list(self.rates),
            "log_family": self.log_family.tolist(),
            "log_weight": self.log_weight.tolist(),
            "sharpness": list(self.sharpness),
            "ties": [*astuple(self.ties)],
        }

    @classmethod
    def restored(cls, values: dict[str, Any]) -> "Bank":
        """The bank that gave `state`."""
        families = [
            Family(
                one["share"],
                _posterior(one["start"]),
                np.array(one["prior_mean"], dtype="float64"),
                np.array(one["prior_precision"], dtype="float64"),
            )
            for one in values["families"]
        ]
        bank = cls(families, values["rates"], Ties(*values["ties"]))
        bank.posteriors = [
            [family.posterior if moved is None else _posterior(moved) for moved in one["moved"]]
            for family, one in zip(families, values["families"], strict=True)
        ]
        bank.log_family = np.array(values["log_family"], dtype="float64")
        bank.log_weight = np.array(values["log_weight"], dtype="float64")
        bank.sharpness = (values["sharpness"][0], values["sharpness"][1])
        return bank


def _normalised(log_weight: np.ndarray) -> np.ndarray:
    weight = np.exp(log_weight - log_weight.max())
    return np.asarray(weight / weight.sum())


def _floored(log_weight: np.ndarray) -> np.ndarray:
    weight = np.maximum(_normalised(log_weight), LEAST)
    return np.asarray(np.log(weight / weight.sum()))


def _listed(posterior: Posterior) -> dict[str, Any]:
    values = {"mean": posterior.mean.tolist(), "covariance": posterior.covariance.tolist()}
    return values | {"log_evidence": posterior.log_evidence}


def _posterior(values: dict[str, Any]) -> Posterior:
    mean, covariance = (np.array(values[k], dtype="float64") for k in ("mean", "covariance"))
    return Posterior(mean, covariance, values["log_evidence"])


@njit(cache=True)
def _sharpened(eta, hits, weight, mean, variance):  # type: ignore[no-untyped-def]
    """Inverse temperature after n rows of log-odds (n, 1) at temperature 1: one Newton step each.

    Guo et al. (2017), "On calibration of modern neural networks", here learnt online.
    """
    known, prior = SHARPNESS_KEPT / variance, (1 - SHARPNESS_KEPT) / SHARPNESS_SD**2
    mean = (known * mean + prior) / (known + prior)
    variance = 1 / (known + prior)
    for n in range(len(eta)):
        p = 1 / (1 + np.exp(-mean * eta[n, 0]))
        variance = 1 / (1 / variance + weight[n] * p * (1 - p) * eta[n, 0] ** 2)
        mean += variance * weight[n] * (hits[n, 0] - p) * eta[n, 0]
        mean = min(max(mean, SHARPNESS_LEAST), SHARPNESS_MOST)
    return mean, variance
