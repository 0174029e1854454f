"""Rows that a fitted pipeline had not seen: out-of-fold, on an outer split, or on later bars."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from pipeline.data.sources import Source
from pipeline.signal_pipeline import SignalPipeline
from stages.base import DataError
from stages.folds import DateSplit, RollingSplit
from stages.panel import until


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
            where="key since",
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
    return replace(pipeline.labels).fit(bars).label(bars)
