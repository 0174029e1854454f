import json
import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from xgboost import XGBClassifier

from stages.base import ArtifactError, DataError, State
from stages.filter.gate import OPEN
from stages.panel import PanelError, until
from tests.stages.filter.conftest import as_references, planted

MEMBERS = ["lightgbm", "xgboost", "forest", "rules"]
COLUMNS = [f"filter.{m}.{z}" for m in MEMBERS for z in ("z_sell", "z_buy")]


def test_every_member_finds_the_planted_cause_on_new_rows(trained):
    new, y = planted(seed=1)
    said = trained.predict(new).loc[y.index]
    assert list(said) == [*COLUMNS, "filter.gate"]
    for member in MEMBERS:
        lean = said[f"filter.{member}.z_buy"] - said[f"filter.{member}.z_sell"]
        assert lean.corr(y["side"].astype(float)) > 0.25, member


def test_predict_keeps_every_row_and_leaves_its_input_alone(trained, market):
    panel = market[0].copy()
    assert trained.predict(panel).index.equals(panel.index)
    pd.testing.assert_frame_equal(panel, market[0])


def test_the_past_does_not_see_the_future(trained, market):
    past = until(market[0], pd.Timestamp("2020-06-01 21:00", tz="UTC"))
    now = trained.predict(market[0]).loc[past.index]
    pd.testing.assert_frame_equal(trained.predict(past), now, check_exact=True)


def test_a_row_alone_gets_the_bits_it_gets_among_others(trained, market):
    panel, together = market[0], trained.predict(market[0])
    for row in (0, 700, len(panel) - 1):
        alone = trained.predict(panel.iloc[[row]])
        pd.testing.assert_frame_equal(alone, together.iloc[[row]], check_exact=True)


def test_columns_are_read_by_name(trained, market):
    panel = market[0]
    mixed = panel[panel.columns[::-1]].assign(**{"feature.new": 1.0, "close": 2.0})
    pd.testing.assert_frame_equal(trained.predict(mixed), trained.predict(panel), check_exact=True)


def test_rows_that_are_not_ready_are_not_scored(trained, market):
    ready = np.arange(len(market[0])) % 3 > 0
    said = trained.predict(market[0].assign(ready=ready))
    assert said[~ready].isna().all(axis=None)
    pd.testing.assert_frame_equal(said[ready], trained.predict(market[0])[ready], check_exact=True)
    assert trained.predict(market[0].assign(ready=False)).isna().all(axis=None)


def test_a_restored_filter_predicts_and_explains_the_same_bits(trained, market):
    panel, y = market
    trained = replace(trained).restore(trained.state()).set_gate(np.arange(9.0), np.arange(9) > 2)
    state = trained.state()
    stored = State(json.loads(json.dumps(state.values)), dict(state.parts))
    restored = replace(trained).restore(stored)
    pd.testing.assert_frame_equal(restored.predict(panel), trained.predict(panel), check_exact=True)
    pd.testing.assert_frame_equal(restored.importance(), trained.importance(), check_exact=True)
    references = as_references(panel, y.index[5:8])
    ours, theirs = (f.attribute(panel, y.index[:4], references) for f in (trained, restored))
    assert (ours.values == theirs.values).all()
    assert restored.state() == state


def test_a_part_that_is_not_there_is_named(trees, trained):
    state = trained.state()
    with pytest.raises(ArtifactError, match=r"member forest has no part forest\.safetensors"):
        trees.restore(State(state.values, {"lightgbm.txt": b"", "xgboost.ubj": b""}))


def test_the_same_seed_gives_the_same_bytes(trees, trained, market):
    again = trees.fit(*market).state()
    assert again == trained.state()
    assert set(again.parts) == {"lightgbm.txt", "xgboost.ubj", "forest.safetensors"}


def test_fit_leaves_hyperparameters_and_input_alone(trees, market):
    panel, y = (table.copy() for table in market)
    before = str(trees)
    trees.fit(panel, y)
    assert str(trees) == before
    pd.testing.assert_frame_equal(panel, market[0])
    pd.testing.assert_frame_equal(y, market[1])
    with pytest.raises(NotFittedError):
        replace(trees).predict(panel)


def test_an_update_leaves_the_trees_as_they_are(trees, market):
    panel, y = market
    before = trees.fit(panel, y).state()
    assert trees.update(panel, y.assign(side=-y["side"])) is trees
    assert trees.state() == before


def test_shares_add_up_to_every_logit_for_every_reference(trained, market):
    panel, y = market
    rows, points = y.index[::97], y.index[50:400:40]
    references = as_references(panel, points)
    why = trained.attribute(panel, rows, references)
    assert why.outputs == tuple(COLUMNS)
    assert why.inputs == tuple(panel.columns)
    assert why.upstream == ()
    assert why.slopes.shape == (len(rows), len(points), 8, 0)
    said = trained.predict(panel)[COLUMNS]
    want = said.loc[rows].to_numpy()[:, None] - said.loc[points].to_numpy()[None]
    gap = np.abs(why.values.sum(axis=3) - want).max(axis=(0, 1))
    assert (gap[[0, 1, 4, 5, 6, 7]] < 1e-9).all()
    assert (gap[[2, 3]] < 1e-5).all()  # XGBoost sums in float32


def test_the_reasons_name_the_planted_cause(trained, market):
    panel, y = market
    why = trained.attribute(panel, y.index[::60], as_references(panel, y.index[100:500:50]))
    push = pd.DataFrame(np.abs(why.values).mean(axis=(0, 1)), why.outputs, why.inputs)
    features = push.iloc[:6].filter(like="feature.")
    assert (features["feature.x0"] > 3 * features.drop(columns="feature.x0").max(axis=1)).all()
    assert (push.iloc[6:]["rule.trend"] > 3 * push.iloc[6:]["rule.noise"]).all()
    assert (push.iloc[:6].filter(like="rule.") == 0).all(axis=None)


def test_shares_of_a_forest_add_up_where_it_rules_a_side_out(trees, market):
    # pure leaves: mean probabilities of exactly 0, below the floor on either or on both ends
    pure = replace(trees, members={"forest": trees.members["forest"]}, rules=None)
    pure.members["forest"].set_params(min_samples_leaf=1, max_depth=None, n_estimators=6)
    panel, y = market
    pure.fit(panel, y)
    X = panel.loc[y.index, pure.columns_].to_numpy()
    assert (pure.members_["forest"].trees.outputs(X) == 0).any()
    why = pure.attribute(panel, y.index[::50], as_references(panel, y.index[::60]))
    said = pure.predict(panel)[list(why.outputs)]
    assert np.isfinite(said).all(axis=None)
    want = said.loc[y.index[::50]].to_numpy()[:, None] - said.loc[y.index[::60]].to_numpy()[None]
    np.testing.assert_allclose(why.values.sum(axis=3), want, atol=1e-9)


def test_importance_is_normalised_and_led_by_the_planted_cause(trained, market):
    table = trained.importance()
    assert list(table.index) == MEMBERS
    assert list(table) == list(market[0])
    np.testing.assert_allclose(table.sum(axis=1), 1)
    assert (table.iloc[:3].idxmax(axis=1) == "feature.x0").all()
    assert table.loc["rules"].idxmax() == "rule.trend"


def test_the_gate_starts_open_and_keeps_its_recall_when_set(trees, market):
    panel, y = market
    said = trees.fit(panel, y).predict(panel)
    assert trees.threshold_ == OPEN
    assert (said["filter.gate"] == 1).all()
    scores = trees.gate_score(said.loc[y.index])
    fires = (y["side"] != 0).to_numpy()
    passed = trees.set_gate(scores, fires, y["weight"]).predict(panel).loc[y.index, "filter.gate"]
    kept = np.average(passed[fires], weights=y["weight"][fires])
    assert 0.95 <= kept < 0.955
    assert passed[~fires].mean() < 0.9
    assert set(passed) == {0.0, 1.0}


def test_rules_alone_are_a_filter_and_trees_alone_too(trees, market, caplog):
    panel, y = market
    rules = replace(trees, members={}).fit(panel, y)
    assert list(rules.predict(panel)) == [*COLUMNS[6:], "filter.gate"]
    why = rules.attribute(panel, y.index[:2], as_references(panel, y.index[5:7]))
    assert why.inputs == ("rule.trend", "rule.noise")
    assert rules.state().parts == {}
    bare = panel.filter(like="feature.")
    with caplog.at_level(logging.INFO):
        said = replace(trees).fit(bare, y).predict(bare)
    assert list(said) == [*COLUMNS[:6], "filter.gate"]
    assert "member rules is left out" in caplog.text


def test_a_forest_draws_no_more_rows_than_there_are(trees, market):
    forest = trees.members["forest"].set_params(max_samples=10**6)
    replace(trees, members={"forest": forest}).fit(*market)  # a million draws would take minutes
    assert forest.max_samples == 10**6


@pytest.mark.parametrize("absent", ["sell", "hold", "buy"])
def test_a_missing_side_is_named(trees, market, absent):
    panel, y = market
    side = {"sell": -1, "hold": 0, "buy": 1}[absent]
    with pytest.raises(DataError, match=f"no training label is {absent}") as refusal:
        trees.fit(panel, y[y["side"] != side])
    assert refusal.value.code == "SV-F44"


def test_what_cannot_be_read_is_named(trees, trained, market):
    panel, y = market
    with pytest.raises(PanelError, match=r"feature\.x3") as refusal:
        trained.predict(panel.drop(columns="feature.x3"))
    assert refusal.value.code == "SV-F20"
    infinite = panel.copy()
    infinite.iloc[7, 2] = np.inf
    with pytest.raises(DataError, match=r"feature\.x2 of \('A0'.* is inf") as refusal:
        trained.predict(infinite)
    assert refusal.value.code == "SV-F12"
    with pytest.raises(DataError, match="no feature"):
        trees.fit(panel.filter(like="rule."), y)
    with pytest.raises(DataError, match="no rule"):
        replace(trees, members={}).fit(panel.filter(like="feature."), y)
    with pytest.raises(DataError, match="not a row of the panel"):
        trained.attribute(panel.iloc[100:], panel.index[:3], as_references(panel, y.index[:2]))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"recall": 0}, r"\(0, 1\], got 0"),
        ({"recall": float("nan")}, "got nan"),
        ({"least_stopped": 1.0}, r"\[0, 1\), got 1.0"),
        ({"members": {}, "rules": None}, "nothing would score"),
        ({"members": {"rules": LGBMClassifier()}}, "not rules or gate"),
        ({"members": {"a.b": LGBMClassifier()}}, "must match"),
        ({"members": {"linear": LogisticRegression()}}, "got LogisticRegression"),
        ({"members": {"rf": LGBMClassifier(boosting_type="rf")}}, "boosting_type"),
        ({"members": {"dart": XGBClassifier(booster="dart")}}, "booster must be"),
    ],
)
def test_a_setting_out_of_range_is_refused(trees, setting, message):
    with pytest.raises(ValueError, match=message):
        replace(trees, **setting)
