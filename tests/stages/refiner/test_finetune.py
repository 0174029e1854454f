"""Fine-tuning moves the last layers only, by seed and data alone, and holds on to what was said."""

import copy
from functools import partial

import numpy as np
import pytest
import torch

from stages.base import DataError
from stages.markets.planted import mixed
from stages.refiner.finetune import late
from stages.refiner.gru import Gru
from stages.refiner.lstm import Lstm
from stages.refiner.refiner import SequenceRefiner
from stages.refiner.relearn import NetLearning
from stages.refiner.tcn import Tcn
from stages.refiner.transformer import Transformer

NETS = {
    "lstm": partial(Lstm, hidden=16, layers=2),
    "gru": partial(Gru, hidden=16),
    "tcn": partial(Tcn, hidden=16, levels=2),
    "transformer": partial(Transformer, hidden=16, heads=2),
}
STEP = 3e-3  # large enough to see


@pytest.fixture(scope="module")
def market():
    return mixed(0, times=120, assets=4, snr=3.0)


def trained(market, name="lstm"):
    refiner = SequenceRefiner(
        {name: NETS[name]}, window=8, epochs=2, seeds=[0], tail=0.0, accelerator="cpu"
    )
    return refiner.fit(market.panel, market.y.iloc[: len(market.y) // 2])


def lesson(refiner, market, turned=True):
    """The later rows, half of them replayed; the new ones say the opposite."""
    y = market.y.iloc[len(market.y) // 2 :].copy()
    panel = market.panel.assign(**refiner.predict(market.panel))
    replayed = np.arange(len(y)) % 2 == 0
    if turned:
        y["side"] = np.where(replayed, y["side"], -y["side"]).astype("int8")
    return panel, y, replayed


def weights(refiner, name):
    return {key: value.clone() for key, value in refiner.nets_[name][0].state_dict().items()}


@pytest.mark.parametrize("name", NETS)
def test_only_the_last_block_and_the_head_move(market, name):
    refiner = trained(market, name)
    before = weights(refiner, name)
    refiner.relearn(*lesson(refiner, market), NetLearning(STEP, epochs=1))
    after = weights(refiner, name)
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    net = refiner.nets_[name][0]
    owned = {id(parameter) for parameter in late(net)}
    expected = {key for key, parameter in net.named_parameters() if id(parameter) in owned}
    assert moved == expected
    assert any(key.startswith("head") for key in moved)
    assert 0 < len(moved) < len(before)
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert not net.training


def test_the_same_seed_and_rows_give_the_same_weights(market):
    refiners = [trained(market) for _ in range(3)]
    for refiner, seed in zip(refiners, (1, 1, 2), strict=True):
        torch.manual_seed(int(torch.randint(1000, ())))  # whatever was drawn before
        refiner.relearn(*lesson(refiner, market), NetLearning(STEP), seed=seed)
    one, two, other = (refiner.state().parts for refiner in refiners)
    assert one == two
    assert one != other


def drift_from(refiner, panel, y, replayed, how):
    """How far the logits of the replayed rows move."""
    rows = y.index[replayed]
    was = panel.loc[rows, ["refiner.lstm.z_sell", "refiner.lstm.z_buy"]].to_numpy()
    refiner.relearn(panel, y, replayed, how)
    return float(np.nanmean((refiner.predict(panel).loc[rows].to_numpy() - was) ** 2))


def test_distillation_and_anchor_hold_on_to_what_was_said(market):
    moved = {}
    for name, how in {
        "plain": NetLearning(STEP, epochs=4, batch=64, distil=0.0),
        "distilled": NetLearning(STEP, epochs=4, batch=64, distil=5.0),
        "anchored": NetLearning(STEP, epochs=4, batch=64, distil=0.0, anchor=1e4),
    }.items():
        refiner = trained(market)
        moved[name] = drift_from(refiner, *lesson(refiner, market), how)
    assert moved["distilled"] < 0.8 * moved["plain"]
    assert moved["anchored"] < 0.8 * moved["plain"]


def test_the_new_rows_are_learnt(market):
    refiner = trained(market)
    panel, y, _ = lesson(refiner, market, turned=False)
    y = y.assign(side=np.int8(1))
    before = refiner.predict(panel).loc[y.index, "refiner.lstm.z_buy"].mean()
    refiner.relearn(panel, y, np.zeros(len(y), dtype=bool), NetLearning(STEP, epochs=10))
    assert refiner.predict(panel).loc[y.index, "refiner.lstm.z_buy"].mean() > before + 0.1


def test_rows_that_cannot_be_read_teach_nothing(market):
    refiner = trained(market)
    panel, y, replayed = lesson(refiner, market)
    before = refiner.state().parts
    early = y.iloc[:0]
    refiner.relearn(panel, early, replayed[:0], NetLearning())
    assert refiner.state().parts == before


def test_a_copy_may_learn_while_the_other_stays(market):
    refiner = trained(market)
    before = refiner.state().parts
    copy.copy(refiner).relearn(*lesson(refiner, market), NetLearning(STEP))
    assert refiner.state().parts == before


def test_a_net_that_leaves_the_numbers_is_refused(market):
    refiner = trained(market)
    with pytest.raises(DataError, match="diverged") as error:
        refiner.relearn(*lesson(refiner, market), NetLearning(learning_rate=1e37))
    assert error.value.code == "SV-X201"


@pytest.mark.parametrize(
    "setting", [{"learning_rate": 0.0}, {"epochs": 0}, {"distil": -1.0}, {"fisher_rows": 0}]
)
def test_a_setting_out_of_range_is_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        NetLearning(**setting)
