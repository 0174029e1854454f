import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMClassifier
from scipy.stats import spearmanr

from stages.ensemble.decide import Decide
from stages.ensemble.stacker import BayesianStacker
from stages.explain.explainer import Explainer
from stages.explain.lime import Lime, lime
from stages.explain.memory import Memory
from stages.filter.rule_filter import RuleFilter
from stages.filter.tree_filter import TreeFilter
from stages.folds import PurgedWalkForward
from stages.panel import last_rows
from stages.stack import Stack, pass_forward

from .small import WINDOW, explained, market, memory, trained

QUICK = Lime(samples=300)


@pytest.fixture(scope="module")
def opinions():
    stack, panel = trained()
    rows, why, references = explained()
    return dict(zip(rows, lime(stack, panel, rows, memory(), why, references), strict=True))


def additive(members=None, rules=None):
    """A stack whose margin is a sum of functions of one input each, and its explanation."""
    panel, y = market()
    panel = panel.copy()
    rng = np.random.default_rng(8)
    for k in range(4):  # graded scores, so that a line has something to follow
        soft = np.tanh(panel[f"feature.x{k}"] + 0.5 * rng.normal(size=len(panel)))
        panel[f"rule.r{k}"] = soft.astype("float32")
    template = Stack(
        TreeFilter(members or {}, rules, recall=1), None, BayesianStacker(context=False)
    )
    stack = pass_forward(template, panel, y, PurgedWalkForward(4, 0.4, 1), Decide()).stack
    panel = stack.predict(panel)
    explainer = Explainer(n_references=6, tail=80, reasons="full")
    references = explainer.choose(stack, panel, 1)
    rows = panel.index[panel["ready"]][40::150]
    why = explainer.explain(stack, panel, rows, references)
    return stack, panel, rows, Memory.learnt(panel, y), why, references


@pytest.fixture(scope="module")
def linear():
    return additive(rules=RuleFilter())


# the surrogate


def test_a_line_is_found_as_it_is():
    slope = np.array([2.0, -1.0, 0.0, 0.5])
    center, step = np.array([1.0, 2, 3, 4]), np.array([0.1, 10, 1, 2])
    weights, fit = Lime(samples=50, ridge=0).surrogate(lambda x: x @ slope + 7, center, step)
    np.testing.assert_allclose(weights, slope * step, atol=1e-10)
    assert fit == pytest.approx(1)


def test_the_surrogate_is_the_weighted_ridge_by_hand():
    settings, center = Lime(samples=80, ridge=3, width=0.5, spread=0.7, seed=4), np.zeros(3)
    asked = []

    def bent(x):
        asked.append(x)
        return np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2]

    weights, fit = settings.surrogate(bent, center, np.ones(3))
    (z,) = asked
    np.testing.assert_array_equal(z[0], 0)  # the row itself is one of the points
    w = np.sqrt(np.exp(-(z**2).sum(axis=1) / (0.5**2 * 3)))
    value = bent(z)
    off, mean = z - w @ z / w.sum(), value - w @ value / w.sum()
    by_hand = np.linalg.solve(off.T @ (w[:, None] * off) + 3 * np.eye(3), off.T @ (w * mean))
    np.testing.assert_allclose(weights, by_hand, atol=1e-10)
    left = mean - off @ by_hand
    assert fit == pytest.approx(1 - (w @ left**2) / (w @ mean**2))


def test_held_inputs_keep_their_value_and_weigh_nothing():
    seen = []

    def margin(x):
        seen.append(x)
        return x[:, 0] ** 2

    weights, _ = QUICK.surrogate(margin, np.array([1.0, np.nan]), np.array([1.0, 0.0]))
    assert np.isnan(seen[0][:, 1]).all()
    assert weights[1] == 0
    weights, fit = QUICK.surrogate(lambda x: np.ones(len(x)), np.zeros(2), np.ones(2))
    assert (weights == 0).all()
    assert np.isnan(fit)


def test_the_draws_spread_as_they_are_told_to():
    seen = []
    wide = Lime(samples=4000, spread=0.3)
    wide.surrogate(lambda x: seen.append(x) or x[:, 0], np.array([5.0]), np.array([2.0]))
    assert seen[0].std() == pytest.approx(0.6, rel=0.05)
    assert seen[0].mean() == pytest.approx(5, abs=0.05)


# beside an explanation


def test_on_a_linear_stack_effects_are_the_contributions(linear):
    stack, panel, rows, held, why, references = linear
    for row, told in zip(rows, lime(*linear), strict=True):
        assert told.fit > 0.999
        assert told.agreement > 0.99
        assert not told.disputed
        effects = pd.Series(told.effects)
        pushes = why.contributions.loc[row, effects.index]
        np.testing.assert_allclose(effects, pushes, atol=0.02 * pushes.abs().max())


def test_on_an_additive_stack_of_stumps_it_agrees():
    stumps = LGBMClassifier(n_estimators=30, num_leaves=2, n_jobs=1, verbosity=-1)
    told = lime(*additive({"lightgbm": stumps}))
    assert np.median([t.agreement for t in told]) > 0.7
    assert np.mean([t.disputed for t in told]) < 0.2


def test_a_corrupted_explanation_is_disputed(linear):
    stack, panel, rows, held, why, references = linear
    turned = replace(why, contributions=-why.contributions)
    shuffled = why.contributions.copy()
    shuffled[:] = np.roll(shuffled.to_numpy(), 3, axis=1)
    for wrong in (turned, replace(why, contributions=shuffled)):
        told = lime(stack, panel, rows, held, wrong, references)
        assert np.mean([t.disputed for t in told]) > 0.7
        for t in told:
            verb = "disputes" if t.disputed else "agrees with"
            assert t.text.startswith(f"LIME {verb} the contributions: rank correlation")


def test_ranks_are_those_of_the_largest_contributions(opinions):
    _, why, _ = explained()
    for row, told in opinions.items():
        pushes = why.contributions.loc[row, list(told.effects)]
        largest = pushes.abs().sort_values(ascending=False).index[:10]
        rank = spearmanr([told.effects[n] for n in largest], pushes[largest]).statistic
        assert told.agreement == pytest.approx(rank)
        assert told.compared == 10
        assert told.disputed == (rank < 0.5)
        assert f"{told.agreement:+.2f} over the largest 10" in told.text
        assert ("weak witness" in told.text) == (told.fit < 0.5)


def test_effects_are_weights_times_the_distance_from_the_references(opinions):
    _, panel = trained()
    _, _, references = explained()
    mean = last_rows(references).mean()
    spread = dict(zip(memory().columns, memory().scale[1], strict=True))
    for row, told in list(opinions.items())[:5]:
        for name, weight in told.weights.items():
            column = name if "." in name else f"feature.{name}"
            steps = (panel.loc[row, column] - mean[column]) / spread[column]
            assert told.effects[name] == pytest.approx(weight * steps, abs=1e-6)


def test_the_gate_is_held_as_it_is_for_the_row(opinions):
    """A variant that the gate stops would be compared across a jump that no input owns."""
    stack, panel = trained()
    rows, why, references = explained()
    stopped = rows[(panel.loc[rows, "filter.gate"] == 0).to_numpy()][:2]
    passed = rows[(panel.loc[rows, "filter.gate"] == 1).to_numpy()][:2]
    for gate, at in {0.0: stopped, 1.0: passed}.items():
        forced = Stack(
            replace(stack.filter).restore(stack.filter.state()), stack.refiner, stack.ensemble
        )
        forced.filter.threshold_ = np.inf if gate == 0 else -np.inf
        told = lime(forced, panel, at, memory(), why, references)
        assert [t.weights for t in told] == [opinions[row].weights for row in at]


def test_what_is_missing_or_never_varied_is_held():
    stack, panel = trained()
    rows, why, references = explained()
    gone = panel.copy()
    gone.loc[rows[0], "feature.x2"] = np.nan
    inputs = memory().inputs.copy()
    inputs["context.liquidity"] = np.float32(1)
    held = Memory(inputs, memory().y, memory().weight, memory().bar)
    (told,) = lime(stack, gone, rows[:1], held, why, references, QUICK)
    assert told.weights["x2"] == told.effects["x2"] == 0
    assert told.weights["context.liquidity"] == 0
    assert told.weights["x0"] != 0
    json.dumps(asdict(told), allow_nan=False)


def test_an_input_that_no_reference_has_is_left_out():
    stack, panel = trained()
    rows, why, references = explained()
    without = references.assign(**{"feature.x2": np.float32(np.nan)})
    (told,) = lime(stack, panel, rows[:1], memory(), why, without, QUICK)
    (full,) = lime(stack, panel, rows[:1], memory(), why, references, QUICK)
    assert set(full.effects) - set(told.effects) == {"x2"}
    assert told.effects == {name: push for name, push in full.effects.items() if name != "x2"}
    assert told.agreement is not None
    json.dumps(asdict(told), allow_nan=False)


def test_too_few_contributions_are_not_compared():
    stack, panel = trained()
    rows, why, references = explained()
    flat = replace(why, contributions=why.contributions * 0.0)
    (told,) = lime(stack, panel, rows[:1], memory(), flat, references, QUICK)
    assert (told.agreement, told.compared, told.disputed) == (None, 0, False)
    assert told.text.startswith("LIME has nothing to compare")


# how it is computed


def test_a_row_gets_the_same_bits_alone(opinions):
    stack, panel = trained()
    _, why, references = explained()
    for row in list(opinions)[3:5]:
        at = pd.MultiIndex.from_tuples([row])
        assert lime(stack, panel, at, memory(), why, references) == [opinions[row]]


def test_another_seed_draws_other_points():
    stack, panel = trained()
    rows, why, references = explained()
    one, two, again = (
        lime(stack, panel, rows[:1], memory(), why, references, replace(QUICK, seed=s))[0]
        for s in (1, 2, 1)
    )
    assert one == again
    assert one.weights != two.weights


def test_an_opinion_can_be_stored_with_how_it_was_made(opinions):
    told = next(iter(opinions.values()))
    assert json.loads(json.dumps(asdict(told), allow_nan=False))["text"] == told.text
    free = memory().varies.sum()
    assert told.width == pytest.approx(0.75 * np.sqrt(free))
    assert told.spread == 1
    assert WINDOW > 1  # the bars before the last are held


@pytest.mark.parametrize(
    "setting",
    [{"samples": 1}, {"top": 2}, {"spread": 0}, {"width": 0}, {"ridge": -1}, {"least": 2}],
)
def test_a_setting_out_of_range_is_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        Lime(**setting)
