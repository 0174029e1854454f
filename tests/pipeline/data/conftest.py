import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def real():
    """Path of a file of real market data, where it is at hand."""
    folder = Path(os.environ.get("SIEVE_DATA", ROOT.parent / "shared" / "data"))

    def find(name: str) -> str:
        if not (folder / name).is_file():
            pytest.skip(f"no {name} at $SIEVE_DATA or ../shared/data")
        return str(folder / name)

    return find


def make_daily(assets: str = "AB", days: int = 60, seed: int = 0) -> pd.DataFrame:
    """Sound date-only bars on the sessions of 2020 in New York."""
    dates = pd.bdate_range("2020-02-18", periods=days)
    dates = dates[~dates.isin(pd.to_datetime(["2020-04-10", "2020-05-25"]))]
    rng = np.random.default_rng(seed)
    tables = []
    for asset in assets:
        close = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, len(dates))))
        open_ = close * np.exp(rng.normal(0, 0.005, len(dates)))
        table = pd.DataFrame({"asset": asset, "time": dates, "open": open_, "close": close})
        table["high"] = table[["open", "close"]].max(axis=1) * 1.01
        table["low"] = table[["open", "close"]].min(axis=1) * 0.99
        tables.append(table.assign(volume=rng.integers(1000, 9000, len(dates)).astype(float)))
    return pd.concat(tables, ignore_index=True)


@pytest.fixture
def daily() -> pd.DataFrame:
    return make_daily()


@pytest.fixture
def minutes() -> pd.DataFrame:
    """One morning of aware minute bars of one asset."""
    time = pd.date_range("2020-03-02 14:30", periods=90, freq="min", tz="UTC")
    close = 50 + np.sin(np.arange(90))
    return pd.DataFrame({"asset": "A", "time": time, "close": close})
