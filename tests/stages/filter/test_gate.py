import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.base import DataError
from stages.filter.gate import OPEN, gate_score, gate_threshold

rows = st.lists(
    st.tuples(st.integers(-5, 5), st.booleans(), st.floats(0.01, 10)), min_size=1, max_size=30
)


def test_the_score_is_the_log_odds_of_the_likelier_move():
    p = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])  # sell, hold, buy
    z = np.log(p[:, [0, 2]] / p[:, [1]])
    said = pd.DataFrame(z, columns=["filter.a.z_sell", "filter.a.z_buy"])
    np.testing.assert_allclose(gate_score(said), [0, np.log(0.7 / 0.3)], atol=1e-12)


def test_members_are_averaged_as_logits_and_other_columns_do_not_count():
    said = pd.DataFrame({"filter.a.z_sell": [1.0], "filter.a.z_buy": [0.0]})
    two = said.assign(**{"filter.b.z_sell": 3.0, "filter.b.z_buy": -2.0})
    mean = said.assign(**{"filter.a.z_sell": 2.0, "filter.a.z_buy": -1.0})
    noise = {"filter.gate": 0.0, "refiner.a.z_sell": 9.0, "feature.x": 9.0}
    assert gate_score(two.assign(**noise)) == gate_score(mean)


def test_a_row_without_logits_has_no_score():
    said = pd.DataFrame({"filter.a.z_sell": [np.nan], "filter.a.z_buy": [0.0]})
    assert np.isnan(gate_score(said)).all()
    with pytest.raises(DataError, match="z_sell to score by"):
        gate_score(pd.DataFrame({"filter.gate": [1.0]}))


@given(rows, st.floats(0.05, 0.99))
def test_the_threshold_is_the_largest_that_keeps_the_recall(table, recall):
    scores, fires, weights = (np.array(column) for column in zip(*table, strict=True))
    threshold = gate_threshold(scores, fires, recall, weights)
    if not fires.any():
        assert threshold == OPEN
        return

    def kept(low):
        return weights[fires & (scores >= low)].sum() / weights[fires].sum()

    assert kept(threshold) >= recall - 1e-9
    assert all(kept(higher) < recall + 1e-9 for higher in scores[fires & (scores > threshold)])


def test_shares_lose_no_row_to_rounding():
    assert gate_threshold(np.arange(20.0), np.ones(20, dtype=bool), 0.95) == 1


def test_full_recall_leaves_the_gate_open_and_unscored_rows_do_not_count():
    scores, fires = np.array([np.nan, 1.0, 2.0]), np.ones(3, dtype=bool)
    assert gate_threshold(scores, fires, 1) == OPEN
    assert gate_threshold(scores, fires, 0.9) == 1


@given(rows, st.floats(0.05, 0.99), st.floats(0, 0.9))
def test_a_gate_that_would_stop_too_few_stays_open(table, recall, least):
    scores, fires, weights = (np.array(column) for column in zip(*table, strict=True))
    free = gate_threshold(scores, fires, recall, weights)
    held = gate_threshold(scores, fires, recall, weights, least)
    stopped = weights[scores < free].sum() / weights.sum()
    if abs(stopped - least) > 1e-9:
        assert held == (free if stopped >= least else OPEN)


def test_a_score_that_knows_nothing_leaves_the_gate_open():
    rng = np.random.default_rng(0)
    scores, fires = rng.normal(size=4000), rng.random(4000) < 0.5
    assert gate_threshold(scores, fires, 0.95) > OPEN
    assert gate_threshold(scores, fires, 0.95, least=0.1) == OPEN
    assert gate_threshold(scores + 3 * fires, fires, 0.95, least=0.1) > OPEN
