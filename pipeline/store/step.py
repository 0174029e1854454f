"""What some messages of a stream came to, as it is handed to the store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stages.signal import Signal


class Moved(Exception):  # noqa: N818 - no fault: who meets it reads on and does it again
    """Another worker has stored bars of the same source meanwhile."""


@dataclass(frozen=True)
class Bar:
    """A bar as a stream brought it.

    Attributes
    ----------
    asset : str
    time : int
        When it was known, microseconds since 1970, UTC.
    values : tuple of float or None
        In the order of the names that go with it; None is missing.
    message : str
        Id of the message that brought it.
    revision : int
        0 for the first of its asset and time, then 1 more for each correction.
    """

    asset: str
    time: int
    values: tuple[float | None, ...]
    message: str
    revision: int = 0


@dataclass(frozen=True)
class Aside:
    """A message that was set aside.

    Attributes
    ----------
    message : str
        Its id.
    kind : {'poison', 'late', 'future', 'failed', 'lost'}
    reason : str
    content : str
        JSON of its fields, empty for one that was lost.
    deliveries : int
        How often it had come.
    id : int
        In the store; 0 until then.
    """

    message: str
    kind: str
    reason: str
    content: str = ""
    deliveries: int = 1
    id: int = 0


@dataclass(frozen=True)
class Step:
    """What some messages came to: stored whole or not at all.

    Attributes
    ----------
    bars : sequence of Bar
    names : sequence of str
        Of their values.
    signals : sequence of Signal
    aside : sequence of Aside
    counts, gauges : mapping of str to int
        What is added to counts, and what takes the place of them.
    """

    bars: Sequence[Bar] = ()
    names: Sequence[str] = ()
    signals: Sequence[Signal] = ()
    aside: Sequence[Aside] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    gauges: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """What a step added: id of the last bar of the source, signals, and revisions among them."""

    last: int
    signals: int
    revisions: int
