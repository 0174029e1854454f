from dataclasses import replace

import numpy as np
import pytest
from lightgbm import LGBMClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import log_loss
from xgboost import XGBClassifier

from stages.base import DataError
from stages.filter.members import fit_member
from stages.filter.rows import matrix
from stages.filter.stopping import with_rounds
from stages.folds import cut_tail
from stages.panel import named, settled
from tests.stages.filter.conftest import planted, tree_filter

BOOSTERS = {
    "lightgbm": LGBMClassifier(n_estimators=80, learning_rate=0.3, n_jobs=1, verbosity=-1),
    "xgboost": XGBClassifier(n_estimators=80, learning_rate=0.3, max_depth=3, n_jobs=1),
}


@pytest.fixture(scope="module")
def rows(market):
    panel, y = market
    X = matrix(panel, named(panel, "feature"), y.index)
    return X, y["side"].to_numpy() + 1, y["weight"].to_numpy(), cut_tail(y, 0.2)


@pytest.fixture(params=BOOSTERS)
def booster(request):
    return BOOSTERS[request.param]


def staged(booster, X, rounds):
    if isinstance(booster, LGBMClassifier):
        return booster.predict_proba(X, num_iteration=rounds)
    return booster.predict_proba(X, iteration_range=(0, rounds))


def test_the_rounds_are_those_with_the_least_loss_on_the_later_rows(booster, rows):
    X, classes, weight, (early, late) = rows
    chosen = with_rounds(booster, *rows, patience=80).n_estimators
    whole = type(booster)(**booster.get_params())
    whole.fit(X[early], classes[early], sample_weight=weight[early])
    losses = [
        log_loss(classes[late], staged(whole, X[late], n), sample_weight=weight[late])
        for n in range(1, 81)
    ]
    assert losses[chosen - 1] == pytest.approx(min(losses), rel=1e-6)
    assert chosen < 40  # at this rate all 80 are too many


def test_it_looks_no_further_than_its_patience(booster, rows):
    X, classes, weight, parts = rows
    fooled = classes.copy()
    fooled[parts[1]] = (classes[parts[1]] + 1) % 3  # what is learnt is wrong in the tail
    assert with_rounds(booster, X, fooled, weight, parts, patience=2).n_estimators <= 3


def test_then_it_learns_from_all_rows(market, rows, booster):
    panel, y = market
    X, classes, weight, parts = rows
    trees = tree_filter(members={"booster": booster}, rules=None, tail=0.2, patience=10)
    stopped = with_rounds(booster, X, classes, weight, parts, 10)
    expected, _ = fit_member(stopped, X, classes, weight)
    assert trees.fit(panel, y).members_["booster"].content == expected.content
    assert booster.n_estimators == 80


def test_without_a_tail_and_for_a_forest_nothing_is_chosen(booster, rows, market):
    X, classes, weight, parts = rows
    everything = cut_tail(market[1], 0.0)
    assert with_rounds(booster, X, classes, weight, everything, 5) is booster
    forest = RandomForestClassifier(5)
    assert with_rounds(forest, X, classes, weight, parts, 5) is forest


def test_no_label_that_is_open_in_the_tail_is_learnt_from(market):
    _, y = market
    early, late = cut_tail(y, 0.2)
    time = y.index.get_level_values("time")
    assert settled(y).iloc[early].max() < time[late].min()
    assert time[late].nunique() == pytest.approx(0.2 * time.nunique(), abs=1)
    assert set(early).isdisjoint(late)
    assert len(early) + len(late) < len(y)


def test_on_noise_a_booster_that_is_stopped_is_surer_of_less():
    panel, y = planted(seed=3)
    noise = panel.assign(**{c: np.roll(panel[c], 777) for c in named(panel, "feature")})
    new, later = planted(seed=4)
    losses = []
    for tail in (0.0, 0.2):
        trees = tree_filter(members=BOOSTERS, rules=None, tail=tail).fit(noise, y)
        z = trees.predict(new).loc[later.index].iloc[:, :4].to_numpy().reshape(-1, 2, 2)
        odds = np.exp(np.insert(z, 1, 0.0, axis=2))
        odds /= odds.sum(axis=2, keepdims=True)
        side = later["side"].to_numpy() + 1
        losses.append([log_loss(side, odds[:, m]) for m in range(2)])
    assert (np.array(losses[1]) < np.array(losses[0]) - 0.1).all()


def test_a_tail_that_leaves_too_little_is_refused(market):
    panel, y = market
    side = y["side"].where(y.index.get_level_values("time") > y.index[100][1], 1)
    with pytest.raises(DataError, match="no training label is sell or hold") as refusal:
        replace(tree_filter(), tail=0.9).fit(panel, y.assign(side=side.astype("int8")))
    assert refusal.value.code == "SV-F44"


@pytest.mark.parametrize("setting", [{"tail": 1.0}, {"tail": -0.1}, {"patience": 0}])
def test_a_setting_out_of_range_is_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        tree_filter(**setting)
