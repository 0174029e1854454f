"""Rows that a fitted pipeline had not seen: out-of-fold, on an outer split, or on later bars."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from pipeline.data.sources import Source
from pipeline.matured import known, newer_rows
from pipeline.signal_pipeline import SignalPipeline
from stages.base import ConfigError, DataError
from stages.combinatorial import CombinatorialPurged
from stages.folds import DateSplit, RollingSplit
from stages.panel import settled, until

Split = DateSplit | RollingSplit | CombinatorialPurged


def unseen_parts(
    pipeline: SignalPipeline, source: Source, split: Split | None
) -> Iterator[tuple[str, SignalPipeline, pd.DataFrame, pd.DataFrame]]:
    """Fit, and yield the rows to report: part name, fitted pipeline, rows, labels.

    Without a split, or with one that names a training part only, the pipeline reports its own
    out-of-fold rows. With one it never sees a label that is open after the part it trains on.
    Parts of one name (the test blocks of a walk forward, the groups of a path) are reported as
    one. The pipeline that stays is that of the last training: after combinatorial splits it has
    learnt from the groups before the last `n_test`.

    Raises
    ------
    ConfigError
        SV-F25 when the embargo of the split is shorter than the horizon of the labels.
    DataError
        SV-F18 when a part to report holds no label.
    LeakError
        SV-F26 when a row to report had any role in the fit; see `Roles.hold_out`.
    """
    bars = source.bars
    if split is None:
        pipeline.fit(bars, source.y)
        yield "out-of-fold", pipeline, pipeline.unseen_, _labels(pipeline, source)
        return
    _refuse_short_embargo(split, pipeline.labels.horizon)
    whole = source.y if source.y is not None else _outline(pipeline, bars)
    between = isinstance(split, CombinatorialPurged)  # held-out rows lie among those learnt from
    if isinstance(split, CombinatorialPurged) and split.look_back is None:
        warm = replace(pipeline.features).fit(bars).warmup + pipeline.window
        split = replace(split, look_back=warm - 1)
    blocks: dict[str, list[tuple[pd.DataFrame, pd.DataFrame]]] = {}
    for parts in split.parts(whole):
        train = whole.iloc[parts.pop("train")]
        given = None if source.y is None else train
        fresh = replace(pipeline).fit(
            until(bars, settled(train).max()), given, train.index if between else None
        )
        y = _labels(fresh, source)
        rows = {name: _labelled(whole, at, y, name) for name, at in parts.items()}
        for name, said in _said(fresh, bars, rows, y).items():
            blocks.setdefault(name, []).append((said, y))
    if not blocks:
        yield "out-of-fold", fresh, fresh.unseen_, y
    for name, of_name in blocks.items():
        pooled, labels = _pooled(of_name, bars.index)
        if pooled.empty:
            raise _unevaluable(fresh)
        yield name, fresh, pooled, labels


def _said(
    pipeline: SignalPipeline, bars: pd.DataFrame, rows: Mapping[str, pd.Index], y: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """`evaluated` of each part, in one go, once it is certain that no fit has touched them."""
    for name, part in rows.items():
        pipeline.roles_.hold_out(name, part)
    if not rows:
        return {}
    at = np.concatenate([bars.index.get_indexer(part) for part in rows.values()])
    said = evaluated(pipeline, bars, bars.index[np.sort(at)], y)
    return {name: said[said.index.isin(part)] for name, part in rows.items()}


def evaluated(
    pipeline: SignalPipeline, bars: pd.DataFrame, rows: pd.Index, y: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The columns of every stage, with and without the gate, and the decision, at `rows`.

    Parameters
    ----------
    pipeline : SignalPipeline
    bars : DataFrame of shape (N, F)
    rows : MultiIndex
    y : DataFrame of shape (n, 3 to 5), optional
        Labels. With them each row is spoken of by a stage 3 that has learnt the ones that had
        ended (every ``folds.update_every`` bars; 0: none), under the skill and coverage that
        updates at every bar would have found; without, by the model as it last learnt.
    """
    panel = pipeline.panel(bars)
    rows = rows[panel["ready"].reindex(rows, fill_value=False).to_numpy()]
    if not len(rows):
        raise _unevaluable(pipeline)
    new = None
    if y is not None:
        evaluable = panel["ready"].reindex(y.index, fill_value=False).to_numpy()
        new = y[evaluable & ~known(y.index, pipeline.learned_rows_)]
    said = pipeline.stack_.compare(panel, rows, new, pipeline.folds.update_every)
    record = copy.deepcopy(pipeline.record_)
    if y is not None:
        later = newer_rows(said, record.rows_, pipeline.learned_until_)
        record.update(said.loc[later], y, bars)
    return pipeline.judged(said, record)


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
        cure = "train on an earlier part with split=dates"
        if (times > pipeline.learned_until_).any():
            cure = f"leave `since` out, or {cure}"
        raise DataError(
            f"since={since:%Y-%m-%d} reaches back before {pipeline.learned_until_:%Y-%m-%d}",
            code="SV-F25",
            where="key since",
            why="the model learnt from labels up to then: a score on them is no skill",
            cure=cure,
        )
    later = y.index[times > first if since is None else times >= first]
    if not len(later):
        raise DataError(
            f"the data hold no label of a bar after {first:%Y-%m-%d}",
            code="SV-F18",
            where=f"labels run to {times.max():%Y-%m-%d}",
            why="the model learnt from everything up to then" if since is None else "",
            cure="bring newer bars, or train with split=dates to hold a part back"
            if since is None
            else "name an earlier `since`, or bring newer bars",
        )
    return y, later


def _refuse_short_embargo(split: Split, horizon: int) -> None:
    embargo = getattr(split, "embargo", horizon)  # dates have none: the purge alone cuts there
    if embargo < horizon:
        raise ConfigError(
            f"an embargo of {embargo} bars is shorter than horizon={horizon}",
            code="SV-F25",
            where=f"split {type(split).__name__}",
            why="returns that the labels beside the cut share would stand on both sides of it",
            cure=f"raise the embargo of the split to {horizon} or more",
        )


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


def _labelled(whole: pd.DataFrame, at: np.ndarray, y: pd.DataFrame, part: str) -> pd.Index:
    rows = whole.index[at].intersection(y.index, sort=False)
    if not len(rows):
        raise _empty(part, whole)
    return rows


def _unevaluable(pipeline: SignalPipeline) -> DataError:
    return DataError(
        "no row can be evaluated",
        code="SV-F18",
        why=f"the model needs {pipeline.warmup} bars of history, and labels that have ended",
        cure="bring more history before the first row, or a later end",
    )


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
