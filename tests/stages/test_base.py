from copy import copy

import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from stages.base import (
    ArtifactError,
    ConfigError,
    DataError,
    Explanation,
    SieveError,
    State,
    StoreError,
    fitted,
)


def test_an_error_prints_what_where_why_and_the_cure_and_leaves_out_what_is_not_known():
    error = DataError(
        "2 rows stand twice",
        code="SV-F02",
        where="A at 2020-01-01",
        why="which holds?",
        cure="drop",
    )
    assert str(error).splitlines() == [
        "SV-F02  2 rows stand twice",
        "where   A at 2020-01-01",
        "why     which holds?",
        "cure    drop",
    ]
    assert str(SieveError("broken", code="SV-X01")) == "SV-X01  broken"


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [(SieveError, 1), (ConfigError, 2), (DataError, 3), (ArtifactError, 4), (StoreError, 5)],
)
def test_an_error_survives_the_way_back_from_a_worker_process(kind, exit_code):
    error = kind("broken", code="SV-F19", where="file.csv", why="truncated", cure="load it again")
    back = copy(error)  # goes the way of a process boundary, through __reduce__
    assert type(back) is kind
    assert back.exit_code == exit_code
    assert vars(back) == vars(error)
    assert str(back) == str(error)


def test_a_fault_in_a_table_is_a_value_error_too():
    with pytest.raises(ValueError, match="broken"):
        raise DataError("broken", code="SV-F20")


def test_what_an_explanation_leaves_open_is_its_gap():
    rows = pd.MultiIndex.from_tuples([("A", 1), ("A", 2)])
    series = lambda *values: pd.Series(values, rows)  # noqa: E731
    explanation = Explanation(
        contributions=pd.DataFrame({"flow": [0.2, 0.3], "value": [0.1, -0.1]}, rows),
        baseline=series(0.5, 0.5),
        output=series(0.8, 0.9),
        by_stage=pd.DataFrame({"filter": [0.3, 0.2]}, rows),
        raw_gap=series(0.0, 0.0),
        unit="log-odds of buy against sell",
    )
    assert list(explanation.gap.round(12)) == [0.0, 0.2]


def test_what_only_fitting_sets_is_asked_for_by_name():
    class Stage:
        pass

    with pytest.raises(NotFittedError, match="Stage has no width_ yet; call fit first"):
        fitted(Stage(), "width_")
    stage = Stage()
    stage.width_ = 0.7
    assert fitted(stage, "width_") == 0.7


def test_a_state_starts_empty():
    assert State() == State(values={}, parts={})
