import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.evaluate.overfitting import overfitting


def noise(seed: int, bars: int = 240, trials: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.01, size=(bars, trials))


def sharpe(returns: np.ndarray) -> float:
    return returns.mean() / returns.std(ddof=1)


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 10_000), trials=st.sampled_from([2, 4, 10]), blocks=st.sampled_from([2, 6])
)
def test_the_logits_are_those_of_another_implementation(seed, trials, blocks):
    purgedcv = pytest.importorskip("purgedcv")
    returns = noise(seed, trials=trials)
    theirs = purgedcv.probability_of_backtest_overfitting(returns.T, blocks, metric=sharpe)
    ours = overfitting(returns, blocks)
    np.testing.assert_allclose(np.sort(ours.logits), np.sort(theirs.logits), rtol=1e-9)
    assert ours.probability == pytest.approx(theirs.pbo)
    chosen = np.sort(theirs.is_oos_performance, axis=0)
    np.testing.assert_allclose(np.sort(ours.chosen, axis=0), chosen, atol=1e-10)


def test_the_choice_among_trials_without_skill_is_worth_nothing():
    said = [overfitting(noise(seed, trials=9), 8) for seed in range(200)]
    assert np.mean([s.probability for s in said]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([s.loss for s in said]) == pytest.approx(0.5, abs=0.05)


def test_one_trial_with_skill_among_many_is_found_again():
    returns = noise(0, 1000, 20)
    returns[:, 3] += 0.002
    said = overfitting(returns)
    assert said.probability < 0.01
    assert said.loss < 0.01
    assert len(said.logits) == 12_870


def test_a_trial_that_lives_in_one_half_only_fails_in_the_other():
    """What was best where it was looked for is worst elsewhere: overfit by construction."""
    returns = noise(0, 800, 6) / 10
    for trial, block in enumerate(np.array_split(np.arange(800), 6)):
        returns[:, trial] -= 0.004
        returns[block, trial] += 0.03
    assert overfitting(returns, 6).probability > 0.9


def test_trials_that_are_one_and_the_same_tie_at_the_median():
    one = noise(0, trials=1)
    said = overfitting(np.repeat(one, 5, axis=1), 6)
    np.testing.assert_allclose(said.logits, 0, atol=1e-9)
    assert said.probability == 0.5
    both = overfitting(np.column_stack([one + 0.01, one + 0.01, noise(1)]), 6)
    np.testing.assert_allclose(np.exp(both.logits), (9.5 / 11) / (1 - 9.5 / 11))


def test_a_trial_that_never_trades_has_a_ratio_of_zero():
    idle = np.zeros((240, 1))
    said = overfitting(np.column_stack([idle, noise(0, trials=1) - 0.01]), 4)
    np.testing.assert_array_equal(said.chosen, 0)
    assert said.probability == 0


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 100))
def test_the_order_and_the_size_of_the_trials_do_not_matter(seed, scale):
    returns = noise(seed)
    other = returns[:, np.random.default_rng(seed).permutation(8)] * scale
    one, two = (np.sort(overfitting(r, 4).logits) for r in (returns, other))
    np.testing.assert_allclose(one, two, atol=1e-9)


@pytest.mark.parametrize(
    ("returns", "blocks", "message"),
    [
        (noise(0, trials=1), 4, "two trials or more"),
        (np.full((50, 3), np.nan), 4, "finite"),
        (noise(0)[:, 0], 4, "two trials or more"),
        (noise(0), 5, "even number"),
        (noise(0, bars=20), 16, "two bars or more"),
    ],
)
def test_what_cannot_be_halved_is_refused(returns, blocks, message):
    with pytest.raises(ValueError, match=message):
        overfitting(returns, blocks)
