"""A picture for each claim: calibration, abstention, doubt, coverage and skill, by plotly."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

BUY, SELL, GREY = "#0b7a75", "#b3432b", "#8a8f98"  # told apart by the colour blind too
INKS = (BUY, SELL, "#3d5a80", "#c99700", "#6b4e9b", "#5b6472")
LINE = "#e4e8ee"
POINTS = 500  # of a line over time
DASHED = {"color": GREY, "dash": "dot"}


def reliability(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> go.Figure:
    """Said confidence against accuracy, with 95 % intervals: a line a group.

    Parameters
    ----------
    groups : mapping of str to sequence of mapping
        Name of a class, a regime or a model to its bins: ``confidence``, ``accuracy``, ``low``,
        ``high``, ``rows``, see `stages.evaluate.reliability`.
    """
    ends = [b[k] for bins in groups.values() for b in bins for k in ("low", "high", "confidence")]
    ends = [v for v in ends if v is not None and v == v]  # an empty bin has no interval
    span = [max(min(ends, default=0) - 0.02, 0), min(max(ends, default=1) + 0.02, 1)]
    figure = go.Figure(go.Scatter(x=span, y=span, mode="lines", name="exact", line=DASHED))
    for ink, (name, bins) in zip(_inks(len(groups)), groups.items(), strict=True):
        figure.add_scatter(
            x=[b["confidence"] for b in bins],
            y=[b["accuracy"] for b in bins],
            error_y={
                "array": [_reach(b["high"], b["accuracy"]) for b in bins],
                "arrayminus": [_reach(b["accuracy"], b["low"]) for b in bins],
                "thickness": 1,
            },
            mode="lines+markers",
            name=name,
            line={"color": ink},
            customdata=[b["rows"] for b in bins],
            hovertemplate="said %{x:.3f}, right %{y:.3f}, %{customdata} rows",
        )
    return styled(figure, height=420).update_layout(
        xaxis={"title": "probability said", "range": span},
        yaxis={"title": "share that came", "range": span},
        showlegend=len(groups) > 1,
    )


def coverage(history: pd.DataFrame, level: float, window: int = 250) -> go.Figure:
    """How often intervals and sets held the outcome, over a rolling window of bars.

    Parameters
    ----------
    history : DataFrame
        `Coverage.history_`.
    level : float in (0, 1)
        What was promised.
    window : int, default=250
        Bars.
    """
    figure = go.Figure()
    for ink, (kind, name) in zip(
        INKS, {"interval": "intervals", "set": "sets"}.items(), strict=False
    ):
        rows = history[f"{kind}_rows"]
        held = (history[f"{kind}_coverage"] * rows).where(rows > 0, 0.0)
        share = _thinned(held.rolling(window).sum() / rows.rolling(window).sum())
        figure.add_scatter(x=share.index, y=share, mode="lines", name=name, line={"color": ink})
    figure.add_hline(y=level, line=DASHED)
    return styled(figure, height=320).update_layout(
        yaxis={"title": f"share held, last {window} bars"}, xaxis_title="label known"
    )


def risk_coverage(curve: Sequence[Mapping[str, Any]], base_rate: float) -> go.Figure:
    """Accuracy among the rows one acts on, against how many these are.

    Parameters
    ----------
    curve : sequence of mapping
        ``coverage`` (share of the rows, the most certain first), ``accuracy``, ``low`` and
        ``high``: see `stages.evaluate.risk_coverage`.
    base_rate : float
        Accuracy of always saying the commonest side.
    """
    share = [c["coverage"] for c in curve]
    figure = go.Figure(
        go.Scatter(
            x=[*share, *share[::-1]],
            y=[*(c["high"] for c in curve), *(c["low"] for c in reversed(curve))],
            fill="toself",
            line={"width": 0},
            fillcolor="rgba(11,122,117,0.15)",
            hoverinfo="skip",
        )
    )
    accuracy = [c["accuracy"] for c in curve]
    figure.add_scatter(x=share, y=accuracy, mode="lines+markers", line={"color": BUY})
    figure.add_hline(y=base_rate, line=DASHED)
    return styled(figure, height=360).update_layout(
        xaxis={"title": "share of the rows, most certain first", "tickformat": ".0%"},
        yaxis={"title": "accuracy"},
        showlegend=False,
    )


def doubt(tenths: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Epistemic uncertainty against novelty, with quartiles.

    Parameters
    ----------
    tenths : sequence of mapping
        ``novelty``, ``epistemic``, ``low``, ``high``: see `stages.evaluate.doubt`.
    """
    figure = go.Figure(
        go.Scatter(
            x=[t["novelty"] for t in tenths],
            y=[t["epistemic"] for t in tenths],
            error_y={
                "array": [t["high"] - t["epistemic"] for t in tenths],
                "arrayminus": [t["epistemic"] - t["low"] for t in tenths],
                "thickness": 1,
            },
            mode="lines+markers",
            line={"color": BUY},
            hovertemplate="novelty %{x:.2f}, %{y:.5f} nats",
        )
    )
    return styled(figure, height=320).update_layout(
        xaxis_title="distance from the training rows (1: as far as these lie)",
        yaxis_title="epistemic, nats",
        showlegend=False,
    )


def skill(path: pd.DataFrame, needed: float) -> go.Figure:
    """How far the bets on the model's direction have come, on a logarithmic scale.

    Parameters
    ----------
    path : DataFrame
        `SkillTest.path_`: ``e_value`` (every open bet taken as lost) and ``settled`` by time.
    needed : float
        E-value at which skill counts as shown.
    """
    figure = go.Figure()
    for ink, dash, (column, name) in zip(
        (BUY, GREY),
        ("solid", "dot"),
        {"e_value": "open bets lost", "settled": "open bets left out"}.items(),
        strict=True,
    ):
        values = _thinned(path[column].clip(lower=1e-6))
        line = {"color": ink, "dash": dash, "shape": "hv"}
        figure.add_scatter(x=values.index, y=values, mode="lines", name=name, line=line)
    figure.add_hline(y=needed, line={"color": SELL, "dash": "dash"})
    # of a logarithmic axis an annotation wants the exponent, a line the value
    at = {"x": 1, "xref": "paper", "xanchor": "right", "y": np.log10(needed), "yanchor": "bottom"}
    figure.add_annotation(text="skill shown", showarrow=False, **at)
    figure.add_hline(y=1, line=DASHED)
    return styled(figure, height=320).update_layout(
        yaxis={"title": "e-value", "type": "log"}, xaxis_title="label known"
    )


def styled(figure: go.Figure, height: int) -> go.Figure:
    """The look that all figures share."""
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


def _reach(high: float | None, low: float | None) -> float | None:
    return None if high is None or low is None else high - low


def _thinned(line: pd.Series) -> pd.Series:
    """Every so many points, the last one included: a page need not hold more than can be seen."""
    return line[::-1].iloc[:: max(1, -(-len(line) // POINTS))][::-1]


def _inks(count: int) -> list[str]:
    return [INKS[k % len(INKS)] for k in range(count)]
