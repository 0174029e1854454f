"""Which assets to hold: the best by rank, with a zone in which holdings are left alone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from stages.portfolio.clusters import cluster_of


@dataclass(frozen=True)
class Buffer:
    """Buy the best, hold until they are clearly no longer among them.

    Parameters
    ----------
    buy : int >= 1, default=10
        Ranks that are bought.
    hold : int >= buy, default=15
        Rank to which a holding is kept.
    per_cluster : int >= 1, default=2
        Holdings of one correlation cluster at most.
    """

    buy: int = 10
    hold: int = 15
    per_cluster: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.buy <= self.hold or self.per_cluster < 1:
            raise ValueError(f"need 1 <= buy <= hold and per_cluster >= 1, got {self}")


@dataclass(frozen=True)
class Choice:
    """What is to be held, before caps.

    Attributes
    ----------
    reasons : mapping of str to str
        Assets to hold, the most wanted first, and why.
    leave : mapping of str to str
        Holdings to sell, and why.
    claims : mapping of str to float, optional
        What each asset of `reasons` asks for; without them the sizes decide by volatility.
    full : bool, default=True
        Whether claims are spread over the whole exposure, or are weights that are only ever cut.
    unconfirmed : frozenset of str
        Holdings that stay and are not added to.
    """

    reasons: Mapping[str, str] = field(default_factory=dict)
    leave: Mapping[str, str] = field(default_factory=dict)
    claims: Mapping[str, float] | None = None
    full: bool = True
    unconfirmed: frozenset[str] = frozenset()


def ranked(assets: Sequence[str], scores: np.ndarray, among: np.ndarray) -> dict[str, int]:
    """Rank from 1 of the assets that take part, the highest score first, ties by place.

    Parameters
    ----------
    assets : sequence of A str
    scores : float64 ndarray of shape (A,)
    among : bool ndarray of shape (A,)
        Who takes part; their scores are finite.
    """
    order = np.argsort(-np.where(among, scores, -np.inf), kind="stable")[: int(among.sum())]
    return {assets[place]: rank for rank, place in enumerate(order.tolist(), start=1)}


def chosen(
    ranks: Mapping[str, int],
    held: Sequence[str],
    clusters: Mapping[str, int],
    buffer: Buffer,
    room: int,
    blocked: str = "",
) -> Choice:
    """Keep holdings down to the hold limit, then buy from the top.

    Parameters
    ----------
    ranks : mapping of str to int
        In order of rank. A holding that is not in it has been judged and may not stay.
    held : sequence of str
        Holdings that were judged and are not sold for risk.
    clusters : mapping of str to int
    buffer : Buffer
    room : int
        Positions that may be held, besides those that cannot be traded.
    blocked : str
        Why nothing may be bought; empty if it may.
    """
    keep: dict[str, int] = {}
    leave: dict[str, str] = {}
    full: Counter[int | str] = Counter()
    for asset in sorted(held, key=lambda name: ranks.get(name, len(ranks) + 1)):
        rank, cluster = ranks.get(asset), cluster_of(asset, clusters)
        if rank is None:
            leave[asset] = "no longer confirmed"
        elif rank > buffer.hold:
            leave[asset] = f"rank {rank} is beyond {buffer.hold}"
        elif full[cluster] >= buffer.per_cluster:
            leave[asset] = f"rank {rank}: {buffer.per_cluster} better ones in cluster {cluster}"
        elif len(keep) >= room:
            leave[asset] = f"rank {rank}: {room} better positions are held"
        else:
            keep[asset] = rank
            full[cluster] += 1
    for asset, rank in () if blocked else ranks.items():
        cluster = cluster_of(asset, clusters)
        if rank > buffer.buy or len(keep) >= room:
            break
        if asset not in keep and asset not in leave and full[cluster] < buffer.per_cluster:
            keep[asset] = rank
            full[cluster] += 1
    reasons = {asset: f"rank {rank}" for asset, rank in sorted(keep.items(), key=lambda i: i[1])}
    return Choice(reasons, leave)
