import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMRegressor
from scipy.special import ndtr

from pipeline import recipe
from stages.base import ArtifactError, DataError, State
from stages.filter.regression import RegressionMember, link, standing
from stages.filter.tree_filter import TreeFilter
from tests.stages.filter.conftest import as_references, planted

SIDES = ["filter.size.z_sell", "filter.size.z_buy"]


def moved(seed):
    """The planted panel with returns: a common move of the bar, and what `feature.x0` adds."""
    panel, y = planted(seed, assets=12)
    rng = np.random.default_rng(seed)
    bar = y.index.get_level_values("time").factorize()[0]
    common = rng.normal(0, 0.05, bar.max() + 1)[bar]
    own = 0.01 * (panel.loc[y.index, "feature.x0"].fillna(0) + rng.normal(size=len(y)))
    ret = common + own.to_numpy()
    place = pd.Series(own.to_numpy()).groupby(bar).rank(pct=True).to_numpy()
    side = (place > 2 / 3).astype("int8") - (place < 1 / 3).astype("int8")
    return panel, y.assign(ret=ret, side=side.astype("int8"))


@pytest.fixture(scope="module")
def market():
    return moved(0)


@pytest.fixture(scope="module")
def trained(market):
    size = LGBMRegressor(n_estimators=25, num_leaves=7, n_jobs=1, verbosity=-1)
    return TreeFilter({"size": size}).fit(*market)


def test_a_standing_is_the_return_among_those_of_its_bar(market):
    y = market[1]
    place = pd.Series(standing(y), y.index)
    by_time = y["ret"].groupby(level="time")
    wanted = (y["ret"] - by_time.transform("mean")) / by_time.transform(lambda r: r.std(ddof=0))
    pd.testing.assert_series_equal(place, wanted, check_names=False)
    holed = standing(y.assign(ret=y["ret"].mask(np.arange(len(y)) == 7)))
    assert np.flatnonzero(np.isnan(holed)).tolist() == [7]


def test_bars_of_few_assets_or_without_a_spread_have_no_standing(market):
    y = market[1]
    few = y[y.index.get_level_values("asset").isin(["A0", "A1"])]
    for table in (few, y.assign(ret=0.01), y.drop(columns="ret")):  # nothing to compare
        with pytest.raises(DataError, match="differs from those of its bar") as refusal:
            standing(table)
        assert refusal.value.code == "SV-F18"


def test_it_finds_the_planted_cause_and_does_not_overstate_it(trained):
    panel, y = moved(1)
    said = trained.predict(panel).loc[y.index]
    odds = np.exp(np.column_stack([said[SIDES[0]], np.zeros(len(said)), said[SIDES[1]]]))
    odds /= odds.sum(axis=1, keepdims=True)
    paid = odds[np.arange(len(y)), y["side"].to_numpy() + 1]
    assert -np.log(paid).mean() < np.log(3) - 0.1
    surely = odds[:, 2] > 0.6
    # half of the variance is known here, where the link takes all of it for noise: it understates
    assert (y["side"][surely] == 1).mean() > odds[surely, 2].mean()


def test_the_link_is_the_tangent_of_a_gaussian_cut_into_sides():
    shares = np.array([0.3, 0.45, 0.25])
    low, high = -0.524400512708041, 0.6744897501960817  # quantiles of 0.3 and 0.75

    def logits(at):
        sell, buy = ndtr(low - at), 1 - ndtr(high - at)
        return np.log([sell / (1 - sell - buy), buy / (1 - sell - buy)])

    level, slope = link(shares)
    np.testing.assert_allclose(level, logits(0.0), atol=1e-9)
    np.testing.assert_allclose(slope, (logits(1e-5) - logits(-1e-5)) / 2e-5, rtol=1e-6)


def test_a_restored_member_predicts_and_explains_the_same_bits(trained, market):
    panel, y = market
    state = trained.state()
    stored = State(json.loads(json.dumps(state.values)), dict(state.parts))
    restored = replace(trained).restore(stored)
    pd.testing.assert_frame_equal(restored.predict(panel), trained.predict(panel), check_exact=True)
    assert restored.state() == state
    assert set(state.parts) == {"size.json.txt"}
    references = as_references(panel, y.index[5:8])
    ours, theirs = (f.attribute(panel, y.index[:4], references) for f in (trained, restored))
    assert (ours.values == theirs.values).all()


def test_shares_add_up_to_every_logit(trained, market):
    panel, y = market
    rows, points = y.index[::397], y.index[50:400:40]
    why = trained.attribute(panel, rows, as_references(panel, points))
    said = trained.predict(panel)[SIDES]
    want = said.loc[rows].to_numpy()[:, None] - said.loc[points].to_numpy()[None]
    np.testing.assert_allclose(why.values.sum(axis=3), want, atol=1e-9)
    assert trained.importance().loc["size"].idxmax() == "feature.x0"


@pytest.mark.parametrize(
    "content", [b"tree\nversion=v4", b"{}\ntree", b'{"level":[1],"slope":[1]}']
)
def test_a_damaged_link_is_refused(content):
    with pytest.raises(ArtifactError, match="begin with its link"):
        RegressionMember.read(content, LGBMRegressor())


def test_it_can_be_written_into_an_artifact_and_built_again(trained):
    written = recipe.describe(trained)
    assert recipe.describe(recipe.build(written)) == written
