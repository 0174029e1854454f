"""How trained trees go on learning: leaves move, trees grow on top, a forest renews itself."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from sklearn.base import clone

from stages.explain.trees import Trees
from stages.filter.boosters import Lesson, continued, cut, fitting, refitted, rounds_of
from stages.filter.members import ForestMember
from stages.filter.regression import RegressionMember

Boosted = Literal["refit", "grow", "keep"]
LEAST_ROWS = 30  # below which leaves and trees would learn noise


@dataclass(frozen=True)
class Grown:
    """Trees on top of what the training left.

    Attributes
    ----------
    base : int
        Rounds of the training.
    chained : int
        How often rounds were added since; 0 after a training.
    """

    base: int
    chained: int


@dataclass(frozen=True)
class TreeLearning:
    """What the members of stage 1 make of matured rows.

    Parameters
    ----------
    boosted : {'refit', 'grow', 'keep'}, default='refit'
        ``refit``: the splits stay and the leaves move, ``decay * old + (1 - decay) * new``; a
        leaf that no row reaches stays as it is. ``grow``: `trees` rounds more are grown on top.
    decay : float in [0, 1], default=0.9
    decay_drifted : float in [0, 1], default=0.5
        After a confirmed change of the market.
    trees : int, default=10
        Rounds that ``grow`` adds.
    chain : int, default=2
        How often rounds are added before those added are dropped and grown anew: a booster that
        is continued again and again grows without end, and its old trees are never corrected.
    forest : float in [0, 1), default=0.1
        Share of the trees of a forest that is replaced, the oldest first; 0 keeps them all.
    only : sequence of str or None, default=None
        Names of the members that learn; None is all. A member that stays beside a twin that
        learns lets stage 3 choose between the old and the new: what comes back is known at once.

    References
    ----------
    ``refit_decay_rate`` of LightGBM and the updater ``refresh`` of XGBoost; Saffari et al. (2009),
    "On-line Random Forests" (old trees of a forest make place for new ones).
    """

    boosted: Boosted = "refit"
    decay: float = 0.9
    decay_drifted: float = 0.5
    trees: int = 10
    chain: int = 2
    forest: float = 0.1
    only: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.boosted not in get_args(Boosted):
            raise ValueError(f"boosted must be one of {get_args(Boosted)}, got {self.boosted!r}")
        for name in ("decay", "decay_drifted"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.trees < 1 or self.chain < 1:
            raise ValueError(f"need trees and chain of at least 1, got {self.trees}, {self.chain}")
        if not 0 <= self.forest < 1:
            raise ValueError(f"forest must lie in [0, 1), got {self.forest}")

    def teach(
        self, member: Any, template: Any, lesson: Lesson, grown: Grown | None
    ) -> tuple[Any, Grown | None]:
        """A member after the lesson, and what has been grown on it.

        Parameters
        ----------
        member : Member
        template : estimator
            Its settings; fresh trees are grown by them.
        lesson : Lesson
        grown : Grown or None
            None: nothing since the training.
        """
        if isinstance(member, RegressionMember):
            lesson = _with_moves(lesson)
        if len(lesson.X) < LEAST_ROWS:
            return member, grown
        if isinstance(member, ForestMember):
            return self._replaced(member, template, lesson), None
        if self.boosted == "keep":
            return member, grown
        if self.boosted == "refit":
            decay = self.decay_drifted if lesson.drifted else self.decay
            return refitted(member, template, lesson, decay), grown
        return self._grown(member, template, lesson, grown)

    def _grown(
        self, member: Any, template: Any, lesson: Lesson, grown: Grown | None
    ) -> tuple[Any, Grown]:
        grown = grown or Grown(rounds_of(member), 0)
        if grown.chained == self.chain:
            member, grown = cut(member, grown.base), Grown(grown.base, 0)
        taller = continued(member, template, lesson, self.trees)
        return taller, replace(grown, chained=grown.chained + 1)

    def _replaced(self, member: ForestMember, template: Any, lesson: Lesson) -> ForestMember:
        count = round(self.forest * len(member.trees.roots))
        if not count or len(np.unique(lesson.classes)) < 3:
            return member  # trees of two sides have no place for the third
        fresh = fitting(clone(template), lesson).set_params(
            n_estimators=count, random_state=lesson.seed
        )
        fresh.fit(lesson.X, lesson.classes, sample_weight=lesson.weight)
        return replace(member, trees=replaced(member.trees, Trees.from_forest(fresh)))


def replaced(trees: Trees, fresh: Trees) -> Trees:
    """Trees of a forest without its oldest, and with `fresh` ones, as many, behind them."""
    count, total = len(fresh.roots), len(trees.roots)
    starts = np.append(trees.roots, len(trees.feature))
    first = int(starts[count])
    kept = {name: getattr(trees, name)[first:] for name in _NODES}
    added = {name: getattr(fresh, name) for name in _NODES}
    added["value"] = added["value"] * (count / total)  # a forest is the mean of its trees
    room = len(kept["feature"])
    for side in ("left", "right"):
        kept[side] = np.where(kept[side] < 0, kept[side], kept[side] - first)
        added[side] = np.where(added[side] < 0, added[side], added[side] + room)
    joined = {name: np.concatenate([kept[name], added[name]]) for name in _NODES}
    roots = np.concatenate([trees.roots[count:] - first, fresh.roots + room])
    target = np.concatenate([trees.target[count:], fresh.target])
    return Trees(**joined, roots=roots, target=target, base=trees.base, strict=trees.strict)


_NODES = ("feature", "threshold", "left", "right", "missing_left", "value")


def _with_moves(lesson: Lesson) -> Lesson:
    """The rows whose return could be compared with those of its bar."""
    moves = np.full(len(lesson.X), np.nan) if lesson.moves is None else lesson.moves
    known = np.isfinite(moves)
    return replace(
        lesson,
        X=lesson.X[known],
        classes=lesson.classes[known],
        weight=lesson.weight[known],
        moves=moves[known],
    )
