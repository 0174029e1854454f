"""Collects what stands in the way of a signal, row by row, in figures and in words."""

from math import ceil, floor

import numpy as np
import pandas as pd

from stages.signal import WhyNot

UNTESTED = WhyNot("skill", "skill: not tested")


class Obstacles:
    """What stands in the way of each of N rows, in the order in which it was found."""

    def __init__(self, rows: int) -> None:
        self._found: list[list[WhyNot]] = [[] for _ in range(rows)]

    @property
    def none(self) -> np.ndarray:
        """Whether nothing stands in the way, bool of shape (N,)."""
        return np.array([not found for found in self._found], dtype=bool)

    def say(self, where: np.ndarray, text: str) -> None:
        """Note a text, which begins with its key, on the rows of a mask."""
        said = WhyNot.of(text) if where.any() else None
        for row in np.flatnonzero(where):
            self._found[row].append(said)  # type: ignore[arg-type]

    def below(
        self,
        where: np.ndarray,
        key: str,
        value: np.ndarray,
        limit: np.ndarray,
        tail: str | list[str] = "",
    ) -> None:
        """Note values that a limit asks more of; `tail` follows, one for all or one a row."""
        for row in np.flatnonzero(where):
            found, asked = float(value[row]), float(limit[row])
            rest = tail if isinstance(tail, str) else tail[row]
            text = f"{key} {_lower(found, 2)} < {asked:.2f}{rest}"
            self._found[row].append(WhyNot(key, text, found, asked))

    def above(
        self, where: np.ndarray, key: str, value: np.ndarray, limit: float, digits: int = 2
    ) -> None:
        """Note values above a limit."""
        for row in np.flatnonzero(where):
            found = float(value[row])
            text = f"{key} {_upper(found, digits)} > {limit:.{digits}f}"
            self._found[row].append(WhyNot(key, text, found, float(limit)))

    def unproven(self, where: np.ndarray, panel: pd.DataFrame) -> None:
        """Note how far the skill test has come, from the ``skill.*`` columns."""
        if "skill.e_value" not in panel:
            for row in np.flatnonzero(where):
                self._found[row].append(UNTESTED)
            return
        columns = ("skill.e_value", "skill.needed", "skill.bars")
        state = np.column_stack([panel[name].to_numpy("float64") for name in columns])
        said: dict[tuple[float, ...], WhyNot] = {}
        for row in np.flatnonzero(where):
            e_value, needed, bars = known = tuple(state[row].tolist())
            if known not in said:
                text = f"skill: e-value {_lower(e_value, 1)} < {needed:g} after {bars:.0f} bars"
                said[known] = WhyNot("skill", text, e_value, needed)
            self._found[row].append(said[known])

    def tuples(self) -> list[tuple[WhyNot, ...]]:
        return [tuple(found) for found in self._found]


def _lower(value: float, digits: int) -> str:
    """Rounded down: 0.799 must not read as the 0.80 it missed."""
    return f"{floor(value * 10**digits + 1e-9) / 10**digits:.{digits}f}"


def _upper(value: float, digits: int) -> str:
    return f"{ceil(value * 10**digits - 1e-9) / 10**digits:.{digits}f}"
