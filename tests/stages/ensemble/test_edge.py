import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from stages.base import DataError
from stages.ensemble.edge import certainty, required_edge


def at_stake(**columns) -> pd.DataFrame:
    return pd.DataFrame({name: np.atleast_1d(values) for name, values in columns.items()})


def test_the_edge_asked_for_is_the_cost_over_the_return_at_stake():
    panel = at_stake(cost=[0.001, 0.0, 0.03, 0.001], scale=[0.01, np.nan, 0.01, np.nan])
    np.testing.assert_allclose(required_edge(panel), [0.1, 0, 1, np.nan])
    np.testing.assert_array_equal(required_edge(at_stake(close=[1.0, 2.0])), [0, 0])


def test_a_cost_without_any_stake_is_refused():
    with pytest.raises(DataError, match="at stake") as refusal:
        required_edge(at_stake(cost=[0.001]))
    assert refusal.value.code == "SV-X102"
    assert "costs=none" in str(refusal.value)


@given(
    margin=st.floats(-3, 3),
    sd=st.floats(0.01, 2),
    p_hold=st.floats(0, 0.95),
    edge=st.floats(0, 0.9),
)
def test_certainty_is_the_chance_that_the_side_earns_more_than_its_cost(margin, sd, p_hold, edge):
    """Counted over draws of the margin, from ``p_buy - p_sell > edge`` itself."""
    nodes = np.linspace(-8, 8, 20_001)
    weight = np.exp(-(nodes**2) / 2)
    up = expit(margin + sd * nodes)
    gain = (1 - p_hold) * (2 * up - 1)
    sells, buys = certainty(*(np.array([v]) for v in (margin, sd, p_hold, edge)))
    assert buys[0] == pytest.approx(weight[gain > edge].sum() / weight.sum(), abs=2e-3)
    assert sells[0] == pytest.approx(weight[-gain > edge].sum() / weight.sum(), abs=2e-3)


def test_a_hold_that_is_likely_makes_the_cost_harder_to_earn():
    rows = [np.full(3, v) for v in (1.0, 0.3)]
    _, buys = certainty(*rows, np.array([0.1, 0.5, 0.85]), np.full(3, 0.2))
    assert (np.diff(buys) < 0).all()
    assert buys[-1] == 0  # with 15 % left to move, no odds earn 20 % of the stake


def test_without_spread_a_margin_pays_or_does_not():
    sells, buys = certainty(np.array([0.5, 0.0, -0.5]), np.zeros(3), np.full(3, 1 / 3), np.zeros(3))
    np.testing.assert_array_equal(buys, [1, 0.5, 0])
    np.testing.assert_array_equal(sells, [0, 0.5, 1])


def test_what_is_unknown_stays_unknown():
    sells, buys = certainty(*(np.array([v]) for v in (0.5, 0.1, 0.3, np.nan)))
    assert np.isnan([sells[0], buys[0]]).all()
