"""One step of online learning: learn, describe what that did, store; and make all steps again."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline import artifacts, recipe
from pipeline.certificates import carry_certificate
from pipeline.data.bars import digest as bars_digest
from pipeline.learning import Learnt, learn, remembered
from pipeline.lock import lock
from pipeline.tracking import git_commit
from pipeline.updates import Update, enter, read
from pipeline.versions import versions
from stages.base import State, StoreError
from stages.online.learning import Learning
from stages.online.transfer import by_regime, scores, transfer
from stages.panel import settled, until
from stages.signal import ODDS
from stages.stack import Stack

if TYPE_CHECKING:
    from pipeline.signal_pipeline import SignalPipeline

PROBE = 1000  # remembered rows on which it is measured what an update forgot


def step(
    pipeline: "SignalPipeline",
    bars: pd.DataFrame,
    y: pd.DataFrame | None = None,
    learning: Learning | None = None,
    drifted: bool = False,
    labels: str = "data",
    answer: Mapping[str, Any] | None = None,
) -> Update:
    """Let a pipeline learn what matured, and describe what that did.

    Parameters
    ----------
    pipeline : SignalPipeline
        Fitted; it is changed.
    bars, y, learning, drifted
        See `SignalPipeline.update`.
    labels : str, default='data'
        Where a given `y` comes from.
    answer : mapping, optional
        What is done about alarms, see `pipeline.answers.Answer.record`.
    """
    answer = dict(answer or {})
    parent = pipeline.digest
    seed = learning.seed if learning is not None else 0
    probe, known = remembered(pipeline, PROBE, seed)  # before new rows take the place of old ones
    learnt = _learnt(pipeline, (bars, y), learning, drifted, answer)
    times = bars.index.get_level_values("time")
    data = {
        "from": times.min().isoformat(),
        "to": times.max().isoformat(),
        "bars": len(bars),
        "digest": bars_digest(bars),
        "labels": "bars" if y is None else labels,
        "labels_digest": "" if y is None else _labels_digest(_within(y, times.min())),
    }
    return Update(
        parent,
        pipeline.digest,
        data,
        None if learning is None else recipe.describe(learning),
        drifted,
        answer,
        {**learnt.counts, "lessons": learnt.lessons},
        **_measured(learnt, pipeline.stack_, probe, known, pipeline.replay.regime),
        memory=pipeline.replay_.summary(),
        code=git_commit(),
        libraries=versions(),
    )


def _learnt(
    pipeline: "SignalPipeline",
    known: tuple[pd.DataFrame, pd.DataFrame | None],
    learning: Learning | None,
    drifted: bool,
    answer: Mapping[str, Any],
) -> Learnt:
    if answer.get("stop"):
        pipeline.record_.skill_.restart()
    hurried = answer.get("at_once")
    return learn(pipeline, *known, learning, drifted, compare=True, at_once=hurried)


def _measured(
    learnt: Learnt, after: Stack, probe: pd.DataFrame, known: pd.DataFrame, regime: str
) -> dict[str, Any]:
    """Scores of what was learnt, and of what is remembered, before and after."""
    if learnt.before is None:
        return {}
    side = learnt.y["side"]
    said = learnt.said
    told = scores(said[ODDS].to_numpy("float64"), side.loc[said.index].to_numpy())
    frozen = scores(learnt.frozen[ODDS].to_numpy("float64"), side.to_numpy())
    remembered_side = known["side"].to_numpy()
    at = probe[regime].loc[known.index].to_numpy("float64") if regime in probe else None
    regimes = {
        when: by_regime(stack.predict(probe).loc[known.index], remembered_side, at)
        for when, stack in (("before", learnt.before), ("after", after))
        if len(known)
    }
    commonest = int(known["side"].mode().iloc[0]) if len(known) else 0
    moved: dict[str, Any] = {}
    if regimes:
        share = float((side == commonest).mean())
        moved = transfer(regimes["before"], regimes["after"], frozen, share)
    return {"prequential": told, "frozen": frozen, "regimes": regimes, "transfer": moved}


def store(
    root: Path | str,
    pipeline: "SignalPipeline",
    update: Update,
    old: Path,
    facts: Mapping[str, Any],
) -> Path:
    """Write the updated model and its record: each whole or not at all; no pointer moves.

    A process that dies at any moment leaves what there was; whatever it had written is written
    again, the same, by the next update.

    Parameters
    ----------
    root : Path or str
    pipeline : SignalPipeline
        After the update.
    update : Update
    old : Path
        Folder of the model before: its certificate is carried on.
    facts : mapping
        What the sidecar says beside the parent and the counts.

    Returns
    -------
    Path
        Folder of the model.
    """
    with lock(root, wait=60):
        told = {**facts, "parent": update.parent, **update.counts}
        model = pipeline.save(Path(root) / "models", told)
        carry_certificate(old, model)
        if update.child != update.parent:
            enter(root, update)
    return model


def repeat(
    root: Path | str, bars: pd.DataFrame, y: pd.DataFrame | None = None
) -> Iterator[tuple[Update, str]]:
    """Make every update of `root` again, and yield it with the digest that came of it.

    Models go on from one another in memory; only those that no update of the record led to are
    loaded. So all is made again from the first model.

    Parameters
    ----------
    root : Path or str
    bars : DataFrame
        With the bars that each update had; later ones are cut off.
    y : DataFrame, optional
        Labels that were given with them.

    Raises
    ------
    StoreError
        SV-X541 where the bars or the labels of an update are not those that it had.
    """
    from pipeline.signal_pipeline import SignalPipeline

    reached: dict[str, State] = {}
    for update in read(root):
        if update.parent in reached:
            state = reached[update.parent]
            pipeline = recipe.build(state.values["recipe"]).restore(state)
        else:
            pipeline = SignalPipeline.load(artifacts.find(root, update.parent))
        then, labels = _as_of(update, bars, y)
        learning = None if update.settings is None else recipe.build(update.settings)
        _learnt(pipeline, (then, labels), learning, update.drifted, update.answer)
        values, parts = pipeline.content()
        digest = artifacts.digest_of(values, parts)
        reached[digest] = State(values, parts)
        yield update, digest


def _as_of(
    update: Update, bars: pd.DataFrame, y: pd.DataFrame | None
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """The bars and labels that an update had."""
    first, last = (pd.Timestamp(update.data[name]) for name in ("from", "to"))
    bars = until(bars, last)
    bars = bars[bars.index.get_level_values("time") >= first]
    if update.data["labels"] == "bars":
        y = None
    elif y is not None:
        y = _within(y[(settled(y) <= last).to_numpy()], first)
    labels = "" if y is None else _labels_digest(y)
    for what, found in (("digest", bars_digest(bars)), ("labels_digest", labels)):
        if found != update.data[what]:
            raise _others(update, "bars" if what == "digest" else "labels")
    return bars, y


def _within(y: pd.DataFrame, first: pd.Timestamp) -> pd.DataFrame:
    return y[y.index.get_level_values("time") >= first]


def _labels_digest(y: pd.DataFrame) -> str:
    return bars_digest(y.sort_index())


def _others(update: Update, what: str) -> StoreError:
    return StoreError(
        f"the {what} are not those of the update to {update.child[:16]}",
        code="SV-X541",
        where=f"{update.data['from']} to {update.data['to']}, {update.data['bars']} bars",
        why="an update can be made again only from what it learnt from",
        cure=f"bring the {what} as they were then; later ones do no harm",
    )
