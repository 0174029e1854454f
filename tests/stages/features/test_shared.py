"""What functions share is computed once, and the values are those they have alone."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from stages.base import DataError
from stages.features.build import FeatureSet
from stages.features.cross_section import rank
from stages.features.kernels import checked, window_mean
from stages.features.returns import log_return
from stages.features.shared import shared, sharing
from stages.panel import warms_up

X = np.random.default_rng(0).lognormal(size=100)
calls = []


@shared
def doubled(x, times=2):
    calls.append(times)
    return x * times


def test_the_same_arrays_and_settings_are_computed_once():
    calls.clear()
    with sharing():
        first, again, other = doubled(X, 2), doubled(X, 2), doubled(X, 3)
        copy = doubled(X.copy(), 2)
    assert again is first
    assert calls == [2, 3, 2]  # another array may hold other numbers
    assert_array_equal(other, 3 * X)
    assert_array_equal(copy, first)
    doubled(X, 2)
    assert len(calls) == 4  # outside nothing is kept


def test_what_is_shared_cannot_be_changed_and_kernels_take_it():
    with sharing():
        made = doubled(X, 2)
        with pytest.raises(ValueError, match="read-only"):
            made[0] = 1.0
        own = checked(made, 1)
        assert own.flags.writeable  # for compiled code, which does not write to it
        assert np.shares_memory(own, made)
        assert_array_equal(window_mean(made, 5), window_mean(2 * X, 5))
    part = np.arange(6.0)[1:4]
    part.flags.writeable = False
    assert_array_equal(checked(part, 1), [1.0, 2.0, 3.0])


def test_threads_keep_their_own():
    with sharing(), ThreadPoolExecutor(1) as pool:
        here = doubled(X, 5)
        assert pool.submit(doubled, X, 5).result() is not here


def test_a_shared_function_keeps_what_it_says_of_itself():
    assert log_return.__name__ == "log_return"
    assert log_return.warmup(bars=3) == 3
    assert partial(log_return, bars=2)(X)[2:] == pytest.approx(np.log(X[2:] / X[:-2]))


@warms_up(lambda **_: 0)
def spoilt(close):
    """Writes to what a kernel gave it: a fault that shows."""
    mean = window_mean(close, 3)
    mean[:] = 0.0
    return mean


def test_a_feature_that_writes_to_what_others_read_is_found(bars):
    with pytest.raises(ValueError, match="read-only"):
        FeatureSet({"a": spoilt, "b": partial(log_return, bars=1)}).fit(bars).build(bars)


@warms_up(lambda **_: 0)
def endless(close):
    with np.errstate(divide="ignore"):
        return 1 / (close - close[0])


def test_threads_give_the_same_bits_and_the_same_errors(bars, monkeypatch):
    monkeypatch.setattr("stages.features.rows.STRETCH", 300)  # an asset at a time
    columns = {
        "return_1": partial(log_return, bars=1),
        "rank": partial(rank, of="return_1"),
        "rank_of_rank": partial(rank, of="rank"),
        "mean": partial(log_return, close="rank_of_rank", bars=2),
    }
    features = FeatureSet(columns).fit(bars)
    one, two = features.build(bars), features.build(bars, threads=2)
    assert_array_equal(one.to_numpy(), two.to_numpy())
    with pytest.raises(DataError, match="feature.x is infinite for") as caught:
        FeatureSet({"x": endless, **columns}).fit(bars).build(bars, threads=2)
    assert caught.value.code == "SV-F12"
    with pytest.raises(ValueError, match="threads must be at least 1"):
        features.build(bars, threads=0)
