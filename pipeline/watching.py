"""How the models of a root fare: what drifts, what is calibrated, what would happen next."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline.data.sources import Source
from pipeline.overview import FILE, drifted, windows
from pipeline.promotions import Model, Standing, newest, stand
from stages.base import DataError
from stages.evaluate import reliability
from stages.online.drift import DriftReport, DriftWatch
from stages.online.promotion import Promotion, Verdict
from stages.panel import named
from stages.signal import ODDS

if TYPE_CHECKING:
    from stages.explain.drift import Drift


@dataclass(frozen=True)
class Watched:
    """What `python -m pipeline.monitor` shows.

    Attributes
    ----------
    standing : Standing
    drift : DriftReport
        Of the champion.
    calibration : DataFrame
        Its said confidence against its accuracy, see `stages.evaluate.reliability`; empty where
        no label is known.
    skill : mapping of str to float
        As its record has it: ``e_value``, ``needed``, ``proven`` (1 or 0).
    coverage : mapping of str to float
        Share of the outcomes that intervals and sets held; empty where none is promised.
    level : float
        What was promised, NaN where nothing was.
    bar : str
        Newest bar, ISO format.
    next : tuple of str
        What would happen next, the first first.
    """

    standing: Standing
    drift: DriftReport
    calibration: pd.DataFrame
    skill: Mapping[str, float]
    coverage: Mapping[str, float]
    level: float
    bar: str
    next: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Plain values, such as ``json=true`` prints."""
        models = {
            role: {
                "model": model.digest,
                "made": model.lineage.made,
                "said": len(model.rows),
                "settled": int(model.rows["side"].notna().sum()),
            }
            for role, model in self.standing.models.items()
        }
        drift = self.drift
        return {
            "bar": self.bar,
            "models": models,
            "action": self.standing.action,
            "promotion": _verdict(self.standing.promotion),
            "rollback": _verdict(self.standing.rollback),
            "drift": {
                "action": drift.action,
                "alarms": [asdict(a) | {"time": a.time.isoformat()} for a in drift.alarms],
                "count": drift.count,
                "levels": _plain(drift.levels),
                "inputs": None if drift.shift is None else _plain(drift.shift.p),
                "accuracy": _plain(drift.accuracy),
            },
            "skill": _plain(self.skill),
            "coverage": _plain(self.coverage),
            "next": list(self.next),
        }


def watched(
    root: Path | str,
    source: Source,
    rules: Promotion,
    watch: DriftWatch,
    reasons: bool = False,
) -> Watched:
    """Let every model of `root` speak of the new bars, and look at all that could be wrong.

    Hold `pipeline.lock.lock` on `root`: what was said is written there.

    Parameters
    ----------
    root : Path or str
    source : Source
        Bars, with the history that the models need before the first new one.
    rules : Promotion
    watch : DriftWatch
    reasons : bool, default=False
        Also explain the newest bars and as many before them, and compare: slow.

    Raises
    ------
    ArtifactError
        SV-X410 without a champion; SV-F29 for a damaged model.
    """
    standing = stand(root, source, rules)
    model = standing.models["champion"]
    span, cut = model.pipeline.labels.span, model.pipeline.learned_until_
    ready = model.panel[model.panel["ready"].to_numpy()]
    late = ready.index.get_level_values("time") > cut
    names = _important(root, model, named(model.panel, "feature"))
    turned = _reasons(model, source, watch) if reasons else None
    found = watch.watch(model.rows, span, (ready[~late], ready[late]), names, turned)
    record = model.pipeline.record_
    known = record.skill_.path_
    skill = {
        "e_value": float(known["e_value"].iloc[-1]) if len(known) else 1.0,
        "needed": float(record.skill_.needed),
        "proven": float(record.skill_.proven_),
    }
    covered = record.coverage_
    return Watched(
        standing,
        found,
        _calibration(model.rows),
        skill,
        {} if covered is None else covered.realised(),
        float("nan") if covered is None else covered.level,
        newest(source),
        tuple(_next(standing, found, rules)),
    )


def _next(standing: Standing, found: DriftReport, rules: Promotion) -> list[str]:
    """What is due, then what is waited for."""
    said = []
    if standing.action == "roll back" and standing.rollback is not None:
        said.append(f"python -m pipeline.rollback: {standing.rollback.text}")
    elif standing.action == "promote" and standing.promotion is not None:
        said.append(f"python -m pipeline.promote: {standing.promotion.text}")
    if found.action != "nothing":
        said.append(f"{found.action}: {found.text}")
    if standing.promotion is not None and standing.action != "promote":
        closed = ", ".join(check.gate for check in standing.promotion.closed)
        said.append(f"the challenger waits for {closed} ({_left(standing.promotion)})")
    if standing.rollback is not None and standing.action != "roll back":
        left = max(rules.shadow - standing.rollback.bars, 0)
        said.append(f"the former champion goes on in the shadow for {left} bars")
    if standing.promotion is None:
        said.append("no challenger: python -m pipeline.promote model=PATH to=challenger names one")
    return said


def _left(verdict: Verdict) -> str:
    if verdict.left == float("inf"):
        return "at this pace never"
    return (
        f"about {verdict.left:.0f} bars at this pace" if verdict.left else "its evidence is there"
    )


def _calibration(rows: pd.DataFrame) -> pd.DataFrame:
    known = rows[rows["side"].notna()]
    if not len(known):
        return pd.DataFrame(columns=["confidence", "accuracy", "low", "high", "rows"])
    return reliability(
        known[ODDS].assign(label=known["side"]), bins=min(10, max(1, len(known) // 50))
    )


def _important(root: Path | str, model: Model, names: list[str]) -> list[str]:
    """Inputs, those first that moved the margin most when the line of the model was trained."""
    for path in sorted(Path(root).glob(f"*/**/{FILE}")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            inputs = record["importance"]["inputs"]
        except (OSError, ValueError, KeyError, TypeError):  # `overview.stored` says so
            continue
        if record.get("model") == model.lineage.first:
            first = [name for name in inputs if name in names]
            return [*first, *(name for name in names if name not in first)]
    return names


def _reasons(model: Model, source: Source, watch: DriftWatch) -> "Drift | None":
    times = source.bars.index.unique("time").sort_values()
    length = min(watch.recent, len(times) // 2)
    before, after = windows(source.bars, times[-length], length)
    try:
        return drifted(model.pipeline, source.bars, before, after, level=length / watch.share)
    except DataError as error:
        if error.code != "SV-F18":
            raise
        return None  # too few bars: nothing to tell, which is no drift


def _verdict(verdict: Verdict | None) -> dict[str, Any] | None:
    if verdict is None:
        return None
    values = asdict(verdict)
    left = values.pop("left")
    return values | {"left": None if left == float("inf") else left}


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    return {
        name: float(x) if x == x and abs(x) < float("inf") else None for name, x in values.items()
    }
