"""Shapley values of a whole pipeline by the definition, and KernelSHAP on the same game."""

import time
from collections.abc import Callable
from math import factorial
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from stages.explain.background import Background
from stages.panel import FAMILIES, named, windows

PART = 1024  # windows predicted at a time
LEAD = 0.05  # of the largest player over the next, below which either may be called the largest


class Game:
    """A coalition of columns takes the whole window of a row, all others that of a reference.

    It earns the margin that the pipeline says of the mixture, the gate held open as for the
    references, averaged over the references.

    Parameters
    ----------
    stack : Stack
    panel : DataFrame
        Inputs.
    row : (asset, time)
    background : Background
    window : int
    """

    def __init__(
        self, stack: Any, panel: pd.DataFrame, row: Any, background: Background, window: int
    ) -> None:
        self.stack, self.window = stack, window
        self.players = named(panel, *FAMILIES[:3])
        rows = pd.MultiIndex.from_tuples([row], names=panel.index.names)
        self.x = windows(panel, rows, window, self.players).to_numpy()
        self.r = background.windows[self.players].to_numpy().reshape(-1, window, len(self.players))

    def earned(self, coalitions: np.ndarray) -> np.ndarray:
        """Margins (n,) of coalitions (n, players), true where a column comes from the row."""
        return self.each(coalitions).mean(axis=1)

    def each(self, coalitions: np.ndarray) -> np.ndarray:
        """`earned` with each reference alone, (n, R)."""
        chosen = np.asarray(coalitions) > 0.5
        out = np.empty((len(chosen), len(self.r)))
        step = max(PART // len(self.r), 1)
        for start in range(0, len(chosen), step):
            part = chosen[start : start + step, None, None, :]
            mixed = np.where(part, self.x[None, None], self.r[None])
            margins = self._margins(mixed.reshape(-1, self.window, len(self.players)))
            out[start : start + step] = margins.reshape(-1, len(self.r))
        return out

    def enumerated(self) -> np.ndarray:
        """Shapley values (players, R) against each reference, from all coalitions."""
        n = len(self.players)
        coalitions = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        earned, sizes = self.each(coalitions), coalitions.sum(axis=1)
        values = np.empty((n, len(self.r)))
        for player in range(n):
            without = np.flatnonzero(coalitions[:, player] == 0)
            weight = [factorial(s) * factorial(n - s - 1) / factorial(n) for s in sizes[without]]
            values[player] = np.array(weight) @ (earned[without + 2**player] - earned[without])
        return values

    def kernel_shap(self, samples: int, seed: int) -> np.ndarray:
        """Shapley values (players,) as `shap.KernelExplainer` estimates them."""
        import shap

        np.random.seed(seed)  # noqa: NPY002  the library draws from the global generator
        explainer = shap.KernelExplainer(self.earned, np.zeros((1, len(self.players))))
        row = np.ones((1, len(self.players)))
        return np.asarray(explainer.shap_values(row, nsamples=samples, l1_reg=False, silent=True))[
            0
        ]

    def _margins(self, mixed: np.ndarray) -> np.ndarray:
        count, L, n = mixed.shape
        index = pd.MultiIndex(
            levels=[
                pd.Index([f"{i:06d}" for i in range(count)], dtype="str"),
                pd.date_range("2000-01-03", periods=L, tz="UTC", unit="us"),
            ],
            codes=[np.repeat(np.arange(count), L), np.tile(np.arange(L), count)],
            names=["asset", "time"],
        )
        table = pd.DataFrame(mixed.reshape(-1, n), index, self.players, copy=False)
        last = np.tile(np.arange(L) == L - 1, count)
        table = table.assign(ready=last)
        table = table.assign(**self.stack.filter.predict(table))
        table["filter.gate"] = 1.0
        table = table.assign(**self.stack.refiner.predict(table))[last]
        return self.stack.ensemble.predict(table)["margin"].to_numpy()


def errors(mine: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Agreement of two tables (rows, players).

    ``top_1`` is the share of rows with the same largest player, with its 95 % interval (Wilson);
    ``clear_top_1`` the same where it leads by more than `LEAD` of its size, ``clear`` their share.
    """
    first = np.abs(mine).argmax(axis=1) == np.abs(truth).argmax(axis=1)
    second, largest = np.sort(np.abs(truth), axis=1)[:, -2:].T
    clear = second < (1 - LEAD) * largest
    interval = binomtest(int(first.sum()), len(first)).proportion_ci(method="wilson")
    return {
        "correlation": float(np.corrcoef(mine.ravel(), truth.ravel())[0, 1]),
        "relative_l1": float(np.abs(mine - truth).sum() / np.abs(truth).sum()),
        "top_1": float(first.mean()),
        "top_1_low": float(interval.low),
        "top_1_high": float(interval.high),
        "clear": float(clear.mean()),
        "clear_top_1": float(first[clear].mean()),
    }


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and the seconds of processor time it took."""
    start = time.process_time()
    out = function()
    return out, time.process_time() - start
