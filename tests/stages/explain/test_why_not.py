import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq

from stages.base import DataError
from stages.ensemble.decide import Decide
from stages.ensemble.soft_vote import SoftVote
from stages.explain.memory import Memory
from stages.explain.smallest import Search
from stages.explain.trials import Trials
from stages.explain.variants import Variants
from stages.explain.why_not import why_not
from stages.filter.rule_filter import RuleFilter
from stages.filter.tree_filter import TreeFilter
from stages.panel import age, named, stretch
from stages.signal import SIDES, WhyNot
from stages.stack import Stack

from .small import WINDOW, explained, market, memory, trained

DECIDE = Decide(certainty=0.9)
NARROW = Search(low=0.35, high=0.65)


@pytest.fixture(scope="module")
def answers():
    """What turns each of many rows, holds and sides, gated and not."""
    stack, panel = trained()
    rows, why, _ = explained()
    found = why_not(stack, DECIDE, panel, rows[:18], memory(), why)
    assert {a.side for a in found} == {-1, 0, 1}
    return dict(zip(rows[:18], found, strict=True))


@pytest.fixture(scope="module")
def narrow():
    """Answers where inputs may move so little that one is often not enough."""
    stack, panel = trained()
    rows, why, _ = explained()
    return why_not(stack, DECIDE, panel, rows[:20], memory(), why, NARROW)


def decided(panel: pd.DataFrame, row: tuple, decide: Decide = DECIDE) -> pd.Series:
    """Predict and decide the row afresh, from its inputs and those of its window."""
    stack, _ = trained()
    inputs = named(panel, "feature", "rule", "context")
    part = stretch(panel[[*inputs, "ready", "cost", "scale"]], pd.MultiIndex.from_tuples([row]), 9)
    said = stack.predict(part)
    return said.assign(**decide.decide(said)).loc[row]


# the answer holds


def test_the_stated_change_turns_the_decision_of_every_row(answers):
    _, panel = trained()
    assert all(len(answer.moves) for answer in answers.values())
    for row, answer in answers.items():
        before, after = decided(panel, row), decided(answer.applied(panel), row)
        assert before["side"] == answer.side != after["side"] == answer.becomes
        assert after["status"] == answer.status
        assert after["certainty"] == pytest.approx(answer.certainty[1], abs=1e-12)
        assert (answer.becomes == 0) == (answer.side != 0)


def test_the_numbers_in_the_text_are_those_that_were_tried(answers):
    for answer in answers.values():
        for move in answer.moves:
            assert f"{move.name} at {move.end:.9g} instead of".lower() in answer.text.lower()
            assert move.start != move.end


def test_inputs_stay_within_what_training_saw(answers):
    for answer in answers.values():
        for move in answer.moves:
            low, high = memory().quantile(move.column, [0.01, 0.99])
            assert low <= move.end <= high
            places = memory().place(move.column, [move.start, move.end])
            np.testing.assert_array_equal(places, [move.start_place, move.end_place])


def test_no_smaller_change_of_one_input_is_left_out(answers):
    """Against every value seen of every input, one at a time."""
    stack, panel = trained()
    for row, answer in list(answers.items())[::4]:
        trials = Trials.of(Variants.of(stack, panel, row), DECIDE, memory(), None)
        tried = [
            {c: float(v)}
            for c in memory().columns
            if c not in memory().leader
            for v in memory().distinct(c)[::8]
            if np.subtract(*memory().quantile(c, [0.99, 0.01])) > 0
            and memory().quantile(c, 0.01) <= v <= memory().quantile(c, 0.99)
        ]
        best = min(
            trials.shift(c) for c, h in zip(tried, trials.judge(tried).hit, strict=True) if h
        )
        assert len(answer.moves) == 1
        assert answer.shift <= 1.1 * best + 0.05  # a level, and the rounding


def test_where_the_margin_is_linear_the_change_is_where_it_crosses():
    """Rules alone: the root of the margin in one rule, by bisection."""
    panel, y = market()
    stage = TreeFilter(rules=RuleFilter()).fit(panel, y)
    vote = SoftVote({"rules": 1}).fit(panel.assign(**stage.predict(panel)), y)
    stack = Stack(stage, None, vote)
    held = Memory(memory().inputs[["rule.stretched"]], memory().y, memory().weight, memory().bar)
    crossed = 0
    for row in panel.index[panel["ready"]][::200]:
        variants = Variants.of(stack, panel, row)

        def margin(score: float, variants=variants) -> float:
            inputs = variants.inputs.copy()
            inputs[variants.columns.index("rule.stretched")] = score
            return float(variants.predict(inputs[None])["margin"].iloc[0])

        at = pd.MultiIndex.from_tuples([row])
        (answer,) = why_not(stack, DECIDE, panel, at, held, target="lean")
        crosses = margin(-1) * margin(1) < 0
        assert crosses == bool(answer.moves)
        if crosses:
            crossed += 1
            (move,) = answer.moves
            root = brentq(margin, -1, 1, xtol=1e-6)
            assert abs(move.end - root) <= 0.1 * abs(move.end - move.start) + 0.01
            assert margin(move.end) * margin(move.start) < 0
    assert crossed >= 3


def test_two_or_three_inputs_move_where_one_is_not_enough(narrow):
    stack, panel = trained()
    _, why, _ = explained()
    several = [a for a in narrow if len(a.moves) > 1]
    assert len(several) >= 2
    assert {len(a.moves) for a in several} <= {2, 3}
    for answer in several:
        row = (answer.asset, pd.Timestamp(answer.time))
        assert decided(answer.applied(panel), row)["side"] == answer.becomes
        assert " together would " in answer.text
        one = why_not(
            stack,
            DECIDE,
            panel,
            pd.MultiIndex.from_tuples([row]),
            memory(),
            why,
            replace(NARROW, most=1, levels=80),
        )
        assert one[0].moves == ()


def test_each_of_several_moves_is_needed(narrow):
    """With any of them left out, the change no longer turns the decision."""
    stack, panel = trained()
    for answer in narrow:
        trials = Trials.of(
            Variants.of(stack, panel, (answer.asset, pd.Timestamp(answer.time))),
            DECIDE,
            memory(),
            None,
        )
        full = {m.column: m.end for m in answer.moves}
        if len(full) < 2:
            continue
        assert trials.judge([full]).hit.all()
        without = [{c: v for c, v in full.items() if c != gone} for gone in full]
        assert not trials.judge(without).hit.any()


# what is moved, and what is held


def test_what_another_input_settles_moves_with_it_and_never_alone(answers):
    moved = {m.column: m for a in answers.values() for m in a.moves}
    assert not set(moved) & {"rule.stretched", "context.twin"}
    for answer in answers.values():
        for move in answer.moves:
            if move.column == "feature.x0":
                score = float(np.clip(-move.end, -1, 1))
                assert move.along["rule.stretched"] == pytest.approx(score, abs=0.05)
                assert "stretched rule moving along" in answer.text
            if move.column == "feature.x1":
                assert set(move.along) == {"context.twin"}
                assert move.along["context.twin"] == pytest.approx(move.end, abs=0.05)
    assert "feature.x0" in moved


def test_only_the_inputs_named_change_and_only_at_the_row(answers):
    _, panel = trained()
    row, answer = next(iter(answers.items()))
    changed = answer.applied(panel)
    off = changed[named(panel, "feature", "rule", "context")].ne(
        panel[named(panel, "feature", "rule", "context")]
    )
    names = {c for m in answer.moves for c in (m.column, *m.along)}
    assert off.any(axis=1).sum() == 1
    assert set(off.columns[off.loc[row]]) <= names
    others = len(memory().columns) - len(names)
    assert answer.held == f"{others} other inputs and the {WINDOW - 1} bars before"


def test_inputs_that_usually_move_along_are_named():
    """A copy with noise is no function of its source, so it is held, and that is said."""
    stack, panel = trained()
    rows, why, _ = explained()
    inputs = memory().inputs.copy()
    noise = np.random.default_rng(0).normal(size=len(inputs))
    inputs["feature.x5"] = inputs["feature.x0"] + (0.3 * noise).astype("float32")
    near = Memory(inputs, memory().y, memory().weight, memory().bar)
    found = why_not(stack, DECIDE, panel, rows[:4], near, why)
    moves = [m for a in found for m in a.moves if m.column == "feature.x0"]
    assert moves
    assert all("feature.x5" in m.companions for m in moves)
    assert all("rule.stretched" not in m.companions for m in moves)


def test_a_missing_input_is_not_moved():
    stack, panel = trained()
    rows, why, _ = explained()
    gone = panel.copy()
    gone.loc[rows[0], "feature.x0"] = np.nan
    (answer,) = why_not(stack, DECIDE, gone, rows[:1], memory())
    assert "feature.x0" not in {m.column for m in answer.moves}


def test_the_largest_contributions_are_tried_first():
    stack, panel = trained()
    rows, why, _ = explained()
    for row in rows[:4]:
        at = pd.MultiIndex.from_tuples([row])
        (answer,) = why_not(stack, DECIDE, panel, at, memory(), why, Search(columns=2))
        pushes = why.contributions.loc[row].abs()
        free = [n for n in pushes.index if n not in ("rule.stretched", "context.twin")]
        largest = pushes[free].sort_values(ascending=False).index[:2]
        columns = {n if "." in n else f"feature.{n}" for n in largest}
        assert {m.column for m in answer.moves} <= columns


# what is asked for


@pytest.mark.parametrize("side", [-1, 0, 1])
def test_a_side_can_be_asked_for(side):
    stack, panel = trained()
    rows, why, _ = explained()
    found = why_not(stack, DECIDE, panel, rows[:6], memory(), why, target=side)
    for answer in found:
        if answer.side == side:
            assert (answer.moves, answer.tried) == ((), 0)
            assert answer.text.startswith("It is a ")
        elif answer.moves:
            row = (answer.asset, pd.Timestamp(answer.time))
            assert decided(answer.applied(panel), row)["side"] == side == answer.becomes
    assert sum(bool(answer.moves) for answer in found) >= 2


def test_the_other_side_can_be_asked_to_lead():
    stack, panel = trained()
    rows, why, _ = explained()
    for answer in why_not(stack, DECIDE, panel, rows[:8], memory(), why, target="lean"):
        row = (answer.asset, pd.Timestamp(answer.time))
        before = decided(panel, row)["margin"]
        assert answer.leads == (1 if before >= 0 else -1)
        if answer.moves:
            assert (decided(answer.applied(panel), row)["margin"] >= 0) != (before >= 0)
            assert " lead over " in answer.text


def test_that_a_row_would_only_be_odd_is_no_answer():
    stack, panel = trained()
    rows, why, _ = explained()
    odd = replace(DECIDE, max_novelty=1.3)
    for answer in why_not(stack, odd, panel, rows[:10], memory(), why, Search(most=1)):
        if answer.side and answer.moves:
            row = (answer.asset, pd.Timestamp(answer.time))
            reasons = decided(answer.applied(panel), row, odd)["why_not"]
            assert {r.key for r in reasons} - {"skill", "novelty"}


def test_where_nothing_is_found_it_says_so_and_what_came_nearest():
    stack, panel = trained()
    sure = replace(DECIDE, certainty=1.0)
    rows = panel.index[panel["ready"]][50:52]
    for answer in why_not(stack, sure, panel, rows, memory()):
        assert (answer.moves, answer.becomes, answer.shift) == ((), None, None)
        assert answer.tried > 500
        assert answer.certainty[1] >= answer.certainty[0]
        assert answer.text.startswith("No change of up to three inputs within what training saw")
        assert f"the nearest has certainty {answer.certainty[1]:.2f} of 1.00" in answer.text


# what stood in the way


def test_every_reason_is_a_check_with_its_figures(answers):
    stack, panel = trained()
    said = panel.assign(**DECIDE.decide(panel))
    seen = set()
    for row, answer in answers.items():
        reasons = said.at[row, "why_not"]
        assert [(c.key, c.text) for c in answer.checks] == [(r.key, r.text) for r in reasons]
        for check in answer.checks:
            seen.add(check.key)
            if check.key in ("certainty", "confidence", "gate"):
                assert check.distance == pytest.approx(check.limit - check.value)
                assert check.distance > 0
    assert {"gate", "certainty", "confidence", "skill"} <= seen
    row, gated = next((r, a) for r, a in answers.items() if "gate" in {c.key for c in a.checks})
    (gate,) = (c for c in gated.checks if c.key == "gate")
    assert gate.limit == stack.filter.threshold_
    assert gate.value == stack.filter.gate_score(panel.loc[[row]])[0]


def test_a_cost_above_the_stake_is_beyond_all_inputs():
    stack, panel = trained()
    rows, _, _ = explained()
    (answer,) = why_not(stack, DECIDE, panel.assign(cost=0.02), rows[:1], memory())
    (check,) = (c for c in answer.checks if c.key == "cost")
    assert (check.value, check.limit) == (0.02, 0.01)
    assert check.distance == pytest.approx(0.01)
    assert (answer.moves, answer.tried) == ((), 0)
    assert answer.text == "No change of inputs would make this a signal: " + check.text + "."


def test_it_says_whether_the_cost_alone_is_in_the_way():
    stack, panel = trained()
    dear = panel.assign(cost=0.006)
    said = DECIDE.decide(stack.predict(dear))
    free = DECIDE.decide(stack.predict(dear.assign(cost=0.0)))
    rows = dear.index[(said["side"] == 0).fillna(False).to_numpy()]
    rows = rows[np.r_[0 : len(rows) : 90]]
    found = why_not(stack, DECIDE, dear, rows, memory(), search=Search(most=1, levels=2))
    expected = (free.loc[rows, "side"] != 0).tolist()
    assert [a.if_free for a in found] == expected
    assert set(expected) == {True, False}
    (costless,) = why_not(stack, DECIDE, dear.assign(cost=0.0), rows[:1], memory())
    assert costless.if_free is None


def test_what_only_the_whole_table_shows_is_told_too():
    stack, panel = trained()
    rows, _, _ = explained()
    reason = WhyNot("repeat", "repeat: the same side within 30s")
    column = pd.Series([(reason,)] * len(panel), panel.index, dtype="object")
    (answer,) = why_not(stack, DECIDE, panel.assign(why_not=column), rows[:1], memory())
    assert answer.checks[-1].text == reason.text
    assert answer.tried == 0


def test_a_proven_skill_stays_proven():
    stack, panel = trained()
    rows, why, _ = explained()
    skill = {"proven": True, "e_value": 30.0, "needed": 20.0, "bars": 100.0}
    proven = panel.assign(**{f"skill.{name}": value for name, value in skill.items()})
    found = why_not(stack, DECIDE, proven, rows[:8], memory(), why, Search(most=1))
    assert not any(check.key == "skill" for answer in found for check in answer.checks)
    became = [answer for answer in found if answer.becomes]
    assert became
    assert all(answer.status == "fired" for answer in became)
    assert all("as yet unproven" not in answer.text for answer in became)


def test_an_abstention_has_nothing_to_turn():
    stack, panel = trained()
    rows = panel.index[~panel["ready"]][:2]
    for answer in why_not(stack, DECIDE, panel, rows, memory()):
        assert (answer.side, answer.leads, answer.moves) == (None, None, ())
        assert [c.key for c in answer.checks] == ["history"]
        assert answer.text == "There is nothing to turn: history: incomplete."


# how it is computed


def test_variants_are_predicted_as_the_stack_predicts_rows():
    stack, panel = trained()
    young = panel.index[(age(panel) == 3) & panel["ready"]]
    rows = explained()[0].append(young)
    columns = [*(f"p_{s}" for s in SIDES.values()), "margin", "certainty_buy", "novelty"]
    columns += ["filter.gate", "refiner.lstm.z_buy"]
    for row in rows:
        variants = Variants.of(stack, panel, row)
        said = variants.predict(np.stack([variants.inputs] * 3)[:, :])
        for k in range(3):
            np.testing.assert_array_equal(said[columns].iloc[k], panel.loc[row, columns])


def test_a_row_gets_the_same_answer_alone_and_twice(answers):
    stack, panel = trained()
    rows, why, _ = explained()
    for row in rows[5:8]:
        at = pd.MultiIndex.from_tuples([row])
        part = stretch(panel, at, WINDOW)
        assert why_not(stack, DECIDE, part, at, memory(), why) == [answers[row]]


def test_the_future_changes_nothing(answers):
    stack, panel = trained()
    rows, why, _ = explained()
    time = panel.index.get_level_values("time")
    row = sorted(answers, key=lambda r: r[1])[3]
    past = panel[time <= row[1]]
    assert why_not(stack, DECIDE, past, pd.MultiIndex.from_tuples([row]), memory(), why) == [
        answers[row]
    ]


def test_an_answer_can_be_stored(answers):
    for answer in answers.values():
        text = json.dumps(asdict(answer), allow_nan=False)
        assert json.loads(text)["text"] == answer.text


def test_a_row_that_is_not_there_is_refused():
    stack, panel = trained()
    row = (panel.index[0][0], pd.Timestamp("1990-01-01", tz="UTC"))
    with pytest.raises(DataError, match="has no bar at 1990") as refused:
        why_not(stack, DECIDE, panel, pd.MultiIndex.from_tuples([row]), memory())
    assert refused.value.code == "SV-F18"


@pytest.mark.parametrize(
    "setting", [{"most": 0}, {"most": 4}, {"low": 0.9, "high": 0.1}, {"levels": 1}, {"batch": 0}]
)
def test_a_setting_out_of_range_is_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        Search(**setting)
