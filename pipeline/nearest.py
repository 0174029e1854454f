"""The right name next to a wrong one, for the cure line of an error."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, names: Iterable[str]) -> str:
    """``did you mean close?``, or an empty text when nothing comes near."""
    by_lower = {str(n).lower(): str(n) for n in names}
    found = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f"did you mean {by_lower[found[0]]}?" if found else ""
