from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import pytest

from stages.audit.leak import LeakAudit
from stages.audit.plan import Plan, decision_times
from stages.audit.zoo.honest import Bars
from stages.audit.zoo.learning import with_methods
from stages.combinatorial import CombinatorialPurged
from stages.features.build import FeatureSet
from stages.features.returns import log_return
from stages.folds import DateSplit, PurgedWalkForward, RollingSplit
from stages.labels import TripleBarrier
from tests.conftest import tiny_pipeline

QUICK = LeakAudit(times=2, fits=1, decisions=2, assets=3, bars=120, nulls=False, first=True)


def ground(**parts):
    features = FeatureSet({"one": log_return, "five": partial(log_return, bars=5)})
    given = {"labels": TripleBarrier(horizon=3), "refiner": None, "features": features}
    folds = PurgedWalkForward(n_folds=3, first=0.4, embargo=3)
    return tiny_pipeline(folds=folds, **given | parts)


@pytest.fixture(scope="module")
def bars():
    return Bars(assets=3, times=260, seed=0).draw()


# decision times


@pytest.mark.parametrize("seed", range(5))
def test_decision_times_are_early_spread_and_the_last_but_one(seed):
    bars = Bars(assets=1, times=500, seed=0).draw()
    times = bars.index.unique("time").sort_values()
    chosen = decision_times(bars, 24, 100, np.random.default_rng(seed))
    at = times.get_indexer(chosen)
    assert chosen.is_monotonic_increasing
    assert chosen.is_unique
    assert 18 <= len(chosen) <= 25
    assert (at < 100).sum() >= 3
    assert at[-1] == 498
    assert np.diff(at[at >= 100]).max() < 60


def test_few_bars_still_have_decision_times():
    bars = Bars(assets=1, times=3, seed=0).draw()
    chosen = decision_times(bars, 24, 100, np.random.default_rng(0))
    assert set(chosen) <= set(bars.index.unique("time")[:2])


# what is looked at


def test_every_block_that_all_stages_are_tested_on_is_trained_again(bars):
    audit = replace(QUICK, fits=4)
    plan = Plan(audit, ground(), bars, None, None, None)
    y = plan._ready(plan.sample.bars)
    starts = plan.probe.folds.edges(y)[2:]  # stage 3 is unseen from the second test block on
    chosen = plan._tested(y)
    assert set(starts) <= set(chosen)
    assert len(set(chosen)) == 4
    assert min(chosen) == starts[0]


def test_no_label_that_is_open_an_embargo_before_the_block_is_left_as_it_was(bars):
    plan = Plan(QUICK, ground(), bars, None, None, None)
    assert plan.embargo == 3
    assert Plan(QUICK, ground(labels=TripleBarrier(horizon=2)), bars, None, None, None).embargo == 3
    for name, _, trials in plan._folds():
        assert name == "folds"
        assert len(trials) == 3
        for trial in trials:
            times = plan.labels.label(bars).index.unique("time").sort_values()
            assert trial.there.since == times[times.get_loc(trial.time) - 3]


# outer splits


@dataclass(frozen=True)
class Unpurged(DateSplit):
    """Trains on every row before the end of the part, whenever its label is known."""

    def parts(self, y):
        for parts in super().parts(y):
            last = y.index[parts["test"]].get_level_values("time").min()
            time = y.index.get_level_values("time")
            yield {**parts, "train": np.flatnonzero(time < last)}


def test_an_outer_split_that_does_not_purge_is_found(bars):
    times = bars.index.unique("time").sort_values()
    end, last = (f"{times[i]:%Y-%m-%d}" for i in (160, 250))
    report = QUICK.run(ground(), bars, split=Unpurged(train_end=end, test_end=last))
    assert report.findings[0].component == "split"
    assert "features" not in report.checked  # it stopped there


def test_honest_splits_are_checked_and_a_combinatorial_one_is_told(bars):
    times = bars.index.unique("time").sort_values()
    end, last = (f"{times[i]:%Y-%m-%d}" for i in (160, 250))
    for split in (
        DateSplit(train_end=end, test_end=last),
        RollingSplit(PurgedWalkForward(2, 0.5, 3)),
    ):
        report = QUICK.run(peeking(ground()), bars, split=split)
        assert report.checked["split"] >= 1
        assert report.findings[0].component == "features"
    report = QUICK.run(peeking(ground()), bars, split=CombinatorialPurged(embargo=3))
    assert "split" not in report.checked
    assert any("by design" in remark for remark in report.remarks)


def peeking(pipeline):
    """A panel whose close is the next one."""

    def panel(self, bars):
        made = type(pipeline).panel(self, bars)
        later = made["feature.one"].groupby(level="asset").shift(-1)
        return made.assign(**{"feature.one": later})

    return with_methods(pipeline, panel=panel)


# a trained model


def test_the_words_of_a_trained_model_are_compared(tiny, tiny_market):
    report = QUICK.run(tiny, tiny_market.panel, tiny_market.y, model=tiny)
    assert report.passed
    assert {"decision", "explanation", "refiner"} <= set(report.checked)


def test_a_trained_model_that_looks_at_later_bars_is_found(tiny, tiny_market):
    def predict(self, bars, newest=False, as_of=None):
        said = type(tiny).predict(self, bars, newest, as_of)
        return said.assign(margin=said["margin"] - said["margin"].mean())

    model = with_methods(tiny, predict=predict)
    vars(model).update(vars(tiny))
    report = QUICK.run(tiny, tiny_market.panel, tiny_market.y, model=model)
    assert {(f.component, f.column) for f in report.findings} == {("ensemble", "margin")}


def test_words_that_a_stage_had_learnt_by_heart_are_found_where_they_are_handed_on(bars):
    """Stage 3 is given what stage 1 says of rows that it was trained on."""
    pipeline = ground()

    def out_of_fold(stage, panel, y, folds, edges=None, note=None):
        parts = []
        for train, test in folds.split(y, edges):
            heart = y.iloc[np.sort(np.concatenate([train, test]))]
            said = replace(stage).fit(panel, heart).predict(panel)
            parts.append(said.loc[y.index[test]])
        return pd.concat(parts).sort_index()

    import stages.stack

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages.stack, "out_of_fold", out_of_fold)
        report = replace(QUICK, bars=160).run(pipeline, bars)
    assert not report.passed
    assert {f.component for f in report.findings} & {"filter", "ensemble inputs", "roles"}
