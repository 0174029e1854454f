"""The last bars of many assets, a column each, as windows with the assets side by side."""

from collections.abc import Mapping

import numpy as np
from numba import njit


class Rings:
    """The last values of each column of each asset, over a fixed number of bars.

    An asset's values stand in a row twice as long as its window, so that the window is one piece:
    at the end of the row it moves back to the front.

    Parameters
    ----------
    depths : mapping of str to int
        How many bars of each column are looked back on, the newest included.
    """

    def __init__(self, depths: Mapping[str, int]) -> None:
        self.depths = dict(depths)
        self.length = max(depths.values(), default=1)
        self.values = {name: np.empty((0, 2 * self.length)) for name in depths}
        self.ends = np.empty(0, int)  # where the next bar of each asset goes

    def hold(self, assets: int) -> None:
        """Make room for that many assets; new ones have had no bar."""
        held = len(self.ends)
        if assets <= held:
            return
        room = max(assets, 2 * held)  # twice as much, so that listings cost little in total
        for name, old in self.values.items():
            self.values[name] = np.full((room, 2 * self.length), np.nan)
            self.values[name][:held] = old
        self.ends = np.concatenate([self.ends, np.full(room - held, self.length)])

    def put(self, name: str, at: np.ndarray, newest: np.ndarray) -> None:
        """Write the newest bar of the assets `at`; until `advance` it may be written again.

        A column that nobody looks back on is not kept.
        """
        if name in self.values:
            self.values[name][at, self.ends[at]] = newest

    def before(self, name: str, at: np.ndarray) -> np.ndarray:
        """The value of the bar before the newest, NaN where there was none: shape (a,)."""
        return self.values[name][at, self.ends[at] - 1]

    def window(self, name: str, at: np.ndarray) -> np.ndarray:
        """The last bars of the assets `at`, the newest included: shape (depth, a)."""
        return _side_by_side(self.values[name], at, self.ends[at] + 1, self.depths[name])

    def advance(self, at: np.ndarray) -> None:
        """Keep what was put."""
        self.ends[at] += 1
        full = at[self.ends[at] == 2 * self.length]
        for values in self.values.values():
            values[full, : self.length] = values[full, self.length :]
        self.ends[full] = self.length

    def arrays(self, assets: int) -> dict[str, np.ndarray]:
        """What the first `assets` of them hold: what `restore` takes."""
        held = {f"ring.{name}": values[:assets].copy() for name, values in self.values.items()}
        return held | {"ends": self.ends[:assets].copy()}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take back what `arrays` gave."""
        self.values = {name: arrays[f"ring.{name}"].copy() for name in self.depths}
        self.ends = arrays["ends"].copy()


@njit(cache=True)
def _side_by_side(values: np.ndarray, at: np.ndarray, stops: np.ndarray, depth: int) -> np.ndarray:
    out = np.empty((depth, len(at)))
    for j in range(len(at)):
        row = values[at[j], stops[j] - depth : stops[j]]
        for k in range(depth):
            out[k, j] = row[k]
    return out
