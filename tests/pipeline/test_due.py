"""When scheduled runs are due: half days, changes of the clock, holidays, intervals, restarts."""

from itertools import pairwise

import pandas as pd
import pytest

from pipeline.due import Closes, Every
from stages.base import ConfigError


def utc(text):
    return pd.Timestamp(text, tz="UTC")


def run_through(times, first, last):
    """What a clock that moves from `first` to `last` finds due."""
    now, out = times.next(utc(first)), []
    while now <= utc(last):
        out.append(f"{now:%m-%d %H:%M}")
        now = times.next(now)
    return out


NEW_YORK = Closes(["XNYS"], "15min")


@pytest.mark.parametrize(
    ("first", "last", "due"),
    [
        # clocks go forward on 2024-03-10, and back on 2024-11-03
        ("2024-03-08", "2024-03-12", ["03-08 21:15", "03-11 20:15"]),
        ("2024-11-01", "2024-11-05", ["11-01 20:15", "11-04 21:15"]),
        # half days: before Independence Day, after Thanksgiving, Christmas Eve
        ("2024-07-02", "2024-07-06", ["07-02 20:15", "07-03 17:15", "07-05 20:15"]),
        ("2024-11-27", "2024-12-03", ["11-27 21:15", "11-29 18:15", "12-02 21:15"]),
        ("2024-12-23", "2024-12-27", ["12-23 21:15", "12-24 18:15", "12-26 21:15"]),
        # four days without a session
        ("2001-09-10", "2001-09-18", ["09-10 20:15", "09-17 20:15"]),
    ],
)
def test_runs_follow_each_close_on_half_days_and_over_changes_of_the_clock(first, last, due):
    assert run_through(NEW_YORK, first, last) == due


def test_two_exchanges_change_their_clocks_on_different_days():
    both = Closes(["XNYS", "XLON"], "0min")
    weeks = run_through(both, "2024-03-08 12:00", "2024-04-02 12:00")
    assert weeks[:4] == ["03-08 16:30", "03-08 21:00", "03-11 16:30", "03-11 20:00"]
    assert weeks[-1] == "04-01 20:00"
    assert "04-01 15:30" not in weeks  # Easter Monday in London
    assert run_through(both, "2024-04-02", "2024-04-03")[0] == "04-02 15:30"


def test_a_year_has_as_many_runs_as_sessions_and_they_rise():
    found = []
    now = utc("2023-12-31")
    while (now := NEW_YORK.next(now)) < utc("2025-01-01"):
        found.append(now)
    assert len(found) == 252
    assert all(a < b for a, b in pairwise(found))
    assert all(
        NEW_YORK.last(due) == due == NEW_YORK.next(due - pd.Timedelta("1us")) for due in found
    )


def test_the_last_time_is_the_newest_that_has_come():
    assert NEW_YORK.last(utc("2024-07-03 17:14:59")) == utc("2024-07-02 20:15")
    assert NEW_YORK.last(utc("2024-07-03 17:15")) == utc("2024-07-03 17:15")
    long = Closes(["XNYS"], "3D")
    assert long.last(utc("2024-07-08 20:00")) == utc("2024-07-08 20:00")


def test_a_market_that_never_closes_is_due_at_the_end_of_each_day():
    assert run_through(Closes(["24/7"], "1min"), "2024-03-09 12:00", "2024-03-11 12:00") == [
        "03-10 00:01",
        "03-11 00:01",
    ]


def test_an_interval_does_not_shift_with_the_start():
    minute = Every("60s")
    assert minute.last(utc("2024-03-10 07:00:59.5")) == utc("2024-03-10 07:00")
    assert minute.next(utc("2024-03-10 07:00:00")) == utc("2024-03-10 07:01")


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: Every("soon"), "SV-F33"),
        (lambda: Every("0s"), "SV-F33"),
        (lambda: Closes(["XNYS"], "-1min"), "SV-F33"),
        (lambda: Closes([], "1min"), "SV-F33"),
        (lambda: Closes(["XNYZ"]).next(utc("2024-01-01")), "SV-F06"),
    ],
)
def test_what_is_no_time_is_refused(make, code):
    with pytest.raises(ConfigError) as refused:
        make()
    assert refused.value.code == code
    assert refused.value.cure
