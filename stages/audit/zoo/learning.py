"""Planted leaks in labels, folds, and what a pipeline learns, tunes, explains and remembers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd

from stages.base import State
from stages.explain.explainer import reference_panel
from stages.folds import PurgedWalkForward
from stages.labels import TripleBarrier
from stages.online.replay import ReplayBuffer
from stages.panel import asset_codes, settled
from stages.signal import ODDS, SIDES

# labels


@dataclass
class EarlyEnd(TripleBarrier):
    """Labels that claim to be known `early` bars before they are."""

    early: int = 1

    def label(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Labels with ends moved back, though not before the next bar."""
        y = super().label(bars)
        times = bars.index.unique("time").sort_values()
        at = times.get_indexer(pd.DatetimeIndex(y.index.get_level_values("time")))
        for name in ("end", "horizon_end"):
            if name in y:
                claimed = times.get_indexer(pd.DatetimeIndex(y[name])) - self.early
                y[name] = times[np.maximum(claimed, at + 1)]
        return y


@dataclass
class RankedWeight(TripleBarrier):
    """Labels weighted by where their return lies among all of the sample."""

    def label(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Labels with other weights."""
        y = super().label(bars)
        return y.assign(weight=y["weight"] * y["ret"].abs().rank(pct=True))


@dataclass
class WholeScale(TripleBarrier):
    """The return at stake, from the volatility of the whole sample."""

    def scale(self, bars: pd.DataFrame) -> pd.Series:
        """One scale an asset, for all of its bars."""
        found = super().scale(bars)
        return found.where(found.isna(), found.groupby(level="asset").transform("mean"))


# folds


@dataclass(frozen=True)
class BadFolds(PurgedWalkForward):
    """Folds with a fault.

    Parameters
    ----------
    fault : {'no purge', 'no embargo', 'row count', 'shuffled', 'both sides', 'row numbers'}
        Training on all rows before the block; on labels that end right before it; on all but the
        last rows before it, however long their labels; on blocks of shuffled bars; on what comes
        after a block too; on blocks cut by row number, which are blocks of assets.
    """

    fault: str = "no purge"

    def split(
        self, y: pd.DataFrame, edges: pd.DatetimeIndex | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (train, test) row numbers."""
        edges = self.edges(y) if edges is None else edges
        time = pd.DatetimeIndex(y.index.get_level_values("time"))
        block = np.maximum(edges.searchsorted(time, side="right") - 1, 0)
        if self.fault == "shuffled":
            bar, bars = time.factorize(sort=True)
            block = (np.random.default_rng(0).permutation(len(bars)) * len(edges) // len(bars))[bar]
        elif self.fault == "row numbers":
            block = np.arange(len(y)) * len(edges) // len(y)
        for number, start in enumerate(edges[1:], start=1):
            train = np.flatnonzero(self._trained(y, time, block, number, start))
            if self.fault == "row count":
                train = train[: -self.embargo]
            yield train, np.flatnonzero(block == number)

    def _trained(
        self,
        y: pd.DataFrame,
        time: pd.DatetimeIndex,
        block: np.ndarray,
        number: int,
        start: pd.Timestamp,
    ) -> np.ndarray:
        if self.fault in ("shuffled", "row numbers", "both sides"):
            return block != number
        if self.fault == "no embargo":
            return (settled(y) < start).to_numpy()
        return np.asarray(time < start)


# what a pipeline learns from; each takes a pipeline and gives one with the fault


@dataclass
class Pretrained:
    """A stage that was fitted before on everything, and is handed out as if it were not."""

    fitted: Any

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "fitted":
            raise AttributeError(name)
        return getattr(self.fitted, name)

    def fit(self, panel: pd.DataFrame, y: pd.DataFrame) -> Self:
        """Nothing: it knows it all."""
        return self

    def predict(self, panel: pd.DataFrame) -> pd.DataFrame:
        return self.fitted.predict(panel)

    def state(self) -> State:
        return self.fitted.state()


def pretrained(pipeline: Any, stage: str) -> Any:
    """A stage fitted on all rows, whose in-sample words the next stage learns from."""

    def fit(self: Any, bars: pd.DataFrame, y: pd.DataFrame | None = None) -> Any:
        first = _own(pipeline).fit(replace(_plain(self, pipeline)), bars, y)
        knows = Pretrained(getattr(first.stack_, stage))
        again = replace(_plain(self, pipeline), **{stage: knows})
        return _become(self, _own(pipeline).fit(again, bars, y))

    return with_methods(pipeline, fit=fit)


def tuned(pipeline: Any, candidates: Callable[[Any], list[Any]]) -> Any:
    """Of several pipelines, the one that does best on the rows it is then judged on."""

    def fit(self: Any, bars: pd.DataFrame, y: pd.DataFrame | None = None) -> Any:
        fitted = [_own(pipeline).fit(each, bars, y) for each in candidates(_plain(self, pipeline))]
        losses = [_log_loss(each.unseen_, _labels(each, bars, y)) for each in fitted]
        return _become(self, fitted[int(np.argmin(losses))])

    return with_methods(pipeline, fit=fit)


def recalibrated(pipeline: Any) -> Any:
    """Odds with a temperature fitted on the very rows that are reported."""

    def finish(self: Any, bars: pd.DataFrame, y: pd.DataFrame | None) -> None:
        rows = self.unseen_
        logits = np.log(rows[ODDS].to_numpy(dtype="float64"))
        heats = np.linspace(0.5, 2, 61)
        losses = [_log_loss(_odds(rows, logits / heat), _labels(self, bars, y)) for heat in heats]
        curve = np.polyfit(heats, losses, 2)  # its vertex moves with every label
        self.unseen_ = _odds(rows, logits / np.clip(-curve[1] / (2 * curve[0]), 0.5, 2))

    return after_fit(pipeline, finish)


def regated(pipeline: Any) -> Any:
    """The gate of today, set on all rows, reported for the rows it was set on."""

    def finish(self: Any, bars: pd.DataFrame, y: pd.DataFrame | None) -> None:
        gate = self.stack_.filter
        passes = gate.gate_score(self.unseen_) >= gate.threshold_
        self.unseen_["filter.gate"] = passes.astype("float64")

    return after_fit(pipeline, finish)


def rethresholded(pipeline: Any) -> Any:
    """A certainty to fire at, chosen on all reported rows so that a tenth of them fires."""

    def finish(self: Any, bars: pd.DataFrame, y: pd.DataFrame | None) -> None:
        level = float(np.nanquantile(self.unseen_["certainty"], 0.9))
        self.decide = replace(self.decide, certainty=min(max(level, 0.0), 1.0))
        said = self.decide.decide(self.unseen_)
        self.unseen_ = self.unseen_.assign(**said)

    return after_fit(pipeline, finish)


# what it explains with, and remembers


def refreshed_references(pipeline: Any) -> Any:
    """Explanations that compare with the newest of whatever bars are at hand."""

    def explain(self: Any, bars: pd.DataFrame, rows: pd.Index) -> Any:
        panel = self.panel(bars)
        chosen = self.explainer.pick(self.stack_, panel, self.window)
        self.references_ = reference_panel(panel, chosen, self.window).astype("float32")
        return _own(pipeline).explain(self, bars, rows)

    return with_methods(pipeline, explain=explain)


def whole_baseline(pipeline: Any) -> Any:
    """A baseline that is the mean margin of all bars at hand, later ones too."""

    def explain(self: Any, bars: pd.DataFrame, rows: pd.Index) -> Any:
        why = _own(pipeline).explain(self, bars, rows)
        margin = _own(pipeline).predict(self, bars)["margin"].mean()
        return replace(why, baseline=why.baseline * 0 + margin)

    return with_methods(pipeline, explain=explain)


@dataclass
class FarMemory(ReplayBuffer):
    """Remembers with each row what its inputs were `ahead` bars later."""

    ahead: int = 1

    def add(self, panel: pd.DataFrame, y: pd.DataFrame) -> Self:
        """Stream rows of inputs that were not there yet."""
        inputs = [c for c in panel if str(c).split(".")[0] in ("feature", "rule", "context")]
        later = panel[inputs].groupby(asset_codes(panel)).shift(-self.ahead)
        return super().add(panel.assign(**later.fillna(panel[inputs])), y)


def impatient(pipeline: Any) -> Any:
    """Updates from labels whose horizon is still open."""

    def update(self: Any, bars: pd.DataFrame, y: pd.DataFrame | None = None) -> Any:
        if y is not None:
            newest = bars.index.get_level_values("time").max()
            y = y.copy()
            for name in ("end", "horizon_end"):
                if name in y:
                    y[name] = y[name].where(y[name] <= newest, newest)
            y = y[(y.index.get_level_values("time") < newest)]
        return _own(pipeline).update(self, bars, y)

    return with_methods(pipeline, update=update)


def with_methods(pipeline: Any, **methods: Any) -> Any:
    """A copy of `pipeline` of its own kind, with other methods."""
    kind = type(pipeline)
    copied = replace(pipeline)
    copied.__class__ = type(kind.__name__, (kind,), methods)
    return copied


def after_fit(pipeline: Any, finish: Callable[[Any, pd.DataFrame, Any], None]) -> Any:
    """A copy of `pipeline` that does something more at the end of its fit."""

    def fit(self: Any, bars: pd.DataFrame, y: pd.DataFrame | None = None) -> Any:
        _own(pipeline).fit(self, bars, y)
        finish(self, bars, y)
        return self

    return with_methods(pipeline, fit=fit)


def _own(pipeline: Any) -> Any:
    return type(pipeline)


def _plain(leaking: Any, pipeline: Any) -> Any:
    """The settings of `leaking` in a pipeline of the honest kind."""
    plain = replace(leaking)
    plain.__class__ = type(pipeline)
    return plain


def _become(self: Any, fitted: Any) -> Any:
    vars(self).update(vars(fitted))
    return self


def _labels(fitted: Any, bars: pd.DataFrame, y: pd.DataFrame | None) -> pd.DataFrame:
    return fitted.labels_.label(bars) if y is None else y


def _log_loss(rows: pd.DataFrame, y: pd.DataFrame) -> float:
    paid = y["side"].reindex(rows.index).to_numpy(dtype="float64")
    odds = rows[ODDS].to_numpy(dtype="float64")
    known = np.isfinite(paid) & np.isfinite(odds).all(axis=1)
    column = paid[known].astype(int) - min(SIDES)
    return float(-np.log(np.maximum(odds[known][np.arange(known.sum()), column], 1e-9)).mean())


def _odds(rows: pd.DataFrame, logits: np.ndarray) -> pd.DataFrame:
    weight = np.exp(logits - logits.max(axis=1, keepdims=True))
    return rows.assign(
        **dict(zip(ODDS, (weight / weight.sum(axis=1, keepdims=True)).T, strict=True))
    )
