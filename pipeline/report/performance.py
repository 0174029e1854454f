"""How stored signals did, as a table in a terminal."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline.report.terminal import console, table_of

FORMS = {
    "hit": ".1%",
    "base_rate": ".1%",
    "mcc": "+.3f",
    "excess": "+.2%",
    "net": "+.2%",
}
BOUNDED = ("hit", "net")  # shown with their intervals


def show_performance(performance: pd.DataFrame) -> None:
    """One group of signals a row: what it hit, beside the base rate, and what it earned.

    Parameters
    ----------
    performance : DataFrame
        Of `stages.risk.outcomes.performance`.
    """
    table = table_of("what became of the signals")
    for name in ("by", "group"):
        table.add_column(name, no_wrap=True)
    for name in ("signals", "matured"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in FORMS:
        table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
    for (by, group), row in zip(performance.index, performance.to_dict("records"), strict=True):
        counts = [f"{row['signals']:,.0f}", f"{row['matured']:,.0f}"]
        table.add_row(
            str(by), str(group)[:12] or "–", *counts, *(_cell(row, name) for name in FORMS)
        )
    console.print(table)
    console.print(
        "hit, base rate and mcc of the matured ones; excess over the other assets and return net "
        "of costs, a signal; "
        "± half a 95 % block-bootstrap interval, none for fewer than 10 bars.",
        style="dim",
        highlight=False,
    )


def _cell(row: Mapping[Any, Any], name: str) -> str:
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    if pd.isna(value):
        return ""
    if name not in BOUNDED or pd.isna(low) or pd.isna(high):
        return format(value, FORMS[name])
    half = format((high - low) / 2, FORMS[name].lstrip("+"))
    return f"{format(value, FORMS[name])} ±{half}"
