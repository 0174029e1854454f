"""The planted rules once more, written from their description: what the markets are held to."""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pandas as pd

from stages.markets import NOISE
from stages.signal import ODDS

PLAYERS = [*(f"feature.x{k}" for k in range(5)), "context.regime"]


def tilt(name: str, snr: float, times: int, row: dict[str, np.ndarray]) -> np.ndarray:
    """Expected move given the inputs of a row: x0 ... x4, late, soon, c, t, leads."""
    turned = row["x2"] * np.sign(row["x3"])
    first = np.sqrt(0.35) * row["x0"]
    now = first - np.sqrt(0.25) * row["x1"] + np.sqrt(0.4) * turned
    was = np.where(row["t"] >= 5, row["late"] * row["soon"], 0.0)
    share = row["t"] / times
    angle = np.pi / 2 * np.clip((share - 0.25) / 0.5, 0, 1)
    other = np.sqrt(0.25) * row["x0"] + np.sqrt(0.35) * row["x1"]
    other = other + np.sqrt(0.4) * row["x4"] * np.sign(row["x3"])
    signal = {
        "sequence": was,
        "gated": row["c"] * now,
        "mixed": row["c"] * (np.sqrt(0.6) * now + np.sqrt(0.4) * was),
        "leader_lag": np.where(row["leads"], 0.0, row["x0"]),
        "drift_flip": np.where(share < 0.5, now, -now),
        "drift_recurring": np.where((share < 1 / 3) | (share >= 2 / 3), now, -now),
        "drift_rotation": np.cos(angle) * now + np.sin(angle) * other,
        "drift_dead_feature": np.where(share < 0.5, now, now - first),
    }.get(name, now)
    return 0.0 * signal if name in NOISE else 0.8 * snr * signal


def worth(
    name: str, panel: pd.DataFrame, snr: float, times: int
) -> tuple[Callable[[Sequence[str]], np.ndarray], np.ndarray]:
    """What a coalition of columns knows of each row's tilt, and the tilt itself.

    Every factor of the tilt enters linearly, so references that take each at two points of its
    mean give the exact expectation.
    """
    own = _row(panel)
    flipped = 0.2 if name in ("gated", "mixed") else 0.0
    grid = np.array(list(product((-1.0, 1.0), repeat=8))).T
    other = dict(zip(("x0", "x1", "x2", "x3", "x4", "late", "soon", "c"), grid, strict=True))
    chance = np.where(other["c"] < 0, flipped, 1 - flipped) / 2**7
    column = {key: f"feature.{key}" for key in ("x0", "x1", "x2", "x3", "x4")}
    column |= {"late": "feature.x4", "soon": "feature.x4", "c": "context.regime"}

    def known(coalition: Sequence[str]) -> np.ndarray:
        inputs = {key: own[key][:, None] for key in ("t", "leads")}
        for key, name_of in column.items():
            inputs[key] = own[key][:, None] if name_of in coalition else other[key][None, :]
        return (tilt(name, snr, times, inputs) * chance).sum(axis=1)

    return known, tilt(name, snr, times, own)


def scores(odds: pd.DataFrame, side: pd.Series) -> np.ndarray:
    """How far each tenth of the rows, by the odds of each side, lies from them: sd, (3, 10)."""
    out = []
    for number, name in enumerate(ODDS):
        tenth = odds[name].rank(method="first").to_numpy() * 10 // (len(odds) + 1)
        hit = (side == number - 1).astype(float)
        gap = (hit - odds[name]).groupby(tenth).sum()
        out.append(gap / np.sqrt((odds[name] * (1 - odds[name])).groupby(tenth).sum()))
    return np.array(out)


def _row(panel: pd.DataFrame) -> dict[str, np.ndarray]:
    x = {f"x{k}": panel[f"feature.x{k}"].astype(float).fillna(0) for k in range(5)}
    by_asset = x["x4"].groupby(level="asset")
    x |= {"late": by_asset.shift(5).fillna(0), "soon": by_asset.shift(1).fillna(0)}
    x |= {"c": panel["context.regime"].astype(float), "t": by_asset.cumcount()}
    first = panel.index.get_level_values("asset")[0]
    return {key: column.to_numpy() for key, column in x.items()} | {
        "leads": np.asarray(panel.index.get_level_values("asset") == first)
    }
