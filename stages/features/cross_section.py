"""Where an asset stands among the others of the same time."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pandas as pd

from stages.panel import warms_up

Wide = TypeVar("Wide", bound=Callable[..., np.ndarray])


def cross_section(function: Wide) -> Wide:
    """Mark a function of wide arrays, shape (T, A): one row a time, NaN where an asset is absent.

    Rows must not see each other, and the order of the assets must not matter.
    """
    function.across_assets = True  # type: ignore[attr-defined]
    return function


@cross_section
@warms_up(lambda **_: 0)
def rank(of: np.ndarray) -> np.ndarray:
    """Rank among the assets of the time, centred: in (-0.5, 0.5), shape (T, A).

    Parameters
    ----------
    of : ndarray of shape (T, A)
        What to rank; in yaml the name of a bar column or of a feature listed above. Ties share
        their mean rank. A time with fewer than two values has no ranks.
    """
    count = np.isfinite(of).sum(axis=1, keepdims=True)
    ranks = pd.DataFrame(of).rank(axis=1).to_numpy()
    return np.where(count > 1, (ranks - 0.5) / np.maximum(count, 1) - 0.5, np.nan)
