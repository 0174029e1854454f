import numpy as np
import pandas as pd
import pytest

from pipeline.evaluable import none_evaluable, obstacles, outdated, too_short

TIMES = pd.date_range("2020-01-01", periods=4, tz="UTC")
INDEX = pd.MultiIndex.from_product([["A", "B"], TIMES], names=["asset", "time"])


@pytest.fixture
def panel():
    values = np.ones((8, 4), dtype="float32")
    return pd.DataFrame(values, INDEX, [f"feature.x{i}" for i in range(4)])


def why(panel, covered=True, warmup=2):
    return obstacles(panel, np.full(8, covered), warmup, max_missing=0.5)


def test_a_row_with_history_inputs_and_universe_is_evaluable(panel):
    assert list(why(panel)["A"]) == ["history: 1 bars missing", "", "", ""]


def test_a_share_of_inputs_may_be_missing_and_no_more(panel):
    panel.loc[("A", TIMES[2]), ["feature.x0", "feature.x1"]] = np.nan
    panel.loc[("A", TIMES[3]), ["feature.x0", "feature.x1", "feature.x2"]] = np.nan
    assert list(why(panel)["A"])[2:] == ["", "inputs: 75% missing > 50%"]


def test_the_first_cause_is_told(panel):
    """Without the universe its ranks are missing too; without history so is everything."""
    panel[:] = np.nan
    said = why(panel, covered=False)["A"]
    assert said.iloc[0].startswith("history")
    assert said.iloc[1].startswith("universe")


def test_an_asset_whose_newest_signal_has_expired_is_stale(panel):
    before = why(panel)
    expires = pd.DatetimeIndex([TIMES[2], TIMES[3]])
    said = outdated(before, expires, None)
    assert said.loc[("A", TIMES[3])] == "staleness: expired 2020-01-03 00:00 UTC"
    assert said.loc[("B", TIMES[3])] == ""
    assert (before == why(panel)).all()
    later = outdated(before, expires, TIMES[3] + pd.Timedelta("1D"))
    assert later.loc[("B", TIMES[3])].startswith("staleness")


@pytest.mark.parametrize(
    ("covered", "kind", "cure"),
    [(False, "universe", "more of the assets"), (True, "inputs", "columns that are missing")],
)
def test_when_nothing_is_evaluable_the_commonest_cause_is_told(panel, covered, kind, cure):
    panel[:] = np.nan
    error = none_evaluable(why(panel, covered))
    assert error.code == "SV-F18"
    assert f"; {kind}:" in error.what
    assert "6 of 6 rows" in error.where
    assert cure in error.cure


def test_a_short_history_is_told_by_asset(panel):
    error = too_short(panel, warmup=9, window=2)
    assert error.where == "bars found: A 4, B 4"
    assert "look back 7 bars, the refiner 2" in error.why
