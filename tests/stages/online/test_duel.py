import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.online.duel import FLOOR, bars_needed, duel, wealth
from stages.signal import ODDS

DAY = pd.Timedelta(days=1)
START = pd.Timestamp("2020-01-01", tz="UTC")


def gains(seed, bars, span, edge=0.0, heavy=False):
    """Differences of losses: an autocorrelated lean times an outcome that overlaps `span` bars."""
    rng = np.random.default_rng(seed)
    shock = rng.standard_t(3, bars + span) if heavy else rng.standard_normal(bars + span)
    lean, noise = np.empty(bars), rng.standard_normal(bars)
    lean[0] = noise[0]
    for t in range(1, bars):
        lean[t] = 0.8 * lean[t - 1] + 0.6 * noise[t]
    summed = np.convolve(shock, np.ones(span), "valid")[1 : bars + 1] / np.sqrt(span)
    return 0.02 * (lean * summed + edge)


def after(bars, span):
    """When bars are settled: `span` bars later; never, where that is not reached."""
    due = np.arange(bars) + span
    return np.where(due > bars, bars + 1, due)


@pytest.mark.parametrize(("span", "heavy"), [(1, False), (5, False), (5, True)])
def test_without_an_advantage_at_most_one_stream_in_twenty_is_ever_won(span, heavy):
    won = [
        wealth(gains(s, 500, span, 0.0, heavy), after(500, span), span).max() for s in range(200)
    ]
    assert np.mean(np.array(won) >= 20) <= 0.05
    assert np.mean(np.array(won) > 1.5) > 0.1  # bets are placed: the test could have failed


@pytest.mark.parametrize(("span", "bars"), [(1, 300), (5, 900)])
def test_a_clear_advantage_is_found(span, bars):
    won = [wealth(gains(s, bars, span, 0.35), after(bars, span), span).max() for s in range(40)]
    assert np.mean(np.array(won) >= 20) >= 0.9


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 120))
@settings(max_examples=30, deadline=None)
def test_what_was_known_at_a_bar_does_not_depend_on_what_came_later(seed, span, cut):
    gain = gains(seed, 120, span, 0.5)
    whole = wealth(gain, after(120, span), span)
    part = wealth(gain[:cut], after(cut, span), span)
    np.testing.assert_array_equal(whole[:cut], part[:cut])


@given(st.integers(0, 10**6), st.integers(2, 6))
@settings(max_examples=30, deadline=None)
def test_no_outcome_of_the_open_bets_can_take_away_what_counts(seed, span):
    gain, bars = gains(seed, 150, span, 0.8), 150
    counted = wealth(gain, after(bars, span), span)[-1]
    rng = np.random.default_rng(seed)
    gain[bars - span + 1 :] = rng.choice([-9.0, 0.0, 9.0], span - 1)
    settled = wealth(gain, np.minimum(np.arange(bars) + span, bars), span)[-1]
    assert settled >= counted * (1 - 1e-12)


def test_a_bar_of_which_nothing_became_known_is_a_void_bet():
    gain = gains(3, 200, 1, 0.5)
    void, without = gain.copy(), np.delete(gain, 150)
    void[150] = np.nan
    ends = wealth(void, after(200, 1), 1)[-1], wealth(without, after(199, 1), 1)[-1]
    assert ends[0] == ends[1] > 1


def two_models(bars=40, assets=3, span=2, seed=0):
    """Two tables of odds, and the labels of all rows but the last bars."""
    rng = np.random.default_rng(seed)
    times = pd.DatetimeIndex([START + DAY * t for t in range(bars)], name="time")
    names = pd.Index([f"A{i}" for i in range(assets)], name="asset")
    index = pd.MultiIndex.from_product([names, times])
    tables = [
        pd.DataFrame(rng.dirichlet([4.0, 4.0, 4.0], len(index)), index, ODDS) for _ in range(2)
    ]
    side = rng.integers(-1, 2, len(index)).astype("int8")
    end = index.get_level_values("time") + span * DAY
    y = pd.DataFrame({"side": side, "end": end, "weight": 1.0}, index)
    return *tables, y[(end <= times[-1])]


def test_the_gain_of_a_bar_is_the_mean_difference_of_the_losses():
    one, other, y = two_models()
    found = duel(one, other, y, 2, one.index.get_level_values("time").max())
    time = START + 7 * DAY
    expected = np.mean(
        [
            np.log(other.loc[row, ODDS[y.loc[row, "side"] + 1]])
            - np.log(one.loc[row, ODDS[y.loc[row, "side"] + 1]])
            for row in y.index[y.index.get_level_values("time") == time]
        ]
    )
    assert found.path.loc[time, "gain"] == pytest.approx(expected)
    assert (found.bars, found.rows) == (38, 38 * 3)
    assert found.path["gain"].isna().sum() == 2
    assert found.path["settled"].tolist() == [0, 0, *range(1, 39)]


def test_both_sides_mirror_each_other():
    one, other, y = two_models()
    here, there = duel(one, other, y, 2), duel(other, one, y, 2)
    pd.testing.assert_series_equal(here.path["for"], there.path["against"], check_names=False)
    assert here.ece == there.ece[::-1]
    assert here.gain == pytest.approx(-there.gain)


def test_labels_that_are_still_open_do_not_count():
    one, other, y = two_models()
    now = START + 20 * DAY
    found = duel(one, other, y, 2, now)
    known = duel(one, other, y[y["end"] <= now], 2, now)
    pd.testing.assert_frame_equal(found.path, known.path)
    assert found.bars == 19


def test_a_lost_label_holds_a_bar_up_no_longer_than_twice_the_span():
    one, other, y = two_models()
    without = y.drop(y.index[y.index.get_level_values("time") == START + 5 * DAY][0])
    found = duel(one, other, without, 2, one.index.get_level_values("time").max())
    assert np.isfinite(found.path.loc[START + 5 * DAY, "gain"])


def test_rows_of_one_model_only_and_rows_without_odds_are_passed_over():
    one, other, y = two_models()
    other.iloc[5] = np.nan
    found = duel(one.drop(one.index[3]), other, y, 2)
    assert found.rows == len(y) - 2


def test_certain_misses_cost_a_bounded_amount():
    one, other, y = two_models()
    one.loc[:] = [0.0, 0.0, 1.0]
    found = duel(one, other, y, 2)
    assert found.path["gain"].max() <= -np.log(FLOOR)


def test_two_models_that_say_the_same_win_nothing_from_each_other():
    one, _, y = two_models()
    found = duel(one, one.copy(), y, 2)
    assert (found.path[["for", "against"]] == 1).all(axis=None)
    assert found.p_value() == 1


def test_the_bars_a_claim_needs_are_about_those_it_takes():
    edge, took = 0.25, []
    for seed in range(60):
        path = wealth(gains(seed, 1500, 1, edge), after(1500, 1), 1)
        took.append(int(np.argmax(path >= 20)) if path.max() >= 20 else 1500)
    assert bars_needed(edge, 1.0) == pytest.approx(np.median(took), rel=0.35)
    assert bars_needed(0.0, 1.0) == np.inf
