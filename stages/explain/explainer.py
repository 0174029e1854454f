"""Chooses the rows an explanation compares with, and explains the margin through all stages."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from stages.base import DataError, Explanation, Pull
from stages.explain.background import Background, by_reach, medoids, reference_panel
from stages.explain.chain import Chained, chain, close, pull_of, pull_through
from stages.explain.lags import TopLags, named_index, top_lags
from stages.panel import age, bars_left, light, named, stretch

__all__ = ["UNIT", "Background", "Effort", "Explainer", "reference_panel"]

UNIT = "log-odds of buy against sell"
TOLERANCE = {"full": 1e-4, "fast": 4e-4}  # gap of a net's paths, log-odds
MOST_GAP = 9e-4  # of all nets together
MEASURED = 32  # rows on which fast reasons are held against full ones

Effort = Literal["fast", "full"]


@dataclass(frozen=True)
class Explainer:
    """Reference rows and the chained attribution against them.

    Parameters
    ----------
    n_references : int, default=16
        R, rows the explanation compares with: medoids of the training tail.
    fast_references : int, default=4
        So many of them for fast reasons.
    nodes, fast_nodes : float in (0, 1], default=0.5 and 0.3125
        Share of the points on the path from a reference to a row, at which a net asks for its
        gradients, to begin with. They are doubled where they leave a gap.
    reasons : {'fast', 'full'}, default='fast'
        What every signal carries; the other is there on request.
    tail : int, default=252
        Bars of each asset they are chosen from.
    candidates : int, default=2000
        At most so many rows of the tail are clustered.
    top : int, default=5
        Reasons put in words.
    lags : int, default=20
        Single bars told for each row; 0 tells none.
    chunk : int, default=64
        Rows explained at a time: bounds memory, changes no value.
    seed : int, default=0

    References
    ----------
    Chen, Lundberg & Lee (2022), Nature Communications 13 (chained attribution); Sundararajan,
    Taly & Yan (2017), "Axiomatic attribution for deep networks", ICML.
    """

    n_references: int = 16
    fast_references: int = 4
    nodes: float = 0.5
    fast_nodes: float = 0.3125
    reasons: Effort = "fast"
    tail: int = 252
    candidates: int = 2000
    top: int = 5
    lags: int = 20
    chunk: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (self.n_references, self.fast_references)
        if min(*counts, self.tail, self.candidates, self.top, self.chunk) < 1 or self.lags < 0:
            raise ValueError(f"all settings of the explainer must be at least 1, got {self}")
        for name in ("nodes", "fast_nodes"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in (0, 1], got {self}")
        if self.reasons not in TOLERANCE:
            raise ValueError(f"reasons must be one of {[*TOLERANCE]}, got {self.reasons!r}")

    def choose(self, stack: Any, panel: pd.DataFrame, window: int) -> pd.DataFrame:
        """The rows of `pick`, each with the bars its window needs.

        Returns
        -------
        DataFrame of shape (R * L, F)
            One pseudo-asset per reference, its last row the reference; inputs only.
        """
        return reference_panel(panel, self.pick(stack, panel, window), window)

    def pick(self, stack: Any, panel: pd.DataFrame, window: int) -> pd.MultiIndex:
        """Medoids of the newest evaluable rows; those for fast reasons stand first.

        Parameters
        ----------
        stack : Stack
            Fitted; its filter places the rows among each other.
        panel : DataFrame of shape (N, F)
        window : int
            L.

        Returns
        -------
        MultiIndex of R rows of `panel`

        Raises
        ------
        DataError
            If no row of the tail is evaluable.
        """
        at = self._tail(panel, window)
        if len(at) > self.candidates:
            rng = np.random.default_rng(self.seed)
            at = np.sort(rng.choice(at, self.candidates, replace=False))
        tail = panel.iloc[at]
        z = stack.filter.predict(tail)
        place = np.column_stack([z[named(z, "filter")], tail[named(tail, "context")]])
        place = np.nan_to_num((place - np.nanmean(place, 0)) / (np.nanstd(place, 0) + 1e-12))
        return panel.index[at[medoids(place, self.n_references, self.seed)]]

    def explain(
        self,
        stack: Any,
        panel: pd.DataFrame,
        rows: pd.MultiIndex,
        references: pd.DataFrame | Background,
        effort: Effort | None = None,
    ) -> Explanation:
        """Split the margin of buy over sell at `rows` over the raw inputs of all stages.

        Parameters
        ----------
        stack : Stack
        panel : DataFrame
            With the columns of every stage, and the windows of `rows`.
        rows : MultiIndex of N rows
            In any order.
        references : DataFrame or Background
            What `choose` gave, or better `Background.of` it: the stages are then not asked again.
        effort : {'fast', 'full'}, optional
            Default `reasons`.

        Returns
        -------
        Explanation
            Closed: baseline + contributions = output to rounding; `raw_gap` is what was spread.
        """
        effort, panel = effort or self.reasons, light(panel)
        if isinstance(references, pd.DataFrame):
            references = Background.of(stack, references)
        if effort == "fast":
            references = references.first(self.fast_references)
        order = np.argsort(panel.index.get_indexer(rows), kind="stable")  # stages read panels only
        parts = [
            self._part(stack, panel, rows[part], judged, effort)._replace(at=part)
            for group, background in by_reach(references, panel, rows[order])
            for judged in [background.judged(stack.ensemble)]
            for part in _chunks(order[group], self.chunk)
        ]
        return _joined(parts, rows, effort, bool(self.lags))

    def measure(
        self,
        stack: Any,
        panel: pd.DataFrame,
        references: pd.DataFrame | Background,
        window: int,
    ) -> dict[str, float]:
        """How close fast reasons come to full ones, on rows of the training tail.

        Parameters
        ----------
        stack : Stack
        panel : DataFrame of shape (N, F)
            Inputs, and which rows are `ready`.
        references : DataFrame or Background
        window : int

        Returns
        -------
        dict
            ``rows`` compared; ``correlation`` of all contributions; ``relative_l1``, summed
            distance over summed size; ``top_1``, share of the rows with the same largest one.
        """
        at = self._tail(panel, window)
        some = panel.index[at[np.unique(np.linspace(0, len(at) - 1, MEASURED).astype(int))]]
        said = stack.predict(stretch(panel, some, window))
        if isinstance(references, pd.DataFrame):
            references = Background.of(stack, references)
        fast, full = (
            self.explain(stack, said, some, references, effort).contributions
            for effort in ("fast", "full")
        )
        columns = [*fast.columns.union(full.columns)]
        return compared(
            *(part.reindex(columns=columns, fill_value=0.0).to_numpy() for part in (fast, full))
        )

    def _tail(self, panel: pd.DataFrame, window: int) -> np.ndarray:
        """Numbers of the evaluable rows among the newest of each asset."""
        near = (bars_left(panel) < self.tail) & (age(panel) >= window - 1)
        usable = panel["ready"].to_numpy() & near
        if not usable.any():
            raise DataError(
                f"no row of the last {self.tail} bars of any asset is evaluable",
                code="SV-F18",
                why="explanations compare with such rows",
                cure="bring bars whose inputs are complete to the end, or raise explain.tail",
            )
        return np.flatnonzero(usable)

    def _part(
        self,
        stack: Any,
        panel: pd.DataFrame,
        rows: pd.MultiIndex,
        background: Background,
        effort: Effort,
    ) -> "_Part":
        window = int(stack.refiner.window) if stack.refiner is not None else 1
        if len(panel) > 2 * window * len(rows):
            panel = light(stretch(panel, rows, window))  # or stages read what nobody asks about
        nodes = self.nodes if effort == "full" else self.fast_nodes
        chained = attributed(stack, panel, rows, background, nodes, TOLERANCE[effort])
        output = panel.loc[rows, ["margin"]].to_numpy()[:, 0]
        baseline = float(background.last["margin"].to_numpy().mean())
        return _closed(chained, output, baseline, self.lags)


def attributed(  # noqa: PLR0913  rows and references of a model, and how closely to look
    stack: Any,
    panel: pd.DataFrame,
    rows: pd.MultiIndex,
    background: Background,
    nodes: float,
    tolerance: float,
) -> Chained:
    """Ask the stages of `stack` from the last to the first, each for what those after it heed.

    Parameters
    ----------
    stack : Stack
    panel : DataFrame
        With the columns of every stage, and the windows of `rows`.
    rows : MultiIndex of N rows, as far as the panel has them in order
    background : Background
        Judged: with what stage 3 says of the references.
    nodes, tolerance : float
        See `Explainer`.
    """
    ensemble = stack.ensemble.attribute(panel, rows, background.last)
    refiner = None
    if background.refined:
        outputs = named(background.last, "refiner")
        each = min(tolerance, 2 * MOST_GAP / len(outputs))  # a net has two
        asked = Pull(pull_of(ensemble, outputs), nodes, each)
        refiner = stack.refiner.attribute(panel, rows, background.windows, asked)
    heeded = pull_through(ensemble, refiner, logits_of(background.last))
    if heeded is None:
        return chain(ensemble, refiner, stack.filter.attribute(panel, rows, background.last))
    return chain(ensemble, refiner, stack.filter.attribute(panel, rows, background.last, heeded))


def logits_of(panel: pd.DataFrame) -> list[str]:
    """The columns of stage 1 that are outputs of its members."""
    return [name for name in named(panel, "filter") if name.rpartition(".")[2].startswith("z_")]


class _Part(NamedTuple):
    """What explains n rows; their numbers, and arrays in the order of the names."""

    at: np.ndarray
    names: list[str]
    contributions: np.ndarray  # (n, F), closed
    members: list[str]
    by_member: np.ndarray
    ends: np.ndarray  # (n, 3): output, baseline, raw gap
    lags: TopLags


def compared(fast: np.ndarray, full: np.ndarray) -> dict[str, float]:
    """Agreement of two tables of contributions (n, F); see `Explainer.measure`."""
    size = np.abs(full).sum()
    moved = (np.abs(fast) + np.abs(full)).any(axis=1)
    one, other = fast.ravel() - fast.mean(), full.ravel() - full.mean()
    spread = float(np.sqrt((one @ one) * (other @ other)))
    first = np.abs(fast).argmax(axis=1) == np.abs(full).argmax(axis=1)
    return {
        "rows": float(len(full)),
        "correlation": float(one @ other) / spread if spread else 1.0,
        "relative_l1": float(np.abs(fast - full).sum() / size) if size else 0.0,
        "top_1": float(first[moved].mean()) if moved.any() else 1.0,
    }


def _closed(chained: Chained, output: np.ndarray, baseline: float, top: int) -> _Part:
    names = sorted(chained.contributions)
    raw = np.column_stack([chained.contributions[name] for name in names])
    total = output - baseline
    closed, gap = close(raw, total)
    by_member, _ = close(np.column_stack([*chained.by_member.values()]), total)
    ends = np.column_stack([output, np.full(len(output), baseline), gap])
    lags = top_lags(chained, names, raw, closed, top)
    rows = np.arange(len(output))
    return _Part(rows, names, closed, [*chained.by_member], by_member, ends, lags)


def _joined(parts: list[_Part], rows: pd.MultiIndex, effort: Effort, lags: bool) -> Explanation:
    """All rows; what a part has no column for moved none of its rows, but a NaN stays one."""
    names = sorted({name for part in parts for name in part.names}, key=_plain)
    members = list(dict.fromkeys(name for part in parts for name in part.members))
    shares, by_member = np.zeros((len(rows), len(names))), np.zeros((len(rows), len(members)))
    ends = np.full((len(rows), 3), np.nan)
    for part in parts:
        ends[part.at] = part.ends
        shares[part.at[:, None], [names.index(name) for name in part.names]] = part.contributions
        columns = [members.index(name) for name in part.members]
        by_member[part.at[:, None], columns] = part.by_member
    shares[np.isnan(shares).any(axis=1)] = np.nan
    by_member[np.isnan(by_member).any(axis=1)] = np.nan
    output, baseline, gap = (pd.Series(end, rows) for end in ends.T)
    found = [(part.at, part.lags._replace(names=[*map(_plain, part.names)])) for part in parts]
    return Explanation(
        contributions=pd.DataFrame(shares, rows, named_index(tuple(map(_plain, names)))),
        baseline=baseline,
        output=output,
        by_stage=pd.DataFrame(by_member, rows, named_index(tuple(members))),
        raw_gap=gap,
        unit=UNIT,
        lags=TopLags.table(found, rows) if lags else None,
        effort=effort,
    )


def _chunks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _plain(column: str) -> str:
    return column.removeprefix("feature.")
