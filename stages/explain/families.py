"""The same reasons by kind of input: momentum, volatility, trend, rules … instead of columns."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from stages.base import Explanation

PARTS = {"feature": "columns", "rule": "rules", "context": "context"}  # of a FeatureSet


def families(columns: Iterable[str], features: Any = None) -> dict[str, str]:
    """Family of each input: the module of the function that makes it, such as ``trend``.

    Parameters
    ----------
    columns : iterable of str
        ``feature.*``, ``rule.*``, ``context.*``, or without ``feature.`` as explanations have it.
    features : FeatureSet, optional
        Whose mappings `columns`, `rules` and `context` hold the functions.

    Returns
    -------
    dict of str to str
        A rule belongs to ``rules.<module>``, a context to ``context``; a feature that no function
        makes to ``given``.
    """
    made = {part: getattr(features, name, None) for part, name in PARTS.items()}
    out = {}
    for column in columns:
        part, dot, name = column.partition(".")
        if part not in PARTS or not dot:
            part, name = "feature", column
        held = made[part]
        function = held.get(name) if isinstance(held, Mapping) else None
        module = None if function is None else _module(function)
        if part == "context":
            out[column] = "context"
        elif part == "rule":
            out[column] = "rules" if module is None else f"rules.{module}"
        else:
            out[column] = module or "given"
    return out


def by_family(explanation: Explanation, families: Mapping[str, str]) -> pd.DataFrame:
    """Contributions added up by family.

    Parameters
    ----------
    explanation : Explanation
        Of N rows.
    families : mapping of str to str
        Column to family, see `families`; a column that is not there is a family of its own.

    Returns
    -------
    DataFrame of shape (N, families)
        In order of first appearance; each row has the sum of the contributions.
    """
    table = explanation.contributions
    groups: dict[str, list[int]] = {}
    for place, column in enumerate(table.columns.tolist()):
        groups.setdefault(families.get(column, column), []).append(place)
    values = table.to_numpy()
    # column by column: a row's bits do not depend on the others
    sums = [sum(values[:, place] for place in group) for group in groups.values()]
    return pd.DataFrame(np.column_stack(sums), table.index, list(groups))


def _module(function: Any) -> str:
    declared = function.func if isinstance(function, partial) else function
    return str(declared.__module__).rpartition(".")[2]
