"""Stage 3: weigh the members by what their out-of-fold word was worth, and say how surely."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from stages.base import Attribution, DataError, State, fitted
from stages.ensemble.bayesian_softmax import BayesianSoftmax
from stages.ensemble.logits import COLUMNS, HOLD, MemberLogits, Said, refuse_silence
from stages.ensemble.uncertainty import averaged_softmax, entropy, gaussian_rule, log_odds
from stages.panel import check_labels, check_panel, last_rows, named
from stages.signal import SIDES

log = logging.getLogger(__name__)

BLOCK = 20  # bars: a trading month
CLIP = 5.0  # training sds beyond which a context says no more


@dataclass
class BayesianStacker:
    """Bayesian multinomial logit over all members' logits and the context.

    Parameters
    ----------
    context : bool or sequence of str, default=True
        Context columns to read: all, none, or these.
    interactions : sequence of str, default=()
        Context columns that also turn the members' mean logit pair up or down. One that the
        panel lacks is left out, with a logged line.
    forget : float in (0, 1], default=1.0
        Factor on the posterior's precision per bar of matured labels; 1 forgets nothing.
    tau : float > 0, optional
        Prior variance of the weights; None takes the best by evidence.

    Attributes
    ----------
    model_ : BayesianSoftmax
        Its features: all logits, all contexts, then (sell, buy) times each interaction.
    logits_ : MemberLogits
    contexts_, interactions_ : tuple of str
    center_, spread_ : float64 ndarray of shape (contexts,)
        Mean and sd of the contexts over the training rows.
    design_effect_ : float >= 1
        Labels that count as one, because assets move together and surprises persist.

    Notes
    -----
    The prior mean is 0, the equal-weight vote of the members, or their vote on hold alone: the
    posterior averages over them by evidence. Members that foresee how much a market moves need
    not foresee which way. A context that is NaN counts as its training mean.

    References
    ----------
    Wolpert (1992), "Stacked generalization"; Kull et al. (2019), "Beyond temperature scaling":
    a linear map of log-odds is a calibration map too.
    """

    context: bool | Sequence[str] = True
    interactions: Sequence[str] = ()
    forget: float = 1.0
    tau: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.forget <= 1:
            raise ValueError(f"forget must lie in (0, 1], got {self.forget}")
        if self.tau is not None and not self.tau > 0:
            raise ValueError(f"tau must be above 0, got {self.tau}")

    def fit(self, panel: pd.DataFrame, y: pd.DataFrame) -> Self:
        """Learn the weights from rows that no member has been trained on.

        Raises
        ------
        DataError
            If `y` lacks one of the K sides, or a column or a filter logit is missing.
        """
        check_panel(panel)
        check_labels(y)
        absent = [name for side, name in SIDES.items() if side not in y["side"].to_numpy()]
        if absent:
            raise DataError(
                f"no label says {absent}",
                code="SV-F44",
                where=f"{len(y)} rows",
                cure="train on a longer period or on other label widths",
            )
        rows = panel.loc[y.index]
        self.logits_ = MemberLogits().fit(rows, y)
        self._choose_contexts(rows)
        phi = self._design(self.logits_.read(rows), self._contexts(rows))
        self.design_effect_ = design_effect(y)
        model = self._softmax(self._votes(phi.shape[1]))
        self.model_ = model.fit(phi, y["side"].to_numpy(), self._weight(y))
        return self

    def predict(self, panel: pd.DataFrame) -> pd.DataFrame:
        """Odds and doubts of every row; NaN where the filter is silent.

        Returns
        -------
        DataFrame of shape (N, 9)
            `p_sell`, `p_hold`, `p_buy`; `epistemic`, `aleatoric` (nats); `margin` (posterior mean
            of the log-odds of buy over sell) and `margin_sd`; `mu_sell`, `mu_buy` (against hold).
        """
        model = fitted(self, "model_")
        phi = self._design(self.logits_.read(panel), self._contexts(panel))
        phi = np.column_stack([phi, np.ones(len(phi))])
        mu, S = log_odds(phi, model.mean_, model.covariance_)
        p, aleatoric = averaged_softmax(mu, S, *gaussian_rule(2), HOLD)
        variance = S[:, 0, 0] + S[:, 1, 1] - 2 * S[:, 0, 1]
        doubt = np.column_stack([np.maximum(entropy(p) - aleatoric, 0), aleatoric])
        margin = np.column_stack([mu[:, 1] - mu[:, 0], np.sqrt(np.maximum(variance, 0))])
        return pd.DataFrame(np.column_stack([p, doubt, margin, mu]), panel.index, COLUMNS)

    def update(self, panel: pd.DataFrame, y: pd.DataFrame) -> Self:
        """Move the posterior through matured labels, bar of maturity by bar of maturity.

        Parameters
        ----------
        panel : DataFrame of shape (N, F)
            The logits as they were said then.
        y : DataFrame of shape (n <= N, 3)
            Labels that are known by now and were not learnt from before.
        """
        fitted(self, "model_")
        rows = panel.loc[check_labels(y).index]
        phi = self._design(self.logits_.read(rows), self._contexts(rows))
        refuse_silence(y, np.isnan(phi).any(axis=1))
        asset, time = (y.index.get_level_values(level) for level in ("asset", "time"))
        weight = self._weight(y)
        order = np.lexsort((asset.factorize(sort=True)[0], time, y["end"]))
        matured = y["end"].iloc[order]
        for batch in np.split(order, np.flatnonzero(np.diff(matured)) + 1):
            self.model_.partial_fit(
                phi[batch], y["side"].to_numpy()[batch], sample_weight=weight[batch]
            )
        return self

    def attribute(
        self, panel: pd.DataFrame, rows: pd.MultiIndex, references: pd.DataFrame
    ) -> Attribution:
        """Split ``margin(row) - margin(reference)`` over contexts and logits, exactly.

        A product of logit and context is shared by the two-player Shapley value. Where only one
        of row and reference was refined, `filter.gate` carries what that made of it.
        """
        weight = fitted(self, "model_").mean_[1] - self.model_.mean_[0]
        at, to = panel.loc[rows], last_rows(references)
        z, z_ref = self.logits_.read(at), self.logits_.read(to)
        c, c_ref = self._contexts(at), self._contexts(to)
        U, C = z.z.shape[1], c.shape[1]
        step = c[:, None] - c_ref[None]  # (N, R, C)
        pull = np.broadcast_to(weight[:U], (len(at), len(to), U)).copy()
        values = weight[U : U + C] * step
        mean, mean_ref = self._mean_pair(z), self._mean_pair(z_ref)
        for i, name in enumerate(self.interactions_):
            j = self.contexts_.index(name)
            for side in (0, 1):
                w = weight[U + C + 2 * i + side]
                together = (c[:, None, j] + c_ref[None, :, j]) / 2
                pull[:, :, side::2] += (w / (U // 2) * together)[:, :, None]
                values[:, :, j] += w * step[:, :, j] * (mean[side][:, None] + mean_ref[side]) / 2
        slopes, silence = self.logits_.trace(pull, z, z_ref)
        values = np.concatenate([values, *(s[:, :, None] for s in silence.values())], axis=2)
        return Attribution(
            outputs=("margin",),
            inputs=(*self.contexts_, *silence),
            values=values[:, :, None],
            upstream=self.logits_.columns_,
            slopes=slopes[:, :, None],
        )

    def state(self) -> State:
        model = fitted(self, "model_")
        return State(
            {
                "logits": self.logits_.state(),
                "contexts": list(self.contexts_),
                "interactions": list(self.interactions_),
                "center": self.center_.tolist(),
                "spread": self.spread_.tolist(),
                "design_effect": self.design_effect_,
                "mean": model.mean_.tolist(),
                "covariance": model.covariance_.tolist(),
                "tau": model.tau_,
                "log_evidence": model.log_evidence_,
            }
        )

    def restore(self, state: State) -> Self:
        values = state.values
        self.logits_ = MemberLogits().restore(values["logits"])
        self.contexts_ = tuple(values["contexts"])
        self.interactions_ = tuple(values["interactions"])
        self.center_ = np.array(values["center"], dtype="float64")
        self.spread_ = np.array(values["spread"], dtype="float64")
        self.design_effect_ = values["design_effect"]
        model = self._softmax()
        model.classes_ = np.array(sorted(SIDES))
        model.mean_ = np.array(values["mean"], dtype="float64")
        model.covariance_ = np.array(values["covariance"], dtype="float64")
        model.tau_, model.log_evidence_ = values["tau"], values["log_evidence"]
        model.n_features_in_ = model.mean_.shape[1] - 1
        self.model_ = model
        return self

    def _softmax(self, votes: np.ndarray | None = None) -> BayesianSoftmax:
        # the members hold the base rate already; a free intercept would learn which way the
        # market went while they were out of fold, and carry that into the next market
        return BayesianSoftmax(
            reference=0, tau=self.tau, prior_mean=votes, intercept_variance=None, forget=self.forget
        )

    def _weight(self, y: pd.DataFrame) -> np.ndarray:
        return y["weight"].to_numpy(dtype="float64") / self.design_effect_

    def _choose_contexts(self, rows: pd.DataFrame) -> None:
        present = named(rows, "context")
        main = (present if self.context else []) if isinstance(self.context, bool) else self.context
        check_panel(rows, main)
        lacking = [name for name in self.interactions if name not in present]
        if lacking:
            log.info("left out of the ensemble, the panel has no %s", ", ".join(lacking))
        self.interactions_ = tuple(name for name in self.interactions if name in present)
        self.contexts_ = tuple(dict.fromkeys([*main, *self.interactions_]))
        values = rows[list(self.contexts_)].to_numpy(dtype="float64")
        known = np.isfinite(values)
        count = np.maximum(known.sum(axis=0), 1)
        self.center_ = np.where(known, values, 0).sum(axis=0) / count
        square = (np.where(known, values - self.center_, 0) ** 2).sum(axis=0) / count
        self.spread_ = np.where(square > 0, np.sqrt(square), 1.0)

    def _contexts(self, panel: pd.DataFrame) -> np.ndarray:
        """Standardised contexts, (N, C); 0 where the panel has none."""
        check_panel(panel, self.contexts_)
        values = panel[list(self.contexts_)].to_numpy(dtype="float64")
        scaled = np.clip((values - self.center_) / self.spread_, -CLIP, CLIP)
        return np.where(np.isnan(scaled), 0.0, scaled)

    def _mean_pair(self, said: Said) -> tuple[np.ndarray, np.ndarray]:
        """Mean logit over the members: (N,) for sell, (N,) for buy."""
        columns = list(said.z.T)
        # sum() adds column by column: a row's mean does not depend on the batch
        sell, buy = (sum(columns[side::2]) / (len(columns) // 2) for side in (0, 1))
        return np.asarray(sell), np.asarray(buy)

    def _design(self, said: Said, contexts: np.ndarray) -> np.ndarray:
        """Features of the model, (N, d): logits, contexts, mean logits times contexts."""
        pair = self._mean_pair(said)
        turned = [
            z * contexts[:, self.contexts_.index(name)] for name in self.interactions_ for z in pair
        ]
        return np.column_stack([said.z, contexts, *turned])

    def _votes(self, features: int) -> np.ndarray:
        """Coefficients of the members' equal vote, on all sides and on hold alone: (2, 2, d)."""
        columns = len(self.logits_.columns_)
        votes = np.zeros((2, 2, features))
        for side in (0, 1):
            votes[0, side, side:columns:2] = 2 / columns
        # volatility clusters, so hold is foreseen: without this guess that evidence would vouch
        # for the direction as well
        votes[1, :, :columns] = 1 / columns
        return votes


def design_effect(y: pd.DataFrame, block: int = BLOCK) -> float:
    """How many labels count as one, because neighbours in time share their surprises.

    The variance of the summed surprise (label less base rate) of a block of bars over what
    independent labels of these weights would give, averaged over sell and buy; at least 1.
    Without it twenty correlated stocks pass for twenty witnesses, and a context that all of them
    share is learnt far too surely.

    Parameters
    ----------
    y : DataFrame of shape (n, 3)
    block : int, default=20
        Bars; surprises of different blocks count as independent. Well above the label's span.

    References
    ----------
    Kish (1965), "Survey Sampling", section 5.4; Liang & Zeger (1986), Biometrika 73 (the
    variance of a score whose terms are dependent within blocks).
    """
    weight = y["weight"].to_numpy(dtype="float64")
    bar = y.index.get_level_values("time").factorize(sort=True)[0]
    effects = []
    for side in (-1, 1):
        hit = (y["side"] == side).to_numpy(dtype="float64")
        surprise = hit - np.average(hit, weights=weight)
        together = np.bincount(bar // block, weight * surprise)
        effects.append((together**2).sum() / max((weight * surprise**2).sum(), 1e-300))
    return float(max(np.mean(effects), 1.0))
