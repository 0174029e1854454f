import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from pipeline.assemble import assemble
from stages.base import DataError, State
from stages.online.replay import ReplayBuffer
from stages.panel import check_labels, check_panel
from tests.conftest import composed

CONF = Path(__file__).parents[3] / "conf" / "online"
TIMES, ASSETS, L = 120, 4, 3


def make_stream(seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Bars whose first feature is their row number; holds and regime 1 are common."""
    rng = np.random.default_rng(seed)
    bars = pd.date_range("2020-01-01", periods=TIMES, tz="UTC").as_unit("us")
    assets = pd.Index([f"A{a}" for a in range(ASSETS)], dtype="str")
    index = pd.MultiIndex.from_product([assets, bars], names=["asset", "time"])
    n = len(index)
    panel = pd.DataFrame(
        {
            "close": 100.0,
            "feature.row": np.arange(n, dtype="float32"),
            "rule.macd": rng.normal(size=n).astype("float32"),
            "context.regime": np.tile(np.where(rng.random(TIMES) < 0.1, -1, 1), ASSETS),
            "filter.forest.z_buy": rng.normal(size=n),
            "refiner.lstm.z_buy": rng.normal(size=n),
        },
        index,
    ).astype({"context.regime": "float32"})
    end = index.get_level_values("time") + pd.to_timedelta(rng.integers(1, 5, n), unit="D")
    side = rng.choice([-1, 0, 1], n, p=[0.1, 0.8, 0.1]).astype("int8")
    ret = rng.normal(size=n)
    y = pd.DataFrame({"side": side, "end": end, "weight": 0.5, "ret": ret}, index)
    return panel, y


PANEL, Y = make_stream()


@pytest.fixture
def small() -> ReplayBuffer:
    return ReplayBuffer(capacity=60, window=L)


def in_chunks(buffer: ReplayBuffer, cuts: list[int]) -> ReplayBuffer:
    """Feed `Y` in several calls, as labels mature."""
    ends = np.sort(Y["end"].unique())
    for part in np.split(ends, sorted(cuts)):
        buffer.add(PANEL, Y[Y["end"].isin(part)])
    return buffer


def test_a_buffer_with_room_keeps_every_row_that_has_its_window():
    buffer = ReplayBuffer(window=L).add(PANEL, Y)
    assert len(buffer) == len(Y) - ASSETS * (L - 1)
    assert buffer.short_ == ASSETS * (L - 1)
    panel, y = buffer.sample(10**6, seed=0)
    assert len(y) == len(buffer)
    assert set(panel["feature.row"].iloc[L - 1 :: L]) == {
        row for row in range(len(Y)) if row % TIMES >= L - 1
    }


def test_a_sample_is_a_mini_panel_of_the_windows_and_their_labels(small):
    panel, y = small.add(PANEL, Y).sample(20, seed=1)
    check_panel(panel, ["feature.row", "rule.macd", "context.regime", "filter.forest.z_buy"])
    check_labels(y)
    assert "close" not in panel
    assert (panel.dtypes == "float32").all()
    assert len(panel) == 20 * L
    rows = panel["feature.row"].to_numpy(dtype=int).reshape(20, L)
    assert (np.diff(rows, axis=1) == 1).all()
    last = panel.iloc[L - 1 :: L]
    assert last.index.equals(y.index)
    told = PANEL.iloc[rows[:, -1]]
    assert (told.index.get_level_values("time") == y.index.get_level_values("time")).all()
    names = y.index.get_level_values("asset").str.split(" ").str[1]
    assert (told.index.get_level_values("asset") == names).all()
    for column in ("rule.macd", "refiner.lstm.z_buy"):
        np.testing.assert_array_equal(last[column], told[column].astype("float32"))
    truth = Y.loc[told.index]
    for column in ("side", "end", "weight", "ret"):
        assert (truth[column].to_numpy() == y[column].to_numpy()).all()


def test_samples_are_seeded_and_never_repeat_a_row(small):
    small.add(PANEL, Y)
    one, two, other = (small.sample(30, seed)[0]["feature.row"] for seed in (5, 5, 6))
    assert one.equals(two)
    assert not one.equals(other)
    assert one.iloc[L - 1 :: L].is_unique


def test_rare_sides_and_regimes_keep_their_place(small):
    strata = small.add(PANEL, Y).summary()["strata"]
    assert sum(strata.values()) == 60
    assert set(strata) == {f"{s}/{r}" for s in ("sell", "hold", "buy") for r in (-1, 1)}
    seen = small.seen_
    assert seen["hold/1"] > 0.6 * sum(seen.values())
    assert strata["hold/1"] < 0.35 * 60
    for rare in ("sell/-1", "buy/-1"):
        assert strata[rare] == seen[rare]


def test_each_row_of_a_stratum_is_as_likely_to_stay():
    kept = np.zeros(TIMES)
    one = Y.xs("A0", drop_level=False).assign(side=np.int8(0))
    panel = PANEL.xs("A0", drop_level=False).assign(**{"context.regime": np.float32(0)})
    for seed in range(100):
        buffer = ReplayBuffer(capacity=30, window=1, seed=seed).add(panel, one)
        kept[buffer.sample(30, 0)[0]["feature.row"].to_numpy(dtype=int)] += 1
    early, late = kept[:60].mean(), kept[60:].mean()
    assert kept.mean() == 100 * 30 / TIMES
    assert early == pytest.approx(late, rel=0.15)
    assert kept.std() < 1.5 * np.sqrt(100 * 0.25 * 0.75)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, TIMES), max_size=6), st.integers(0, 3))
def test_what_is_kept_depends_on_the_stream_and_the_seed_only(cuts, seed):
    whole = ReplayBuffer(capacity=40, window=L, seed=seed).add(PANEL, Y)
    parts = in_chunks(ReplayBuffer(capacity=40, window=L, seed=seed), cuts)
    assert parts.summary() == whole.summary()
    for one, two in zip(whole.sample(40, 1), parts.sample(40, 1), strict=True):
        pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_another_seed_keeps_other_rows(small):
    assert small.add(PANEL, Y).summary() != replace(small, seed=1).add(PANEL, Y).summary()


def test_a_restored_buffer_goes_on_as_if_nothing_had_happened(small):
    early = Y["end"] < pd.Timestamp("2020-02-15", tz="UTC")
    state = small.add(PANEL, Y[early]).state()
    values = json.loads(json.dumps(state.values))
    again = replace(small).restore(State(values, state.parts))
    assert again.summary() == small.summary()
    for buffer in (small, again):
        buffer.add(PANEL, Y[~early])
    assert again.summary() == small.summary()
    assert again.state().parts == small.state().parts
    assert json.dumps(again.state().values) == json.dumps(small.state().values)


def test_bytes_bound_it_too():
    row = 4 * L * 5 + 8 * L + 4 * 8 + 1  # window, times, the four long fields, the side
    buffer = ReplayBuffer(capacity=60, max_bytes=25 * row + 5, window=L).add(PANEL, Y)
    assert len(buffer) == buffer.summary()["capacity"] == 25
    assert len(buffer.state().parts["replay.safetensors"]) < 25 * row + 1000
    with pytest.raises(DataError, match="max_bytes"):
        ReplayBuffer(max_bytes=row - 1, window=L).add(PANEL, Y)


def test_the_summary_names_its_span_and_its_content(small):
    assert small.summary()["size"] == 0
    assert small.summary()["oldest"] is None
    empty = small.summary()["hash"]
    said = small.add(PANEL, Y).summary()
    assert said["size"] == said["capacity"] == 60
    assert said["hash"] != empty
    times = small.sample(60, 0)[1].index.get_level_values("time")
    assert pd.Timestamp(said["oldest"]) == times.min()
    assert pd.Timestamp(said["newest"]) == times.max()
    assert json.loads(json.dumps(said)) == said


def test_a_changed_value_changes_the_hash(small):
    other = PANEL.assign(**{"rule.macd": PANEL["rule.macd"] + np.float32(1)})
    assert small.add(PANEL, Y).summary() != replace(small).add(other, Y).summary()


def test_without_a_regime_sides_are_the_strata(small):
    lone = PANEL.drop(columns="context.regime")
    strata = small.add(lone, Y).summary()["strata"]
    assert set(strata) == {"sell", "hold", "buy"}
    assert max(strata.values()) <= 21


def test_an_unknown_regime_is_a_stratum_of_its_own(small):
    lone = PANEL.assign(**{"context.regime": np.float32("nan")})
    assert set(small.add(lone, Y).summary()["strata"]) == {"sell/nan", "hold/nan", "buy/nan"}


def test_labels_without_a_return_are_kept_without_one(small):
    _, y = small.add(PANEL, Y.drop(columns="ret")).sample(5, 0)
    assert y["ret"].isna().all()


def test_no_rows_change_nothing(small):
    before = small.add(PANEL, Y).summary()
    assert small.add(PANEL, Y.iloc[:0]).summary() == before


def test_a_column_that_went_missing_is_named(small):
    small.add(PANEL, Y)
    with pytest.raises(DataError, match="rule.macd"):
        small.add(PANEL.drop(columns="rule.macd"), Y)


def test_a_label_without_its_row_is_named(small):
    with pytest.raises(DataError, match="A0 at 2020-01-01"):
        small.add(PANEL.iloc[1:], Y)


@pytest.mark.parametrize(
    "setting", [{"capacity": 0}, {"max_bytes": 0}, {"window": 0}, {"seed": -1}]
)
def test_a_setting_out_of_range_is_refused(setting):
    with pytest.raises(ValueError, match="capacity, max_bytes, window >= 1"):
        ReplayBuffer(**setting)


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_each_config_makes_a_buffer(name):
    cfg = composed("update", f"online={name}", "seed=7", f"window={L}")
    buffer = instantiate(OmegaConf.to_container(cfg.online.replay, resolve=True))
    assert len(buffer.add(PANEL, Y)) > 0
    learning = assemble(cfg, "learning")
    assert (learning is None) == (name == "default")
