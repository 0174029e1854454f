"""Snapshots of a book: one file a session, whole or not there, and refused when damaged."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.files import json_bytes, write_atomic
from stages.base import StoreError
from stages.portfolio.book import Book, Order, Position, money

SCHEMA_VERSION = "1"
NAME = re.compile(r"book_(\d{4}-\d{2}-\d{2}(?:T\d{6})?)\.json")
HELD = ("shares", "entered", "entry_price", "highest")


@dataclass(frozen=True)
class Snapshot:
    """A book after the decision of one session.

    Attributes
    ----------
    key : str
        The session, ``2024-03-01``; with bars within the day, the time: ``2024-03-01T153000``.
    book : Book
    prices : mapping of str to float
        Newest closes of the holdings; history that is adjusted anew shows by them.
    orders : tuple of Order
        What was decided and is still to be traded.
    metadata : mapping
        JSON values: digests of the policy and of the bars it came from.
    """

    key: str
    book: Book
    prices: Mapping[str, float] = field(default_factory=dict)
    orders: tuple[Order, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def total(self) -> Decimal:
        """Cash plus holdings at `prices`."""
        return self.book.value(self.prices)


def write_snapshot(folder: Path | str, snapshot: Snapshot, keep: int = 30) -> Path:
    """Store a snapshot as ``book_KEY.json`` and remove all but the newest `keep`.

    Raises
    ------
    StoreError
        SV-F34 if the disk refuses; what was there stays.
    """
    path = Path(folder) / f"book_{snapshot.key}.json"
    write_atomic(path, snapshot_bytes(snapshot))
    for old in snapshots(folder)[:-keep]:
        if old != path:  # a day decided on again, behind newer ones
            old.unlink(missing_ok=True)
    return path


def snapshot_bytes(snapshot: Snapshot) -> bytes:
    """The content of a snapshot's file: the same bytes for the same book."""
    book = snapshot.book
    content = {
        "schema_version": SCHEMA_VERSION,
        "as_of_date": snapshot.key,
        "as_of": _text(book.as_of),
        "cash": str(book.cash),
        "total_value": str(snapshot.total),
        "holdings": {asset: _held(book.positions[asset]) for asset in sorted(book.positions)},
        "prices": {asset: snapshot.prices[asset] for asset in sorted(book.positions)},
        "cluster_assignments": dict(sorted(book.clusters.items())),
        "clustered": _text(book.clustered),
        "rebalanced": _text(book.rebalanced),
        "peak": book.peak,
        "orders": [_ordered(order) for order in snapshot.orders],
        "metadata": dict(snapshot.metadata),
    }
    return json_bytes({**content, "sha256": _digest(content)}, indent=1) + b"\n"


def read_snapshot(path: Path | str) -> Snapshot:
    """Restore a snapshot after checking its every value.

    Raises
    ------
    StoreError
        SV-X613 for a file that is not there, cut short, or changed: never an empty book.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_bytes())
        seal = content.pop("sha256")
        if seal != _digest(content) or content["schema_version"] != SCHEMA_VERSION:
            raise ValueError("its content is not what its sha256 says, or of another version")
        snapshot = _restored(content)
        if str(snapshot.total) != content["total_value"]:
            raise ValueError("cash and holdings are not its total value")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise StoreError(
            f"the book {path.name} cannot be restored",
            code="SV-X613",
            where=f"{path.parent}: {str(error)[:200]}",
            why="a book that is taken for empty would buy everything again",
            cure="copy the file again, or go on from the one before: book=PATH",
        ) from error
    return snapshot


def snapshots(folder: Path | str) -> list[Path]:
    """Files of snapshots in a folder, the oldest first; temporary and other files are no part."""
    found = [path for path in Path(folder).glob("book_*.json") if NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: path.name)


def before(folder: Path | str, key: str) -> Path | None:
    """The newest snapshot older than `key`: a run that is repeated begins where it began."""
    older = [path for path in snapshots(folder) if NAME.fullmatch(path.name)[1] < key]  # type: ignore[index]
    return older[-1] if older else None


def _restored(content: Mapping[str, Any]) -> Snapshot:
    positions = {
        asset: Position(**{**held, "entered": _time(held["entered"])})
        for asset, held in content["holdings"].items()
    }
    book = Book(
        as_of=_time(content["as_of"]),
        cash=money(Decimal(content["cash"])),
        positions=positions,
        clusters=content["cluster_assignments"],
        clustered=_time(content["clustered"]),
        rebalanced=_time(content["rebalanced"]),
        peak=content["peak"],
    )
    orders = tuple(_order(values) for values in content["orders"])
    key, prices = content["as_of_date"], content["prices"]
    return Snapshot(key, book, prices, orders, content["metadata"])


def _held(position: Position) -> dict[str, Any]:
    values = {name: getattr(position, name) for name in HELD}
    return {**values, "entered": _text(position.entered)}


def _ordered(order: Order) -> dict[str, Any]:
    return {name: None if value != value else value for name, value in asdict(order).items()}


def _order(values: Mapping[str, Any]) -> Order:
    known: dict[str, Any] = {n: float("nan") if v is None else v for n, v in values.items()}
    return Order(**known)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json_bytes(dict(content))).hexdigest()


def _text(time: pd.Timestamp | None) -> str | None:
    return None if time is None else time.isoformat()


def _time(text: str | None) -> pd.Timestamp | None:
    return None if text is None else pd.Timestamp(text).as_unit("us")
