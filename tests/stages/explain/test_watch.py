"""Reasons watched bar by bar: silent however often one looks, until the market's drivers change."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, kstest

from stages.base import DataError
from stages.explain.watch import _capital, _ranks, watch
from stages.markets import drift_rotation
from tests.stages.explain.made import between, dependent, explanation, truth


def parted(pushes: pd.DataFrame, cut: float) -> tuple:
    return tuple(explanation(between(pushes, *ends)) for ends in ((0, cut), (cut, 1)))


@pytest.mark.parametrize("rho", [0.0, 0.7])
def test_whoever_looks_after_every_block_is_alarmed_no_more_often_than_said(rho):
    rng, streams, level = np.random.default_rng(21), 60, 0.1
    alarms = 0
    for _ in range(streams):
        found = watch(*parted(dependent(rng, rho, 1000, 2, 6), 0.5), level=level)
        alarms += bool((found.path >= 1 / level).any())  # at any time, not at the end
    assert alarms <= binom.ppf(0.99, streams, level)


def test_ranks_of_what_does_not_change_are_uniform_and_bets_on_them_gain_nothing():
    rng = np.random.default_rng(22)
    ranks = _ranks(rng.normal(size=(30, 2000)), rng.normal(size=(6, 2000)), seed=0)
    for row in ranks:
        assert kstest(row, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(ranks[0], ranks[1])[0, 1]) < 0.1  # a rank tells nothing of the next
    capital = _capital(rng.random((50, 40_000)))[-1]
    assert capital.mean() == pytest.approx(1, abs=5 * capital.std() / np.sqrt(len(capital)))


def test_drivers_that_rotate_are_noticed_and_named():
    pushes, _ = truth(drift_rotation(3, times=1200, assets=4, features=8))
    found = watch(*parted(pushes, 0.25), span=2)
    assert found.alarm is not None
    assert found.alarm == found.path.index[found.path >= 20][0]
    assert set(found.by_input.index[:2]) <= {"x0", "x1", "x2", "x4"}
    assert found.by_input[["x5", "x6", "x7"]].max() < 20  # they carry nothing, before or after
    assert "others than at the training" in found.text
    kept = json.loads(json.dumps(found.record()))
    assert kept["alarm"] == found.alarm.isoformat()
    assert len(kept["path"]) == len(found.path)


def test_what_was_said_stays_said_when_more_bars_come():
    pushes = dependent(np.random.default_rng(23), 0.5, 500, 2, 4)
    training, later = parted(pushes, 0.5)
    times = later.contributions.index.get_level_values("time")
    early = later.contributions[times <= times.unique()[149]]
    whole, part = watch(training, later), watch(training, explanation(early))
    assert 0 < len(part.path) < len(whole.path)
    pd.testing.assert_series_equal(whole.path[: len(part.path)], part.path, check_exact=True)


def test_groups_push_as_their_inputs_do_together():
    pushes = dependent(np.random.default_rng(24), 0.0, 300, 2, 4)
    pushes["x1"] = -pushes["x0"]  # a group whose inputs undo each other never pushes
    found = watch(*parted(pushes, 0.5), groups={"x0": "a", "x1": "a", "x2": "b"})
    assert set(found.by_input.index) == {"a", "b", "x3"}
    assert found.path.iloc[-1] == pytest.approx(found.by_input.mean())


def test_too_little_to_compare_with_and_rows_that_are_not_later_are_refused():
    training, later = parted(dependent(np.random.default_rng(25), 0.0, 120, 2, 3), 0.5)
    with pytest.raises(DataError, match="blocks of 10 bars") as refused:
        watch(training, later, span=10)
    assert refused.value.code == "SV-F18"
    with pytest.raises(DataError, match="do not come after"):
        watch(later, training)
    with pytest.raises(ValueError, match="level"):
        watch(training, later, level=1.0)
    waiting = watch(training, explanation(later.contributions.groupby("asset").head(1)), span=2)
    assert not len(waiting.path)
    assert "full yet" in waiting.text
