"""Longer bars: where they begin and end, when they are known, and what features make of them."""

from functools import partial

import exchange_calendars
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from pandas.testing import assert_frame_equal

from pipeline.data.calendar import sessions
from pipeline.data.frames import sessions_of
from pipeline.recipe import instantiate
from stages.audit.futures import FUTURES
from stages.features import timeframes
from stages.features.build import FeatureSet
from stages.features.functions import reads
from stages.features.returns import log_return
from stages.features.rows import Rows
from stages.features.stream import FeatureStream
from stages.features.timeframes import on_closes, on_ranges, resampled, spans
from stages.features.volatility import realised_volatility
from stages.panel import until, warmup
from tests.conftest import composed
from tests.stages.features import contract

ZERO = pd.Timedelta(0)
STEPS = {"m5": "5min", "m15": "15min", "h1": "1h", "d1": None}
# a clock change in spring and one in autumn, and half days of New York and London
WEEKS = {
    "XNYS": [
        ("2024-03-07", "2024-03-12"),
        ("2024-10-31", "2024-11-05"),
        ("2024-11-27", "2024-12-02"),
    ],
    "XLON": [
        ("2024-03-27", "2024-04-03"),
        ("2024-10-24", "2024-10-30"),
        ("2024-12-23", "2024-12-27"),
    ],
    "24/7": [("2024-03-09", "2024-03-11"), ("2024-11-02", "2024-11-04")],
    "CMES": [("2024-03-08", "2024-03-12"), ("2024-11-01", "2024-11-05")],
    "XHKG": [("2024-03-27", "2024-04-03")],
}


def step_of(text):
    return None if text is None else pd.Timedelta(text)


def stamp(seconds):
    return pd.to_datetime(seconds * 1e6, unit="us", utc=True)


def grid(first, last, every="1min"):
    return pd.date_range(first, last, freq=every, tz="UTC").as_unit("us")


# where a longer bar ends


@pytest.mark.parametrize("calendar", WEEKS)
@pytest.mark.parametrize("frame", ["m5", "m15", "h1"])
def test_bars_are_those_of_the_exchange_on_half_days_and_when_clocks_change(calendar, frame):
    for first, last in WEEKS[calendar]:
        exchange = exchange_calendars.get_calendar(calendar, start="2023-01-01", end="2025-12-31")
        if exchange.has_break:  # bars run through a lunch break here
            exchange = without_break(exchange)
        days = exchange.sessions_in_range(first, last)
        table = sessions(calendar, first, last)
        for day in days:
            opens, closes = exchange.session_open(day), exchange.session_close(day)
            times = pd.date_range(opens + pd.Timedelta("1min"), closes, freq="1min").as_unit("us")
            bar, _ = spans(times, table, step_of(STEPS[frame]))
            index = pd.DatetimeIndex(
                exchange.trading_index(
                    day, day, STEPS[frame], intervals=True, force_close=True
                ).right
            )
            want = index[np.searchsorted(index.as_unit("us").asi8, times.asi8)]
            assert_array_equal(stamp(bar).asi8, want.as_unit("us").asi8)


def without_break(exchange):
    class Through(type(exchange)):
        regular_early_close_times = ()
        break_start_times = break_end_times = None

    return Through(start="2023-01-01", end="2025-12-31")


@pytest.mark.parametrize("calendar", WEEKS)
@pytest.mark.parametrize("frame", STEPS)
@pytest.mark.parametrize("delay", ["0min", "90s", "2h"])
def test_the_newest_bar_known_is_the_last_that_had_closed_a_delay_before(calendar, frame, delay):
    first, last = WEEKS[calendar][-1]
    table, times = sessions(calendar, first, last), grid(first, last, "17min")
    _, closed = spans(times, table, step_of(STEPS[frame]), pd.Timedelta(delay))
    step, ends = step_of(STEPS[frame]), []
    near = table[(table["close"] > times[0] - pd.Timedelta("9D")) & (table["open"] <= times[-1])]
    for row in near.itertuples():
        edges = [row.close]
        while (
            step is not None
            and row.open + step < row.close
            and step * len(edges) < row.close - row.open
        ):
            edges.append(row.open + step * len(edges))
        ends += edges
    ends = pd.DatetimeIndex(sorted(ends)).as_unit("us").asi8
    at = np.searchsorted(ends, (times - pd.Timedelta(delay)).asi8, side="right") - 1
    assert_array_equal((closed * 1e6).round(), ends[at])


def test_a_half_day_and_a_week_without_daylight_saving_by_hand():
    table = sessions("XNYS", "2024-11-01", "2024-12-02")
    times = pd.DatetimeIndex(
        ["2024-11-29 17:45", "2024-11-29 18:00", "2024-11-29 18:01", "2024-12-02 14:31"], tz="UTC"
    )
    bar, closed = spans(times, table, None)
    half = pd.Timestamp("2024-11-29 18:00", tz="UTC")  # 13:00 in New York
    assert stamp(bar[:2]).tolist() == [half, half]
    assert np.isnan(bar[2])
    assert stamp(closed).tolist() == [pd.Timestamp("2024-11-27 21:00", tz="UTC"), *[half] * 3]
    hour, _ = spans(times[:1], table, pd.Timedelta("1h"))
    assert stamp(hour)[0] == half  # 12:30 to 13:00: the last bar of a day is short
    opens = [sessions("XNYS", d, d).loc[d, "open"].hour for d in ("2024-03-08", "2024-03-11")]
    assert opens == [14, 13]


def test_the_day_of_currencies_ends_at_five_in_new_york_in_summer_and_in_winter():
    friday, sunday = (
        pd.Timestamp("2024-03-08 22:00", tz="UTC"),
        pd.Timestamp("2024-03-10 21:01", tz="UTC"),
    )
    times = pd.DatetimeIndex(
        [
            friday,
            friday + pd.Timedelta("1min"),
            sunday,
            "2024-03-11 21:00+00:00",
            "2024-11-04 22:00+00:00",
        ]
    ).as_unit("us")
    table = sessions_of("FX", times)
    bar, closed = spans(times, table, None)
    assert np.isnan(bar[1])  # nobody trades on a Saturday
    ends = stamp(bar[[0, 2, 3, 4]]).strftime("%m-%d %H").tolist()
    assert ends == ["03-08 22", "03-11 21", "03-11 21", "11-04 22"]
    assert stamp(closed[2]) == friday
    hours, _ = spans(times, table, pd.Timedelta("1h"))
    assert stamp(hours[2]) == pd.Timestamp("2024-03-10 22:00", tz="UTC")


def test_a_market_that_never_closes_has_days_of_24_hours():
    times = grid("2024-03-30", "2024-04-01", "1min")[1:]
    bar, closed = spans(times, sessions_of("24/7", times), None)
    assert pd.Series(bar).value_counts().tolist() == [1440, 1440]
    assert closed[1439] == bar[1439]
    assert closed[1438] < bar[1438]


def test_a_row_that_is_published_late_belongs_to_the_minute_it_is_about():
    times = pd.DatetimeIndex(["2024-01-02 10:00:05"], tz="UTC").as_unit("us")
    table = sessions_of("24/7", times)
    five = pd.Timedelta("5s")
    bar, closed = spans(times, table, pd.Timedelta("1h"), five, five)
    assert stamp(bar)[0] == stamp(closed)[0] == pd.Timestamp("2024-01-02 10:00", tz="UTC")
    with pytest.raises(ValueError, match="lag <= delay"):
        spans(times, table, pd.Timedelta("1h"), ZERO, five)
    with pytest.raises(ValueError, match="step > 0"):
        spans(times, table, ZERO)


# resampled


@pytest.fixture(scope="module")
def minutes():
    """Two assets of which one misses a fifth of its minutes, over a clock change."""
    times = grid("2024-03-08 00:00", "2024-03-11 12:00")[1:]
    rng = np.random.default_rng(4)
    tables = {}
    for k, name in enumerate("BA"):
        close = 100 * np.exp(rng.normal(0, 1e-3, len(times)).cumsum())
        up, down = np.exp(np.abs(rng.normal(0, 1e-3, (2, len(times)))))
        table = pd.DataFrame(
            {
                "open": close * up**0.5,
                "high": close * up,
                "low": close / down,
                "close": close,
                "volume": rng.integers(1, 100, len(times)) * 1.0,
            },
            times,
        )
        tables[name] = table[rng.random(len(times)) > 0.2 * k]
    return with_frames(pd.concat(tables, names=["asset", "time"]))


def with_frames(panel, delay="0min"):
    times = pd.DatetimeIndex(panel.index.get_level_values("time"))
    table = sessions_of("24/7", times)
    for name, step in STEPS.items():
        bar, closed = spans(times, table, step_of(step), pd.Timedelta(delay))
        panel = panel.assign(**{f"bar_{name}": bar, f"closed_{name}": closed})
    return panel


@pytest.mark.parametrize("frame", STEPS)
def test_longer_bars_are_those_of_pandas(minutes, frame):
    made = resampled(minutes, f"bar_{frame}")
    how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    rule = STEPS[frame] or "1D"
    want = pd.concat(
        {
            asset: rows.droplevel("asset").resample(rule, closed="right", label="right").agg(how)
            for asset, rows in minutes.groupby(level="asset", sort=False)
        },
        names=["asset", "time"],
    ).dropna()
    assert_frame_equal(made[list(how)], want, check_freq=False)
    assert made["volume"].sum() == minutes["volume"].sum()
    assert made["rows"].sum() == len(minutes)


def test_a_missing_minute_makes_its_longer_bar_unknown_and_no_other(minutes):
    holed = minutes.copy()
    holed.iloc[700, holed.columns.get_loc("high")] = np.nan
    made, clean = resampled(holed, "bar_h1"), resampled(minutes, "bar_h1")
    assert made["high"].isna().sum() == 1
    assert made.drop(columns="high").equals(clean.drop(columns="high"))


# features of longer bars


def by_the_book(rows, frame, of, delay="0min"):
    """What was known at each row: every closed bar but the first, looked up by time."""
    ends = resampled(rows, f"bar_{frame}").droplevel("asset").iloc[1:]
    values = of(ends)
    known = pd.Series(values, ends.index + pd.Timedelta(delay)).rename("value").reset_index()
    times = pd.DataFrame({"time": rows.index.get_level_values("time")})
    return pd.merge_asof(times, known, on="time")["value"].to_numpy(copy=True)


@pytest.mark.parametrize("frame", ["m5", "m15", "h1"])
@pytest.mark.parametrize("delay", ["0min", "7min"])
@pytest.mark.parametrize("asset", "AB")
def test_a_row_gets_the_newest_bar_that_had_closed(minutes, frame, delay, asset):
    rows = with_frames(minutes.loc[[asset]], delay)
    most = int(pd.Timedelta(STEPS[frame]) // pd.Timedelta("1min"))
    run = partial(on_closes, of=partial(realised_volatility, bars=4), rows=most, late=7)
    columns = [rows[c].to_numpy(copy=True) for c in ("close", f"bar_{frame}", f"closed_{frame}")]
    want = by_the_book(rows, frame, lambda b: realised_volatility(b["close"].to_numpy(), 4), delay)
    want[: warmup(run)] = np.nan
    assert_array_equal(run(*columns), want)
    assert np.isfinite(want[warmup(run) :]).all()


def features():
    return instantiate(composed("config", "features=intraday").features)


def maker(columns):
    def make(bars):
        rows = Rows.of(bars, {c for f in columns.values() for c in reads(f).values()})
        return pd.DataFrame({name: rows.run(f) for name, f in columns.items()}, bars.index)

    return make


@pytest.fixture(scope="module")
def longer():
    """The columns of the yaml that read a longer bar, but those of a day: see the one below."""
    whole = features().columns
    return {
        n: f
        for n, f in whole.items()
        if hasattr(timeframes, getattr(f.func, "__name__", "")) and "d1" not in n
    }


def test_the_yaml_reads_four_longer_timeframes(longer):
    names = {name.partition("_")[0] for name in features().columns}
    assert set(STEPS) <= names
    assert len(longer) > 20


def test_columns_of_the_yaml_start_when_warm_and_need_no_more(longer, minutes):
    single = minutes.loc[["B"]].iloc[:2500]
    warmups = {name: warmup(f) for name, f in longer.items()}
    contract.starts_when_warm(maker(longer), single, warmups)
    for bars in sorted(set(warmups.values()))[::6]:
        own = {n: f for n, f in longer.items() if warmups[n] == bars}
        for cut in (2500, 2471):  # at the end of an hour, and within one
            contract.needs_no_more_than_its_warmup(maker(own), single.iloc[:cut], bars)


def test_the_past_does_not_see_the_future(longer, minutes):
    for time in ("2024-03-09 10:00", "2024-03-09 10:31:30"):
        contract.does_not_see_the_future(maker(longer), minutes, pd.Timestamp(time, tz="UTC"))


def test_a_missing_minute_spoils_only_the_windows_that_hold_it(longer, minutes):
    single = minutes.loc[["B"]].iloc[:2500]
    names = [c for c in single if not c.startswith(("bar_", "closed_"))]
    clean = maker(longer)(single)
    assert single.index[1019][1].minute == 0  # the last minute of bars of every length: their close
    holed = single.copy()
    holed.iloc[1019, [holed.columns.get_loc(c) for c in names]] = np.nan
    made, hit = maker(longer)(holed), np.arange(len(single)) - 1019
    for name, function in longer.items():
        lost = made[name].isna() & clean[name].notna()
        assert lost[(hit >= 0) & (hit <= warmup(function))].any(), name
        assert not lost[(hit < 0) | (hit > warmup(function))].any(), name
        assert_array_equal(made[name][~lost], clean[name][~lost])


def test_the_day_before_is_known_all_day_and_no_sooner(minutes):
    rows = minutes.loc[["B"]]
    run = partial(on_ranges, of=timeframes.bar_range, rows=1440)
    columns = [rows[c].to_numpy(copy=True) for c in ("high", "low", "close", "bar_d1", "closed_d1")]
    made = run(*columns)
    saturday = rows.loc["B"].loc["2024-03-09 00:01":"2024-03-10 00:00"]
    value = np.log(saturday["high"].max() / saturday["low"].min())
    assert warmup(run) == 2 * 1440 - 1
    assert rows.index[2879][1] == saturday.index[-1]  # known at midnight, and not a minute before
    assert np.isnan(made[:2879]).all()
    assert_array_equal(made[2879:4319], np.full(1440, value))


def test_a_stream_of_minutes_gives_what_the_table_gives(longer, minutes):
    features = FeatureSet({n: f for n, f in longer.items() if n.startswith("m5")}).fit(minutes)
    bars = minutes.groupby("asset").head(160).sort_index(level="time", kind="stable")
    stream, batch = FeatureStream(features), features.build(bars.sort_index())
    parts = [stream.push(now) for _, now in bars.groupby(level="time")]
    told = pd.concat(parts).reindex(batch.index)
    assert told.notna().any().all()
    assert_frame_equal(told.astype("float32"), batch[list(told)], check_exact=True)


# leaks


def leaky(close, bar, closed):
    """Joins the bar that a row falls in, before it has closed."""
    runs = timeframes.Runs(bar)
    values = log_return(runs.put("close", close), 1)
    return values[runs.number]


def test_a_bar_that_is_joined_before_its_close_is_caught(minutes):
    bound = {"bar": "bar_h1", "closed": "closed_h1"}
    time = pd.Timestamp("2024-03-09 10:31", tz="UTC")
    honest = partial(on_closes, of=partial(log_return, bars=1), rows=60, **bound)
    contract.does_not_see_the_future(maker({"value": honest}), minutes, time)
    with pytest.raises(AssertionError):
        contract.does_not_see_the_future(maker({"value": partial(leaky, **bound)}), minutes, time)


def test_whatever_the_columns_say_no_row_sees_a_later_one(minutes):
    run = {"value": partial(on_closes, of=log_return, bar="bar_h1", closed="closed_h1", rows=60)}
    time = pd.Timestamp("2024-03-09 10:31", tz="UTC")
    for told in (
        minutes.assign(closed_h1=minutes["bar_h1"]),  # a running bar is called closed
        minutes.assign(closed_h1=minutes["bar_d1"]),
        minutes.assign(closed_h1=np.inf),
        minutes.assign(bar_h1=minutes["bar_h1"].to_numpy()[::-1]),
    ):
        contract.does_not_see_the_future(maker(run), told, time)
        then = maker(run)(until(told, time))
        for name in FUTURES:
            future = FUTURES[name](told, time, np.random.default_rng(1))
            made = maker(run)(future).reindex(then.index)
            assert_frame_equal(made, then, check_exact=True)


def test_the_futures_of_the_audit_leave_the_past_alone(longer, minutes):
    for time in ("2024-03-10 10:29", "2024-03-10 10:30"):
        at = pd.Timestamp(time, tz="UTC")
        then = maker(longer)(until(minutes, at))
        for name in FUTURES:
            future = FUTURES[name](minutes, at, np.random.default_rng(1))
            made = maker(longer)(future).reindex(then.index)
            assert_frame_equal(made, then, check_exact=True)
    garbage = FUTURES["garbage"](minutes, at, np.random.default_rng(1))
    told = [c for c in minutes if c.startswith(("bar_", "closed_"))]
    assert_frame_equal(garbage[told], minutes[told])  # a calendar is no market's future
    assert not garbage["close"].equals(minutes["close"])


def test_a_bar_with_more_rows_than_declared_is_unknown(minutes):
    """Of the second asset a fifth of the minutes is missing, and no hour has 60 of them."""
    run = partial(on_closes, of=log_return, bar="bar_h1", closed="closed_h1", rows=59)
    made = maker({"value": run})(minutes)["value"]
    assert made["B"].isna().all()
    assert made["A"].iloc[warmup(run) :].notna().all()


def test_a_feature_of_columns_that_are_not_put_together_is_refused(minutes):
    for of, message in ((timeframes.bar_range, "reads high"), (None, "must be a feature")):
        run = partial(on_closes, of=of, bar="bar_h1", closed="closed_h1")
        with pytest.raises(ValueError, match=message):
            maker({"value": run})(minutes)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    step=st.integers(2, 9),
    delay=st.integers(0, 5),
    cut=st.integers(1, 199),
)
def test_whatever_the_gaps_a_value_is_that_of_a_bar_that_was_over(seed, step, delay, cut):
    rng = np.random.default_rng(seed)
    minute = np.flatnonzero(rng.random(300) > 0.3)[:200]
    bar = np.ceil(minute / step) * step
    closed = np.floor((minute - delay) / step) * step
    close = rng.lognormal(size=len(minute))
    run = partial(on_closes, of=partial(log_return, bars=1), rows=step, late=delay)
    cut = min(cut, len(minute))
    made = run(close, bar, closed)
    assert_array_equal(run(close[:cut], bar[:cut], closed[:cut]), made[:cut])
    for i in range(warmup(run), len(minute)):
        over = np.unique(bar[(bar <= minute[i] - delay) & (np.arange(len(bar)) <= i)])
        last = [close[np.flatnonzero(bar == end)[-1]] for end in over[-2:]]
        assert made[i] == pytest.approx(np.log(last[1] / last[0]), abs=1e-12)
