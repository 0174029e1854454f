"""Where a bar stands in its week, month and year.

Functions read `session_day`, the days since 1970-01-01 of the bar's exchange date: of the column
`session` where the bars have one, of the UTC time elsewhere. The year and the week are circles, so
each takes a sine and a cosine: December is as near to January as June is to July.
"""

import numpy as np

from stages.features.shared import shared
from stages.panel import warms_up

THURSDAY = 3  # 1970-01-01, with Monday 0


@warms_up(lambda **_: 0)
def week_sine(session_day: np.ndarray) -> np.ndarray:
    """Sine of the place in the week, Monday at 0: shape (T,).

    References
    ----------
    French (1980), "Stock returns and the weekend effect", J. Financial Economics 8(1).
    """
    return np.sin(2 * np.pi * _weekday(session_day) / 7)


@warms_up(lambda **_: 0)
def week_cosine(session_day: np.ndarray) -> np.ndarray:
    """Cosine of the place in the week, Monday at 1: shape (T,)."""
    return np.cos(2 * np.pi * _weekday(session_day) / 7)


@warms_up(lambda **_: 0)
def year_sine(session_day: np.ndarray) -> np.ndarray:
    """Sine of the place in the year, 1 January at 0: shape (T,).

    References
    ----------
    Rozeff & Kinney (1976), "Capital market seasonality: The case of stock returns", J. Financial
    Economics 3(4).
    """
    return np.sin(2 * np.pi * _place(session_day, "Y"))


@warms_up(lambda **_: 0)
def year_cosine(session_day: np.ndarray) -> np.ndarray:
    """Cosine of the place in the year, 1 January at 1: shape (T,)."""
    return np.cos(2 * np.pi * _place(session_day, "Y"))


@warms_up(lambda **_: 0)
def month_place(session_day: np.ndarray) -> np.ndarray:
    """Share of the month that has passed before the day: [0, 1), shape (T,)."""
    return _place(session_day, "M")


@warms_up(lambda **_: 0)
def month_turn(session_day: np.ndarray, before: int = 2, after: int = 4) -> np.ndarray:
    """1 within the last `before` or the first `after` calendar days of a month, else 0: (T,).

    References
    ----------
    Lakonishok & Smidt (1988), "Are Seasonal Anomalies Real? A Ninety-Year Perspective", Review of
    Financial Studies 1(4). The paper counts trading days; calendar days need no calendar of the
    exchange, and so no knowledge of its future.
    """
    day, start, stop = _within(session_day, "M")
    near = (day - start < after) | (stop - day <= before)
    return np.where(np.isfinite(session_day), near.astype("float64"), np.nan)


def _weekday(session_day: np.ndarray) -> np.ndarray:
    return (session_day + THURSDAY) % 7


@shared
def _place(session_day: np.ndarray, unit: str) -> np.ndarray:
    day, start, stop = _within(session_day, unit)
    share = (day - start) / (stop - start)
    return np.where(np.isfinite(session_day), share, np.nan)


@shared
def _within(session_day: np.ndarray, unit: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Day, first day of its month or year, and first day of the next one, as day numbers."""
    low = np.fmin.reduce(session_day, axis=None, initial=np.inf)
    low = low if np.isfinite(low) else 0
    day = np.where(np.isfinite(session_day), session_day, low).astype("int64")
    low, high = int(low), day.max(initial=int(low))
    if day.size <= high - low:
        return day, *_edges(day, unit)
    start, stop = _edges(np.arange(low, high + 1), unit)  # each date once, of many assets
    return day, start[day - low], stop[day - low]


def _edges(day: np.ndarray, unit: str) -> tuple[np.ndarray, np.ndarray]:
    first = day.astype("datetime64[D]").astype(f"datetime64[{unit}]")
    edges = (first.astype("datetime64[D]"), (first + 1).astype("datetime64[D]"))
    start, stop = (edge.astype("int64") for edge in edges)
    return start, stop
