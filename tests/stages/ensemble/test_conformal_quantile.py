"""The trackers alone: any scores, even an adversary's, and the definitions in plain words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.benchmarks.coverage.run import garch, volatility_before
from stages.ensemble.quantile import AdaptiveConformal, ConformalPI

TRACKERS = [ConformalPI, AdaptiveConformal]


def followed(tracker, scores):
    """Quantile issued at each bar: scores (T, A) come back `span` bars after their row."""
    issued = np.full(len(scores), np.nan)
    for t in range(len(scores)):
        past = t - tracker.span
        if past >= 0:
            tracker.learn(scores[past], np.full(scores.shape[1], issued[past]))
        issued[t] = tracker.quantile_
    return issued


def coverage(scores, issued):
    """Mean coverage of each bar that had a quantile."""
    return (scores <= issued[:, None]).mean(axis=1)[~np.isnan(issued)]


# the guarantee


@st.composite
def duels(draw):
    """A tracker, and an adversary who sees each quantile before choosing the scores."""
    kind = draw(st.sampled_from(TRACKERS))
    span = draw(st.integers(1, 6))
    settings = {"budget": draw(st.floats(0.5, 8))} if kind is ConformalPI else {}
    if kind is AdaptiveConformal:
        settings["gamma"] = draw(st.floats(0.01, 0.5))
    level = draw(st.sampled_from([0.5, 0.8, 0.95]))
    tracker = kind(level=level, span=span, window=10, start=3, **settings)
    habits = st.sampled_from(["miss", "just miss", "hit", "zero", "huge", "draw", "mixed"])
    plan = draw(st.lists(st.tuples(habits, st.integers(1, 120)), min_size=1, max_size=8))
    return tracker, plan, draw(st.integers(0, 2**32 - 1))


def scores_against(quantile, habit, rows, rng):
    at = quantile if np.isfinite(quantile) else 1.0
    return {
        "miss": np.full(rows, abs(at) + 1e-9 * abs(at) + 1),
        "just miss": np.full(rows, np.nextafter(at, np.inf)),
        "hit": np.full(rows, at),
        "zero": np.zeros(rows),
        "huge": rng.random(rows) * 1e12,
        "draw": rng.random(rows),
        "mixed": at + rng.normal(size=rows),
    }[habit]


@pytest.mark.parametrize("ragged", [False, True])
@settings(max_examples=40, deadline=None)
@given(duel=duels())
def test_misses_stay_within_the_bound_for_any_scores(duel, ragged):
    tracker, plan, seed = duel
    rng = np.random.default_rng(seed)
    habits = np.repeat([h for h, _ in plan], [n for _, n in plan])
    issued, scores, excess = [], [], 0.0
    for t, habit in enumerate(habits):
        past = t - tracker.span
        if past >= 0:
            if not np.isnan(issued[past]):
                rows = [len(bar) for bar in scores[: past + 1][-tracker.window :]]
                error = np.mean(scores[past] > issued[past])
                excess += rows[-1] / max(rows) * (error - (1 - tracker.level))
            tracker.learn(scores[past], np.full(len(scores[past]), issued[past]))
        issued.append(tracker.quantile_)
        rows = int(rng.integers(1, 6)) if ragged else 4
        scores.append(scores_against(tracker.quantile_, habit, rows, rng))
        assert abs(excess) <= tracker.bound
        assert tracker.excess_ == pytest.approx(excess, abs=1e-9)


@pytest.mark.parametrize("kind", TRACKERS)
@pytest.mark.parametrize("span", [1, 4])
def test_an_adversary_who_always_misses_drives_it_to_the_bound_and_no_further(kind, span):
    tracker = kind(span=span, window=30, start=5)
    # a level above 30/31 is beyond 30 scores
    least = 20 + 5 * span if kind is ConformalPI else (30 / 31 - 0.95) / 0.01
    scores, issued = [], []
    for t in range(300):  # a longer duel leaves the range of floats
        if t >= span:
            tracker.learn(np.array([scores[t - span]]), np.array([issued[t - span]]))
        issued.append(tracker.quantile_)
        scores.append(np.nextafter(issued[-1], np.inf) if np.isfinite(issued[-1]) else 0.0)
    assert np.isinf(issued).any()
    assert least - 1 <= tracker.excess_ <= least + span


def test_the_bound_of_the_default_is_a_few_bars():
    assert ConformalPI(span=1).bound == 26
    assert ConformalPI(span=6).bound == 56
    assert AdaptiveConformal(gamma=0.005).bound == pytest.approx(191)


# the definitions


def plain_pi(scores, level, span, window, start, rate, budget):
    """Conformal PI for one asset, from its definition."""
    issued, tracked, excess = np.full(len(scores), np.nan), None, 0.0
    for t in range(span, len(scores)):
        known = np.sort(scores[: t - span + 1][-window:])
        rank = min(int(np.ceil(round((len(known) + 1) * level, 9))), len(known))
        spread = known[rank - 1] - known[-rank]
        if len(known) >= start:
            tracked = known[rank - 1] if tracked is None else tracked
            if not np.isnan(issued[t - span]):
                off = float(scores[t - span] > issued[t - span]) - (1 - level)
                tracked += rate / np.sqrt(span) * spread * off
                excess += off
            issued[t] = tracked + spread * np.tan(np.pi / 2 * excess / budget)
    return issued


def plain_aci(scores, level, span, window, start, gamma):
    """Adaptive conformal inference for one asset, from its definition."""
    issued, alpha = np.full(len(scores), np.nan), 1 - level
    for t in range(span, len(scores)):
        known = np.sort(scores[: t - span + 1][-window:])
        if len(known) >= start:
            if not np.isnan(issued[t - span]):
                alpha += gamma * ((1 - level) - float(scores[t - span] > issued[t - span]))
            rank = int(np.ceil(round((len(known) + 1) * (1 - alpha), 9)))
            issued[t] = known[rank - 1] if 1 <= rank <= len(known) else np.inf * (rank - 0.5)
    return issued


@pytest.mark.parametrize("span", [1, 6])
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_quantiles_are_those_of_the_definition(span, level):
    scores = np.abs(np.random.default_rng(span).standard_t(3, 700))
    common = {"level": level, "span": span, "window": 100, "start": 50}
    pi = followed(ConformalPI(**common, rate=0.1, budget=25.0), scores[:, None])
    np.testing.assert_allclose(pi, plain_pi(scores, **common, rate=0.1, budget=25.0), rtol=1e-9)
    aci = followed(AdaptiveConformal(**common, gamma=0.03), scores[:, None])
    np.testing.assert_array_equal(aci, plain_aci(scores, **common, gamma=0.03))


@pytest.mark.parametrize("kind", TRACKERS)
def test_the_first_quantile_has_the_conformal_rank(kind):
    tracker = kind(window=40, start=39)
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 40.0))
    for score in scores[:-1]:
        assert np.isnan(tracker.learn(np.array([score]), np.array([np.nan])))
    assert tracker.learn(scores[-1:], np.array([np.nan])) == 38  # of 39: 40 * 0.95
    assert tracker.excess_ == 0


@pytest.mark.parametrize("kind", TRACKERS)
def test_assets_that_move_as_one_count_as_one(kind):
    scores = np.abs(np.random.default_rng(1).normal(size=(300, 1)))
    alone, many = kind(), kind()
    for t in range(300):
        issued = np.array([alone.quantile_])
        alone.learn(scores[t], issued)
        many.learn(np.repeat(scores[t], 30), np.repeat(issued, 30))
    assert many.excess_ == pytest.approx(alone.excess_, abs=1e-9)


@pytest.mark.parametrize("kind", TRACKERS)
def test_a_row_that_comes_alone_weighs_its_share_of_a_bar(kind):
    tracker = kind(start=1)
    tracker.learn(np.ones(20), np.full(20, np.nan))
    tracker.learn(np.array([5.0]), np.array([1.0]))
    assert tracker.excess_ == pytest.approx(0.95 / 20)


def test_one_bad_price_does_not_make_the_intervals_useless():
    scores = np.abs(np.random.default_rng(2).normal(size=(200, 20)))
    scores[120, 3] = 1e6
    assert np.nanmax(followed(ConformalPI(), scores)) < 4


@pytest.mark.parametrize("kind", TRACKERS)
@pytest.mark.parametrize("bars", [0, 10, 150])
def test_a_restored_tracker_goes_on_with_the_same_bits(kind, bars):
    scores = np.abs(np.random.default_rng(3).normal(size=(220, 3)))
    one = kind(span=2)
    followed(one, scores[:bars])
    other = kind(span=2).restore(one.state())
    for t in range(bars, 220):
        for tracker in (one, other):
            tracker.learn(scores[t], np.full(3, tracker.quantile_))
        np.testing.assert_array_equal(one.quantile_, other.quantile_)
    assert np.isfinite(one.quantile_)


@pytest.mark.parametrize(
    "settings",
    [{"level": 1.0}, {"span": 0}, {"start": 200}, {"start": 0}, {"rate": 0.0}, {"budget": -1.0}],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match="need "):
        ConformalPI(**settings)


def test_aci_needs_a_step():
    with pytest.raises(ValueError, match="gamma"):
        AdaptiveConformal(gamma=0)


# GARCH returns with tails of Student's t, whose volatility trebles half-way


def test_normalise_first_then_track():
    times, results = 2400, {}
    for seed in range(3):
        returns = garch(seed, times, 1)
        raw, scaled = np.abs(returns)[50:], (np.abs(returns) / volatility_before(returns))[50:]
        issued = {}
        for name, scores in (("raw", raw), ("scaled", scaled)):
            fixed = np.where(np.arange(len(scores)) < 500, np.nan, np.quantile(scores[:500], 0.95))
            issued[f"static {name}"] = scores, fixed
        issued["aci"] = scaled, followed(AdaptiveConformal(window=250, gamma=0.02), scaled)
        issued["pi"] = scaled, followed(ConformalPI(), scaled)
        for name, (scores, quantiles) in issued.items():
            held = coverage(scores, quantiles)
            worst = np.convolve(held, np.full(250, 1 / 250), "valid").min()
            after = (scores[:, 0] <= quantiles)[times // 2 - 50 :][:250].mean()
            results.setdefault(name, []).append((held.mean(), worst, after))
    mean = {name: np.mean(rows, axis=0) for name, rows in results.items()}
    assert (mean["static raw"] < [0.85, 0.6, 0.7]).all()
    assert (mean["static scaled"] > [0.92, 0.88, 0.90]).all()
    for name in ("aci", "pi"):
        assert abs(mean[name][0] - 0.95) < 0.005
        assert mean[name][1] > mean["static scaled"][1]
        assert (mean[name] > [0.945, 0.92, 0.93]).all()
