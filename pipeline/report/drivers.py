"""Pictures of what drives a model: importance, how it moves, what hangs and what acts together."""

import html
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pipeline.report.figures import BUY, GREY, INKS, SELL, styled
from stages.explain.drift import Drift
from stages.explain.importance import Importance
from stages.explain.interactions import Interactions
from stages.explain.redundancy import Redundancy

SHOWN = 15  # rows of a picture
NONE_TO_MUCH = [[0, "#ffffff"], [1, "#3d5a80"]]
SELL_TO_BUY = [[0, SELL], [0.5, "#ffffff"], [1, BUY]]


def importance_bars(found: Importance, view: str = "inputs") -> go.Figure:
    """Size of the largest pushes with their 95 % intervals.

    Parameters
    ----------
    found : Importance
    view : {'inputs', 'families', 'stages', 'members'}
    """
    table: pd.DataFrame = getattr(found, view)[:SHOWN]
    figure = go.Figure(
        go.Bar(
            x=table["size"],
            y=[html.escape(str(name)) for name in table.index],
            orientation="h",
            marker={"color": INKS[2]},
            error_x={
                "array": table["high"] - table["size"],
                "arrayminus": table["size"] - table["low"],
                "thickness": 1,
                "color": GREY,
            },
            customdata=np.column_stack([table["share"], table["rank_low"], table["rank_high"]]),
            hovertemplate="%{y}: %{x:.4g}, %{customdata[0]:.1%} of all pushes, "
            "rank %{customdata[1]:.0f} to %{customdata[2]:.0f}<extra></extra>",
        )
    )
    return styled(figure, height=26 * len(table) + 90).update_layout(
        xaxis={
            "title": "mean absolute push (log-odds)",
            "exponentformat": "none",
            "rangemode": "tozero",
        },
        yaxis={"autorange": "reversed"},
        showlegend=False,
    )


def by_stage(through: Mapping[str, pd.DataFrame]) -> go.Figure:
    """Mean absolute push of each input through each stage.

    Parameters
    ----------
    through : mapping of str to DataFrame
        ``Overview.through``.
    """
    table = pd.DataFrame({stage: found["size"] for stage, found in through.items()}).fillna(0.0)
    order = table.sum(axis=1).sort_values(ascending=False, kind="stable").index[:SHOWN]
    figure = go.Figure()
    for ink, stage in zip(INKS[2:], table, strict=False):
        figure.add_bar(
            x=table[stage][order],
            y=[html.escape(str(name)) for name in order],
            orientation="h",
            name=str(stage),
            marker={"color": ink},
            hovertemplate=f"%{{y}} through the {stage}: %{{x:.4g}}<extra></extra>",
        )
    return styled(figure, height=26 * len(order) + 120).update_layout(
        barmode="stack",
        xaxis={
            "title": "mean absolute push through each stage (log-odds)",
            "exponentformat": "none",
        },
        yaxis={"autorange": "reversed"},
        legend={"orientation": "h", "y": 1.1},
        margin={"t": 30},
    )


def shares_over_time(shares: pd.DataFrame) -> go.Figure:
    """Share of each input in all pushes: a stretch of time a column, or a run.

    Parameters
    ----------
    shares : DataFrame of shape (periods, F)
        What `over_time` or `history` gave.
    """
    largest = shares.mean().sort_values(ascending=False, kind="stable").index[:SHOWN]
    when = (
        [f"{time:%Y-%m-%d}" for time in shares.index]
        if isinstance(shares.index, pd.DatetimeIndex)
        else [html.escape(str(run)) for run in shares.index]
    )
    figure = go.Figure(
        go.Heatmap(
            z=shares[largest].T.to_numpy(),
            x=when,
            y=[html.escape(str(name)) for name in largest],
            zmin=0,
            colorscale=NONE_TO_MUCH,
            xgap=1,
            ygap=1,
            colorbar={"title": "share", "thickness": 12, "tickformat": ".0%"},
            hovertemplate="%{y}, from %{x}: %{z:.1%}<extra></extra>",
        )
    )
    return styled(figure, height=26 * len(largest) + 110).update_layout(
        xaxis={"type": "category", "showgrid": False, "automargin": True},
        yaxis={"autorange": "reversed", "showgrid": False},
    )


def changes(found: Drift, of: str = "size") -> go.Figure:
    """What each input pushed before and after; in colour what changed by more than chance.

    Parameters
    ----------
    found : Drift
    of : {'size', 'direction'}
    """
    table = found.table[found.table["of"] == of][:SHOWN]
    sure = (table["adjusted"] <= found.level).to_numpy()
    names = [html.escape(name) for name in table["input"]]
    figure = go.Figure()
    for name, row, changed in zip(names, table.to_dict("records"), sure, strict=True):
        figure.add_scatter(
            x=[row["before"], row["after"]],
            y=[name, name],
            mode="lines",
            line={"color": SELL if changed else GREY, "width": 3 if changed else 1},
            hoverinfo="skip",
            showlegend=False,
        )
    said = [_judged(row, found.level) for row in table.to_dict("records")]
    for when, ink, symbol in (("before", GREY, "circle-open"), ("after", INKS[2], "circle")):
        figure.add_scatter(
            x=table[when],
            y=names,
            mode="markers",
            name=when,
            marker={"color": ink, "size": 10, "symbol": symbol, "line": {"width": 2}},
            customdata=said,
            hovertemplate=f"%{{y}}, {when}: %{{x:+.4g}}; %{{customdata}}<extra></extra>",
        )
    unit = "mean absolute push" if of == "size" else "push of the highest value over a middling one"
    return styled(figure, height=28 * len(table) + 110).update_layout(
        xaxis={"title": f"{unit} (log-odds)", "exponentformat": "none"},
        yaxis={"autorange": "reversed"},
        legend={"orientation": "h", "y": 1.1},
        margin={"t": 30},
    )


def hangs_together(found: Redundancy) -> go.Figure:
    """Rank correlations of the inputs; those of a cluster stand together."""
    names = [html.escape(str(name)) for name in found.correlation.index]
    figure = go.Figure(
        go.Heatmap(
            z=found.correlation.to_numpy(),
            x=names,
            y=names,
            zmin=-1,
            zmax=1,
            colorscale=SELL_TO_BUY,
            colorbar={"title": "rank<br>correlation", "thickness": 12},
            hovertemplate="%{y}, %{x}: %{z:+.2f}<extra></extra>",
        )
    )
    place = {str(name): k for k, name in enumerate(found.correlation.index)}
    for cluster in found.clusters:
        at = [place[name] for name in cluster.inputs]
        low, high = min(at) - 0.5, max(at) + 0.5
        line = {"color": "#1c2330", "width": 1.5}
        figure.add_shape(type="rect", x0=low, x1=high, y0=low, y1=high, line=line)
    height = min(max(14 * len(names) + 140, 300), 900)
    return styled(figure, height=height).update_layout(
        xaxis={"showgrid": False, "tickangle": 90, "automargin": True},
        yaxis={"autorange": "reversed", "showgrid": False},
    )


def acts_together(found: Interactions) -> go.Figure:
    """What pairs do beyond the sum of both, in log-odds."""
    largest = found.table.melt(["strength"], ["first", "second"], value_name="input")
    order = largest.groupby("input")["strength"].max().sort_values(ascending=False).index
    names = [str(name) for name in order]
    cells, h = np.full((2, len(names), len(names)), np.nan)
    for row in found.table.to_dict("records"):
        j, k = names.index(row["first"]), names.index(row["second"])
        cells[j, k] = cells[k, j] = row["strength"]
        h[j, k] = h[k, j] = row["h"]
    shown = [html.escape(name) for name in names]
    figure = go.Figure(
        go.Heatmap(
            z=cells,
            x=shown,
            y=shown,
            zmin=0,
            colorscale=NONE_TO_MUCH,
            xgap=1,
            ygap=1,
            customdata=h,
            hoverongaps=False,
            colorbar={"title": "log-odds", "thickness": 12, "exponentformat": "none"},
            hovertemplate="%{y} and %{x}: %{z:.4g}, H %{customdata:.2f}<extra></extra>",
        )
    )
    return styled(figure, height=34 * len(names) + 130).update_layout(
        xaxis={"showgrid": False, "automargin": True},
        yaxis={"autorange": "reversed", "showgrid": False},
    )


def _judged(row: Mapping[Any, Any], level: float) -> str:
    if not row["judged"]:
        return "not judged"
    return f"p {row['adjusted']:.3g}" + (", changed" if row["adjusted"] <= level else "")
