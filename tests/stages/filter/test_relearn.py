"""Leaves move towards new rows and nothing else does; trees on top are capped; forests renew."""

import copy
from dataclasses import replace

import numpy as np
import pytest
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.ensemble import RandomForestClassifier
from xgboost import XGBClassifier

from stages.base import ConfigError
from stages.filter.boosters import Lesson, refitted, rounds_of
from stages.filter.gate import OPEN, gate_score, same_share
from stages.filter.members import fit_member, kind
from stages.filter.relearn import TreeLearning, replaced
from stages.filter.tree_filter import TreeFilter
from stages.markets.planted import mixed

PLAIN = {"n_jobs": 1, "random_state": 0}
LIGHT = PLAIN | {"verbosity": -1, "deterministic": True, "force_row_wise": True}
TEMPLATES = {
    "lightgbm": LGBMClassifier(n_estimators=15, num_leaves=7, **LIGHT),
    "xgboost": XGBClassifier(n_estimators=15, max_depth=3, learning_rate=0.1, **PLAIN),
    "moves": LGBMRegressor(n_estimators=15, num_leaves=7, **LIGHT),
    "forest": RandomForestClassifier(20, max_depth=4, min_samples_leaf=20, **PLAIN),
}
BOOSTED = ["lightgbm", "xgboost", "moves"]


def rows(n, seed, sign=1.0):
    """Rows whose sides follow `x0`, uneven shares; with `sign` -1 they follow the opposite."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4)).astype("float32")
    tilt = sign * 1.5 * X[:, 0]
    odds = np.stack([-tilt - 1.5, np.zeros(n), tilt - 0.5], axis=1)
    classes = (odds + rng.gumbel(size=(n, 3))).argmax(axis=1)
    return Lesson(X, classes, rng.uniform(0.5, 1.5, n), tilt + rng.normal(size=n), seed, False)


OLD, NEW, TEST = rows(2000, 0), rows(400, 1, -1.0), rows(2000, 2, -1.0)


@pytest.fixture(scope="module")
def members():
    return {
        name: fit_member(template, OLD.X, OLD.classes, OLD.weight, OLD.moves)[0]
        for name, template in TEMPLATES.items()
    }


def loss(member, lesson):
    z = member.logits(lesson.X)
    logits = np.stack([z[:, 0], np.zeros(len(z)), z[:, 1]], axis=1)
    right = logits[np.arange(len(z)), lesson.classes]
    return (np.logaddexp.reduce(logits, axis=1) - right).mean()


@pytest.mark.parametrize("name", BOOSTED)
def test_refitted_to_its_own_rows_a_booster_stays_what_it_is(members, name):
    """An oracle: leaves found anew on the rows they were found on are the old ones."""
    again = refitted(members[name], TEMPLATES[name], OLD, decay=0.0)
    np.testing.assert_allclose(again.logits(OLD.X), members[name].logits(OLD.X), atol=1e-6)


def test_the_library_alone_would_lose_the_booster(members):
    """What the base score in the first trees does to a plain refit: why ours takes it out."""
    plain = members["lightgbm"].booster.refit(OLD.X, OLD.classes, decay_rate=0.0, weight=OLD.weight)
    raw = plain.predict(OLD.X, raw_score=True)
    off = np.abs((raw[:, [0, 2]] - raw[:, [1]]) - members["lightgbm"].logits(OLD.X))
    assert off.max() > 0.5


@pytest.mark.parametrize("name", BOOSTED)
def test_with_a_decay_of_one_nothing_moves(members, name):
    same = refitted(members[name], TEMPLATES[name], NEW, decay=1.0)
    np.testing.assert_array_equal(same.logits(TEST.X), members[name].logits(TEST.X))


@pytest.mark.parametrize("name", BOOSTED)
def test_a_leaf_that_no_row_reaches_keeps_its_value(members, name):
    member, template = members[name], TEMPLATES[name]
    left = NEW.X[:, 0] < 0
    part = Lesson(NEW.X[left], NEW.classes[left], NEW.weight[left], NEW.moves[left], 0, False)
    moved = refitted(member, template, part, decay=0.5)
    was, now = member.trees, moved.trees
    np.testing.assert_array_equal(now.threshold, was.threshold)  # the splits stay
    reached = np.zeros(len(was.feature), dtype=bool)
    for row in part.X:
        for root in was.roots:
            node = root
            while was.feature[node] >= 0:
                x, cut = row[was.feature[node]], was.threshold[node]
                goes_left = x < cut if was.strict else x <= cut
                node = was.left[node] if goes_left else was.right[node]
            reached[node] = True
    leaves = was.feature < 0
    np.testing.assert_array_equal(now.value[leaves & ~reached], was.value[leaves & ~reached])
    assert (now.value[leaves & reached] != was.value[leaves & reached]).mean() > 0.9
    assert (leaves & ~reached).sum() > 5


@pytest.mark.parametrize("name", BOOSTED)
@pytest.mark.parametrize("boosted", ["refit", "grow"])
def test_after_a_flip_lessons_lead_to_the_new_market(members, name, boosted):
    how = TreeLearning(boosted=boosted, decay=0.5)
    member, grown, path = members[name], None, [loss(members[name], TEST)]
    for _ in range(2):
        member, grown = how.teach(member, TEMPLATES[name], NEW, grown)
        path.append(loss(member, TEST))
    assert path[1] < path[0] - 0.1
    assert path[2] < path[1]
    z, shares = member.logits(TEST.X[:3]), member.shares(TEST.X[:3], TEST.X[5:6])
    rise = z - member.logits(TEST.X[5:6])
    np.testing.assert_allclose(shares[:, 0].sum(axis=2), rise, atol=1e-5)  # still explained


def test_after_a_confirmed_change_leaves_follow_sooner(members):
    template, how = TEMPLATES["lightgbm"], TreeLearning(decay=0.9, decay_drifted=0.5)
    slow, _ = how.teach(members["lightgbm"], template, NEW, None)
    alarm = Lesson(NEW.X, NEW.classes, NEW.weight, NEW.moves, 0, True)
    fast, _ = how.teach(members["lightgbm"], template, alarm, None)
    assert loss(fast, TEST) < loss(slow, TEST) < loss(members["lightgbm"], TEST)


@pytest.mark.parametrize("name", BOOSTED)
def test_trees_on_top_are_grown_anew_after_two_times(members, name):
    how = TreeLearning(boosted="grow", trees=3, chain=2)
    member, grown, heights = members[name], None, []
    for _ in range(5):
        member, grown = how.teach(member, TEMPLATES[name], NEW, grown)
        heights.append(rounds_of(member))
    assert heights == [18, 21, 18, 21, 18]
    stored = kind(TEMPLATES[name]).read(member.content, TEMPLATES[name])
    np.testing.assert_array_equal(stored.logits(TEST.X), member.logits(TEST.X))


def test_a_forest_gives_up_its_oldest_trees(members):
    forest, template = members["forest"], TEMPLATES["forest"]
    taught, grown = TreeLearning(forest=0.1).teach(forest, template, NEW, None)
    assert grown is None
    assert len(taught.trees.roots) == 20
    was, now = (np.split(f.trees.threshold, f.trees.roots[1:]) for f in (forest, taught))
    for old, kept in zip(was[2:], now[:18], strict=True):
        np.testing.assert_array_equal(old, kept)
    np.testing.assert_allclose(taught.trees.outputs(TEST.X).sum(axis=1), 1.0)
    losses = [loss(forest, TEST)]
    for _ in range(10):
        forest, _ = TreeLearning(forest=0.1).teach(forest, template, NEW, None)
        losses.append(loss(forest, TEST))
    assert losses[-1] < losses[5] < losses[0]


def test_replacing_all_trees_gives_the_fresh_forest(members):
    fresh = members["forest"].trees
    again = replaced(fresh, fresh)
    np.testing.assert_array_equal(again.outputs(TEST.X), fresh.outputs(TEST.X))


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_same_lesson_gives_the_same_bytes(members, name):
    for boosted in ("refit", "grow"):
        how = TreeLearning(boosted=boosted)
        one, two = (how.teach(members[name], TEMPLATES[name], NEW, None)[0] for _ in range(2))
        assert one.content == two.content


@pytest.mark.parametrize("name", TEMPLATES)
def test_few_rows_teach_nothing(members, name):
    few = Lesson(NEW.X[:9], NEW.classes[:9], NEW.weight[:9], NEW.moves[:9], 0, False)
    assert TreeLearning().teach(members[name], TEMPLATES[name], few, None)[0] is members[name]


def test_a_gate_stops_the_same_share_of_other_scores():
    before = np.arange(100.0)
    threshold = same_share(before, before * 3 + 7, 25.0)
    assert (before * 3 + 7 < threshold).sum() == 25
    assert same_share(before[:0], before, OPEN) == OPEN


@pytest.mark.parametrize(
    "setting",
    [{"boosted": "prune"}, {"decay": 1.1}, {"decay_drifted": -0.1}, {"trees": 0}, {"forest": 1.0}],
)
def test_a_setting_out_of_range_is_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        TreeLearning(**setting)


# within the filter


@pytest.fixture(scope="module")
def market():
    return mixed(0, times=200, assets=4, snr=2.0)


def filtered(market, **settings):
    members = {"lightgbm": TEMPLATES["lightgbm"], "live": TEMPLATES["lightgbm"]}
    fitted = TreeFilter(members, **settings).fit(market.panel, market.y.iloc[:500])
    return fitted, market.y.iloc[500:]


def test_a_twin_learns_while_the_other_stays(market):
    tree_filter, y = filtered(market)
    before = tree_filter.predict(market.panel)
    np.testing.assert_array_equal(before["filter.live.z_buy"], before["filter.lightgbm.z_buy"])
    stays = copy.copy(tree_filter)
    tree_filter.relearn(market.panel, y, TreeLearning(only=["live"]))
    after = tree_filter.predict(market.panel)
    assert after["filter.lightgbm.z_buy"].equals(before["filter.lightgbm.z_buy"])
    assert not after["filter.live.z_buy"].equals(before["filter.live.z_buy"])
    assert stays.predict(market.panel).equals(before)  # a copy keeps what it had
    with pytest.raises(ConfigError, match=r"no members \['forest'\] to learn"):
        tree_filter.relearn(market.panel, y, TreeLearning(only=["live", "forest"]))


def test_the_gate_goes_on_stopping_as_many(market):
    tree_filter, y = filtered(market)
    rows = market.panel.loc[y.index]
    tree_filter.threshold_ = float(np.quantile(gate_score(tree_filter.predict(rows)), 0.3))
    tree_filter.relearn(market.panel, y, TreeLearning(decay=0.2))
    assert tree_filter.predict(rows)["filter.gate"].mean() == pytest.approx(0.7, abs=0.02)


def test_what_was_grown_survives_being_stored(market):
    tree_filter, y = filtered(market)
    how = TreeLearning(boosted="grow", trees=2)
    tree_filter.relearn(market.panel, y, how).relearn(market.panel, y, how)
    state = tree_filter.state()
    again = replace(tree_filter).restore(state)
    for one in (tree_filter, again):
        one.relearn(market.panel, y, how)  # the third time: those added are dropped first
    assert again.state() == tree_filter.state()
    assert rounds_of(again.members_["live"]) == 15 + 2
