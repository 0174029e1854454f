import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.online.change import ChangeWatch, barrier

BARS = 30_000


def gauss(rng, n):
    return rng.standard_normal(n)


def overlapping(rng, n):
    return np.convolve(rng.standard_normal(n + 4), np.ones(5), "valid")


def skewed(rng, n):
    return rng.exponential(1.0, n)


def alarms(x, **settings):
    watch = ChangeWatch(**settings)
    return [t for t, value in enumerate(x.tolist()) if watch.update(value)]


def test_the_barrier_keeps_the_run_length_it_was_solved_for():
    rng = np.random.default_rng(0)
    height, lengths = barrier(300, 0.25), []
    for _ in range(300):
        total, t = 0.0, 0
        while total <= height:
            total, t = max(0.0, total + rng.standard_normal() - 0.25), t + 1
        lengths.append(t)
    assert np.mean(lengths) == pytest.approx(300, rel=0.15)


@pytest.mark.parametrize("stream", [gauss, overlapping, skewed])
def test_false_alarms_come_no_more_often_than_promised(stream):
    count = sum(
        len(alarms(stream(np.random.default_rng(s), BARS), run_length=2000)) for s in range(5)
    )
    assert 0 < count <= 5 * BARS / 2000 * 1.25  # a quarter is two standard errors


@pytest.mark.parametrize("by", ["page_hinkley", "adwin"])
@pytest.mark.parametrize("stream", [gauss, overlapping])
def test_a_shift_is_found_soon(by, stream):
    found = []
    for seed in range(10):
        x = stream(np.random.default_rng(seed), 1500)
        x[500:] += 1.5 * x[:500].std()
        found.append(next((t for t in alarms(x, by=by) if t >= 500), 1500) - 500)
    assert np.median(found) <= 250


def test_a_fall_alarms_only_where_both_sides_are_watched():
    x = gauss(np.random.default_rng(0), 1500)
    x[500:] -= 2
    assert not alarms(x, side="up")
    assert not alarms(x, side="up", by="adwin")
    assert alarms(x, side="both")
    assert alarms(x, side="both", by="adwin")


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.integers(0, 100))
@settings(max_examples=8, deadline=None)
def test_alarms_do_not_depend_on_where_zero_is_or_on_the_unit(offset, unit, seed):
    x = gauss(np.random.default_rng(seed), 800)
    x[400:] += 1.5
    assert alarms(x) == alarms(offset + unit * x)


def test_a_constant_series_never_alarms_and_a_jump_after_it_does():
    x = np.ones(1000)
    assert not alarms(x)
    x[300] = 1 + 1e-9  # now it has a spread
    x[600:] = 5
    assert alarms(x)


@pytest.mark.parametrize(
    "wrong", [{"run_length": 10}, {"block": 0}, {"slack": 0}, {"side": "down"}, {"by": "luck"}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="need"):
        ChangeWatch(**wrong)
