import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from stages.features import line, order

# few different values, so that ties come up
VALUES = arrays(
    "float64",
    st.integers(1, 60),
    elements=st.one_of(st.integers(-3, 3).map(float), st.floats(-1e3, 1e3), st.just(np.nan)),
)
KERNELS = {
    "quantile": lambda x, bars: order.window_quantile(x, bars, 0.8),
    "place of max": order.window_place_of_max,
    "place of min": order.window_place_of_min,
}
LINES = {"slope": line.window_slope, "fit": line.window_fit, "residual": line.window_residual}


@settings(max_examples=80, deadline=None)
@given(VALUES, st.integers(1, 20), st.floats(0, 1))
def test_order_statistics_equal_pandas(x, bars, share):
    rolling = pd.Series(x).rolling(bars)
    assert_allclose(order.window_quantile(x, bars, share), rolling.quantile(share), atol=1e-9)
    places = rolling.apply(lambda w: np.argmax(w) + 1, raw=True)
    assert_array_equal(order.window_place_of_max(x, bars), places)
    places = rolling.apply(lambda w: np.argmin(w) + 1, raw=True)
    assert_array_equal(order.window_place_of_min(x, bars), places)


@settings(max_examples=60, deadline=None)
@given(VALUES, st.integers(2, 20))
def test_a_value_depends_on_its_window_alone(x, bars):
    """Bit for bit, and whatever else the series holds."""
    for kernel in (*KERNELS.values(), line.window_slope, line.window_residual):
        whole = kernel(x, bars)
        assert np.isnan(whole[: bars - 1]).all()
        for row in range(bars - 1, len(x)):
            window = x[row - bars + 1 : row + 1]
            assert_array_equal(kernel(window, bars)[-1], whole[row])
            assert np.isnan(whole[row]) == np.isnan(window).any()


def test_the_line_equals_least_squares():
    x = np.random.default_rng(0).normal(1e6, 1, 40)
    place = np.arange(40)
    slope, level = np.polyfit(place, x - 1e6, 1)
    assert line.window_slope(x, 40)[-1] == pytest.approx(slope, rel=1e-9)
    rest = x[-1] - 1e6 - level - slope * 39
    assert line.window_residual(x, 40)[-1] == pytest.approx(rest, rel=1e-8)
    assert line.window_fit(x, 40)[-1] == pytest.approx(np.corrcoef(place, x)[0, 1] ** 2, rel=1e-8)


def test_a_straight_line_fits_itself_and_a_level_has_no_fit():
    x = 3.0 + 2.0 * np.arange(30)
    assert_allclose(line.window_slope(x, 7)[6:], 2)
    assert_allclose(line.window_fit(x, 7)[6:], 1)
    assert_allclose(line.window_residual(x, 7)[6:], 0, atol=1e-12)
    assert np.isnan(line.window_fit(np.full(30, 0.1), 7)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: order.window_quantile(np.ones(3), 2, 1.5), "share must lie"),
        (lambda: order.window_quantile(np.ones(3), 0, 0.5), "at least 1 bar"),
        (lambda: line.window_slope(np.ones(3), 1), "a line needs 2 bars"),
    ],
)
def test_what_makes_no_window_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
