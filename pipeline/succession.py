"""Where an updated model goes: into the champion's place, into its shadow, or nowhere.

What stage 3 learns at every matured label is part of the model that was promoted, and goes on in
its place. Members that learn make another model of it: that one leaves the line of its parent,
speaks in the shadow, and serves when every gate is open, as any challenger does.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline import artifacts, registry, updating
from pipeline.answers import Answer
from pipeline.lock import lock
from pipeline.pointer import move, read_pointer
from pipeline.promotions import Candidate, measured
from pipeline.updates import Update
from stages.online.duel import PATH, Duel
from stages.online.learning import Learning
from stages.online.promotion import Promotion, Verdict

if TYPE_CHECKING:
    from pipeline.signal_pipeline import SignalPipeline


@dataclass(frozen=True)
class Placed:
    """Where a model went.

    Attributes
    ----------
    role : {'champion', 'challenger', ''}
        Empty: it is stored, and nothing else.
    why : str
    """

    role: str
    why: str = ""


@dataclass(frozen=True)
class Step:
    """One update that was made.

    Attributes
    ----------
    update : Update
    model : Path
        Folder.
    placed : Placed
    """

    update: Update
    model: Path
    placed: Placed


def plan(
    root: Path | str, model: Path | None, learning: Learning | None
) -> list[tuple[Path, Learning | None]]:
    """Which models learn, and what of them.

    The champion, or `model`. Where members learn and a branch of the champion is in the shadow
    already, that one goes on with them, and the champion learns as it was promoted.

    Parameters
    ----------
    root : Path or str
    model : Path or None
    learning : Learning or None
        What members learn.
    """
    if model is not None:
        return [(model, learning)]
    champion, own = artifacts.champion(root), branch(root)
    now = read_pointer(root)
    if learning is None or now is None or now.challenger is None:
        return [(champion, learning)]
    others = [] if own is None else [(artifacts.find(root, own), learning)]
    return [(champion, None), *others]


def carry_out(  # noqa: PLR0913  what is learnt, by whom, and what it needs to serve
    root: Path | str,
    todo: list[tuple[Path, Learning | None]],
    known: tuple[pd.DataFrame, pd.DataFrame | None],
    answer: Answer,
    rules: Promotion | None,
    facts: Mapping[str, Any],
    labels: str = "data",
) -> Iterator[Step]:
    """Make the updates of a plan, one after the other.

    Parameters
    ----------
    root : Path or str
    todo : list of (Path, Learning or None)
        See `plan`. A champion whose members have to go into the shadow learns once more, without
        them, so that it does not fall behind.
    known : (DataFrame, DataFrame or None)
        Bars, and labels that override the labeler.
    answer : Answer
    rules : Promotion or None
        None stores the models, and moves no pointer.
    facts : mapping
        What the sidecars say.
    labels : str, default='data'
        Where given labels come from.
    """
    from pipeline.signal_pipeline import SignalPipeline

    bars, y = known
    for old, learning in todo:
        pipeline, verdict = SignalPipeline.load(old), None
        drifted = answer.drifted and learning is not None
        update = updating.step(pipeline, bars, y, learning, drifted, labels, answer.record())
        if update.counts["lessons"] and rules is not None:
            verdict = judged(root, (old, SignalPipeline.load(old)), pipeline, bars, rules)
        apart = {"branch": True} if leaves_the_line(root, update, verdict) else {}
        model = updating.store(root, pipeline, update, old, {**facts, **apart})
        at = Placed("") if rules is None else place(root, update, verdict)
        yield Step(update, model, at)
        now = read_pointer(root)
        if verdict is not None and now is not None and now.champion == update.parent:
            yield from carry_out(root, [(old, None)], known, answer, rules, facts, labels)


def judged(
    root: Path | str,
    old: tuple[Path, "SignalPipeline"],
    new: "SignalPipeline",
    bars: pd.DataFrame,
    rules: Promotion,
) -> Verdict:
    """What the gates say of a model whose members have just learnt: nothing was heard of it yet.

    Parameters
    ----------
    root : Path or str
    old : (Path, SignalPipeline)
        The model before, whose certificate and lineage the new one goes on with.
    new : SignalPipeline
    bars : DataFrame
    rules : Promotion
    """
    folder, before = old
    lineage = registry.lineage(root, before.digest)
    silence = Duel(pd.DataFrame(columns=PATH, dtype="float64"), 1, 0, (float("nan"),) * 2)
    asked = bars if set(rules.gates) & {"additivity", "latency"} else None
    models = (Candidate(folder, lineage, pipeline) for pipeline in (before, new))
    return rules.judge(silence, *(measured(model, asked) for model in models))


def leaves_the_line(root: Path | str, update: Update, verdict: Verdict | None) -> bool:
    """Whether the model after `update` is to be heard apart from the one before it.

    Parameters
    ----------
    root : Path or str
    update : Update
    verdict : Verdict or None
        Of `judged`; None where no members learnt.
    """
    now = read_pointer(root)
    goes_on = now is not None and update.parent == now.challenger
    return verdict is not None and bool(verdict.closed) and not goes_on


def place(root: Path | str, update: Update, verdict: Verdict | None) -> Placed:
    """Move the pointer of `root` as far as the gates allow: one atomic change, or none.

    Parameters
    ----------
    root : Path or str
    update : Update
    verdict : Verdict or None
        Of `judged`; None where no members learnt.

    Raises
    ------
    ArtifactError
        SV-X412 where a leak was found in the model.
    """
    with lock(root, wait=60):
        now, moved = read_pointer(root), update.child != update.parent
        if now is None:
            artifacts.promote(root, update.child, "update")
            return Placed("champion")
        if update.parent == now.challenger:
            if moved:
                move(root, replace(now, challenger=update.child, action="challenge"), "update")
            return Placed("challenger")
        if update.parent != now.champion:
            return Placed("", "what it was made of is neither champion nor challenger")
        if verdict is None or not verdict.closed:
            if moved:
                registry.advance(root, update.child, "update")
            return Placed("champion")
        closed = f"closed: {', '.join(check.gate for check in verdict.closed)}"
        if now.challenger is not None and branch(root) is None:
            return Placed("", f"another challenger is in the shadow; {closed}")
        registry.challenge(root, update.child, f"its members learnt, {closed}")
        return Placed("challenger", closed)


def branch(root: Path | str) -> str | None:
    """Digest of the challenger, where it came of the training of the champion, by updates."""
    now = read_pointer(root)
    if now is None or now.challenger is None:
        return None
    mine, theirs = (registry.lineage(root, d) for d in (now.champion, now.challenger))
    return now.challenger if mine.first == theirs.first else None
