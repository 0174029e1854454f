"""What drives a fitted pipeline: measured on a planted market, stored, drawn and told."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.overview import drifted, newest_rows, overview, store, stored, windows
from pipeline.report import drivers, overview_page, terminal
from pipeline.report.overview_page import (
    interactions_text,
    redundancy_text,
    show_drift,
    show_overview,
    write_overview_page,
)
from stages.base import DataError, StoreError
from stages.explain.importance import Importance, history
from stages.markets import drift_dead_feature, drift_flip
from tests.conftest import tiny_pipeline
from tests.pipeline.report.test_page import LIMIT, Elements


@pytest.fixture(scope="module")
def seen(tiny, tiny_market):
    return overview(tiny, tiny_market.panel, pairs=4, resamples=100)


@pytest.fixture(scope="module")
def trees():
    """Pipelines without a net, each fitted on one half of a market that turns around."""
    market = drift_flip(0, times=600, assets=4, snr=2.0)
    times = market.panel.index.get_level_values("time").unique()
    parts = []
    for half in (times[:300], times[300:]):
        panel = market.panel[market.panel.index.get_level_values("time").isin(half)]
        y = market.y[market.y.index.isin(panel.index) & (market.y["end"] <= half[-1])]
        parts.append(tiny_pipeline(refiner=None).fit(panel, y))
    return market, times, parts


# what is measured


def test_all_newest_rows_are_explained_and_the_planted_drivers_come_first(tiny, tiny_market, seen):
    panel = tiny.panel(tiny_market.panel)
    times = panel.index.get_level_values("time").unique().sort_values()
    ready = panel.index[panel["ready"]]
    expected = ready[ready.get_level_values("time").isin(times[-tiny.explainer.tail :])]
    assert seen.why.output.index.equals(expected)
    largest = list(seen.importance.inputs.index[:5])
    assert {"x0", "x1"} <= set(largest)
    assert seen.importance.inputs["size"]["x7"] < seen.importance.inputs["size"]["x0"] / 3
    assert set(seen.importance.stages.index) == {"filter", "refiner", "context"}
    assert seen.model == tiny.digest


def test_stages_share_the_inputs_out_among_them(seen):
    assert set(seen.through) == {"filter", "refiner", "context"}
    assert seen.through["context"].index[0] == "context.regime"
    assert seen.through["context"]["size"]["x0"] == 0 < seen.through["filter"]["size"]["x0"]
    largest = [str(name) for name in seen.through["filter"].index[:4]]
    assert {"x0", "x1"} <= set(largest)
    *bars, _ = drivers.by_stage(seen.through).data
    assert bars[0].name == "filter"
    first = bars[0].y[0]
    assert bars[0].x[0] == seen.through["filter"]["size"][first]


def test_rows_may_be_named_and_pairs_left_out(tiny, tiny_market):
    rows = tiny_market.panel.index[tiny.panel(tiny_market.panel)["ready"].to_numpy()][-60:]
    found = overview(tiny, tiny_market.panel, rows, effort="full", pairs=0, resamples=20)
    assert found.why.output.index.equals(rows)
    assert (found.importance.rows, found.importance.effort) == (60, "full")
    assert found.interactions is None


def test_very_many_rows_are_thinned_by_whole_bars(tiny, tiny_market):
    found = overview(tiny, tiny_market.panel, most=200, pairs=0, resamples=20)
    rows = found.why.output.index
    assert 150 < len(rows) <= 200
    assert (rows.to_frame(index=False).groupby("time").size() == 4).all()
    assert rows.get_level_values("time").max() == tiny_market.panel.index[-1][1]


@pytest.mark.parametrize(("assets", "most"), [(296, 250), (40, 250), (3000, 2000)])
def test_of_a_wide_panel_other_assets_of_each_bar_are_explained(assets, most):
    times = pd.date_range("2006-01-02", periods=60, freq="B", tz="UTC")
    index = pd.MultiIndex.from_product([range(assets), times], names=["asset", "time"])
    rows = newest_rows(pd.DataFrame({"ready": True}, index), 50, most)
    by_bar = rows.to_frame(index=False).groupby("time").size()
    assert len(by_bar) >= 12  # whole bars would be too few to say anything
    assert by_bar.min() > 0.5 * by_bar.max()
    assert 0.6 * most < len(rows) <= most
    assert rows.get_level_values("time").max() == times[-1]
    assert rows.get_level_values("asset").nunique() >= min(0.5 * most, assets)


def test_a_record_is_plain_and_runs_can_be_laid_side_by_side(seen):
    record = json.loads(json.dumps(seen.record(), allow_nan=False))
    again = Importance.read(record["importance"])
    pd.testing.assert_frame_equal(again.inputs, seen.importance.inputs)
    assert len(record["over_time"]) == len(seen.shares)
    assert len(record["interactions"]["pairs"]) == 6
    table = history({"first": again, "second": seen.importance})
    assert list(table.index) == ["first", "second"]


def test_what_runs_stored_is_read_back_in_order_and_a_damaged_one_is_refused(seen, tmp_path):
    for run in ("2026-01-02/10-00", "2026-01-01/09-00"):
        path = store(seen, tmp_path / run)
    found = stored(tmp_path)
    assert list(found) == ["2026-01-01/09-00", "2026-01-02/10-00"]
    assert history(found, "stages").iloc[0]["filter"] == seen.importance.stages["share"]["filter"]
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(StoreError, match="09-00 cannot be read"):
        stored(tmp_path)


def test_the_same_model_and_rows_give_the_same_record(tiny, tiny_market, seen):
    again = overview(tiny, tiny_market.panel, pairs=4, resamples=100)
    assert again.record() == seen.record()


# drift


def test_a_successor_that_learnt_a_turned_market_has_turned_reasons(trees):
    market, times, (first, second) = trees
    found = drifted(
        first, market.panel, (times[100], times[299]), (times[300], times[-1]), later=second
    )
    sure = found.table[found.table["adjusted"] <= 0.05]
    turned = sure[(sure["of"] == "direction") & (sure["before"] * sure["after"] < 0)]
    assert {"x0", "x1"} <= set(turned["input"])


def test_one_model_does_not_see_what_its_inputs_do_not_show(trees):
    market, times, (first, _) = trees
    assert not drifted(first, market.panel, *windows(market.panel, times[300], 200)).drifted


def test_an_input_whose_feed_dies_is_found_by_the_model_as_it_is():
    market = drift_dead_feature(0, times=500, assets=4, snr=2.0, at=0.7, dead="constant")
    times = market.panel.index.get_level_values("time").unique()
    early = market.panel[market.panel.index.get_level_values("time") < times[250]]
    y = market.y[market.y.index.isin(early.index) & (market.y["end"] < times[250])]
    pipeline = tiny_pipeline(refiner=None).fit(early, y)
    found = drifted(pipeline, market.panel, *windows(market.panel, times[350], 100))
    assert "x0" in found.changed
    assert not {"x5", "x6", "x7"} & set(found.changed)


def test_windows_are_as_long_as_the_bars_allow(tiny_market):
    times = tiny_market.panel.index.get_level_values("time").unique()
    assert windows(tiny_market.panel, times[200]) == (
        (times[100], times[199]),
        (times[200], times[299]),
    )
    assert windows(tiny_market.panel, times[200], 20) == (
        (times[180], times[199]),
        (times[200], times[219]),
    )
    for outside in (times[0], times[-1] + pd.Timedelta("1D")):
        with pytest.raises(DataError, match="does not part the bars"):
            windows(tiny_market.panel, outside)


def test_a_window_without_evaluable_rows_is_refused(tiny, tiny_market):
    times = tiny_market.panel.index.get_level_values("time").unique()
    with pytest.raises(DataError, match="can be evaluated"):
        drifted(tiny, tiny_market.panel, (times[0], times[3]), (times[10], times[100]))


# pictures


def test_bars_of_importance_carry_their_intervals(seen):
    bars = drivers.importance_bars(seen.importance).data[0]
    table = seen.importance.inputs
    assert list(bars.y) == list(table.index)
    np.testing.assert_allclose(np.asarray(bars.x) + bars.error_x.array, table["high"])
    np.testing.assert_allclose(np.asarray(bars.x) - bars.error_x.arrayminus, table["low"])


def test_shares_are_drawn_by_time_and_by_run(seen):
    drawn = drivers.shares_over_time(seen.shares).data[0]
    assert list(drawn.x) == [f"{time:%Y-%m-%d}" for time in seen.shares.index]
    np.testing.assert_array_equal(drawn.z, seen.shares[list(drawn.y)].T)
    runs = history({"one": seen.importance, "two": seen.importance})
    assert list(drivers.shares_over_time(runs).data[0].x) == ["one", "two"]


def test_what_changed_stands_out(trees):
    market, times, (first, second) = trees
    found = drifted(
        first, market.panel, (times[100], times[299]), (times[300], times[-1]), later=second
    )
    *lines, before, after = drivers.changes(found, "direction").data
    table = found.table[found.table["of"] == "direction"]
    assert list(before.x) == list(table["before"])
    assert list(after.x) == list(table["after"])
    thick = [line.y[0] for line in lines if line.line.width == 3]
    assert thick == list(table["input"][table["adjusted"] <= found.level])


def test_correlations_and_pairs_are_drawn_as_found(seen):
    drawn = drivers.hangs_together(seen.redundancy)
    np.testing.assert_array_equal(drawn.data[0].z, seen.redundancy.correlation)
    assert len(drawn.layout.shapes) == len(seen.redundancy.clusters)
    pairs = drivers.acts_together(seen.interactions).data[0]
    for row in seen.interactions.table.to_dict("records"):
        j, k = pairs.y.index(row["first"]), pairs.x.index(row["second"])
        assert pairs.z[j][k] == pairs.z[k][j] == row["strength"]
    assert np.isnan(np.diag(pairs.z)).all()


# words and pages


def test_the_terminal_tells_sizes_intervals_and_pairs(seen, capsys, monkeypatch):
    monkeypatch.setattr(overview_page, "console", terminal.Console(width=120))
    show_overview(seen, top=3)
    out = capsys.readouterr().out
    first = seen.importance.inputs.iloc[0]
    assert f"{seen.importance.rows:,} rows of {seen.importance.bars:,} bars" in out
    assert f"{first['size']:.3g}" in out
    assert f"{first['low']:.3g} to {first['high']:.3g}" in out
    for member in seen.importance.members.index[:3]:
        assert str(member) in out
    assert "Beyond the sum of both" in out
    assert f"filter {', '.join(map(str, seen.through['filter'].index[:3]))}" in " ".join(
        out.split()
    )


def test_the_terminal_tells_what_changed(trees, capsys, monkeypatch):
    monkeypatch.setattr(overview_page, "console", terminal.Console(width=120))
    market, times, (first, second) = trees
    found = drifted(
        first, market.panel, (times[100], times[299]), (times[300], times[-1]), later=second
    )
    show_drift(found, top=4)
    out = " ".join(capsys.readouterr().out.split())
    assert " ".join(found.text.split()) in out
    assert f"against {times[300]:%Y-%m-%d} to {times[-1]:%Y-%m-%d}" in out


def test_the_page_holds_every_view_and_asks_nothing_of_the_network(
    tiny, tiny_market, seen, tmp_path
):
    panel = tiny.panel(tiny_market.panel)
    times = panel.index.get_level_values("time").unique()
    change = drifted(tiny, tiny_market.panel, *windows(tiny_market.panel, times[200], 80))
    path = tmp_path / "overview.html"
    write_overview_page(path, seen, "Not <advice>.", panel, change)
    elements = Elements(path.read_text(encoding="utf-8"))
    assert path.stat().st_size < LIMIT
    assert elements.open == []
    for tag, attributes in elements.tags:
        assert tag not in ("link", "iframe", "img", "object", "form")
        assert not {"src", "href", "action", "data"} & set(attributes), (tag, attributes)
    heads = (
        "Inputs",
        "Stages",
        "Members",
        "Through which stage",
        "Row by row",
        "Over time",
        "Has it changed?",
    )
    places = [elements.text.index(head) for head in heads]
    assert places == sorted(places)
    for words in (change.text, redundancy_text(seen.redundancy), "Not <advice>."):
        assert words in elements.text
    write_overview_page(path, replace(seen, interactions=None), "")
    assert "What acts together" not in Elements(path.read_text(encoding="utf-8")).text
    assert interactions_text(None) == ""
