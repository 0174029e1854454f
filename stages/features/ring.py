"""The last bars of many assets as windows: each asset's own bars, or the times of all of them."""

from collections.abc import Iterable, Mapping

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

    def row(self, name: str, at: np.ndarray) -> np.ndarray:
        """As `window`, of the one asset `at`: shape (depth,)."""
        stop = self.ends[at[0]] + 1
        return self.values[name][at[0], stop - self.depths[name] : stop].copy()

    def advance(self, at: np.ndarray) -> None:
        """Keep what was put."""
        self.ends[at] += 1
        full = at[self.ends[at] == 2 * self.length]
        if len(full):
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


class Board:
    """The last times of some columns, all assets beside each other, for what looks back on both.

    An asset that has no bar at a time is NaN there. Above its window a column keeps one row more:
    the newest number of each asset from before, which tells that it was listed by then.

    Parameters
    ----------
    columns : iterable of (str, int)
        Names, and how many times are looked back on, the newest included.
    """

    def __init__(self, columns: Iterable[tuple[str, int]]) -> None:
        self.values = {(name, bars): np.empty((2 * bars, 0)) for name, bars in columns}
        self.before = {key: np.empty(0) for key in self.values}
        self.ends = {key: key[1] for key in self.values}  # row of the next time

    def hold(self, assets: int) -> None:
        """Make room for that many assets; new ones have had no bar."""
        for key, old in self.values.items():
            held = old.shape[1]
            if assets > held:
                more = max(assets, 2 * held) - held
                self.values[key] = np.pad(old, ((0, 0), (0, more)), constant_values=np.nan)
                self.before[key] = np.pad(self.before[key], (0, more), constant_values=np.nan)

    def put(self, key: tuple[str, int], at: np.ndarray, newest: np.ndarray) -> None:
        """Write a time: the assets `at`, and no other; until `advance` it may be written again."""
        row = self.values[key][self.ends[key]]
        row[:] = np.nan
        row[at] = newest

    def window(self, key: tuple[str, int], order: np.ndarray) -> np.ndarray:
        """What came before, then the last times, of the assets `order`: shape (bars + 1, A)."""
        end = self.ends[key] + 1
        last = self.values[key][end - key[1] : end, order]
        return np.vstack([self.before[key][order], last])

    def advance(self) -> None:
        """Keep what was put."""
        for key, values in self.values.items():
            bars, end = key[1], self.ends[key]
            leaving = values[end - bars + 1]
            self.before[key] = np.where(np.isfinite(leaving), leaving, self.before[key])
            self.ends[key] = end + 1
            if end + 1 == 2 * bars:
                values[:bars] = values[bars:]
                self.ends[key] = bars

    def arrays(self, assets: int) -> dict[str, np.ndarray]:
        """What the first `assets` of them hold: what `restore` takes."""
        held: dict[str, np.ndarray] = {}
        for (name, bars), values in self.values.items():
            end = self.ends[name, bars]
            held[f"board.{name}.{bars}"] = values[end - bars : end, :assets].copy()
            held[f"before.{name}.{bars}"] = self.before[name, bars][:assets].copy()
        return held

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take back what `arrays` gave."""
        for name, bars in self.values:
            last = arrays[f"board.{name}.{bars}"]
            self.values[name, bars] = np.vstack([last, np.full_like(last, np.nan)])
            self.before[name, bars] = arrays[f"before.{name}.{bars}"].copy()
            self.ends[name, bars] = bars


@njit(cache=True, nogil=True)
def _side_by_side(values: np.ndarray, at: np.ndarray, stops: np.ndarray, depth: int) -> np.ndarray:
    out = np.empty((depth, len(at)))
    for j in range(len(at)):
        row = values[at[j], stops[j] - depth : stops[j]]
        for k in range(depth):
            out[k, j] = row[k]
    return out
