from dataclasses import replace
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
import pytest
from hydra.utils import instantiate
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from purgedcv import CombinatorialPurgedCV as Reference
from skfolio.model_selection import CombinatorialPurgedCV

from pipeline.recipe import check_targets
from stages.base import DataError
from stages.combinatorial import CombinatorialPurged, shadows
from stages.panel import settled
from tests.conftest import ROOT

HOUR = pd.Timedelta("1h")


def events(rng: np.random.Generator, most_bars: int, most_assets: int = 3):
    """Rows of ragged assets at irregular times, and labels of random span: hours since 2020.

    Ends fall on bars, between them and on each other; asset-major, like every panel.
    """
    clock = np.cumsum(rng.integers(1, 4, rng.integers(4, most_bars + 1)))
    asset, time = [], []
    for a in range(rng.integers(1, most_assets + 1)):
        held = clock[rng.random(len(clock)) < rng.choice([0.5, 0.8, 1.0])]
        asset += [a] * len(held)
        time += held.tolist()
    time = np.array(time, dtype=int)
    return (
        np.array(asset, dtype=int),
        time,
        time + rng.integers(1, rng.choice([2, 4, 12]), len(time)),
    )


def may_train(i, tested, asset, time, over, bars, edges, embargo, look_back) -> bool:
    """The definition, one row against one group, in plain Python."""
    for g in tested:
        inside = bars[edges[g] : edges[g + 1]]
        first, last = inside[0], inside[-1]
        open_until = max(o for t, o in zip(time, over, strict=True) if first <= t <= last)
        if time[i] <= open_until and over[i] >= first:
            return False  # the spans meet
        if time[i] < first and sum(over[i] < bar < first for bar in bars) < embargo:
            return False
        if time[i] > last:
            closed = [bar for bar in bars if bar > last][:embargo]
            if time[i] in closed:
                return False
            past = [t for a, t in zip(asset, time, strict=True) if a == asset[i] and t < time[i]]
            if sum(t > last and t not in closed for t in past) < look_back:
                return False
    return True


def test_on_ten_thousand_random_event_sets_only_rows_of_the_definition_are_trained_on():
    rng = np.random.default_rng(0)
    checked = kept = 0
    while checked < 10_000:
        asset, time, over = events(rng, most_bars=16)
        bars = np.unique(time)
        groups = int(rng.integers(2, 6))
        if len(bars) < groups:
            continue
        checked += 1
        embargo, look_back = rng.integers(0, 3, 2).tolist()
        edges = np.linspace(0, len(bars), groups + 1).astype(int)
        _, asset = np.unique(asset, return_inverse=True)
        bar = np.searchsorted(bars, time)
        shadow = shadows(bar, bars, over, asset, edges, embargo, look_back)
        tested = rng.permutation(groups)[: rng.integers(1, min(groups, 3))]
        lists = [rows.tolist() for rows in (asset, time, over, bars, edges)]
        expected = [may_train(i, tested, *lists, embargo, look_back) for i in range(len(time))]
        np.testing.assert_array_equal(~shadow[tested].any(axis=0), expected)
        kept += sum(expected)
    assert kept > 30_000  # the definition leaves something to be wrong about


def labels(seed: int, horizon: bool = True) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    asset, time, over = events(rng, most_bars=24)
    index = pd.MultiIndex.from_arrays(
        [np.array([f"A{a}" for a in asset]), clock(time)], names=["asset", "time"]
    )
    known = time + np.minimum(rng.integers(1, 12, len(time)), over - time)
    y = pd.DataFrame({"side": np.int8(0), "end": clock(known), "weight": 1.0}, index)
    return y.assign(horizon_end=clock(over)) if horizon else y


def clock(hours: np.ndarray) -> pd.DatetimeIndex:
    """UTC times, also where there is none."""
    start = pd.Timestamp("2020-01-01", tz="UTC")
    return pd.DatetimeIndex([start + int(hour) * HOUR for hour in hours], tz="UTC")


@settings(max_examples=60, deadline=None)
@example(seed=366, groups=2, k=1, embargo=0, look_back=0, horizon=False)  # not one event
@given(
    seed=st.integers(0, 10_000),
    groups=st.integers(2, 6),
    k=st.integers(1, 5),
    embargo=st.integers(0, 3),
    look_back=st.integers(0, 4),
    horizon=st.booleans(),
)
def test_every_choice_of_groups_is_tested_whole_and_trained_on_what_is_clear_of_it(
    seed, groups, k, embargo, look_back, horizon
):
    y = labels(seed, horizon=horizon)
    bars = y.index.unique("time").sort_values()
    folds = CombinatorialPurged(groups, min(k, groups - 1), embargo, look_back)
    if len(bars) < groups:
        with pytest.raises(DataError, match=f"labelled bars do not make {groups} groups"):
            list(folds.split(y))
        return
    edges = np.linspace(0, len(bars), groups + 1).astype(int)
    time = y.index.get_level_values("time")
    hours = [((t - bars[0]) // HOUR).tolist() for t in (time, pd.DatetimeIndex(settled(y)), bars)]
    rows = (y.index.get_level_values("asset").tolist(), *hours, edges.tolist())
    choices = list(combinations(range(groups), folds.n_test))
    assert [tuple(tests) for tests in folds.tested()] == choices
    expected = [
        [i for i in range(len(y)) if may_train(i, tests, *rows, embargo, look_back)]
        for tests in choices
    ]
    if not all(expected):
        with pytest.raises(DataError, match="nothing is left to train on") as refused:
            list(folds.split(y))
        assert refused.value.code == "SV-F18"
        return
    group = np.searchsorted(edges, bars.get_indexer(time), side="right") - 1
    for (train, test), tests, wanted in zip(folds.split(y), choices, expected, strict=True):
        assert train.tolist() == wanted
        assert test.tolist() == np.flatnonzero(np.isin(group, tests)).tolist()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), groups=st.integers(2, 5), k=st.integers(1, 4))
def test_each_path_is_the_whole_history_once_and_no_split_speaks_of_a_group_twice(seed, groups, k):
    y = labels(seed)
    folds = CombinatorialPurged(groups, min(k, groups - 1), embargo=0, look_back=0)
    assert folds.paths().shape == (folds.n_paths, groups)
    assert folds.n_paths * groups == folds.n_splits * folds.n_test
    assert len({(g, s) for path in folds.paths() for g, s in enumerate(path)}) == (
        folds.n_paths * groups
    )
    try:
        splits, parts = list(folds.split(y)), list(folds.parts(y))
    except DataError:
        return
    told = {}
    for (train, test), part in zip(splits, parts, strict=True):
        np.testing.assert_array_equal(part.pop("train"), train)
        np.testing.assert_array_equal(np.sort(np.concatenate(list(part.values()))), test)
        for path, rows in part.items():
            assert (np.diff(rows) > 0).all()
            told.setdefault(path, []).append(rows)
    assert list(told) == [f"path {p + 1}" for p in range(folds.n_paths)]
    for rows in told.values():
        assert np.sort(np.concatenate(rows)).tolist() == list(range(len(y)))


# other libraries, where their definitions are ours


def one_asset(ends: np.ndarray) -> pd.DataFrame:
    clock = pd.date_range("2020-01-01", periods=len(ends), freq="D", tz="UTC")
    index = pd.MultiIndex.from_product([["A"], clock], names=["asset", "time"])
    end = clock[0] + pd.to_timedelta(ends, "D")
    return pd.DataFrame({"side": np.int8(0), "end": end, "weight": 1.0}, index)


@pytest.mark.parametrize(("span", "embargo"), [(1, 0), (3, 0), (3, 4), (5, 2)])
@pytest.mark.parametrize(("groups", "k"), [(6, 2), (5, 3), (4, 2)])
def test_labels_of_one_length_are_split_as_skfolio_splits_them(span, embargo, groups, k):
    """Its purge counts rows: that of a label of so many bars. Its embargo adds to the purge."""
    n = 15 * groups
    y = one_asset(np.arange(n) + span)
    ours = CombinatorialPurged(groups, k, embargo=0, look_back=span + embargo)
    theirs = CombinatorialPurgedCV(groups, k, purged_size=span, embargo_size=embargo)
    assert (ours.n_splits, ours.n_paths) == (theirs.n_splits, theirs.n_test_paths)
    np.testing.assert_array_equal(ours.tested(), theirs.test_set_index)
    np.testing.assert_array_equal(ours.paths().T, theirs.recombined_paths)
    X = np.zeros((n, 1))
    for (train, test), (wanted, tests) in zip(ours.split(y), theirs.split(X), strict=True):
        np.testing.assert_array_equal(train, wanted)
        np.testing.assert_array_equal(test, np.concatenate(tests))


@pytest.mark.parametrize("seed", range(20))
def test_labels_of_any_length_are_purged_as_purgedcv_purges_them(seed):
    rng = np.random.default_rng(seed)
    groups, k, look_back = int(rng.integers(3, 7)), 2, int(rng.integers(0, 6))
    n = 12 * groups
    ends = np.arange(n) + rng.integers(1, rng.choice([3, 10]), n)
    y = one_asset(ends)
    theirs = Reference(
        groups,
        k,
        prediction_times=y.index.get_level_values("time").tz_localize(None),
        # it takes spans without their end: two that touch would pass
        evaluation_times=pd.DatetimeIndex(y["end"]).tz_localize(None) + pd.Timedelta("1s"),
        embargo_observations=look_back,
    )
    ours = CombinatorialPurged(groups, k, embargo=0, look_back=look_back)
    for (train, test), (wanted, tests) in zip(ours.split(y), theirs.split(y), strict=True):
        np.testing.assert_array_equal(train, wanted)
        np.testing.assert_array_equal(test, tests)


# settings


def test_the_numbers_of_splits_and_paths_are_those_of_the_book():
    folds = CombinatorialPurged(6, 2)
    assert (folds.n_splits, folds.n_paths) == (15, 5)
    assert folds.n_splits == comb(6, 2)
    assert CombinatorialPurged(5, 1).n_paths == 1  # a purged k-fold


@pytest.mark.parametrize(
    "settings", [{"n_test": 0}, {"n_test": 6}, {"n_groups": 1}, {"embargo": -1}, {"look_back": -1}]
)
def test_a_setting_out_of_range_is_refused(settings):
    name, value = next(iter(settings.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        CombinatorialPurged(**settings)


def test_how_far_inputs_look_back_must_be_said():
    y = one_asset(np.arange(60) + 2)
    with pytest.raises(ValueError, match="look_back is None"):
        next(CombinatorialPurged().split(y))
    assert next(replace(CombinatorialPurged(), look_back=0).split(y))


def test_the_configuration_asks_the_pipeline_for_its_look_back():
    cfg = OmegaConf.merge(
        {"folds": {"embargo": 9}}, {"split": OmegaConf.load(ROOT / "conf/split/cpcv.yaml")}
    )
    check_targets(OmegaConf.to_container(cfg.split, resolve=True))
    assert instantiate(cfg.split) == CombinatorialPurged(6, 2, embargo=9, look_back=None)
