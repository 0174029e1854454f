"""Champions, challengers and what stands between them, told in the terminal."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from pipeline.answers import Answer
from pipeline.cards import card, markdown
from pipeline.files import write_atomic
from pipeline.pointer import Pointer
from pipeline.promotions import Standing
from pipeline.registry import SHORT
from pipeline.report import terminal
from pipeline.report.document import write_document
from pipeline.retraining import Due
from pipeline.succession import Step
from pipeline.watching import Watched
from stages.online.ab import Comparison, Outcome
from stages.online.drift import KINDS, DriftReport
from stages.online.promotion import Verdict


def show_change(pointer: Pointer, as_json: bool = False) -> None:
    """Say which models have which role now."""
    if as_json:
        terminal.show_json(asdict(pointer))
        return
    for role, digest in pointer.roles():
        terminal.console.print(f"{role:<11}{digest[:SHORT]}", highlight=False)
    said = f"change {pointer.number}, {pointer.action}: {pointer.why or 'no reason given'}"
    terminal.console.print(said, style="dim", highlight=False, markup=False)


def show_updates(done: Sequence[Step], answer: Answer, as_json: bool = False) -> None:
    """What updates learnt, which model came of which, where each went, and what alarmed."""
    if as_json:
        first, *others = (_update_values(step) for step in done)
        asked = {"actions": list(answer.actions), "stopped": answer.stop}
        terminal.show_json(first | {"also": others, "alarms": list(answer.alarms)} | asked)
        return
    for step in done:
        terminal.show_update(step.update.counts, step.model, step.update.parent)
        if step.placed.role or step.placed.why:
            said = ", ".join(filter(None, (step.placed.role, step.placed.why)))
            terminal.console.print(f"it is: {said}", highlight=False, markup=False)
    for alarm in answer.alarms:
        terminal.console.print(f"alarm: {alarm}", highlight=False, markup=False)
    if "retrain" in answer.actions:
        terminal.console.print("a new training is asked for: python -m pipeline.retrain")


def _update_values(step: Step) -> dict[str, Any]:
    names = ("lessons", "learned", "known", "incomplete")
    said = {"model": str(step.model), "parent": step.update.parent, "role": step.placed.role}
    return said | {"why": step.placed.why} | {name: step.update.counts[name] for name in names}


def models_table(standing: Standing) -> Table:
    """A row a role: which model, how much it said, how much of that is settled."""
    table = terminal.table_of("models")
    for name in ("role", "model", "made", "update of"):
        table.add_column(name, no_wrap=True)
    for name in ("rows said", "settled"):
        table.add_column(name, justify="right", no_wrap=True)
    for role, model in standing.models.items():
        parent = model.lineage.ancestors[0][:SHORT] if model.lineage.ancestors else ""
        known = int(model.rows["side"].notna().sum())
        cells = (model.digest[:SHORT], model.lineage.made[:16], parent)
        table.add_row(role, *cells, f"{len(model.rows):,}", f"{known:,}")
    return table


def gates_table(verdict: Verdict, title: str) -> Table:
    """A row a gate: open or closed, what was found, what is asked for."""
    table = terminal.table_of(title)
    for name in ("gate", "", "found", "asked for"):
        table.add_column(name, no_wrap=name != "found")
    for check in verdict.checks:
        said = "open" if check.passed else "closed"
        style = None if check.passed else "bold"
        table.add_row(check.gate, said, check.found, check.asked, style=style)
    return table


def show_outcome(
    outcome: Outcome, sides: Sequence[str], test: Comparison, as_json: bool = False
) -> None:
    """Say who loses less, if that is sure, and how many bars a claim needs."""
    if as_json:
        values = {name: getattr(outcome, name) for name in ("winner", "p", "gain", "size", "bars")}
        known = {name: None if x != x else x for name, x in values.items()}
        needed = None if outcome.needed == float("inf") else outcome.needed
        terminal.show_json({"a": sides[0], "b": sides[1], **known, "needed": needed})
        return
    table = terminal.table_of(f"A/B, {test.kind}: A {sides[0][:SHORT]}, B {sides[1][:SHORT]}")
    for name in ("settled bars", "B saves a bar, nats", "deviation", "p, any time", "bars needed"):
        table.add_column(name, justify="right")
    table.add_row(
        f"{outcome.bars:,}",
        f"{outcome.gain:+.5f}",
        f"{outcome.size:.5f}",
        f"{outcome.p:.3g}",
        f"{outcome.needed:,.0f}",
    )
    terminal.console.print(table)
    terminal.console.print(outcome.text, highlight=False, markup=False)


def show_watched(found: Watched) -> None:
    """The models of a root, what drifts, what is due."""
    standing, drift = found.standing, found.drift
    terminal.console.print(models_table(standing))
    if standing.promotion is not None:
        title = f"may the challenger take over? {standing.promotion.e_value:.3g} won"
        terminal.console.print(gates_table(standing.promotion, title))
    if standing.rollback is not None:
        title = "should the former champion come back?"
        terminal.console.print(gates_table(standing.rollback, title))
    terminal.console.print(drift_table(drift))
    for line in (*state_lines(found), *drift_lines(drift)):
        terminal.console.print(line, highlight=False, markup=False)
    terminal.console.print("\nwhat would happen next", style="bold", highlight=False)
    for line in found.next:
        terminal.console.print(f"- {line}", highlight=False, markup=False)


def drift_table(drift: DriftReport) -> Table:
    """A row a kind of drift: how near, how often, when last, what it asks for."""
    table = terminal.table_of(f"drift of the champion, {len(drift.bars):,} settled bars")
    table.add_column("kind", no_wrap=True)
    for name in ("near alarm", "alarms"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("last", "asks for"):
        table.add_column(name, no_wrap=True)
    for kind in KINDS:
        mine = [alarm for alarm in drift.alarms if alarm.kind == kind]
        near = f"{min(drift.levels[kind], 1):.0%}" if kind in drift.levels else ""
        last = f"{mine[-1].time:%Y-%m-%d}" if mine else ""
        asks = mine[-1].action if mine and mine[-1] in drift.active else ""
        style = "bold" if asks not in ("", "nothing") else None
        table.add_row(kind, near, str(len(mine)), last, asks, style=style)
    return table


def drift_lines(drift: DriftReport) -> list[str]:
    """The inputs, and the accuracy that is foreseen, in words."""
    lines = [f"drift: {drift.text}"]
    if drift.shift is not None:
        judged = drift.shift.table[drift.shift.table["judged"]]
        most = f"largest PSI {judged['psi'].iloc[0]:.2f} ({judged.index[0]})" if len(judged) else ""
        count = f"{len(judged)} of {len(drift.shift.table)} inputs can be judged"
        lines.append(f"inputs: {count}{', ' if most else ''}{most}, p {drift.shift.least:.2g}")
    told = drift.accuracy
    if told["foreseen"] == told["foreseen"]:
        lines.append(
            f"accuracy of {told['rows']:.0f} rows before their labels: {told['foreseen']:.1%} "
            f"({told['low']:.1%} to {told['high']:.1%}); of the newest settled {told['known']:.1%}"
        )
    return lines


def state_lines(found: Watched) -> list[str]:
    """Skill and coverage as the record of the champion has them, in words."""
    skill = found.skill
    passed = "passed" if skill["proven"] else "not passed"
    lines = [f"skill test {passed}: {skill['e_value']:.3g} of {skill['needed']:g} won"]
    held = {name: found.coverage.get(f"{name}_coverage") for name in ("interval", "set")}
    said = [f"{name}s {x:.1%}" for name, x in held.items() if x is not None and x == x]
    if said:
        lines.append(f"outcomes held: {', '.join(said)}, promised {found.level:.0%}")
    return lines


def show_retraining(asked: Due, pointer: Pointer | None, as_json: bool = False) -> None:
    """Say whether a new training is due, with which words, and what came of it."""
    if as_json:
        made = None if pointer is None else pointer.challenger
        terminal.show_json(asdict(asked) | {"challenger": made})
        return
    head = "due" if asked.due else "not due"
    terminal.console.print(f"{head}: {asked.why}", highlight=False, markup=False)
    words = shlex.join(["python", "-m", "pipeline.train", *asked.words])
    terminal.console.print(words, style="dim", highlight=False, markup=False, soft_wrap=True)
    if pointer is not None:
        show_change(pointer)


def show_models(models: pd.DataFrame, changes: Sequence[Pointer], as_json: bool = False) -> None:
    """All models of a root, and every change of its pointer."""
    if as_json:
        rows = models.reset_index().to_dict("records")
        terminal.show_json({"models": rows, "changes": [asdict(change) for change in changes]})
        return
    table = terminal.table_of("models")
    for name in ("model", "role", "made", "update of", "data"):
        table.add_column(name, no_wrap=True)
    for digest, row in models.iterrows():
        cells = (row["role"], row["made"][:16], row["parent"][:SHORT], row["data"][:SHORT])
        table.add_row(str(digest)[:SHORT], *cells, style="bold" if row["role"] else None)
    terminal.console.print(table)
    table = terminal.table_of("changes")
    for name in ("", "time", "action", "champion", "challenger", "why"):
        table.add_column(name, overflow="fold")
    for c in changes:
        who = (c.champion[:SHORT], (c.challenger or "")[:SHORT])
        table.add_row(str(c.number), c.time[:16], c.action, *who, c.why)
    terminal.console.print(table)


def write_card(path: Path, root: Path | str, digest: str) -> None:
    """Write the card of a model as HTML, or as Markdown if `path` ends with ``.md``."""
    title, sections = card(root, digest)
    if path.suffix == ".md":
        write_atomic(path, markdown(title, sections).encode())
    else:
        write_document(path, "card_page.html", title=title, sections=sections)
