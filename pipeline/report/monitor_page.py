"""The models of a root on one offline page: who serves, what drifts, what comes next."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from pipeline.registry import SHORT
from pipeline.report.champions import drift_lines, state_lines
from pipeline.report.document import div, write_document
from pipeline.report.figures import BUY, DASHED, INKS, SELL, reliability, styled
from pipeline.report.learnt import forgetting
from pipeline.updates import Update
from pipeline.watching import Watched
from stages.online.drift import KINDS, DriftReport
from stages.online.duel import Duel
from stages.online.promotion import Promotion
from stages.online.shift import Shift

SMOOTHED = 20  # bars
SHOWN = 15  # inputs
CHALLENGE, REVERSE = ("champion", "challenger"), ("former champion", "champion")
TITLES = {
    "concept": "nats beyond those expected",
    "calibration": "accuracy less confidence",
    "coverage": "labels outside of the set",
    "labels": "share of moves",
}

Section = tuple[str, str, str]  # heading, note, figure as an element


@dataclass(frozen=True)
class Row:
    """Cells of a line of a table, and whether it stands out."""

    cells: tuple[str, ...]
    strong: bool = False


Tabled = tuple[str, tuple[str, ...], list[Row]]  # heading, names of columns, lines


def write_monitor_page(
    path: Path, found: Watched, rules: Promotion, about: str, updates: Sequence[Update] = ()
) -> None:
    """Write the page; it asks nothing of the network.

    Parameters
    ----------
    path : Path
    found : Watched
    rules : Promotion
    about : str
        What the data are and are not.
    updates : sequence of Update
        That were made in this root, the oldest first.
    """
    sections = [*monitor_sections(found, rules), *update_sections(updates)]
    write_document(
        path,
        "monitor_page.html",
        champion=found.standing.pointer.champion,
        bar=found.bar,
        settled=len(found.drift.bars),
        about=about,
        next=found.next,
        state=[*state_lines(found), *drift_lines(found.drift)],
        tables=list(monitor_tables(found)),
        sections=sections,
    )


def monitor_tables(found: Watched) -> Iterator[Tabled]:
    """Models, gates and alarms."""
    models = [
        Row(
            (
                role,
                model.digest[:SHORT],
                model.lineage.made[:16],
                model.lineage.ancestors[0][:SHORT] if model.lineage.ancestors else "",
                f"{len(model.rows):,}",
                f"{int(model.rows['side'].notna().sum()):,}",
            ),
            role == "champion",
        )
        for role, model in found.standing.models.items()
    ]
    yield "Models", ("role", "model", "made", "update of", "rows said", "settled"), models
    gates = ("gate", "", "found", "asked for")
    for title, verdict in (
        ("May the challenger take over?", found.standing.promotion),
        ("Should the former champion come back?", found.standing.rollback),
    ):
        if verdict is not None:
            rows = [
                Row((c.gate, "open" if c.passed else "closed", c.found, c.asked), not c.passed)
                for c in verdict.checks
            ]
            yield title, gates, rows
    alarms = [
        Row(
            (f"{a.time:%Y-%m-%d %H:%M}", a.kind, a.detector, a.text, a.action),
            a in found.drift.active,
        )
        for a in reversed(found.drift.alarms)
    ]
    if not alarms:
        return
    title = f"Alarms ({found.drift.count}, the active ones in bold)"
    yield title, ("bar", "kind", "by", "what", "asks for"), alarms


def monitor_sections(found: Watched, rules: Promotion) -> Iterator[Section]:
    """Heading, note and figure of each view."""
    for name, duel, needed, sides in (
        ("Champion and challenger", found.standing.challenge, rules.needed, CHALLENGE),
        ("The former champion and this one", found.standing.reverse, rules.undone, REVERSE),
    ):
        if duel is not None and duel.bars:
            note = (
                "Capital won by betting that the one or the other loses less, open bets counted as "
                f"lost; without an advantage it ever reaches {needed:g} once in {needed:g} times."
            )
            yield name, note, div(capital(duel, needed, sides))
            note = f"Nats a row that the {sides[1]} has saved against the {sides[0]}, summed up."
            yield f"{name}: losses", note, div(saved(duel))
    if len(found.calibration):
        note = "The champion in the shadow: said confidence against accuracy, settled rows."
        groups = {"champion": found.calibration.to_dict("records")}
        yield "Calibration", note, div(reliability(groups))  # type: ignore[arg-type]
    for kind, title in TITLES.items():
        if found.drift.bars[kind].notna().sum() > SMOOTHED:
            note = (
                f"{KINDS[kind]}: {title}, mean of {SMOOTHED} bars; lines are alarms.".capitalize()
            )
            yield f"Drift: {kind}", note, div(series(found.drift, kind))
    if found.drift.shift is not None:
        note = (
            f"PSI of the newest {found.drift.shift.bars[1]} bars against "
            f"{found.drift.shift.bars[0]} that the model learnt from. Grey inputs hang together "
            "for too long to be judged."
        )
        yield "Inputs", note, div(moved(found.drift.shift))


def update_sections(updates: Sequence[Update]) -> Iterator[Section]:
    """What updates learnt and forgot, where any measured it."""
    if any(update.regimes for update in updates):
        note = (
            "Each update spoke of its rows before it learnt them. Below: what that did to rows of "
            "the memory; above 0 is forgetting."
        )
        yield "Learning and forgetting", note, div(forgetting(updates))


def capital(duel: Duel, needed: float, sides: tuple[str, str]) -> go.Figure:
    """Both capitals over time, and what is needed."""
    figure = go.Figure()
    for name, ink, text in (("for", BUY, sides[1]), ("against", SELL, sides[0])):
        line = duel.path[name].clip(lower=1e-3)
        figure.add_scatter(x=line.index, y=line, mode="lines", name=text, line={"color": ink})
    figure.add_hline(y=needed, line=DASHED)
    return styled(figure, height=320).update_layout(
        yaxis={"title": "capital won", "type": "log"}, legend={"title": {"text": "bet on"}}
    )


def saved(duel: Duel) -> go.Figure:
    """Sum of the differences of losses."""
    line = duel.path["gain"].dropna().cumsum()
    figure = go.Figure(go.Scatter(x=line.index, y=line, mode="lines", line={"color": INKS[2]}))
    figure.add_hline(y=0, line=DASHED)
    return styled(figure, height=280).update_layout(yaxis={"title": "nats saved"})


def series(drift: DriftReport, kind: str) -> go.Figure:
    """One series of the detectors, smoothed, with its alarms."""
    line = drift.bars[kind].rolling(SMOOTHED).mean().dropna()
    figure = go.Figure(go.Scatter(x=line.index, y=line, mode="lines", line={"color": INKS[2]}))
    for alarm in drift.alarms:
        if alarm.kind == kind:
            figure.add_vline(x=pd.Timestamp(alarm.time).isoformat(), line={"color": SELL})
    return styled(figure, height=240).update_layout(yaxis={"title": TITLES[kind]}, showlegend=False)


def moved(found: Shift) -> go.Figure:
    """PSI of the inputs, the largest on top."""
    table = found.table[:SHOWN][::-1]
    inks = [INKS[2] if judged else "#c3c9d2" for judged in table["judged"]]
    bars = go.Bar(
        x=table["psi"],
        y=[str(name) for name in table.index],
        orientation="h",
        marker={"color": inks},
    )
    figure = go.Figure(bars)
    return styled(figure, height=80 + 22 * len(table)).update_layout(xaxis={"title": "PSI"})
