from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import expit

from stages.refiner.gru import Gru
from stages.refiner.lstm import Lstm
from stages.refiner.refiner import SequenceRefiner
from tests.stages.refiner.conftest import panel_and_labels


def numbers(net, *names):
    return [dict(net.named_parameters())[name].detach().double().numpy() for name in names]


def test_a_gru_is_the_recurrence_of_its_paper():
    """Cho et al. (2014), eq. 5-8; the reset acts on the state's own product, as cuDNN has it."""
    torch.manual_seed(0)
    net = Gru(n_features=3, n_static=2, window=5, hidden=4, dropout=0.0).eval()
    x_BLF, static_BS = torch.randn(2, 5, 3), torch.randn(2, 2)
    W_in, b_in = numbers(net, "project.weight", "project.bias")
    W, U, b, c = numbers(
        net, "cell.weight_ih_l0", "cell.weight_hh_l0", "cell.bias_ih_l0", "cell.bias_hh_l0"
    )
    h = np.zeros((2, 4))
    for x in x_BLF.double().numpy().transpose(1, 0, 2):
        seen = np.split((x @ W_in.T + b_in) @ W.T + b, 3, axis=1)
        kept = np.split(h @ U.T + c, 3, axis=1)
        reset, update = (expit(seen[i] + kept[i]) for i in (0, 1))
        h = (1 - update) * np.tanh(seen[2] + reset * kept[2]) + update * h
    weight, bias = numbers(net, "head.weight", "head.bias")
    expected = np.concatenate([h, static_BS.double().numpy()], axis=1) @ weight.T + bias
    with torch.no_grad():
        np.testing.assert_allclose(net(x_BLF, static_BS), expected, atol=1e-6)


def test_the_cell_of_a_gru_has_three_quarters_of_the_weights_of_an_lstms():
    counts = [
        sum(weights.numel() for weights in kind(5, 2, 8, hidden=16).cell.parameters())
        for kind in (Gru, Lstm)
    ]
    assert counts[0] * 4 == counts[1] * 3


@pytest.mark.parametrize("network", [Gru, Lstm])
def test_both_read_the_whole_window_in_its_order(network):
    torch.manual_seed(0)
    net = network(n_features=2, n_static=0, window=6, hidden=16, dropout=0.0).eval()
    x_BLF = torch.randn(1, 6, 2, requires_grad=True)
    said = net(x_BLF, torch.zeros(1, 0))
    said.sum().backward()
    assert (x_BLF.grad.abs().sum(dim=(0, 2)) > 0).all()
    assert not torch.allclose(net(x_BLF.flip(1), torch.zeros(1, 0)), said)


def test_a_gru_finds_what_lies_in_the_past_bars():
    panel, y = panel_and_labels()
    build = partial(Gru, hidden=16, dropout=0.0)
    quick = {"window": 6, "epochs": 8, "batch": 64, "learning_rate": 0.02, "accelerator": "cpu"}
    new, later = panel_and_labels(seed=1)
    said = SequenceRefiner({"gru": build}, **quick).fit(panel, y).predict(new).dropna()
    side = later.loc[said.index, "side"]
    best = (new["filter.a.z_buy"] - new["filter.a.z_sell"]).loc[said.index].corr(side)
    assert (said["refiner.gru.z_buy"] - said["refiner.gru.z_sell"]).corr(side) > best + 0.1
