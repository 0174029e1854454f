import pandas as pd
import pytest

from pipeline.data.sources import frame
from pipeline.data.times import Clock
from stages.base import ConfigError, DataError


def bars(times, **keys):
    table = pd.DataFrame({"asset": "A", "time": times})
    return frame(table.assign(close=10.0), **keys)


def known(source) -> list[str]:
    return source.bars.index.get_level_values("time").strftime("%Y-%m-%d %H:%M").tolist()


def test_naive_times_are_refused_unless_a_zone_is_given():
    times = ["2020-07-01 09:30", "2020-07-01 09:31"]
    with pytest.raises(DataError, match="no zone") as fault:
        bars(times)
    assert fault.value.code == "SV-F07"
    source = bars(times, timezone="America/New_York")
    assert known(source) == ["2020-07-01 13:30", "2020-07-01 13:31"]
    assert source.bars["session"].unique() == [pd.Timestamp("2020-07-01")]


def test_the_session_is_the_date_where_the_exchange_is():
    source = bars(["2020-07-01 20:00", "2020-07-01 20:01"], timezone="America/New_York")
    assert known(source)[0] == "2020-07-02 00:00"
    assert (source.bars["session"] == pd.Timestamp("2020-07-01")).all()


def test_a_stamp_may_be_known_later_than_it_says():
    source = bars(pd.to_datetime(["2020-07-01 13:30"], utc=True), delay="1min")
    assert known(source) == ["2020-07-01 13:31"]


@pytest.mark.parametrize(
    ("zone", "lost", "twice"),
    [
        ("America/New_York", "2026-03-08 02:30", "2026-11-01 01:30"),
        ("Europe/London", "2026-03-29 01:30", "2026-10-25 01:30"),
        ("Europe/Berlin", "2026-03-29 02:30", "2026-10-25 02:30"),
        ("Australia/Sydney", "2026-10-04 02:30", "2026-04-05 02:30"),
        ("America/Sao_Paulo", "2018-11-04 00:30", "2018-02-17 23:30"),
    ],
)
def test_local_times_that_do_not_exist_or_exist_twice_are_refused(zone, lost, twice):
    for time in (lost, twice):
        with pytest.raises(DataError, match="ambiguous or does not exist") as fault:
            bars(["2018-01-05 10:00", time], timezone=zone)
        assert fault.value.code == "SV-F07"
        assert f"frame row 2, A at {time}" in fault.value.where
        source = bars(
            ["2018-01-05 10:00", time], timezone=zone, on_bad="quarantine", max_refused_share=0.5
        )
        assert len(source.bars) == 1


def test_days_of_23_and_25_hours_keep_their_bars_apart():
    for day, hours in (("2026-03-08", 23), ("2026-11-01", 25)):
        times = pd.date_range(day, periods=hours, freq="h", tz="America/New_York")
        source = bars(times, timezone="America/New_York")
        assert len(source.bars) == hours
        assert (source.bars["session"] == pd.Timestamp(day)).all()


def test_text_with_offsets_needs_no_zone():
    texts = ["2020-01-02 10:00:00-05:00", "2020-07-02 10:00:00-04:00"]
    assert known(bars(texts)) == ["2020-01-02 15:00", "2020-07-02 14:00"]
    with pytest.raises(DataError) as fault:
        bars([*texts, "2020-07-02 10:00:00"])
    assert fault.value.code == "SV-F07"


@pytest.mark.parametrize(
    ("unit", "factor"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)]
)
def test_numbers_are_times_only_in_a_named_unit(unit, factor):
    stamps = [s * factor for s in (1_593_610_200, 1_593_610_260)]
    with pytest.raises(DataError, match="which unit") as fault:
        bars(stamps)
    assert fault.value.code == "SV-F08"
    assert known(bars(stamps, time_format=unit)) == ["2020-07-01 13:30", "2020-07-01 13:31"]
    texts = list(map(str, stamps))
    assert known(bars(texts, time_format=unit)) == known(bars(stamps, time_format=unit))


def test_mixed_units_are_refused_by_the_row_that_stands_out():
    stamps = [1_593_610_200_000 + 60_000 * n for n in range(20)]
    stamps[7] //= 1000
    with pytest.raises(DataError, match="time = 1593610620") as fault:
        bars(stamps, time_format="ms")
    assert fault.value.code == "SV-F08"
    assert "row 8" in fault.value.where


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_the_resolution_of_the_column_does_not_matter(unit):
    times = pd.date_range("2020-07-01 13:30", periods=3, freq="min", tz="UTC").as_unit(unit)
    source = bars(times)
    assert known(source) == ["2020-07-01 13:30", "2020-07-01 13:31", "2020-07-01 13:32"]
    assert str(source.bars.index.dtypes["time"]) == "datetime64[us, UTC]"


@pytest.mark.parametrize(
    ("texts", "form"),
    [
        (["02-07-2020"], "%d-%m-%Y"),
        (["20200702"], None),
        (["20200702"], "%Y%m%d"),
        ([20200702], "%Y%m%d"),
    ],
)
def test_dates_are_read_in_the_declared_format(texts, form):
    assert known(bars(texts, time_format=form, calendar="XNYS")) == ["2020-07-02 20:00"]


def test_dates_as_objects_are_dates():
    day = [pd.Timestamp("2020-07-02").date()]
    assert known(bars(pd.Series(day, dtype=object), calendar="XNYS")) == ["2020-07-02 20:00"]


def test_aware_midnights_are_dates_where_they_were_written():
    midnight = pd.to_datetime(["2020-07-02"]).tz_localize("America/New_York")
    assert known(bars(midnight, calendar="XNYS")) == ["2020-07-02 20:00"]


def test_text_that_is_no_time_is_refused():
    with pytest.raises(DataError, match="time = soon") as fault:
        bars(["2020-07-02 10:00Z", "soon"])
    assert fault.value.code == "SV-F08"
    with pytest.raises(DataError, match="cannot be read"):
        bars(["2020-07-02 10:00Z"], time_format="%Y %Q")
    with pytest.raises(DataError, match="cannot be read"):
        bars(["soon"], calendar="XNYS")


def test_minutes_outside_of_trading_hours_are_refused():
    times = pd.to_datetime(["2020-11-27 17:59", "2020-11-27 18:01"], utc=True)  # early close
    with pytest.raises(DataError, match="outside of the exchange") as fault:
        bars(times, calendar="XNYS")
    assert fault.value.code == "SV-F05"
    assert "18:01" in fault.value.where


def test_a_date_past_the_calendar_is_told_apart_from_a_holiday():
    with pytest.raises(DataError, match="does not reach") as fault:
        bars(["2026-12-30", "2027-03-01"], calendar="XSHG")
    assert fault.value.code == "SV-F06"


def test_settings_are_checked():
    with pytest.raises(ValueError, match="delay"):
        Clock(delay="-1min")
    with pytest.raises(ConfigError, match="not a time zone") as fault:
        bars(["2020-07-01 09:30", "2020-07-01 09:31"], timezone="America/New_Yrok")
    assert "America/New_York" in fault.value.cure
