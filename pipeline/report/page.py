"""One self-contained HTML page: signals, their reasons, calibration and the evaluation table."""

import html
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment
from plotly.offline import get_plotlyjs

from pipeline.files import write_atomic
from pipeline.signals import Signals
from stages.filter.gate import OPEN
from stages.signal import SIDE_TEXT, Signal

BUY, SELL, GREY = "#0b7a75", "#b3432b", "#8a8f98"  # told apart by the colour blind too
LINE = "#e4e8ee"
SHOWN = 12  # bars of a waterfall; the rest is summed into one


def write_page(path: Path, signals: Signals, evaluation: Mapping[str, Any], about: str) -> None:
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
        waterfalls=[(s, _div(waterfall(s))) for s in explained],
        reliability=_div(reliability(evaluation["reliability"])) if evaluation else "",
        gate=gate_sentence(evaluation["gate"]) if evaluation else "",
        evaluation=evaluation,
    )
    write_atomic(path, text.encode())


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
    return _styled(figure, height=26 * len(names) + 90).update_layout(
        xaxis_title=title, yaxis={"autorange": "reversed"}, showlegend=False
    )


def reliability(bins: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Said confidence against accuracy, with 95 % intervals.

    Parameters
    ----------
    bins : sequence of mapping
        ``confidence``, ``accuracy``, ``low``, ``high``, ``rows``: see `stages.evaluate`.
    """
    ends = [v for b in bins for v in (b["low"], b["high"], b["confidence"])]
    ends = [v for v in ends if v == v]  # an empty bin has no interval
    span = [max(min(ends, default=0) - 0.02, 0), min(max(ends, default=1) + 0.02, 1)]
    figure = go.Figure(
        go.Scatter(x=span, y=span, mode="lines", name="exact", line={"color": GREY, "dash": "dot"})
    )
    figure.add_scatter(
        x=[b["confidence"] for b in bins],
        y=[b["accuracy"] for b in bins],
        error_y={
            "array": [b["high"] - b["accuracy"] for b in bins],
            "arrayminus": [b["accuracy"] - b["low"] for b in bins],
            "thickness": 1,
        },
        mode="lines+markers",
        name="pipeline",
        line={"color": BUY},
        customdata=[b["rows"] for b in bins],
        hovertemplate="said %{x:.3f}, right %{y:.3f}, %{customdata} rows",
    )
    return _styled(figure, height=420).update_layout(
        xaxis={"title": "confidence said", "range": span},
        yaxis={"title": "share that was right", "range": span},
    )


def _styled(figure: go.Figure, height: int) -> go.Figure:
    lines = {"gridcolor": LINE, "zerolinecolor": GREY}
    return figure.update_layout(
        template="none",  # the others weigh more than the figure
        height=height,
        xaxis=lines,
        margin={"l": 10, "r": 10, "t": 10, "b": 40},
        font={"family": "system-ui, sans-serif", "size": 13},
        paper_bgcolor="rgba(0,0,0,0)",
        yaxis={"automargin": True, **lines},
    )


def _div(figure: go.Figure) -> str:
    return str(
        figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            config={"displayModeBar": False, "responsive": True},
        )
    )
