import json
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lightgbm import LGBMClassifier

from stages.base import LeakError
from stages.ensemble.decide import Decide
from stages.ensemble.soft_vote import SoftVote
from stages.filter.tree_filter import TreeFilter
from stages.folds import PurgedWalkForward, out_of_fold
from stages.markets import mixed
from stages.refiner.lstm import Lstm
from stages.refiner.refiner import SequenceRefiner
from stages.roles import DEPLOYED, EVERY, Roles, roles_in
from stages.stack import Stack, pass_forward

FOLDS = PurgedWalkForward(n_folds=3, first=0.4, embargo=2)
ROWS = pd.MultiIndex.from_product(
    [["A", "B"], pd.date_range("2020-01-01", periods=6, tz="UTC")], names=["asset", "time"]
)


@dataclass(frozen=True)
class Overlapping(PurgedWalkForward):
    """Forgets the purge, and trains on the first bars that it tests."""

    def split(self, y, edges=None):
        time = y.index.get_level_values("time")
        for _, test in super().split(y, edges):
            opened = time[test].unique().sort_values()[3]
            yield np.flatnonzero(time < opened), test


@pytest.fixture(scope="module")
def market():
    market = mixed(seed=1, times=160, assets=4, snr=2.0)
    return market.panel.assign(ready=True), market.y


def lstm(**given) -> SequenceRefiner:
    few = {"window": 4, "epochs": 2, "batch": 128, "accelerator": "cpu"}
    return SequenceRefiner({"lstm": partial(Lstm, hidden=16)}, **(few | given))


def stack(refiner: SequenceRefiner | None = None) -> Stack:
    trees = LGBMClassifier(n_estimators=4, num_leaves=5, n_jobs=1, verbosity=-1)
    weights = {"lightgbm": 1.0} | ({"lstm": 1.0} if refiner else {})
    return Stack(TreeFilter({"lightgbm": trees}), refiner, SoftVote(weights))


def times(rows: pd.Index) -> pd.Index:
    return rows.get_level_values("time")


# the passing of words from stage to stage


@pytest.fixture(scope="module")
def passed(market):
    return pass_forward(stack(lstm()), *market, FOLDS, Decide())


def test_a_pass_leaves_a_line_for_every_role_of_every_fit(passed, market):
    table = pd.DataFrame(passed.roles.table())
    blocks = {edge.isoformat() for edge in FOLDS.edges(market[1])[1:]}
    fits = {
        "filter": (blocks, {"train", "test"}),
        "refiner": (sorted(blocks)[1:], {"train", "stop", "unused", "test"}),
        "ensemble": (sorted(blocks)[2:], {"train", "test"}),
        "gate": (sorted(blocks)[2:], {"calibrate", "test"}),
    }
    for part, (folds, roles) in fits.items():
        mine = table[table["part"] == part]
        assert set(mine["fold"]) == {*folds, DEPLOYED}
        for fold, lines in mine.groupby("fold"):
            assert set(lines["role"]) == roles - ({"test"} if fold == DEPLOYED else set())
    tested = table[(table["part"] == "filter") & (table["role"] == "test")]
    assert tested["rows"].sum() == len(market[1].loc[times(market[1].index) >= min(blocks)])
    assert json.loads(json.dumps(passed.roles.table())) == passed.roles.table()


def test_training_ends_before_its_tail_and_the_tail_before_the_test(passed):
    table = pd.DataFrame(passed.roles.table())
    for _, lines in table[table["part"] == "refiner"].groupby("fold"):
        role = lines.set_index("role")
        assert role.loc["train", "last"] < role.loc["stop", "first"]
        if "test" in role.index:
            assert role.loc["stop", "last"] < role.loc["test", "first"]


def test_folds_that_train_on_what_they_test_are_refused(market):
    with pytest.raises(LeakError, match="would be train, and is test for filter") as refused:
        pass_forward(stack(), *market, Overlapping(3, 0.4, 2), Decide())
    assert (refused.value.code, refused.value.exit_code) == ("SV-F26", 7)
    assert refused.value.cure


def test_early_stopping_on_rows_that_are_tested_is_refused(market):
    """Nothing else is wrong: the net itself learns from rows before the block alone."""
    panel, y = market
    with pytest.raises(LeakError, match="would be stop, and is test for SequenceRefiner"):
        out_of_fold(lstm(tail=0.06), panel, y, Overlapping(3, 0.4, 2))


def test_a_net_that_is_stopped_by_rows_it_learns_from_is_refused(market):
    class Lax(SequenceRefiner):
        def _parts(self, y):
            early, late = super()._parts(y)
            return np.union1d(early, late), late

    lax = Lax({"lstm": partial(Lstm, hidden=16)}, window=4, epochs=1, accelerator="cpu")
    with pytest.raises(LeakError, match="would be stop, and is train for refiner"):
        pass_forward(stack(lax), *market, FOLDS, Decide())


def test_a_stage_that_brings_labels_of_its_own_is_refused(market):
    panel, y = market

    @dataclass
    class Cheat:
        """Stops by all labels there are, those of the block among them."""

        labels: pd.DataFrame = field(repr=False)

        def fit(self, panel, y):
            self.roles_ = {"train": y.index, "stop": self.labels.index.difference(y.index)}
            return self

    with pytest.raises(LeakError, match="as stop, and was not given it"):
        out_of_fold(Cheat(y), panel, y, FOLDS)


def test_a_stage_that_learns_from_words_about_rows_known_by_heart_is_refused(market, monkeypatch):
    """Stage 2 handed what the deployed stage 1 says of its own training rows."""
    panel, y = market

    def by_heart(stage, panel, y, folds, edges=None, note=None):
        return replace(stage).fit(panel, y).predict(panel).loc[y.index]

    monkeypatch.setattr("stages.stack.out_of_fold", by_heart)
    with pytest.raises(LeakError, match="with words of filter, which had seen that row"):
        pass_forward(stack(), panel, y, FOLDS, Decide())


def test_scales_of_the_nets_are_not_set_on_the_tail_that_stops_them(market):
    panel, y = market
    refiner = lstm(epochs=1).fit(panel, y)
    late = panel.index.isin(refiner.roles_["stop"])
    moved = panel.copy()
    moved.loc[late, [c for c in panel if c.startswith("feature.")]] += 100.0
    again = lstm(epochs=1).fit(moved, y)
    assert late.sum() > 50
    np.testing.assert_array_equal(refiner.reader_.scaling.median, again.reader_.scaling.median)
    np.testing.assert_array_equal(refiner.reader_.scaling.gain, again.reader_.scaling.gain)


# the rules, one by one


def book() -> Roles:
    roles = Roles(ROWS)
    roles.record("filter", "1", {"train": ROWS[[0, 1, 6]], "test": ROWS[[2, 3, 8]]})
    return roles.record("filter", "2", {"train": ROWS[[0, 1, 2, 3]], "test": ROWS[[4, 5]]})


def test_a_row_has_one_role_in_a_part_and_a_fold():
    with pytest.raises(LeakError, match="A at 2020-01-01 00:00:00.* would be stop, and is train"):
        book().record("filter", "1", {"stop": ROWS[[0]]})
    book().record("filter", "3", {"stop": ROWS[[0]]})


def test_what_one_part_tests_no_other_part_of_the_fold_learns_from():
    for role in ("train", "stop", "calibrate", "reference", "unused"):
        with pytest.raises(LeakError, match=f"would be {role}, and is test for filter"):
            book().record("scaler", "1", {role: ROWS[[2]]})
        with pytest.raises(LeakError, match=f"would be test, and is {role} for labels"):
            book().record("labels", "1", {role: ROWS[[7]]}).record(
                "filter", "1", {"test": ROWS[[7]]}
            )
    book().record("scaler", "2", {"train": ROWS[[2]]})  # tested in fold 1, learnt from in fold 2


def test_a_fit_that_all_folds_share_may_touch_no_row_that_any_of_them_tests():
    book().record("labels", EVERY, {"calibrate": ROWS[[0, 1, 6]]})
    with pytest.raises(LeakError, match="would be calibrate, and is test for filter"):
        book().record("labels", EVERY, {"calibrate": ROWS[[4]]})
    with pytest.raises(LeakError, match="would be test, and is calibrate for labels"):
        book().record("labels", EVERY, {"calibrate": ROWS[[7]]}).record(
            "filter", "3", {"test": ROWS[[7]]}
        )


def test_a_part_learns_from_unseen_words_only():
    book().record("ensemble", "2", {"train": ROWS[[2, 3, 8]], "test": ROWS[[4, 5]]}, ["filter"])
    with pytest.raises(LeakError, match="ensemble would train on A at 2020-01-02"):
        book().record("ensemble", "2", {"train": ROWS[[2, 1]]}, ["filter"])
    with pytest.raises(LeakError, match="with words of refiner, which had seen"):
        book().record("gate", DEPLOYED, {"calibrate": ROWS[[2]]}, ["filter", "refiner"])


def test_rows_held_out_have_no_role_at_all():
    later = ROWS.set_levels(ROWS.levels[1] + pd.Timedelta("1D"), level=1)  # some are not learnt
    roles = book().hold_out("test", later[[5, 11]]).hold_out("valid", ROWS[[9]])
    assert roles.table()[-1] == {
        "part": "valid",
        "fold": EVERY,
        "role": "held out",
        "rows": 1,
        "first": "2020-01-04T00:00:00+00:00",
        "last": "2020-01-04T00:00:00+00:00",
    }
    for row, role in [(0, "train"), (1, "train"), (4, "test")]:
        with pytest.raises(LeakError, match=f"would be held out, and is {role} for filter"):
            book().hold_out("test", ROWS[[row]])
    for role in ("train", "test", "reference"):
        with pytest.raises(LeakError, match=f"would be {role}, and is held out for valid"):
            roles.record("late", DEPLOYED, {role: ROWS[[9]]})


def test_rows_outside_of_the_panel_are_refused():
    stranger = pd.MultiIndex.from_tuples([("Z", ROWS[0][1])], names=ROWS.names)
    with pytest.raises(LeakError, match="Z at .* as train, which is none of its rows"):
        book().record("filter", "3", {"train": stranger})


def test_a_stage_that_tells_nothing_trains_on_all_and_what_it_leaves_is_unused():
    y = pd.DataFrame({"side": np.int8(0)}, ROWS)
    assert roles_in(object(), y)["train"].equals(ROWS)

    class Told:
        roles_ = {"train": ROWS[[0, 1]], "stop": ROWS[[4]]}

    assert list(roles_in(Told(), y)["unused"]) == list(ROWS[[2, 3, 5, 6, 7, 8, 9, 10, 11]])


def test_a_restored_table_is_the_table():
    assert Roles.of(book().table()).table() == book().table()


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_whatever_is_recorded_no_row_ends_with_two_roles_that_exclude_each_other(data):
    roles, kept = Roles(ROWS), []
    for _ in range(data.draw(st.integers(1, 8))):
        part, fold = data.draw(st.sampled_from("pq")), data.draw(st.sampled_from(["1", "2", EVERY]))
        role = data.draw(st.sampled_from(["train", "stop", "test", "held out"]))
        rows = set(data.draw(st.lists(st.integers(0, 11), min_size=1, max_size=4)))
        held = role == "held out"
        entry = ("outer" if held else part, EVERY if held else fold, role, rows)
        clash = any(rows & old[3] and excludes(entry, old) for old in kept)
        note = roles.hold_out if held else partial(roles.record, part, fold)
        try:
            note("outer", ROWS[sorted(rows)]) if held else note({role: ROWS[sorted(rows)]})
        except LeakError:
            assert clash
            return
        assert not clash
        kept.append(entry)


def excludes(one, two) -> bool:
    """The rules in words: same part and fold; tested and learnt from; held out and anything."""
    (part, fold, role, _), (its_part, its_fold, its_role, _) = one, two
    if "held out" in (role, its_role):
        return role != its_role
    if (part, fold) == (its_part, its_fold):
        return role != its_role
    shared = fold == its_fold or EVERY in (fold, its_fold)
    return shared and (role == "test") != (its_role == "test")
