"""Skill where there is some, none where there is none; the full-size runs are in experiments/."""

import pytest

from pipeline.assemble import assemble, load_source
from pipeline.evaluation import judge
from tests.conftest import composed

SMALL = (
    *("+experiment=planted", "data.market.times=2000", "data.market.assets=10"),
    *("filter.members.lightgbm.n_estimators=60", "filter.members.xgboost.n_estimators=60"),
    *("filter.members.forest.n_estimators=40", "refiner.epochs=6", "refiner.progress=false"),
)
NOISE = ("data.market._target_=stages.markets.planted.noise_iid", "~data.market.snr")
MEMBERS = ("lightgbm", "xgboost", "forest", "tcn")


def judged(*overrides):
    cfg = composed("train", *SMALL, *overrides)
    source = load_source(cfg)
    pipeline = assemble(cfg, "pipeline").fit(source.bars, source.y)
    return judge(pipeline, pipeline.unseen_, source.y, source, resamples=200).table


@pytest.mark.slow
def test_on_a_planted_market_the_pipeline_finds_more_than_any_of_its_members():
    table = judged("seed=1")
    loss = table[("log_loss", "value")]
    assert (loss[list(MEMBERS)] > loss["pipeline"] + 0.03).all()
    share = (
        table[("accuracy", "value")]["pipeline"] / table[("bayes_accuracy", "value")]["pipeline"]
    )
    assert share > 0.85  # of the best possible; the base rate alone gives 0.62
    assert table[("ece", "low")]["pipeline"] < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_on_noise_the_pipeline_says_what_the_base_rate_says(seed):
    table = judged(f"seed={seed}", *NOISE)
    loss = table[("log_loss", "value")]
    assert loss["pipeline"] < loss["base rate"] + 0.002
    direction = table["direction"].loc["pipeline"]
    assert direction["low"] < 0.5 < direction["high"]
    assert table["coverage"].loc["pipeline"]["value"] < 0.1
