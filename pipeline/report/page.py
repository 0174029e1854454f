"""One self-contained HTML page: signals, their reasons, calibration and the evaluation table."""

import html
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment
from plotly.offline import get_plotlyjs

from pipeline.files import write_atomic
from pipeline.report import figures
from pipeline.report.figures import BUY, GREY, SELL, styled
from pipeline.signals import Signals, skill_sentence
from stages.filter.gate import OPEN
from stages.online.track_record import TrackRecord
from stages.signal import SIDE_TEXT, Signal

SHOWN = 12  # bars of a waterfall; the rest is summed into one


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
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        files("pipeline.report").joinpath("page.html").read_text(encoding="utf-8")
    )
    newest = signals.newest()
    explained = [s for s in newest if s.reasons is not None]
    statuses = [s.status for s in newest]
    text = template.render(
        plotly=get_plotlyjs(),
        signals=newest.frame().to_dict("records"),
        older=len(signals) - len(newest),
        counts={name: statuses.count(name) for name in ("fired", "unproven", "hold", "abstain")},
        about=about,
        model=newest[0].model if newest else "",
        replay=newest[0].replay if newest else {},
        skill=skill_sentence(newest[0].skill) if newest else "",
        level=next((f"{s.interval['level']:.0%}" for s in newest if s.interval), ""),
        waterfalls=[(s, _div(waterfall(s))) for s in explained],
        claims=[(title, note, _div(figure)) for title, note, figure in claims(evaluation, record)],
        gate=gate_sentence(evaluation["gate"]) if evaluation else "",
        evaluation=evaluation,
    )
    write_atomic(path, text.encode())


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


def waterfall(signal: Signal) -> go.Figure:
    """Reasons of one signal, from the baseline to its margin, in log-odds."""
    if signal.reasons is None:
        raise ValueError(f"the signal of {signal.asset} carries no reasons")
    reasons = signal.reasons
    ranked = sorted(reasons.contributions.items(), key=lambda item: -abs(item[1]))
    rest = sum(v for _, v in ranked[SHOWN:])
    steps = [*ranked[:SHOWN], *([(f"{len(ranked) - SHOWN} others", rest)] if rest else [])]
    names = ["baseline", *(html.escape(n) for n, _ in steps), "margin"]
    values = [reasons.baseline, *(v for _, v in steps), reasons.margin]
    figure = go.Figure(
        go.Waterfall(
            orientation="h",
            measure=["absolute", *["relative"] * len(steps), "total"],
            y=names,
            x=values,
            text=[f"{v:+.3f}" for v in values],
            increasing={"marker": {"color": BUY}},
            decreasing={"marker": {"color": SELL}},
            totals={"marker": {"color": GREY}},
            connector={"line": {"width": 0.5}},
        )
    )
    opposite = SIDE_TEXT[-reasons.side]
    title = f"log-odds of {SIDE_TEXT[reasons.side]} against {opposite}"
    return styled(figure, height=26 * len(names) + 90).update_layout(
        xaxis_title=title, yaxis={"autorange": "reversed"}, showlegend=False
    )


def _div(figure: go.Figure) -> str:
    return str(
        figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            config={"displayModeBar": False, "responsive": True},
        )
    )
