"""How many trees a booster should grow: as many as still helped on bars it had not seen."""

from typing import Any

import lightgbm
import numpy as np
import xgboost
from sklearn.base import clone

BOOSTERS = (lightgbm.LGBMClassifier, xgboost.XGBClassifier)


def with_rounds(
    estimator: Any,
    X: np.ndarray,
    classes: np.ndarray,
    weight: np.ndarray,
    parts: tuple[np.ndarray, np.ndarray],
    patience: int,
) -> Any:
    """Copy of a classifier that boosts, set to the rounds after which the later rows gained most.

    Rounds are a setting like any other: chosen with a copy that has never seen the later rows,
    then used to learn from all. Other estimators are given back as they are.

    Parameters
    ----------
    estimator : estimator of a library in `stages.filter.members.KINDS`
        Its `n_estimators` is the most.
    X : float32 ndarray of shape (n, F)
    classes : int ndarray of shape (n,)
    weight : float64 ndarray of shape (n,)
    parts : int ndarrays of shape (a,), (b,)
        Row numbers of the earlier and of the later rows, see `stages.folds.cut_tail`.
    patience : int
        Rounds without gain on the later rows after which it looks no further.

    References
    ----------
    Zhang & Yu (2005), "Boosting with Early Stopping: Convergence and Consistency", Annals of
    Statistics 33(4).
    """
    early, late = parts
    if not isinstance(estimator, BOOSTERS) or not len(late):
        return estimator
    trial = clone(estimator)
    if isinstance(trial, lightgbm.LGBMClassifier):
        stop = lightgbm.early_stopping(patience, verbose=False)
        later = {"eval_X": X[late], "eval_y": classes[late], "callbacks": [stop]}
        later |= {"eval_sample_weight": [weight[late]]}
    else:
        trial.set_params(early_stopping_rounds=patience)
        later = {"eval_set": [(X[late], classes[late])], "verbose": False}
        later |= {"sample_weight_eval_set": [weight[late]]}
    trial.fit(X[early], classes[early], sample_weight=weight[early], **later)
    # the two libraries count from 1 and from 0
    rounds = getattr(trial, "best_iteration_", None) or trial.best_iteration + 1
    return clone(estimator).set_params(n_estimators=int(rounds))
