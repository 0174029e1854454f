"""What every ensemble in conf/ owes the pipeline. A new config file is tested by being there."""

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sklearn.exceptions import NotFittedError

from stages.base import DataError, State
from stages.panel import until

CONF = Path(__file__).parents[3] / "conf" / "ensemble"


@pytest.fixture(params=sorted(path.stem for path in CONF.glob("*.yaml")))
def stage(request):
    cfg = OmegaConf.load(CONF / f"{request.param}.yaml")
    if "weights" in cfg:  # the members of the test's panel
        cfg.weights = {"boosted": 0.4, "forest": 0.3, "lstm": 0.3}
    return instantiate(cfg, _convert_="all")


@pytest.fixture
def references(scored):
    return reference_rows(scored[0].iloc[::150])


def reference_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """A mini-panel of one bar per reference."""
    names = pd.Index([f"{i:06d}" for i in range(len(rows))], dtype="str")
    times = rows.index.get_level_values("time")
    return rows.set_axis(pd.MultiIndex.from_arrays([names, times], names=["asset", "time"]))


def unexplained(stage, panel, rows, references) -> np.ndarray:
    """What the attribution leaves of margin(row) - margin(reference), (N, R)."""
    why = stage.attribute(panel, rows, references)
    assert why.outputs == ("margin",)
    columns = list(why.upstream)
    step = panel.loc[rows, columns].to_numpy()[:, None] - references[columns].to_numpy()[None]
    slopes = why.slopes[:, :, 0]
    carried = (slopes * np.where(slopes == 0, 0, step)).sum(axis=-1)
    margin = stage.predict(panel)["margin"].loc[rows].to_numpy()
    total = margin[:, None] - stage.predict(references)["margin"].to_numpy()
    return total - carried - why.values[:, :, 0].sum(axis=-1)


def test_every_row_gets_odds_that_sum_to_one_and_doubts_in_nats(stage, scored):
    panel, y = scored
    said = stage.fit(panel, y).predict(panel)
    assert said.index.equals(panel.index)
    np.testing.assert_allclose(said[["p_sell", "p_hold", "p_buy"]].sum(axis=1), 1)
    assert (said[["epistemic", "aleatoric", "margin_sd"]] >= 0).all(axis=None)
    assert (said["epistemic"] + said["aleatoric"] <= np.log(3) + 1e-9).all()
    assert said[["certainty_sell", "certainty_buy"]].stack().between(0, 1).all()
    np.testing.assert_allclose(said["certainty_sell"] + said["certainty_buy"], 1)  # no cost here
    members = ["filter.boosted", "filter.forest", "refiner.lstm"]
    heard = panel["refiner.lstm.z_buy"].notna()
    margins = [(panel[f"{m}.z_buy"] - panel[f"{m}.z_sell"])[heard] for m in members]
    np.testing.assert_allclose(said["disagreement"][heard], np.var(margins, axis=0))


def test_a_dearer_trade_is_less_certain_until_it_cannot_pay(stage, scored):
    panel, y = scored
    stage.fit(panel, y)
    before = None
    for cost in (0.0, 0.001, 0.005, 0.009, 0.02):
        said = stage.predict(panel.assign(cost=cost, scale=0.01))[
            ["certainty_sell", "certainty_buy"]
        ]
        assert before is None or (said <= before + 1e-12).all(axis=None)
        before = said
    assert (before == 0).all(axis=None)


def test_predict_before_fit_is_an_error(stage, scored):
    with pytest.raises(NotFittedError):
        stage.predict(scored[0])
    with pytest.raises(NotFittedError):
        stage.state()


def test_bits_do_not_depend_on_how_many_rows_come_along(stage, scored):
    panel, y = scored
    whole = stage.fit(panel, y).predict(panel)
    past = until(panel, pd.Timestamp("2020-03-01", tz="UTC"))
    few = panel.iloc[7:10]
    for part in (past, few, panel.iloc[[33]]):
        pd.testing.assert_frame_equal(stage.predict(part), whole.loc[part.index], check_exact=True)


def test_a_restored_stage_predicts_and_explains_the_same_bits(stage, scored, references):
    panel, y = scored
    text = json.dumps(stage.fit(panel, y).state().values)
    again = replace(stage).restore(State(json.loads(text)))
    pd.testing.assert_frame_equal(again.predict(panel), stage.predict(panel), check_exact=True)
    one, two = (s.attribute(panel, y.index[::99], references) for s in (stage, again))
    np.testing.assert_array_equal(one.slopes, two.slopes)
    np.testing.assert_array_equal(one.values, two.values)
    assert json.dumps(again.state().values) == text


def test_two_fits_have_the_same_state(stage, scored):
    states = [replace(stage).fit(*scored).state() for _ in range(2)]
    assert json.dumps(states[0].values) == json.dumps(states[1].values)


def test_fit_leaves_hyperparameters_and_input_alone(stage, scored):
    panel, y = scored
    before = {f.name: str(getattr(stage, f.name)) for f in fields(stage)}
    tables = panel.copy(), y.copy()
    stage.fit(panel, y).update(panel, y.iloc[:50])
    assert {f.name: str(getattr(stage, f.name)) for f in fields(stage)} == before
    pd.testing.assert_frame_equal(panel, tables[0])
    pd.testing.assert_frame_equal(y, tables[1])


def test_a_row_the_filter_is_silent_about_has_no_odds_but_is_there(stage, scored):
    panel, y = scored
    quiet = panel.copy()
    quiet.iloc[:5, quiet.columns.get_loc("filter.forest.z_buy")] = np.nan
    said = stage.fit(panel, y).predict(quiet)
    assert said.iloc[:5].isna().all(axis=None)
    assert said.iloc[5:].notna().all(axis=None)


def test_contributions_add_up_whether_or_not_the_refiner_spoke(stage, scored, references):
    panel, y = scored
    stage.fit(panel, y)
    spoke = panel["refiner.lstm.z_buy"].notna()
    assert spoke.any()
    assert references["refiner.lstm.z_buy"].isna().any()
    assert np.abs(unexplained(stage, panel, y.index[::20], references)).max() < 1e-12


def test_only_a_refiner_that_spoke_on_one_side_is_put_down_to_the_gate(stage, scored, references):
    panel, y = scored
    stage.fit(panel, y)
    refined = references[references["refiner.lstm.z_buy"].notna()]
    rows = panel.index[panel["refiner.lstm.z_buy"].notna()][::50]
    stopped = panel.index[panel["refiner.lstm.z_buy"].isna()][::50]
    assert "filter.gate" not in stage.attribute(panel, rows, refined).inputs
    assert "filter.gate" in stage.attribute(panel, stopped, refined).inputs


def test_without_a_refiner_the_filter_decides(stage, scored):
    panel, y = scored
    panel = panel.drop(columns=["refiner.lstm.z_sell", "refiner.lstm.z_buy"])
    if hasattr(stage, "weights"):
        stage = replace(stage, weights={"boosted": 1, "forest": 1})
    stage.fit(panel, y)
    assert stage.predict(panel).notna().all(axis=None)
    rows = y.index[::50]
    assert np.abs(unexplained(stage, panel, rows, reference_rows(panel.iloc[::300]))).max() < 1e-12


def test_a_silent_refiner_is_replaced_by_its_mean_given_the_filter(stage, scored):
    panel, y = scored
    stage.fit(panel, y)
    said = stage.logits_.read(panel)
    filters = [c for c in stage.logits_.columns_ if c.startswith("filter")]
    for column in ("refiner.lstm.z_sell", "refiner.lstm.z_buy"):
        spoke = panel[column].notna().to_numpy()
        X = np.column_stack([panel[filters], np.ones(len(panel))])
        W = y["weight"].to_numpy()[spoke, None] * X[spoke]
        b = np.linalg.solve(W.T @ X[spoke], W.T @ panel[column].to_numpy()[spoke])
        at = stage.logits_.columns_.index(column)
        np.testing.assert_allclose(said.z[~spoke, at], (X @ b)[~spoke], atol=1e-9)
        np.testing.assert_array_equal(said.z[spoke, at], panel[column].to_numpy()[spoke])


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        (lambda p: p.drop(columns=[c for c in p if c.startswith("filter")]), "SV-F20", "no column"),
        (lambda p: p.assign(**{"filter.forest.z_buy": np.nan}), "SV-F10", "A0 at 2020-01-01"),
        (lambda p: p.assign(**{"filter.forest.z_buy": np.inf}), "SV-F12", "A0 at .* infinite"),
        (lambda p: p.assign(**{"refiner.lstm.z_buy": np.nan}), "SV-F18", "refiner.lstm.z_buy"),
    ],
)
def test_a_panel_it_cannot_learn_from_is_refused_by_name(stage, scored, fault, code, message):
    panel, y = scored
    with pytest.raises(DataError, match=message) as refusal:
        stage.fit(fault(panel), y)
    assert refusal.value.code == code


def test_a_missing_column_at_predict_is_named(stage, scored):
    panel, y = scored
    stage.fit(panel, y)
    with pytest.raises(DataError, match="filter.forest.z_buy"):
        stage.predict(panel.drop(columns="filter.forest.z_buy"))
