"""One self-contained HTML page: signals, their reasons, calibration and the evaluation table."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pipeline.report import figures
from pipeline.report.document import div, write_document
from pipeline.report.reasons import waterfall
from pipeline.report.words import risk_sentence
from pipeline.signals import Signals, skill_sentence
from stages.filter.gate import OPEN
from stages.online.track_record import TrackRecord


def write_page(
    path: Path,
    signals: Signals,
    evaluation: Mapping[str, Any],
    about: str,
    record: TrackRecord | None = None,
) -> None:
    """Write the page; it asks nothing of the network.

    Parameters
    ----------
    path : Path
    signals : Signals
        The newest of each asset is shown: a page of every bar would not open.
    evaluation : mapping
        What `Evaluation.card` gave; may be empty.
    about : str
        What the data are and are not.
    record : TrackRecord, optional
        Of the model: its coverage and its skill test over time.
    """
    newest = signals.newest()
    explained = [s for s in newest if s.reasons is not None]
    statuses = [s.status for s in newest]
    write_document(
        path,
        "page.html",
        signals=_filled(newest.frame()).to_dict("records"),
        older=len(signals) - len(newest),
        counts={name: statuses.count(name) for name in ("fired", "unproven", "hold", "abstain")},
        about=about,
        model=newest[0].model if newest else "",
        replay=newest[0].replay if newest else {},
        skill=skill_sentence(newest[0].skill) if newest else "",
        level=next((f"{s.interval['level']:.0%}" for s in newest if s.interval), ""),
        appraised=any(s.appraisal is not None for s in newest),
        risk_sentence=risk_sentence,
        waterfalls=[(s, div(waterfall(s))) for s in explained],
        claims=[(title, note, div(figure)) for title, note, figure in claims(evaluation, record)],
        gate=gate_sentence(evaluation["gate"]) if evaluation else "",
        evaluation=evaluation,
    )


def claims(
    evaluation: Mapping[str, Any], record: TrackRecord | None
) -> Iterator[tuple[str, str, go.Figure]]:
    """Heading, caption and picture of everything that a signal claims."""
    if evaluation:
        groups: dict[str, list[Any]] = {"the side named": evaluation["reliability"]}
        for row in evaluation["by_class"]:
            groups.setdefault(row["group"], []).append(row)
        yield (
            "Does confidence mean what it says?",
            "Probability said of a side against how often it came, with 95 % intervals.",
            figures.reliability(groups),
        )
        yield (
            "Is the surer half better?",
            "Accuracy on the rows of which the model is surest; dotted: the base rate.",
            figures.risk_coverage(evaluation["risk_coverage"], float(evaluation["share"])),
        )
        if evaluation["doubt"]:
            yield (
                "Does it doubt what it has not seen?",
                "Epistemic uncertainty by distance from the training; tenths of the rows.",
                figures.doubt(evaluation["doubt"]),
            )
    if record is not None and record.coverage_ is not None:
        yield (
            "Do sets and intervals hold the outcome?",
            f"Promised: {record.coverage_.level:.0%}, in the long run.",
            figures.coverage(record.coverage_.history_, record.coverage_.level),
        )
    if record is not None:
        yield (
            "Has it shown skill?",
            "A capital of 1, bet on the directions that the model leans to.",
            figures.skill(record.skill_.path_, record.skill_.needed),
        )


def _filled(table: pd.DataFrame) -> pd.DataFrame:
    """`table` less the columns in which no row says anything: the page is narrow."""
    return table.loc[:, (table != "").any()] if len(table) else table


def gate_sentence(gate: Mapping[str, float | None]) -> str:
    """What the gate does, in words.

    Parameters
    ----------
    gate : mapping
        ``threshold`` (log-odds), ``discarded`` (share) and ``rows`` it was counted on.
    """
    threshold, discarded = gate["threshold"], gate["discarded"]
    if threshold is None or threshold <= OPEN:
        return "The gate of the filter is open: every row is refined."
    said = f"The gate stops rows whose first score is below {threshold:+.2f} log-odds"
    if discarded is None:
        return f"{said}."
    return f"{said}: {discarded:.1%} of {gate['rows']:,.0f} rows later than those that set it."
