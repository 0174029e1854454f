"""One self-contained HTML page of one signal: why, how sure, what would turn it, what came then."""

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from pipeline.inquiry import Inquiry
from pipeline.report.document import div, write_document
from pipeline.report.figures import BUY, DASHED, GREY, SELL, styled
from pipeline.report.reasons import lag_map, stage_flow, waterfall
from pipeline.signals import interval_text, skill_sentence
from stages.explain.episodes import Episodes
from stages.explain.lime import Surrogate
from stages.explain.why_not import Counterfactual
from stages.signal import SIDE_TEXT, Reasons, Signal

TOP = 10  # inputs of which both opinions are drawn
NEAREST = 10  # episodes in the table
INKS = {-1: SELL, 0: GREY, 1: BUY}

Section = tuple[str, str, str]  # heading, note, figure as an element


def write_signal_page(path: Path, inquiry: Inquiry, about: str) -> None:
    """Write the page; it asks nothing of the network.

    Parameters
    ----------
    path : Path
    inquiry : Inquiry
        The signal and what was found out about it; what was not asked is left out.
    about : str
        What the data are and are not.
    """
    signal = inquiry.signal
    write_document(
        path,
        "signal_page.html",
        signal=signal,
        side="" if signal.side is None else SIDE_TEXT[signal.side],
        status=_status(signal),
        time=f"{signal.time:%Y-%m-%d %H:%M} UTC",
        about=about,
        facts=dict(facts(signal)),
        skill=skill_sentence(signal.skill),
        why=list(why_sections(signal)),
        reasons=signal.reasons,
        fidelity=_fidelity(signal.reasons),
        asked=asked(inquiry),
    )


def asked(inquiry: Inquiry) -> dict[str, Any]:
    """What was found out, as ``asked.html`` and the pages around it show it."""
    return {
        "sentence": inquiry.sentence.text,
        "change": inquiry.change,
        "lean": inquiry.lean,
        "checks": [] if inquiry.change is None else inquiry.change.checks,
        "moves": _moves(inquiry.change) or _moves(inquiry.lean),
        "episodes": inquiry.episodes,
        "nearest": _nearest(inquiry.episodes),
        "past": _past(inquiry.episodes),
        "lime": inquiry.lime,
        "opinions": _opinions(inquiry.signal.reasons, inquiry.lime),
    }


def page_name(signal: Signal) -> str:
    """File name of a signal's page: ``AAPL_20221228T2100.html``, whatever the asset is called."""
    return f"{re.sub(r'[^A-Za-z0-9.^=-]', '-', signal.asset)}_{signal.time:%Y%m%dT%H%M}.html"


def why_sections(signal: Signal) -> Iterator[Section]:
    """Heading, note and figure of each view of the reasons; none for an abstention."""
    if signal.side is not None:
        gate = "The gate let it pass." if signal.stages.get("gate") else _stopped(signal)
        note = (
            "Left the probability of the leading side against the opposite one, log-odds in "
            f"brackets. {gate} Right the odds of all three, the one decided on in full colour."
        )
        yield "From stage to stage", note, div(stage_flow(signal))
    reasons = signal.reasons
    if reasons is None:
        return
    unit = "Baseline and pushes sum to the margin; pushes to the right favour the leading side."
    yield "Inputs", unit, div(waterfall(signal))
    if any(part.lag for part in reasons.lags):
        note = "The largest parts of single bars in these pushes, teal for the leading side."
        yield "When", note, div(lag_map(signal))
    if reasons.by_family:
        note = "The same, by kind of input."
        yield "Kinds of input", note, div(waterfall(signal, "by_family"))
    note = "The same, by member of each stage; context is what stage 3 reads itself."
    yield "Members", note, div(waterfall(signal, "by_stage"))


def past(episodes: Episodes) -> go.Figure:
    """How the most similar rows of the past ended: return against distance."""
    figure = go.Figure()
    for side, ink in INKS.items():
        known = [e for e in episodes.episodes if e.side == side and e.ret is not None]
        figure.add_scatter(
            x=[e.distance for e in known],
            y=[e.ret for e in known],
            mode="markers",
            name=f"ended as {SIDE_TEXT[side]}",
            marker={"color": ink, "size": 9},
            customdata=[html.escape(f"{e.asset} {e.time[:10]}") for e in known],
            hovertemplate="%{customdata}: %{y:+.2%}<extra></extra>",
        )
    if episodes.ret is not None:
        figure.add_hline(y=episodes.ret, line={"color": "#3d5a80"}, annotation_text="their mean")
    if episodes.base_ret is not None:
        where = {"annotation_text": "all known rows", "annotation_position": "bottom left"}
        figure.add_hline(y=episodes.base_ret, line=DASHED, **where)
    return styled(figure, height=340).update_layout(
        xaxis={
            "title": "distance, training standard deviations",
            "rangemode": "tozero",
            "title_standoff": 8,
        },
        yaxis={"title": "return over the horizon", "tickformat": "+.1%"},
        legend={"orientation": "h", "y": 1.12},
        margin={"t": 30, "b": 60},
    )


def opinions(reasons: Reasons, lime: Surrogate) -> go.Figure:
    """Contributions beside what a line around the row makes of the same inputs."""
    known = {n: reasons.side * v for n, v in lime.effects.items() if n in reasons.contributions}
    names = sorted(known, key=lambda name: -abs(reasons.contributions[name]))[:TOP]
    shown = [html.escape(name) for name in names]
    unit = f"log-odds of {SIDE_TEXT[reasons.side]} against {SIDE_TEXT[-reasons.side]}"
    figure = go.Figure(
        go.Bar(
            x=[reasons.contributions[name] for name in names],
            y=shown,
            orientation="h",
            name="push",
            marker={"color": BUY},
        )
    )
    figure.add_bar(
        x=[known[name] for name in names],
        y=shown,
        orientation="h",
        name="LIME",
        marker={"color": "#c99700"},
    )
    return styled(figure, height=34 * len(names) + 110).update_layout(
        barmode="group",
        xaxis={"title": unit, "exponentformat": "none"},
        yaxis={"autorange": "reversed"},
        legend={"orientation": "h", "y": 1.1},
        margin={"t": 30},
    )


def _status(signal: Signal) -> str:
    """What stands beside the side: of a hold the side it leans to."""
    if signal.status != "hold":
        return signal.status
    return f"leans {SIDE_TEXT[signal.reasons.side]}" if signal.reasons is not None else ""


def facts(signal: Signal) -> Iterator[tuple[str, str]]:
    """What the signal says beside its side, name and figure."""
    if signal.side is not None:
        yield "confidence", f"{signal.confidence:.1%}"
        yield "certainty", f"{signal.certainty:.3f}"
        yield "epistemic", f"{signal.epistemic:.4f} nats"
        yield "aleatoric", f"{signal.aleatoric:.3f} nats"
    if signal.strength:
        yield "strength", signal.strength
    yield from _appraised(signal)
    if signal.novelty == signal.novelty:
        yield "novelty", f"{signal.novelty:.2f}"
    if signal.sides:
        level = f" ({signal.interval['level']:.0%})" if signal.interval else ""
        yield f"set{level}", " ".join(SIDE_TEXT[side] for side in signal.sides)
    if signal.interval:
        yield f"return ({signal.interval['level']:.0%})", interval_text(signal.interval)
    for name, price in signal.prices.items():
        yield name, f"{price:,.2f}"
    yield "expires", f"{signal.expires:%Y-%m-%d %H:%M} UTC"


def _appraised(signal: Signal) -> Iterator[tuple[str, str]]:
    found = signal.appraisal
    if found is None:
        return
    for name, points in (("risk", found.risk), ("quality", found.quality)):
        if points is not None:
            yield name, f"{points:.0f} of 100"
    if found.size is not None:
        yield "size", f"{found.size:.1%} of the capital"


def _stopped(signal: Signal) -> str:
    without = signal.stages.get("refiner") is None
    return "The gate stopped it" + (" before stage 2." if without else ".")


def _moves(change: Counterfactual | None) -> list[dict[str, Any]]:
    """Rows of the table of what would have to change."""
    return [
        {
            "input": move.name,
            "start": f"{move.start:.4g}",
            "end": f"{move.end:.4g}",
            "places": f"{move.start_place:.0%} → {move.end_place:.0%}",
            "along": ", ".join(move.along_names),
            "companions": ", ".join(move.companions),
        }
        for move in (change.moves if change is not None else ())
    ]


def _nearest(episodes: Episodes | None) -> list[dict[str, str]]:
    return [
        {
            "asset": e.asset,
            "time": e.time[:10],
            "distance": f"{e.distance:.2f}",
            "known at": e.ended[:10],
            "ended as": SIDE_TEXT[e.side],
            "return": "" if e.ret is None else f"{e.ret:+.2%}",
        }
        for e in (episodes.episodes[:NEAREST] if episodes is not None else ())
    ]


def _past(episodes: Episodes | None) -> str:
    if episodes is None or not any(e.ret is not None for e in episodes.episodes):
        return ""
    return div(past(episodes))


def _opinions(reasons: Reasons | None, lime: Surrogate | None) -> str:
    return div(opinions(reasons, lime)) if reasons is not None and lime is not None else ""


def _fidelity(reasons: Reasons | None) -> str:
    """How close fast reasons come to full ones, in words; empty where it says nothing here."""
    if reasons is None or reasons.effort != "fast" or not reasons.fidelity:
        return ""
    found = reasons.fidelity
    return (
        f"These are fast reasons. On {found['rows']:.0f} rows of the training they had a "
        f"correlation of {found['correlation']:.4f} with full ones, and the same largest input in "
        f"{found['top_1']:.0%}."
    )
