"""What a trade costs; a backtest without costs has to be asked for by that name."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from stages.base import ConfigError

FREE = "none"
Costs = float | np.ndarray | Mapping[str, float] | Literal["none"]


def round_trips(costs: Costs, assets: Sequence[str]) -> np.ndarray:
    """Cost of buying and selling each of A assets, fraction of the value: shape (A,).

    Parameters
    ----------
    costs : float, ndarray of shape (A,), mapping of str to float, or ``"none"``
        One for all, one an asset, or by asset with ``default`` for those not named. ``"none"``
        trades for nothing.
    assets : sequence of A str

    Raises
    ------
    ConfigError
        SV-F28 for costs of 0 that were not asked for as ``"none"``; SV-X101 for an asset without
        a cost; SV-F33 for a number that is no cost.
    """
    if isinstance(costs, str):
        if costs != FREE:
            raise ConfigError(
                f"costs={costs!r} is neither a number nor 'none'",
                code="SV-F33",
                cure="a fraction such as 0.001 for a round trip of 10 bps, or 'none'",
            )
        return np.zeros(len(assets))
    if isinstance(costs, Mapping):
        rates = np.array([_of(asset, costs) for asset in assets], dtype="float64")
    else:
        rates = np.broadcast_to(np.asarray(costs, dtype="float64"), len(assets)).copy()
    if not ((rates >= 0) & (rates < 1)).all():
        raise ConfigError(
            f"a round trip costs {rates[~((rates >= 0) & (rates < 1))][0]}",
            code="SV-F33",
            why="costs are fractions of the value: 10 bps are 0.001",
            cure="give a number from 0 to 1",
        )
    if len(rates) and not rates.any():
        raise ConfigError(
            "every trade is free",
            code="SV-F28",
            why="what costs nothing always looks better than it is",
            cure="name the costs, or ask for costs='none': all figures then say 'before costs'",
        )
    return rates


def _of(asset: str, costs: Mapping[str, float]) -> float:
    found = costs.get(asset, costs.get("default"))
    if found is None:
        raise ConfigError(
            f"{asset} has no cost",
            code="SV-X101",
            where=f"there are costs for {sorted(costs)[:20]}",
            why="a missing cost is not a cost of 0",
            cure=f"add one for {asset}, or for 'default'",
        )
    return found
