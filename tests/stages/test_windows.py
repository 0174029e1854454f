import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.panel import PanelError, age, asset_starts, check_panel, last_rows, windows

FEW = settings(max_examples=40, deadline=None)
LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=5)


def ragged(lengths: list[int], seed: int = 0) -> pd.DataFrame:
    """A panel of assets with the given numbers of bars, each from another day, with a gap."""
    rng = np.random.default_rng(seed)
    parts = []
    for k, length in enumerate(lengths):
        days = np.sort(rng.choice(30, length, replace=False))
        times = pd.Timestamp("2020-01-01 21:00", tz="UTC") + pd.to_timedelta(days, unit="D")
        parts.append(pd.MultiIndex.from_product([[chr(ord("Z") - k)], times.as_unit("us")]))
    index = parts[0].append(parts[1:]).set_names(["asset", "time"])
    columns = {
        "close": rng.normal(size=len(index)),
        "feature.x": rng.normal(size=len(index)).astype("float32"),
        "ready": rng.random(len(index)) < 0.5,
    }
    return pd.DataFrame(columns, index)


def old_enough(panel: pd.DataFrame, length: int) -> pd.MultiIndex:
    return panel.index[age(panel) >= length - 1]


@FEW
@given(lengths=LENGTHS, length=st.integers(1, 5), data=st.data())
def test_each_window_is_what_a_slow_loop_would_cut(lengths, length, data):
    panel = ragged(lengths)
    possible = old_enough(panel, length)
    picks = data.draw(st.lists(st.integers(0, max(len(possible) - 1, 0)), max_size=6))
    rows = possible[picks] if len(possible) else possible  # in any order, one maybe twice
    cut = windows(panel, rows, length, ["feature.x", "close"])
    assert list(cut.columns) == ["feature.x", "close"]
    assert len(cut) == len(rows) * length
    for number, (asset, time) in enumerate(rows):
        own = panel.loc[[asset]]
        end = own.index.get_loc((asset, time)) + 1
        expected = own[["feature.x", "close"]].iloc[end - length : end]
        found = cut.iloc[number * length : (number + 1) * length]
        np.testing.assert_array_equal(found, expected)
        times = (table.index.get_level_values("time") for table in (found, expected))
        assert list(next(times)) == list(next(times))


@FEW
@given(lengths=LENGTHS, length=st.integers(1, 5))
def test_windows_make_a_panel_whose_last_rows_are_the_rows_asked_for(lengths, length):
    panel = ragged(lengths)
    rows = old_enough(panel, length)
    cut = check_panel(windows(panel, rows, length, panel.columns), panel.columns)
    assert (cut.dtypes == panel.dtypes).all()
    assert list(asset_starts(cut)) == list(range(0, len(rows) * length + 1, length))
    last = last_rows(cut)
    pd.testing.assert_frame_equal(last.set_axis(rows), panel.loc[rows])
    assert list(last.index.get_level_values("asset")) == [f"{i:06d}" for i in range(len(rows))]


@FEW
@given(lengths=LENGTHS, length=st.integers(2, 6), data=st.data())
def test_one_row_too_young_is_enough_to_be_refused_by_name(lengths, length, data):
    panel = ragged(lengths)
    young = panel.index[age(panel) < length - 1]
    one = data.draw(st.integers(0, len(young) - 1))
    rows = old_enough(panel, length).append(young[[one]])
    asset, time = young[one]
    with pytest.raises(PanelError) as refused:
        windows(panel, rows, length, ["close"])
    assert refused.value.code == "SV-F18"
    assert str(refused.value.what) == f"{asset} at {time} does not have {length} bars"


def test_a_row_of_another_panel_is_refused_rather_than_read_from_the_end():
    panel = ragged([5, 4])
    stranger = panel.index[[-1]].set_levels(
        panel.index.levels[1] + pd.Timedelta(hours=1), level="time"
    )
    with pytest.raises(PanelError, match="Y at"):
        windows(panel, stranger, 2, ["close"])


def test_no_rows_make_an_empty_panel():
    panel = ragged([5, 4])
    cut = check_panel(windows(panel, panel.index[:0], 3, ["close"]), ["close"])
    assert cut.empty
    assert last_rows(cut).empty
    assert list(cut.columns) == ["close"]


def test_windows_are_copies():
    panel = ragged([6])
    before = panel.copy()
    cut = windows(panel, old_enough(panel, 3), 3, ["close"])
    cut["close"] = 0.0
    pd.testing.assert_frame_equal(panel, before)


@FEW
@given(LENGTHS)
def test_the_newest_row_of_each_asset_is_that_of_groupby(lengths):
    panel = ragged(lengths)
    pd.testing.assert_frame_equal(
        last_rows(panel), panel.groupby(level="asset", sort=False).tail(1)
    )
