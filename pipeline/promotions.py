"""Where the models of a root stand: what they said in the shadow, what the rules make of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import pandas as pd

from pipeline import artifacts, certificates, registry, shadow
from pipeline.data.sources import Source
from pipeline.pointer import Pointer
from pipeline.registry import SHORT, Lineage
from stages.base import ArtifactError, DataError
from stages.online.ab import Comparison, Outcome
from stages.online.duel import Duel, duel
from stages.online.promotion import Facts, Promotion, Verdict

if TYPE_CHECKING:
    from pipeline.signal_pipeline import SignalPipeline

RUNS = 2  # timed, after one that is not; the best counts


@dataclass(frozen=True)
class Candidate:
    """A stored model, as the gates look at it.

    Attributes
    ----------
    folder : Path
    lineage : Lineage
    pipeline : SignalPipeline
    """

    folder: Path
    lineage: Lineage
    pipeline: "SignalPipeline"


@dataclass(frozen=True)
class Model(Candidate):
    """A model in a role, and what it said.

    Attributes
    ----------
    role, digest : str
    panel : DataFrame
        What it makes of the bars.
    rows : DataFrame
        What it said of them, see `pipeline.shadow.read`.
    """

    role: str
    digest: str
    panel: pd.DataFrame
    rows: pd.DataFrame


@dataclass(frozen=True)
class Standing:
    """The models of a root, their duels, and what the rules say.

    Attributes
    ----------
    pointer : Pointer
    models : mapping of str to Model
        By role: champion, and where there are, challenger and previous.
    challenge, reverse : Duel or None
        Of champion and challenger; of the former champion and this one, since the change.
    promotion, rollback : Verdict or None
    """

    pointer: Pointer
    models: Mapping[str, Model]
    challenge: Duel | None = None
    reverse: Duel | None = None
    promotion: Verdict | None = None
    rollback: Verdict | None = None

    @property
    def action(self) -> str:
        """What is due: ``roll back``, ``promote`` or ``wait``; a rollback goes first."""
        if self.rollback is not None and self.rollback.action == "roll back":
            return "roll back"
        if self.promotion is not None and self.promotion.action == "promote":
            return "promote"
        return "wait"


def stand(root: Path | str, source: Source, rules: Promotion) -> Standing:
    """Let every model of `root` speak of the new bars, and judge who should serve.

    Hold `pipeline.lock.lock` on `root`: what was said is written there.

    Parameters
    ----------
    root : Path or str
    source : Source
        Bars, with the history that the models need before the first new one.
    rules : Promotion

    Raises
    ------
    ArtifactError
        SV-X410 without a champion; SV-F29 for a damaged model.
    """
    pointer = registry.serving(root)
    models = {role: _heard(root, role, digest, source) for role, digest in pointer.roles()}
    champion = models["champion"]
    truth, span = shadow.labels(champion.rows), champion.pipeline.labels.span
    now = pd.Timestamp(newest(source))
    parts: dict[str, Duel | Verdict] = {}
    if "challenger" in models:
        _same_question(champion, models["challenger"])
        said = models["challenger"].rows
        found = duel(champion.rows, said, truth, span, now, rules.most, rules.wide)
        asked = set(rules.gates) & {"additivity", "latency"}
        bars = source.bars if asked else None
        facts = [measured(m, bars) for m in (champion, models["challenger"])]
        parts |= {"challenge": found, "promotion": rules.judge(found, *facts)}
    if "previous" in models:
        _same_question(champion, models["previous"])
        mine, former = (_since(models[r].rows, pointer.bar) for r in ("champion", "previous"))
        found = duel(former, mine, truth, span, now, rules.most, rules.wide)
        parts |= {"reverse": found, "rollback": rules.undo(found)}
    return Standing(pointer, models, **parts)  # type: ignore[arg-type]


def against(root: Path | str, source: Source, test: Comparison, a: str, b: str) -> Outcome:
    """Compare two models on bars that neither had learnt from; the labels are those of A.

    Parameters
    ----------
    root : Path or str
        See `stand`.
    source : Source
    test : Comparison
    a, b : str
        Digests.
    """
    one, other = _heard(root, "a", a, source), _heard(root, "b", b, source)
    _same_question(one, other)
    truth, span = shadow.labels(one.rows), one.pipeline.labels.span
    both = one.rows.index.intersection(other.rows.index)
    said, answered = one.rows.loc[both].sort_index(), other.rows.loc[both].sort_index()
    return test.judge(said, answered, truth, span, pd.Timestamp(newest(source)))


def act(root: Path | str, standing: Standing, bar: str) -> Pointer | None:
    """Do what is due, if anything: one atomic change of the pointer; return it as it is then.

    Parameters
    ----------
    root : Path or str
    standing : Standing
    bar : str
        Newest bar, ISO format: from there on the former champion is compared.
    """
    if standing.action == "roll back" and standing.rollback is not None:
        return registry.roll_back(root, standing.rollback.text, bar)
    if standing.action == "promote" and standing.promotion is not None:
        digest = standing.models["challenger"].digest
        return registry.promote(root, digest, standing.promotion.text, bar)
    return None


def newest(source: Source) -> str:
    """Time of the newest bar, ISO format."""
    return str(source.bars.index.get_level_values("time").max().isoformat())


def refuse_untried(root: Path | str, digest: str) -> None:
    """Refuse to promote a model that did not speak in the shadow.

    Raises
    ------
    ArtifactError
        SV-X412, unless it is the challenger.
    """
    if registry.serving(root).challenger != digest:
        raise ArtifactError(
            f"the model {digest[:SHORT]} may not be promoted, closed: evidence",
            code="SV-X412",
            where="it is not the challenger, so nothing was heard of it in the shadow",
            why="a change that is not shown to be better can make things worse",
            cure=f"python -m pipeline.promote model={digest[:SHORT]} to=challenger, then wait",
        )


def refuse_closed_gates(standing: Standing) -> None:
    """Refuse a promotion for which a gate is closed, and name each of them.

    Raises
    ------
    ArtifactError
        SV-X412; SV-X410 where there is no challenger.
    """
    verdict = standing.promotion
    if verdict is None:
        raise ArtifactError(
            "there is no challenger to promote",
            code="SV-X410",
            cure="python -m pipeline.promote model=PATH to=challenger, and gather evidence",
        )
    if verdict.closed:
        names = ", ".join(check.gate for check in verdict.closed)
        said = "; ".join(f"{c.gate}: {c.found}, asked {c.asked}" for c in verdict.closed)
        raise ArtifactError(
            f"the challenger may not be promoted, closed: {names}",
            code="SV-X412",
            where=said,
            why="a change that is not shown to be better can make things worse",
            cure="wait for evidence (python -m pipeline.monitor), or set promotion.gates",
        )


def measured(model: Candidate, bars: pd.DataFrame | None) -> Facts:
    """What the gates ask of a model beside its losses.

    Parameters
    ----------
    model : Candidate
    bars : DataFrame or None
        The newest bar of each asset is predicted and explained, and timed; None leaves that out.
    """
    seconds, gaps = [], []
    for _ in range(RUNS + 1):
        if bars is None:
            break
        begun = perf_counter()
        signals = model.pipeline.signals(bars)
        seconds.append(perf_counter() - begun)
        gaps = [
            abs(s.reasons.margin - s.reasons.baseline - sum(s.reasons.contributions.values()))
            for s in signals
            if s.reasons is not None
        ]
    nothing = float("nan")
    quickest, gap = min(seconds[1:], default=nothing), max(gaps, default=nothing)
    return Facts(gap, quickest, audit(model.folder), model.lineage.known)


def audit(folder: Path) -> str:
    """What the certificate beside a model says: ``pass``, ``leak``, ``stale`` or ``none``."""
    found = artifacts.read_certificate(folder)
    if found is None:
        return "none"
    recipe = registry.config_of(folder)
    if found.recipe != recipe or found.code != certificates.code_digest():
        return "stale"
    return "pass" if found.verdict == "passed" else "leak"


def _heard(root: Path | str, role: str, digest: str, source: Source) -> Model:
    from pipeline.signal_pipeline import SignalPipeline

    folder = artifacts.find(root, digest)
    lineage, pipeline = registry.lineage(root, digest), SignalPipeline.load(folder)
    panel = pipeline.panel(source.bars)
    rows = shadow.listen(root, lineage, pipeline, source, panel)
    return Model(folder, lineage, pipeline, role, digest, panel, rows)


def _since(rows: pd.DataFrame, bar: str) -> pd.DataFrame:
    return rows[rows.index.get_level_values("time") > pd.Timestamp(bar)] if bar else rows


def _same_question(champion: Model, other: Model) -> None:
    """Refuse to compare models whose labels look ahead by different spans."""
    mine, theirs = champion.pipeline.labels.span, other.pipeline.labels.span
    if mine != theirs:
        raise DataError(
            f"the {other.role} foresees {theirs} bars, the {champion.role} {mine}",
            code="SV-F20",
            where=f"models {champion.digest[:SHORT]} and {other.digest[:SHORT]}",
            why="losses on different questions say nothing of each other",
            cure="train both with the same horizon and delay, or withdraw the challenger",
        )
