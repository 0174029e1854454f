"""One self-contained HTML page of a backtest, and what the terminal shows of it."""

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.backtested import Backtested
from pipeline.report import backtest_figures as figures
from pipeline.report import terminal
from pipeline.report.backtest_words import (
    BRIEF,
    NAMED,
    by_period,
    groups,
    luck,
    settings,
    written,
)
from pipeline.report.document import div, write_document
from stages.backtest.drawdowns import drawdowns
from stages.backtest.metrics import sharpe
from stages.base import DataError

SHOWN = 400  # round trips in the table; all are stored
DEEPEST = 5  # drawdowns in the table
FORMS = {key: form for names in NAMED.values() for key, (_, form) in names.items()}


def write_backtest(path: Path, result: Backtested) -> None:
    """Write the page; it asks nothing of the network, and its figures are those that are stored.

    Parameters
    ----------
    path : Path
    result : Backtested
    """
    said, run = result.judgement, result.run
    both = pd.DataFrame({"portfolio": said.returns, str(said.benchmark.name): said.benchmark})
    trips = run.trips.sort_values(["exited", "entered"], ascending=False)
    outcomes = Counter(run.orders["outcome"].tolist())
    write_document(
        path,
        "backtest_page.html",
        card=result.card(),
        groups=groups(result.metrics()),
        luck=luck(result.standing),
        charts=[
            (title, note, div(figure))
            for title, note, figure in (
                (
                    "Capital",
                    "Logarithmic; what was left after costs." if not run.before_costs else "",
                    figures.equity(both, float(run.days["equity"].iloc[0])),
                ),
                ("Drawdown", "Below the highest so far.", figures.underwater(both)),
                (
                    "Rolling year",
                    "Of the year up to each time.",
                    figures.rolling(said.returns, said.benchmark, said.rate, said.per_year),
                ),
                ("Exposure", "", figures.exposure(run.days)),
                ("Cost and turnover", "", figures.cost(run.days)),
                ("Round trips", "By the time of their exit.", figures.trades(run.trips)),
            )
        ],
        months=_months(said.months),
        years=by_period(said.years),
        regimes=by_period(said.regimes),
        falls=_falls(said.returns),
        trips=_trips(trips.head(SHOWN)),
        hidden=max(len(trips) - SHOWN, 0),
        outcomes=outcomes.most_common(),
        search=_search(result),
    )


def show_backtest(result: Backtested, folder: Path, as_json: bool = False) -> None:
    """Print the figures that matter most, with intervals and what luck would give."""
    if as_json:
        terminal.show_json(result.card())
        return
    card, metrics = result.card(), result.metrics()
    table = terminal.table_of(
        f"{result.name}: {card['first']} to {card['last']}"
        + (", before costs" if result.run.before_costs else "")
    )
    for name in ("", "portfolio", "95 %", card["benchmark"]):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    rows = {row["key"]: row for group in groups(metrics).values() for row in group}
    for key in BRIEF:
        row = rows[key]
        table.add_row(row["name"], row["value"], row["interval"], row["benchmark"])
    terminal.console.print(table)
    for line in [*luck(result.standing), *result.warnings]:
        terminal.console.print(line, highlight=False, markup=False)
    if result.search is not None:
        contest = result.search.contest
        terminal.console.print(
            f"{result.search.trials.shape[1]} variants against {card['benchmark']}: "
            f"p = {contest.p_value:.2f} for the best of them (SPA), "
            f"{len(contest.superior)} superior (StepM).",
            highlight=False,
            markup=False,
        )
    terminal.say(f"result {terminal.relative(folder)}")


def show_backtests(runs: pd.DataFrame, as_json: bool = False) -> None:
    """Stored backtests side by side.

    Parameters
    ----------
    runs : DataFrame
        What `pipeline.tracking.read_runs` gave.
    as_json : bool

    Raises
    ------
    DataError
        SV-F18 where none of them is a backtest.
    """
    prefix = "metrics.backtest."
    mine = runs[
        [any(c.startswith(prefix) for c in row.dropna().index) for _, row in runs.iterrows()]
    ]
    if mine.empty:
        raise DataError(
            "there are no backtests to compare",
            code="SV-F18",
            cure="runs=DIR names a folder of runs, such as sieve_runs",
        )
    if as_json:
        flat = mine.reset_index().astype(object)
        terminal.show_json(flat.where(flat.notna(), None).to_dict("records"))
        return
    table = terminal.table_of("backtests: each after its own costs, by time of the run")
    table.add_column("run", overflow="fold")
    for key in BRIEF:
        table.add_column(key.replace("_", " "), justify="right")
    for name, row in mine.iterrows():
        cells = [written(row.get(f"{prefix}{key}.value"), FORMS[key]) for key in BRIEF]
        table.add_row(str(name), *cells)
    terminal.console.print(table)


def _months(months: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of the monthly table, each cell with its shade."""
    out = []
    for year, row in months.iterrows():
        cells = [
            {"text": written(v, "+.1%"), "up": bool(v > 0), "shade": min(abs(v) / 0.10, 1.0) * 0.6}
            if v == v
            else {"text": "", "up": True, "shade": 0.0}
            for v in row
        ]
        out.append({"year": year, "cells": cells})
    return out


def _falls(returns: pd.Series) -> list[dict[str, str]]:
    table = drawdowns(returns).nlargest(DEEPEST, "depth")
    return [
        {
            "depth": f"{row['depth']:.2%}",
            "peak": _day(row["peak"]) or "start",
            "trough": _day(row["trough"]),
            "end": _day(row["end"]) or "lasts",
            "length": f"{row['length']:,}",
            "recovery": written(row["recovery"], ",.0f"),
        }
        for row in table.to_dict("records")
    ]


def _trips(trips: pd.DataFrame) -> list[dict[str, str]]:
    return [
        {
            "asset": row["asset"],
            "entered": _day(row["entered"]),
            "exited": "open" if row["open"] else _day(row["exited"]),
            "bars": str(row["bars"]),
            "return": f"{row['return']:+.2%}",
            "gain": f"{row['gain']:+,.2f}",
            "cost": f"{row['cost']:,.2f}",
            "why": row["entry_reason"],
            "end": row["exit_reason"],
        }
        for row in trips.to_dict("records")
    ]


def _search(result: Backtested) -> dict[str, Any] | None:
    """The windows, every variant over the whole history, and whether any beats the benchmark."""
    if result.search is None:
        return None
    found, per_year = result.search, result.judgement.per_year
    sharpes = found.trials.apply(lambda column: sharpe(column.to_numpy(), per_year))
    windows = [
        {
            "begin": _day(row["begin"]),
            "end": _day(row["end"]),
            "chosen": row["chosen"],
            "score": written(row["score"] * per_year**0.5, "+.2f"),
            "after": written(row["after"] * per_year**0.5, "+.2f"),
        }
        for row in found.chosen.to_dict("records")
    ]
    contest = found.contest
    return {
        "windows": windows,
        "figure": div(figures.variants(sharpes)),
        "settings": settings(sharpes),
        "count": len(sharpes),
        "p_value": f"{contest.p_value:.2f}",
        "superior": ", ".join(contest.superior) or "none",
        "alike": int((contest.confidence_set.drop("benchmark") > 0.05).sum()),
        "overfitting": written(contest.overfitting, ".2f"),
    }


def _day(time: pd.Timestamp) -> str:
    return "" if pd.isna(time) else f"{time:%Y-%m-%d}"
