"""Markets whose truth is known, to tell skill from luck."""

from collections.abc import Callable

from stages.markets.drift import (
    drift_covariate,
    drift_dead_feature,
    drift_flip,
    drift_recurring,
    drift_rotation,
    drift_volatility,
)
from stages.markets.market import Market
from stages.markets.noise import noise_garch, noise_permuted, noise_shifted, permuted, shifted
from stages.markets.planted import (
    gated,
    heavy_tailed,
    leader_lag,
    mixed,
    noise_iid,
    sequence,
    tabular,
)

PLANTED: dict[str, Callable[..., Market]] = {
    f.__name__: f for f in (tabular, sequence, gated, mixed, heavy_tailed, leader_lag)
}
NOISE: dict[str, Callable[..., Market]] = {
    f.__name__: f for f in (noise_iid, noise_garch, noise_shifted, noise_permuted)
}
DRIFT: dict[str, Callable[..., Market]] = {
    f.__name__: f
    for f in (
        drift_flip,
        drift_rotation,
        drift_recurring,
        drift_covariate,
        drift_volatility,
        drift_dead_feature,
    )
}
MARKETS = PLANTED | NOISE | DRIFT

__all__ = [
    "DRIFT",
    "MARKETS",
    "NOISE",
    "PLANTED",
    "Market",
    "drift_covariate",
    "drift_dead_feature",
    "drift_flip",
    "drift_recurring",
    "drift_rotation",
    "drift_volatility",
    "gated",
    "heavy_tailed",
    "leader_lag",
    "mixed",
    "noise_garch",
    "noise_iid",
    "noise_permuted",
    "noise_shifted",
    "permuted",
    "sequence",
    "shifted",
    "tabular",
]
