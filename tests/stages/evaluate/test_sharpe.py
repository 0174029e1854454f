import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter
from skfolio import measures

from stages.evaluate.sharpe import (
    bars_per_year,
    deflated_sharpe,
    expected_maximum,
    minimum_track_record,
    probabilistic_sharpe,
    probability_above,
    sharpe_interval,
    sharpe_ratio,
)


def skewed(seed: int, bars: int = 500, mean: float = 0.03) -> np.ndarray:
    return mean + 1 - np.random.default_rng(seed).gamma(1.0, size=bars)


def test_the_ratio_is_the_mean_over_the_deviation():
    assert sharpe_ratio([0.01, 0.03]) == pytest.approx(0.02 / np.sqrt(0.0002))
    assert sharpe_ratio([0.02, -0.02]) == 0
    assert np.isnan([sharpe_ratio(r) for r in ([], [0.1], [0.1, 0.1])]).all()


def test_the_worked_example_of_the_deflated_sharpe_ratio():
    """Bailey & Lopez de Prado (2014), section "A numerical example"."""
    sharpe, variance = 2.5 / math.sqrt(250), 0.5 / 250
    assert expected_maximum(100, variance) == pytest.approx(0.1132, abs=5e-5)
    for trials, skewness, kurt, said in (
        (100, -3, 10, 0.9004),
        (46, -3, 10, 0.9505),
        (88, 0, 3, 0.9505),
    ):
        best = expected_maximum(trials, variance)
        assert probability_above(sharpe, best, 1250, skewness, kurt) == pytest.approx(
            said, abs=5e-5
        )


def test_the_worked_examples_of_the_probabilistic_sharpe_ratio():
    """Bailey & Lopez de Prado (2012): a hedge fund of 24 months, and exhibits of the length."""
    assert probability_above(0.458, 0, 24, -2.448, 10.164) == pytest.approx(0.913, abs=5e-4)
    assert probability_above(0.458, 0, 24) == pytest.approx(0.982, abs=5e-4)
    years = {252: 2.73, 52: 2.83, 12: 3.24}
    for bars, said in years.items():
        length = minimum_track_record(2 / math.sqrt(bars), 1 / math.sqrt(bars)) / bars
        assert length == pytest.approx(said, abs=5e-3)
    hedge = minimum_track_record(2 / math.sqrt(12), 1 / math.sqrt(12), -0.72, 5.78) / 12
    assert hedge == pytest.approx(4.99, abs=5e-3)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), benchmark=st.floats(-0.1, 0.1), trials=st.integers(1, 5000))
def test_the_ratios_are_those_of_skfolio(seed, benchmark, trials):
    returns = skewed(seed)
    theirs = measures.probabilistic_sharpe_ratio(returns, benchmark)
    assert probabilistic_sharpe(returns, benchmark) == pytest.approx(theirs, abs=1e-7)
    best = measures.expected_max_sharpe_ratio(trials, 0.03)
    assert expected_maximum(trials, 0.03**2) == pytest.approx(best, abs=1e-12)
    theirs = measures.probabilistic_sharpe_ratio(returns, best)
    assert deflated_sharpe(returns, trials, 0.03**2) == pytest.approx(theirs, abs=1e-7)


def test_the_least_length_is_the_one_at_which_the_probability_is_reached():
    length = minimum_track_record(0.1, 0.02, -0.5, 6)
    assert probability_above(0.1, 0.02, math.ceil(length), -0.5, 6) >= 0.95
    assert probability_above(0.1, 0.02, math.ceil(length) - 1, -0.5, 6) < 0.95
    assert minimum_track_record(0.02, 0.02) == math.inf
    assert np.isnan(minimum_track_record(float("nan")))


def test_of_many_trials_on_noise_the_best_looks_skilful_and_deflated_does_not():
    """500 trials of a year: a Sharpe near 3 by luck alone; 100 repeats."""
    best, said = [], []
    for seed in range(100):
        returns = np.random.default_rng(seed).normal(0, 0.01, size=(500, 252))
        sharpe = returns.mean(axis=1) / returns.std(axis=1, ddof=1)
        best.append(sharpe.max() * math.sqrt(252))
        said.append(deflated_sharpe(returns[sharpe.argmax()], 500, sharpe.var(ddof=1)))
    assert min(best) > 2
    assert np.mean(best) == pytest.approx(3, abs=0.2)
    assert np.mean(np.array(said) < 0.95) >= 0.99
    assert 0.4 <= np.mean(said) <= 0.6


def test_a_single_trial_of_noise_is_as_likely_above_zero_as_below():
    said = [probabilistic_sharpe(skewed(seed, 400, mean=0.0)) for seed in range(400)]
    assert np.quantile(said, [0.05, 0.5, 0.95]) == pytest.approx([0.05, 0.5, 0.95], abs=0.06)


def test_dependent_bars_leave_more_doubt():
    noise = np.random.default_rng(0).normal(size=3000)
    returns = lfilter([1], [1, -0.6], noise) + 0.1
    said = sharpe_interval(returns, resamples=300)
    assert said["error"] > 1.5 / math.sqrt(len(returns))
    plain = probabilistic_sharpe(returns)
    assert 0.5 < probabilistic_sharpe(returns, error=said["error"]) < plain
    assert probabilistic_sharpe(returns, error=1e-9) == plain  # never less doubt than the formula


def test_the_interval_holds_a_true_ratio_as_often_as_it_says():
    covered = 0
    for seed in range(200):
        noise = np.random.default_rng(seed).normal(size=600)
        returns = lfilter([1], [1, -0.3], noise)  # positions that are held for bars
        deviation = 1 / math.sqrt(1 - 0.09)
        said = sharpe_interval(returns + 0.1 * deviation, resamples=200, seed=seed)
        covered += said["low"] <= 0.1 <= said["high"]
    assert 0.91 <= covered / 200 <= 0.985


def test_returns_that_never_differ_have_no_ratio():
    assert np.isnan(list(sharpe_interval(np.zeros(50)).values())).all()
    assert np.isnan([probabilistic_sharpe(np.zeros(50)), deflated_sharpe(np.ones(3), 5, 0.1)]).all()
    assert np.isnan(probability_above(1.0, 0.0, 50, skewness=9.0))


@pytest.mark.parametrize(("trials", "variance"), [(0, 0.1), (5, -0.1), (5, float("nan"))])
def test_an_impossible_search_is_refused(trials, variance):
    with pytest.raises(ValueError, match="need trials >= 1 and variance >= 0"):
        expected_maximum(trials, variance)


def test_a_year_has_as_many_bars_as_the_times_show():
    days = pd.bdate_range("2010-01-04", "2019-12-31", tz="UTC")
    assert bars_per_year(days) == 261
    assert bars_per_year(pd.date_range("2015-01-01", periods=1000, freq="h", tz="UTC")) == 8766
    assert bars_per_year(pd.date_range("2000-01-01", periods=20, freq="YS")) == pytest.approx(
        1, abs=0.01
    )
    assert np.isnan(bars_per_year(days[:1]))
