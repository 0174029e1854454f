"""What drives a model, told: tables in the terminal, and one self-contained HTML page."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from pipeline.overview import Overview
from pipeline.report import drivers
from pipeline.report.document import div, write_document
from pipeline.report.reasons import beeswarm
from pipeline.report.terminal import console, table_of
from stages.explain.drift import Drift
from stages.explain.interactions import Interactions
from stages.explain.redundancy import Redundancy

TOLD = 3  # clusters and pairs put in words

Section = tuple[str, str, str]  # heading, note, figure as an element


def show_overview(found: Overview, top: int) -> None:
    """Print the largest inputs and all stages and members, with intervals; then what they share.

    Parameters
    ----------
    found : Overview
    top : int
        Inputs shown.
    """
    measured = found.importance
    table = table_of(
        f"what moves the margin: {measured.rows:,} rows of {measured.bars:,} bars, "
        f"{measured.begins[:10]} to {measured.ends[:10]}\n{measured.unit}"
    )
    table.add_column("input, family, stage or member")
    for name in ("mean push", "95% interval", "share", "rank"):
        table.add_column(name, justify="right", no_wrap=True)
    for view in ("inputs", "families", "stages", "members"):
        rows = getattr(measured, view)
        for place, (name, row) in enumerate(rows[:top].iterrows()):
            last = place == min(top, len(rows)) - 1
            cells = (
                f"{row['size']:.3g}",
                f"{row['low']:.3g} to {row['high']:.3g}",
                f"{row['share']:.1%}",
                _rank(int(row["rank_low"]), int(row["rank_high"])),
            )
            table.add_row(str(name), *cells, end_section=last)
    console.print(table)
    for line in (
        _through(found, top),
        redundancy_text(found.redundancy),
        interactions_text(found.interactions),
    ):
        if line:
            console.print(line, highlight=False, markup=False)


def show_drift(found: Drift, top: int) -> None:
    """Print the surest changes between two windows, and what they come to.

    Parameters
    ----------
    found : Drift
    top : int
        Rows shown.
    """
    (begin, end), (start, stop) = (tuple(t[:10] for t in span) for span in found.spans)
    table = table_of(f"reasons of {begin} to {end} against {start} to {stop}")
    for name in ("input", "of"):
        table.add_column(name)
    for name in ("before", "after", "p, adjusted"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found.table.head(top).to_dict("records"):
        said = f"{row['adjusted']:.3g}" if row["judged"] else "not judged"
        style = "bold" if row["adjusted"] <= found.level else None
        ends = (f"{row[name]:+.3g}" for name in ("before", "after"))
        table.add_row(row["input"], row["of"], *ends, said, style=style)
    console.print(table)
    console.print(found.text, highlight=False, markup=False)


def write_overview_page(
    path: Path,
    found: Overview,
    about: str,
    panel: pd.DataFrame | None = None,
    drift: Drift | None = None,
) -> None:
    """Write the page; it asks nothing of the network.

    Parameters
    ----------
    path : Path
    found : Overview
    about : str
        What the data are and are not.
    panel : DataFrame, optional
        With the rows that were explained; lends the values that colour the swarm.
    drift : Drift, optional
        Of two windows.
    """
    measured = found.importance
    write_document(
        path,
        "overview_page.html",
        model=found.model,
        about=about,
        rows=f"{measured.rows:,} rows of {measured.bars:,} bars, "
        f"{measured.begins[:10]} to {measured.ends[:10]}",
        unit=measured.unit,
        baseline=f"{measured.baseline:+.4g}",
        sections=list(overview_sections(found, panel, drift)),
    )


def overview_sections(
    found: Overview, panel: pd.DataFrame | None = None, drift: Drift | None = None
) -> Iterator[Section]:
    """Heading, note and figure of each view."""
    bars = "Mean absolute push of a row, with 95 % block-bootstrap intervals."
    for view, title in (
        ("inputs", "Inputs"),
        ("families", "Kinds of input"),
        ("stages", "Stages"),
        ("members", "Members"),
    ):
        yield title, bars, div(drivers.importance_bars(found.importance, view))
        bars = "The same; what pushes against each other inside one cancels first."
    note = "What each input does through the trees, the nets and the context, each taken alone."
    yield "Through which stage", note, div(drivers.by_stage(found.through))
    note = "A point a row, coloured by the value of the input."
    yield "Row by row", note, div(beeswarm(found.why.contributions, panel))
    note = "Share of each input in all pushes, in one stretch of time after the other."
    yield "Over time", note, div(drivers.shares_over_time(found.shares))
    if drift is not None:
        yield "Has it changed?", drift.text, div(drivers.changes(drift))
        if (drift.table["of"] == "direction").any():
            note = "The same test on where each input pushes: in which direction its values lead."
            yield "Has it turned?", note, div(drivers.changes(drift, "direction"))
    text = redundancy_text(found.redundancy)
    yield "What says the same", text, div(drivers.hangs_together(found.redundancy))
    if found.interactions is not None:
        text = interactions_text(found.interactions)
        yield "What acts together", text, div(drivers.acts_together(found.interactions))


def _through(found: Overview, top: int) -> str:
    """The largest inputs of each stage in words."""
    said = [
        f"{stage} {', '.join(map(str, table.index[table['size'] > 0][: min(top, TOLD)]))}"
        for stage, table in found.through.items()
    ]
    return f"Largest through each stage: {'; '.join(said)}."


def redundancy_text(found: Redundancy) -> str:
    """How many inputs say something of their own, and the largest clusters, in words."""
    count = len(found.correlation)
    if not found.clusters:
        return f"No two of {count} inputs have a rank correlation of {found.threshold:.1f} or more."
    said = [
        f"{', '.join(c.inputs)}" + (f" ({c.share:.0%} of all pushes)" if c.share == c.share else "")
        for c in found.clusters[:TOLD]
    ]
    return (
        f"{count} inputs in {found.distinct} groups whose rank correlation is "
        f"{found.threshold:.1f} or more inside: {'; '.join(said)}."
    )


def interactions_text(found: Interactions | None) -> str:
    """The strongest pairs in words; empty where none were tried."""
    if found is None:
        return ""
    said = [
        f"{row['first']} with {row['second']} ({row['strength']:.2g}, H {row['h']:.2f})"
        for row in found.table.head(TOLD).to_dict("records")
    ]
    return f"Beyond the sum of both, in log-odds: {'; '.join(said)}."


def _rank(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"
