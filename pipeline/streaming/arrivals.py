"""Messages on their way: how they are taken, and what is known of them until they are stored."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pipeline.store.step import Aside, Bar
from pipeline.streaming.messages import Message


@dataclass(frozen=True)
class Pace:
    """How a worker takes what comes.

    Parameters
    ----------
    batch : int >= 1, default=500
        Messages read at once, and stored in one transaction.
    late : str or None, default='1D'
        How far behind the newest bar of all a bar may be; what is older is set aside. None takes
        bars of any age.
    future : str, default='5s'
        How far ahead of the clock a bar may be.
    hold : str, default='2s'
        How long the bars of a time wait for those of the assets that came the time before, where
        the model compares assets.
    deliveries : int >= 1, default=5
        After so many a message that cannot be read, or breaks a rule, is set aside.
    """

    batch: int = 500
    late: str | None = "1D"
    future: str = "5s"
    hold: str = "2s"
    deliveries: int = 5

    def __post_init__(self) -> None:
        if min(self.batch, self.deliveries) < 1:
            raise ValueError(f"need batch, deliveries >= 1, got {self}")
        for name in ("late", "future", "hold"):
            value = getattr(self, name)
            if value is not None and pd.Timedelta(value) < pd.Timedelta(0):
                raise ValueError(f"need {name} of 0 or more, got {value}")

    def us(self, name: str) -> int:
        """A span in microseconds; the longest there is for None."""
        value = getattr(self, name)
        return 2**62 if value is None else pd.Timedelta(value).value // 1000


@dataclass
class Arrived:
    """A bar that came, and is not stored yet."""

    message: Message
    asset: str
    time: int
    names: Sequence[str]
    values: np.ndarray
    since: float


@dataclass
class Sorted:
    """What became of messages before any of their bars is looked at."""

    done: list[str] = field(default_factory=list)  # to be acknowledged once the step is stored
    left: list[str] = field(default_factory=list)
    aside: list[Aside] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def stored(bar: Arrived, revision: int, row: np.ndarray, columns: int) -> Bar:
    """A bar as the store keeps it; what later bars of the same step brought is missing in it."""
    values = [None if v != v else v for v in row.tolist()] + [None] * (columns - len(row))
    return Bar(bar.asset, bar.time, tuple(values), bar.message.id, revision)


def alike(bar: Arrived, values: Mapping[str, float | None]) -> bool:
    """Whether a bar says what was stored of one of its asset and time."""
    own = dict(zip(bar.names, bar.values.tolist(), strict=True))
    names = {*own, *values}
    return all(_or_none(own.get(n)) == _or_none(values.get(n)) for n in names)


def _or_none(value: float | None) -> float | None:
    return None if value is None or value != value else value
