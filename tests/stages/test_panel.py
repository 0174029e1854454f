import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.base import DataError
from stages.markets import mixed
from stages.panel import (
    PanelError,
    age,
    asset_codes,
    asset_starts,
    check_labels,
    check_panel,
    last_rows,
    named,
    stretch,
    until,
    warms_up,
    warmup,
    windows,
)


@pytest.fixture(scope="module")
def market():
    return mixed(0, times=60, assets=3)


def ragged(lengths: list[int]) -> pd.DataFrame:
    """A panel of assets Z, Y, X ... with the given numbers of bars."""
    rows = [
        (chr(ord("Z") - k), pd.Timestamp("2020-01-01", tz="UTC") + pd.Timedelta(days=t))
        for k, length in enumerate(lengths)
        for t in range(length)
    ]
    index = pd.MultiIndex.from_tuples(rows, names=["asset", "time"])
    return pd.DataFrame({"close": np.arange(len(rows), dtype=float)}, index)


def naive(panel):
    return panel.set_axis(panel.index.set_levels(panel.index.levels[1].tz_localize(None), level=1))


def timeless(panel):
    asset = panel.index.get_level_values("asset")
    time = panel.index.get_level_values("time").where(np.arange(len(panel)) != 7)
    return panel.set_axis(pd.MultiIndex.from_arrays([asset, time], names=["asset", "time"]))


@pytest.mark.parametrize(
    ("spoil", "message", "code"),
    [
        (lambda panel: panel.swaplevel(), r"not \['asset', 'time'\]", "SV-F20"),
        (lambda panel: panel.reset_index(), r"index levels are \[None\]", "SV-F20"),
        (naive, "times are datetime64.*, not UTC", "SV-F07"),
        (timeless, "row 7 lacks its asset or its time", "SV-F20"),
        (lambda panel: panel.sort_index(level="time"), "A0 .* comes back after another", "SV-F03"),
        (lambda panel: panel[::-1], "A2 at .* is out of order", "SV-F03"),
        (lambda panel: panel.iloc[[0, 0, 1]], "A0 at 2000-01-03 .* stands twice", "SV-F02"),
        (lambda panel: panel.drop(columns="close"), r"columns \['close'\] are missing", "SV-F20"),
    ],
)
def test_a_broken_panel_is_refused_by_its_first_fault(market, spoil, message, code):
    with pytest.raises(PanelError, match=message) as refused:
        check_panel(spoil(market.panel), ["close"])
    assert refused.value.code == code
    assert isinstance(refused.value, DataError)


def test_a_good_panel_passes_unchanged(market):
    assert check_panel(market.panel, ["close", "context.regime"]) is market.panel
    assert check_labels(market.y) is market.y


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("side", np.int8(2), "A0 at 2000-01-03 .* side other than"),
        ("side", 1, "side must be int8"),
        ("end", pd.Timestamp("2000-01-03", tz="UTC"), "A0 at .* does not end after it"),
        ("end", pd.Timestamp("2030-01-03"), "end UTC"),
        ("end", pd.NaT, "end UTC"),
        ("weight", np.nan, "weight that is not above 0"),
        ("weight", 0.0, "weight that is not above 0"),
    ],
)
def test_a_broken_label_is_refused(market, column, value, message):
    with pytest.raises(PanelError, match=message):
        check_labels(market.y.assign(**{column: value}))


def test_a_label_without_an_end_is_refused(market):
    spoilt = market.y.assign(end=market.y["end"].where(np.arange(len(market.y)) != 3))
    with pytest.raises(PanelError, match="A0 at 2000-01-06 .* does not end after it"):
        check_labels(spoilt)


def test_time_is_cut_for_every_asset(market):
    time = market.panel.index.unique("time")[20]
    past = until(market.panel, time)
    assert set(past.index.unique("asset")) == {"A0", "A1", "A2"}
    assert past.index.get_level_values("time").max() == time
    assert len(past) == 3 * 21


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_assets_are_numbered_cut_and_aged_in_the_order_of_the_rows(lengths):
    panel = ragged(lengths)
    check_panel(panel)
    assert list(asset_starts(panel)) == [0, *np.cumsum(lengths)]
    assert list(asset_codes(panel)) == [k for k, n in enumerate(lengths) for _ in range(n)]
    assert list(age(panel)) == [t for n in lengths for t in range(n)]


def test_windows_are_the_bars_of_the_asset_that_end_at_each_row():
    panel = ragged([5, 3, 4]).assign(other=1.0)
    rows = panel.index[[11, 4, 7]]
    cut = check_panel(windows(panel, rows, 3, ["close"]))
    assert list(cut.columns) == ["close"]
    assert list(cut["close"]) == [9, 10, 11, 2, 3, 4, 5, 6, 7]
    assert list(last_rows(cut).index.get_level_values("asset")) == ["000000", "000001", "000002"]
    assert list(last_rows(cut).index.get_level_values("time")) == list(
        rows.get_level_values("time")
    )


@pytest.mark.parametrize("row", [1, 6])
def test_a_window_never_reaches_into_another_asset(row):
    panel = ragged([5, 3])
    with pytest.raises(PanelError, match="does not have 3 bars") as refused:
        windows(panel, panel.index[[4, row]], 3, ["close"])
    assert refused.value.code == "SV-F18"
    with pytest.raises(PanelError, match="Q at 2020-01-01"):
        windows(panel, panel.index[[4]].append(ragged([1]).rename(index={"Z": "Q"}).index), 3, [])


def test_a_stretch_is_what_the_windows_cover_and_no_more():
    times = pd.date_range("2020-01-01", periods=5, tz="UTC")
    index = pd.MultiIndex.from_product([["A", "B"], times], names=["asset", "time"])
    panel = pd.DataFrame({"close": np.arange(10.0)}, index)
    assert list(stretch(panel, index[[3]], 2)["close"]) == [2, 3]
    assert list(stretch(panel, index[[1, 6]], 4)["close"]) == [0, 1, 5, 6]  # never into A
    assert list(stretch(panel, index[[2, 4]], 2)["close"]) == [1, 2, 3, 4]
    with pytest.raises(DataError, match="C has no bar"):
        stretch(panel, pd.MultiIndex.from_tuples([("C", times[0])]), 2)


def test_the_newest_row_of_each_asset():
    assert list(last_rows(ragged([2, 1, 3]))["close"]) == [1, 2, 5]


def test_columns_are_found_by_family_in_the_order_of_the_panel(market):
    families = named(market.panel, "feature", "context")
    assert families == [f"feature.x{k}" for k in range(8)] + ["context.regime"]
    assert named(market.panel.assign(featureless=0)[["close", "featureless"]], "feature") == []


def test_a_declared_warm_up_follows_the_settings_of_a_partial():
    from functools import partial

    @warms_up(lambda fast, slow: slow - 1 + 0 * fast)
    def cross(close, fast=5, slow=20):
        return close

    assert warmup(cross) == 19
    assert warmup(partial(cross, slow=50)) == 49
