"""How the members of the filter read a panel: by column name, as float32, never infinite."""

import numpy as np
import pandas as pd

from stages.base import DataError
from stages.panel import check_panel
from stages.signal import SIDES


def matrix(
    panel: pd.DataFrame, columns: list[str], rows: pd.Index | np.ndarray | None = None
) -> np.ndarray:
    """Values of `columns` at `rows` as a row-major float32 array of shape (n, F).

    Parameters
    ----------
    panel : DataFrame of shape (N, F)
    columns : list of str
        Read by name, in this order.
    rows : MultiIndex, or bool ndarray of shape (N,), optional
        All rows if left out.

    Raises
    ------
    PanelError
        If the panel breaks its contract or lacks a column (SV-F20).
    DataError
        If one of `rows` is not in the panel, or a value is infinite (SV-F12).
    """
    check_panel(panel, columns)
    if isinstance(rows, pd.Index):
        numbers = panel.index.get_indexer(rows)
        if (numbers < 0).any():
            raise DataError(
                f"{rows[int((numbers < 0).argmax())]} is not a row of the panel",
                code="SV-F20",
                where=f"{(numbers < 0).sum()} of {len(rows)} rows",
                cure="take the rows from the panel's own index",
            )
        panel = panel.iloc[numbers]
    elif rows is not None:
        panel = panel[rows]
    X = np.ascontiguousarray(panel[columns].to_numpy(dtype="float32"))
    infinite = np.isinf(X)
    if infinite.any():
        row, column = np.argwhere(infinite)[0]
        raise DataError(
            f"{columns[column]} of {panel.index[row]} is {X[row, column]}",
            code="SV-F12",
            where=f"{infinite.sum()} values",
            why="tree libraries disagree on infinite values",
            cure="make the feature finite, or NaN where it has no value",
        )
    return X


def refuse_absent_sides(y: pd.DataFrame) -> None:
    """Name the sides that `y` has no row of; a classifier of two sides has no place for them.

    Raises
    ------
    DataError
    """
    absent = [name for side, name in SIDES.items() if not (y["side"] == side).any()]
    if absent:
        raise DataError(
            f"no training label is {' or '.join(absent)}",
            code="SV-F44",
            where=f"{len(y)} labels: {y['side'].value_counts().sort_index().to_dict()}",
            why="log-odds against hold need all three sides",
            cure="train on a longer period, or change the width of the labels",
        )
