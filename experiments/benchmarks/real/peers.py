"""What the pipeline is held against: a LightGBM by Qlib's published settings, and reversal."""

import lightgbm
import numpy as np
import pandas as pd

from stages.filter.regression import standing
from stages.panel import age

# workflow_config_lightgbm_Alpha158.yaml of microsoft/qlib; learning_rate has since become 0.2
QLIB = {
    "objective": "regression",
    "learning_rate": 0.0421,
    "num_leaves": 210,
    "max_depth": 8,
    "lambda_l1": 205.6999,
    "lambda_l2": 580.9768,
    "colsample_bytree": 0.8879,
    "subsample": 0.8789,
}
ROUNDS, PATIENCE = 1000, 50  # LGBModel of qlib/contrib/model/gbdt.py
WARM = 60  # bars of Alpha158's longest window


def qlib_lightgbm(
    panel: pd.DataFrame,
    columns: list[str],
    y: pd.DataFrame,
    parts: dict[str, np.ndarray],
    seed: int,
) -> tuple[pd.Series, int]:
    """Score of every row of the parts ``valid`` and ``test``, and the trees that were kept.

    Trained on the part ``train``, stopped on ``valid``, on the next day's return standardised
    within its day, from all rows whose windows are full.

    Parameters
    ----------
    panel : DataFrame of shape (N, F)
    columns : list of str
        Its Alpha158.
    y : DataFrame of shape (n, >= 4)
        With `ret`.
    parts : mapping of str to int ndarray
        Row numbers of `y`.
    seed : int
    """
    warm = panel.index[age(panel) >= WARM]
    rows = {name: y.iloc[at][y.index[at].isin(warm)] for name, at in parts.items()}
    at = {name: panel.index.get_indexer(part.index) for name, part in rows.items()}
    table = panel[columns]
    X = {name: table.iloc[numbers].to_numpy("float32") for name, numbers in at.items()}
    fixed = {"num_threads": 1, "verbosity": -1, "seed": seed, "deterministic": True}
    train = lightgbm.Dataset(X.pop("train"), standing(rows["train"]))
    valid = lightgbm.Dataset(X["valid"], standing(rows["valid"]), reference=train)
    booster = lightgbm.train(
        QLIB | fixed | {"force_row_wise": True},
        train,
        ROUNDS,
        valid_sets=[valid],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )
    scores = [
        pd.Series(np.asarray(booster.predict(x, num_threads=1)), rows[name].index)
        for name, x in X.items()
    ]
    return pd.concat(scores), booster.best_iteration


def reversal(bars: pd.DataFrame, days: int = 5) -> pd.Series:
    """Last week's losers over its winners: less the return of the last `days` bars."""
    close = bars["close"]
    return -(close / close.groupby(level="asset", sort=False).shift(days) - 1)
