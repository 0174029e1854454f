"""The contracts of the computing layer: what a stage does, what it can explain, how it refuses."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import pandas as pd
from sklearn.exceptions import NotFittedError


class SieveError(Exception):
    """A refusal that says what was found, where, why it matters and what cures it.

    Parameters
    ----------
    what : str
        The fault in one line, with the offending values.
    code : str
        ``SV-F..`` of the fault catalogue, or ``SV-X...`` outside it.
    where, why, cure : str
        Place (file, row, asset, time), reason, and the change that makes the command pass.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self, what: str, *, code: str, where: str = "", why: str = "", cure: str = ""
    ) -> None:
        self.what, self.code, self.where, self.why, self.cure = what, code, where, why, cure
        super().__init__(what)

    def __str__(self) -> str:
        lines = [f"{self.code}  {self.what}"]
        rest = {"where": self.where, "why": self.why, "cure": self.cure}
        return "\n".join(lines + [f"{name:<8}{text}" for name, text in rest.items() if text])

    def __reduce__(self) -> tuple[Any, ...]:  # keyword-only fields must survive worker processes
        fields = {"code": self.code, "where": self.where, "why": self.why, "cure": self.cure}
        return (_rebuild, (type(self), self.what, fields))


def _rebuild(kind: type[SieveError], what: str, fields: dict[str, str]) -> SieveError:
    return kind(what, **fields)


class ConfigError(SieveError):
    """A usage or configuration fault."""

    exit_code = 2


class DataError(SieveError, ValueError):
    """A table or a file breaks its contract."""

    exit_code = 3


class ArtifactError(SieveError):
    """A stored model is damaged, foreign or incompatible."""

    exit_code = 4


class StoreError(SieveError):
    """Something could not be written or read back."""

    exit_code = 5


class LeakError(SieveError):
    """Something was learnt from what it was to be judged on, or from its future."""

    exit_code = 7


@dataclass(frozen=True)
class State:
    """What a stage learnt: JSON values, and parts in native formats. Never a pickle.

    Attributes
    ----------
    values : mapping
        JSON-able; floats survive the round trip exactly.
    parts : mapping of str to bytes
        File name (``lightgbm.txt``, ``forest.safetensors`` …) to content.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Pull:
    """How much each output of a stage counts in what is explained, and how closely to look.

    Attributes
    ----------
    weights : float64 ndarray of shape (N, R, O)
        Multiplier of each output, per row and reference.
    share : float in (0, 1]
        Share of the points on a path, at which a net asks for its gradients, to begin with.
    tolerance : float
        Gap of a row, in the unit of what is explained, beyond which they are doubled.
    turns : float64 ndarray of shape (J, N, R, O), optional
        What each of J inputs of a later stage adds to the weights between reference and row; the
        weights are those half way.
    """

    weights: np.ndarray
    share: float = 1.0
    tolerance: float = 0.0
    turns: np.ndarray | None = None


@dataclass(frozen=True)
class Attribution:
    """Contributions of a stage's inputs to its outputs, per reference row.

    They stay per reference because averages cannot be chained through the next stage.

    Attributes
    ----------
    outputs : tuple of O str
        Explained columns of the stage.
    inputs : tuple of F str
        Panel columns the contributions belong to.
    values : float64 ndarray of shape (N, R, O, F)
        Share of each input in ``output(row) - output(reference)``, log-odds.
    upstream : tuple of U str
        Columns of earlier stages that this stage reads.
    slopes : float64 ndarray of shape (N, R, O, U)
        Multiplier of ``upstream(row) - upstream(reference)``; exact where the stage is linear,
        the path-averaged gradient where it is a net.
    lags : float64 ndarray of shape (N, L, F), optional
        Given a `Pull`: the part of each bar in it, newest last, averaged over the references.
        `outputs` then are members, whose columns have been added up by their weights.
    turns : mapping of str to float64 ndarray of shape (N, R, O, U), optional
        By input that the slopes depend on: what it adds to them between reference and row. The
        slopes are those half way.
    moved : float64 ndarray of shape (J, N, O), optional
        Given a `Pull` with turns: the part of the sum of the values that is owed to each turn.
        The values then are averages over the references, R = 1.
    """

    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    values: np.ndarray
    upstream: tuple[str, ...]
    slopes: np.ndarray
    lags: np.ndarray | None = None
    turns: Mapping[str, np.ndarray] | None = None
    moved: np.ndarray | None = None


@dataclass(frozen=True)
class Explanation:
    """Why the pipeline leans the way it does: additive contributions per row.

    Attributes
    ----------
    contributions : DataFrame of shape (N, F)
        Push of each raw feature on `output`, in the unit named by `unit`.
    baseline : Series of N floats
        Mean output over the reference rows.
    output : Series of N floats
        The explained margin.
    by_stage : DataFrame of shape (N, members)
        The same total split by stage and member, context included.
    raw_gap : Series of N floats
        What was left unexplained before closure spread it over the contributions.
    unit : str
        ``"log-odds of buy against sell"``.
    lags : DataFrame of shape (at most N * top, 3), optional
        The largest parts of single bars: `lag` (bars before the row, 0 its own), `feature` and
        `contribution`, indexed by row, largest first. The parts of all lags of a feature sum to
        its contribution; only a sequence model has any beyond lag 0.
    effort : {'fast', 'full'}
        With how many references and nodes.
    """

    contributions: pd.DataFrame
    baseline: pd.Series
    output: pd.Series
    by_stage: pd.DataFrame
    raw_gap: pd.Series
    unit: str
    lags: pd.DataFrame | None = None
    effort: str = "full"

    @property
    def gap(self) -> pd.Series:
        """What the contributions leave unexplained; within 1e-5 for every signal that leaves."""
        return self.output - self.baseline - self.contributions.sum(axis=1)


class Stage(Protocol):
    """A learner in the chain. It adds columns to the panel and never removes rows.

    The index of `y` says which rows to learn from, `rows` which to explain; the panel carries
    their past. A stage is a dataclass: fields are hyperparameters, and names ending in ``_``
    exist only after `fit`. Predictions do not depend on how many rows come along.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def fit(self, panel: pd.DataFrame, y: pd.DataFrame) -> Self: ...

    def predict(self, panel: pd.DataFrame) -> pd.DataFrame: ...

    def update(self, panel: pd.DataFrame, y: pd.DataFrame) -> Self: ...

    def attribute(
        self, panel: pd.DataFrame, rows: pd.MultiIndex, references: pd.DataFrame
    ) -> Attribution: ...

    def state(self) -> State: ...

    def restore(self, state: State) -> Self: ...


def fitted(stage: Any, name: str) -> Any:
    """Return the fitted attribute `name` of `stage`, or say that `fit` has not run."""
    if not hasattr(stage, name):
        raise NotFittedError(f"{type(stage).__name__} has no {name} yet; call fit first")
    return getattr(stage, name)
