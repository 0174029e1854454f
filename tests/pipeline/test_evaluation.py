import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.data.sources import Source, synthetic
from pipeline.evaluation import NO_MEMBER, SHOWN, counted, judge
from pipeline.ledger import read


@pytest.fixture(scope="module")
def source(tiny_market) -> Source:
    return synthetic(tiny_market)


@pytest.fixture(scope="module")
def judged(tiny, source):
    return judge(tiny, tiny.unseen_, source.y, source, resamples=40)


def test_every_model_is_judged_on_the_same_unseen_rows(judged, tiny):
    assert list(judged.table.index) == [
        *("base rate", "last sign", "lightgbm", "xgboost", "forest", "lstm", "soft vote"),
        *("stage 1", "stage 2", "stage 3", "pipeline"),
    ]
    assert judged.predictions.index.equals(tiny.unseen_.index)
    assert (judged.table[("answered", "value")] == 1).all()
    assert judged.table[("base_rate", "value")].nunique() == 1
    assert set(SHOWN) <= set(judged.table.columns.unique(0))


def test_every_figure_stands_in_its_interval(judged):
    for name in ("accuracy", "log_loss", "brier", "rank_ic"):
        part = judged.table[name].dropna()
        assert (part["low"] <= part["high"]).all()
        inside = part["value"].between(part["low"] - 0.02, part["high"] + 0.02)
        assert inside.all(), name


def test_skill_is_seen_where_it_is_planted(judged):
    skill = judged.table.loc["pipeline"]
    assert skill[("mcc", "low")] > 0
    assert skill[("direction", "low")] > 0.5
    assert skill[("ic", "value")] > 0.1  # its interval is wide: the market has seen few regimes


def test_the_rows_written_are_those_of_the_interface(judged, tmp_path):
    path = tmp_path / "new" / "rows.parquet"
    judged.write(path)
    rows = pd.read_parquet(path)
    first = ["asset", "time", "session", "p_sell", "p_hold", "p_buy", "score", "side", "label"]
    assert list(rows)[:10] == [*first, "forward_return"]
    assert (rows["side"].dtype, rows["label"].dtype) == ("Int8", "int8")
    assert len(rows) == len(judged.predictions)
    np.testing.assert_allclose(rows["score"], rows["p_buy"] - rows["p_sell"])
    assert rows["session"].notna().all()


def test_the_forward_return_is_that_of_the_horizon(judged, source):
    close = source.bars["close"]
    ahead = close.groupby("asset").shift(-1) / close - 1
    said = judged.predictions["forward_return"]
    np.testing.assert_allclose(said, ahead.loc[said.index])


def test_metrics_are_json(judged):
    values = json.loads(json.dumps(judged.metrics(), allow_nan=False))
    assert values["pipeline"]["accuracy"].keys() == {"value", "low", "high"}
    assert values["base rate"]["coverage"]["value"] is None
    assert values["pipeline"]["sharpe"]["value"] == judged.sharpe["value"]
    assert values["pipeline"]["log_loss_less_base_rate"] == dict(judged.rivals["base rate"])


def test_the_card_is_json_and_holds_what_a_page_shows(judged):
    card = json.loads(json.dumps(judged.card(), allow_nan=False))
    assert card["rows"] == len(judged.predictions)
    assert "base_rate" not in card["shown"]  # one figure for all, beside the table
    assert card["base_rate"] == judged.printed()["pipeline"][list(SHOWN).index("base_rate")]
    assert {len(row) for row in card["printed"].values()} == {len(card["shown"])}


def test_a_figure_is_printed_with_its_interval(judged):
    value, low, high = judged.table.loc["pipeline", "accuracy"]
    assert judged.printed()["pipeline"][0] == f"{value:.3f} [{low:.3f}, {high:.3f}]"
    assert judged.short("accuracy") == f"{value:.3f} ±{(high - low) / 2:.3f}"
    assert judged.short("coverage", "forest") == ""
    assert judged.short("nothing of the kind") == ""


def test_an_evaluation_shows_itself_in_a_notebook(judged):
    page = judged._repr_html_()
    assert all(name in page for name in ("base_rate", "mcc", "pipeline", "stage 2"))


def test_the_pipeline_is_held_against_its_best_member_and_the_base_rate(judged):
    loss = judged.table[("log_loss", "value")]
    best, base = judged.rivals
    assert best == loss.drop(list(NO_MEMBER), errors="ignore").idxmin()
    assert base == "base rate"
    for name, gap in judged.rivals.items():
        assert gap["value"] == pytest.approx(loss["pipeline"] - loss[name])
        assert gap["low"] < gap["value"] < gap["high"]


def test_the_book_follows_the_scores_of_the_pipeline(judged, source):
    step = source.bars["close"].groupby("asset").pct_change().groupby("time").mean()
    assert list(judged.book) == ["gain", "cost", "net", "exposure"]
    assert (judged.book["exposure"] <= 1 + 1e-9).all()
    assert judged.cost == judged.book["cost"].abs().sum() == 0  # the planted market trades for free
    first = judged.predictions.index.get_level_values("time").min()
    assert judged.book.index[0] == step.index[step.index.get_loc(first) + 1]
    assert judged.sharpe["low"] < judged.sharpe["value"] < judged.sharpe["high"]


def test_costs_of_the_assets_are_charged_to_the_book(barrier, source):
    y = barrier.labels_.label(source.bars)
    said = judge(barrier, barrier.unseen_, y, source, resamples=10)
    assert said.cost == pytest.approx(2.0)
    traded = said.book["cost"].sum() / 1e-4  # half of 2 basis points per unit
    assert 0.1 < traded / len(said.book) <= 2


def test_an_evaluation_is_entered_with_its_standing(judged, source, tmp_path):
    said = counted(judged, tmp_path, "train", "aa", source, 7)
    [trial] = read(tmp_path).trials
    assert (trial.digest, trial.part, trial.data) == (said.trial, "out-of-fold", source.digest)
    assert trial.figures["log_loss"] == judged.table.loc["pipeline", ("log_loss", "value")]
    np.testing.assert_allclose(trial.returns, judged.book["net"], rtol=1e-6, atol=1e-12)
    assert said.standing.trials == 1
    assert said.standing.sharpe == pytest.approx(judged.sharpe["value"], rel=1e-4)
    assert said.standing.deflated == said.standing.above_zero  # of one, nothing was chosen
    assert said.luck()["cost_bps"] == 0
    assert judged.luck() is None


def test_without_closes_there_is_no_return_and_no_last_sign(tiny, source):
    blind = replace(source, bars=source.bars.drop(columns=["close", "session"]))
    said = judge(tiny, tiny.unseen_, source.y, blind, resamples=5)
    assert "last sign" not in said.table.index
    assert said.predictions["forward_return"].isna().all()
    assert said.predictions["session"].isna().all()
    assert said.book.empty
    assert np.isnan(said.sharpe["value"])
