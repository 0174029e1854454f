import json
import logging
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pandas.testing import assert_frame_equal

import conf
from stages.base import DataError, State
from stages.features.build import FeatureSet
from stages.features.cross_section import cross_section, rank
from stages.features.given import GivenFeatures
from stages.features.returns import log_return
from stages.features.rows import Rows
from stages.features.volume import volume_score
from stages.panel import PanelError, age, named, until, warms_up

CONF = Path(conf.__file__).parent
MARKET = partial(log_return, close="market", bars=1)
RETURN = partial(log_return, bars=1)


def core():
    rules = OmegaConf.load(CONF / "rules" / "technical.yaml")
    node = {"features": OmegaConf.load(CONF / "features" / "core.yaml"), "rules": rules}
    return instantiate(OmegaConf.create(node).features)


@pytest.fixture
def closes(bars):
    return bars[["close"]]


def test_the_core_set_makes_sixty_columns_of_full_bars(aligned):
    features = core()
    panel = features.build(aligned)
    assert features.left_out_ == {}
    assert len(named(panel, "feature")) >= 58
    assert len(named(panel, "rule")) == 8
    assert "context.regime" in panel
    assert_frame_equal(panel[list(aligned.columns)], aligned)
    made = panel[named(panel, "feature", "rule", "context")]
    assert (made.dtypes == "float32").all()
    assert made[features.ready(aligned)].notna().all(axis=None)
    assert set(panel.loc[features.ready(aligned), "context.regime"]) <= {-1, 0, 1}


def test_a_column_is_contiguous(bars):
    panel = core().build(bars)
    assert panel["feature.return_5"].to_numpy().flags.c_contiguous


def test_a_truncated_panel_gives_the_same_bits(bars):
    """The first assets only: the others are listed later, and unknown by then."""
    time = bars.index.get_level_values("time").min() + pd.Timedelta(days=400)
    for table in (bars, bars[["close"]]):
        then, whole = core().build(until(table, time)), core().build(table)
        assert_frame_equal(then, whole.loc[then.index], check_exact=True)
    few = until(bars, bars.loc["D"].index[50])
    assert len(few.index.unique("asset")) < 4
    assert_frame_equal(core().build(few), core().build(bars).loc[few.index], check_exact=True)


def test_the_order_of_assets_does_not_matter(closes):
    turned = closes.loc[["A", "D", "C", "B"]]
    assert_frame_equal(core().build(turned).loc[closes.index], core().build(closes))


def test_what_the_bars_cannot_feed_is_left_out_and_said_once(aligned, caplog):
    closes = aligned[["close"]]
    features = core()
    with caplog.at_level(logging.INFO):
        panel = features.build(closes)
        said = len(caplog.records)
        features.build(closes)
    assert said == len(caplog.records) > 0
    assert "feature.obv_20" in caplog.text
    assert "the equal-weight index of the assets stands in" in caplog.text
    assert features.left_out_["feature.atr_14"] == "the bars have no high, low"
    assert features.left_out_["rule.volume_trend"] == "the bars have no volume"
    assert not set(features.left_out_) & set(panel.columns)
    assert len(named(panel, "feature")) >= 45
    assert panel[named(panel, "feature")][features.ready(closes)].notna().all(axis=None)


def test_a_column_reads_what_was_left_out_above_it_and_is_left_out_too(closes):
    above = {"volume_60": partial(volume_score, bars=60), "return_1": RETURN}
    features = FeatureSet({**above, "rank": partial(rank, of="volume_60")})
    assert "feature.rank" not in features.build(closes)
    assert features.left_out_["feature.rank"] == "the bars have no volume_60"


def test_the_warmup_is_that_of_the_columns_in_use(closes):
    features = FeatureSet({"return_1": RETURN, "volume": partial(volume_score, bars=60)})
    assert features.warmup == 59
    features.build(closes)
    assert features.warmup == 1
    chained = FeatureSet({"r": partial(log_return, bars=7), "rank": partial(rank, of="r")})
    assert chained.warmup == 7


def test_bars_that_feed_nothing_are_refused(closes):
    with pytest.raises(DataError, match="feed none of the features") as caught:
        FeatureSet({"volume": partial(volume_score, bars=60)}).build(closes)
    assert caught.value.code == "SV-F20"


def test_the_market_is_the_equal_weight_index_of_those_that_trade(closes):
    panel = FeatureSet({"market": MARKET}).build(closes)
    moves = np.log(closes["close"]).groupby("asset").diff()
    expected = moves.groupby("time").mean().reindex(closes.index, level="time")
    made = panel["feature.market"]
    first = closes.groupby("asset").cumcount() == 0
    assert made[first].isna().all()
    np.testing.assert_allclose(made[~first], expected[~first], rtol=1e-5, atol=1e-9)


def test_a_market_in_the_bars_comes_first(closes):
    given = closes.assign(market=closes["close"].groupby("time").transform("max"))
    panel = FeatureSet({"market": MARKET}).build(given)
    expected = np.log(given.loc["A", "market"]).diff().astype("float32")
    np.testing.assert_allclose(panel.loc["A", "feature.market"], expected, rtol=1e-5)


def test_one_missing_price_does_not_hide_the_market(closes):
    holed = closes.copy()
    holed.iloc[100] = np.nan
    made = FeatureSet({"market": MARKET}).build(holed)["feature.market"]
    assert made.isna().sum() == 4  # the first rows


def test_a_time_without_any_price_has_no_market(closes):
    holed = closes.copy()
    time = closes.index[200][1]
    holed.loc[(slice(None), time), :] = np.nan
    made = FeatureSet({"market": MARKET}).build(holed)["feature.market"]
    assert made.xs(time, level="time").isna().all()
    assert made.groupby("asset").tail(50).notna().all()


def test_a_single_asset_has_neither_market_nor_ranks(closes):
    features = core()
    panel = features.build(closes.loc[["A"]])
    assert "feature.beta_60" not in panel
    assert "context.regime" not in panel
    assert features.left_out_["feature.beta_60"] == "the bars have no market"
    assert (
        features.left_out_["feature.rank_reversal"] == "a cross-section needs at least two assets"
    )


def test_a_set_trained_on_one_asset_takes_no_market_later(closes):
    features = core().fit(closes.loc[["A"]])
    assert "feature.beta_60" not in features.build(closes)
    assert "feature.beta_60" not in features.build(closes.loc[["B"]].assign(market=1.0))


def test_ranks_are_centred_and_share_ties():
    of = np.array([[1.0, 2, 2, 9], [np.nan, 5, 4, np.nan], [np.nan, 5, np.nan, np.nan]])
    expected = [[-0.375, 0, 0, 0.375], [np.nan, 0.25, -0.25, np.nan], [np.nan] * 4]
    np.testing.assert_allclose(rank(of), expected)


def ranked(**settings):
    return FeatureSet({"r": RETURN, "rank": partial(rank, of="r")}, **settings)


def test_a_thin_time_has_no_cross_section(aligned):
    time = aligned.index.get_level_values("time")
    thin = aligned[(time != time[100]) | (aligned.index.get_level_values("asset") == "A")]
    for least, known in ((0.5, False), (0.25, True)):
        features = ranked(min_coverage=least)
        panel = features.build(thin)
        at = panel.index.get_level_values("time") == time[100]
        assert features.ready(thin)[at].all() == known
    # its own return stays known, only its place is not
    assert panel.loc[("A", time[100]), "feature.r"] == pytest.approx(
        np.log(aligned["close"]).loc["A"].diff().iloc[100]
    )


def test_an_asset_counts_from_its_first_bar_on(bars):
    assert ranked(min_coverage=1).ready(bars).sum() == (age(bars) >= 1).sum()


def test_a_part_of_the_trained_universe_is_not_ready(bars):
    features = ranked().fit(bars)
    assert features.ready(bars).sum() == (age(bars) >= 1).sum()
    alone = features.build(bars.loc[["A"]])
    assert not features.ready(bars.loc[["A"]])[100:].any()
    assert alone["feature.rank"].isna().all()
    assert alone["feature.r"].notna().any()


def test_a_market_made_of_too_few_is_not_ready(bars):
    features = FeatureSet({"market": MARKET}).fit(bars)
    assert not features.ready(bars.loc[["A"]]).any()
    assert features.ready(bars.loc[["A", "B"]]).any()
    local = FeatureSet({"r": RETURN}).fit(bars)
    assert local.ready(bars.loc[["A"]]).sum() == len(bars.loc["A"]) - 1


def test_what_was_learnt_survives_json(bars):
    features = core().fit(bars)
    values = json.loads(json.dumps(features.state().values))
    again = core().restore(State(values))
    assert again.state() == features.state()
    assert_frame_equal(again.build(bars), features.build(bars), check_exact=True)
    assert again.warmup == features.warmup
    assert not hasattr(replace(features), "universe_")


def test_bars_without_a_trained_column_are_refused(bars, closes):
    features = core().fit(bars)
    with pytest.raises(DataError, match="was trained and cannot be built: the bars have no") as e:
        features.build(closes)
    assert e.value.code == "SV-F20"
    given = closes.assign(market=1.0)
    with pytest.raises(DataError, match="no market column"):
        FeatureSet({"market": MARKET}).fit(given).build(closes)


def test_columns_beyond_the_trained_ones_are_not_used(bars, closes):
    features = core().fit(closes)
    richer = features.build(bars.assign(market=1.0))
    assert "feature.atr_14" not in richer
    assert features.left_out_["feature.atr_14"] == "the training bars did not have it"
    made = named(richer, "feature", "rule", "context")
    assert_frame_equal(richer[made], features.build(closes)[made], check_exact=True)
    assert "feature.atr_14" in features.fit(bars).build(bars)


@warms_up(lambda **_: 0)
def endless(close):
    return np.where(close == close.max(), np.inf, close)


@warms_up(lambda **_: 0)
def huge(close):
    return close * 1e300


@pytest.mark.parametrize("function", [endless, huge])
def test_an_infinite_value_is_refused_by_name(closes, function):
    with pytest.raises(DataError, match="feature.x is infinite for D at 20") as caught:
        FeatureSet({"x": partial(function)}).build(closes)
    assert caught.value.code == "SV-F12"


def test_a_plain_function_is_a_feature_too(closes):
    @cross_section
    @warms_up(lambda **_: 0)
    def share(close):
        return close / np.nansum(close, axis=1, keepdims=True)

    panel = FeatureSet({"share": share}).build(closes)
    np.testing.assert_allclose(panel["feature.share"].groupby("time").sum(), 1, rtol=1e-6)


def test_a_column_that_is_there_already_is_refused(closes):
    with pytest.raises(DataError, match="already have a column feature.r"):
        FeatureSet({"r": RETURN}).build(closes.assign(**{"feature.r": 1.0}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"min_coverage": 0}, "got 0"), ({"min_coverage": 1.5}, "got 1.5"), ({"columns": {}}, "one")],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FeatureSet(**{"columns": {"r": RETURN}} | settings)


def test_the_coverage_counts_members_of_the_universe(bars):
    rows = Rows.of(bars, set())
    listed = rows.listed()
    assert list(rows.coverage(listed)[:3]) == [1, 1, 1]
    time = listed["A"]
    coverage = rows.coverage({**listed, "Z": time})
    assert coverage[bars.index.get_loc(("D", time))] == pytest.approx(4 / 5)


def test_given_columns_pass_through(closes):
    planted = closes.assign(**{"feature.x0": np.float32(1), "context.regime": np.float32(0)})
    given = instantiate(OmegaConf.load(CONF / "features" / "given.yaml"))
    assert given.fit(planted).build(planted) is planted
    assert given.warmup == 0
    assert given.ready(planted).all()
    assert given.restore(given.state()).left_out_ == {}


def test_given_columns_must_be_there_and_finite(closes):
    given = GivenFeatures()
    with pytest.raises(PanelError, match=r"context\.regime"):
        given.build(closes)
    with pytest.raises(DataError, match=r"no feature\.\* column"):
        GivenFeatures(context=[]).build(closes)
    with pytest.raises(DataError, match=r"feature\.x0 is infinite for D"):
        GivenFeatures(context=[]).build(closes.assign(**{"feature.x0": np.inf}))


def test_a_fresh_set_is_cheap_to_copy_and_knows_nothing(bars):
    features = core()
    features.fit(bars)
    again = replace(features, min_coverage=0.9)
    assert again.left_out_ == {}
    assert again.warmup == 252


DATA = Path(os.environ.get("SIEVE_DATA", Path(conf.__file__).parents[2] / "shared" / "data"))
STOCKS = DATA / "us_equity_daily_296_1990_2006.parquet"


@pytest.mark.realdata
@pytest.mark.skipif(not STOCKS.exists(), reason=f"{STOCKS} is absent; set SIEVE_DATA")
def test_real_bars_leave_next_to_nothing_unknown():
    """Some never moved or traded for days: those windows are unknown, and nothing is infinite."""
    few = [("symbol", "in", ["AAPL", "MSFT", "RRC", "XOM"])]
    table = pd.read_parquet(STOCKS, filters=few)
    table = table.rename(columns={"symbol": "asset", "date": "time"})
    table["time"] = table["time"].dt.tz_localize("UTC").dt.as_unit("us")
    stocks = table.set_index(["asset", "time"]).sort_index()
    features = core()
    panel = features.build(stocks)
    made = panel.loc[features.ready(stocks), named(panel, "feature", "rule", "context")]
    assert len(made) > 10_000
    assert made.isna().to_numpy().mean() < 0.001
