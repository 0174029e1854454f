from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from pipeline.assemble import assemble
from pipeline.data.instruments import Instruments
from pipeline.data.sources import parquet, us_large_caps
from pipeline.signal_pipeline import SignalPipeline
from stages.base import ConfigError, DataError
from stages.ensemble.conformal import Coverage
from stages.ensemble.decide import Decide
from stages.ensemble.soft_vote import SoftVote
from stages.folds import PurgedWalkForward
from stages.labels import TripleBarrier
from stages.markets.planted import mixed
from stages.online.replay import ReplayBuffer
from stages.panel import last_rows
from tests.conftest import before, composed, ended, times_of, tiny_pipeline

SAME = {"check_exact": True}


def without_newest(panel, asset, bars):
    """The panel in which `asset` stopped trading `bars` bars ago."""
    last = before(panel, bars).index.get_level_values("time").max()
    return panel[(panel.index.get_level_values("asset") != asset) | (times_of(panel) <= last)]


def texts(signal):
    return [why.text for why in signal.why_not]


# what predict says


def test_each_stage_adds_its_columns_to_every_row(tiny, tiny_market):
    out = tiny.predict(tiny_market.panel)
    assert out.index.equals(tiny_market.panel.index)
    stages = {"filter.forest.z_buy", "filter.gate", "refiner.lstm.z_sell", "p_buy", "margin"}
    decision = {"side", "status", "certainty", "strength", "why_not"}
    assert stages | decision <= set(out.columns)


def test_every_row_becomes_one_signal_or_one_abstention(tiny, tiny_market):
    signals = tiny.signals(tiny_market.panel, newest=False, explain=False)
    assert [(s.asset, s.time) for s in signals] == list(tiny_market.panel.index)
    silent = [s for s in signals if s.status == "abstain"]
    assert len(silent) == 4 * (tiny.warmup - 1)
    assert all(s.side is None and s.why_not and not s.probabilities for s in silent)


def test_an_abstention_is_no_opinion(tiny, tiny_market):
    out = tiny.predict(tiny_market.panel)
    silent = out[out["status"] == "abstain"]
    measures = ["p_sell", "p_hold", "p_buy", "epistemic", "aleatoric", "margin", "certainty"]
    measures += ["novelty", "disagreement"]
    assert silent[[*measures, "side", "strength"]].isna().all(axis=None)
    assert out.drop(silent.index)[measures].notna().all(axis=None)


@pytest.mark.parametrize("bars", [1, 37])
def test_the_past_does_not_see_the_future(tiny, tiny_market, bars):
    past = before(tiny_market.panel, bars)
    then, now = tiny.predict(past), tiny.predict(tiny_market.panel).loc[past.index]
    pd.testing.assert_frame_equal(then, now, **SAME)


def test_the_newest_rows_are_the_last_of_all_rows(tiny, tiny_market):
    newest, every = tiny.predict(tiny_market.panel, newest=True), tiny.predict(tiny_market.panel)
    pd.testing.assert_frame_equal(newest, last_rows(every), **SAME)


def test_a_signal_is_the_same_however_many_come_along(tiny, tiny_market):
    panel = before(tiny_market.panel, 20)
    every = tiny.signals(panel, newest=False)
    assert tiny.signals(panel) == every.newest()


@pytest.fixture(scope="module")
def stocks():
    """Real closes, real features: five stocks with their index."""
    assets = ["AAPL", "BAC", "GE", "JNJ", "XOM"]
    return us_large_caps(
        assets=assets, market="SP500", calendar="XNYS", start="2019-06-03", end="2022-12-28"
    ).bars


@pytest.fixture(scope="module")
def core(stocks):
    """Features=core, barriers and costs; every stage."""
    return tiny_pipeline(
        features=assemble(composed("config"), "features"),
        labels=TripleBarrier(horizon=5, delay=1),
        folds=PurgedWalkForward(n_folds=4, first=0.4, embargo=5),
        decide=Decide(certainty=0.6, cost_bps={"default": 5.0}),
    ).fit(stocks)


def test_on_real_bars_the_past_does_not_see_the_future(core, stocks):
    past = before(stocks, 50)
    then, now = core.predict(past), core.predict(stocks).loc[past.index]
    assert (then["status"] != "abstain").sum() > 500
    pd.testing.assert_frame_equal(then, now, **SAME)


def test_on_real_bars_the_newest_rows_are_the_last_of_all(core, stocks):
    newest, every = core.predict(stocks, newest=True), core.predict(stocks)
    pd.testing.assert_frame_equal(newest, last_rows(every), **SAME)


def test_on_real_bars_signals_need_only_the_warm_up(core, stocks):
    short = stocks.groupby(level="asset").tail(core.warmup)
    assert core.signals(short) == core.signals(stocks)


def test_on_real_bars_nothing_changes_by_saving(core, stocks, tmp_path):
    read = SignalPipeline.load(core.save(tmp_path))
    assert read.signals(stocks) == core.signals(stocks)
    assert read.digest == core.digest


def test_real_bars_without_the_market_are_refused(core, stocks):
    with pytest.raises(DataError, match="no market column") as error:
        core.predict(stocks.drop(columns="market"))
    assert error.value.code == "SV-F20"


def test_a_cross_section_of_too_few_trained_assets_abstains(core, stocks):
    alone = stocks[stocks.index.get_level_values("asset") == "AAPL"]
    with pytest.raises(DataError) as error:
        core.predict(alone)
    assert error.value.code == "SV-F18"
    assert "universe: too few" in error.value.what
    assert "more of the assets" in error.value.cure
    thin = stocks[
        (stocks.index.get_level_values("asset") == "AAPL") | (times_of(stocks) < "2022-12")
    ]
    newest = core.signals(thin, as_of=pd.Timestamp("2022-11-30 21:00", tz="UTC")).newest()
    said = {s.asset: s for s in newest}
    assert texts(said["AAPL"]) == ["universe: too few of the trained assets are there"]
    assert said["GE"].status != "abstain"


@pytest.mark.realdata
def test_on_vendor_bars_with_volume_the_past_does_not_see_the_future(realdata):
    """Open, high, low and volume feed the features that closes cannot."""
    bars = parquet(
        str(realdata("us_etf_daily_unadjusted_4_1998_2021.parquet")),
        columns={"asset": "symbol", "time": "date"},
        calendar="XNYS",
        start="2018-01-02",
    ).bars
    fitted = tiny_pipeline(
        features=assemble(composed("config"), "features"),
        labels=TripleBarrier(horizon=5, delay=1),
        folds=PurgedWalkForward(n_folds=4, first=0.4, embargo=5),
    ).fit(bars)
    assert {"feature.mfi_14", "feature.atr_14", "context.illiquidity"} <= set(fitted.references_)
    past = before(bars, 30)
    then, now = fitted.predict(past), fitted.predict(bars).loc[past.index]
    pd.testing.assert_frame_equal(then, now, **SAME)


def test_a_repeat_does_not_depend_on_how_many_rows_come_along(copy, tiny_market):
    panel = tiny_market.panel
    copy.decide = Decide(repeat="30D", certainty=0.6)
    every = copy.predict(panel)
    silenced = [any(why.key == "repeat" for why in whys) for whys in every["why_not"]]
    assert 20 < sum(silenced) < len(panel)
    assert set(every["status"][silenced]) == {"hold"}
    for bars in (0, 3, 11):
        then = copy.predict(before(panel, bars).groupby(level="asset").tail(160), newest=True)
        pd.testing.assert_frame_equal(then, every.loc[then.index], **SAME)


def test_a_side_has_a_floor_by_asset_class(copy, tiny_market):
    copy.instruments = Instruments({"A1": {"asset_class": "etf"}})
    copy.decide = Decide(floors={"default": 1.0, "etf": 0.5})
    out = copy.predict(tiny_market.panel)
    sides = out["side"].groupby(level="asset").agg(lambda side: (side.fillna(0) != 0).sum())
    assert sides["A1"] > 50
    assert sides["A1"] > 2 * sides.drop("A1").max()


def test_proven_skill_makes_the_same_sides_fire(tiny, copy, tiny_market):
    said = []
    for needed in (1e9, 1.0):
        skill = replace(tiny.skill, needed=needed)
        skill.fit(tiny.unseen_, tiny_market.y, tiny.labels.span)
        copy.skill = copy.record_.skill = copy.record_.skill_ = skill
        said.append(copy.predict(tiny_market.panel, newest=True))
    assert set(said[0]["status"]) <= {"unproven", "hold"}
    assert "fired" in set(said[1]["status"]) <= {"fired", "hold"}
    pd.testing.assert_series_equal(said[0]["side"], said[1]["side"])


def test_unseen_rows_are_judged_by_the_skill_known_at_their_time(tiny):
    told, path = tiny.unseen_, tiny.record_.skill_.path_
    for _, row in told.iloc[::40].iterrows():
        known = path[: row.name[1]]
        assert row["skill.bars"] == len(known)
        assert row["skill.e_value"] == (known["e_value"].iloc[-1] if len(known) else 1.0)


def test_an_interval_of_another_return_than_the_labels_is_refused():
    with pytest.raises(ValueError, match="would be of another return"):
        tiny_pipeline(coverage=Coverage(horizon=3, delay=0))


# same training, same bits


def test_saving_and_loading_changes_no_bit(tiny, copy, tiny_market):
    panel, rows = tiny_market.panel, tiny_market.panel.index[-30:]
    pd.testing.assert_frame_equal(copy.predict(panel), tiny.predict(panel), **SAME)
    one, other = copy.explain(panel, rows), tiny.explain(panel, rows)
    pd.testing.assert_frame_equal(one.contributions, other.contributions, **SAME)
    pd.testing.assert_series_equal(one.baseline, other.baseline, **SAME)
    pd.testing.assert_frame_equal(one.by_stage, other.by_stage, **SAME)
    assert copy.digest == tiny.digest
    assert copy.signals(panel) == tiny.signals(panel)


def test_columns_given_as_float64_are_saved_as_they_are_used(tiny_market, tmp_path):
    wide = [c for c in tiny_market.panel if c.startswith("feature.")]
    noise = np.random.default_rng(0).normal(scale=1e-9, size=(len(tiny_market.panel), len(wide)))
    panel = tiny_market.panel.astype(dict.fromkeys(wide, "float64"))
    panel[wide] += noise
    fitted = tiny_pipeline(refiner=None).fit(panel, tiny_market.y)
    read = SignalPipeline.load(fitted.save(tmp_path))
    assert read.signals(panel) == fitted.signals(panel)


def test_two_trainings_with_one_seed_give_the_same_digest(tiny, tiny_market):
    again = tiny_pipeline().fit(tiny_market.panel, tiny_market.y)
    assert again.digest == tiny.digest
    other = tiny_pipeline(seed=1).fit(tiny_market.panel, tiny_market.y)
    assert other.digest != tiny.digest


def test_fit_leaves_its_input_and_its_settings_alone(tiny_market):
    pipeline, panel, y = tiny_pipeline(), tiny_market.panel.copy(), tiny_market.y.copy()
    before_fit = repr(pipeline)
    pipeline.fit(panel, y)
    assert repr(replace(pipeline)) == before_fit
    pd.testing.assert_frame_equal(panel, tiny_market.panel)
    pd.testing.assert_frame_equal(y, tiny_market.y)


def test_the_folder_is_named_by_the_digest(tiny, tiny_folder):
    assert tiny_folder.name == tiny.digest[:16]
    assert tiny.save(tiny_folder.parent) == tiny_folder  # once more changes nothing


# what the stages may learn from


def test_a_stage_learns_only_what_was_said_about_unseen_rows(tiny_market):
    luck = np.random.default_rng(1).permutation(tiny_market.y["side"])
    unseen = (
        tiny_pipeline(refiner=None).fit(tiny_market.panel, tiny_market.y.assign(side=luck)).unseen_
    )
    assert unseen[["p_sell", "p_hold", "p_buy"]].notna().all(axis=None)
    side = pd.Series(luck, tiny_market.y.index).loc[unseen.index]
    score = unseen["p_buy"] - unseen["p_sell"]
    assert abs(score.corr(side)) < 4 / np.sqrt(len(side))
    assert abs(unseen["filter.forest.z_buy"].corr(side == 1)) < 4 / np.sqrt(len(side))


def test_what_is_planted_is_found():
    market = mixed(seed=0, times=600, assets=6, snr=2.0)  # stage 3 needs some rows of its own
    unseen = tiny_pipeline().fit(market.panel, market.y).unseen_
    assert (unseen["p_buy"] - unseen["p_sell"]).corr(market.y["side"].loc[unseen.index]) > 0.2


def test_without_a_refiner_a_row_needs_only_itself(barrier, tiny_market):
    assert barrier.window == barrier.warmup == 1
    assert not any(c.startswith("refiner") for c in barrier.predict(tiny_market.panel))


def test_the_vote_of_fixed_weights_is_a_pipeline_too(tiny_market, tmp_path):
    vote = SoftVote({"xgboost": 0.4, "forest": 0.3, "lstm": 0.3})
    fitted = tiny_pipeline(ensemble=vote).fit(tiny_market.panel, tiny_market.y)
    read = SignalPipeline.load(fitted.save(tmp_path))
    assert read.signals(tiny_market.panel) == fitted.signals(tiny_market.panel)


# refusals and abstentions


def test_too_short_a_history_is_refused_by_name(tiny, tiny_market):
    short = tiny_market.panel.groupby(level="asset").tail(tiny.warmup - 2)
    with pytest.raises(DataError) as error:
        tiny.signals(short)
    assert error.value.code == "SV-F18"
    assert f"no asset has the {tiny.warmup} bars" in error.value.what
    assert f"A0 {tiny.warmup - 2}, A1 {tiny.warmup - 2}" in error.value.where


def test_an_asset_with_a_short_history_abstains_and_says_how_short(tiny, tiny_market):
    panel = tiny_market.panel
    young = panel.index.get_level_values("asset") == "A2"
    panel = panel[~young | (times_of(panel) >= times_of(panel)[young][-5])]
    said = {s.asset: s for s in tiny.signals(panel)}
    assert said["A2"].status == "abstain"
    assert texts(said["A2"]) == [f"history: {tiny.warmup - 5} bars missing"]
    assert said["A1"] == {s.asset: s for s in tiny.signals(tiny_market.panel)}["A1"]


def test_a_stale_asset_abstains(tiny, tiny_market):
    said = {s.asset: s for s in tiny.signals(without_newest(tiny_market.panel, "A1", 5))}
    assert said["A1"].status == "abstain"
    assert texts(said["A1"])[0].startswith("staleness: expired 2001-02")
    assert "abstain" not in {said[a].status for a in ("A0", "A2", "A3")}


def test_all_are_stale_long_after_the_last_bar(tiny, tiny_market):
    later = times_of(tiny_market.panel).max() + pd.Timedelta(days=30)
    said = tiny.signals(tiny_market.panel, as_of=later)
    assert {s.status for s in said} == {"abstain"}


def test_a_row_that_lacks_many_inputs_abstains(tiny, tiny_market):
    panel = tiny_market.panel.copy()
    row = ("A3", times_of(panel).max())
    panel.loc[row, ["feature.x0", "feature.x1", "feature.x2"]] = np.nan
    said = {s.asset: s for s in tiny.signals(panel)}
    assert texts(said["A3"]) == ["inputs: 38% missing > 20%"]
    panel.loc[row, ["feature.x1", "feature.x2"]] = 0.0  # an eighth is missing
    assert tiny.signals(panel)[3].status != "abstain"


def test_a_missing_column_is_refused_by_name(tiny, tiny_market):
    with pytest.raises(DataError, match=r"feature\.x3") as error:
        tiny.predict(tiny_market.panel.drop(columns="feature.x3"))
    assert error.value.code == "SV-F20"
    with pytest.raises(DataError, match=r"context\.regime"):
        tiny.predict(tiny_market.panel.drop(columns="context.regime"))


def test_a_panel_out_of_order_is_refused(tiny, tiny_market):
    with pytest.raises(DataError) as error:
        tiny.predict(tiny_market.panel[::-1])
    assert error.value.code == "SV-F03"


def test_too_few_bars_to_train_on_are_refused(tiny_market):
    few = tiny_market.panel.groupby(level="asset").head(5)
    with pytest.raises(DataError) as error:
        tiny_pipeline().fit(few, tiny_market.y[tiny_market.y.index.isin(few.index)])
    assert error.value.code == "SV-F18"
    with pytest.raises(DataError, match="single time"):
        tiny_pipeline().fit(tiny_market.panel.groupby(level="asset").head(1), tiny_market.y)


def test_labels_given_by_the_data_must_come_with_it(tiny_market):
    with pytest.raises(DataError, match="no labels came with the data"):
        tiny_pipeline().fit(tiny_market.panel)


def test_a_cost_without_a_return_at_stake_is_refused(tiny_market):
    costly = tiny_pipeline(decide=Decide(cost_bps={"default": 5.0}))
    with pytest.raises(ConfigError) as error:
        costly.fit(tiny_market.panel, tiny_market.y)
    assert (error.value.code, error.value.exit_code) == ("SV-X102", 2)


def test_an_embargo_shorter_than_the_horizon_is_refused():
    with pytest.raises(ValueError, match=r"raise folds\.embargo"):
        tiny_pipeline(labels=TripleBarrier(horizon=5))
    with pytest.raises(ValueError, match="max_missing"):
        tiny_pipeline(max_missing=1.5)


def test_nothing_is_said_before_fit(tiny_market):
    with pytest.raises(NotFittedError):
        tiny_pipeline().predict(tiny_market.panel)
    with pytest.raises(NotFittedError):
        tiny_pipeline().save("nowhere")


# explanations


def test_contributions_add_up_to_the_margin(tiny, tiny_market):
    rows = tiny_market.panel.index[tiny.warmup + 20 : 295]
    why = tiny.explain(tiny_market.panel, rows)
    assert why.contributions.index.equals(rows)
    assert why.gap.abs().max() < 1e-12
    margin = tiny.predict(tiny_market.panel).loc[rows, "margin"]
    np.testing.assert_array_equal(why.output, margin)
    assert (why.by_stage.sum(axis=1) + why.baseline - why.output).abs().max() < 1e-6
    assert why.raw_gap.abs().max() < 1e-3  # what integrated gradients leave before closure


def test_what_moves_the_market_is_what_explains(tiny, tiny_market):
    rows = tiny_market.panel.index[50:290]
    size = tiny.explain(tiny_market.panel, rows).contributions.abs().mean()
    assert size[["x0", "x1"]].min() > size[["x5", "x6", "x7"]].max()


def test_a_row_that_cannot_be_evaluated_cannot_be_explained(tiny, tiny_market):
    with pytest.raises(DataError, match="nothing to explain") as error:
        tiny.explain(tiny_market.panel, tiny_market.panel.index[[200, 3]])
    assert error.value.code == "SV-F18"
    absent = pd.MultiIndex.from_tuples([("A9", times_of(tiny_market.panel)[0])])
    with pytest.raises(DataError, match="A9 has no bar"):
        tiny.explain(tiny_market.panel, absent)


# updates


@pytest.fixture(scope="module")
def later(tiny_market):
    """The market when 40 bars were still to come: its model is trained on that."""
    past = before(tiny_market.panel, 40)
    return past, ended(tiny_market.y, past)


@pytest.fixture(scope="module")
def young(later, tmp_path_factory):
    return tiny_pipeline().fit(*later).save(tmp_path_factory.mktemp("young"))


def test_an_open_horizon_is_refused(young, tiny_market):
    pipeline = SignalPipeline.load(young)
    with pytest.raises(DataError, match="ends after the newest bar") as error:
        pipeline.update(before(tiny_market.panel, 1), tiny_market.y)
    assert error.value.code == "SV-F25"
    assert pipeline.digest.startswith(young.name)  # nothing was learnt


def test_an_update_learns_what_matured_since_and_nothing_twice(young, later, tiny_market):
    pipeline, (_, old) = SignalPipeline.load(young), later
    counts = pipeline.update(tiny_market.panel, tiny_market.y)
    new = len(tiny_market.y) - len(old)
    assert counts == {"learned": new, "known": len(old), "incomplete": 0}
    digest = pipeline.digest
    assert not digest.startswith(young.name)
    assert pipeline.learned_until_ == tiny_market.y["end"].max()
    again = pipeline.update(tiny_market.panel, tiny_market.y)
    assert again == {"learned": 0, "known": len(tiny_market.y), "incomplete": 0}
    assert pipeline.digest == digest


def test_updates_bar_by_bar_equal_one_update_of_all(young, tiny_market):
    at_once, one_by_one = SignalPipeline.load(young), SignalPipeline.load(young)
    at_once.update(tiny_market.panel, tiny_market.y)
    learned = 0
    for bars in range(39, -1, -1):
        known = before(tiny_market.panel, bars)
        # a daily job brings what volatility remembers, the warm-up and the new bar, not all
        recent = known.groupby(level="asset").tail(one_by_one.warmup + 113)
        y = ended(tiny_market.y, known)
        learned += one_by_one.update(recent, y[y.index.isin(recent.index)])["learned"]
    assert learned == 4 * 40
    assert one_by_one.digest == at_once.digest


def test_barriers_touched_early_make_no_difference_to_updates_in_parts(tiny_market, tmp_path):
    settings = {"labels": TripleBarrier(horizon=3, delay=1), "refiner": None}
    settings["replay"] = ReplayBuffer(window=1, capacity=300)
    folds = PurgedWalkForward(n_folds=4, first=0.3, embargo=3)
    past = before(tiny_market.panel, 30)
    folder = tiny_pipeline(**settings, folds=folds).fit(past).save(tmp_path)
    at_once, in_parts = SignalPipeline.load(folder), SignalPipeline.load(folder)
    at_once.update(tiny_market.panel)
    for bars in (25, 24, 12, 0):
        in_parts.update(before(tiny_market.panel, bars))
    assert in_parts.learned_until_ == at_once.learned_until_
    assert in_parts.digest == at_once.digest


def test_what_is_judged_was_said_before_any_label_that_overlaps(young, tiny_market):
    """Labels that came after a row, whatever they say, do not move what the row is judged by."""
    told, other = SignalPipeline.load(young), SignalPipeline.load(young)
    turned = tiny_market.y.copy()
    late = times_of(turned) >= before(tiny_market.panel, 20).index[-1][1]
    turned.loc[late, "side"] *= -1
    told.update(tiny_market.panel, tiny_market.y)
    other.update(tiny_market.panel, turned)
    start = times_of(turned)[late].min()
    for one, two in (
        (told.record_.skill_.path_, other.record_.skill_.path_),
        (told.record_.coverage_.history_, other.record_.coverage_.history_),
    ):
        pd.testing.assert_frame_equal(one[:start], two[:start], check_exact=True)
        assert not one[start:].equals(two[start:])


def test_skill_and_coverage_go_on_with_what_is_new(young, tiny_market):
    pipeline = SignalPipeline.load(young)
    bars = pipeline.record_.skill_.path_["bars"].iloc[-1]
    pipeline.update(tiny_market.panel, tiny_market.y)
    path = pipeline.record_.skill_.path_
    assert path["bars"].iloc[-1] == bars + 40  # from the newest bar of the training on
    assert path.index[-1] == times_of(tiny_market.panel).max()


def test_an_update_says_which_rows_lack_history(young, tiny_market):
    pipeline = SignalPipeline.load(young)
    recent = tiny_market.panel.groupby(level="asset").tail(20)
    counts = pipeline.update(recent, tiny_market.y[tiny_market.y.index.isin(recent.index)])
    unready = 4 * (pipeline.warmup - 1)
    assert counts == {"learned": 4 * 19 - unready, "known": 0, "incomplete": unready}


def test_an_update_moves_stage_3_and_the_memory_only(young, tiny_market):
    pipeline = SignalPipeline.load(young)
    was = pipeline.content()[1]
    pipeline.update(tiny_market.panel, tiny_market.y)
    now = pipeline.content()[1]
    memories = {"replay.replay.safetensors", "record.rows.safetensors"}
    judges = {f"record.{name}.{name}.safetensors" for name in ("skill", "coverage")}
    assert {name for name in was if was[name] != now[name]} == memories | judges


def test_a_signal_names_the_memory_it_was_made_with(young, tiny_market):
    pipeline = SignalPipeline.load(young)
    was = pipeline.signals(tiny_market.panel, explain=False)[0]
    pipeline.update(tiny_market.panel, tiny_market.y)
    now = pipeline.signals(tiny_market.panel, explain=False)[0]
    assert (was.replay["hash"], was.model) != (now.replay["hash"], now.model)
    assert now.model == pipeline.digest
    assert now.replay == pipeline.replay_.summary()


def test_labels_decided_early_are_not_taken_for_learnt(tiny_market):
    """A barrier touched soon ends before labels of older rows; it must not count as known."""
    trained = tiny_pipeline(
        labels=TripleBarrier(horizon=8, delay=1),
        folds=PurgedWalkForward(n_folds=4, first=0.3, embargo=8),
        refiner=None,
    ).fit(before(tiny_market.panel, 20))
    at_once = trained.update(tiny_market.panel)
    assert at_once["learned"] == 4 * 20
    assert trained.update(tiny_market.panel)["learned"] == 0


def test_an_asset_that_is_new_is_learnt_from_now_on(young, later, tiny_market):
    pipeline = SignalPipeline.load(young)
    named = {"A3": "NEW"}
    panel, y = (t.rename(index=named, level="asset") for t in (tiny_market.panel, tiny_market.y))
    counts = pipeline.update(panel, y)
    assert counts["learned"] == 4 * 40
    assert pipeline.learned_rows_["NEW"] == pipeline.learned_rows_["A0"]


def test_an_update_without_labels_changes_nothing(young, tiny_market):
    pipeline = SignalPipeline.load(young)
    assert set(pipeline.update(tiny_market.panel, tiny_market.y[:0]).values()) == {0}
    assert pipeline.digest.startswith(young.name)
