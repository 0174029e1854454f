import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.preprocessing import RobustScaler

from stages.panel import asset_codes
from stages.refiner.windows import Inputs, Reader, RobustScaling, passed
from tests.stages.refiner.conftest import panel_and_labels

TABLES = arrays(
    "float32",
    st.tuples(st.integers(1, 30), st.integers(1, 4)),
    elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
)


@given(TABLES, st.floats(0.5, 10))
def test_whatever_comes_in_the_nets_read_bounded_numbers(values, clip):
    scaled = RobustScaling.fit(values, clip)(values)
    assert scaled.shape == values.shape
    assert scaled.flags.c_contiguous
    assert np.isfinite(scaled).all()
    assert np.abs(scaled).max() <= np.float32(clip)


@given(TABLES)
def test_a_stored_scaling_scales_to_the_same_bits(values):
    scaling = RobustScaling.fit(values, 5)
    stored = RobustScaling.from_json(json.loads(json.dumps(scaling.to_json())))
    assert (stored(values) == scaling(values)).all()


def test_scales_are_those_of_scikit_learn():
    values = np.random.default_rng(0).lognormal(size=(500, 3)).astype("float32")
    oracle = RobustScaler(unit_variance=True).fit_transform(values)
    np.testing.assert_allclose(RobustScaling.fit(values, 1e9)(values), oracle, rtol=2e-4, atol=1e-5)


def test_a_missing_value_is_read_as_the_training_median():
    scaling = RobustScaling.fit(np.arange(9, dtype="float32")[:, None], 5)
    assert scaling(np.array([[np.nan], [4.0]], dtype="float32")).tolist() == [[0], [0]]


@pytest.mark.parametrize("column", [[7.0] * 9, [np.nan] * 9, [0.1] * 8 + [np.nan]])
def test_a_column_without_training_values_to_tell_apart_is_never_seen(column):
    scaling = RobustScaling.fit(np.array(column, dtype="float32")[:, None], 5)
    assert scaling(np.array([[-1e6], [3.0], [1e6]], dtype="float32")).tolist() == [[0], [0], [0]]


def test_a_mostly_constant_column_is_scaled_by_its_deviation():
    flags = np.array([0.0] * 9 + [1.0], dtype="float32")[:, None]
    assert RobustScaling.fit(flags, 5)(flags).max() == pytest.approx(1 / flags.std())


def test_windows_end_at_their_row():
    features = np.arange(20, dtype="float32").reshape(10, 2)
    inputs = Inputs(features, np.zeros((10, 0), dtype="float32"), window=3)
    windows = inputs.windows(np.array([2, 9]))
    assert windows[:, :, 0].tolist() == [[0, 2, 4], [14, 16, 18]]


def test_no_readable_window_begins_in_another_asset():
    panel, y = panel_and_labels(assets=3, bars=20)
    reader = Reader.fit(panel, y, window=6, clip=5)
    ends = np.flatnonzero(reader.readable(panel))
    codes = asset_codes(panel)
    assert (codes[ends] == codes[ends - 5]).all()
    assert len(ends) == 3 * 15


def test_scales_come_from_the_rows_to_learn_from_only():
    panel, y = panel_and_labels(assets=3, bars=40)
    early = y[y.index.get_level_values("time") < y.index.get_level_values("time")[25]]
    wild = panel.copy()
    wild.loc[y.index.difference(early.index)] *= 1000
    readers = [Reader.fit(table, early, 6, 5).to_json() for table in (panel, wild)]
    assert readers[0] == readers[1]


def test_static_inputs_are_the_standardised_mean_pair():
    panel, y = panel_and_labels(assets=3, bars=40)
    reader = Reader.fit(panel, y, window=1, clip=5)
    static = reader.read(panel).static
    mean = (panel["filter.a.z_buy"] + panel["filter.b.z_buy"]) / 2
    np.testing.assert_allclose(static[:, 1], (mean - mean.mean()) / mean.std(ddof=0), atol=1e-6)
    again = Reader.from_json(json.loads(json.dumps(reader.to_json()))).read(panel)
    assert (again.static == static).all()


def test_without_a_gate_every_row_passes():
    panel, _ = panel_and_labels(assets=2, bars=10)
    assert passed(panel.drop(columns="filter.gate")).all()
    assert passed(panel).tolist() == (panel["filter.gate"] == 1).tolist()
