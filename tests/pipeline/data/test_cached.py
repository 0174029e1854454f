"""The cache gives the bits of a full computation, or computes."""

import json
import logging
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from pandas.testing import assert_frame_equal

from experiments.benchmarks.features import drawn
from pipeline.data import cached
from pipeline.data.cached import FeatureCache, built
from stages.features.build import FeatureSet
from stages.features.functions import forgets
from stages.features.given import GivenFeatures
from stages.features.guarded import on_clean_runs
from stages.features.returns import log_return
from stages.panel import until, warms_up

SETS = {name: drawn.feature_set(name) for name in ("default", "alpha158", "next_day", "core")}


def days(bars, count):
    """The bars without the newest `count` times."""
    return until(bars, bars.index.unique("time").sort_values()[-1 - count])


@pytest.fixture(scope="module")
def bars():
    """Gaps, a late listing, an asset that stops, one that sits out the newest day."""
    table = drawn.bars(6, 420)
    rng = np.random.default_rng(0)
    place = table.groupby("asset").cumcount().to_numpy()
    asset = table.index.codes[0]
    kept = rng.random(len(table)) > 0.02
    kept &= ~((asset == 1) & (place < 60)) & ~((asset == 2) & (place > 380))
    kept |= place == 0
    kept[(asset == 3) & (place == 419)] = False
    return table[kept].assign(sector=(table.index.codes[0][kept] % 2).astype("float64"))


@pytest.fixture
def kept(tmp_path):
    return FeatureCache(tmp_path / "cache")


@pytest.fixture
def calls(monkeypatch):
    """How many rows each computation of a table was asked for."""
    asked = []
    table = FeatureSet.table

    def counted(self, bars, rows=None, **settings):
        asked.append(len(bars) if rows is None else int(rows.sum()))
        return table(self, bars, rows, **settings)

    monkeypatch.setattr(FeatureSet, "table", counted)
    return asked


@pytest.mark.parametrize("name", SETS)
def test_a_second_time_gives_the_same_bits_without_computing(name, bars, kept, calls):
    features = replace(SETS[name]).fit(bars)
    expected = features.build(bars)
    assert_frame_equal(kept.build(features, bars), expected, check_exact=True)
    calls.clear()
    assert_frame_equal(kept.build(features, bars), expected, check_exact=True)
    assert calls == []


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("new", [1, 3])
def test_a_day_more_gives_the_bits_of_a_full_computation(name, new, bars, kept, calls):
    features = replace(SETS[name]).fit(days(bars, new))
    kept.build(features, days(bars, new))
    expected = features.build(bars)
    calls.clear()
    assert_frame_equal(kept.build(features, bars), expected, check_exact=True)
    extends = name != "next_day"  # which looks back across the assets
    assert calls == ([len(bars) - len(days(bars, new))] if extends else [len(bars)])


def test_only_the_newest_rows_are_computed_with_what_they_look_back_on(bars):
    seen = []

    @warms_up(lambda **_: 10)
    def watched(close):
        seen.append(len(close))
        return np.concatenate([np.full(10, np.nan), close[10:]])

    features = FeatureSet({"x": watched}).fit(bars)
    new = np.asarray(bars.index.get_level_values("time") > days(bars, 1).index[-1][1])
    made = features.table(bars, new)
    assert_frame_equal(made, features.table(bars)[new], check_exact=True)
    assert seen[4] < 5 * 20  # once it was tried: five assets in one go
    assert seen[5] == len(bars)


def test_other_bars_settings_or_code_are_another_entry(bars, kept, calls, monkeypatch):
    features = FeatureSet({"r": partial(log_return, bars=1)}).fit(bars)
    kept.build(features, bars)
    calls.clear()
    moved = bars.copy()
    moved.iloc[7, moved.columns.get_loc("close")] *= 1 + 1e-12
    for other, table in (
        (features, moved),
        (features, bars.iloc[5:]),
        (features, bars.rename(index={"A0000": "Z"})),
        (FeatureSet({"r": partial(log_return, bars=2)}).fit(bars), bars),
        (FeatureSet({"r": partial(log_return, bars=1)}, min_coverage=0.6).fit(bars), bars),
    ):
        assert_frame_equal(kept.build(other, table), other.build(table), check_exact=True)
    assert len(calls) == 10  # each once here, and once in the cache
    monkeypatch.setattr(cached, "_code", lambda modules: "changed")
    calls.clear()
    kept.build(features, bars)
    assert len(calls) == 1


def test_columns_that_are_not_read_make_no_other_entry(bars, kept, calls):
    features = FeatureSet({"r": partial(log_return, bars=1)}).fit(bars)
    kept.build(features, bars)
    calls.clear()
    noted = kept.build(features, bars.assign(note=1.0))
    assert calls == []
    assert "note" in noted


def test_what_training_dropped_is_dropped_from_the_same_entry(bars, kept, calls):
    columns = {f"r{n}": partial(log_return, bars=n) for n in (1, 2)}
    features = FeatureSet(columns).fit(bars)
    kept.build(features, bars)
    calls.clear()
    made = kept.build(features.drop(["feature.r1"]), bars)
    assert calls == []
    assert_frame_equal(made, features.build(bars), check_exact=True)


@pytest.mark.parametrize("damage", ["flip", "cut", "swap", "words", "gone", "longer"])
def test_a_damaged_entry_is_found_and_made_again(damage, bars, kept, calls, caplog):
    features = FeatureSet({f"r{n}": partial(log_return, bars=n) for n in (1, 2)}).fit(bars)
    expected = kept.build(features, bars)
    (said,) = kept.folder.glob("*.json")
    data = said.with_suffix(".f32")
    content = bytearray(data.read_bytes())
    if damage == "flip":
        content[4003] ^= 1
    elif damage == "cut":
        del content[-4:]
    elif damage == "swap":
        content[800:808], content[1600:1608] = content[1600:1608], content[800:808]
    elif damage == "longer":
        content += bytes(4)
    data.write_bytes(content)
    if damage == "words":
        said.write_text(json.dumps(json.loads(said.read_text()) | {"columns": ["a", "b"]}))
    if damage == "gone":
        data.unlink()
    calls.clear()
    with caplog.at_level(logging.WARNING):
        assert_frame_equal(kept.build(features, bars), expected, check_exact=True)
    assert len(calls) == 1
    assert "computed again" in caplog.text
    calls.clear()
    assert_frame_equal(kept.build(features, bars), expected, check_exact=True)
    assert calls == []


def test_a_damaged_entry_is_not_built_upon(bars, kept, calls):
    features = replace(SETS["alpha158"]).fit(days(bars, 1))
    kept.build(features, days(bars, 1))
    (data,) = kept.folder.glob("*.f32")
    content = bytearray(data.read_bytes())
    content[9999] ^= 64
    data.write_bytes(content)
    calls.clear()
    made = kept.build(features, bars)
    assert calls == [len(bars)]
    assert_frame_equal(made, features.build(bars), check_exact=True)


def test_the_folder_stays_within_its_bound(bars, tmp_path, calls):
    columns = {"r": partial(log_return, bars=1)}
    one = 4 * len(bars)
    kept = FeatureCache(tmp_path, max_bytes=2 * one)
    sets = [FeatureSet(columns, min_coverage=c).fit(bars) for c in (0.5, 0.6, 0.7)]
    for features in sets:
        kept.build(features, bars)
    assert sum(p.stat().st_size for p in tmp_path.glob("*.f32")) <= 2 * one
    calls.clear()
    kept.build(sets[2], bars)
    kept.build(sets[0], bars)  # the first to go
    assert len(calls) == 1
    small = FeatureCache(tmp_path / "small", max_bytes=10)
    assert_frame_equal(small.build(sets[0], bars), sets[0].build(bars), check_exact=True)
    assert not list((tmp_path / "small").glob("*.f32"))


def test_a_folder_that_cannot_be_written_costs_time_and_no_more(bars, tmp_path, caplog):
    place = tmp_path / "file"
    place.write_text("in the way")
    features = FeatureSet({"r": partial(log_return, bars=1)}).fit(bars)
    made = FeatureCache(place / "cache").build(features, bars)
    assert_frame_equal(made, features.build(bars), check_exact=True)
    assert "not kept" in caplog.text


def test_a_function_without_a_name_is_computed_each_time(bars, kept, calls):
    @warms_up(lambda **_: 0)
    def own(close):
        return close + 0.0

    features = FeatureSet({"own": own}).fit(bars)
    assert_frame_equal(kept.build(features, bars), features.build(bars), check_exact=True)
    assert not kept.folder.exists()


def test_a_running_sum_is_not_taken_for_a_window(bars):
    import talib

    @warms_up(lambda bars, **_: bars - 1)
    def average(close, bars=20):
        return on_clean_runs(partial(talib.SMA, timeperiod=bars), bars - 1, close)

    assert not forgets(average)
    assert forgets(partial(log_return, bars=1))
    of = partial(log_return, close="average", bars=1)
    assert FeatureSet({"average": average, "of": of}).extends
    above = partial(average, close="of")
    assert not FeatureSet({"of": partial(log_return, bars=1), "above": above}).extends
    assert not SETS["next_day"].extends


def test_it_is_used_where_it_is_active_and_for_what_is_computed(bars, kept):
    features = FeatureSet({"r": partial(log_return, bars=1)}).fit(bars)
    built(features, bars)
    assert not kept.folder.exists()
    token = cached.active.set(kept)
    try:
        built(GivenFeatures([]), bars.assign(**{"feature.x": np.float32(1)}))
        assert not kept.folder.exists()
        made = built(features, bars)
    finally:
        cached.active.reset(token)
    assert len(list(kept.folder.glob("*.f32"))) == 1
    assert_frame_equal(made, features.build(bars), check_exact=True)
