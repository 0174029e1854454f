"""How much skill is left when there can be none: a figure beside the verdict, never an alarm."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from stages.audit.components import World
from stages.audit.probe import Altered
from stages.panel import asset_codes

BLOCK = 20  # bars whose rows count as one witness


@dataclass(frozen=True)
class Null:
    """Out-of-fold direction of a probe: correlation of p_buy - p_sell with the side that paid.

    Attributes
    ----------
    name : str
        ``as labelled``, ``labels shifted`` or ``rows shuffled``.
    direction : float
        In [-1, 1].
    error : float
        Standard error, from blocks of bars.
    rows : int
    """

    name: str
    direction: float
    error: float
    rows: int


def label_nulls(probe: Any, world: World, seed: int) -> tuple[Null, ...]:
    """Direction of a probe on its labels, on labels of another time, and on shuffled labels.

    Shifted labels keep their order in time and lose their link to the features; shuffled ones
    lose both. Skill on either comes from the way of judging, not from the market. A leak can pass
    both, and a slow market can fail them, so they prove nothing.

    Parameters
    ----------
    probe : SignalPipeline
        Of probe size, unfitted.
    world : World
    seed : int
    """
    rng = np.random.default_rng(seed)
    changes: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
        "as labelled": lambda y: y,
        "labels shifted": shifted,
        "rows shuffled": lambda y: _taken(y, rng.permutation(len(y))),
    }
    return tuple(_null(name, probe, world, change) for name, change in changes.items())


def shifted(y: pd.DataFrame) -> pd.DataFrame:
    """`y` with what came of the row half a history earlier, around the end, asset by asset."""
    codes = asset_codes(y)
    take = np.arange(len(y))
    for code in range(codes.max(initial=-1) + 1):
        rows = np.flatnonzero(codes == code)
        take[rows] = np.roll(rows, len(rows) // 2)
    return _taken(y, take)


def _taken(y: pd.DataFrame, take: np.ndarray) -> pd.DataFrame:
    """Sides and returns of other rows; when a label ends, and what it weighs, stays."""
    moved = [name for name in ("side", "ret") if name in y]
    return y.assign(**{name: y[name].to_numpy()[take] for name in moved})


def _null(name: str, probe: Any, world: World, change: Any) -> Null:
    told: list[pd.DataFrame] = []

    def tell(y: pd.DataFrame) -> pd.DataFrame:
        told.append(change(y))
        return told[-1]

    if world.y is not None:
        fitted = replace(probe).fit(world.bars, tell(world.y[world.y.index.isin(world.bars.index)]))
    else:
        fitted = replace(probe, labels=Altered(probe.labels, tell)).fit(world.bars)
    rows = fitted.unseen_
    side = told[-1]["side"].reindex(rows.index).to_numpy(dtype="float64")
    lean = (rows["p_buy"] - rows["p_sell"]).to_numpy(dtype="float64")
    return Null(name, *_direction(lean, side, rows.index.get_level_values("time")), len(rows))


def _direction(lean: np.ndarray, side: np.ndarray, time: pd.Index) -> tuple[float, float]:
    """Correlation, and its standard error from blocks of bars."""
    lean, side = lean - lean.mean(), side - side.mean()
    scale = np.sqrt((lean**2).sum() * (side**2).sum())
    if not scale > 0:
        return 0.0, 0.0
    block = time.factorize(sort=True)[0] // BLOCK
    parts = np.bincount(block, lean * side) / scale
    count = len(parts)
    error = np.sqrt(count / max(count - 1, 1) * ((parts - parts.mean()) ** 2).sum())
    return float(parts.sum()), float(error)
