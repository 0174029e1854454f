"""What the page shows of signals: plain texts and figures, ready for its templates."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pipeline.account import QUANTILES
from pipeline.api import messages
from pipeline.api.answers import inquiry
from pipeline.inquiry import Inquiry
from pipeline.report import signal_page
from pipeline.report.figures import BUY, DASHED, GREY, SELL, styled
from pipeline.report.timetable import figures
from pipeline.signals import skill_sentence
from pipeline.store.log import Event
from pipeline.store.rows import Stored, timestamp
from stages.signal import SIDE_TEXT, Signal

UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))
DAY = 86_400_000  # milliseconds, in which plotly counts time
MINE = ("strength", "risk", "quality")  # shown where some signal has them


def span_text(seconds: float) -> str:
    """A stretch of time in its largest unit: ``3 min``, ``5 h``, ``12 d``."""
    for unit, length in UNITS:
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def line(found: Stored, kind: str, now: pd.Timestamp) -> dict[str, Any]:
    """A row of the table of signals.

    Parameters
    ----------
    found : Stored
    kind : str
        Class of the asset.
    now : Timestamp
    """
    row = found.row
    left = (timestamp(row["expires"]) - now).total_seconds()
    return {
        "id": found.id,
        "asset": found.asset,
        "class": kind,
        "side": row["side"] or "–",
        "status": _status(found),
        "confidence": _share(row["confidence"]),
        "percent": None if row["confidence"] is None else round(100 * row["confidence"], 1),
        "certainty": _number(row["certainty"], ".2f"),
        "epistemic": _number(row["epistemic"], ".3f"),
        "aleatoric": _number(row["aleatoric"], ".2f"),
        "strength": row["strength"] or "–",
        "risk": _number(row.get("risk"), ".0f"),
        "quality": _number(row.get("quality"), ".0f"),
        "time": f"{found.time:%Y-%m-%d %H:%M}",
        "age": span_text((now - found.time).total_seconds()),
        "left": span_text(left) if left > 0 else "expired",
        "came": _came(found),
    }


def columns(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Columns that only some signals have, and one of these does."""
    return [name for name in MINE if any(one[name] != "–" for one in lines)]


def facts(signal: Signal, now: pd.Timestamp) -> Iterator[tuple[str, str]]:
    """What a signal says beside its side, name and figure; and how old it is."""
    yield from signal_page.facts(signal)
    yield "age", span_text((now - signal.time).total_seconds())
    left = (signal.expires - now).total_seconds()
    yield "left", span_text(left) if left > 0 else "expired"


def odds_text(signal: Signal) -> str:
    """The odds of all sides in words; empty for an abstention."""
    return ", ".join(f"{SIDE_TEXT[s]} {p:.1%}" for s, p in sorted(signal.probabilities.items()))


def skill_text(signal: Signal) -> str:
    """How far the skill test had come."""
    return skill_sentence(signal.skill)


def asked(signal: Signal, told: Event | None) -> dict[str, Any]:
    """What was found out about a signal, when, and with which reasons; empty: nobody has asked."""
    values = inquiry(told)
    if values is None:
        return {}
    read = messages.Inquiry.model_validate(values)
    found = Inquiry(signal, read.sentence, read.change, read.lean, read.episodes, read.lime)
    return {"stored": values["stored"], "effort": read.asked.effort} | signal_page.asked(found)


def levels(signal: Signal) -> go.Figure | None:
    """Where stop, price and target stand, and the interval of the return; None without prices."""
    close = signal.prices.get("close")
    if not close:
        return None
    figure = go.Figure()
    low, high = (signal.interval.get(name, float("nan")) for name in ("low", "high"))
    if pd.notna(low) and pd.notna(high) and high != float("inf"):
        figure.add_shape(
            type="rect",
            x0=close * (1 + low),
            x1=close * (1 + high),
            y0=0.35,
            y1=0.65,
            fillcolor="rgba(138,143,152,.25)",
            line={"width": 0},
        )
    marks = {"stop": SELL, "close": GREY, "target": BUY}
    known = [name for name in marks if name in signal.prices]
    figure.add_scatter(
        x=[signal.prices[name] for name in known],
        y=[0.5] * len(known),
        mode="markers+text",
        marker={"color": [marks[name] for name in known], "size": 13, "symbol": "line-ns-open"},
        text=[f"{name}<br>{signal.prices[name]:,.2f}" for name in known],
        textposition=["top center", "bottom center", "top center"][: len(known)],
        hoverinfo="text",
        cliponaxis=False,
    )
    return styled(figure, height=150).update_layout(
        yaxis={"visible": False, "range": [0, 1]},
        margin={"l": 50, "r": 50, "t": 10, "b": 30},
        showlegend=False,
    )


def over_time(periods: Sequence[Mapping[str, Any]], days: int) -> go.Figure:
    """Confidence said and share that came, a point a period; bars: what a signal earned."""
    middles = [period["begins"] + pd.Timedelta(days=days) / 2 for period in periods]
    figure = go.Figure()
    figure.add_bar(
        x=middles,
        width=0.8 * days * DAY,
        y=[period["mean_return"] for period in periods],
        name="mean return of a signal",
        marker={"color": GREY},
        opacity=0.4,
        yaxis="y2",
        customdata=[period["signals"] for period in periods],
        hovertemplate="%{y:+.2%}, %{customdata} signals<extra></extra>",
    )
    for name, key, line in (
        ("confidence said", "confidence", {"color": GREY, **DASHED}),
        ("share that came", "hit_rate", {"color": BUY}),
    ):
        figure.add_scatter(
            x=middles,
            y=[period[key] for period in periods],
            mode="lines+markers",
            name=name,
            line=line,
        )
    return styled(figure, height=360).update_layout(
        yaxis={"title": "share", "tickformat": ".0%", "automargin": True},
        yaxis2={
            "title": "return",
            "tickformat": "+.1%",
            "overlaying": "y",
            "side": "right",
            "showgrid": False,
            "automargin": True,
        },
        legend={"orientation": "h", "y": 1.15},
        margin={"t": 40},
    )


def status(found: Mapping[str, Any]) -> dict[str, Any]:
    """What `pipeline.api.status` found, as the page shows it: texts, and rows of tables."""
    plan, run, stream = found["schedule"], found["run"], found["stream"]
    out: dict[str, Any] = {"facts": [], "steps": [], "alerts": [], "sources": []}
    if plan is not None:
        good = plan["last_good"]
        age = f"{span_text(good['age_seconds'])} ago" if good else "none yet"
        out["facts"] += [
            ("last good run", age),
            ("runs", f"{plan['runs']:,}, {plan['failed']:,} failed"),
        ]
        if plan["failed_in_a_row"]:
            out["facts"].append(("failed in a row", str(plan["failed_in_a_row"])))
        out["steps"] = [(name, *map(_seconds, _spread(row))) for name, row in plan["steps"].items()]
        out["alerts"] = plan["alerts"]
    if run is not None:
        out["facts"] += [tuple(text.split(" ", 1)) for text in figures(run)]
        out["steps"] = out["steps"] or [(name, _seconds(s)) for name, s in run["seconds"].items()]
    answers = found["answers"]
    if answers["requests"]:
        late = " · ".join(f"{answers['milliseconds'][name]:.0f}" for name in QUANTILES)
        out["facts"].append(("answers, ms", late))
        out["facts"].append(("answers failed", f"{answers['error_rate']:.1%}"))
    out["sources"] = [_source(name, one) for name, one in stream["sources"].items()]
    out["waiting"] = stream["waiting"]
    return out


def _spread(row: Mapping[str, float]) -> list[float]:
    return [row[name] for name in QUANTILES]


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value < 100 else span_text(value)


def _source(name: str, one: Mapping[str, Any]) -> dict[str, str]:
    """A row of the table of streams."""
    aside = ", ".join(f"{n:,} {kind}" for kind, n in one["quarantined"].items() if n)
    late = [one["latency_ms"][key] for key in QUANTILES]
    return {
        "name": name,
        "received": f"{one['received']:,}",
        "signals": f"{one['signals']:,}",
        "duplicates": f"{one['duplicates']:,}",
        "late": f"{one['late']:,}",
        "aside": aside or "–",
        "lag": "–" if one["lag"] is None else f"{one['lag']:,}",
        "latency": " · ".join("–" if ms is None else f"{ms:.0f}" for ms in late),
        "age": "–" if one.get("age_seconds") is None else span_text(one["age_seconds"]),
    }


def _status(found: Stored) -> str:
    """What stands beside the side: of a hold the side it leans to, of others whether they left."""
    row = found.row
    if row["status"] == "hold" and row["p_buy"] != row["p_sell"]:
        return f"leans {'BUY' if row['p_buy'] > row['p_sell'] else 'SELL'}"
    if found.verdict is not None and not found.verdict.emitted:
        return "withheld"
    return str(row["status"])


def _came(found: Stored) -> str:
    if found.outcome is None:
        return ""
    return f"{SIDE_TEXT[found.outcome.label]} {found.outcome.ret:+.2%}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
