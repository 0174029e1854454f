import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.calendar import session_close, session_of, sessions, sessions_after
from stages.base import ConfigError, DataError


def utc(*texts: str) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(pd.to_datetime(list(texts), utc=True, format="ISO8601"))


def dates(*texts: str) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(list(texts))


def test_closes_follow_daylight_saving_and_early_closes():
    close = session_close(dates("2020-03-06", "2020-03-09", "2020-11-27", "2020-03-06"), "XNYS")
    expected = utc("2020-03-06 21:00", "2020-03-09 20:00", "2020-11-27 18:00", "2020-03-06 21:00")
    assert close.equals(expected)
    assert str(close.dtype) == "datetime64[us, UTC]"


def test_a_holiday_has_no_close():
    assert session_close(dates("2020-12-25", "2020-12-26"), "XNYS").isna().all()


def test_where_trading_never_stops_the_day_ends_at_midnight():
    assert session_close(dates("2020-12-25"), "24/7").equals(utc("2020-12-26 00:00"))


@pytest.mark.parametrize(
    ("time", "session"),
    [
        ("2020-03-06 14:30", "2020-03-06"),  # opening instant
        ("2020-03-06 21:00", "2020-03-06"),  # closing instant
        ("2020-03-06 21:01", None),
        ("2020-03-06 14:29", None),
        ("2020-03-07 15:00", None),  # Saturday
        ("2020-11-27 18:01", None),  # after an early close
    ],
)
def test_a_time_belongs_to_the_session_it_falls_in(time, session):
    (found,) = session_of(utc(time), "XNYS")
    assert found is pd.NaT if session is None else found == pd.Timestamp(session)


def test_a_session_may_open_the_evening_before():
    (found,) = session_of(utc("2020-03-08 23:30"), "CMES")  # Sunday evening in Chicago
    assert found == pd.Timestamp("2020-03-09")


def test_sessions_are_counted_over_weekends_and_holidays():
    close = session_close(dates("2020-12-23"), "XNYS")
    assert sessions_after(close, 3, "XNYS").equals(utc("2020-12-29 21:00"))
    assert sessions_after(close, 0, "XNYS").equals(close)
    # known a quarter of an hour after the close, or during the session: the same session
    for minutes in (15, -180):
        shifted = close + pd.Timedelta(minutes=minutes)
        assert sessions_after(shifted, 1, "XNYS").equals(utc("2020-12-24 18:00"))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 200), st.integers(0, 40), st.integers(0, 40))
def test_going_ahead_twice_is_going_ahead_once(start, a, b):
    close = pd.DatetimeIndex(sessions("XNYS", "2021-01-01", "2021-12-31")["close"])[[start]]
    once = sessions_after(close, a + b, "XNYS")
    assert sessions_after(sessions_after(close, a, "XNYS"), b, "XNYS").equals(once)


def test_far_ahead_costs_no_longer_table_than_it_needs():
    (end,) = sessions_after(utc("2020-01-02 21:00"), 2000, "XNYS")
    sessions_between = np.busday_count("2020-01-02", end.date())
    assert 2000 <= sessions_between <= 2100


def test_going_back_and_going_past_the_calendar_are_refused():
    with pytest.raises(ValueError, match="n >= 0"):
        sessions_after(utc("2020-01-02 21:00"), -1, "XNYS")
    with pytest.raises(DataError, match="XSHG ends on 2026") as fault:
        sessions_after(utc("2026-12-30 07:00"), 10, "XSHG")
    assert fault.value.code == "SV-F06"
    with pytest.raises(DataError, match="no session"):
        session_close(dates("1980-01-02"), "XSHG")


def test_no_times_give_no_times():
    none = pd.DatetimeIndex([], dtype="datetime64[us, UTC]")
    assert len(session_close(none.tz_localize(None), "XNYS")) == 0
    assert len(session_of(none, "XNYS")) == 0
    assert len(sessions_after(none, 1, "XNYS")) == 0


def test_an_unknown_calendar_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="XNYE") as fault:
        session_close(dates("2020-01-02"), "XNYE")
    assert fault.value.cure.startswith("did you mean")


def test_closes_agree_with_those_of_another_calendar_library():
    other = pytest.importorskip("pandas_market_calendars")
    schedule = other.get_calendar("XNYS").schedule("2019-01-01", "2021-12-31")
    ours = session_close(pd.DatetimeIndex(schedule.index), "XNYS")
    assert (ours == pd.DatetimeIndex(schedule["market_close"])).all()
