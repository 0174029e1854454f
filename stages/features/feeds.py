"""What bars feed: where their market comes from, and which columns they cannot make."""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.base import DataError
from stages.features.functions import across_assets, reads
from stages.features.rows import Rows


def find_market(rows: Rows, trained: str | None, is_read: bool) -> str:
    """Put a market beside the bars if there is none, and say where it comes from.

    Parameters
    ----------
    rows : Rows
        Its columns are changed.
    trained : {'given', 'equal weight', 'absent'} or None
        Where the market of the training bars came from.
    is_read : bool
        Whether any function reads it.

    Returns
    -------
    str
        As `trained`.

    Raises
    ------
    DataError
        SV-F20 if the training bars had a market and these have none.
    """
    if "market" in rows.columns and trained != "equal weight":
        return "given"
    if trained == "given":
        raise DataError(
            "the bars have no market column, which the features were trained with",
            code="SV-F20",
            where=f"columns read: {sorted(rows.columns)}",
            why="another index in its place would change every market feature",
            cure="bring the market: data.market=ASSET or data.columns.market=COLUMN",
        )
    made = trained == "equal weight" or (trained is None and len(rows.assets) > 1)
    if made and "close" in rows.columns:
        if is_read:
            rows.columns["market"] = rows.equal_weight()
        return "equal weight"
    rows.columns.pop("market", None)
    return "absent"


def unfed(
    functions: Mapping[str, Any], rows: Rows, trained: Sequence[str] | None
) -> dict[str, str]:
    """Columns that cannot be built of the bars, each with its reason.

    Parameters
    ----------
    functions : mapping of str to callable
        By the name of their column, in order.
    rows : Rows
    trained : sequence of str or None
        Columns that the training bars could feed.

    Raises
    ------
    DataError
        SV-F20 if one of `trained` cannot be built.
    """
    left_out: dict[str, str] = {}
    known = set(rows.columns)
    for name, function in functions.items():
        missing = [c for c in reads(function).values() if c not in known]
        if missing:
            left_out[name] = f"the bars have no {', '.join(missing)}"
        elif across_assets(function) and len(rows.assets) < 2 and trained is None:
            left_out[name] = "a cross-section needs at least two assets"
        elif name.startswith("feature."):
            known.add(name.removeprefix("feature."))
    if trained is None:
        return left_out
    gone = {name: left_out[name] for name in trained if name in left_out}
    if gone:
        name, reason = next(iter(gone.items()))
        raise DataError(
            f"{name} was trained and cannot be built: {reason}",
            code="SV-F20",
            where=f"{len(gone)} columns: {', '.join(list(gone)[:8])}",
            cure="bring the columns that the training bars had, or train on these",
        )
    new = [name for name in functions if name not in trained and name not in left_out]
    return left_out | dict.fromkeys(new, "the training bars did not have it")
