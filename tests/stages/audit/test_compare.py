import numpy as np
import pandas as pd
import pytest

from stages.audit.compare import ROWS, Said, differences, differs

TIMES = pd.date_range("2024-01-01", periods=4, tz="UTC")
INDEX = pd.MultiIndex.from_product([["A", "B"], TIMES], names=["asset", "time"])


def said(values, index=INDEX, **more):
    return Said.at_rows("part", pd.DataFrame(values, index), **more)


def test_the_first_difference_of_each_column_is_named():
    x = np.arange(8.0)
    moved = x.copy()
    moved[[2, 6, 5]] += 1e-12  # the last digit counts
    found = list(differences(said({"x": x, "y": x}), said({"x": moved, "y": x}), TIMES[-1]))
    assert [(d.column, d.asset, d.time, d.rows) for d in found] == [("x", "B", TIMES[1], 3)]
    assert found[0].here == "5"


def test_what_is_settled_later_does_not_count():
    x = np.arange(8.0)
    later = np.where(INDEX.get_level_values("time") > TIMES[1], -1, x)
    assert not list(differences(said({"x": x}), said({"x": later}), TIMES[1]))
    assert list(differences(said({"x": x}), said({"x": later}), TIMES[2]))


@pytest.mark.parametrize("whole", [True, False])
def test_a_row_that_one_world_lacks_is_a_difference_if_all_are_due(whole):
    x = np.arange(8.0)
    here, there = said({"x": x}, whole=whole), said({"x": x[:-2]}, INDEX[:-2], whole=whole)
    found = list(differences(here, there, TIMES[-1]))
    assert [(d.column, d.time) for d in found] == ([(ROWS, TIMES[2])] if whole else [])


def test_rows_of_one_place_are_compared_in_order():
    index = INDEX[[0, 0, 1]]
    here, there = said({"x": [1, 2, 3]}, index), said({"x": [1, 5, 3, 4]}, INDEX[[0, 0, 1, 2]])
    found = list(differences(here, there, TIMES[1]))
    assert [(d.column, d.time, d.here, d.there) for d in found] == [("x", TIMES[0], "2", "5")]


def test_a_column_that_one_world_lacks_is_a_difference():
    found = list(differences(said({"x": range(8)}), said({"z": range(8)}), TIMES[-1]))
    assert [(d.column, d.here, d.there) for d in found] == [
        ("x", "0", "absent"),
        ("z", "absent", "0"),
    ]


@pytest.mark.parametrize(
    ("one", "two", "moved"),
    [
        ([1.0, np.nan], [1.0, np.nan], [False, False]),
        ([0.0, 1.0], [-0.0, np.nan], [False, True]),
        ([("a",), None], [("a",), None], [False, False]),
        ([("a",), None], [("a", "b"), np.nan], [True, False]),
        ([b"x", [1]], [b"y", [1]], [True, False]),
        (pd.array([1, pd.NA], "Int8"), pd.array([1, 0], "Int8"), [False, True]),
        (TIMES[:2], TIMES[1:3], [True, True]),
        (pd.array(["a", None], "str"), pd.array(["a", "b"], "str"), [False, True]),
    ],
)
def test_values_of_every_kind_are_compared(one, two, moved):
    np.testing.assert_array_equal(differs(pd.Series(one), pd.Series(two)), moved)
