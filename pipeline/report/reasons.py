"""A picture for each reason: of one signal, stage by stage and bar by bar, and of many at once."""

import html
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pipeline.report.figures import BUY, DASHED, GREY, LINE, SELL, styled
from stages.explain.memory import column_of
from stages.signal import SIDE_TEXT, Reasons, Signal

SHOWN = 12  # bars of a waterfall, or rows of a swarm; the rest is summed into one, or left out
POINTS = 300  # of a row of a swarm
SIDES = ((-1, SELL), (0, GREY), (1, BUY))
LOW_TO_HIGH = [[0, "#3d5a80"], [0.5, "#c9ccd2"], [1, "#c99700"]]  # told apart by the colour blind
SELL_TO_BUY = [[0, SELL], [0.5, "#ffffff"], [1, BUY]]
STAGES = {
    "filter": "stage 1<br>filter",
    "refiner": "stage 2<br>refiner",
    "ensemble": "stage 3<br>ensemble",
}

By = Literal["contributions", "by_family", "by_stage"]


def waterfall(signal: Signal, by: By = "contributions") -> go.Figure:
    """Reasons of one signal, from the baseline to its margin, in log-odds.

    Parameters
    ----------
    signal : Signal
        With its reasons.
    by : {'contributions', 'by_family', 'by_stage'}
        Whether a step is an input, a kind of input, or a member of a stage.
    """
    reasons = _reasons(signal)
    pushes: Mapping[str, float] = getattr(reasons, by)
    ranked = sorted(pushes.items(), key=lambda item: -abs(item[1]))
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
            text=[f"{v:+.{digits(values)}f}" for v in values],
            increasing={"marker": {"color": BUY}},
            decreasing={"marker": {"color": SELL}},
            totals={"marker": {"color": GREY}},
            connector={"line": {"width": 0.5}},
            cliponaxis=False,  # a label may reach past the last tick
        )
    )
    return styled(figure, height=26 * len(names) + 90).update_layout(
        xaxis={"title": _unit(reasons), "exponentformat": "none"},
        yaxis={"autorange": "reversed"},
        margin={"r": 70},
        showlegend=False,
    )


def lag_map(signal: Signal) -> go.Figure:
    """When it happened: the largest parts of single bars, an input a row and a bar a column.

    Parameters
    ----------
    signal : Signal
        Whose reasons tell bars; blank cells are smaller than all that are told.
    """
    reasons = _reasons(signal)
    if not reasons.lags:
        raise ValueError(f"the reasons of {signal.asset} tell no single bars: explain.lags=20")
    size: dict[str, float] = {}
    for part in reasons.lags:
        size[part.feature] = size.get(part.feature, 0.0) + abs(part.push)
    names = sorted(size, key=lambda name: -size[name])
    longest = max(part.lag for part in reasons.lags)
    cells = np.full((len(names), longest + 1), np.nan)
    for part in reasons.lags:
        cells[names.index(part.feature), longest - part.lag] = part.push
    most = float(np.nanmax(np.abs(cells)))
    ends = np.array([-1, -0.1, 0, 0.1, 1])
    figure = go.Figure(
        go.Heatmap(
            # by the root, or all bars but the signal's own would look alike
            z=np.sign(cells) * np.sqrt(np.abs(cells) / most),
            x=list(range(-longest, 1)),
            y=[html.escape(name) for name in names],
            zmin=-1,
            zmax=1,
            colorscale=SELL_TO_BUY,
            xgap=1,
            ygap=1,
            hoverongaps=False,
            customdata=cells,
            colorbar={
                "title": "push",
                "thickness": 12,
                "tickvals": list(np.sign(ends) * np.sqrt(np.abs(ends))),
                "ticktext": [f"{most * end:+.{digits([most])}f}" for end in ends],
            },
            hovertemplate="%{y}, %{x} bars: %{customdata:+.3g}<extra></extra>",
        )
    )
    return styled(figure, height=26 * len(names) + 110).update_layout(
        xaxis={
            "title": {"text": "bars before (0: the signal's own)", "standoff": 12},
            "showgrid": False,
            "dtick": max(1, longest // 10),
        },
        yaxis={"autorange": "reversed", "showgrid": False},
        plot_bgcolor="#eceff3",
        margin={"b": 50},
    )


def stage_flow(signal: Signal) -> go.Figure:
    """From the first probability through the refinement to the decision.

    Left the probability of the leading side against the opposite one, after each stage; right the
    calibrated odds of all three sides, the one decided on in full colour.

    Parameters
    ----------
    signal : Signal
        Not an abstention: that has no odds.
    """
    if signal.side is None:
        raise ValueError(f"{signal.asset} abstains: no stage has a view of it")
    lean = 1 if (signal.stages.get("ensemble") or 0.0) >= 0 else -1
    views = {n: signal.stages.get(n) for n in STAGES}
    known = {n: lean * float(v) for n, v in views.items() if v is not None}
    figure = make_subplots(
        1,
        2,
        column_widths=[0.62, 0.38],
        horizontal_spacing=0.1,
        subplot_titles=(f"{SIDE_TEXT[lean]} against {SIDE_TEXT[-lean]}", "odds of each side"),
    )
    places = digits(list(known.values()))
    odds = {n: 1 / (1 + np.exp(-v)) for n, v in known.items()}
    figure.add_scatter(
        x=[STAGES[n] for n in known],
        y=list(odds.values()),
        mode="lines+markers+text",
        text=[f"{odds[n]:.1%}<br>({v:+.{places}f})" for n, v in known.items()],
        textposition="top center",
        line={"color": BUY if lean > 0 else SELL, "width": 2},
        marker={"size": 10},
        cliponaxis=False,
        hovertemplate="%{x}: %{y:.3f}<extra></extra>",
    )
    figure.add_hline(y=0.5, line=DASHED, row=1, col=1)
    figure.add_bar(
        x=[SIDE_TEXT[side] for side, _ in SIDES],
        y=[signal.probabilities[side] for side, _ in SIDES],
        text=[f"{signal.probabilities[side]:.1%}" for side, _ in SIDES],
        textposition="outside",
        cliponaxis=False,
        marker={
            "color": [ink for _, ink in SIDES],
            "opacity": [1.0 if side == signal.side else 0.35 for side, _ in SIDES],
        },
        hovertemplate="%{x}: %{y:.3f}<extra></extra>",
        row=1,
        col=2,
    )
    reach = max([abs(p - 0.5) for p in odds.values()], default=0.0) * 1.6 + 0.02
    most = max(signal.probabilities.values())
    styled(figure, height=330).update_layout(showlegend=False, margin={"t": 40})
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(gridcolor=LINE, tickformat=".0%")
    figure.update_yaxes(range=[max(0.5 - reach, 0), min(0.5 + reach, 1)], row=1, col=1)
    return figure.update_yaxes(range=[0, min(1.15 * most, 1.1)], row=1, col=2)


def beeswarm(pushes: pd.DataFrame, panel: pd.DataFrame | None = None) -> go.Figure:
    """Pushes of many rows at once: a row an input, a point a signal, coloured by the value.

    Parameters
    ----------
    pushes : DataFrame of shape (N, F)
        ``Explanation.contributions``, or what `pushes_of` gives.
    panel : DataFrame, optional
        With the rows of `pushes`; lends the values that colour the points.
    """
    shown = pushes.abs().mean().sort_values(ascending=False, kind="stable").index[:SHOWN]
    some = pushes.iloc[
        np.unique(np.linspace(0, len(pushes) - 1, min(POINTS, len(pushes))).astype(int))
    ]
    figure = go.Figure()
    for row, name in enumerate(shown):
        values = _places(some.index, str(name), panel)
        figure.add_scatter(
            x=some[name],
            y=row + _swarm(some[name].to_numpy()),
            mode="markers",
            marker={
                "size": 5,
                "color": GREY if values is None else values,
                "colorscale": LOW_TO_HIGH,
                "cmin": 0,
                "cmax": 1,
                "showscale": row == 0 and panel is not None,
                "colorbar": {
                    "title": "value",
                    "tickvals": [0, 1],
                    "ticktext": ["low", "high"],
                    "thickness": 12,
                },
            },
            customdata=[f"{asset} {time:%Y-%m-%d}" for asset, time in some.index],
            hovertemplate=f"{html.escape(str(name))} %{{x:+.3g}}, %{{customdata}}<extra></extra>",
        )
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    return styled(figure, height=34 * len(shown) + 90).update_layout(
        showlegend=False,
        xaxis_title="push towards BUY (log-odds of BUY against SELL)",
        yaxis={
            "tickvals": list(range(len(shown))),
            "ticktext": [html.escape(str(name)) for name in shown],
            "range": [len(shown) - 0.5, -0.5],
            "showgrid": False,
            "zeroline": False,
        },
    )


def pushes_of(signals: Sequence[Signal]) -> pd.DataFrame:
    """Contributions (n, F) of signals that carry reasons, in log-odds of buy against sell."""
    told = [(s, s.reasons) for s in signals if s.reasons is not None]
    if not told:
        raise ValueError("no signal carries reasons")
    rows = pd.MultiIndex.from_tuples([(s.asset, s.time) for s, _ in told], names=["asset", "time"])
    names = list(dict.fromkeys(name for _, why in told for name in why.contributions))
    values = [[why.side * why.contributions.get(name, 0.0) for name in names] for _, why in told]
    return pd.DataFrame(values, rows, names)


def digits(values: Sequence[float]) -> int:
    """Decimals with which the largest of `values` shows three digits: from 3 to 7."""
    most = max((abs(v) for v in values), default=0.0)
    return 3 if most == 0 else int(np.clip(2 - np.floor(np.log10(most)), 3, 7))


def _reasons(signal: Signal) -> Reasons:
    if signal.reasons is None:
        raise ValueError(f"the signal of {signal.asset} carries no reasons")
    return signal.reasons


def _unit(reasons: Reasons) -> str:
    return f"log-odds of {SIDE_TEXT[reasons.side]} against {SIDE_TEXT[-reasons.side]}"


def _places(rows: pd.Index, name: str, panel: pd.DataFrame | None) -> np.ndarray | None:
    """Share of the rows with a lower value, in [0, 1]; NaN, drawn grey, where it is missing."""
    column = column_of(name)
    if panel is None or column not in panel:
        return None
    values = panel[column].reindex(rows)
    return ((values.rank() - 1) / max(int(values.notna().sum()) - 1, 1)).to_numpy()


def _swarm(x: np.ndarray, bins: int = 80) -> np.ndarray:
    """Heights in [-0.4, 0.4] that keep the points of a row off each other."""
    span = np.ptp(x)
    place = np.zeros(len(x), int) if span == 0 else ((x - x.min()) / span * (bins - 1)).astype(int)
    order = pd.Series(place).groupby(place).cumcount().to_numpy()
    count = np.bincount(place, minlength=bins)
    step = 0.8 / max(int(count.max()), 12)
    return np.where(order % 2, 1, -1) * ((order + 1) // 2) * step
