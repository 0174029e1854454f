import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from stages.features import kernels

VALUES = arrays(
    "float64",
    st.integers(1, 60),
    elements=st.one_of(st.floats(-1e3, 1e3, width=32), st.just(np.nan)),
)


def rolling(x, bars):
    return pd.Series(x).rolling(bars)


@settings(max_examples=60, deadline=None)
@given(VALUES, st.integers(1, 20))
def test_windows_equal_pandas(x, bars):
    assert_allclose(kernels.window_sum(x, bars), rolling(x, bars).apply(np.sum), atol=1e-8)
    assert_allclose(kernels.window_mean(x, bars), rolling(x, bars).apply(np.mean), atol=1e-8)
    assert_array_equal(kernels.window_max(x, bars), rolling(x, bars).max())
    assert_array_equal(kernels.window_min(x, bars), rolling(x, bars).min())
    if bars > 1:
        expected = rolling(x, bars).apply(lambda w: np.std(w, ddof=1))
        assert_allclose(kernels.window_sd(x, bars), expected, rtol=1e-7, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(VALUES, st.integers(1, 20))
def test_a_value_depends_on_its_window_alone(x, bars):
    """Bit for bit, and whatever else the series holds."""
    for kernel in (
        kernels.window_sum,
        kernels.window_max,
        kernels.window_share_below,
        lambda v, w: kernels.window_moment(v, kernels.window_mean(v, w), w, 3),
        lambda v, w: kernels.window_covariance(v, v**2, w),
        lambda v, w: kernels.smoothed(v, 0.3, w),
    ):
        whole = kernel(x, bars)
        assert np.isnan(whole[: bars - 1]).all()
        for row in range(bars - 1, len(x)):
            window = x[row - bars + 1 : row + 1]
            assert_array_equal(kernel(window, bars)[-1], whole[row])
            assert np.isnan(whole[row]) == np.isnan(window).any()


def test_moments_and_covariance_equal_numpy():
    x, y = np.random.default_rng(0).normal(size=(2, 40))
    mean = kernels.window_mean(x, 40)
    for power in (2, 3, 4):
        got = kernels.window_moment(x, mean, 40, power)[-1]
        assert got == pytest.approx(np.mean((x - x.mean()) ** power))
    assert kernels.window_covariance(x, y, 40)[-1] == pytest.approx(np.cov(x, y, ddof=0)[0, 1])


def test_smoothing_is_the_exponential_average_of_the_window():
    x = np.random.default_rng(0).normal(100, 1, 50)
    expected = pd.Series(x[-30:]).ewm(alpha=0.2, adjust=True).mean().iloc[-1]
    assert kernels.smoothed(x, 0.2, 30)[-1] == pytest.approx(expected, rel=1e-13)
    uneven = kernels.smoothed(x, np.full(50, 0.2), 30)[-1]
    assert uneven == pytest.approx(expected, rel=1e-13)


def test_smoothing_without_any_weight_is_unknown():
    assert np.isnan(kernels.smoothed(np.ones(5), np.zeros(5), 3)).all()


def test_the_share_below_counts_ties_half():
    x = np.array([1.0, 2, 2, 3, 0])
    assert_allclose(kernels.window_share_below(x, 4)[3:], [3.5 / 4, 0.5 / 4])
    assert kernels.window_share_below(np.ones(4), 4)[-1] == 0.5


def test_what_stands_still_has_no_deviation_at_all():
    """0.1 is no binary fraction: naively the mean of ten differs from each of them."""
    for level in (0.1, 1e-6, 123456.7):
        assert (kernels.window_sd(np.full(30, level), 10)[9:] == 0).all()


def test_quotients_of_nothing_are_unknown():
    top, bottom = np.array([1.0, 0, -1, np.nan, 4]), np.array([0.0, 0, 0, 1, 2])
    assert_array_equal(kernels.ratio(top, bottom), [np.nan, np.nan, np.nan, np.nan, 2])
    assert_array_equal(
        kernels.log_ratio(np.array([1.0, -1, 0, np.nan]), np.array([1.0, 1, 1, 1])),
        [0, np.nan, np.nan, np.nan],
    )


def test_shifting_looks_back_and_never_ahead():
    x = np.arange(3.0)
    assert_array_equal(kernels.shifted(x, 1), [np.nan, 0, 1])
    assert_array_equal(kernels.shifted(x, 5), [np.nan] * 3)
    assert_array_equal(kernels.shifted(x, 0), x)
    with pytest.raises(ValueError, match="reads the future"):
        kernels.shifted(x, -1)


def test_read_only_and_whole_number_input_is_taken():
    x = np.arange(5)
    x.flags.writeable = False
    assert kernels.window_mean(x, 5)[-1] == 2


@pytest.mark.parametrize("kernel", [kernels.window_sum, kernels.window_max, kernels.window_min])
def test_an_empty_window_is_refused(kernel):
    with pytest.raises(ValueError, match="at least 1 bar, got 0"):
        kernel(np.ones(5), 0)


def test_a_deviation_of_one_bar_is_refused():
    with pytest.raises(ValueError, match="needs 2 bars, got 1"):
        kernels.window_sd(np.ones(5), 1)


HALVED = {
    "sum": lambda x, y, bars: kernels.window_sum(x, bars),
    "sd": lambda x, y, bars: kernels.window_sd(x, bars),
    "covariance": kernels.window_covariance,
    "smoothed": lambda x, y, bars: kernels.smoothed(x, 0.1, bars),
}


@pytest.mark.parametrize("name", HALVED)
@pytest.mark.parametrize("bars", [2, 3, 20, 31, 32, 60, 252])
def test_a_window_has_the_same_bits_alone_in_a_series_and_beside_others(name, bars):
    rng = np.random.default_rng(bars)
    x, y = rng.normal(5, 1, 600), rng.normal(size=600)
    x[40] = np.nan
    whole = HALVED[name](x, y, bars)
    for rows in (1, 2, 4, 5, 9):  # a few are added up in another way
        length = bars + rows - 1
        alone = HALVED[name](x[-length:], y[-length:], bars)
        assert_array_equal(alone[bars - 1 :], whole[-rows:])
        assert np.isnan(alone[: bars - 1]).all()
        wide = np.stack([x, y, x * y], axis=1)[-length:].copy()
        beside = HALVED[name](wide, wide[:, ::-1].copy(), bars)
        for column in range(3):
            own = wide[:, column].copy(), wide[:, 2 - column].copy()
            assert_array_equal(beside[:, column], HALVED[name](*own, bars))


def test_what_stands_still_has_no_spread_and_what_hardly_moves_has_its_own():
    x = np.full(300, 12345.678)
    assert (kernels.window_sd(x, 60)[59:] == 0).all()
    small = 1e6 + np.random.default_rng(0).normal(0, 1e-4, 300)
    exact = pd.Series(small - 1e6).rolling(60).std()
    assert_allclose(kernels.window_sd(small, 60)[59:], exact[59:], rtol=1e-9)
