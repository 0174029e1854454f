import numpy as np
import pytest

from stages.evaluate import bootstrap
from stages.evaluate.bootstrap import interval, stationary_bootstrap


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


def test_an_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        x = rng.normal(size=200)
        low, high = interval(stationary_bootstrap(x[:, None], 5, 300, seed)[:, 0])
        covered += low <= 0 <= high
    assert 0.88 <= covered / 200 <= 0.98


def test_an_interval_of_nothing_is_nothing():
    assert np.isnan(interval(np.array([np.nan, np.nan]))).all()
    assert interval(np.array([1.0, np.nan, 1.0])) == (1.0, 1.0)


@pytest.mark.parametrize(("block", "resamples", "bars"), [(0.5, 10, 5), (1, 1, 5), (1, 10, 0)])
def test_an_impossible_bootstrap_is_refused(block, resamples, bars):
    with pytest.raises(ValueError, match="need bars, block >= 1, resamples >= 2"):
        stationary_bootstrap(np.ones((bars, 1)), block, resamples)
