"""A small panel as the first two stages would leave it, with a planted regime."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

MEMBERS = ("filter.boosted", "filter.forest", "refiner.lstm")


def make_scored(
    seed: int = 0, times: int = 250, assets: int = 6, silent: float = 0.3, skill: float = 1.0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Noisy logits of a hidden score, whose sign the regime flips in three bars of ten."""
    rng = np.random.default_rng(seed)
    bars = pd.date_range("2020-01-01 21:00", periods=times, tz="UTC").as_unit("us")
    index = pd.MultiIndex.from_product(
        [pd.Index([f"A{a}" for a in range(assets)], dtype="str"), bars], names=["asset", "time"]
    )
    score = rng.normal(size=len(index))
    regime = np.tile(np.where(rng.random(times) < 0.3, -1, 1), assets)
    drawn = skill * score * regime + rng.normal(size=len(index))
    side = np.where(drawn > 0.5, 1, np.where(drawn < -0.5, -1, 0)).astype("int8")
    columns = {}
    for member in MEMBERS:
        for name, sign in (("z_sell", -1), ("z_buy", 1)):
            noise = 0.3 * rng.normal(size=len(index))
            columns[f"{member}.{name}"] = 0.6 * sign * score + noise
    panel = pd.DataFrame(columns, index)
    stopped = rng.random(len(index)) < silent
    panel.loc[stopped, ["refiner.lstm.z_sell", "refiner.lstm.z_buy"]] = np.nan
    panel["filter.gate"] = np.where(stopped, 0.0, 1.0)
    panel["context.regime"] = regime.astype("float32")
    panel["context.liquidity"] = rng.normal(size=len(index)).astype("float32")
    panel["ready"] = True
    y = pd.DataFrame(
        {
            "side": side,
            "end": index.get_level_values("time") + pd.Timedelta(days=5),
            "weight": rng.uniform(0.5, 1, len(index)),
            "ret": 0.01 * drawn,
        },
        index,
    )
    return panel, y


@pytest.fixture(scope="session")
def make() -> Callable[..., tuple[pd.DataFrame, pd.DataFrame]]:
    return make_scored


@pytest.fixture(scope="session")
def scored() -> tuple[pd.DataFrame, pd.DataFrame]:
    return make_scored()
