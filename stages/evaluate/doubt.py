"""Whether the model doubts more where it has seen less."""

import pandas as pd

TENTHS = 10


def doubt(rows: pd.DataFrame, bins: int = TENTHS) -> pd.DataFrame:
    """Epistemic uncertainty by novelty, in groups of equal size.

    Parameters
    ----------
    rows : DataFrame
        `novelty` (1: as far as training rows lie) and `epistemic` (nats); rows that lack either
        are left out.
    bins : int, default=10

    Returns
    -------
    DataFrame of shape (<= bins, 5)
        Medians `novelty` and `epistemic`, the quartiles `low` and `high` of the latter, `rows`.
    """
    known = rows[["novelty", "epistemic"]].dropna()
    rank = known["novelty"].rank(method="first").to_numpy() - 1
    group = known.groupby((rank * bins // max(len(known), 1)).astype(int))
    return group.median().assign(
        low=group["epistemic"].quantile(0.25),
        high=group["epistemic"].quantile(0.75),
        rows=group.size(),
    )
