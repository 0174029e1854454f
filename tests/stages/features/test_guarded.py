import numpy as np
import talib
from numpy.testing import assert_array_equal

from stages.features.guarded import moving, on_clean_runs


def rsi(close):
    return talib.RSI(close, timeperiod=14)


def test_the_library_alone_answers_zero_for_ever_after_one_missing_bar():
    """The trap this guard is for; when it is gone, so may be the guard."""
    close = 100 + np.random.default_rng(0).normal(size=400).cumsum()
    close[100] = np.nan
    assert (rsi(close)[-200:] == 0).all()


def test_after_a_gap_the_indicator_starts_afresh():
    close = 100 + np.random.default_rng(0).normal(size=400).cumsum()
    close[100] = np.nan
    guarded = on_clean_runs(rsi, 14, close)
    assert_array_equal(guarded[:100], rsi(close[:100]))
    assert np.isnan(guarded[100:115]).all()
    assert_array_equal(guarded[101:], rsi(close[101:].copy()))


def test_a_gap_in_any_column_ends_the_run():
    high, low = np.full(20, 2.0), np.ones(20)
    high[5], low[12] = np.nan, np.inf
    made = on_clean_runs(lambda h, w: h - w, 2, high, low)
    assert np.flatnonzero(np.isfinite(made)).tolist() == [2, 3, 4, 8, 9, 10, 11, *range(15, 20)]


def test_runs_too_short_for_a_value_are_not_shown_to_the_library():
    seen = []
    on_clean_runs(lambda x: seen.append(x) or x, 3, np.array([1.0, 2, 3, np.nan, 1, 2, 3, 4]))
    assert [len(x) for x in seen] == [4]


def test_a_range_of_zero_does_not_move():
    high = np.array([1.0, 1, 1, 2, 2, 2, np.nan])
    assert_array_equal(moving(high, high, 3), [np.nan, np.nan, np.nan, 1, 1, np.nan, np.nan])
