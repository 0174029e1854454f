"""What holds for each class of assets: its band of risk, its floor, its caps, its strategies."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np

from stages.base import ConfigError

DEFAULT = "default"


@dataclass(frozen=True)
class AssetClass:
    """The rules of one class of assets.

    Parameters
    ----------
    band : pair of float, 0 <= low < high <= 100
        Range of its risk scores, points.
    floor : float in [0, 1], default=0
        Least measure (certainty, or confidence) of a signal that is emitted.
    per_hour, per_hour_asset : int >= 1 or None
        Most signals of the class, and of one asset, in any hour; None for no limit.
    strategies : mapping of str to float >= 0, optional
        Strategies that may speak of the class, with their raw weights; empty: all may.
    """

    band: tuple[float, float]
    floor: float = 0.0
    per_hour: int | None = None
    per_hour_asset: int | None = None
    strategies: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "band", tuple(map(float, self.band)))
        if len(self.band) != 2 or not 0 <= self.band[0] < self.band[1] <= 100:
            raise ValueError(f"need 0 <= low < high <= 100, got band {self.band}")
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor must lie in [0, 1], got {self.floor}")
        for name in ("per_hour", "per_hour_asset"):
            cap = getattr(self, name)
            if cap is not None and not cap >= 1:
                raise ValueError(f"{name} must be at least 1, or null for no limit, got {cap}")
        raw = list(self.strategies.values())
        if raw and not (min(raw) >= 0 and max(raw) > 0):
            raise ValueError(f"need weights >= 0 and one above 0, got {dict(self.strategies)}")

    def shares(self, active: Iterable[str]) -> dict[str, float]:
        """Weights of the `active` strategies that the class allows, which sum to 1.

        Raises
        ------
        ValueError
            If none of them has a weight above 0.
        """
        names = [name for name in active if not self.strategies or name in self.strategies]
        raw = {name: self.strategies.get(name, 1.0) for name in names}
        total = sum(raw.values())
        if not total > 0:
            raise ValueError(f"no active strategy has a weight among {dict(self.strategies)}")
        return {name: weight / total for name, weight in raw.items()}


NAMES = tuple(f.name for f in fields(AssetClass))


@dataclass(frozen=True)
class AssetClasses:
    """The rules of every class.

    Parameters
    ----------
    classes : mapping of str to mapping
        Asset class, as the instruments table names it, to the fields of `AssetClass`;
        ``default`` covers the classes that are not named.
    """

    classes: Mapping[str, Mapping[str, Any]]

    def __post_init__(self) -> None:
        for name, row in self.classes.items():
            unknown = sorted(set(row) - set(NAMES))
            if unknown:
                raise ValueError(f"{name} has no field {unknown[0]!r}; fields: {', '.join(NAMES)}")
            AssetClass(**row)

    @cached_property
    def _rules(self) -> dict[str, AssetClass]:
        return {name: AssetClass(**row) for name, row in self.classes.items()}

    def of(self, name: str) -> AssetClass:
        """The rules of a class.

        Raises
        ------
        ConfigError
            SV-X642 if neither it nor ``default`` is there.
        """
        found = self._rules.get(name) or self._rules.get(DEFAULT)
        if found is None:
            raise ConfigError(
                f"no rules for the asset class {name!r}",
                code="SV-X642",
                where=f"assets.classes names {', '.join(sorted(self.classes))}",
                why="its band of risk and its caps would be made up",
                cure=f"add assets.classes.{name}, or assets.classes.default",
            )
        return found

    def bands(self, classes: Iterable[str]) -> np.ndarray:
        """Low and high end of the band of each of N classes, points: shape (N, 2)."""
        return np.array([self.of(name).band for name in classes]).reshape(-1, 2)
