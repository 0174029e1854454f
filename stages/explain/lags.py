"""When it happened: the bars of the window whose parts in a contribution are the largest."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, Self

import numpy as np
import pandas as pd

from stages.explain.chain import Chained


@cache
def named_index(names: tuple[str, ...]) -> pd.Index:
    """An index of names, made once: every signal has the same."""
    return pd.Index(names)


class TopLags(NamedTuple):
    """The k largest parts of single bars, for each of n rows.

    Attributes
    ----------
    names : list of F str
    lag : int ndarray of shape (n, k)
        Bars before the row.
    column : int ndarray of shape (n, k)
        Number of the name.
    part : float64 ndarray of shape (n, k)
        0 where there are fewer than k.
    """

    names: list[str]
    lag: np.ndarray
    column: np.ndarray
    part: np.ndarray

    @classmethod
    def table(cls, found: Sequence[tuple[np.ndarray, Self]], rows: pd.MultiIndex) -> pd.DataFrame:
        """One row per part that is not 0, in the order of `rows`: see `Explanation.lags`.

        Parameters
        ----------
        found : sequence of (int ndarray of shape (n,), TopLags)
            Row numbers, and what was found there.
        rows : MultiIndex of N rows
        """
        names = sorted({name for _, part in found for name in part.names})
        number = {name: i for i, name in enumerate(names)}
        lag, code, value, place = [], [], [], []
        for at, part in found:
            told = np.isfinite(part.part) & (part.part != 0)
            lag.append(part.lag[told])
            code.append(np.array([number[name] for name in part.names])[part.column[told]])
            value.append(part.part[told])
            place.append(np.repeat(at, told.sum(axis=1)))
        at = np.concatenate(place)
        order = np.argsort(at, kind="stable")
        codes = np.concatenate(code)[order].astype("int32")
        columns = {
            "lag": np.concatenate(lag)[order].astype("int16"),
            "feature": pd.Categorical.from_codes(codes, named_index(tuple(names))),
            "contribution": np.concatenate(value)[order],
        }
        return pd.DataFrame(columns, rows[at[order]])


def top_lags(
    chained: Chained, names: list[str], raw: np.ndarray, closed: np.ndarray, top: int
) -> TopLags:
    """Find the largest parts; what no net adds belongs to the row's own bar.

    Parameters
    ----------
    chained : Chained
    names : list of F str
        Its columns in the order of the next two.
    raw, closed : float64 ndarray of shape (n, F)
        Contributions before and after closure, which stretches the lags of a column alike.
    top : int
        k; at most L * F are found.
    """
    length = chained.lags.shape[1]
    parts = np.zeros((len(raw), length, len(names)))
    parts[:, 0] = raw
    if chained.read:
        columns = [names.index(name) for name in chained.read]
        parts[:, :, columns] += chained.lags[:, ::-1]
        parts[:, 0, columns] -= chained.lags.sum(axis=1)
    stretched = np.divide(closed, raw, out=np.ones_like(raw), where=raw != 0)
    flat = (parts * stretched[:, None]).reshape(len(raw), -1)
    k = min(top, flat.shape[1])
    size = -np.abs(flat)
    found = np.argpartition(size, k - 1, axis=1)[:, :k] if k else np.zeros((len(raw), 0), int)
    found = np.sort(found, axis=1)
    order = np.argsort(np.take_along_axis(size, found, axis=1), axis=1, kind="stable")
    found = np.take_along_axis(found, order, axis=1)
    lag, column = np.divmod(found, len(names))
    return TopLags(names, lag, column, np.take_along_axis(flat, found, axis=1))
