"""What old trees of a booster make of new rows: leaves that move, rounds on top, rounds taken off.

A booster is taken and given back in its library's own format; a stored one and a live one are the
same. What each library would do wrong is handled where it happens.
"""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import lightgbm
import numpy as np
import xgboost
from sklearn.base import clone

from stages.filter.members import LightGBMMember, XGBoostMember
from stages.filter.regression import RegressionMember


@dataclass(frozen=True)
class Lesson:
    """Rows to learn from.

    Attributes
    ----------
    X : float32 ndarray of shape (n, F)
    classes : int ndarray of shape (n,)
        0, 1, 2 for sell, hold, buy.
    weight : float64 ndarray of shape (n,)
    moves : float64 ndarray of shape (n,) or None
        What a regressor learns, see `stages.filter.regression.standing`; NaN is left out.
    seed : int
        Of fresh trees.
    drifted : bool
        Whether a change of the market is confirmed.
    """

    X: np.ndarray
    classes: np.ndarray
    weight: np.ndarray
    moves: np.ndarray | None
    seed: int
    drifted: bool


def refitted(member: Any, template: Any, lesson: Lesson, decay: float) -> Any:
    """A booster with the same splits, whose leaves have moved towards `lesson`."""
    if isinstance(member, XGBoostMember):
        return _refitted_xgboost(member, template, lesson, decay)
    text, leaves = _text(member), member.booster.predict(lesson.X, pred_leaf=True)
    return _with_text(member, refitted_text(text, lesson, np.asarray(leaves), decay))


def refitted_text(text: str, lesson: Lesson, leaves: np.ndarray, decay: float) -> str:
    """LightGBM's own refit, freed of what makes it lose a boosted classifier.

    The first tree of each output holds the base score too, and is marked as not shrunk. Refitted
    as it stands it is moved by a whole Newton step from odds of a third each: on its own training
    rows, with ``decay=0``, a model then comes out another (LightGBM issue 4951). Here the base
    scores are taken out, handed over as where the sums start, and put back. Leaves that no row
    reaches would decay towards 0; they keep their value.

    Parameters
    ----------
    text : str
        A model as LightGBM writes it.
    lesson : Lesson
        Of a regressor `moves` are learnt.
    leaves : int ndarray of shape (n, trees)
        The leaf of each row in each tree.
    decay : float in [0, 1]
    """
    head, *blocks = text.split("\nTree=")
    outputs, trees = int(_field(head, "num_tree_per_iteration")), len(blocks)
    blocks[-1], tail = _without_tail(blocks[-1])
    old = [_numbers(block, "leaf_value") for block in blocks]
    base = [_mean_leaf(block) for block in blocks[:outputs]]
    rate = _field(blocks[outputs], "shrinkage") if trees > outputs else "1"
    level = [base[tree] if tree < outputs else 0.0 for tree in range(trees)]
    bare = [
        _set(_leafed(block, value - b), "shrinkage", rate) if tree < outputs else block
        for tree, (block, value, b) in enumerate(zip(blocks, old, level, strict=True))
    ]
    booster = lightgbm.Booster(model_str=_model(head, bare, tail))
    target: Any = lesson.moves if outputs == 1 else lesson.classes
    start = np.tile(base, (len(lesson.X), 1))
    moved = booster.refit(
        lesson.X,
        target,
        decay_rate=decay,
        weight=lesson.weight,
        init_score=start[:, 0] if outputs == 1 else start,
    )
    new = moved.model_to_string(num_iteration=-1).split("\nTree=")[1:]
    for tree, (value, block, b) in enumerate(zip(old, new, level, strict=True)):
        found = _numbers(block, "leaf_value") + b
        reached = np.zeros(len(value), dtype=bool)
        reached[leaves[:, tree]] = True
        blocks[tree] = _leafed(bare[tree], np.where(reached, found, value))
    return _model(head, blocks, tail)


def continued(member: Any, template: Any, lesson: Lesson, rounds: int) -> Any:
    """A booster with `rounds` more on top, grown by the settings of its template."""
    if isinstance(member, XGBoostMember):
        settings = _xgboost_settings(fitting(clone(template), lesson)) | {"seed": lesson.seed}
        told = xgboost.DMatrix(lesson.X, lesson.classes, weight=lesson.weight, nthread=member.jobs)
        taller = xgboost.train(settings, told, rounds, xgb_model=member.booster)
        return replace(member, content=bytes(taller.save_raw("ubj")))
    settings = member.booster.params | {"seed": lesson.seed, "num_iterations": rounds}
    settings |= {"min_data_in_leaf": _least(settings["min_data_in_leaf"], len(lesson.X))}
    target = lesson.moves if isinstance(member, RegressionMember) else lesson.classes
    rows = lightgbm.Dataset(lesson.X, target, weight=lesson.weight, params=settings)
    grown = lightgbm.train(settings, rows, rounds, init_model=member.booster)
    return _with_text(member, grown.model_to_string(num_iteration=-1))


def cut(member: Any, rounds: int) -> Any:
    """A booster without the rounds after the first `rounds`."""
    if isinstance(member, XGBoostMember):
        return replace(member, content=bytes(member.booster[:rounds].save_raw("ubj")))
    return _with_text(member, member.booster.model_to_string(num_iteration=rounds))


def _refitted_xgboost(
    member: XGBoostMember, template: Any, lesson: Lesson, decay: float
) -> XGBoostMember:
    """XGBoost's refresh gives leaves of the new rows alone; the blend with the old is ours."""
    settings = _xgboost_settings(template)
    for unused in ("tree_method", "subsample"):  # of growing
        settings.pop(unused, None)
    settings |= {"process_type": "update", "updater": "refresh", "refresh_leaf": True}
    told = xgboost.DMatrix(lesson.X, lesson.classes, weight=lesson.weight, nthread=member.jobs)
    rounds = member.booster.num_boosted_rounds()
    with warnings.catch_warnings():  # that the updater is named by hand
        warnings.filterwarnings("ignore", message="(?s).*`updater` parameter")
        fresh = xgboost.train(settings, told, rounds, xgb_model=member.booster)
    leaves = np.asarray(member.booster.predict(told, pred_leaf=True), dtype=int)
    leaves = leaves.reshape(len(lesson.X), -1)
    model = json.loads(bytes(member.booster.save_raw("json")))
    news = json.loads(bytes(fresh.save_raw("json")))["learner"]["gradient_booster"]["model"]
    olds = model["learner"]["gradient_booster"]["model"]
    for tree, (old, new) in enumerate(zip(olds["trees"], news["trees"], strict=True)):
        was, now = (np.array(t["split_conditions"], dtype="float64") for t in (old, new))
        for leaf in np.unique(leaves[:, tree]).tolist():
            was[leaf] = decay * was[leaf] + (1 - decay) * now[leaf]
        old["split_conditions"] = was.astype("float32").tolist()
    blended = xgboost.Booster({"nthread": member.jobs})
    blended.load_model(bytearray(json.dumps(model).encode()))
    return replace(member, content=bytes(blended.save_raw("ubj")))


def _xgboost_settings(template: Any) -> dict[str, Any]:
    settings = {k: v for k, v in template.get_xgb_params().items() if v is not None}
    settings["nthread"] = settings.pop("n_jobs", None) or 1
    settings["seed"] = settings.pop("random_state", 0) or 0
    return settings | {"objective": "multi:softprob", "num_class": 3}


def fitting(template: Any, lesson: Lesson) -> Any:
    """`template` with no leaf so large, and no sample so large, that few rows cannot fill it."""
    n = len(lesson.X)
    if hasattr(template, "min_samples_leaf"):
        template.set_params(min_samples_leaf=_least(template.min_samples_leaf, n))
        if isinstance(template.max_samples, int):
            template.set_params(max_samples=min(template.max_samples, n))
    return template


def _least(rows: Any, n: int) -> Any:
    """Least rows of a leaf where only `n` rows are at hand; a share stays one."""
    return min(rows, max(n // 10, 1)) if isinstance(rows, int) else rows


# LightGBM's text


def _text(member: LightGBMMember | RegressionMember) -> str:
    if isinstance(member, RegressionMember):
        return member.content.partition(b"\n")[2].decode()
    return member.content.decode()


def _with_text(member: Any, text: str) -> Any:
    if isinstance(member, RegressionMember):
        tie = member.content.partition(b"\n")[0]
        return replace(member, content=tie + b"\n" + text.encode())
    return replace(member, content=text.encode())


def _model(head: str, blocks: Sequence[str], tail: str) -> str:
    """One text again; the sizes of the trees are left out, for they have changed."""
    lines = [line for line in head.splitlines() if not line.startswith("tree_sizes=")]
    return "\nTree=".join(["\n".join(lines) + "\n", *blocks]) + tail


def _without_tail(block: str) -> tuple[str, str]:
    tree, mark, rest = block.partition("\nend of trees")
    return tree, mark + rest


def _field(block: str, name: str) -> str:
    return next(line for line in block.splitlines() if line.startswith(f"{name}="))[len(name) + 1 :]


def _set(block: str, name: str, value: str) -> str:
    return block.replace(f"\n{name}={_field(block, name)}", f"\n{name}={value}", 1)


def _numbers(block: str, name: str) -> np.ndarray:
    return np.array(_field(block, name).split(), dtype="float64")


def _leafed(block: str, values: np.ndarray) -> str:
    return _set(block, "leaf_value", " ".join(map(repr, values.tolist())))


def _mean_leaf(block: str) -> float:
    """The base score that the first tree of an output holds: Newton steps from it cancel out."""
    value = _numbers(block, "leaf_value")
    weight = _numbers(block, "leaf_weight") if len(value) > 1 else np.ones(1)
    return float(np.average(value, weights=weight))


def rounds_of(member: Any) -> int:
    """Rounds of a booster."""
    booster = member.booster
    if isinstance(member, XGBoostMember):
        return int(booster.num_boosted_rounds())
    return int(booster.num_trees() // booster.num_model_per_iteration())
