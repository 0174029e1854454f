"""Pictures of a backtest: capital, drawdown, rolling figures, exposure, cost and what was tried."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pipeline.report.figures import BUY, DASHED, GREY, INKS, SELL, styled
from stages.backtest.drawdowns import drawdown

MOST = 4000  # points of a line; more cannot be seen


def equity(returns: pd.DataFrame, capital: float) -> go.Figure:
    """Capital over time, logarithmic, beside the same in the benchmark.

    Parameters
    ----------
    returns : DataFrame of shape (T, 2)
        Simple, by time; a column a line, the portfolio first.
    capital : float
    """
    figure = go.Figure()
    for (name, column), ink in zip(returns.items(), (BUY, GREY), strict=False):
        level = thinned(capital * (1 + column).cumprod())
        figure.add_scatter(
            x=level.index, y=level, mode="lines", name=str(name), line={"color": ink}
        )
    return styled(figure, height=380).update_layout(
        yaxis={"title": "capital", "type": "log"}, legend=_ABOVE
    )


def underwater(returns: pd.DataFrame) -> go.Figure:
    """How far each line stands below its highest."""
    figure = go.Figure()
    for (name, column), ink in zip(returns.items(), (SELL, GREY), strict=False):
        below = thinned(pd.Series(drawdown(column), column.index))
        first = ink == SELL
        figure.add_scatter(
            x=below.index,
            y=below,
            mode="lines",
            name=str(name),
            line={"color": ink, "width": 1},
            fill="tozeroy" if first else None,
        )
    return styled(figure, height=240).update_layout(
        yaxis={"title": "below the highest", "tickformat": ".0%"}, legend=_ABOVE
    )


def rolling(
    returns: pd.Series, benchmark: pd.Series, rate: pd.Series, per_year: float
) -> go.Figure:
    """Sharpe ratio, volatility and beta of the last year at each time."""
    bars = max(round(per_year), 2)
    excess, other = returns - rate, benchmark - rate
    spread = returns.rolling(bars).std()
    lines = {
        "Sharpe ratio": excess.rolling(bars).mean() / excess.rolling(bars).std() * per_year**0.5,
        "beta": excess.rolling(bars).cov(other) / other.rolling(bars).var(),
        "volatility": spread * per_year**0.5,
    }
    figure = go.Figure()
    for ink, (name, line) in zip(INKS, lines.items(), strict=False):
        shown = thinned(line.replace([np.inf, -np.inf], np.nan).iloc[bars - 1 :])
        axis = "y2" if name == "volatility" else "y"
        figure.add_scatter(
            x=shown.index, y=shown, mode="lines", name=name, line={"color": ink}, yaxis=axis
        )
    figure.add_hline(y=0, line=DASHED)
    return styled(figure, height=300).update_layout(
        yaxis={"title": f"last {bars} periods"},
        yaxis2=_second("volatility", ".0%"),
        legend=_ABOVE,
    )


def exposure(days: pd.DataFrame) -> go.Figure:
    """Share of the capital that is invested, and the number of holdings."""
    share = thinned(1 - days["cash"] / days["equity"])
    count = thinned(days["holdings"])
    figure = go.Figure()
    figure.add_scatter(x=share.index, y=share, mode="lines", name="invested", line={"color": BUY})
    figure.add_scatter(
        x=count.index,
        y=count,
        mode="lines",
        name="holdings",
        yaxis="y2",
        line={"color": GREY, "width": 1, "shape": "hv"},
    )
    return styled(figure, height=260).update_layout(
        yaxis={"title": "invested", "tickformat": ".0%", "rangemode": "tozero"},
        yaxis2=_second("holdings"),
        legend=_ABOVE,
    )


def cost(days: pd.DataFrame) -> go.Figure:
    """What trading has cost so far, and how much was bought and sold, over the capital."""
    paid = thinned(days["cost"].cumsum() / days["equity"].iloc[0])
    traded = (days["traded"] / 2 / days["equity"]).resample("MS").sum()
    figure = go.Figure(go.Bar(x=traded.index, y=traded, name="turnover of the month", yaxis="y2"))
    figure.update_traces(marker_color="rgba(138,143,152,0.35)")
    figure.add_scatter(x=paid.index, y=paid, mode="lines", name="cost so far", line={"color": SELL})
    return styled(figure, height=260).update_layout(
        yaxis={"title": "of the first capital", "tickformat": ".1%"},
        yaxis2=_second("turnover", ".0%"),
        legend=_ABOVE,
    )


def trades(trips: pd.DataFrame) -> go.Figure:
    """Return of each round trip by its exit; open ones are hollow."""
    figure = go.Figure()
    for still, name, symbol in ((False, "closed", "circle"), (True, "open", "circle-open")):
        mine = trips[trips["open"] == still]
        figure.add_scatter(
            x=mine["exited"],
            y=mine["return"],
            mode="markers",
            name=name,
            marker={
                "symbol": symbol,
                "size": 5,
                "color": np.where(mine["return"] > 0, BUY, SELL).tolist(),
            },
            customdata=mine[["asset", "bars"]].to_numpy(),
            hovertemplate="%{customdata[0]}: %{y:.1%} in %{customdata[1]} rows",
        )
    figure.add_hline(y=0, line=DASHED)
    return styled(figure, height=280).update_layout(
        yaxis={"title": "return, after cost", "tickformat": ".0%"}, legend=_ABOVE
    )


def variants(sharpes: pd.Series) -> go.Figure:
    """Sharpe ratio of every variant that was tried, over the whole history.

    Parameters
    ----------
    sharpes : Series of N floats
        By the words of the variant.
    """
    ranked = sharpes.sort_values()
    figure = go.Figure(
        go.Bar(x=ranked, y=ranked.index.astype(str), orientation="h", marker_color=BUY)
    )
    return styled(figure, height=22 * len(ranked) + 90).update_layout(
        xaxis_title="Sharpe ratio of the whole history, a year", showlegend=False
    )


def thinned(line: pd.Series) -> pd.Series:
    """Every so many points from the last one back, and the first."""
    step = max(1, -(-len(line) // MOST))
    kept = line[::-1].iloc[::step][::-1]
    if len(line) and kept.index[0] != line.index[0]:
        kept = pd.concat([line.iloc[:1], kept])
    return kept


def _second(title: str, form: str = "") -> dict[str, object]:
    """An axis at the right."""
    return {
        "title": title,
        "tickformat": form,
        "overlaying": "y",
        "tickmode": "auto",  # not where the ticks of the other axis happen to be
        "side": "right",
        "showgrid": False,
        "rangemode": "tozero",
        "automargin": True,
    }


_ABOVE = {"orientation": "h", "y": 1.12, "x": 0}
