"""Stage 3 without learning: a fixed-weight vote of the members, the yardstick of the stacker."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from stages.base import Attribution, ConfigError, State, fitted
from stages.ensemble.edge import certainty, required_edge
from stages.ensemble.logits import COLUMNS, HOLD, MemberLogits
from stages.ensemble.uncertainty import entropy, softmax
from stages.panel import check_panel, last_rows


@dataclass
class SoftVote:
    """Average the members' log-odds by fixed weights: a logarithmic opinion pool.

    Log-odds rather than odds are averaged, so that the margin is linear in what the members say
    and explanations add up.

    Parameters
    ----------
    weights : mapping of str to float >= 0
        Member (``xgboost``, or ``filter.xgboost`` where both stages have one of that name), or a
        stage (``refiner``: its members in equal parts), to weight; scaled to sum to 1.

    Attributes
    ----------
    logits_ : MemberLogits
    votes_ : tuple of (str, float)
        Full name of each voting member and its share.

    References
    ----------
    Genest & Zidek (1986), "Combining probability distributions", Statistical Science 1(1).
    """

    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        if not all(0 <= w < np.inf for w in self.weights.values()) or not any(
            self.weights.values()
        ):
            raise ValueError(
                f"weights must be finite, none below 0 and one above, got {dict(self.weights)}"
            )

    def fit(self, panel: pd.DataFrame, y: pd.DataFrame) -> Self:
        """Find the members; learn only what a silent refiner would have said.

        Raises
        ------
        ConfigError
            If a member with a weight is not in the panel, or is in both stages.
        """
        self.logits_ = MemberLogits().fit(check_panel(panel), y)
        total = sum(self.weights.values())
        votes: dict[str, float] = {}
        for name, weight in self.weights.items():
            voters = self._find(name)
            for voter in voters:
                votes[voter] = votes.get(voter, 0.0) + weight / total / len(voters)
        self.votes_ = tuple(votes.items())
        return self

    def predict(self, panel: pd.DataFrame) -> pd.DataFrame:
        """Odds and doubts of every row; NaN where the filter is silent.

        Returns
        -------
        DataFrame of shape (N, 10)
            As of `BayesianStacker.predict`. Doubt here is disagreement: `epistemic` is the
            mutual information of class and member, `margin_sd` the members' weighted sd.
        """
        votes = fitted(self, "votes_")
        logits = self.logits_.read(panel)
        z = logits.z
        members = self.logits_.members
        pairs = [z[:, 2 * members.index(name) :][:, :2] for name, _ in votes]
        shares = [share for _, share in votes]
        # column sums, no matrix products: a row's value does not depend on the batch
        mu = np.asarray(sum(w * pair for w, pair in zip(shares, pairs, strict=True)))
        margin = mu[:, 1] - mu[:, 0]
        variance = sum(
            w * (pair[:, 1] - pair[:, 0] - margin) ** 2
            for w, pair in zip(shares, pairs, strict=True)
        )
        said = [softmax(np.ascontiguousarray(pair), HOLD) for pair in pairs]
        mixed = np.asarray(sum(w * p for w, (p, _) in zip(shares, said, strict=True)))
        aleatoric = np.asarray(sum(w * doubt for w, (_, doubt) in zip(shares, said, strict=True)))
        p, _ = softmax(np.ascontiguousarray(mu), HOLD)
        epistemic = np.maximum(entropy(mixed) - aleatoric, 0)
        sells, buys = certainty(margin, np.sqrt(variance), p[:, HOLD], required_edge(panel))
        disagreement = self.logits_.disagreement(logits)
        columns = [p, epistemic, aleatoric, margin, np.sqrt(variance), sells, buys]
        columns.append(disagreement)
        return pd.DataFrame(np.column_stack(columns), panel.index, COLUMNS)

    def update(self, panel: pd.DataFrame, y: pd.DataFrame) -> Self:
        """Return self: fixed weights learn nothing from new labels."""
        return self

    def attribute(
        self, panel: pd.DataFrame, rows: pd.MultiIndex, references: pd.DataFrame
    ) -> Attribution:
        """Split ``margin(row) - margin(reference)`` over the members' logits, exactly.

        Where only one of row and reference was refined, `filter.gate` carries the difference.
        """
        at, to = (self.logits_.read(table) for table in (panel.loc[rows], last_rows(references)))
        pull = np.zeros((len(at.z), len(to.z), len(self.logits_.columns_)))
        for name, share in fitted(self, "votes_"):
            sell = 2 * self.logits_.members.index(name)
            pull[:, :, sell] -= share
            pull[:, :, sell + 1] += share
        slopes, silence = self.logits_.trace(pull, at, to)
        return Attribution(
            outputs=("margin",),
            inputs=tuple(silence),
            values=np.stack([np.zeros(pull.shape[:2]), *silence.values()], axis=-1)[:, :, None, 1:],
            upstream=self.logits_.columns_,
            slopes=slopes[:, :, None],
        )

    def state(self) -> State:
        votes = [[name, share] for name, share in fitted(self, "votes_")]
        return State({"logits": self.logits_.state(), "votes": votes})

    def restore(self, state: State) -> Self:
        self.logits_ = MemberLogits().restore(state.values["logits"])
        self.votes_ = tuple((name, share) for name, share in state.values["votes"])
        return self

    def _find(self, name: str) -> list[str]:
        members = self.logits_.members
        stage = [member for member in members if member.partition(".")[0] == name]
        found = [member for member in members if name in (member, member.partition(".")[2])]
        if stage or len(found) == 1:
            return stage or found
        raise ConfigError(
            f"ensemble.weights names {name!r}, which {len(found)} members of the pipeline are",
            code="SV-X104",
            where=f"members: {members}",
            why="a vote without one of its voters is another vote",
            cure="name members the filter and the refiner have, in full where both have one",
        )
