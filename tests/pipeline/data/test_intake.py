import json
import logging

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.bars import digest
from pipeline.data.instruments import Instruments
from pipeline.data.intake import Intake
from pipeline.data.quality import shown
from pipeline.data.sources import frame
from stages.base import ConfigError, DataError, StoreError
from stages.panel import check_panel
from tests.pipeline.data.conftest import make_daily

NYSE = {"calendar": "XNYS"}


def spoil(table, row, **values):
    table = table.copy()
    for column, value in values.items():
        if isinstance(value, str):
            table[column] = table[column].astype(object)
        table.loc[row, column] = value
    return table


def test_bars_are_a_checked_float64_panel_with_sessions(daily):
    source = frame(daily, **NYSE)
    bars = check_panel(source.bars, ["open", "high", "low", "close", "volume", "session"])
    assert (bars.drop(columns="session").dtypes == "float64").all()
    assert str(bars.index.dtypes["time"]) == "datetime64[us, UTC]"
    assert bars["session"].dtype == "datetime64[us]"
    assert bars.attrs == {}
    assert source.report.rows_in == source.report.rows_kept == len(bars) == len(daily)
    assert source.y is None
    assert source.truth is None


def test_a_daily_bar_is_known_at_the_close_of_its_session(daily):
    bars = frame(daily, **NYSE, delay="15min").bars
    winter, summer = bars.index[0][1], bars.index[-1][1]
    assert winter == pd.Timestamp("2020-02-18 21:15", tz="UTC")
    assert summer.hour == 20
    assert bars["session"].iloc[0] == pd.Timestamp("2020-02-18")


def test_a_date_without_a_calendar_is_refused_because_it_looks_ahead(daily):
    with pytest.raises(DataError, match="dates only") as fault:
        frame(daily)
    assert fault.value.code == "SV-F09"
    assert "data.calendar" in fault.value.cure


def test_order_of_rows_and_columns_does_not_matter(daily):
    mixed = daily.sample(frac=1, random_state=1)[daily.columns[::-1]]
    sorted_, shuffled = frame(daily, **NYSE), frame(mixed, **NYSE)
    assert shuffled.digest == sorted_.digest
    pd.testing.assert_frame_equal(shuffled.bars, sorted_.bars)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 115), st.sampled_from(["open", "high", "low", "close", "volume"]))
def test_the_digest_sees_every_value(row, column):
    daily = make_daily()
    row = row % len(daily)
    bars = frame(daily, **NYSE).bars
    other = bars.copy()
    other.iloc[row, other.columns.get_loc(column)] *= 1 + 1e-15
    assert digest(other) != digest(bars)
    assert digest(bars.iloc[:, ::-1]) == digest(bars)


def test_the_digest_tells_nan_from_numbers_but_not_nan_from_nan(daily):
    bars = frame(spoil(daily, 3, close=np.nan), **NYSE).bars
    other = bars.copy()
    other.iloc[3, other.columns.get_loc("close")] = -np.nan
    assert digest(other) == digest(bars)


def test_equal_duplicates_count_once(daily):
    source = frame(pd.concat([daily, daily.iloc[[4, 4, 9]]]), **NYSE)
    assert source.report.duplicates == 3
    assert source.report.rows_kept == len(daily)
    assert source.digest == frame(daily, **NYSE).digest


def test_duplicates_with_a_missing_value_in_both_are_equal(daily):
    gap = spoil(daily, 4, volume=np.nan)
    assert frame(pd.concat([gap, gap.iloc[[4]]]), **NYSE).report.duplicates == 1


def test_conflicting_duplicates_are_refused_with_both_places(daily):
    twice = pd.concat([daily, spoil(daily, 4, close=daily["close"][4] * 1.001).iloc[[4]]])
    with pytest.raises(DataError, match="close") as fault:
        frame(twice, **NYSE)
    assert fault.value.code == "SV-F02"
    assert f"row 5, A at 2020-02-24 21:00 UTC | frame row {len(daily) + 1}," in fault.value.where
    source = frame(twice, **NYSE, on_bad="quarantine")
    assert source.report.refused == {"SV-F02": 2}
    assert source.report.rows_kept == len(daily) - 1


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"close": 0.0, "low": 0.0}, "SV-F14.price"),
        ({"low": -1.0}, "SV-F14.price"),
        ({"high": 1.0}, "SV-F14.range"),
        ({"close": 1e4}, "SV-F14.range"),
        ({"open": 1.0}, "SV-F14.range"),
        ({"volume": -1.0}, "SV-F14.volume"),
        ({"close": np.inf}, "SV-F12"),
        ({"volume": -np.inf}, "SV-F12"),
        ({"volume": 1e308}, "SV-F12"),
        ({"volume": 5e-324}, "SV-F12"),
        ({"close": "1,234.5"}, "SV-F19.number"),
        ({"asset": None}, "SV-F20.asset"),
        ({"time": pd.NaT}, "SV-F08"),
        ({"time": pd.Timestamp("2020-04-10")}, "SV-F05"),
        ({"time": pd.Timestamp("2150-01-04")}, "SV-F08"),
        ({"time": pd.Timestamp("1970-01-19")}, "SV-F08"),
    ],
)
def test_a_bad_row_is_refused_by_name_and_quarantine_makes_the_command_pass(
    daily, tmp_path, values, code
):
    bad = spoil(daily, 7, **values)
    with pytest.raises(DataError) as fault:
        frame(bad, **NYSE)
    assert fault.value.code == code
    assert "frame row 8" in fault.value.where
    assert "data.on_bad=quarantine" in fault.value.cure

    path = tmp_path / "aside" / "quarantine.csv"
    source = frame(bad, **NYSE, on_bad="quarantine", quarantine=str(path))
    assert source.report.refused == {code: 1}
    assert source.report.rows_in == source.report.rows_kept + 1
    (row,) = pd.read_csv(path).to_dict("records")
    assert (row["row"], row["code"]) == (8, code)


def test_a_missing_price_stays_missing_and_is_flagged(daily):
    source = frame(spoil(daily, 7, close=np.nan), **NYSE)
    assert np.isnan(source.bars["close"].iloc[7])
    assert source.report.flagged == {"SV-F10": 1}


def test_rounding_is_no_range_fault(daily):
    assert not frame(spoil(daily, 7, close=daily["high"][7] * (1 + 1e-7)), **NYSE).report.refused


def test_quarantine_stops_when_too_much_is_refused(daily):
    bad = spoil(daily, slice(0, 19), volume=-1.0)
    with pytest.raises(DataError, match=r"refused, 5\.0% are allowed") as fault:
        frame(bad, **NYSE, on_bad="quarantine")
    assert "data.max_refused_share" in fault.value.cure
    share = float(fault.value.cure.split()[-1]) + 1e-3
    assert frame(bad, **NYSE, on_bad="quarantine", max_refused_share=share).report.refused


def test_an_old_quarantine_report_does_not_outlive_its_fault(daily, tmp_path):
    path = str(tmp_path / "q.csv")
    keys = NYSE | {"on_bad": "quarantine", "quarantine": path}
    frame(spoil(daily, 7, volume=-1.0), **keys)
    frame(daily, **keys)
    assert len(pd.read_csv(path)) == 0


def test_a_quarantine_that_cannot_be_written_is_said(daily, tmp_path):
    (tmp_path / "file").write_text("")
    path = str(tmp_path / "file" / "q.csv")
    with pytest.raises(StoreError, match="cannot be written"):
        frame(spoil(daily, 7, volume=-1.0), **NYSE, on_bad="quarantine", quarantine=path)


def test_negative_prices_are_prices_where_the_instrument_says_so(daily):
    spread = daily.loc[daily["asset"] == "A"].assign(open=-3.0, high=-1.0, low=-4.0, close=-2.0)
    with pytest.raises(DataError, match="not above 0"):
        frame(spread, **NYSE)
    table = Instruments({"A": {"negative_price": True}})
    assert (frame(spread, **NYSE, instruments=table).bars["close"] == -2).all()


def test_adjusted_close_scales_the_prices_only_when_named(daily):
    halves = daily.assign(adj=daily["close"] / 2)
    assert frame(halves, **NYSE).digest == frame(daily, **NYSE).digest
    bars = frame(halves, **NYSE, columns={"adj_close": "adj"}).bars
    plain = frame(daily, **NYSE).bars
    prices = ["open", "high", "low", "close"]
    np.testing.assert_allclose(bars[prices], plain[prices] / 2, rtol=1e-12)
    np.testing.assert_array_equal(bars["volume"], plain["volume"])
    assert "adj_close" not in bars


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_adjusting_never_lifts_a_close_out_of_its_range(seed):
    rng = np.random.default_rng(seed)
    table = make_daily("A")
    table["high"] = table[["open", "close"]].max(axis=1)
    table["low"] = table[["open", "close"]].min(axis=1)
    table["adj"] = table["close"] * rng.uniform(0.1, 1, len(table))
    limits = {"jump": 9.0, "spike": 9.0, "level": 9.0}
    bars = frame(table, **NYSE, columns={"adj_close": "adj"}, limits=limits).bars
    assert (bars["close"] <= bars["high"]).all()
    assert (bars["close"] >= bars["low"]).all()


def test_span_and_assets_are_chosen_before_the_checks(daily):
    bad = spoil(daily, 0, volume=-1.0)  # A's first day
    assert set(frame(bad, **NYSE, assets=["B"]).bars.index.unique("asset")) == {"B"}
    bars = frame(bad, **NYSE, start="2020-03-02", end="2020-03-06").bars
    assert bars["session"].dt.day.unique().tolist() == [2, 3, 4, 5, 6]


def test_an_unknown_asset_is_named_with_the_nearest(daily):
    table = daily.replace({"asset": {"A": "AAPL"}})
    with pytest.raises(DataError, match="AAPLE") as fault:
        frame(table, **NYSE, assets=["AAPLE"])
    assert fault.value.cure == "did you mean AAPL?"


def test_nothing_left_is_refused(daily):
    with pytest.raises(DataError, match="no bars") as fault:
        frame(daily, **NYSE, start="2021-01-01")
    assert fault.value.code == "SV-F18"
    with pytest.raises(DataError, match="no bars"):
        frame(daily.head(0), **NYSE)
    with pytest.raises(DataError, match="no bars"):
        frame(daily.head(0))


def test_the_market_is_its_last_known_close(daily):
    late = daily.drop(index=daily.index[daily["asset"] == "B"][:3])
    bars = frame(late, **NYSE, market="B").bars
    own = bars.loc["B"]
    assert (own["market"] == own["close"]).all()
    of_a = bars.loc["A", "market"]
    assert of_a.iloc[:3].isna().all()  # nothing of B was known by then
    pd.testing.assert_series_equal(of_a.iloc[3:], own["close"], check_names=False)


def test_a_market_outside_of_the_chosen_assets_lends_only_its_close(daily):
    bars = frame(daily, **NYSE, market="B", assets=["A"]).bars
    assert bars.index.unique("asset").tolist() == ["A"]
    assert bars["market"].notna().all()


def test_two_markets_are_one_too_many(daily):
    with pytest.raises(ConfigError, match="both given"):
        frame(daily.assign(m=1.0), **NYSE, market="B", columns={"market": "m"})


def test_a_market_without_a_close_is_refused(daily):
    table = daily.assign(close=daily["close"].where(daily["asset"] == "A"))
    with pytest.raises(DataError, match="'B' is not in the data"):
        frame(table, **NYSE, market="B")


def test_missing_sessions_are_flagged_and_never_filled(daily):
    source = frame(daily.drop(index=[5, 6]), **NYSE)
    assert source.report.flagged == {"SV-F04": 1}
    assert "2020-02-27" in source.report.examples["SV-F04"][0]
    assert len(source.bars) == len(daily) - 2


def test_findings_are_logged(daily, caplog):
    with caplog.at_level(logging.INFO, "pipeline.data.intake"):
        frame(spoil(daily, 7, volume=-1.0), **NYSE, on_bad="quarantine")
    assert "1 rows, first frame row 8" in caplog.text


def test_the_report_is_plain_json(daily):
    report = frame(spoil(daily, 7, volume=-1.0), **NYSE, on_bad="quarantine").report
    assert json.loads(json.dumps(report.as_dict())) == report.as_dict()
    assert report.refused_share == 1 / report.rows_in


@pytest.mark.parametrize(
    "keys",
    [{"on_bad": "ignore"}, {"max_refused_share": 2}, {"limits": {"jump": -1}}, {"start": "soon"}],
)
def test_impossible_settings_are_refused(keys):
    with pytest.raises(ValueError, match="need"):
        Intake(**keys)


def test_calendars_by_instrument_need_the_table():
    with pytest.raises(ConfigError, match="instruments table"):
        Intake(calendar="instruments")


def test_each_asset_follows_its_own_exchange(daily):
    # London kept the VE day holiday of 2020-05-08, New York did not
    table = Instruments({"B": {"calendar": "XLON"}})
    with pytest.raises(DataError, match="outside of the exchange") as fault:
        frame(daily, calendar="instruments", instruments=table)
    assert "B at 2020-05-08" in fault.value.where


def test_values_are_shown_short_and_without_control_characters():
    assert shown("a\x1b[31m\nb") == "a\\x1b[31m\\nb"
    assert len(shown("x" * 500)) == 80


def test_the_sector_comes_from_the_instruments_where_the_file_has_none():
    names = ["A", "B", "C"]
    table = pd.DataFrame({"asset": names, "time": "2024-03-01", "close": 1.0})
    known = Instruments({"A": {"sector": "mines"}, "B": {"sector": "mines"}})
    bars = frame(table, calendar="XNYS", instruments=known).bars
    assert bars["sector"].notna().tolist() == [True, True, False]
    assert bars["sector"].nunique() == 1
    assert "sector" not in frame(table, calendar="XNYS", instruments=Instruments()).bars
    own = frame(
        table.assign(gics=[7.0, 8.0, 9.0]),
        calendar="XNYS",
        instruments=known,
        columns={"sector": "gics"},
    ).bars
    assert own["sector"].tolist() == [7.0, 8.0, 9.0]
