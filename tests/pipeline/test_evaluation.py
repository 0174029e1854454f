import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.data.sources import Source, synthetic
from pipeline.evaluation import SHOWN, judge


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
    assert skill[("rank_ic", "low")] > 0
    assert skill[("mcc", "low")] > 0


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


def test_without_closes_there_is_no_return_and_no_last_sign(tiny, source):
    blind = replace(source, bars=source.bars.drop(columns=["close", "session"]))
    said = judge(tiny, tiny.unseen_, source.y, blind, resamples=5)
    assert "last sign" not in said.table.index
    assert said.predictions["forward_return"].isna().all()
    assert said.predictions["session"].isna().all()
