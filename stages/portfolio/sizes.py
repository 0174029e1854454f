"""From claims to weights under caps, and from weights to whole lots, exactly."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from functools import partial

import numpy as np

from stages.features.volatility import ewma_volatility
from stages.panel import warms_up
from stages.portfolio.book import exact
from stages.portfolio.prepared import Column, settled

DIGITS = 60
SPENT = 1e-12  # share of the value: what is left is rounding


@dataclass(frozen=True)
class Sizes:
    """How much of each asset.

    Parameters
    ----------
    volatility : callable, default=ewma_volatility
        As a feature, fraction per bar; claims are in inverse proportion to it. `equal` makes all
        claims the same.
    tilt : float, default=0
        Claims are also multiplied by ``exp(tilt * z)``, z the score of the asset against the
        others that were judged, in their standard deviations and within 3 of them.
    positions : int >= 1, default=20
        At most so many.
    each, cluster, exposure : float in (0, 1], default=0.15, 0.30, 0.95
        Largest share of the total value in one asset, in one correlation cluster, and in all.
    band : float in [0, 1), default=0.02
        A holding is resized when its weight is off by more than this share of the total value, or
        breaks a cap; smaller changes cost more than they mend.
    lot : int >= 1, default=1
        Shares that trade together.
    lots : mapping of str to int, optional
        The same for single assets.
    """

    volatility: Callable[..., np.ndarray] = field(default=partial(ewma_volatility, decay=0.94))
    tilt: float = 0.0
    positions: int = 20
    each: float = 0.15
    cluster: float = 0.30
    exposure: float = 0.95
    band: float = 0.02
    lot: int = 1
    lots: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settled(self.volatility)
        for name in ("each", "cluster", "exposure"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in (0, 1], got {getattr(self, name)}")
        if self.positions < 1 or not 0 <= self.band < 1 or not np.isfinite(self.tilt):
            raise ValueError(f"need positions >= 1, band in [0, 1) and a finite tilt, got {self}")
        for asset, lot in {"lot": self.lot, **self.lots}.items():
            if isinstance(lot, bool) or int(lot) != lot or lot < 1:
                raise ValueError(f"{asset}: need a lot of whole shares, got {lot}")

    def columns(self) -> dict[str, Column]:
        """What must be prepared."""
        return {"volatility": self.volatility}

    def lot_of(self, asset: str) -> int:
        """Shares of `asset` that trade together."""
        return self.lots.get(asset, self.lot)

    def claims(self, volatility: np.ndarray, z: np.ndarray) -> np.ndarray:
        """What each of n assets asks for: shape (n,), above 0.

        Parameters
        ----------
        volatility : float64 ndarray of shape (n,), >= 0
        z : float64 ndarray of shape (n,)
            Scores against the others; read with a `tilt` only.
        """
        still = volatility <= 0  # what does not move asks for no more than the calmest that does
        calmest = volatility[~still].min() if (~still).any() else 1.0
        plain = 1 / np.where(still, calmest, volatility)
        return plain * np.exp(self.tilt * np.clip(z, -3, 3)) if self.tilt else plain

    def weights(
        self, claims: np.ndarray, clusters: Sequence[int | str], full: bool = True
    ) -> np.ndarray:
        """Weights under the caps; see `capped`."""
        return capped(claims, clusters, (self.each, self.cluster, self.exposure), full)


@warms_up(lambda **_: 0)
def equal(close: np.ndarray) -> np.ndarray:
    """1 for every bar: sizes by it are equal."""
    return np.ones(len(close))


def capped(
    claims: np.ndarray,
    clusters: Sequence[int | str],
    caps: tuple[float, float, float],
    full: bool = True,
) -> np.ndarray:
    """Weights in proportion to claims, as far as the caps allow.

    Parameters
    ----------
    claims : float64 ndarray of shape (n,), >= 0
    clusters : sequence of n labels
    caps : tuple of 3 float in (0, 1]
        Of one asset, of one cluster, of all.
    full : bool, default=True
        Whether claims are spread over the whole of the last cap, what one cap cuts going to the
        others; otherwise claims are weights themselves and are only ever cut.

    Returns
    -------
    float64 ndarray of shape (n,)
        Within the caps to rounding: `lots` makes them exact.
    """
    each, group, total = caps
    if not (np.isfinite(claims).all() and (claims >= 0).all()):
        raise ValueError(f"claims must be finite and not below 0, got {claims}")
    names = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    member = np.array([names[name] for name in clusters], dtype=int)
    if not full:
        cut = _cut(np.minimum(claims, each), member, group)[0]
        return cut * (total / cut.sum()) if cut.sum() > total else cut
    weights, free = np.zeros(len(claims)), claims > 0
    # each round fills the cap of one asset or one cluster at least, or spends all
    while free.any() and total - weights.sum() > SPENT:
        share = np.where(free, claims, 0.0)
        weights += share / share.sum() * (total - weights.sum())
        over = weights >= each
        weights = np.minimum(weights, each)
        weights, cut = _cut(weights, member, group)
        free &= ~over & ~cut
    return weights


def lots(
    weights: Mapping[str, float],
    prices: Mapping[str, float],
    clusters: Mapping[str, int | str],
    sizes: Sizes,
    total: Decimal,
    fixed: Mapping[str, int] | None = None,
    held: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Whole lots for weights, in decimal arithmetic, never above a cap.

    Parameters
    ----------
    weights : mapping of str to float
        Assets to size, the most wanted first: what comes late finds the caps spent.
    prices : mapping of str to float > 0
        A share, of `weights` and `fixed`.
    clusters : mapping of str to label
        Of the same assets.
    sizes : Sizes
    total : Decimal
        Value of the book.
    fixed : mapping of str to int, optional
        Shares that cannot be traded now; they use up their share of the caps.
    held : mapping of str to int, optional
        Shares held: kept as they are while the weight is within `Sizes.band`, and no cap broken.

    Returns
    -------
    dict of str to int
        Shares of each asset of `weights`; 0 where not one lot fits.
    """
    with localcontext() as context:
        context.prec = DIGITS  # sums of products come out exact
        group, left = exact(sizes.cluster) * total, exact(sizes.exposure) * total
        most, band = exact(sizes.each) * total, exact(sizes.band) * total
        rooms: dict[int | str, Decimal] = {}
        for asset, shares in (fixed or {}).items():
            worth = exact(prices[asset]) * shares
            rooms[clusters[asset]] = rooms.get(clusters[asset], group) - worth
            left -= worth
        out = {}
        for asset, weight in weights.items():
            price, lot = exact(prices[asset]), sizes.lot_of(asset)
            room = rooms.get(clusters[asset], group)
            limit = max(min(most, room, left), Decimal(0))
            shares, wanted = (held or {}).get(asset, 0), exact(weight) * total
            if not shares or abs(price * shares - wanted) > band or price * shares > limit:
                shares = int(min(wanted, limit) // (price * lot)) * lot
            out[asset] = shares
            rooms[clusters[asset]] = room - price * shares
            left -= price * shares
    return out


def _cut(weights: np.ndarray, member: np.ndarray, group: float) -> tuple[np.ndarray, np.ndarray]:
    """Clusters above their cap scaled down to it, and which assets are in one that is full."""
    sums = np.bincount(member, weights)
    full = (sums >= group) & (sums > 0)
    shrink = np.where(full, group / np.where(full, sums, 1.0), 1.0)
    return weights * shrink[member], full[member]
