"""Judges a pipeline on rows it had not seen: one table, intervals beside every figure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data.sources import Source
from pipeline.files import replace_atomic
from pipeline.signal_pipeline import SignalPipeline
from stages.base import DataError
from stages.evaluate import comparison, forward_return, reliability
from stages.evaluate.contenders import contenders
from stages.folds import DateSplit, RollingSplit
from stages.labels import Given
from stages.panel import until

SHOWN = {
    "accuracy": ".3f",
    "base_rate": ".3f",
    "balanced_accuracy": ".3f",
    "mcc": "+.3f",
    "log_loss": ".4f",
    "brier": ".4f",
    "ece": ".3f",
    "ic": "+.3f",
    "rank_ic": "+.3f",
    "coverage": ".1%",
    "discarded": ".1%",
}


@dataclass(frozen=True)
class Evaluation:
    """What a pipeline is worth on rows it had not seen.

    Attributes
    ----------
    table : DataFrame of shape (M, 3 x metrics)
        A model a row; columns (metric, value | low | high), 95 % block-bootstrap intervals.
    predictions : DataFrame
        Every evaluated row; see `predictions_table`.
    reliability : DataFrame
        Said confidence against accuracy.
    gate : mapping
        Share of the rows that stage 1 discards, on rows after those that set its threshold.
    part : str
        What was evaluated: out-of-fold, valid, test.
    """

    table: pd.DataFrame
    predictions: pd.DataFrame
    reliability: pd.DataFrame
    gate: Mapping[str, float]
    part: str

    def printed(self) -> dict[str, list[str]]:
        """Cells for people: figure and interval, a model a row, in the order of `SHOWN`."""
        out = {}
        for model, row in self.table.iterrows():
            out[str(model)] = [_cell(row, name, form) for name, form in SHOWN.items()]
        return out

    def short(self, name: str, model: str = "pipeline") -> str:
        """One figure and half its interval; empty where the data do not define it."""
        row = self.table.loc[model]
        if (name, "value") not in row.index or not np.isfinite(row[(name, "value")]):
            return ""
        half = (row[(name, "high")] - row[(name, "low")]) / 2
        form = SHOWN[name]
        return f"{row[(name, 'value')]:{form}} ±{half:{form.removeprefix('+')}}"

    def metrics(self) -> dict[str, Any]:
        """JSON values of the whole table, NaN as null."""
        return {
            str(model): {
                metric: {part: _number(row[(metric, part)]) for part in ("value", "low", "high")}
                for metric in self.table.columns.unique(0)
            }
            for model, row in self.table.iterrows()
        }

    def card(self) -> dict[str, Any]:
        """What the artifact keeps of it, and a page shows."""
        times = self.predictions.index.get_level_values("time")
        cells = {model: dict(zip(SHOWN, row, strict=True)) for model, row in self.printed().items()}
        shown = [name for name in SHOWN if name != "base_rate"]  # the same for every model
        return {
            "part": self.part,
            "rows": len(self.predictions),
            "span": [f"{times.min():%Y-%m-%d}", f"{times.max():%Y-%m-%d}"],
            "base_rate": cells["pipeline"]["base_rate"],
            "shown": shown,
            "printed": {model: [row[name] for name in shown] for model, row in cells.items()},
            "reliability": self.reliability.to_dict("records"),
            "gate": {name: _number(value) for name, value in self.gate.items()},
        }

    def write(self, path: Path) -> None:
        """Write every evaluated row to Parquet."""
        rows = self.predictions.reset_index()
        replace_atomic(path, lambda temporary: rows.to_parquet(temporary, index=False))

    def _repr_html_(self) -> str:
        return str(pd.DataFrame(self.printed(), index=list(SHOWN)).T.to_html())


def judge(
    pipeline: SignalPipeline,
    rows: pd.DataFrame,
    y: pd.DataFrame,
    source: Source,
    *,
    part: str = "out-of-fold",
    resamples: int = 500,
    seed: int = 0,
) -> Evaluation:
    """Judge the pipeline, its stages, its members and the baselines on the same unseen rows.

    Parameters
    ----------
    pipeline : SignalPipeline
        Fitted.
    rows : DataFrame of shape (N, F)
        Unseen rows with the columns of every stage and the decision.
    y : DataFrame of shape (n, 3)
        All labels there are; those of `rows` are judged, baselines count the ones before.
    source : Source
    part : str
    resamples : int >= 2
        Histories drawn for the intervals.
    seed : int
    """
    labels = pipeline.labels_
    tables = table_rows(rows, y, source.bars, labels)
    table = comparison(
        tables,
        horizon=labels.horizon,
        delay=labels.delay,
        truth=source.truth,
        resamples=resamples,
        seed=seed,
    )
    chosen = tables["pipeline"]
    return Evaluation(table, chosen, reliability(chosen), pipeline.gate_, part)


def unseen_parts(
    pipeline: SignalPipeline, source: Source, split: DateSplit | RollingSplit | None
) -> Iterator[tuple[str, SignalPipeline, pd.DataFrame, pd.DataFrame]]:
    """Fit, and yield the rows to report: part name, fitted pipeline, rows, labels.

    Without a split, or with one that names a training part only, the pipeline reports its own
    out-of-fold rows. With one it never sees a label that ends after the part it trains on.
    Parts of one name (the test blocks of a walk forward) are reported as one.

    Raises
    ------
    DataError
        SV-F18 when a part to report holds no label.
    """
    bars = source.bars
    if split is None:
        pipeline.fit(bars, source.y)
        yield "out-of-fold", pipeline, pipeline.unseen_, _labels(pipeline, source)
        return
    whole = source.y if source.y is not None else _outline(pipeline, bars)
    blocks: dict[str, list[tuple[pd.DataFrame, pd.DataFrame]]] = {}
    for parts in split.parts(whole):
        time = whole["end"].iloc[parts["train"]].max()
        known = None if source.y is None else source.y.iloc[parts["train"]]
        fresh = replace(pipeline).fit(until(bars, time), known)
        y = _labels(fresh, source)
        for name in [name for name in parts if name != "train"]:
            rows = whole.index[parts[name]].intersection(y.index, sort=False)
            if not len(rows):
                raise _empty(name, whole)
            blocks.setdefault(name, []).append((evaluated(fresh, bars, rows), y))
    if not blocks:
        yield "out-of-fold", fresh, fresh.unseen_, y
    for name, said in blocks.items():
        yield name, fresh, *_pooled(said, bars.index)


def evaluated(pipeline: SignalPipeline, bars: pd.DataFrame, rows: pd.Index) -> pd.DataFrame:
    """The columns of every stage, with and without the gate, and the decision, at `rows`."""
    panel = pipeline.panel(bars)
    rows = rows[panel["ready"].reindex(rows, fill_value=False).to_numpy()]
    if not len(rows):
        raise DataError(
            "no row can be evaluated",
            code="SV-F18",
            why=f"the model needs {pipeline.warmup} bars of history, and labels that have ended",
            cure="bring more history before the first row, or a later end",
        )
    panel = pipeline.stack_.compare(panel).loc[rows]
    return panel.assign(**pipeline.decide.decide(panel))


def later_rows(
    pipeline: SignalPipeline, source: Source, since: pd.Timestamp | None
) -> tuple[pd.DataFrame, pd.Index]:
    """All labels of `source`, and its rows after everything the pipeline has learnt from.

    Raises
    ------
    DataError
        SV-F25 when `since` reaches back into what was learnt; SV-F18 when nothing is left.
    """
    y = _labels(pipeline, source)
    times = y.index.get_level_values("time")
    first = pipeline.learned_until_ if since is None else since
    if first < pipeline.learned_until_:
        raise DataError(
            f"since={since:%Y-%m-%d} reaches back before {pipeline.learned_until_:%Y-%m-%d}",
            code="SV-F25",
            why="the model learnt from labels up to then: a score on them is no skill",
            cure="leave `since` out, or train on an earlier part with split=dates",
        )
    later = y.index[times > first if since is None else times >= first]
    if not len(later):
        raise DataError(
            f"the data hold no label of a bar after {first:%Y-%m-%d}",
            code="SV-F18",
            where=f"labels run to {times.max():%Y-%m-%d}",
            why="the model learnt from everything up to then",
            cure="bring newer bars, or train with split=dates to hold a part back",
        )
    return y, later


def predictions_table(
    rows: pd.DataFrame, y: pd.DataFrame, bars: pd.DataFrame, labels: Any
) -> pd.DataFrame:
    """One row an evaluated row, in the columns that ``predictions=PATH`` writes."""
    ahead = forward_return(bars, labels.horizon, labels.delay) if "close" in bars else None
    session = pd.Series(pd.NaT, rows.index, dtype="datetime64[us]")
    if "session" in bars:
        session = bars["session"].reindex(rows.index)
    return pd.DataFrame(
        {
            "session": session,
            "p_sell": rows["p_sell"],
            "p_hold": rows["p_hold"],
            "p_buy": rows["p_buy"],
            "score": rows["p_buy"] - rows["p_sell"],
            "side": rows["side"].astype("Int8"),  # an abstention is null, not a hold
            "label": y["side"].reindex(rows.index).astype("int8"),
            "forward_return": np.nan if ahead is None else ahead.reindex(rows.index),
            "fired": rows["status"].isin(["fired", "unproven"]),
            "gate": rows["filter.gate"],
        }
    )


def table_rows(
    rows: pd.DataFrame, y: pd.DataFrame, bars: pd.DataFrame, labels: Any
) -> dict[str, pd.DataFrame]:
    """The predictions table of every contender, by name."""
    base = predictions_table(rows, y, bars, labels)
    last = None
    if "close" in bars:
        last = np.log(bars["close"]).groupby(level="asset", sort=False).diff()
    out = {}
    for name, odds in contenders(rows, y, last).items():
        said = base.assign(**odds, score=odds["p_buy"] - odds["p_sell"])
        if name != "pipeline":
            said["side"] = (odds.to_numpy().argmax(axis=1) - 1).astype("int8")
            said = said.drop(columns=["fired", "gate"])
        out[name] = said
    return out


def _labels(pipeline: SignalPipeline, source: Source) -> pd.DataFrame:
    return source.y if source.y is not None else pipeline.labels_.label(source.bars)


def _pooled(
    blocks: list[tuple[pd.DataFrame, pd.DataFrame]], order: pd.Index
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows and labels of several test blocks as one; each row keeps the label of its block."""
    if len(blocks) == 1:
        return blocks[0]
    rows = pd.concat([rows for rows, _ in blocks])
    own = pd.concat([y.loc[rows.index] for rows, y in blocks])
    y = pd.concat([own, blocks[-1][1].drop(own.index, errors="ignore")])  # baselines count these
    return tuple(t.iloc[np.argsort(order.get_indexer(t.index))] for t in (rows, y))  # type: ignore[return-value]


def _empty(part: str, y: pd.DataFrame) -> DataError:
    times = y.index.get_level_values("time")
    return DataError(
        f"no label lies in the {part} part of the split",
        code="SV-F18",
        where=f"labels run {times.min():%Y-%m-%d} to {times.max():%Y-%m-%d}",
        why="a label belongs to a part only if it also ends there",
        cure=f"set split.{part}_end inside that span, or leave it out",
    )


def _outline(pipeline: SignalPipeline, bars: pd.DataFrame) -> pd.DataFrame:
    """Rows and label ends before any width is fitted: enough to cut an outer split."""
    labels = replace(pipeline.labels)
    if isinstance(labels, Given):
        raise DataError(
            "labels=given, but the data bring no labels",
            code="SV-F20",
            cure="choose labels=triple_barrier, or data that hold labels",
        )
    return labels.fit(bars).label(bars)


def _cell(row: pd.Series, name: str, form: str) -> str:
    if (name, "value") not in row.index or not np.isfinite(row[(name, "value")]):
        return ""
    value, low, high = (row[(name, part)] for part in ("value", "low", "high"))
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
