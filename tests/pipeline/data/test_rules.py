import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.rules import Limits
from pipeline.data.sources import frame
from stages.base import DataError
from tests.pipeline.data.conftest import make_daily


def closes(table: pd.DataFrame) -> pd.DataFrame:
    return table[["asset", "time", "close"]].copy()


def scaled(table: pd.DataFrame, rows: slice, factor: float) -> pd.DataFrame:
    table.loc[rows, "close"] *= factor
    return table


def load(table: pd.DataFrame, **keys):
    return frame(table, calendar="XNYS", **keys)


@pytest.mark.parametrize("factor", [0.25, 4.0])
@pytest.mark.parametrize("last", [10, 18])
def test_prices_at_a_level_that_is_left_again_are_refused(factor, last):
    table = scaled(closes(make_daily("A")), slice(10, last), factor)
    with pytest.raises(DataError) as fault:
        load(table)
    assert fault.value.code == "SV-F15"
    assert "row 11" in fault.value.where
    source = load(table, on_bad="quarantine", max_refused_share=0.5)
    assert source.report.refused == {"SV-F15": last - 9}
    assert (np.abs(np.diff(np.log(source.bars["close"]))) < 0.4).all()


@pytest.mark.parametrize("factor", [0.33, 0.48, 1.67, 4.0])
def test_a_jump_that_stays_is_flagged_and_not_repaired(factor):
    table = scaled(closes(make_daily("A")), slice(30, None), factor)
    source = load(table)
    assert source.report.flagged == {"SV-F15.jump": 1}
    np.testing.assert_array_equal(source.bars["close"], table["close"])


def test_news_that_fades_by_half_is_no_vendor_error():
    table = scaled(closes(make_daily("A")), slice(10, 13), 4.0)
    table = scaled(table, slice(13, None), 2.0)
    assert not load(table).report.refused


def test_a_doubling_and_halving_months_apart_is_believed():
    table = scaled(closes(make_daily("A")), slice(10, 50), 2.0)
    assert load(table).report.flagged == {"SV-F15.jump": 2}


def test_a_long_spell_at_a_quarter_of_the_price_is_refused():
    table = scaled(closes(make_daily("A")), slice(10, 50), 0.25)
    with pytest.raises(DataError, match="same jump"):
        load(table)


def test_many_small_spikes_bear_witness_to_each_other():
    table = closes(make_daily("A"))
    once = scaled(table.copy(), slice(10, 12), 2.0)
    assert not load(once).report.refused
    for row in (20, 30, 40):
        once = scaled(once, slice(row, row + 1), 2.0)
    assert load(once, on_bad="quarantine", max_refused_share=1).report.refused["SV-F15"] >= 6


def test_broken_rows_bear_witness_against_the_spell_around_them():
    table = make_daily("A")
    table.loc[10:50, ["high", "low", "close"]] *= 2.0
    table.loc[20, "open"] *= 2.0  # one consistent bar at the wrong level
    source = load(table, on_bad="quarantine", max_refused_share=1)
    assert source.report.refused == {"SV-F14.range": 40, "SV-F15": 1}


def test_a_jump_from_one_asset_to_the_next_is_none():
    table = closes(make_daily("AB"))
    table.loc[table["asset"] == "B", "close"] *= 50
    assert not load(table).report.flagged


def test_a_jump_across_a_missing_close_is_seen():
    table = scaled(closes(make_daily("A")), slice(30, None), 4.0)
    table.loc[29, "close"] = np.nan
    assert load(table).report.flagged == {"SV-F10": 1, "SV-F15.jump": 1}


def test_a_copied_row_is_no_jump():
    table = closes(make_daily("A"))
    source = load(pd.concat([table, table]))
    assert source.report.duplicates == len(table)
    assert not source.report.flagged


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 48), st.integers(1, 9), st.floats(4, 50))
def test_every_planted_spike_is_found_and_nothing_else(seed, start, bars, factor):
    table = scaled(closes(make_daily("A", seed=seed)), slice(start, start + bars - 1), factor)
    source = load(table, on_bad="quarantine", max_refused_share=1)
    assert source.report.refused == {"SV-F15": bars}
    kept = np.delete(np.arange(len(table)), np.arange(start, start + bars))
    np.testing.assert_array_equal(source.bars["close"], table["close"].to_numpy()[kept])


@pytest.mark.parametrize(
    "keys", [{"jump": 0}, {"jump": 2.0}, {"spike_bars": 0}, {"level_bars": 0}, {"tolerance": -1}]
)
def test_impossible_limits_are_refused(keys):
    with pytest.raises(ValueError, match="need"):
        Limits(**keys)
