"""What the commands print: rich tables for people, JSON for programs."""

import hashlib
import json
import platform
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipeline.data.sources import Source
from pipeline.evaluation import Evaluation
from pipeline.inquiry import Inquiry
from pipeline.report.words import GRAVE, finding_lines, luck_lines, rival_lines
from pipeline.signals import Signals, appraisal_cells, interval_text, skill_sentence
from pipeline.signals_io import to_record
from stages.explain.episodes import Episodes
from stages.explain.why_not import Counterfactual
from stages.signal import SIDE_TEXT, Signal, Status

SURVIVORS = (
    "The embedded names are today's survivors, adjusted with hindsight: read no result here as one "
    "that could have been earned. Nothing here is advice."
)
UNPROVEN = "unproven: what the model thinks, as long as it has not passed the skill test."
SHOWN = 40  # signals in the table
STATUSES = get_args(Status)  # from what fires to what is silent
BRIEF = ("accuracy", "mcc", "log_loss", "brier", "ece", "rank_ic")
WIDE = None if sys.stdout.isatty() else 120  # columns of a pipe or a log
console = Console(width=WIDE)
side = Console(stderr=True, width=WIDE)  # progress and remarks, so that stdout can be piped


@contextmanager
def steps(quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Yield a function that names the step under way, with the time it has taken."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=side, disable=quiet, transient=False) as progress:
        tasks: list[Any] = []

        def step(text: str) -> None:
            if tasks:
                progress.update(tasks[-1], completed=1)
            tasks.append(progress.add_task(text, total=1))

        yield step
        if tasks:
            progress.update(tasks[-1], completed=1)


def say_source(source: Source) -> None:
    """Name the data, their span and what was set aside."""
    times = source.bars.index.get_level_values("time")
    assets = source.bars.index.get_level_values("asset").nunique()
    side.print(
        f"{source.name}: {len(source.bars):,} bars of {assets} assets, "
        f"{times.min():%Y-%m-%d} to {times.max():%Y-%m-%d}",
        highlight=False,
    )
    for line in source.report.lines():
        side.print(f"  {line}", style="dim", highlight=False, markup=False)


def show_signals(signals: Signals, source: Source) -> None:
    """The newest signal of each asset as a table; of very many the firmest."""
    newest = signals.newest()
    shown = newest if len(newest) <= SHOWN else sorted(newest, key=_firmness)[:SHOWN]
    table = table_of("signals")
    for name, justify in (
        ("asset", "left"),
        ("side", "left"),
        ("confidence,\ncertainty", "right"),
        ("doubt, risk", "left"),
        ("stages", "left"),
    ):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    promised = next((f"{s.interval['level']:.0%}" for s in shown if s.interval), "")
    appraised = any(s.appraisal is not None for s in shown)
    heads = [f"holds {promised}"] * bool(promised) + ["plan"] * appraised
    if heads:
        table.add_column(",\n".join(heads), no_wrap=True)
    table.add_column("top reasons: input, value,\npush (log-odds)", overflow="fold")
    for signal in shown:
        *cells, reasons = _cells(signal)
        held = [_promise(signal)] if heads else []
        style = None if signal.side else "dim"
        table.add_row(*cells, *held, reasons, style=style, end_section=True)
    console.print(table)
    counts = Counter(signal.status for signal in signals)
    left = {"of older bars": len(signals) - len(newest), "less firm": len(newest) - len(shown)}
    rest = " and ".join(f"{n:,} {kind}" for kind, n in left.items() if n)
    rest = f" ({rest} not shown: output=signals.jsonl writes all)" if rest else ""
    console.print(
        ", ".join(f"{n:,} {status}" for status, n in counts.items()) + rest, highlight=False
    )
    for line in filter(None, (skill_sentence(s.skill) for s in shown[:1])):
        console.print(line, highlight=False)
    unproven = [UNPROVEN] if "unproven" in counts else []
    console.print("\n".join([*unproven, about(source)]), style="italic", highlight=False)


def _firmness(signal: Signal) -> tuple[int, float]:
    """Sorts what fires before what does not, and the certain before the rest."""
    sure = signal.certainty if signal.side is not None else 0.0
    return STATUSES.index(signal.status), -sure


def _promise(signal: Signal) -> str:
    """The set of sides, the interval of the return below it, and size, target and stop."""
    sides = " ".join(SIDE_TEXT[side] for side in signal.sides)
    plan = _appraised(signal, ("size", "target", "stop"))
    return "\n".join(filter(None, (sides, interval_text(signal.interval), *plan)))


def _appraised(signal: Signal, names: Sequence[str]) -> list[str]:
    """Parts of the appraisal that are known, a line each."""
    cells = appraisal_cells(signal)
    return [f"{name} {cells[name]}" for name in names if cells[name]]


def _cells(signal: Signal) -> list[str]:
    reasons = list(signal.reasons.text[:3]) if signal.reasons else []
    if signal.status in ("hold", "abstain"):
        reasons = [f"{signal.status}: {'; '.join(map(str, signal.why_not))}", *reasons]
    reasons += finding_lines(signal, GRAVE)
    side = SIDE_TEXT[signal.side] if signal.side is not None else "–"
    doubt = f"epist. {signal.epistemic:.4f}\naleat. {signal.aleatoric:.3f}"
    doubt += f"\nnovelty {signal.novelty:.1f}" if signal.novelty == signal.novelty else ""
    risk = _appraised(signal, ("risk", "quality"))
    trail = [
        f"{n} –" if v is None else f"{n} {v:+.2f}" for n, v in signal.stages.items() if n != "gate"
    ]
    abstains = signal.side is None
    return [
        f"{signal.asset}\n{signal.time:%Y-%m-%d}\n{signal.time:%H:%M} UTC",
        f"{side}\n{signal.status}",
        "" if abstains else f"{signal.confidence:.1%}\n{signal.certainty:.2f}",
        "\n".join([*([] if abstains else [doubt]), *risk]),
        "\n".join(trail),
        "\n".join(reasons),
    ]


def show_evaluation(evaluation: Evaluation, as_json: bool = False) -> None:
    """Figures and intervals, a model a row; base rate and MCC stand beside every accuracy."""
    if as_json:
        metrics = evaluation.metrics()
        show_json({"part": evaluation.part, "metrics": metrics, "luck": evaluation.luck()})
        return
    times = evaluation.predictions.index.get_level_values("time")
    table = table_of(
        f"{evaluation.part}: {len(evaluation.predictions):,} unseen rows, "
        f"{times.min():%Y-%m-%d} to {times.max():%Y-%m-%d}, "
        f"base rate {evaluation.short('base_rate')}"
    )
    table.add_column("model")
    for name in BRIEF:
        table.add_column(name, justify="right", no_wrap=True)
    for model in evaluation.table.index:
        cells = [evaluation.short(name, str(model)) for name in BRIEF]
        table.add_row(str(model), *cells, style="bold" if model == "pipeline" else None)
    console.print(table)
    console.print(
        f"± half a 95 % block-bootstrap interval. The gate discards "
        f"{evaluation.short('discarded')} of the rows; {evaluation.short('coverage')} "
        "pass the decision.",
        style="dim",
        highlight=False,
    )
    lines = rival_lines(evaluation.rivals)
    if evaluation.standing is not None:
        lines += luck_lines(evaluation.standing, evaluation.cost)
    for line in lines:
        console.print(line, highlight=False, markup=False)


def show_training(
    judged: Mapping[str, Evaluation], model: Path, folder: Path, survivors: bool, as_json: bool
) -> None:
    """What was trained, how it did, and where it lies."""
    if as_json:
        metrics = {part: evaluation.metrics() for part, evaluation in judged.items()}
        luck = {part: evaluation.luck() for part, evaluation in judged.items()}
        show_json({"model": str(model), "run": str(folder), "metrics": metrics, "luck": luck})
        return
    for evaluation in judged.values():
        show_evaluation(evaluation)
    if survivors:
        console.print(SURVIVORS, style="italic", highlight=False)
    say(f"model {relative(model)}\nrun   {relative(folder)}")


def show_update(counts: Mapping[str, int], model: Path, parent: str) -> None:
    """What an update learnt, and which model came of which."""
    short = f", {counts['incomplete']:,} with too short a history" if counts["incomplete"] else ""
    console.print(
        f"{counts['learned']:,} new labels learnt, {counts['known']:,} known before{short}",
        highlight=False,
    )
    changed = f"made from {parent[:16]}" if counts["learned"] else "unchanged"
    console.print(f"model {relative(model)}, {changed}", highlight=False, soft_wrap=True)


def show_reasons(signal: Signal, top: int) -> None:
    """One signal: the contributions to its margin, stage by stage and feature by feature."""
    head = f"{signal.asset} {signal.time:%Y-%m-%d %H:%M} UTC: {signal.status}"
    if signal.reasons is None:
        console.print(f"{head} ({'; '.join(map(str, signal.why_not))})", highlight=False)
        return
    reasons = signal.reasons
    name, other = SIDE_TEXT[reasons.side], SIDE_TEXT[-reasons.side]
    table = table_of(f"{head}\nlog-odds of {name} against {other}")
    table.add_column("input or member")
    table.add_column("push", justify="right")
    table.add_row("baseline", f"{reasons.baseline:+.4f}", style="dim")
    ranked = sorted(reasons.contributions.items(), key=lambda item: -abs(item[1]))
    for feature, push in ranked[:top]:
        table.add_row(feature, f"{push:+.4f}")
    if ranked[top:]:
        table.add_row(f"{len(ranked[top:])} others", f"{sum(p for _, p in ranked[top:]):+.4f}")
    table.add_row("margin", f"{reasons.margin:+.4f}", style="bold", end_section=True)
    for member, push in reasons.by_stage.items():
        table.add_row(member, f"{push:+.4f}", style="dim")
    console.print(table)
    if signal.why_not:
        console.print("why not: " + "; ".join(map(str, signal.why_not)), highlight=False)


def show_inquiry(inquiry: Inquiry, top: int) -> None:
    """One signal: its reasons, in figures and in words, and what else was asked about it."""
    show_reasons(inquiry.signal, top)
    _say_under("in one sentence", inquiry.sentence.text)
    change = inquiry.change
    if change is not None:
        _say_under("what would have had to be different")
        if any(check.limit is not None for check in change.checks):
            console.print(_checks(change))
        for found in (change, inquiry.lean):
            if found is not None:
                console.print(found.text, highlight=False, markup=False)
    if inquiry.episodes is not None:
        _say_under("when it last looked like this", inquiry.episodes.text)
        if inquiry.episodes.episodes:
            console.print(_nearest(inquiry.episodes))
    if inquiry.lime is not None:
        _say_under("a second opinion", inquiry.lime.text)
    console.print()


def _say_under(head: str, text: str = "") -> None:
    console.print(f"\n{head}", style="bold", highlight=False)
    if text:
        console.print(text, highlight=False, markup=False)


def _checks(change: Counterfactual) -> Table:
    table = Table(header_style="bold", pad_edge=False, box=SIMPLE)
    table.add_column("in the way")
    for name in ("value", "limit", "distance"):
        table.add_column(name, justify="right")
    for check in change.checks:
        figures = (check.value, check.limit, check.distance)
        table.add_row(check.key, *("" if f is None else f"{f:.4g}" for f in figures))
    return table


def _nearest(episodes: Episodes, count: int = 5) -> Table:
    """The nearest few episodes and how they ended."""
    table = Table(header_style="bold", pad_edge=False, box=SIMPLE)
    for name in ("asset", "time", "distance", "known at", "ended as", "return"):
        table.add_column(name, justify="right" if name in ("distance", "return") else "left")
    for e in episodes.episodes[:count]:
        ret = "" if e.ret is None else f"{e.ret:+.2%}"
        name = SIDE_TEXT[e.side]
        table.add_row(e.asset, e.time[:10], f"{e.distance:.2f}", e.ended[:10], name, ret)
    return table


def table_of(title: str) -> Table:
    """An empty table in the manner of all."""
    return Table(title=title, title_justify="left", header_style="bold", pad_edge=False, box=SIMPLE)


def about(source: Source) -> str:
    """What the data are and are not, in a sentence or two."""
    return SURVIVORS if source.survivors else "Signals are estimates, not advice."


def config_digest(cfg: DictConfig) -> str:
    """SHA-256 of the settings that a prediction depends on, beside model and bars."""
    # which bars, not what is made of them
    places = ("path", "start", "end", "assets", "instruments")
    faults = ("on_bad", "max_refused_share", "quarantine")
    data = OmegaConf.to_container(cfg.data, resolve=True)
    kept = {name: value for name, value in data.items() if name not in places + faults}  # type: ignore[union-attr]
    # what changes what a record says: which rows are stale, whether it holds reasons and risk
    kept |= {"as_of": cfg.get("as_of"), "explain_rows": cfg.get("explain_rows", True)}
    kept |= {"appraise": cfg.get("appraise", True)}
    text = json.dumps(kept, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def record(signal: Signal, cfg: DictConfig) -> dict[str, Any]:
    """The published JSON of one signal."""
    return to_record(signal, config_digest(cfg))


def show_json(values: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(values, default=str) + "\n")


def say(text: str) -> None:
    """A remark on stderr."""
    side.print(text, highlight=False, markup=False)


def machine() -> dict[str, Any]:
    """When and on what: kept beside an artifact, outside its digest."""
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
    }


def relative(path: Path) -> str:
    """`path` from here, where it lies below."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
