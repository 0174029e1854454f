"""A book in the prices of a history that was adjusted anew since it was written."""

from collections.abc import Mapping
from dataclasses import replace

from stages.base import DataError
from stages.portfolio.book import Book, Position

SAME = 1e-9  # relative: what is nearer is the same price
SPLIT = 0.2  # relative: dividends move a history by less, splits by more


def restated(
    book: Book,
    then: Mapping[str, float],
    now: Mapping[str, float],
    splits: Mapping[str, float] | None = None,
) -> Book:
    """Scale entry prices and highest closes as their history was scaled, and shares by splits.

    Parameters
    ----------
    book : Book
    then : mapping of str to float > 0
        Closes at ``book.as_of`` as the history said when the book was written, by holding.
    now : mapping of str to float
        The same closes as the history says today.
    splits : mapping of str to float > 0, optional
        New shares for one old, for each holding that was split since.

    Raises
    ------
    DataError
        SV-X616 for a history that moved as in a split where none is named, for a split that it
        does not show, and for one that leaves a part of a share.
    """
    positions = {
        asset: _position(asset, position, then, now, (splits or {}).get(asset, 1.0))
        for asset, position in book.positions.items()
    }
    return replace(book, positions=positions)


def _position(
    asset: str,
    position: Position,
    then: Mapping[str, float],
    now: Mapping[str, float],
    factor: float,
) -> Position:
    old, new = then[asset], now.get(asset)
    if new is None or not new > 0:
        raise _refused(asset, f"had a close of {old:.6g} and has none today")
    scale = new / old
    if not abs(scale * factor - 1) < SPLIT:
        named = f", a split into {factor:g} is named" if factor != 1 else ""
        raise _refused(asset, f"closed at {old:.6g} and today's history says {new:.6g}{named}")
    shares = position.shares * factor
    if abs(shares - round(shares)) > SAME * shares:
        raise _refused(asset, f"{position.shares} shares times {factor:g} are no whole number")
    if factor == 1 and abs(scale - 1) <= SAME:
        return position
    return replace(
        position,
        shares=round(shares),
        entry_price=position.entry_price * scale,
        highest=position.highest * scale,
    )


def _refused(asset: str, what: str) -> DataError:
    return DataError(
        f"the history of {asset} is not that of the book: {what}",
        code="SV-X616",
        why="shares and stops in the prices of another history are worth something else",
        cure=f"after a split name it once: splits={{{asset}: 2}}; else bring the data of the book",
    )
