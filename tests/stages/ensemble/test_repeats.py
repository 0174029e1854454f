import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.ensemble.repeats import repeats, stretch_start

HALF_MINUTE = pd.Timedelta("30s")


def rows(**seconds) -> pd.MultiIndex:
    """Rows of assets at seconds after 10 o'clock."""
    at = pd.Timestamp("2024-03-01 10:00", tz="UTC").as_unit("us")
    pairs = [(asset, at + pd.Timedelta(s, "s")) for asset, all_s in seconds.items() for s in all_s]
    return pd.MultiIndex.from_tuples(pairs, names=["asset", "time"])


def told(index, side, measure=0.8, every=HALF_MINUTE, rise=0.1):
    length = len(index)
    measure = np.broadcast_to(np.asarray(measure, dtype=float), length)
    return repeats(index, np.broadcast_to(side, length), measure, every, rise).tolist()


def test_the_same_side_again_is_a_repeat_and_the_other_is_none():
    assert told(rows(A=[0, 10, 20]), [1, 1, 1]) == [False, True, True]
    assert told(rows(A=[0, 10, 20]), [1, -1, 1]) == [False, False, False]
    assert told(rows(A=[0, 10, 20]), [1, 0, 1]) == [False, False, True]


def test_one_asset_never_silences_another():
    """A single last signal for all symbols would."""
    assert told(rows(A=[0, 10], B=[1, 11]), 1) == [False, True, False, True]


def test_a_measure_that_rose_counts_again():
    index = rows(A=[0, 5, 10, 15, 20])
    assert told(index, 1, [0.70, 0.75, 0.80, 0.85, 0.90]) == [False, True, False, True, False]
    assert told(index, 1, [0.70, 0.75, 0.80, 0.85, 0.90], rise=0.3) == [False] + [True] * 4


def test_a_new_stretch_begins_anew():
    assert told(rows(A=[0, 29, 30, 31, 61]), 1) == [False, True, False, True, False]
    day = pd.Timedelta("1D")
    assert told(rows(A=[0, 86_400]), 1, every=day) == [False, False]


@pytest.mark.parametrize("seconds", [0, 14, 29.999999])
def test_a_stretch_holds_its_times(seconds):
    [time] = rows(A=[30 + seconds]).get_level_values("time")
    [start] = stretch_start(pd.DatetimeIndex([time]), HALF_MINUTE)
    assert start == pd.Timestamp("2024-03-01 10:00:30", tz="UTC")


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 200), st.sampled_from([-1, 0, 1]), st.floats(0, 1)), max_size=30
    ),
    st.integers(0, 200),
)
def test_what_a_row_is_does_not_depend_on_where_the_table_begins(said, first):
    """A daily run on overlapping data finds what it found before, if it brings the stretch."""
    said = sorted({second: (second, side, m) for second, side, m in said}.values())
    start = first - first % 30
    whole, part = said, [row for row in said if row[0] >= start]
    flags = {}
    for name, table in (("whole", whole), ("part", part)):
        index = rows(A=[row[0] for row in table]) if table else rows()
        if not len(index):
            return
        side, m = (np.array([row[k] for row in table]) for k in (1, 2))
        flags[name] = dict(zip([row[0] for row in table], told(index, side, m), strict=True))
    assert all(flags["whole"][second] == flag for second, flag in flags["part"].items())
