"""Which session a daily run is for: calendars, half days, bars within the day."""

import pandas as pd
import pytest

from pipeline.sessions import Session, calendars_of, decision_row, row_of, session_asked
from stages.base import DataError
from stages.portfolio.prepared import prepare
from tests.stages.portfolio.conftest import bars_of, walks

HOLIDAY, HALF_DAY = "2021-12-24", "2021-11-26"  # of the New York exchange
NEW_YORK, BOTH = {"A": "XNYS"}, {"A": "XNYS", "B": "XLON"}


def utc(text):
    return pd.Timestamp(text, tz="UTC")


@pytest.mark.parametrize(
    ("calendars", "now", "expected"),
    [
        (NEW_YORK, "2021-12-23 20:59", "2021-12-22"),
        (NEW_YORK, "2021-12-23 21:00", "2021-12-23"),
        (NEW_YORK, "2021-11-26 18:00", "2021-11-26"),  # closed early
        (BOTH, "2021-12-23 16:30", "2021-12-23"),  # London has closed, New York has not
        (BOTH, "2021-12-25 12:00", "2021-12-24"),  # half a day in London
        (BOTH, "2021-12-27 23:00", "2021-12-27"),
    ],
)
def test_the_newest_session_that_has_ended_is_decided_on(calendars, now, expected):
    found = session_asked(None, calendars, "0min", utc(now))
    assert (found.key, found.held) == (expected, True)


def test_a_session_counts_when_its_bars_are_known():
    found = session_asked(None, NEW_YORK, "2h", utc("2021-12-22 22:59"))
    assert found.key == "2021-12-21"


def test_without_a_calendar_it_is_the_day_that_the_clock_says():
    found = session_asked(None, {}, "0min", utc("2021-12-25 12:00"))
    assert (found.key, found.held) == ("2021-12-25", None)


@pytest.mark.parametrize(
    ("calendars", "day", "held"),
    [
        (NEW_YORK, HOLIDAY, False),
        (NEW_YORK, HALF_DAY, True),
        (BOTH, HOLIDAY, True),
        (BOTH, "2021-12-25", False),
        ({}, "2021-12-25", None),
    ],
)
def test_holidays_and_half_days_are_those_of_the_exchanges(calendars, day, held):
    assert session_asked(utc(day), calendars, "0min", utc(day)).held is held


def test_each_asset_has_the_calendar_that_the_data_name():
    assert calendars_of("XNYS", None, ["A", "B"]) == {"A": "XNYS", "B": "XNYS"}
    assert calendars_of(None, None, ["A"]) == {}


@pytest.fixture(scope="module")
def hourly():
    """Two bars a day, at 20:00 and 21:00."""
    late = bars_of(walks(30)[["E00", "E01"]]).reset_index()
    early = late.assign(time=late["time"] - pd.Timedelta(hours=1))
    return prepare(pd.concat([early, late]).set_index(["asset", "time"]).sort_index(), {})


def test_within_the_day_the_last_bar_known_at_the_time_counts(hourly):
    asked = session_asked(utc("2021-01-20 20:30"), NEW_YORK, "0min", utc("2021-02-01"))
    assert asked.key == "2021-01-20T203000"
    assert hourly.times[decision_row(hourly, asked, 0.5, NEW_YORK)] == utc("2021-01-20 20:00")
    whole = Session(pd.Timestamp("2021-01-20"), None)
    assert hourly.times[row_of(hourly, whole)] == utc("2021-01-20 21:00")


@pytest.mark.parametrize("time", ["2021-01-20 19:59", "2021-01-23 12:00", "2020-01-01 12:00"])
def test_bars_of_another_day_are_stale(hourly, time):
    with pytest.raises(DataError) as caught:
        decision_row(hourly, session_asked(utc(time), {}, "0min", utc(time)), 0.5, {})
    assert caught.value.code == "SV-X614"


def test_an_exchange_that_is_shut_is_not_asked_for_bars():
    table = walks(300)[["E00", "E01", "E02"]]
    holiday = table.index[table.index == "2021-12-24"]
    table.loc[holiday, ["E00", "E01"]] = float("nan")
    prepared = prepare(bars_of(table), {})
    day, calendars = Session(holiday[0], True), {"E00": "XNYS", "E01": "XNYS", "E02": "XLON"}
    assert prepared.sessions[decision_row(prepared, day, 0.9, calendars)] == holiday[0]
    with pytest.raises(DataError, match=r"only 33% of the listed assets .* not E00, E01"):
        decision_row(prepared, day, 0.9, dict.fromkeys(calendars, "XLON"))
