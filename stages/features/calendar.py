"""Where a bar stands in its week, month and year.

Functions read `session_day`, the days since 1970-01-01 of the bar's exchange date: of the column
`session` where the bars have one, of the UTC time elsewhere. The year and the week are circles, so
each takes a sine and a cosine: December is as near to January as June is to July.
"""

import numpy as np
from numba import njit

from stages.features.kernels import checked
from stages.features.shared import shared
from stages.panel import warms_up

THURSDAY = 3  # 1970-01-01, with Monday 0
MONTH, YEAR = 1, 12  # in months


@warms_up(lambda **_: 0)
def week_sine(session_day: np.ndarray) -> np.ndarray:
    """Sine of the place in the week, Monday at 0: shape (T,).

    References
    ----------
    French (1980), "Stock returns and the weekend effect", J. Financial Economics 8(1).
    """
    return np.sin(_week_angle(session_day))


@warms_up(lambda **_: 0)
def week_cosine(session_day: np.ndarray) -> np.ndarray:
    """Cosine of the place in the week, Monday at 1: shape (T,)."""
    return np.cos(_week_angle(session_day))


@warms_up(lambda **_: 0)
def year_sine(session_day: np.ndarray) -> np.ndarray:
    """Sine of the place in the year, 1 January at 0: shape (T,).

    References
    ----------
    Rozeff & Kinney (1976), "Capital market seasonality: The case of stock returns", J. Financial
    Economics 3(4).
    """
    return np.sin(_year_angle(session_day))


@warms_up(lambda **_: 0)
def year_cosine(session_day: np.ndarray) -> np.ndarray:
    """Cosine of the place in the year, 1 January at 1: shape (T,)."""
    return np.cos(_year_angle(session_day))


@warms_up(lambda **_: 0)
def month_place(session_day: np.ndarray) -> np.ndarray:
    """Share of the month that has passed before the day: [0, 1), shape (T,)."""
    past, length = _within(session_day, MONTH)
    return past / length


@warms_up(lambda **_: 0)
def month_turn(session_day: np.ndarray, before: int = 2, after: int = 4) -> np.ndarray:
    """1 within the last `before` or the first `after` calendar days of a month, else 0: (T,).

    References
    ----------
    Lakonishok & Smidt (1988), "Are Seasonal Anomalies Real? A Ninety-Year Perspective", Review of
    Financial Studies 1(4). The paper counts trading days; calendar days need no calendar of the
    exchange, and so no knowledge of its future.
    """
    past, length = _within(session_day, MONTH)
    near = (past < after) | (length - past <= before)
    return np.where(np.isnan(past), np.nan, near)


@shared
def _week_angle(session_day: np.ndarray) -> np.ndarray:
    return 2 * np.pi * ((session_day + THURSDAY) % 7) / 7


@shared
def _year_angle(session_day: np.ndarray) -> np.ndarray:
    past, length = _within(session_day, YEAR)
    return 2 * np.pi * (past / length)


@shared
def _within(session_day: np.ndarray, months: int) -> tuple[np.ndarray, np.ndarray]:
    """Days of its month or year before the day, and all of them; NaN for a day unknown."""
    day = checked(session_day, 1)
    past, length = _periods(day.reshape(-1), months)
    return past.reshape(day.shape), length.reshape(day.shape)


@njit(cache=True, nogil=True)
def _periods(day: np.ndarray, months: int) -> tuple[np.ndarray, np.ndarray]:
    past, length = np.full(len(day), np.nan), np.full(len(day), np.nan)
    start = stop = 0
    for i in range(len(day)):
        if not np.isfinite(day[i]):
            continue
        now = int(day[i])
        if not start <= now < stop:  # days come in order: mostly it is the period before
            first = _month(now)
            first -= first % months
            start, stop = _first_day(first), _first_day(first + months)
        past[i], length[i] = now - start, stop - start
    return past, length


# Hinnant (2021), "chrono-Compatible Low-Level Date Algorithms": years begin in March there, so that
# a leap day is the last; an era is 400 years, 146,097 days


@njit(cache=True, nogil=True)
def _month(day: int) -> int:
    """Months since the year 0 of a day since 1970-01-01."""
    day += 719_468
    era, day = day // 146_097, day % 146_097
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    return 12 * (400 * era + year) + 2 + (5 * day + 2) // 153


@njit(cache=True, nogil=True)
def _first_day(month: int) -> int:
    """Days since 1970-01-01 of the first of a month, in months since the year 0."""
    year, march = (month - 2) // 12, (month - 2) % 12
    era, year = year // 400, year % 400
    day = (153 * march + 2) // 5 + 365 * year + year // 4 - year // 100
    return 146_097 * era + day - 719_468
