"""The equal-weight index of a stream of bars, time by time, as `Rows.equal_weight` has it."""

from collections.abc import Mapping

import numpy as np

from stages.features.kernels import log_ratio

MARKET = "market"  # its column


class EqualWeight:
    """Level of the index, its last values, and which assets have followed it without a gap.

    Parameters
    ----------
    depth : int
        How many of its last values are looked back on.
    """

    def __init__(self, depth: int) -> None:
        self.level, self.times = 0.0, 0  # logarithm of the level; times so far
        self.values = np.full(depth, np.nan)
        self.runs = np.empty(0, int)  # times in a row, up to its last bar, of each asset
        self.last = np.empty(0, int)  # number of the time of its last bar
        self._moved = self.level, self.values

    def hold(self, assets: int) -> None:
        """Make room for that many assets."""
        new = assets - len(self.runs)
        self.runs = np.append(self.runs, np.zeros(new, int))
        self.last = np.append(self.last, np.full(new, -2))

    def move(self, close: np.ndarray, before: np.ndarray, by_name: np.ndarray) -> float:
        """Level at the next time; it is not kept until `keep`.

        Parameters
        ----------
        close, before : ndarray of shape (a,)
            Of the assets that have a bar: the close, and that of their own bar before.
        by_name : int ndarray of shape (a,)
            The order in which their moves are added up.
        """
        moves = log_ratio(close, before)[by_name]
        known = moves[np.isfinite(moves)]
        log_level, level = self.level, np.nan
        if not self.times:
            level = 1.0
        elif len(known):
            log_level += float(np.add.accumulate(known)[-1] / len(known))
            level = float(np.exp(log_level))
        self._moved = log_level, np.append(self.values[1:], level)
        return level

    def window(self, bars: int) -> np.ndarray:
        """The last values, that of `move` included: shape (bars,)."""
        return self._moved[1][-bars:].copy()

    def in_step(self, at: np.ndarray) -> int:
        """At how many of the last times all of the assets `at` had a bar, the next one included.

        Over so many bars they have the market of `window`.
        """
        return int(self._runs(at).min())

    def keep(self, at: np.ndarray) -> None:
        """Keep what `move` said, and that the assets `at` had a bar."""
        self.runs[at], self.last[at] = self._runs(at), self.times
        (self.level, self.values), self.times = self._moved, self.times + 1

    def _runs(self, at: np.ndarray) -> np.ndarray:
        return np.where(self.last[at] == self.times - 1, self.runs[at] + 1, 1)

    def arrays(self, assets: int) -> dict[str, np.ndarray]:
        """What `restore` takes, of the first `assets`."""
        return {
            "index.level": np.array([self.level]),
            "index.times": np.array([self.times]),
            "index.values": self.values.copy(),
            "index.runs": self.runs[:assets].copy(),
            "index.last": self.last[:assets].copy(),
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take back what `arrays` gave."""
        self.level, self.times = float(arrays["index.level"][0]), int(arrays["index.times"][0])
        self.values = arrays["index.values"].copy()
        self.runs, self.last = arrays["index.runs"].copy(), arrays["index.last"].copy()
        self._moved = self.level, self.values
