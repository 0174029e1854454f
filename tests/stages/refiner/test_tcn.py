from functools import partial

import numpy as np
import pytest
import torch

from stages.markets.planted import sequence
from stages.refiner.refiner import SequenceRefiner
from stages.refiner.tcn import Tcn


@pytest.mark.parametrize("change", [{"hidden": 0}, {"levels": 0}, {"dropout": 1.0}])
def test_a_net_that_cannot_be_built_is_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        Tcn(n_features=3, n_static=2, window=4, **change)


@pytest.mark.parametrize(("levels", "reach"), [(1, 3), (2, 7), (3, 15)])
def test_it_sees_its_receptive_field_and_no_further(levels, reach):
    torch.manual_seed(0)
    net = Tcn(n_features=2, n_static=0, window=20, hidden=8, levels=levels, dropout=0.0).eval()
    x_BLF = torch.randn(1, 20, 2, requires_grad=True)
    net(x_BLF, torch.zeros(1, 0)).sum().backward()
    touched = x_BLF.grad.abs().sum(dim=(0, 2)) > 0
    assert touched.nonzero().min() == 20 - reach


def test_it_finds_the_planted_product_of_lags():
    market = sequence(seed=0, times=1500, assets=10)
    time = market.y.index.get_level_values("time")
    late = time >= time.unique().sort_values()[1200]
    refiner = SequenceRefiner(
        {"tcn": partial(Tcn, hidden=16, levels=2, dropout=0.0)},
        window=8,
        epochs=8,
        batch=256,
        learning_rate=5e-3,
        seeds=[0],
        accelerator="cpu",
    ).fit(market.panel, market.y[~late])
    said = refiner.predict(market.panel).loc[market.y.index[late]]
    truth = np.log(market.posterior["p_buy"] / market.posterior["p_sell"]).loc[said.index]
    margin = said["refiner.tcn.z_buy"] - said["refiner.tcn.z_sell"]
    assert margin.corr(truth) > 0.7
