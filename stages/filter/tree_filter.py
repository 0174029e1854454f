"""Stage 1: tree ensembles and rules score every row; a gate marks those worth refining."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import pandas as pd

from stages.base import ArtifactError, Attribution, ConfigError, DataError, Pull, State, fitted
from stages.explain.tree_pull import members_pulled
from stages.filter.boosters import Lesson
from stages.filter.gate import OPEN, gate_score, gate_threshold, same_share
from stages.filter.members import fit_member, kind, regresses
from stages.filter.regression import standing
from stages.filter.relearn import Grown, TreeLearning
from stages.filter.rows import matrix, refuse_absent_sides
from stages.filter.rule_filter import RuleFilter
from stages.filter.stopping import with_rounds
from stages.folds import cut_tail
from stages.panel import check_labels, check_panel, last_rows, named

logger = logging.getLogger(__name__)

SIDES_OUT = ("z_sell", "z_buy")


@dataclass
class TreeFilter:
    """Log-odds of sell and buy against hold, from each member, and the gate.

    Trees read all ``feature.*`` columns as float32 and NaN as missing; rules read all
    ``rule.*`` columns. Rows that the panel marks as not `ready` get NaN, the gate included.

    Parameters
    ----------
    members : mapping of str to estimator
        Templates of tree classifiers by member name: LightGBM, XGBoost, or a scikit-learn
        forest; or a LightGBM regressor, see `stages.filter.regression`. Each `fit` trains copies.
    rules : RuleFilter, optional
        Member ``rules``; left out, with a logged line, if the panel has no rules.
    recall : float in (0, 1], default=0.95
        Share of the final signals that must pass the gate; 1 leaves it open.
    least_stopped : float in [0, 1), default=0.1
        Share of the rows that the gate must stop, or it stays open: a score that knows nothing
        stops ``1 - recall`` of them, at the price of as many signals.
    tail : float in [0, 1), default=0
        Last share of the training bars on which it is judged how many trees boosted classifiers
        grow, before they learn from all bars; 0 grows all their `n_estimators`.
    patience : int, default=50
        Trees without gain on the tail after which more are not tried.

    Attributes
    ----------
    columns_ : list of F str
        The ``feature.*`` columns, in the order the trees know them by.
    members_ : dict of str to Member
    rules_ : RuleFilter or None
    threshold_ : float
        Lowest gate score that passes, log-odds; `OPEN` until `set_gate`.
    """

    members: Mapping[str, Any] = field(default_factory=dict)
    rules: RuleFilter | None = None
    recall: float = 0.95
    least_stopped: float = 0.1
    tail: float = 0.0
    patience: int = 50

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1:
            raise ValueError(f"recall must lie in (0, 1], got {self.recall}")
        if not 0 <= self.least_stopped < 1:
            raise ValueError(f"least_stopped must lie in [0, 1), got {self.least_stopped}")
        if not 0 <= self.tail < 1 or self.patience < 1:
            raise ValueError(
                "need tail in [0, 1) and patience of at least 1, "
                f"got tail={self.tail}, patience={self.patience}"
            )
        if not self.members and self.rules is None:
            raise ValueError("members is empty and there are no rules: nothing would score a row")
        for name, estimator in self.members.items():
            if not re.fullmatch("[a-z0-9_]+", name) or name in ("rules", "gate"):
                raise ValueError(f"member name must match [a-z0-9_]+, not rules or gate: {name!r}")
            kind(estimator)
        self._grown: dict[str, Grown] = {}

    def fit(self, panel: pd.DataFrame, y: pd.DataFrame) -> Self:
        """Train a copy of each member on the rows of `y`; the gate opens.

        Parameters
        ----------
        panel : DataFrame of shape (N, F)
        y : DataFrame of shape (n <= N, 3)
            See `check_labels`.

        Raises
        ------
        DataError
            If a table breaks its contract, `y` lacks a side, or no member can be fitted.
        """
        refuse_absent_sides(check_labels(y))
        self.columns_ = named(panel, "feature") if self.members else []
        self.rules_ = self._fit_rules(panel, y)
        if not self.columns_ and (self.members or self.rules_ is None):
            raise DataError(
                f"the panel has no {'feature' if self.members else 'rule'}.* column to learn from",
                code="SV-F20",
                where=f"columns present: {sorted(map(str, panel.columns))[:40]}",
                cure="build the features first",
            )
        self.members_, self.gain_, self._grown = {}, {}, {}
        X = matrix(panel, self.columns_, y.index)
        classes, weight = y["side"].to_numpy() + 1, y["weight"].to_numpy(dtype="float64")
        moves = standing(y) if any(map(regresses, self.members.values())) else None
        parts = self._parts(y)
        for name, estimator in self.members.items():
            template = with_rounds(estimator, X, classes, weight, parts, self.patience)
            self.members_[name], gain = fit_member(template, X, classes, weight, moves)
            self.gain_[name] = gain.tolist()
        self.threshold_ = OPEN
        return self

    def predict(self, panel: pd.DataFrame) -> pd.DataFrame:
        """Score each row.

        Returns
        -------
        DataFrame of shape (N, 2 M + 1), float64
            ``filter.<member>.z_sell`` and ``.z_buy`` (log-odds against hold) of each member,
            rules last; ``filter.gate``, 1.0 where the score passes, else 0.0.
        """
        check_panel(panel, fitted(self, "columns_"))
        ready = _ready(panel)
        X = matrix(panel, self.columns_, ready)
        out: dict[str, np.ndarray] = {}
        for name, member in self.members_.items():
            z = np.full((len(panel), 2), np.nan)
            if len(X):
                z[ready] = member.logits(X)
            out |= {f"filter.{name}.{side}": z[:, i] for i, side in enumerate(SIDES_OUT)}
        if self.rules_ is not None:
            said = self.rules_.predict(panel)
            out |= {str(name): np.where(ready, said[name], np.nan) for name in said}
        columns = pd.DataFrame(out, panel.index)
        passes = (gate_score(columns) >= self.threshold_).astype("float64")
        return columns.assign(**{"filter.gate": np.where(ready, passes, np.nan)})

    def update(self, panel: pd.DataFrame, y: pd.DataFrame) -> Self:
        """Leave the trees as they are; `relearn` moves them, where that is asked for."""
        return self

    def relearn(
        self,
        panel: pd.DataFrame,
        y: pd.DataFrame,
        how: TreeLearning,
        seed: int = 0,
        drifted: bool = False,
    ) -> Self:
        """Let every member learn from the rows of `y`; the gate goes on stopping as many of them.

        The rules keep their weights, and `importance` stays that of the training. What stage 3
        thinks of the members is of their words before: it has to hear their new ones on rows that
        they have not learnt from, see `stages.online.learning`.

        Parameters
        ----------
        panel : DataFrame of shape (N, F)
        y : DataFrame of shape (n <= N, 3 to 5)
            Matured labels.
        how : TreeLearning
        seed : int, default=0
            Of fresh trees.
        drifted : bool, default=False
            Whether a change of the market is confirmed.
        """
        members = fitted(self, "members_")
        rows = panel.loc[check_labels(y).index]
        before = gate_score(self.predict(rows)) if self.threshold_ > OPEN else None
        lesson = Lesson(
            matrix(rows, self.columns_),
            y["side"].to_numpy() + 1,
            y["weight"].to_numpy(dtype="float64"),
            standing(y) if any(map(regresses, self.members.values())) else None,
            seed,
            drifted,
        )
        absent = [name for name in how.only or () if name not in members]
        if absent:
            raise ConfigError(
                f"there are no members {absent} to learn",
                code="SV-F33",
                where=f"members: {sorted(members)}",
                cure="name some of these in learning.trees.only, or leave it out",
            )
        for name, template in self.members.items():
            if how.only is not None and name not in how.only:
                continue
            taught = how.teach(members[name], template, lesson, self._grown.get(name))
            self.members_ = {**self.members_, name: taught[0]}  # a copy keeps the old ones
            if taught[1] is not None:
                self._grown = {**self._grown, name: taught[1]}
        if before is not None:
            self.threshold_ = same_share(before, gate_score(self.predict(rows)), self.threshold_)
        return self

    def set_gate(
        self, scores: np.ndarray, fires: np.ndarray, weights: np.ndarray | None = None
    ) -> Self:
        """Close the gate as far as `recall` allows.

        Parameters
        ----------
        scores : float64 ndarray of shape (n,)
            `gate_score` of rows that the members had not seen.
        fires : bool ndarray of shape (n,)
            Rows on which the ungated pipeline gives a signal.
        weights : ndarray of shape (n,), optional

        Notes
        -----
        With ``recall=1``, if no row fires, or if it would stop too few, the gate stays open.
        """
        fitted(self, "members_")
        self.threshold_ = self.gate_threshold(scores, fires, weights)
        return self

    def gate_threshold(
        self, scores: np.ndarray, fires: np.ndarray, weights: np.ndarray | None = None
    ) -> float:
        """Where `set_gate` would set the threshold, log-odds; `OPEN` where it stays open."""
        return gate_threshold(scores, fires, self.recall, weights, self.least_stopped)

    def gate_score(self, columns: pd.DataFrame) -> np.ndarray:
        """Log-odds of the likelier of sell and buy, members averaged; shape (N,), NaN kept."""
        return gate_score(columns)

    def importance(self) -> pd.DataFrame:
        """Gain of each column (rules: share in the spread) by member; each row sums to 1.

        Returns
        -------
        DataFrame of shape (M, F + Q)
            0 where a member does not read the column.
        """
        gains = {n: pd.Series(g, self.columns_) for n, g in fitted(self, "gain_").items()}
        if self.rules_ is not None:
            gains["rules"] = self.rules_.importance()
        table = pd.DataFrame(gains, index=self._inputs()).T.fillna(0.0)
        return table.rename_axis(index="member", columns=None)

    def attribute(
        self,
        panel: pd.DataFrame,
        rows: pd.MultiIndex,
        references: pd.DataFrame,
        pull: Pull | None = None,
    ) -> Attribution:
        """Split each member's logits over the columns it reads; nothing is upstream.

        Exact: shares sum to ``logit(row) - logit(reference)`` within 1e-9, or within 1e-5 for
        XGBoost, which sums its trees in float32. With a `pull`, each member's weighted sum is
        split, averaged over the references.
        """
        x = matrix(panel, fitted(self, "columns_"), rows)
        r = matrix(last_rows(references), self.columns_)
        outputs = self._outputs()
        inputs = self._inputs()
        if pull is not None:
            rules = self.rules_
            ruled = None if rules is None else rules.attribute(panel, rows, references).values
            return members_pulled(self.members_, (outputs, inputs), (x, r), pull, ruled)
        values = np.zeros((len(x), len(r), len(outputs), len(inputs)))
        for i, member in enumerate(self.members_.values()):
            values[:, :, 2 * i : 2 * i + 2, : x.shape[1]] = member.shares(x, r)
        if self.rules_ is not None:
            values[:, :, -2:, x.shape[1] :] = self.rules_.attribute(panel, rows, references).values
        slopes = np.empty((len(x), len(r), len(outputs), 0))
        return Attribution(outputs, tuple(inputs), values, (), slopes)

    def state(self) -> State:
        """Boosters in their native formats, forests as node arrays, the rest as JSON."""
        members = fitted(self, "members_")
        rules = None if self.rules_ is None else dict(self.rules_.state().values)
        grown = {name: [g.base, g.chained] for name, g in self._grown.items()}
        return State(
            {
                "columns": list(self.columns_),
                "gain": {name: list(gain) for name, gain in self.gain_.items()},
                "threshold": self.threshold_,
                "rules": rules,
                **({"grown": grown} if grown else {}),
            },
            {f"{name}.{member.suffix}": member.content for name, member in members.items()},
        )

    def restore(self, state: State) -> Self:
        """Take back what `state` gave. Check the hash of each part first."""
        self.columns_ = list(state.values["columns"])
        self.gain_ = {name: list(gain) for name, gain in state.values["gain"].items()}
        self.threshold_ = state.values["threshold"]
        self._grown = {n: Grown(*g) for n, g in state.values.get("grown", {}).items()}
        said = state.values["rules"]
        self.rules_ = None
        if said is not None:
            self.rules_ = replace(self.rules or RuleFilter()).restore(State(said))
        self.members_ = {}
        for name, estimator in self.members.items():
            part = f"{name}.{kind(estimator).suffix}"
            if part not in state.parts:
                raise ArtifactError(
                    f"member {name} has no part {part}",
                    code="SV-F29",
                    where=f"parts present: {sorted(state.parts)}",
                    cure="restore the artifact from its source, or train again",
                )
            self.members_[name] = kind(estimator).read(state.parts[part], estimator)
        return self

    def _parts(self, y: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers of `y` before the tail, and in it."""
        early, late = cut_tail(y, self.tail)
        if len(late):
            refuse_absent_sides(y.iloc[early])
        return early, late

    def _fit_rules(self, panel: pd.DataFrame, y: pd.DataFrame) -> RuleFilter | None:
        if self.rules is None:
            return None
        if not named(panel, "rule"):
            logger.info("the panel has no rule.* column: member rules is left out")
            return None
        return replace(self.rules).fit(panel, y)

    def _inputs(self) -> list[str]:
        return self.columns_ + (self.rules_.columns_ if self.rules_ is not None else [])

    def _outputs(self) -> tuple[str, ...]:
        names = [*self.members_, *(["rules"] if self.rules_ is not None else [])]
        return tuple(f"filter.{name}.{side}" for name in names for side in SIDES_OUT)


def _ready(panel: pd.DataFrame) -> np.ndarray:
    if "ready" not in panel:
        return np.ones(len(panel), dtype=bool)
    return panel["ready"].to_numpy(dtype=bool)
