"""A second opinion on a contribution: a linear model of the margin around the row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge

from stages.base import Explanation
from stages.explain.memory import Memory, column_of
from stages.explain.variants import Variants
from stages.panel import last_rows

FEW = 3  # inputs below which ranks agree by chance
POOR = 0.5  # fit below which most of the margin's change around the row is not linear


@dataclass(frozen=True)
class Lime:
    """How the neighbourhood of a row is drawn and weighed.

    Parameters
    ----------
    samples : int, default=2000
        Points drawn around the row, one of them the row itself.
    spread : float > 0, default=1
        Standard deviation of the draws, in those of the training.
    width : float > 0, default=0.75
        Of the kernel, in units of the root of the number of inputs: a point at distance d weighs
        ``sqrt(exp(-d^2 / (width^2 F)))``. The default is that of Ribeiro et al.
    ridge : float >= 0, default=1
        Penalty on the weights.
    top : int, default=10
        Largest contributions whose ranks are compared.
    least : float in [-1, 1], default=0.5
        Rank correlation below which the two are said to disagree.
    seed : int, default=0
        The same draws for every row, so that a row does not depend on the others.

    References
    ----------
    Ribeiro, Singh & Guestrin (2016), "Why should I trust you?", KDD; Garreau & von Luxburg (2020),
    "Explaining the explainer", AISTATS: the width decides what is seen, so it is stored.
    """

    samples: int = 2000
    spread: float = 1.0
    width: float = 0.75
    ridge: float = 1.0
    top: int = 10
    least: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 2 or self.top < FEW:
            raise ValueError(f"need samples >= 2 and top >= {FEW}, got {self}")
        if not (self.spread > 0 and self.width > 0 and self.ridge >= 0 and -1 <= self.least <= 1):
            raise ValueError(f"need spread, width > 0, ridge >= 0, least in [-1, 1], got {self}")

    def surrogate(
        self, margin: Callable[[np.ndarray], np.ndarray], center: np.ndarray, step: np.ndarray
    ) -> tuple[np.ndarray, float]:
        """Fit a weighted ridge to `margin` around `center`.

        Parameters
        ----------
        margin : callable
            Maps points (S, F) to (S,).
        center : array of shape (F,)
        step : array of shape (F,)
            Unit of each input; 0 holds it.

        Returns
        -------
        weights : float64 ndarray of shape (F,)
            Change of the margin per unit.
        fit : float
            Weighted R^2 of the surrogate on its own points; NaN where the margin never changes.
        """
        free = step > 0
        z = np.random.default_rng(self.seed).standard_normal((self.samples, int(free.sum())))
        z[0] = 0.0
        z *= self.spread
        points = np.repeat(np.asarray(center, dtype="float64")[None], self.samples, axis=0)
        points[:, free] += z * step[free]
        value = np.asarray(margin(points), dtype="float64")
        out = np.zeros(len(step))
        if not free.any() or np.ptp(value) == 0:
            return out, float("nan")
        near = np.exp(-0.5 * (z**2).sum(axis=1) / (self.width**2 * free.sum()))
        model = Ridge(alpha=self.ridge, solver="cholesky").fit(z, value, sample_weight=near)
        out[free] = model.coef_
        return out, float(model.score(z, value, sample_weight=near))


@dataclass(frozen=True)
class Surrogate:
    """A linear model of the margin around one row, beside the row's explanation.

    Plain values: `dataclasses.asdict` gives what can be stored as JSON.

    Attributes
    ----------
    asset, time : str
    weights : mapping of str to float
        Change of the margin (log-odds of buy against sell) per training standard deviation of
        each input of the last bar, by the names of the explanation.
    effects : mapping of str to float
        Weight times distance from the references' mean: what compares with a contribution.
    fit : float or None
        Weighted R^2 around the row: how far the margin is linear there.
    agreement : float or None
        Spearman rank correlation of effects and contributions over the `compared` largest
        contributions; None if there are too few.
    compared : int
    disputed : bool
        Whether the agreement is below what was asked.
    width, spread : float
        Of the kernel, in training standard deviations, and of the draws.
    text : str
    """

    asset: str
    time: str
    weights: Mapping[str, float]
    effects: Mapping[str, float]
    fit: float | None
    agreement: float | None
    compared: int
    disputed: bool
    width: float
    spread: float
    text: str


def lime(
    stack: Any,
    panel: pd.DataFrame,
    rows: pd.MultiIndex,
    memory: Memory,
    why: Explanation,
    references: pd.DataFrame,
    settings: Lime | None = None,
) -> list[Surrogate]:
    """Check the contributions of each row against a model that knows nothing of the stages.

    The margin is explained as `Explainer` explains it, with the gate held as it is for the row.
    Inputs of the last bar move, each on its own; the bars before are held, so a net's share of
    older bars is in the contributions and not in the surrogate. An input that is missing, or
    never varied, is held too; one that all references lack is left out, as nothing compares with
    it. Never a part of what adds up.

    Parameters
    ----------
    stack : Stack
        Fitted.
    panel : DataFrame of shape (N, F)
        Inputs of `rows` and of the bars their windows need, `ready`, `cost`, `scale`.
    rows : MultiIndex of n rows
    memory : Memory
        Whose standard deviations are the unit.
    why : Explanation
        Of `rows`.
    references : DataFrame of shape (R * L, F)
        All that the explanation compared with, and no more: for fast reasons these are the first
        few only.
    settings : Lime, optional

    Returns
    -------
    list of n Surrogate

    Notes
    -----
    A dispute does not say who is right. Contributions follow the margin from the references to
    the row, whatever its shape; the surrogate is a line around the row. Read its fit first.
    """
    settings = settings or Lime()
    mean = last_rows(references)
    out = []
    for row in rows:
        variants = Variants.of(stack, panel, row)
        _, spread = memory.scale
        unit = pd.Series(spread * memory.varies, memory.columns)
        step = unit.reindex(variants.columns, fill_value=0.0).to_numpy()
        step = np.where(np.isfinite(variants.inputs), step, 0.0)
        weights, fit = settings.surrogate(_margin(variants), variants.inputs, step)
        off = variants.inputs - mean[variants.columns].mean().to_numpy()
        steps = np.divide(off, step, out=np.zeros(len(step)), where=step > 0)
        pushes = why.contributions.loc[row]
        of = {name: variants.columns.index(column_of(name)) for name in _known(pushes, variants)}
        of = {name: i for name, i in of.items() if np.isfinite(steps[i])}
        found = {name: float(weights[i]) for name, i in of.items()}
        effects = {name: float(weights[i] * steps[i]) for name, i in of.items()}
        out.append(_compared(row, pushes, found, effects, fit, settings, int((step > 0).sum())))
    return out


def _margin(variants: Variants) -> Callable[[np.ndarray], np.ndarray]:
    """What is explained: the margin with the gate held as it is for the row."""
    gate = float(variants.predict(variants.inputs[None])["filter.gate"].iloc[0])
    return lambda points: variants.predict(points.astype("float32"), gate)["margin"].to_numpy()


def _known(pushes: pd.Series, variants: Variants) -> list[str]:
    """Names of the explanation that are inputs: what the gate adds is none."""
    return [str(name) for name in pushes.index if column_of(str(name)) in variants.columns]


def _compared(  # noqa: PLR0913  one row's opinion, and the other
    row: tuple[str, pd.Timestamp],
    pushes: pd.Series,
    weights: dict[str, float],
    effects: dict[str, float],
    fit: float,
    settings: Lime,
    free: int,
) -> Surrogate:
    order = pushes.loc[list(effects)].abs().sort_values(ascending=False, kind="stable")
    largest = [str(name) for name in order.index[: settings.top] if order[name] > 0]
    agreement = None
    if len(largest) >= FEW:
        theirs, ours = [effects[n] for n in largest], pushes[largest].to_numpy()
        if np.ptp(theirs) > 0 and np.ptp(ours) > 0:
            agreement = float(spearmanr(theirs, ours).statistic)
    disputed = agreement is not None and agreement < settings.least
    found = fit if np.isfinite(fit) else None
    return Surrogate(
        asset=str(row[0]),
        time=row[1].isoformat(),
        weights=weights,
        effects=effects,
        fit=found,
        agreement=agreement,
        compared=len(largest),
        disputed=disputed,
        width=float(settings.width * np.sqrt(free)),
        spread=settings.spread,
        text=_text(agreement, len(largest), found, disputed),
    )


def _text(agreement: float | None, compared: int, fit: float | None, disputed: bool) -> str:
    if agreement is None or fit is None:
        return "LIME has nothing to compare: too few inputs moved the margin."
    verb = "disputes" if disputed else "agrees with"
    text = (
        f"LIME {verb} the contributions: rank correlation {agreement:+.2f} over the largest "
        f"{compared}, local fit R² {fit:.2f}"
    )
    return f"{text}." if fit >= POOR else f"{text}; a line fits poorly here, a weak witness."
