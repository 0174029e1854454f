"""What a stream hands over: messages with an id, and a source that is told which are done."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Protocol

from stages.base import SieveError


class StreamError(SieveError):
    """A source or a place of signals does not answer, or is not what it should be."""

    exit_code = 6


@dataclass(frozen=True)
class Message:
    """One message of a source.

    Attributes
    ----------
    id : str
        The source's own.
    fields : mapping of str to object, or None
        Columns of a bar; None for a message that the source has lost.
    deliveries : int
        How often it has come, this time included.
    """

    id: str
    fields: Mapping[str, object] | None
    deliveries: int = 1

    @property
    def content(self) -> str:
        """Its fields as JSON, what is no text as Python writes it."""
        return "" if self.fields is None else json.dumps(dict(self.fields), default=repr)


class Source(Protocol):
    """Where messages come from.

    Attributes
    ----------
    name : str
        Under which the store keeps what belongs to it.
    redelivers : bool
        Whether a message that is left comes again.
    stop : Event
        Set when no more is to be read: waiting ends then.
    """

    name: str
    redelivers: bool
    stop: Event

    def read(self, n: int) -> Sequence[Message] | None:
        """Up to `n` messages; none if none came for a moment, None at the end of all."""
        ...

    def ack(self, ids: Sequence[str]) -> None:
        """These messages are done with."""
        ...

    def leave(self, ids: Sequence[str]) -> None:
        """These messages are not done with: they are to come again."""
        ...

    def passed(self) -> Sequence[Message]:
        """Messages that were delivered before and may have been forgotten, to be looked at."""
        ...

    def gauges(self) -> Mapping[str, int]:
        """`lag` and `pending`, where they are known."""
        ...
