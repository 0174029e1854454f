"""How a schedule does, told in the terminal."""

from collections.abc import Mapping
from typing import Any

from pipeline.report import terminal

SIGNAL_FIGURES = (  # of an account, with their form
    ("signals", ",d"),
    ("new", ",d"),
    ("emitted", ".0%"),
    ("valid", ".0%"),
    ("abstained", ".0%"),
    ("quality", ".0f"),
    ("risk", ".0f"),
)


def show_standing(found: Mapping[str, Any]) -> None:
    """The last good run and its age, errors, latencies, and what its signals were worth.

    Parameters
    ----------
    found : mapping
        See `pipeline.run_records.standing`.
    """
    good = found["last_good"]
    if not found["runs"]:
        terminal.console.print("no run yet")
        return
    if found["steps"]:
        table = terminal.table_of("steps, seconds")
        table.add_column("step", no_wrap=True)
        for name in ("runs", "p50", "p95", "p99", "most"):
            table.add_column(name, justify="right")
        for name, row in found["steps"].items():
            shown = (f"{row[key]:.2f}" for key in ("p50", "p95", "p99", "most"))
            table.add_row(name, f"{row['runs']:,}", *shown)
        terminal.console.print(table)
    age = f"{good['age_seconds'] / 3600:.1f} h ago, due {good['due'][:19]}" if good else "none"
    lines = [
        f"last good run: {age}",
        f"{found['runs']:,} runs kept, {found['failed']:,} failed ({found['error_rate']:.1%}), "
        f"{found['failed_in_a_row']:,} in a row",
    ]
    if found["account"]:
        lines.append(", ".join(figures(found["account"])))
    lines += [f"alert stands: {key}" for key in found["alerts"]]
    terminal.console.print("\n".join(lines), highlight=False, markup=False)


def figures(account: Mapping[str, Any]) -> list[str]:
    """Figures of the signals of a run in words, those that are known."""
    known = [(name, account.get(name), form) for name, form in SIGNAL_FIGURES]
    return [f"{name} {format(value, form)}" for name, value, form in known if value is not None]
