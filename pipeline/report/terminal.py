"""What the commands print: rich tables for people, JSON for programs."""

import hashlib
import json
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipeline.data.sources import Source
from pipeline.evaluation import SHOWN, Evaluation
from pipeline.signals import Signals
from pipeline.signals_io import to_record
from stages.base import DataError
from stages.signal import SIDE_TEXT, Signal

SURVIVORS = (
    "The embedded names are today's survivors, adjusted with hindsight: read no result here as one "
    "that could have been earned. Nothing here is advice."
)
UNPROVEN = "unproven: what the model thinks before it has shown skill on live labels."
BRIEF = ("accuracy", "mcc", "log_loss", "brier", "ece", "rank_ic")
BESIDE = ("base_rate", *BRIEF)  # where runs stand side by side, each with its own base rate
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
    """The newest signal of each asset as a table, three lines a signal."""
    shown = signals.newest()
    table = _table("signals")
    for name, justify in (
        ("asset", "left"),
        ("side", "left"),
        ("confidence", "right"),
        ("certainty", "right"),
        ("doubt", "left"),
        ("stages", "left"),
    ):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("top reasons: input, value, push (log-odds)", overflow="fold")
    for signal in shown:
        table.add_row(*_cells(signal), style=None if signal.side else "dim", end_section=True)
    console.print(table)
    counts = Counter(signal.status for signal in signals)
    older = len(signals) - len(shown)
    rest = f" ({older:,} of older bars not shown: output=signals.jsonl writes all)" if older else ""
    console.print(
        ", ".join(f"{n:,} {status}" for status, n in counts.items()) + rest, highlight=False
    )
    console.print(f"{UNPROVEN}\n{about(source)}", style="italic", highlight=False)


def _cells(signal: Signal) -> list[str]:
    reasons = list(signal.reasons.text[:3]) if signal.reasons else []
    if signal.status in ("hold", "abstain"):
        reasons = [f"{signal.status}: {'; '.join(signal.why_not)}", *reasons]
    side = SIDE_TEXT[signal.side] if signal.side is not None else "–"
    doubt = f"epist. {signal.epistemic:.4f}\naleat. {signal.aleatoric:.3f}"
    trail = [
        f"{n} –" if v is None else f"{n} {v:+.2f}" for n, v in signal.stages.items() if n != "gate"
    ]
    abstains = signal.side is None
    return [
        f"{signal.asset}\n{signal.time:%Y-%m-%d}\n{signal.time:%H:%M} UTC",
        f"{side}\n{signal.status}",
        "" if abstains else f"{signal.confidence:.1%}",
        "" if abstains else f"{signal.certainty:.2f}",
        "" if abstains else doubt,
        "\n".join(trail),
        "\n".join(reasons),
    ]


def show_evaluation(evaluation: Evaluation, as_json: bool = False) -> None:
    """Figures and intervals, a model a row; base rate and MCC stand beside every accuracy."""
    if as_json:
        show_json({"part": evaluation.part, "metrics": evaluation.metrics()})
        return
    times = evaluation.predictions.index.get_level_values("time")
    table = _table(
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


def show_training(
    judged: Mapping[str, Evaluation], model: Path, folder: Path, survivors: bool, as_json: bool
) -> None:
    """What was trained, how it did, and where it lies."""
    if as_json:
        metrics = {part: evaluation.metrics() for part, evaluation in judged.items()}
        show_json({"model": str(model), "run": str(folder), "metrics": metrics})
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
        console.print(f"{head} ({'; '.join(signal.why_not)})", highlight=False)
        return
    reasons = signal.reasons
    name, other = SIDE_TEXT[reasons.side], SIDE_TEXT[-reasons.side]
    table = _table(f"{head}\nlog-odds of {name} against {other}")
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
        console.print("why not: " + "; ".join(signal.why_not), highlight=False)


def show_runs(runs: pd.DataFrame, as_json: bool = False) -> None:
    """The pipelines of runs side by side: a row per run and evaluated part.

    Parameters
    ----------
    runs : DataFrame
        What `pipeline.tracking.read_runs` gave.
    as_json : bool
    """
    if as_json:
        flat = runs.reset_index().astype(object)
        show_json(flat.where(flat.notna(), None).to_dict("records"))
        return
    if runs.empty:
        raise DataError(
            "there are no runs to compare",
            code="SV-F18",
            cure="runs=DIR names a folder of runs, such as sieve_runs/sweeps",
        )
    table = _table("runs: the whole pipeline, on the rows that each had not seen")
    for name in ("run", "what differs", "part"):
        table.add_column(name, overflow="fold")
    for name in BESIDE:
        table.add_column(name, justify="right", no_wrap=True)
    differs = _differences(runs)
    for path, run in runs.iterrows():
        name = str(path)
        parts = {c.split(".")[1] for c in run.dropna().index if c.startswith("metrics.")}
        if "error" in run and isinstance(run["error"], str):
            table.add_row(name, run["error"], "failed", style="dim")
        for part in sorted(parts):
            cells = [_run_cell(run, f"metrics.{part}.pipeline.{metric}") for metric in BESIDE]
            table.add_row(name, differs[name], part, *cells)
    console.print(table)
    console.print("± half a 95 % block-bootstrap interval.", style="dim", highlight=False)


def _differences(runs: pd.DataFrame) -> dict[str, str]:
    """Words of each run's command that not all runs share."""
    if "command" not in runs:
        return {}
    words = {str(name): shlex.split(c) for name, c in runs["command"].dropna().items()}
    shared = set.intersection(*map(set, words.values()))
    return {name: " ".join(w for w in said if w not in shared) for name, said in words.items()}


def _run_cell(run: pd.Series, figure: str) -> str:
    """A figure over half its interval; empty where the data do not define it."""
    value, low, high = (run.get(f"{figure}.{p}", float("nan")) for p in ("value", "low", "high"))
    if pd.isna(value):
        return ""
    form = SHOWN[figure.rpartition(".")[2]]
    return f"{value:{form}}\n±{(high - low) / 2:{form.removeprefix('+')}}"


def _table(title: str) -> Table:
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
    # both change what a record says: which rows are stale, and whether it holds reasons
    kept |= {"as_of": cfg.get("as_of"), "explain_rows": cfg.get("explain_rows", True)}
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
