"""The orders of a day in the terminal."""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipeline.report.terminal import console, relative, say, show_json, table_of

if TYPE_CHECKING:
    from pipeline.decided import Result


def show_closed(key: str, calendars: Iterable[str], as_json: bool) -> None:
    """A day without a session is nothing to decide on, and no fault."""
    if as_json:
        show_json({"status": "closed", "session": key, "orders": []})
        return
    names = ", ".join(sorted(calendars))
    console.print(f"{key} is no session of {names}: nothing to decide, nothing written")


def show_orders(result: "Result", dry: bool) -> None:
    """Orders with their reasons, what the checks said, what was left out, and where it lies."""
    plan = result.plan
    table = table_of(f"orders after {result.key}, to place at the next bar")
    for name in ("", "asset", "shares", "close", "value", "weight", "reason"):
        justify = "left" if name in ("", "asset", "reason") else "right"
        fold = "fold" if name == "reason" else "ellipsis"
        table.add_column(name, justify=justify, overflow=fold, no_wrap=name != "reason")  # type: ignore[arg-type]
    for order in plan.orders:
        table.add_row(
            order.action,
            order.asset,
            f"{order.shares:,}",
            f"{order.price:.6g}",
            f"{order.value:,.2f}",
            f"{order.target_weight:.1%}",
            order.reason,
        )
    if plan.orders:
        console.print(table)
    else:
        console.print(f"no orders after {result.key}", highlight=False)
    held = len(plan.book.positions)
    console.print(
        f"value {result.total:,.2f}, cash {plan.book.cash:,.2f}, {held} holdings, "
        f"orders {result.turnover:.1%} of the value",
        highlight=False,
    )
    up = sum(side > 0 for side in plan.signals.values())
    console.print(
        f"{len(plan.signals)} assets judged, {up} up; {len(plan.skipped)} not judged",
        highlight=False,
    )
    for why, number in Counter(plan.skipped.values()).most_common():
        some = [asset for asset, reason in plan.skipped.items() if reason == why][:5]
        more = " ..." if number > len(some) else ""
        _dim(f"  {why}: {', '.join(some)}{more}")
    for name, text in plan.checks.items():
        _dim(f"  {name}: {text}")
    for text in result.notes:
        _dim(f"  {text}")
    for text in result.alerts:
        console.print(f"! {text}", style="bold", highlight=False, markup=False)
    for path in result.files:
        say(f"wrote {relative(path)}")
    if dry:
        console.print("dry run: nothing written; dry_run=false writes", style="italic")


def _dim(text: str) -> None:
    console.print(text, style="dim", highlight=False, markup=False)
