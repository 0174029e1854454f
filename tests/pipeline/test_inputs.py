"""Inputs that are no good: not learnt from in training, not predicted from afterwards."""

import json
from functools import partial

import numpy as np
import pytest

from pipeline.data.sources import us_large_caps
from pipeline.signal_pipeline import SignalPipeline
from stages.features.alpha158 import past
from stages.features.build import FeatureSet
from stages.features.quality import Quality
from stages.features.returns import log_return
from stages.features.volatility import realised_volatility
from stages.folds import PurgedWalkForward
from stages.labels import TripleBarrier
from tests.conftest import tiny_pipeline

COLUMNS = {
    "return_1": partial(log_return, bars=1),
    "return_5": partial(log_return, bars=5),
    "volatility_20": partial(realised_volatility, bars=20),
    "copy": partial(log_return, bars=5),
    "one": partial(past, price="close", bars=0),
}


@pytest.fixture(scope="module")
def stocks():
    return us_large_caps(
        assets=["AAPL", "GE", "XOM"], start="2020-06-01", end="2022-12-28", calendar="XNYS"
    ).bars


@pytest.fixture(scope="module")
def fitted(stocks):
    return tiny_pipeline(
        features=FeatureSet(COLUMNS),
        labels=TripleBarrier(horizon=2, delay=0),
        folds=PurgedWalkForward(n_folds=3, first=0.4, embargo=2),
        refiner=None,
        quality=Quality(stale=15),
    ).fit(stocks)


def newest(pipeline, bars):
    return {s.asset: s for s in pipeline.signals(bars, explain=False).newest()}


def test_what_holds_nothing_is_not_learnt_from(fitted, stocks):
    kept = {"feature.return_1", "feature.return_5", "feature.volatility_20"}
    assert {c for c in fitted.references_ if c.startswith("feature.")} == kept
    assert {c for c in fitted.panel(stocks) if c.startswith("feature.")} == kept
    dropped = fitted.quality_.review_.dropped
    assert dropped["feature.copy"] == "feature.copy is a copy of feature.return_5"
    assert dropped["feature.one"] == "feature.one is constant in 100.0% of the rows"
    assert fitted.quality_.review_.score == pytest.approx(100)
    assert fitted.warmup == 21  # of the volatility; what stands still needs 16


def test_an_asset_whose_prices_stand_still_abstains_with_the_reason(fitted, stocks):
    frozen = stocks.copy()
    rows = np.flatnonzero(frozen.index.get_level_values("asset") == "GE")[-18:]
    frozen.iloc[rows, frozen.columns.get_loc("close")] = frozen["close"].iloc[rows[0]]
    said = newest(fitted, frozen)
    assert said["GE"].status == "abstain"
    assert [w.text for w in said["GE"].why_not] == ["inputs: stale, prices the same for 17 bars"]
    assert said["AAPL"] == newest(fitted, stocks)["AAPL"]
    short = frozen.groupby(level="asset").tail(fitted.warmup)
    assert newest(fitted, short)["GE"].why_not == said["GE"].why_not


def test_an_asset_whose_inputs_are_far_from_the_training_ones_abstains(fitted, stocks):
    broken = stocks.copy()
    row = np.flatnonzero(broken.index.get_level_values("asset") == "XOM")[-1]
    broken.iloc[row, broken.columns.get_loc("close")] *= 100  # cents for dollars
    said = newest(fitted, broken)
    assert said["XOM"].status == "abstain"
    assert "inputs: 100% out of range, such as feature.return_1" in said["XOM"].why_not[0].text
    assert said["GE"].status != "abstain"


def test_what_was_found_travels_with_the_artifact(fitted, stocks, tmp_path):
    read = SignalPipeline.load(fitted.save(tmp_path))
    assert read.quality_.review_ == fitted.quality_.review_
    assert read.digest == fitted.digest
    assert list(read.panel(stocks)) == list(fitted.panel(stocks))
    assert read.features_.state() == fitted.features_.state()


def test_training_stores_the_review_and_says_it(trained):
    root, ended = trained
    (path,) = root.rglob("quality.json")
    found = json.loads(path.read_text())
    assert found["data"]["score"] == 100
    assert found["inputs"]["rows"] > 500
    assert set(found["inputs"]["sources"]) == {"feature", "context"}
    columns = len(found["inputs"]["columns"])
    assert f"quality of {columns} columns: {found['inputs']['score']:.1f} of 100" in ended.err
