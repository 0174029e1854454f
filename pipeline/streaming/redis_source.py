"""Bars from a Redis stream: a consumer group, whose messages come until they are acknowledged."""

import time
from collections.abc import Iterable, Mapping, Sequence
from threading import Event
from typing import Any

from pipeline.streaming.messages import Message
from pipeline.streaming.redis_link import Link, Stopped

Entry = tuple[bytes, Mapping[bytes, bytes] | None]


class RedisSource:
    """A stream of Redis, read through a consumer group.

    Parameters
    ----------
    url : str
    key : str
        Of the stream. The fields of an entry are the columns of a bar, as text.
    group, consumer : str
        The group is made if absent. A worker that starts again under its own name goes on at
        once with what it had not acknowledged.
    start : str, default='0'
        Where a new group begins: ``0`` with all there is, ``$`` with what comes.
    block : float, default=1.0
        Seconds that a read waits for a message.
    retry : float, default=1.0
        Seconds after which a message that was left comes again.
    claim : float, default=60.0
        Seconds after which what another worker has not acknowledged is taken over.
    recheck : int, default=10000
        Messages before the last one delivered that are looked at on starting: those that are
        neither pending nor stored come again, such as of a consumer that was deleted.
    wait : float, default=60.0
        Seconds for which Redis may be away; see `Link`.
    """

    redelivers = True

    def __init__(  # noqa: PLR0913 - the settings of a consumer group
        self,
        url: str,
        key: str,
        group: str = "sieve",
        consumer: str = "worker",
        start: str = "0",
        block: float = 1.0,
        retry: float = 1.0,
        claim: float = 60.0,
        recheck: int = 10_000,
        wait: float = 60.0,
    ) -> None:
        for name, value in (("block", block), ("retry", retry), ("claim", claim), ("wait", wait)):
            if isinstance(value, bool) or not value > 0:
                raise ValueError(f"need {name} > 0, got {value}")
        self.key, self.group, self.consumer, self.start = key, group, consumer, str(start)
        self.block, self.retry, self.claim, self.recheck = block, retry, claim, recheck
        self.stop = Event()
        self.link = Link(url, wait, self.stop)
        self.name = f"redis {key} {group}"
        self.held: set[str] = set()  # read, and neither acknowledged nor left
        self._looked = float("-inf")
        self._before: str | None = "-"  # from where on what an earlier life left is to be read
        self._make()

    def read(self, n: int) -> list[Message]:
        """Messages that come again first, then new ones; none after `block` seconds without."""
        try:
            found = self._again(n)
            if len(found) < n and not self.stop.is_set():
                found += self._new(n - len(found), wait=not found)
        except Stopped:
            return []
        self.held.update(message.id for message in found)
        return found

    def ack(self, ids: Sequence[str]) -> None:
        """XACK, after all that came of them is on the disk."""
        if ids:
            try:
                self._call(lambda r: r.xack(self.key, self.group, *ids))
            except Stopped:  # they come again, and add nothing
                return
            self.held.difference_update(ids)

    def leave(self, ids: Sequence[str]) -> None:
        """They stay pending, and come again after `retry` seconds."""
        self.held.difference_update(ids)

    def passed(self) -> list[Message]:
        """The last messages that were delivered and are not pending."""
        groups = self._call(lambda r: r.xinfo_groups(self.key))
        mine = next((g for g in groups if g["name"] == self.group.encode()), None)
        last = mine["last-delivered-id"] if mine else b"0-0"
        if last == b"0-0" or not self.recheck:
            return []
        entries = self._call(lambda r: r.xrevrange(self.key, last, "-", self.recheck))
        if not entries:
            return []
        first = entries[-1][0]
        pending = {
            entry["message_id"]
            for entry in self._call(
                lambda r: r.xpending_range(self.key, self.group, first, last, len(entries))
            )
        }
        return [Message(_text(id), _fields(f)) for id, f in reversed(entries) if id not in pending]

    def gauges(self) -> dict[str, int]:
        """`lag`, entries not yet delivered, where Redis knows it; `pending`."""
        try:
            groups = self._call(lambda r: r.xinfo_groups(self.key))
        except Stopped:
            return {}
        for group in groups:
            if group["name"] == self.group.encode():
                lag = group.get("lag")
                known = {} if lag is None else {"lag": int(lag)}
                return known | {"pending": int(group["pending"])}
        return {}

    def _again(self, n: int) -> list[Message]:
        """What was left by this worker, in an earlier life too, or by one that is gone."""
        if self._before is not None:  # first, for it is older than what is new
            mine = dict(list(self._idle(n, 0.0, self.consumer, self._before).items())[:n])
            self._before = f"({max(mine, key=_order)}" if mine else None
            if mine:
                return self._claimed(mine, n)
        now = time.monotonic()
        if now - self._looked < min(self.retry, self.claim):
            return []
        self._looked = now
        own = self._idle(n, self.retry, self.consumer)
        others = self._idle(n, self.claim, None)
        return self._claimed({**others, **own}, n)

    def _idle(
        self, n: int, seconds: float, consumer: str | None, first: str = "-"
    ) -> dict[str, tuple[int, float]]:
        """Ids of pending messages, with deliveries and the idle seconds to claim them by."""
        found = self._call(
            lambda r: r.xpending_range(
                *(self.key, self.group, first, "+", n + len(self.held)),
                consumername=consumer,
                idle=int(1e3 * seconds) or None,
            )
        )
        ids = {_text(e["message_id"]): (e["times_delivered"] + 1, seconds) for e in found}
        return {id: told for id, told in ids.items() if id not in self.held}

    def _claimed(self, ids: Mapping[str, tuple[int, float]], n: int) -> list[Message]:
        out: list[Message] = []
        wanted = sorted(ids, key=_order)[:n]
        for seconds in sorted({ids[id][1] for id in wanted}):
            part = [id for id in wanted if ids[id][1] == seconds]
            entries = self._call(
                lambda r, p=part, s=seconds: r.xclaim(
                    self.key, self.group, self.consumer, int(1e3 * s), p
                )
            )
            got = {_text(id): fields for id, fields in entries if id is not None}
            for id in part:
                if got.get(id) is not None:
                    out.append(Message(id, _fields(got[id]), ids[id][0]))
                elif not self._call(lambda r, i=id: r.xrange(self.key, i, i)):
                    out.append(Message(id, None, ids[id][0]))  # trimmed, or deleted
        return sorted(out, key=lambda message: _order(message.id))

    def _new(self, n: int, *, wait: bool) -> list[Message]:
        block = int(1e3 * self.block) if wait else None
        answer = self._call(
            lambda r: r.xreadgroup(self.group, self.consumer, {self.key: ">"}, n, block)
        )
        return [Message(_text(id), _fields(f)) for id, f in _entries(answer)]

    def _call(self, call: Any) -> Any:
        """Ask; a group that is gone with the data of a server is made again."""
        try:
            return self.link.ask(call)
        except self.link.refused as error:
            if not str(error).startswith("NOGROUP") and "no such key" not in str(error):
                raise
        self._make()
        return self.link.ask(call)

    def _make(self) -> None:
        """Make the group, unless it is there: BUSYGROUP says that it is."""
        try:
            self.link.ask(
                lambda r: r.xgroup_create(self.key, self.group, self.start, mkstream=True)
            )
        except self.link.refused as error:
            if not str(error).startswith("BUSYGROUP"):
                raise


def _entries(answer: Any) -> Iterable[Entry]:
    """Entries of one stream, as either protocol of Redis gives them."""
    if not answer:
        return []
    [found] = answer.values() if isinstance(answer, dict) else (part[1] for part in answer)
    if found and isinstance(found[0], list):  # RESP3 nests them once more
        found = found[0]
    return [entry for entry in found if entry is not None and entry[0] is not None]


def _text(id: bytes | str) -> str:
    return id.decode("ascii") if isinstance(id, bytes) else id


def _order(id: str) -> tuple[int, int]:
    first, _, second = id.partition("-")
    return int(first), int(second or 0)


def _fields(fields: Mapping[bytes, bytes] | None) -> dict[str, object] | None:
    """Fields as text; bytes that are none stay bytes, and are refused later."""
    if fields is None:
        return None
    return {_decoded(name): _value(value) for name, value in fields.items()}


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _value(value: bytes) -> object:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value
