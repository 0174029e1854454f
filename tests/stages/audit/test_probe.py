from dataclasses import replace

import numpy as np
import pandas as pd

from stages.audit.components import World
from stages.audit.nulls import label_nulls, shifted
from stages.audit.probe import Altered, Log, ended, sample, scrambled, small, states
from stages.audit.zoo.honest import Bars
from stages.labels import TripleBarrier
from stages.panel import check_labels, settled
from tests.conftest import tiny_pipeline


def test_a_probe_trains_little_and_is_otherwise_the_same(tiny):
    probe = small(tiny)
    assert type(probe) is type(tiny)
    assert not hasattr(probe, "stack_")
    assert {m.get_params()["n_estimators"] for m in probe.filter.members.values()} == {6}
    assert probe.filter.members["forest"].min_samples_leaf == 3
    assert (probe.refiner.epochs, probe.refiner.window) == (1, tiny.refiner.window)
    assert (probe.folds, probe.labels) == (tiny.folds, tiny.labels)
    assert {m.get_params()["n_estimators"] for m in tiny.filter.members.values()} == {8, 10}


def test_a_log_holds_what_each_fit_was_given(tiny_market):
    log = Log()
    pipeline = tiny_pipeline(refiner=None)
    tapped = replace(pipeline, filter=log.tap("filter", pipeline.filter))
    tapped = replace(tapped, ensemble=log.tap("ensemble", pipeline.ensemble))
    fitted = tapped.fit(tiny_market.panel, tiny_market.y)
    names = [name for name, _, _ in log.fits]
    assert names.count("filter") == pipeline.folds.n_folds + 1
    assert set(names) == {"filter", "ensemble"}
    words, y = next((w, y) for name, w, y in log.fits if name == "ensemble")
    assert words.index.equals(y.index)
    assert words.notna().all(axis=None)
    assert [c for c in words if c.endswith("z_buy")]
    plain = pipeline.fit(tiny_market.panel, tiny_market.y)
    pd.testing.assert_frame_equal(fitted.unseen_, plain.unseen_)


def test_scrambling_changes_every_open_label_and_no_settled_one():
    bars = Bars(assets=2, times=120, seed=0).draw()
    y = TripleBarrier(horizon=4).fit(bars).label(bars)
    since = y.index.unique("time")[60]
    made = check_labels(scrambled(y, since, seed=1))
    open_ = (settled(y) >= since).to_numpy()
    pd.testing.assert_frame_equal(made[~open_], y[~open_])
    for column in ("side", "weight", "ret"):
        assert (made[column] != y[column])[open_].all()
    assert made["end"].equals(y["end"])
    assert set(ended(y, since).index) == set(y.index[(settled(y) <= since).to_numpy()])


def test_altered_labels_keep_everything_else_of_the_labeler():
    bars = Bars(assets=2, times=120, seed=0).draw()
    plain = TripleBarrier(horizon=4).fit(bars)
    altered = Altered(TripleBarrier(horizon=4), lambda y: y.iloc[:10]).fit(bars)
    assert (altered.horizon, altered.span, altered.width_) == (4, 5, plain.width_)
    pd.testing.assert_frame_equal(altered.label(bars), plain.label(bars).iloc[:10])
    pd.testing.assert_series_equal(altered.scale(bars), plain.scale(bars))


def test_a_sample_holds_the_last_bars_of_some_assets():
    bars = Bars(assets=6, times=200, seed=0, ragged=True).draw()
    taken = sample(bars, 3, 80, np.random.default_rng(0))
    assert taken.index.unique("asset").size == 3
    counts = taken.groupby(level="asset").size()
    assert 50 <= counts.min() <= counts.max() <= 100
    assert sample(bars, None, 80, np.random.default_rng(0)).index.unique("asset").size == 6


def test_two_fits_of_one_world_learn_the_same_states(tiny, tiny_market):
    again = tiny_pipeline().fit(tiny_market.panel, tiny_market.y)
    one, two = states(tiny), states(again)
    assert {"filter", "refiner", "ensemble", "replay", "gate"} <= set(one)
    for part, values in one.items():
        assert values.equals(two[part]), part


def test_shifted_labels_keep_their_shares_and_lose_their_place(tiny_market):
    y = shifted(tiny_market.y)
    before, after = (t.groupby(level="asset")["side"].value_counts() for t in (tiny_market.y, y))
    pd.testing.assert_series_equal(before.sort_index(), after.sort_index())
    assert (y["side"] == tiny_market.y["side"]).mean() < 0.5


def test_the_nulls_show_skill_where_there_is_some_and_none_where_it_was_taken(tiny_market):
    probe = small(tiny_pipeline(refiner=None))
    world = World(tiny_market.panel, tiny_market.y)
    told = {null.name: null for null in label_nulls(probe, world, seed=0)}
    real = told.pop("as labelled")
    assert real.direction > 4 * real.error > 0
    for null in told.values():
        assert abs(null.direction) < 4 * null.error
        assert null.direction < real.direction / 2
