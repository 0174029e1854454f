import json
import signal
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sklearn.exceptions import NotFittedError

from stages.base import ArtifactError, DataError, State
from stages.panel import until
from stages.refiner.gru import Gru
from stages.refiner.lstm import Lstm
from stages.refiner.refiner import SequenceRefiner
from stages.refiner.transformer import Transformer
from tests.stages.refiner.conftest import panel_and_labels

CONF = Path(__file__).parents[3] / "conf" / "refiner"
YAMLS = [path for path in sorted(CONF.glob("*.yaml")) if path.stem != "none"]
CUT = pd.Timestamp("2020-06-01", tz="UTC")


def mini_panel(panel, rows, length):
    """One pseudo-asset for each of `rows`, with the bars that lead up to it."""
    place = panel.index.get_indexer(rows)
    taken = (place[:, None] + np.arange(1 - length, 1)).ravel()
    names = np.repeat([f"r{number}" for number in range(len(rows))], length)
    times = panel.index.get_level_values("time")[taken]
    return panel.iloc[taken].set_axis(
        pd.MultiIndex.from_arrays([names, times], names=["asset", "time"])
    )


def test_predict_keeps_every_row(said, market):
    assert said.index.equals(market[0].index)
    names = ["lstm.z_sell", "lstm.z_buy", "transformer.z_sell", "transformer.z_buy"]
    assert said.columns.tolist() == [f"refiner.{name}" for name in names]
    assert (said.dtypes == "float64").all()


def test_what_cannot_be_read_has_no_odds(refiner, said, market):
    panel, _ = market
    young = panel.groupby("asset").cumcount() < refiner.window - 1
    shut = panel["filter.gate"] == 0
    assert (said.isna().all(axis=1) == (young | shut)).all()
    assert (said.isna().any(axis=1) == (young | shut)).all()
    holes = panel.assign(ready=True)
    holes.iloc[[50, 51], holes.columns.get_loc("filter.b.z_buy")] = np.nan
    holes.iloc[[60, 61], holes.columns.get_loc("ready")] = False
    more = refiner.predict(holes).isna().all(axis=1)
    expected = young | shut
    expected.iloc[[50, 51, 60, 61]] = True
    assert (more == expected).all()


def test_the_past_does_not_see_the_future(refiner, said, market):
    past = until(market[0], CUT)
    pd.testing.assert_frame_equal(refiner.predict(past), said.loc[past.index], check_exact=True)


def test_an_asset_does_not_see_the_others(refiner, said, market):
    alone = market[0].loc[["A4", "A2"]]
    pd.testing.assert_frame_equal(refiner.predict(alone), said.loc[["A4", "A2"]], check_exact=True)


def test_a_row_and_its_window_are_enough(refiner, said, market):
    rows = said.dropna().index[::41]
    alone = refiner.predict(mini_panel(market[0], rows, refiner.window)).dropna()
    assert (alone.to_numpy() == said.loc[rows].to_numpy()).all()


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_no_place_in_a_chunk_moves_the_bits_of_any_configured_net(path):
    draw = torch.Generator().manual_seed(0)
    whole = OmegaConf.create(
        {"seed": 5, "horizon": 4, "window": 20, "refiner": OmegaConf.load(path)}
    )
    stage = instantiate(whole.refiner, _convert_="all")
    assert isinstance(stage, SequenceRefiner)
    assert list(stage.seeds) == [5]
    for width, build in [(width, build) for width in (7, 60) for build in stage.members.values()]:
        net = build(n_features=width, n_static=2, window=stage.window).eval()
        x_BLF = torch.randn(256, stage.window, width, generator=draw)
        static_BS = torch.randn(256, 2, generator=draw)
        with torch.inference_mode():
            first = net(x_BLF, static_BS)
            for _ in range(3):
                places = torch.randperm(256, generator=draw)
                others = x_BLF[places]
                others[100:] = 1e3 * torch.randn(156, stage.window, width, generator=draw)
                assert (net(others, static_BS[places])[:100] == first[places[:100]]).all()


def test_one_seed_gives_the_same_bytes(refiner, market, template):
    torch.manual_seed(99)
    again = replace(template).fit(*market)
    assert again.state() == refiner.state()


def test_another_seed_gives_another_net_and_an_ensemble_is_their_mean(template, market):
    panel, y = market
    quick = replace(template, members={"lstm": partial(Lstm, hidden=4)}, epochs=1)
    one, two, both = (replace(quick, seeds=seeds).fit(panel, y) for seeds in ([1], [2], [1, 2]))
    assert one.state().parts["lstm.1.safetensors"] != two.state().parts["lstm.2.safetensors"]
    assert both.state().parts == {**one.state().parts, **two.state().parts}
    mean = (one.predict(panel) + two.predict(panel)) / 2
    pd.testing.assert_frame_equal(both.predict(panel), mean, check_exact=True)


def test_randomness_of_the_caller_is_left_alone(template, market):
    before = torch.get_rng_state()
    numbers = np.random.get_state()[1].copy()
    stage = replace(template, epochs=1).fit(*market)
    replace(template).restore(stage.state())
    assert (torch.get_rng_state() == before).all()
    assert (np.random.get_state()[1] == numbers).all()


def test_what_is_saved_predicts_the_same_bits(refiner, said, market, template):
    state = refiner.state()
    stored = State(json.loads(json.dumps(state.values)), dict(state.parts))
    assert set(stored.parts) == {"lstm.3.safetensors", "transformer.3.safetensors"}
    back = replace(template).restore(stored)
    pd.testing.assert_frame_equal(back.predict(market[0]), said, check_exact=True)
    assert back.state() == state


def test_foreign_or_damaged_weights_are_refused(refiner, template):
    state = refiner.state()
    lstm, other = state.parts["lstm.3.safetensors"], state.parts["transformer.3.safetensors"]
    for parts in (
        {"lstm.3.safetensors": lstm},
        {"lstm.3.safetensors": lstm[:-7], "transformer.3.safetensors": other},
        {"lstm.3.safetensors": other, "transformer.3.safetensors": lstm},
        {"lstm.3.safetensors": b"", "transformer.3.safetensors": other},
    ):
        with pytest.raises(ArtifactError) as refusal:
            replace(template).restore(State(state.values, parts))
        assert refusal.value.code == "SV-F29"


def test_fit_leaves_hyperparameters_and_input_alone(refiner, template, market):
    panel, y = market
    tables = panel.copy(), y.copy()
    stage = replace(template, epochs=1).fit(panel, y)
    kept = [f.name for f in fields(stage) if f.name != "epochs"]
    assert all(getattr(stage, name) == getattr(template, name) for name in kept)
    pd.testing.assert_frame_equal(panel, tables[0])
    pd.testing.assert_frame_equal(y, tables[1])


def test_before_fit_there_is_nothing_to_say(template, market):
    blank = replace(template)
    for ask in (blank.predict, lambda panel: blank.update(panel, market[1])):
        with pytest.raises(NotFittedError):
            ask(market[0])
    with pytest.raises(NotFittedError):
        blank.state()


def test_an_update_leaves_the_nets_as_they_are(refiner, market):
    before = refiner.state()
    assert refiner.update(*market) is refiner
    assert refiner.state() == before


def test_both_networks_find_what_lies_in_the_past_bars(refiner):
    panel, y = panel_and_labels(seed=1)
    said = refiner.predict(panel).dropna()
    side = y.loc[said.index, "side"]
    # the filter's own logits reach 0.6: the row alone does not show what x0 was before
    best = (panel["filter.a.z_buy"] - panel["filter.a.z_sell"]).loc[said.index].corr(side)
    for member in refiner.members:
        margin = said[f"refiner.{member}.z_buy"] - said[f"refiner.{member}.z_sell"]
        assert margin.corr(side) > best + 0.1


def test_a_panel_without_filter_needs_none(template, market):
    panel, y = market
    bare = panel[[c for c in panel if c.startswith("feature.")]]
    stage = replace(template, epochs=1, tail=0).fit(bare, y)
    said = stage.predict(bare)
    assert said.notna().all(axis=1).sum() == len(panel) - 6 * (stage.window - 1)
    reasons = stage.attribute(bare, said.dropna().index[:3], mini_panel(bare, y.index[[90, 95]], 6))
    assert reasons.slopes.shape == (3, 2, 4, 0)
    assert reasons.upstream == ()


def test_nets_that_leave_the_filter_alone_are_not_moved_by_it(template, market):
    panel, y = market
    other = panel.assign(**{c: -panel[c] for c in panel if c.startswith("filter.") and "z_" in c})
    stages = [replace(template, epochs=1, static=False).fit(p, y) for p in (panel, other)]
    assert stages[0].state() == stages[1].state()
    said = stages[0].predict(panel)
    pd.testing.assert_frame_equal(stages[0].predict(other), said, check_exact=True)
    reasons = stages[0].attribute(
        panel, said.dropna().index[:3], mini_panel(panel, y.index[[90, 95]], 6)
    )
    assert reasons.upstream == ()


def test_nets_that_leave_the_filter_alone_learn_from_rows_it_has_not_scored(template, market):
    panel, y = market
    unscored = panel.index.get_level_values("time") < CUT
    silent = panel.assign(**{"filter.a.z_buy": panel["filter.a.z_buy"].mask(unscored)})
    alone, heard = (
        replace(template, epochs=1, static=static).fit(silent, y) for static in (False, True)
    )
    first = [stage.roles_["train"].get_level_values("time").min() for stage in (alone, heard)]
    assert first[0] < CUT <= first[1]
    assert (
        alone.predict(silent).notna().all(axis=1).sum() > heard.predict(silent).notna().sum().max()
    )


def test_rows_the_gate_stopped_can_be_left_out_of_training(template, market):
    panel, y = market
    quick = replace(template, epochs=1, below_gate=0)
    expected = quick.fit(panel, y[panel["filter.gate"] == 1]).nets_["lstm"][0].head.weight
    scaled = replace(quick).fit(panel, y).nets_["lstm"][0].head.weight
    # only the scales, measured on all training rows, differ
    assert (expected - scaled).abs().max() < 0.05


def test_no_training_label_reaches_into_the_tail(template, market):
    _, y = market
    early, late = template._parts(y)
    time = y.index.get_level_values("time")
    assert y["end"].iloc[early].max() < time[late].min()
    assert time[late].nunique() == round(0.15 * time.nunique())
    assert len(early) + len(late) == len(y) - 3 * 6
    everything, nothing = replace(template, tail=0)._parts(y)
    assert (len(everything), len(nothing)) == (len(y), 0)


def test_what_cannot_be_learnt_from_is_refused(template, market):
    panel, y = market
    time = y.index.get_level_values("time")
    unknown = y.rename(index={"A0": "Z0"}, level="asset").loc[["Z0"]]
    late = y.assign(end=time.max() + pd.Timedelta(days=9))
    for table, labels, code, message in (
        (panel.filter(like="filter."), y, "SV-F20", "no feature"),
        (panel, unknown, "SV-F20", "Z0 at 2020-01-01"),
        (panel, y.groupby("asset").head(4), "SV-F18", "none of 24 labelled rows"),
        (panel, y[y["side"] != 0], "SV-F44", "no hold"),
        (panel, late, "SV-F18", "before the tail"),
    ):
        with pytest.raises(DataError, match=message) as refusal:
            replace(template).fit(table, labels)
        assert refusal.value.code == code


def test_a_panel_that_lost_a_column_is_refused(refiner, market):
    with pytest.raises(DataError, match=r"feature\.x2"):
        refiner.predict(market[0].drop(columns="feature.x2"))


@pytest.mark.parametrize(
    "change",
    [
        {"members": {}},
        {"members": {"My Net": Lstm}},
        {"seeds": []},
        {"seeds": [1, 1]},
        {"seeds": [-1]},
        {"window": 0},
        {"epochs": 0},
        {"patience": 0},
        {"batch": 0},
        {"stride": 0},
        {"learning_rate": 0.0},
        {"clip": float("nan")},
        {"weight_decay": -1.0},
        {"label_smoothing": 1.0},
        {"tail": 1.0},
        {"average": 1.0},
        {"below_gate": 1.1},
        {"accelerator": "abacus"},
    ],
)
def test_values_out_of_range_are_refused(template, change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(template, **change)


@pytest.mark.parametrize("change", [{"hidden": 0}, {"layers": 0}, {"dropout": 1.0}])
@pytest.mark.parametrize("network", [Lstm, Gru, Transformer])
def test_a_network_that_cannot_be_built_is_refused(network, change):
    with pytest.raises(ValueError, match=next(iter(change))):
        network(n_features=3, n_static=2, window=4, **change)


def test_contributions_add_up(refiner, said, market):
    panel, _ = market
    rows = said.dropna().index[::150]
    anchors = said.dropna().index[40:1000:200]
    why = refiner.attribute(panel, rows, mini_panel(panel, anchors, refiner.window))
    assert why.outputs == tuple(said.columns)
    assert why.inputs == tuple(panel.filter(like="feature.").columns)
    assert why.upstream == tuple(c for c in panel if c.startswith("filter.") and "z_" in c)
    read = panel[list(why.upstream)].to_numpy()
    moved = (
        read[panel.index.get_indexer(rows)][:, None] - read[panel.index.get_indexer(anchors)][None]
    )
    total = why.values.sum(axis=3) + (why.slopes * moved[:, :, None]).sum(axis=3)
    rise = said.loc[rows].to_numpy()[:, None] - said.loc[anchors].to_numpy()[None]
    assert np.abs(total - rise).max() < 1.1e-4
    assert np.abs(rise).max() > 0.5


def test_reasons_do_not_depend_on_what_else_is_explained(refiner, said, market):
    panel, _ = market
    rows = said.dropna().loc[:, said.columns].index[::97]
    anchors = mini_panel(panel, said.dropna().index[[33, 500, 900]], refiner.window)
    together = refiner.attribute(panel, rows, anchors)
    past = until(panel, rows[2][1])
    alone = refiner.attribute(past, rows[[2]], anchors)
    assert (alone.values == together.values[[2]]).all()
    assert (alone.slopes == together.slopes[[2]]).all()


def test_a_row_without_output_has_no_reasons(refiner, said, market):
    panel, _ = market
    open_, shut = said.dropna().index[200], said.index[said.isna().all(axis=1)][-1]
    anchors = mini_panel(panel, pd.MultiIndex.from_tuples([open_, shut]), refiner.window)
    rows = pd.MultiIndex.from_tuples([shut, open_], names=["asset", "time"])
    why = refiner.attribute(panel, rows, anchors)
    expected = np.array([[True, True], [False, True]])
    assert (np.isnan(why.values).all(axis=(2, 3)) == expected).all()
    assert (np.isnan(why.slopes).any(axis=(2, 3)) == expected).all()
    nothing = refiner.attribute(panel, rows[:1], anchors)
    assert np.isnan(nothing.values).all()


def test_a_value_beyond_the_clip_counts_as_the_clip(refiner, said, market):
    panel, _ = market
    row = said.dropna().index[[150]]
    anchor = mini_panel(panel, said.dropna().index[[600]], refiner.window)
    wild, wilder = panel.copy(), panel.copy()
    wild.loc[row, "feature.x3"], wilder.loc[row, "feature.x3"] = 50, 5e6
    reasons = [refiner.attribute(table, row, anchor).values for table in (wild, wilder)]
    assert (reasons[0] == reasons[1]).all()


def test_an_interrupt_reaches_the_caller(template, market):
    class Interrupted(Lstm):
        def forward(self, x_BLF, static_BS):
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    stage = replace(template, members={"net": Interrupted})
    with pytest.raises(KeyboardInterrupt):
        stage.fit(*market)
    assert signal.getsignal(signal.SIGINT) is before
    assert not hasattr(stage, "nets_")


@pytest.mark.parametrize("tail", [0.0, 0.2])
def test_a_net_that_diverged_is_refused(template, market, tail):
    wild = replace(template, learning_rate=1e30, weight_decay=1e10, tail=tail)
    with pytest.raises(DataError, match="diverged") as refusal:
        wild.fit(*market)
    assert "1e+30" in str(refusal.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_says_nearly_the_same(refiner, said, market, template):
    there = replace(template, accelerator="gpu").restore(refiner.state()).predict(market[0])
    pd.testing.assert_frame_equal(there, said, atol=1e-3)
    trained = replace(template, accelerator="gpu", epochs=1).fit(*market)
    assert trained.predict(market[0]).notna().sum().equals(said.notna().sum())
