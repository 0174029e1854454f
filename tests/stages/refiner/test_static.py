"""A refiner that leaves the filter alone, in a whole pipeline."""

from functools import partial

import numpy as np
import pytest

from pipeline.signal_pipeline import SignalPipeline
from stages.refiner.gru import Gru
from stages.refiner.refiner import SequenceRefiner
from tests.conftest import tiny_pipeline


@pytest.fixture(scope="module")
def alone(tiny_market):
    refiner = SequenceRefiner(
        {"gru": partial(Gru, hidden=8, dropout=0.0)},
        window=8,
        static=False,
        epochs=1,
        average=0.9,
        batch=128,
        tail=0,
        accelerator="cpu",
    )
    return tiny_pipeline(refiner=refiner).fit(tiny_market.panel, tiny_market.y)


def test_its_signals_are_explained_in_full(alone, tiny_market):
    rows = tiny_market.y.index[[350, 700, 1100]]
    why = alone.explain(tiny_market.panel, rows)
    assert np.abs(why.gap).max() < 1e-4
    assert np.abs(why.contributions.to_numpy()).max() > 0.05
    assert why.raw_gap.abs().max() < 1e-3


def test_it_is_stored_and_read_back_to_the_bit(alone, tiny_market, tmp_path):
    again = SignalPipeline.load(alone.save(tmp_path))
    assert again.digest == alone.digest
    said = [p.predict(tiny_market.panel, newest=True)["margin"] for p in (alone, again)]
    assert (said[0] == said[1]).all()
