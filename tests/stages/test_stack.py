import logging
from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lightgbm import LGBMClassifier
from sklearn.ensemble import RandomForestClassifier

from stages.base import ConfigError
from stages.ensemble.decide import Decide
from stages.ensemble.stacker import BayesianStacker
from stages.filter.gate import OPEN, gate_score, gate_threshold
from stages.filter.tree_filter import TreeFilter
from stages.folds import PurgedWalkForward
from stages.markets import mixed, tabular
from stages.panel import named
from stages.refiner.lstm import Lstm
from stages.refiner.refiner import SequenceRefiner
from stages.stack import UNGATED, Stack, pass_forward

FOLDS = PurgedWalkForward(n_folds=5, first=0.3, embargo=3)
WINDOW = 6
ODDS = ["p_sell", "p_hold", "p_buy"]


def held(market, bars: int = 3, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The market's panel and labels, but known only some bars later, with uneven weights."""
    panel = market.panel.assign(ready=True)
    times = panel.index.unique("time")
    at = times.get_indexer(market.y.index.get_level_values("time"))
    y = market.y[at + bars < len(times)]
    weight = np.random.default_rng(seed).uniform(0.1, 1, len(y))
    return panel, y.assign(end=times[at[at + bars < len(times)] + bars], weight=weight)


def trees(**members) -> TreeFilter:
    boosted = LGBMClassifier(n_estimators=12, num_leaves=7, n_jobs=1, verbosity=-1)
    return TreeFilter({"lightgbm": boosted} | members, recall=0.6)


def lstm(**given) -> SequenceRefiner:
    few = {"window": WINDOW, "epochs": 1, "batch": 128, "accelerator": "cpu"}
    return SequenceRefiner({"lstm": partial(Lstm, hidden=16)}, **(few | given))


def stack(refiner: bool = True) -> Stack:
    ensemble = BayesianStacker(interactions=("context.regime",))
    return Stack(trees(), lstm() if refiner else None, ensemble)


def times_of(table: pd.DataFrame) -> pd.DatetimeIndex:
    return table.index.get_level_values("time")


@pytest.fixture(scope="module")
def market():
    return held(mixed(0, times=240, assets=4, features=6))


@pytest.fixture(scope="module", params=[True, False], ids=["refined", "unrefined"])
def template(request):
    return stack(refiner=request.param)


@pytest.fixture(scope="module")
def passed(template, market):
    return pass_forward(template, *market, FOLDS, Decide())


def correlation(said: pd.DataFrame, y: pd.DataFrame, member: str) -> float:
    lean = said[f"{member}.z_buy"] - said[f"{member}.z_sell"]
    known = lean.index[lean.notna()].intersection(y.index)
    return float(np.corrcoef(lean[known], y.loc[known, "side"])[0, 1])


def test_every_row_of_the_later_blocks_is_unseen_and_none_of_the_earlier(passed, template, market):
    _, y = market
    edges = FOLDS.edges(y)
    stages = len(list(template))
    assert passed.unseen.index.equals(y.index[times_of(y) >= edges[stages]])
    assert passed.matured.index.equals(y.index[times_of(y) >= edges[stages - 1]])
    assert passed.unseen[[*ODDS, *(f"ungated.{c}" for c in ODDS)]].notna().all(axis=None)
    assert "gate_set" not in passed.unseen
    np.testing.assert_allclose(passed.unseen[ODDS].sum(axis=1), 1)


def test_a_fitted_stack_speaks_of_every_row_and_keeps_the_panel(passed, market):
    panel, _ = market
    for said in (passed.stack.predict(panel), passed.stack.compare(panel, panel.index)):
        pd.testing.assert_frame_equal(said[list(panel.columns)], panel)
        assert said[ODDS].notna().all(axis=None)


def test_templates_stay_unfitted(passed, template):
    for name, stage in template:
        learnt = {a for a in vars(stage) if a.endswith("_")} - {f.name for f in fields(stage)}
        assert not learnt, name


def test_without_a_refiner_there_are_two_stages(market):
    plain = stack(refiner=False)
    assert [name for name, _ in plain] == ["filter", "ensemble"]
    passed = pass_forward(plain, *market, FOLDS, Decide())
    assert passed.stack.refiner is None
    assert not named(passed.unseen, "refiner")
    assert not named(passed.stack.predict(market[0]), "refiner")


def test_a_refiner_that_leaves_the_filter_alone_learns_from_the_first_block_too(market):
    template, first = replace(stack(), refiner=lstm(static=False)), FOLDS.edges(market[1])[1]
    passed = pass_forward(template, *market, FOLDS, Decide())
    heard = pass_forward(stack(), *market, FOLDS, Decide())
    assert passed.unseen.index.equals(heard.unseen.index)
    for said, early in ((passed, True), (heard, False)):
        learnt = [
            pd.Timestamp(line["first"])
            for line in said.roles.table()
            if (line["part"], line["role"]) == ("refiner", "train")
        ]
        assert len(learnt) == FOLDS.n_folds  # four test blocks, and what is deployed
        assert all((time < first) == early for time in learnt)


def test_the_same_seed_passes_the_same_bits(passed, template, market):
    again = pass_forward(template, *market, FOLDS, Decide())
    pd.testing.assert_frame_equal(again.unseen, passed.unseen, check_exact=True)
    assert again.gate == passed.gate


# what may be learnt from


@pytest.fixture(scope="module")
def noise():
    """Labels that nothing in the panel knows of: the sides of a planted market, shuffled."""
    panel, y = held(tabular(3, times=240, assets=5))
    side = np.random.default_rng(3).permutation(y["side"].to_numpy())
    return panel, y.assign(side=side)


@pytest.fixture(scope="module")
def fooled(noise):
    """Members free to learn noise by heart, passed forward."""
    forest = RandomForestClassifier(20, min_samples_leaf=2, random_state=0)
    net = {"lstm": partial(Lstm, hidden=16, dropout=0)}
    retentive = replace(lstm(epochs=14, tail=0, learning_rate=0.03), members=net)
    template = Stack(trees(forest=forest), retentive, BayesianStacker())
    return pass_forward(template, *noise, FOLDS, Decide())


def test_noise_is_learnt_by_heart_but_not_found_out_of_fold(fooled, noise):
    panel, y = noise
    # the net learnt beside out-of-fold logits: asked beside others it says other things
    heart = fooled.stack.filter.predict(panel).join(fooled.stack.refiner.predict(fooled.panel))
    least = {"filter.lightgbm": 0.3, "filter.forest": 0.7, "refiner.lstm": 0.3}
    for member, seen in least.items():
        assert correlation(heart, y, member) > seen
        assert abs(correlation(fooled.panel, y, member)) < 0.1


def test_the_last_stage_gives_noise_no_weight_unless_it_is_told_what_members_know_by_heart(
    fooled, noise
):
    panel, y = noise
    rows = y.loc[fooled.unseen.index]

    def loss(odds):
        return -np.log(odds.to_numpy()[np.arange(len(rows)), rows["side"] + 1]).mean()

    assert loss(fooled.unseen[ODDS]) < np.log(3) + 0.02
    # the canary: an ensemble that learns from in-sample logits trusts them
    early = y[y["end"] < times_of(rows).min()]
    by_heart = replace(fooled.stack.filter).fit(panel, early)
    said = panel.assign(**by_heart.predict(panel))
    naive = BayesianStacker().fit(said, early)
    assert loss(naive.predict(said).loc[rows.index, ODDS]) > np.log(3) + 0.2


def test_later_stages_are_given_exactly_what_earlier_ones_said_out_of_fold(passed, market):
    """Refitting each deployed stage on the out-of-fold panel gives the deployed stage."""
    panel, y = market
    for name, stage in passed.stack:
        if name == "filter":
            again = replace(stage).fit(panel, y)
        else:
            rows = passed.panel[named(passed.panel, "filter")].dropna().index
            labels = y.loc[rows] if name == "refiner" else passed.matured
            again = replace(stage).fit(passed.panel, labels)
        assert again.state().parts == stage.state().parts
        ignored = {"threshold"}  # the gate is set after the fit
        one, two = (
            {k: v for k, v in s.state().values.items() if k not in ignored} for s in (again, stage)
        )
        assert one == two


@dataclass
class Witness:
    """A stage whose every word is the newest instant it knows of, by itself or by hearsay."""

    name: str
    recall: float = 0.9

    def fit(self, panel, y):
        ends = panel.loc[y.index, "true_end"].max()
        self.knows_ = max(heard_by(panel.loc[y.index]).max(), ends, days(times_of(panel)).max())
        return self

    def predict(self, panel):
        word = np.maximum(heard_by(panel), self.knows_)
        if self.name == "ensemble":
            odds = dict.fromkeys(ODDS, 1 / 3)
            sure = {"certainty_sell": 0.5, "certainty_buy": 0.5}
            return pd.DataFrame(odds | {"margin": word, "margin_sd": 1.0} | sure, panel.index)
        said = {f"{self.name}.w.{side}": word for side in ("z_sell", "z_buy")}
        gate = {"filter.gate": 1.0} if self.name == "filter" else {}
        return pd.DataFrame(said | gate, panel.index)

    def update(self, panel, y):
        rows = panel.loc[y.index]
        self.knows_ = max(self.knows_, rows["true_end"].max(), heard_by(rows).max())
        return self

    def gate_threshold(self, scores, fires, weights=None):
        return gate_threshold(scores, fires, self.recall, weights)

    def set_gate(self, scores, fires, weights=None):
        self.threshold_ = self.gate_threshold(scores, fires, weights)


def heard_by(panel) -> np.ndarray:
    """The newest instant that earlier stages know of, by row; day 0 where they are silent."""
    words = panel[named(panel, "filter", "refiner")].fillna(0)
    return words.to_numpy().max(axis=1, initial=0)


def days(times) -> np.ndarray:
    return np.asarray((pd.DatetimeIndex(times) - pd.Timestamp("2000-01-01", tz="UTC")).days)


def hearsay(
    seed: int,
    n_folds: int,
    embargo: int,
    longest: int,
    honest: bool = True,
    update_every: int = 0,
):
    """Days that rows of `unseen` lie ahead of the newest instant known to each stage, by row.

    Ends of labels are random; told dishonestly, `y` claims that all end after a bar.
    """
    panel, y = held(tabular(0, times=150, assets=2), bars=longest)
    rng = np.random.default_rng(seed)
    times = panel.index.unique("time")
    at = times.get_indexer(times_of(y))
    true = times[at + rng.integers(1, longest + 1, len(y))]
    y = y.assign(end=true if honest else times[at + 1])
    panel["true_end"] = pd.Series(days(true), y.index).reindex(panel.index)
    witnesses = Stack(Witness("filter"), Witness("refiner"), Witness("ensemble"))
    folds = PurgedWalkForward(n_folds, 0.4, embargo, update_every)
    unseen = pass_forward(witnesses, panel, y, folds, Decide()).unseen
    words = unseen[["filter.w.z_buy", "refiner.w.z_buy", "ungated.margin", "margin"]]
    return -words.sub(days(times_of(unseen)), axis=0)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 1000),
    n_folds=st.integers(3, 6),
    embargo=st.integers(0, 8),
    longest=st.integers(1, 8),
)
def test_no_stage_knows_anything_of_the_embargo_or_the_block(seed, n_folds, embargo, longest):
    ahead = hearsay(seed, n_folds, embargo, longest)
    assert ahead.notna().all(axis=None)
    assert ahead.min(axis=None) > embargo


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 1000),
    embargo=st.integers(0, 8),
    longest=st.integers(1, 8),
    update_every=st.integers(1, 12),
)
def test_stage_3_goes_on_learning_labels_that_have_ended(seed, embargo, longest, update_every):
    ahead = hearsay(seed, 4, embargo, longest, update_every=update_every)
    assert ahead[["filter.w.z_buy", "refiner.w.z_buy"]].min(axis=None) > embargo
    assert ahead["margin"].min() >= 0
    # a label waits for its end, and then for the next update; five bars are seven days
    bars = max(longest + update_every, embargo + longest + 1)
    assert ahead["margin"].max() <= 7 / 5 * bars + 2


def test_a_missing_purge_would_be_caught():
    assert hearsay(0, 4, embargo=0, longest=8).min(axis=None) > 0
    assert hearsay(0, 4, embargo=0, longest=8, honest=False).min(axis=None) <= 0


# the future


def poisoned(panel: pd.DataFrame, y: pd.DataFrame, time: pd.Timestamp, seed: int):
    """The history with garbage for all that was not known at `time`."""
    rng = np.random.default_rng(seed)
    later = times_of(panel) > time
    panel = panel.copy()
    for column in panel.columns.drop("ready"):
        noise = 30 * rng.standard_normal(later.sum())
        panel.loc[later, column] = noise.astype(panel[column].dtype)
    open_ = (y["end"] > time).to_numpy()
    y = y.copy()
    y.loc[open_, "side"] = rng.integers(-1, 2, open_.sum()).astype("int8")
    y.loc[open_, ["weight", "ret"]] = rng.uniform(0.01, 5, (open_.sum(), 2))
    return panel, y


def test_the_past_does_not_see_the_future(passed, template, market):
    """Edges of blocks, the bars around them, and bars in between."""
    panel, y = market
    bars = y.index.unique("time").sort_values()
    starts = bars.get_indexer(FOLDS.edges(y)[len(list(template)) :])
    instants = {starts[0] + 5, starts[1] - 1, starts[1] + 1, starts[-1] - 1, starts[-1] + 7}
    for seed, time in enumerate(bars[sorted(instants)]):
        again = pass_forward(template, *poisoned(panel, y, time, seed), FOLDS, Decide())
        for before, after in ((passed.unseen, again.unseen), (passed.panel, again.panel)):
            past = before.index[times_of(before) <= time]
            assert len(past)
            pd.testing.assert_frame_equal(after.loc[past], before.loc[past], check_exact=True)
    assert not again.unseen.equals(passed.unseen)


# the gate


def test_the_gate_of_a_block_is_what_the_blocks_before_it_would_set(passed, template, market):
    _, y = market
    unseen = passed.unseen
    edges = FOLDS.edges(y)[len(list(template)) :]
    shut = []
    for start, stop in zip(edges, [*edges[1:], None], strict=True):
        block = unseen[(times_of(unseen) >= start) & (stop is None or times_of(unseen) < stop)]
        cut = y.index.unique("time").sort_values()
        cut = cut[cut.get_loc(start) - FOLDS.embargo]
        before = unseen[(y.loc[unseen.index, "end"] < cut).to_numpy()]
        threshold = OPEN
        if start != edges[0]:
            assert len(before)
            ungated = {c: before[f"ungated.{c}"] for c in UNGATED}
            said = Decide().decide(before.assign(**ungated, **{"filter.gate": 1.0}))
            certain = said["certainty"].to_numpy()
            fires = certain >= min(0.8, np.quantile(certain, 0.9))
            weight = y.loc[before.index, "weight"].to_numpy()
            threshold = gate_threshold(gate_score(before), fires, 0.6, weight)
        passes = gate_score(block) >= threshold
        np.testing.assert_array_equal(block["filter.gate"], passes.astype(float))
        shut.append((~passes).mean())
    assert shut[0] == 0
    assert max(shut) > 0.1


def test_the_discarded_share_counts_the_blocks_whose_gate_was_set(passed, template, market):
    _, y = market
    second = FOLDS.edges(y)[len(list(template)) + 1]
    tested = passed.unseen[times_of(passed.unseen) >= second]
    assert passed.gate["rows"] == len(tested)
    assert passed.gate["discarded"] == pytest.approx((tested["filter.gate"] == 0).mean())
    assert 0 < passed.gate["discarded"] < 1
    assert passed.gate["threshold"] == passed.stack.filter.threshold_ > OPEN


def test_the_gate_changes_odds_only_where_it_is_shut(passed):
    unseen = passed.unseen
    ungated = unseen[[f"ungated.{c}" for c in ODDS]].set_axis(ODDS, axis=1)
    changed = (unseen[ODDS] != ungated).any(axis=1)
    refined = bool(named(unseen, "refiner"))
    assert changed.any() == refined
    assert (unseen.loc[changed, "filter.gate"] == 0).all()
    assert unseen[named(unseen, "refiner")].notna().all(axis=None)


def test_comparing_says_what_predicting_says_and_what_an_open_gate_would(passed, market):
    panel, _ = market
    said, both = passed.stack.predict(panel), passed.stack.compare(panel, panel.index)
    stages = [c for c in said if c not in panel and not c.startswith("refiner.")]
    pd.testing.assert_frame_equal(both[stages], said[stages], check_exact=True)
    assert (said["filter.gate"] == 0).any()
    ajar = replace(passed.stack.filter).restore(passed.stack.filter.state())
    ajar.threshold_ = OPEN
    opened = replace(passed.stack, filter=ajar).predict(panel)
    for column in UNGATED:
        np.testing.assert_array_equal(both[f"ungated.{column}"], opened[column])
    for column in named(opened, "refiner"):
        np.testing.assert_array_equal(both[column], opened[column])


def test_labels_that_are_all_still_open_leave_the_gate_open():
    """The labels of one block outlast it: that block has no say in the gate of the next."""
    panel, y = held(tabular(1, times=200, assets=3), bars=30)
    folds = PurgedWalkForward(5, 0.5, embargo=0)  # blocks of 17 bars
    blocks = folds.edges(y)[2:]
    bars = panel.index.unique("time")
    end = bars[bars.get_indexer(times_of(y)) + 1]
    long = (times_of(y) >= blocks[0]) & (times_of(y) < blocks[1])
    y["end"] = y["end"].where(long, end)
    passed = pass_forward(stack(refiner=False), panel, y, folds, Decide())
    first, second, third = (times_of(passed.unseen) >= block for block in blocks[:3])
    assert first.all()
    assert (passed.unseen.loc[~third, "filter.gate"] == 1).all()
    assert (passed.unseen.loc[third, "filter.gate"] == 0).any()
    assert passed.gate["rows"] == third.sum() < second.sum()


# too few blocks


@pytest.mark.parametrize("refiner", [True, False])
def test_fewer_blocks_than_stages_are_refused_and_the_cure_cures(market, refiner):
    few = stack(refiner)
    stages = len(list(few))
    with pytest.raises(ConfigError, match=f"{stages - 1} test blocks are too few") as refused:
        pass_forward(few, *market, PurgedWalkForward(stages - 1, 0.3, 3), Decide())
    assert f"folds.n_folds={stages}" in refused.value.cure
    passed = pass_forward(few, *market, PurgedWalkForward(stages, 0.3, 3), Decide())
    assert passed.gate["discarded"] is None  # one block: no gate was set before it
    assert passed.gate["rows"] == 0
    assert (passed.unseen["filter.gate"] == 1).all()


def test_each_stage_is_announced_with_what_it_learns_from(market, caplog):
    with caplog.at_level(logging.INFO, logger="stages.stack"):
        pass_forward(stack(), *market, FOLDS, Decide())
    said = [r.getMessage() for r in caplog.records if r.name == "stages.stack"]
    assert [line.split(":")[0] for line in said] == ["filter", "refiner", "ensemble"]
    assert [int(line.split("rows, ")[1].split()[0]) for line in said] == [5, 4, 3]
