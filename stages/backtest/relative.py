"""Returns beside those of a benchmark on the same periods."""

import numpy as np
import pandas as pd

from stages.base import DataError

NONE = float("nan")


def measure_against(
    returns: pd.Series, benchmark: pd.Series, per_year: float, rate: np.ndarray | float = 0.0
) -> dict[str, float]:
    """What a series of returns is beside a benchmark.

    Parameters
    ----------
    returns, benchmark : Series of T floats
        Simple, of the same periods.
    per_year : float > 0
    rate : float or ndarray of shape (T,), default=0
        Riskless return of a period.

    Returns
    -------
    dict of str to float
        `alpha` (annual, arithmetic: mean of the periods above ``rate + beta * (benchmark -
        rate)``), `beta`, `correlation`, `active_return` (annual, arithmetic), `active_geometric`
        (difference of the compound growths of a year), `tracking_error` (annual deviation of the
        difference) and `information_ratio` (annual).

    Raises
    ------
    DataError
        SV-F20 if the two stand at different times.
    """
    if not returns.index.equals(benchmark.index):
        raise DataError(
            f"{len(returns)} returns and {len(benchmark)} of the benchmark are not of one time",
            code="SV-F20",
            why="a shift of one period makes a benchmark look unrelated",
            cure="take both on the same times",
        )
    x, b = returns.to_numpy("float64") - rate, benchmark.to_numpy("float64") - rate
    if len(x) < 2:
        names = ("alpha", "beta", "correlation", "active_return", "active_geometric")
        return dict.fromkeys((*names, "tracking_error", "information_ratio"), NONE)
    spread = np.var(b, ddof=1)
    beta = float(np.cov(x, b, ddof=1)[0, 1] / spread) if spread > 0 else NONE
    active = x - b
    error = float(active.std(ddof=1) * np.sqrt(per_year))
    grown = [float(np.prod(1 + r.to_numpy())) ** (per_year / len(x)) for r in (returns, benchmark)]
    moved = spread > 0 and np.var(x) > 0
    return {
        "alpha": float((x - beta * b).mean() * per_year),
        "beta": beta,
        "correlation": float(np.corrcoef(x, b)[0, 1]) if moved else NONE,
        "active_return": float(active.mean() * per_year),
        "active_geometric": grown[0] - grown[1],
        "tracking_error": error,
        "information_ratio": float(active.mean() * per_year / error) if error > 0 else NONE,
    }
