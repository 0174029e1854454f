import numpy as np
import pytest

from tests.stages.features.contract import clean_bars


@pytest.fixture(scope="session")
def bars():
    """Four assets, each listed 20 bars after the one before it."""
    return clean_bars(np.random.default_rng(0), stagger=20)


@pytest.fixture(scope="session")
def aligned():
    return clean_bars(np.random.default_rng(1))


@pytest.fixture(scope="session")
def one():
    """Arrays of one asset: high, low, close, volume."""
    table = clean_bars(np.random.default_rng(2), "X", 700)
    return {name: table[name].to_numpy(copy=True) for name in table}
