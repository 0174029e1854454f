"""Tell signals that are stored: to a stream of Redis, or as lines of a file, each once."""

from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any, Protocol

from pipeline.files import append_line, json_bytes, line_values
from pipeline.store.rows import Stored
from pipeline.store.signal_store import SignalStore
from pipeline.streaming.messages import StreamError
from pipeline.streaming.redis_link import Link

TAIL = 1 << 20  # bytes at the end of a file in which its last line is looked for


class Output(Protocol):
    """Where signals are told."""

    def tell(self, signals: Sequence[Stored]) -> None:
        """Tell signals in the order of their ids; one that was told before is not told again."""
        ...


def told(signal: Stored) -> dict[str, object]:
    """What is told of a signal: its record, and how the store knows it."""
    return {
        "id": signal.id,
        "revision": signal.revision,
        "strategy": signal.strategy,
        "digest": signal.digest,
        "record": signal.record,
    }


class RedisOutput:
    """A stream of Redis whose entries have the ids of the signals: Redis takes none twice.

    Parameters
    ----------
    url, key : str
    store : SignalStore
        Whose signals are told.
    wait : float
        See `Link`.
    stop : Event
    maxlen : int, optional
        About how many entries are kept; None keeps all.

    Raises
    ------
    StreamError
        SV-X721 if the stream holds signals of another store.
    """

    def __init__(  # noqa: PLR0913
        self,
        url: str,
        key: str,
        store: SignalStore,
        wait: float,
        stop: Event,
        maxlen: int | None = None,
    ) -> None:
        self.key, self.maxlen, self.link = key, maxlen, Link(url, wait, stop)
        newest: Any = self.link.ask(lambda r: r.xrevrange(key, count=1))
        if newest:
            id, fields = newest[0]
            number = int(id.split(b"-")[0])
            digest = fields.get(b"digest", b"").decode()
            if number > store.last() or store.get(number).digest != digest:
                raise self._foreign(number)

    def tell(self, signals: Sequence[Stored]) -> None:
        """Add an entry for each, with its id."""

        def add(client: Any) -> list[object]:
            pipe = client.pipeline(transaction=False)
            for signal in signals:
                values = told(signal) | {"record": json_bytes(signal.record)}
                pipe.xadd(self.key, values, id=f"{signal.id}-0", maxlen=self.maxlen)
            return list(pipe.execute(raise_on_error=False))

        for answer in self.link.ask(lambda r: _raised(add(r), self.link)):
            if isinstance(answer, Exception) and "equal or smaller" not in str(answer):
                raise answer

    def _foreign(self, number: int) -> StreamError:
        return StreamError(
            f"the stream {self.key} holds signals of another store, the last with id {number}",
            code="SV-X721",
            where=self.link.place,
            why="ids of signals are those of its entries, so that none is told twice",
            cure="name another stream for the signals of this store",
        )


def _raised(answers: list[object], link: Link) -> list[object]:
    """Answers of a pipeline; a lost connection among them is raised, to be tried again."""
    for answer in answers:
        if isinstance(answer, Exception) and not isinstance(answer, link.refused):
            raise answer
    return answers


class FileOutput:
    """Lines of JSON, in the order of ids; the last line says from where to go on.

    Parameters
    ----------
    path : Path or str
        ``.jsonl``, made if absent.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.last = self._last()

    def tell(self, signals: Sequence[Stored]) -> None:
        """Append a line for each, and wait until they are on the disk."""
        fresh = [signal for signal in signals if signal.id > self.last]
        if fresh:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            append_line(self.path, b"\n".join(json_bytes(told(signal)) for signal in fresh))
            self.last = fresh[-1].id

    def _last(self) -> int:
        if not self.path.exists():
            return 0
        with self.path.open("rb") as file:
            file.seek(max(0, self.path.stat().st_size - TAIL))
            lines = file.read().split(b"\n")
        for line in reversed(lines):
            values = line_values(line)
            if values is not None and "id" in values:
                return int(values["id"])
        return 0
