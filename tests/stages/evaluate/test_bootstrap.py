import numpy as np
import pytest
from arch.bootstrap import optimal_block_length
from scipy.signal import lfilter

from stages.evaluate import bootstrap
from stages.evaluate.bootstrap import (
    autocovariance,
    block_length,
    influence,
    interval,
    long_run,
    resample,
    stationary_bootstrap,
)


def persistent(seed: int, bars: int, decay: float) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=bars + 100)
    return lfilter([1], [1, -decay], noise)[100:]


def mean(sums: np.ndarray) -> np.ndarray:
    return np.asarray(sums[..., 1:] / sums[..., :1])


def counted(x: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones(len(x)), x])


def test_every_history_has_as_many_bars_and_the_mean_of_all_is_the_sample():
    sums = np.column_stack([np.ones(200), np.arange(200.0)])
    drawn = stationary_bootstrap(sums, block=8, resamples=2000)
    assert (drawn[:, 0] == 200).all()
    assert drawn[:, 1].mean() == pytest.approx(sums[:, 1].sum(), rel=0.01)


def test_blocks_of_one_bar_are_the_plain_bootstrap():
    x = np.random.default_rng(0).normal(size=400)
    drawn = stationary_bootstrap(x[:, None], block=1, resamples=4000)[:, 0] / 400
    assert drawn.std() == pytest.approx(x.std() / 20, rel=0.05)


def test_blocks_widen_the_interval_of_a_persistent_series():
    rng = np.random.default_rng(0)
    x = np.convolve(rng.normal(size=2019), np.ones(20), mode="valid") / np.sqrt(20)
    spread = {
        block: stationary_bootstrap(x[:, None], block, 1000)[:, 0].std() for block in (1, 20, 80)
    }
    long_run = np.sqrt(20 * len(x))  # sd of the sum of a moving average over 20 bars
    assert spread[1] < 0.4 * long_run
    assert spread[20] > 2 * spread[1]
    assert spread[80] == pytest.approx(long_run, rel=0.35)


def test_a_block_is_a_run_of_successors():
    rng = np.random.default_rng(1)
    counts = bootstrap._counts(rng, resamples=300, bars=50, block=1e9)
    assert (counts == 1).all()  # one endless block goes round once


def test_one_seed_draws_one_set_of_histories_in_as_many_parts_as_memory_asks(monkeypatch):
    sums = np.random.default_rng(0).normal(size=(60, 3))
    one = stationary_bootstrap(sums, 5, 50, seed=3)
    np.testing.assert_array_equal(one, stationary_bootstrap(sums, 5, 50, seed=3))
    assert not np.array_equal(one, stationary_bootstrap(sums, 5, 50, seed=4))
    monkeypatch.setattr(bootstrap, "CHUNK", 600)
    assert stationary_bootstrap(sums, 5, 50, seed=3).shape == one.shape


@pytest.mark.parametrize(("bars", "decay"), [(250, 0.0), (250, 0.6), (1000, 0.6), (1000, 0.9)])
def test_an_interval_covers_the_mean_as_often_as_it_says(bars, decay):
    """Blocks of T^(1/3) bars, by percentiles, hold it in 0.93, 0.88, 0.92 and 0.83 of the cases."""
    held = []
    for seed in range(200):
        out = resample(mean, counted(persistent(seed, bars, decay)), 1, 100, seed)
        low, high = interval(out.drawn[:, 0])
        held.append(low <= 0 <= high)
    assert 0.90 <= np.mean(held) <= 0.985


def test_labels_that_overlap_widen_the_interval_as_they_should():
    """Sums over five bars, one begun at each bar: five times the variance of the mean."""
    ends = []
    for seed in range(60):
        noise = np.random.default_rng(seed).normal(size=1004)
        x = np.convolve(noise, np.ones(5), mode="valid")
        ends.append(resample(mean, counted(x), 5, 100, seed).error[0])
    assert np.mean(ends) == pytest.approx(5 / np.sqrt(1000), rel=0.06)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.6, 0.9, -0.5])
@pytest.mark.parametrize("bars", [60, 250, 2000])
def test_the_block_length_is_that_of_arch(bars, decay):
    pairs = []
    for seed in range(20):
        x = persistent(seed, bars, decay)
        theirs = float(optimal_block_length(x)["stationary"].iloc[0])
        pairs.append((block_length(autocovariance(x), bars), max(theirs, 1)))
    # they norm each autocorrelation by the bars it spans, which now and then moves the last lag
    same = np.isclose(*np.array(pairs).T, rtol=1e-6)
    assert same.mean() >= (0.6 if bars < 100 else 0.85)


def test_the_long_run_variance_of_a_persistent_series_is_found():
    for decay in (0.0, 0.5, 0.8, -0.4):
        found, freedom = zip(
            *(
                long_run(autocovariance(persistent(seed, 4000, decay)), 4000, 1)
                for seed in range(30)
            ),
            strict=True,
        )
        assert np.mean(found) == pytest.approx(1 / (1 - decay) ** 2, rel=0.1)
        assert min(freedom) > 20


def test_autocovariances_are_those_of_the_definition():
    x = persistent(0, 50, 0.5)
    centred = x - x.mean()
    expected = [(centred[k:] * centred[: len(x) - k]).sum() / len(x) for k in range(len(x))]
    np.testing.assert_allclose(autocovariance(x), expected, atol=1e-12)


def test_the_influence_of_a_bar_is_what_the_figure_gains_by_it():
    x = np.random.default_rng(0).normal(size=300)
    np.testing.assert_allclose(influence(mean, counted(x))[:, 0], x - x.mean(), atol=1e-3)


def test_a_figure_that_is_not_defined_has_no_error_and_a_constant_no_width():
    def figures(sums: np.ndarray) -> np.ndarray:
        nothing = np.full(sums.shape[:-1], np.nan)
        return np.stack([nothing, sums[..., 0] / sums[..., 0]], axis=-1)

    out = resample(figures, counted(np.arange(40.0)), 1, 20)
    assert np.isnan(out.error[0])
    assert np.isnan(out.drawn[:, 0]).all()
    assert (out.drawn[:, 1] == 1).all()
    one = resample(mean, counted(np.array([3.0])), 1, 20)
    assert one.value[0] == 3
    np.testing.assert_allclose(one.drawn, 3)


def test_an_interval_of_nothing_is_nothing():
    assert np.isnan(interval(np.array([np.nan, np.nan]))).all()
    assert interval(np.array([1.0, np.nan, 1.0])) == (1.0, 1.0)


@pytest.mark.parametrize(("block", "resamples", "bars"), [(0.5, 10, 5), (1, 1, 5), (1, 10, 0)])
def test_an_impossible_bootstrap_is_refused(block, resamples, bars):
    with pytest.raises(ValueError, match="need bars, block >= 1, resamples >= 2"):
        stationary_bootstrap(np.ones((bars, 1)), block, resamples)
