"""Stage 3: weigh the members by what their out-of-fold word was worth, and say how surely."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import pandas as pd
from scipy.special import expit

from stages.base import ArtifactError, Attribution, DataError, State, fitted
from stages.ensemble.bank import Bank, Family
from stages.ensemble.bayesian_softmax import BayesianSoftmax
from stages.ensemble.edge import certainty, required_edge
from stages.ensemble.logits import COLUMNS, MemberLogits, Said, refuse_silence
from stages.ensemble.posterior import Posterior
from stages.ensemble.ties import LOOSE, Ties, ties
from stages.ensemble.uncertainty import attenuation
from stages.panel import check_labels, check_panel, last_rows, named, settled
from stages.signal import SIDES

log = logging.getLogger(__name__)

CLIP = 5.0  # training sds beyond which a context says no more
NOTHING = 1e-8  # prior variance of the direction where nothing is known of it
LEAST_SHARE = 1e-12  # of a belief: no evidence silences one for good


@dataclass
class BayesianStacker:
    """Two Bayesian logits over all members' log-odds: does it move, and if so, which way.

    ``p_buy = P(move) P(up | move)``: the likelihood of three sides falls apart into these two
    exactly, so each has its own prior, its own evidence, and its own count of labels that are
    independent. For the direction two beliefs are weighed, that nothing is known of it and that
    the members know something. The first is the likelier until labels say otherwise: volatility
    can be foreseen in every market, direction in few.

    Parameters
    ----------
    context : bool or sequence of str, default=True
        Context columns to read: all, none, or these.
    interactions : sequence of str, default=()
        Context columns that also turn the members' margins up or down, each by its own weight: a
        member that sees less of the signal is turned less. One that the panel lacks is left out,
        with a logged line.
    doubt : float in (0, 1), default=0.9
        Prior probability that nothing is known of the direction.
    forget : sequence of float in (0, 1], default=(1.0, 0.999, 0.995)
        Factors on the posterior's precision per bar of matured labels, one expert each, averaged
        by what they foretell; 1 forgets nothing. The posterior of the training stays as one more
        expert, so that a passing regime costs nothing.

    Attributes
    ----------
    moves_ : Bank
        Of a move over a hold, from the members' log-odds of the sides over a hold, how far the
        direction leans (twice: smooth, and as it is), and the contexts.
    direction_ : Bank
        Of buy over sell given a move, from the members' margins, the contexts, and the margins
        times each interaction. Its second family is the one that knows something.
    logits_ : MemberLogits
    contexts_, interactions_ : tuple of str
    center_, spread_ : float64 ndarray of shape (contexts,)
        Mean and sd of the contexts over the training rows.
    ties_ : dict of str to Ties
        ``moves`` and ``direction``: how their labels hang together, because assets move together
        and surprises persist.

    Notes
    -----
    Prior means are 0 (for the moves: the base rate) and the equal-weight vote of the members;
    their variance is averaged over by evidence. A context that is NaN counts as its training
    mean.

    References
    ----------
    Wolpert (1992), "Stacked generalization"; Fox (1997), "Applied Regression Analysis", section
    15.2 (nested dichotomies); Kull et al. (2019), "Beyond temperature scaling": a linear map of
    log-odds is a calibration map too.
    """

    context: bool | Sequence[str] = True
    interactions: Sequence[str] = ()
    doubt: float = 0.9
    forget: Sequence[float] = (1.0, 0.999, 0.995)

    def __post_init__(self) -> None:
        if not self.forget or not all(0 < rate <= 1 for rate in self.forget):
            raise ValueError(f"forget must hold factors in (0, 1], got {self.forget}")
        if not 0 < self.doubt < 1:
            raise ValueError(f"doubt must lie in (0, 1), got {self.doubt}")

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
        said, contexts = self.logits_.read(rows), self._contexts(rows)
        side = y["side"].to_numpy()
        moved, members = side != 0, len(self.logits_.members)
        way = self._direction(said, contexts)
        self.direction_ = self._learnt(
            Labels(way[moved], side[moved] > 0, y[moved]),
            said.margins[moved].mean(axis=1),
            lambda labels: _ways(labels, members, self.doubt),
        )
        moves = self._moves(said, contexts, self.direction_.margin(_with_one(way)))
        self.moves_ = self._learnt(
            Labels(moves, moved, y),
            said.moves.mean(axis=1),
            lambda labels: [_size(labels, members)],
        )
        return self

    @property
    def ties_(self) -> dict[str, Ties]:
        """How the labels of each logit hang together."""
        return {"moves": self.moves_.ties, "direction": self.direction_.ties}

    def predict(self, panel: pd.DataFrame) -> pd.DataFrame:
        """Odds and doubts of every row; NaN where the filter is silent.

        Returns
        -------
        DataFrame of shape (N, 10)
            `p_sell`, `p_hold`, `p_buy`; `epistemic`, `aleatoric` (nats); `margin` (posterior mean
            of the log-odds of buy over sell) and `margin_sd`; `certainty_sell`, `certainty_buy`
            (posterior probability that the side earns more than its cost, from `cost` and `scale`
            of the panel); `disagreement` (variance of the members' margins).
        """
        size: Bank = fitted(self, "moves_")
        logits, contexts = self.logits_.read(panel), self._contexts(panel)
        way = self.direction_.predict(_with_one(self._direction(logits, contexts)))
        moves = size.predict(_with_one(self._moves(logits, contexts, way.mu[:, 0])))
        move, up = moves.p[:, 1], way.p[:, 1]
        p = [move * (1 - up), 1 - move, move * up]
        epistemic = moves.epistemic + move * way.epistemic  # the chain rule of entropy
        aleatoric = moves.aleatoric + move * way.aleatoric
        edge, margin = required_edge(panel), way.mu[:, 0]
        spread, sells, buys = np.zeros((3, len(panel)))
        for weight, mu, S in way.experts:
            lean, variance = mu[:, 0], np.maximum(S[:, 0, 0], 0)
            sell, buy = certainty(lean, np.sqrt(variance), 1 - move, edge)
            spread += weight * (variance + (lean - margin) ** 2)
            sells += weight * sell
            buys += weight * buy
        doubts = [epistemic, aleatoric, margin, np.sqrt(spread)]
        columns = [*p, *doubts, sells, buys, self.logits_.disagreement(logits)]
        return pd.DataFrame(np.column_stack(columns), panel.index, COLUMNS)

    def update(self, panel: pd.DataFrame, y: pd.DataFrame) -> Self:
        """Move the experts through matured labels, bar of maturity by bar of maturity.

        Parameters
        ----------
        panel : DataFrame of shape (N, F)
            The logits as they were said then.
        y : DataFrame of shape (n <= N, 3)
            Labels that are known by now and were not learnt from before.
        """
        fitted(self, "moves_")
        rows = panel.loc[check_labels(y).index]
        logits, contexts = self.logits_.read(rows), self._contexts(rows)
        refuse_silence(y, np.isnan(logits.z).any(axis=1))
        way = _with_one(self._direction(logits, contexts))
        side, weight = y["side"].to_numpy(), y["weight"].to_numpy(dtype="float64")
        moved, up = side != 0, side > 0
        asset, time = (y.index.get_level_values(level) for level in ("asset", "time"))
        known = settled(y)  # not `end`: barriers touched early would make many bars out of one
        order = np.lexsort((asset.factorize(sort=True)[0], time, known))
        matured = known.iloc[order]
        for batch in np.split(order, np.flatnonzero(np.diff(matured)) + 1):
            went, said = batch[moved[batch]], logits.of(batch)
            moves = self._moves(said, contexts[batch], self.direction_.margin(way[batch]))
            self.moves_.update(_with_one(moves), moved[batch], weight[batch])
            self.direction_.update(way[went], up[went], weight[went])
        return self

    def attribute(
        self, panel: pd.DataFrame, rows: pd.MultiIndex, references: pd.DataFrame
    ) -> Attribution:
        """Split ``margin(row) - margin(reference)`` over contexts and logits, exactly.

        A product of margin and context is shared by the two-player Shapley value. Where only one
        of row and reference was refined, `filter.gate` carries what that made of it.
        """
        weight = fitted(self, "direction_").mean[0]
        at, to = panel.loc[rows], last_rows(references)
        z, z_ref = self.logits_.read(at), self.logits_.read(to)
        c, c_ref = self._contexts(at), self._contexts(to)
        M, C = len(self.logits_.members), c.shape[1]
        step = c[:, None] - c_ref[None]  # (N, R, C)
        pull = np.broadcast_to(weight[:M], (len(at), len(to), M)).copy()
        values = weight[M : M + C] * step
        middle = (z.margins[:, None] + z_ref.margins) / 2  # (N, R, M)
        turned = weight[M + C : -1].reshape(-1, M)
        turns = {}
        for name, w in zip(self.interactions_, turned, strict=True):
            j = self.contexts_.index(name)
            pull += w * ((c[:, None, j] + c_ref[None, :, j]) / 2)[:, :, None]
            values[:, :, j] += step[:, :, j] * (middle * w).sum(axis=2)
            added, _ = self.logits_.trace(_sided(step[:, :, j, None] * w), z, z_ref)
            turns[name] = added[:, :, None]
        slopes, silence = self.logits_.trace(_sided(pull), z, z_ref)
        values = np.concatenate([values, *(s[:, :, None] for s in silence.values())], axis=2)
        return Attribution(
            outputs=("margin",),
            inputs=(*self.contexts_, *silence),
            values=values[:, :, None],
            upstream=self.logits_.columns_,
            slopes=slopes[:, :, None],
            turns=turns or None,
        )

    def state(self) -> State:
        return State(
            {
                "moves": fitted(self, "moves_").state(),
                "direction": self.direction_.state(),
                "logits": self.logits_.state(),
                "contexts": list(self.contexts_),
                "interactions": list(self.interactions_),
                "center": self.center_.tolist(),
                "spread": self.spread_.tolist(),
            }
        )

    def restore(self, state: State) -> Self:
        values = state.values
        if len(values["moves"].get("ties", ())) != len(fields(Ties)):
            raise ArtifactError(
                "the stored stage 3 does not say how its labels are tied",
                code="SV-F29",
                why="an earlier version of Sieve made it",
                cure="train the model again",
            )
        self.moves_ = Bank.restored(values["moves"])
        self.direction_ = Bank.restored(values["direction"])
        self.logits_ = MemberLogits().restore(values["logits"])
        self.contexts_ = tuple(values["contexts"])
        self.interactions_ = tuple(values["interactions"])
        self.center_ = np.array(values["center"], dtype="float64")
        self.spread_ = np.array(values["spread"], dtype="float64")
        return self

    def _learnt(
        self, labels: "Labels", vote: np.ndarray, fit: Callable[["Labels"], list[Family]]
    ) -> Bank:
        """Experts of one logit, whose labels are tied by what was not foreseen of them.

        What the members foresee, such as spells of volatility, is no surprise that labels share. So
        labels count in full for a first fit, whose surprises then tell what they count for.
        """
        first = replace(ties(labels.y, labels.hit, vote), effect=1.0)
        believed = fit(replace(labels, ties=first))[-1].posterior.mean
        foreseen = expit(attenuation(first.shared) * (_with_one(labels.phi) @ believed[0]))
        tied = ties(labels.y, labels.hit, vote, foreseen)
        return Bank(fit(replace(labels, ties=tied)), (*self.forget, None), tied)

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

    def _moves(self, said: Said, contexts: np.ndarray, margin: np.ndarray) -> np.ndarray:
        """Features of the logit of a move, (N, d).

        A leaning to either side is a leaning to move: with the coefficient 1 on `lean`, and 0 on
        the margin's size, the two logits are one multinomial logit. Under any other noise than
        that of a logit the odds of a move rise in the lean more, or less, at its ends.
        """
        with np.errstate(invalid="ignore"):  # NaN where the filter is silent
            lean = np.logaddexp(margin / 2, -margin / 2)
        return np.column_stack([said.moves, lean, np.abs(margin), contexts])

    def _direction(self, said: Said, contexts: np.ndarray) -> np.ndarray:
        """Features of the logit of buy over sell given a move, (N, d)."""
        turns = [contexts[:, self.contexts_.index(name), None] for name in self.interactions_]
        margins = said.margins
        return np.column_stack([margins, contexts, *(margins * turn for turn in turns)])


def _sided(margins: np.ndarray) -> np.ndarray:
    """Multipliers (N, R, M) of margins as those of their logit pairs, (N, R, 2 M)."""
    return np.stack([-margins, margins], axis=-1).reshape(*margins.shape[:2], -1)


@dataclass(frozen=True)
class Labels:
    """What one logit learns from: features (n, d), hits, the labels they are of, and their ties."""

    phi: np.ndarray
    hit: np.ndarray
    y: pd.DataFrame
    ties: Ties = LOOSE

    @property
    def weight(self) -> np.ndarray:
        return self.y["weight"].to_numpy(dtype="float64") / self.ties.effect


def _size(labels: Labels, members: int) -> Family:
    """What is believed of the size of moves: one family, its priors averaged by evidence."""
    share = np.clip(labels.weight @ labels.hit / labels.weight.sum(), 1e-6, 1 - 1e-6)
    base = np.zeros(labels.phi.shape[1] + 1)
    base[-1] = np.log(share / (1 - share))
    vote = _vote(labels.phi, members)
    vote[members] = 1.0
    return _family(1.0, _logit([base, vote], labels))


def _ways(labels: Labels, members: int, doubt: float) -> list[Family]:
    """What is believed of the direction: nothing, or something; and how likely each now is."""
    # the members hold the base rate already; a free intercept would learn which way the market
    # went while they were out of fold, and carry that into the next market
    nothing = np.zeros(labels.phi.shape[1] + 1)
    quiet = _logit([nothing], labels, tau=NOTHING)
    leaning = _logit([nothing, _vote(labels.phi, members)], labels, intercept=NOTHING)
    odds = np.log(doubt / (1 - doubt)) + quiet.log_evidence_ - leaning.log_evidence_
    share = float(np.clip(expit(odds), LEAST_SHARE, 1 - LEAST_SHARE))
    return [_family(share, quiet), _family(1 - share, leaning)]


def _logit(
    guesses: Sequence[np.ndarray],
    labels: Labels,
    tau: float | None = None,
    intercept: float | None = None,
) -> BayesianSoftmax:
    model = BayesianSoftmax(
        tau=tau,
        prior_mean=np.stack(guesses)[:, None],
        intercept_variance=intercept,
        shared=labels.ties.variance,
    )
    bar = labels.y.index.get_level_values("time").factorize()[0]
    return model.fit(labels.phi, labels.hit, labels.weight, groups=bar)


def _family(share: float, model: BayesianSoftmax) -> Family:
    posterior = Posterior(model.mean_, model.covariance_, model.log_evidence_)
    return Family(share, posterior, model.prior_mean_, model.prior_precision_)


def _vote(phi: np.ndarray, members: int) -> np.ndarray:
    """Coefficients of the members' equal vote, (d + 1,)."""
    return np.where(np.arange(phi.shape[1] + 1) < members, 1 / members, 0.0)


def _with_one(phi: np.ndarray) -> np.ndarray:
    return np.column_stack([phi, np.ones(len(phi))])
