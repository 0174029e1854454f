"""A copy of a pipeline that trains in a second and tells what each of its fits was given."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import clone

from stages.base import State
from stages.panel import named, settled

# settings that make training long, by the most a probe takes; a name a part lacks is passed over
MOST = {
    "n_estimators": 6,
    "epochs": 1,
    "patience": 1,
    "hidden": 16,
    "layers": 1,
    "levels": 2,
    "n_references": 4,
    "candidates": 200,
}
# settings below which a fit would pass over rows, and a leak could hide; by the most that is left
FINE = {"min_child_samples": 5, "min_samples_leaf": 3, "min_child_weight": 0.5, "reg_lambda": 1.0}
FIXED = {
    "accelerator": "cpu",  # bits repeat there
    "progress": False,
    "stride": 1,
    "capacity": 100_000,  # every row stays in memory, and so under the comparison
    "max_bytes": 1 << 28,
}
PARTS = ("features", "filter", "refiner", "ensemble", "explainer", "replay")


def small(pipeline: Any) -> Any:
    """An unfitted copy with few trees, one epoch and one net a member, and leaves of a few rows."""
    parts = {name: getattr(pipeline, name) for name in PARTS if hasattr(pipeline, name)}
    return replace(pipeline, **{name: _small(part) for name, part in parts.items()})


def _small(part: Any) -> Any:
    """`part` with its own and its members' settings no larger than a probe needs."""
    if isinstance(part, partial):
        return partial(part.func, *part.args, **_lowered(part.keywords))
    if hasattr(part, "set_params"):
        return clone(part).set_params(**_lowered(part.get_params(deep=False)))
    if not is_dataclass(part) or isinstance(part, type):
        return part
    settings = {f.name: getattr(part, f.name) for f in fields(part) if f.init}
    changed = {k: v for k, v in _lowered(settings).items() if v is not settings[k]}
    if isinstance(settings.get("members"), Mapping):
        changed["members"] = {name: _small(m) for name, m in settings["members"].items()}
    if "seeds" in settings:
        changed["seeds"] = list(settings["seeds"])[:1]
    return replace(part, **changed) if changed else part


def _lowered(settings: Mapping[str, Any]) -> dict[str, Any]:
    most = MOST | FINE
    out = {}
    for name, value in settings.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        out[name] = min(value, most[name]) if name in most and number else FIXED.get(name, value)
    return out


@dataclass
class Altered:
    """Labels after a change of them: the labeler's interface, with another table.

    Parameters
    ----------
    labels : labeler
    change : callable
        Table of labels to table of labels.
    """

    labels: Any
    change: Callable[[pd.DataFrame], pd.DataFrame]

    @property
    def horizon(self) -> int:
        return int(self.labels.horizon)

    @property
    def delay(self) -> int:
        return int(self.labels.delay)

    @property
    def span(self) -> int:
        return int(self.labels.span)

    def fit(self, *given: Any, **named_given: Any) -> Self:
        self.labels = replace(self.labels).fit(*given, **named_given)
        return self

    def label(self, bars: pd.DataFrame) -> pd.DataFrame:
        return self.change(self.labels.label(bars))

    def scale(self, bars: pd.DataFrame) -> Any:
        return self.labels.scale(bars)

    def state(self) -> State:
        return self.labels.state()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "labels":
            raise AttributeError(name)
        return getattr(self.labels, name)


def scrambled(y: pd.DataFrame, since: pd.Timestamp, seed: int) -> pd.DataFrame:
    """`y` with another side, weight and return for each label not settled before `since`."""
    rng = np.random.default_rng(seed)
    open_ = (settled(y) >= since).to_numpy()
    y = y.copy()
    side = y["side"].to_numpy(copy=True)
    side[open_] = (side[open_] + rng.integers(1, 3, open_.sum()) + 1) % 3 - 1
    y["side"] = side.astype("int8")
    y["weight"] = np.where(open_, y["weight"] * rng.uniform(0.3, 3, len(y)), y["weight"])
    if "ret" in y:
        y["ret"] = np.where(open_, -y["ret"] + rng.normal(0, 0.01, len(y)), y["ret"])
    return y


def ended(y: pd.DataFrame, by: pd.Timestamp) -> pd.DataFrame:
    """The labels settled by a time."""
    return y[(settled(y) <= by).to_numpy()]


@dataclass
class Log:
    """What each `fit` of a stage was given, in order: stage, words of earlier stages, labels."""

    fits: list[tuple[str, pd.DataFrame, pd.DataFrame]] = field(default_factory=list)

    def tap(self, name: str, stage: Any) -> Any:
        """A copy of `stage` of its own kind whose fits, and those of its copies, are noted."""
        if stage is None:
            return None
        fits, kind = self.fits, type(stage)

        def fit(own: Any, panel: pd.DataFrame, y: pd.DataFrame) -> Any:
            words = named(panel, "filter", "refiner")
            fits.append((name, panel.loc[y.index, words], y))
            return kind.fit(own, panel, y)

        tapped = copy.copy(stage)
        spy = type(kind.__name__, (kind,), {"fit": fit, "__module__": kind.__module__})
        object.__setattr__(tapped, "__class__", spy)
        return tapped


def states(pipeline: Any) -> dict[str, pd.Series]:
    """What a fitted pipeline learnt, by part: each JSON value and each binary part by its name."""
    learnt = {name[:-1]: part for name, part in vars(pipeline).items() if name.endswith("_")}
    owners = {name: part for name, part in learnt.items() if hasattr(part, "state")}
    owners |= dict(pipeline.stack_)
    if getattr(pipeline.stack_, "novelty", None) is not None:
        owners["novelty"] = pipeline.stack_.novelty
    out = {"gate": pd.Series(dict(learnt.get("gate", {})), dtype=object)}
    for name, owner in owners.items():
        state = owner.state()
        out[name] = pd.Series(dict(_leaves(dict(state.values))) | dict(state.parts), dtype=object)
    return out


def _leaves(values: Any, path: str = "") -> Any:
    """(name, value) of each value in nested mappings; lists are one value."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, values


def sample(
    bars: pd.DataFrame, assets: int | None, length: int, rng: np.random.Generator
) -> pd.DataFrame:
    """About the last `length` bars of some assets that have them; of all if `assets` is None."""
    tails = bars.groupby(level="asset", sort=False).tail(length)
    starts = tails.groupby(level="asset", sort=False).head(1)
    count = tails.groupby(level="asset", sort=False).size().to_numpy()
    long = count >= 0.7 * count.max()
    first = starts.index.get_level_values("time")[long].sort_values()[long.sum() // 2]
    bars = bars[bars.index.get_level_values("time") >= first]
    if assets is None:
        return bars
    names = starts.index.get_level_values("asset").to_numpy(dtype="str")[long]
    chosen = rng.permutation(names)[:assets]
    return bars[bars.index.get_level_values("asset").isin(chosen)]
