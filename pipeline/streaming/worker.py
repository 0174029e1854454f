"""One worker: read, check, predict, commit, tell, acknowledge, in this order and no other."""

import logging
import time as clocks
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import pandas as pd

from pipeline.store.rows import micros
from pipeline.store.signal_store import utc_now
from pipeline.store.step import Aside, Moved, Step
from pipeline.store.stream import StreamStore
from pipeline.store.stream_health import bucket
from pipeline.streaming.arrivals import Arrived, Pace, Sorted, alike, stored
from pipeline.streaming.history import History
from pipeline.streaming.messages import Message, Source
from pipeline.streaming.model import Says, answer
from pipeline.streaming.publish import Output
from pipeline.streaming.redis_link import Stopped
from pipeline.streaming.sift import Sift
from stages.signal import Signal

log = logging.getLogger(__name__)


class Worker:
    """Takes the messages of a source to the store, and tells what came of them.

    Parameters
    ----------
    source : Source
    sift : Sift
    says : Says
    kept : StreamStore
    output : Output or None
    pace : Pace
    clock : callable, optional
        Gives the time, UTC.
    past : DataFrame, optional
        Bars from before the stream, as a panel.
    again : bool, default=False
        Take up what was set aside: bars of any age, those that are stored too.
    """

    def __init__(  # noqa: PLR0913 - what a worker is made of
        self,
        source: Source,
        sift: Sift,
        says: Says,
        kept: StreamStore,
        output: Output | None = None,
        pace: Pace | None = None,
        clock: Callable[[], pd.Timestamp] = utc_now,
        past: pd.DataFrame | None = None,
        again: bool = False,
    ) -> None:
        self.source, self.sift, self.says, self.kept = source, sift, says, kept
        self.output, self.clock, self.past, self.again = output, clock, past, again
        pace = pace or Pace()
        self.pace = replace(pace, late=None) if again else pace
        self.waiting: dict[int, list[Arrived]] = {}  # by time, until the others have come
        self.latencies: Counter[str] = Counter()
        self.asked = float("-inf")  # when the source was asked how far behind it is
        self.last = 0  # id of the last bar that is known of
        self.reload()

    def run(self) -> None:
        """Until the source ends, or is told to stop; what was begun is brought to its end."""
        self.publish()
        offered = list(self.source.passed())
        known = self.kept.recorded([message.id for message in offered])
        self.take([message for message in offered if message.id not in known])
        while not self.source.stop.is_set():
            messages = self.source.read(self.pace.batch)
            if messages is None:
                break
            self.take(messages)
        self.take([], all_due=True)
        self.asked = float("-inf")
        self._count_latencies()

    def take(self, messages: Sequence[Message], *, all_due: bool = False) -> None:
        """Bring messages to their end: what is due is stored, told, and then acknowledged."""
        found = self._sort(messages)
        due = self._due(all_due)
        self.source.leave(found.left)
        if due or found.done:
            self._stored_by_one(found, due)
            self.publish()
            self.source.ack([*found.done, *(bar.message.id for bar in due)])
        elif not messages:
            self._count_latencies()

    def _stored_by_one(self, found: Sorted, due: Sequence[Arrived]) -> None:
        while True:
            try:
                return self._store(found, due)
            except Moved:  # another worker was faster: look at what it stored, and do it again
                log.warning("another worker stores bars of %s", self.kept.source)
                self.reload()

    def publish(self) -> None:
        """Tell what is stored and was not told yet."""
        while self.output is not None:
            signals = self.kept.waiting(self.pace.batch)
            if not signals:
                return
            try:
                self.output.tell(signals)
            except Stopped:  # it stays in the outbox
                return
            self.kept.told(signals[-1].id, len(signals))

    def reload(self) -> None:
        """Begin anew with the bars that the store, and before them the past, hold."""
        self.history = History(self.says.depth, self.pace.us("late"))
        self.last = 0
        if self.past is not None:
            self._remember(self.past)
        since = (self.kept.newest() or 0) - self.pace.us("late")
        for row in self.kept.bars(self.says.depth, since):
            names, values = list(row["values"]), list(row["values"].values())
            self.history.put(row["asset"], row["time"], self.history.row(names, values))
            self.last = max(self.last, row["id"])

    def _sort(self, messages: Sequence[Message]) -> Sorted:
        out, since = Sorted(), clocks.monotonic()
        alive = []
        for message in messages:
            if message.fields is None:
                out.done.append(message.id)
                reason = "it was taken from the stream before it was read to its end"
                out.aside.append(Aside(message.id, "lost", reason, "", message.deliveries))
            else:
                alive.append(message)
        bars: dict[int, Arrived] = {}
        for found in self.sift.sift([m.fields for m in alive if m.fields is not None]):
            for place, why in found.refused.items():
                self._refuse(alive[place], why, out)
            for place in found.others:
                self._drop(alive[place], "others", out)
            rows = zip(found.places, found.assets, found.times.tolist(), found.values, strict=True)
            for place, asset, time, values in rows:
                bars[place] = Arrived(alive[place], asset, time, found.names, values, since)
        newest = max([self.history.newest, *self.waiting])
        for place in sorted(bars):  # late is what came after a newer one
            if self._accept(bars[place], newest, out):
                newest = max(newest, bars[place].time)
        return out

    def _refuse(self, message: Message, why: str, out: Sorted) -> None:
        if self.source.redelivers and message.deliveries < self.pace.deliveries:
            out.left.append(message.id)
            return
        self._aside(message, "poison", why, out)

    def _aside(self, message: Message, kind: str, why: str, out: Sorted) -> None:
        out.done.append(message.id)
        out.aside.append(Aside(message.id, kind, why, message.content, message.deliveries))

    def _drop(self, message: Message, kind: str, out: Sorted) -> None:
        out.done.append(message.id)
        out.counts[kind] += 1

    def _accept(self, bar: Arrived, newest: int, out: Sorted) -> bool:
        """Put a bar among those that wait, unless it is a copy, too old or of the future."""
        now = micros(self.clock())
        if bar.time > now + self.pace.us("future"):
            ahead = (bar.time - now) / 1e6
            self._aside(bar.message, "future", f"it is {ahead:,.1f} s ahead of the clock", out)
            return False
        row = self.history.row(bar.names, bar.values.tolist())
        if self.history.known(bar.asset, bar.time, row) and not self.again:
            self._drop(bar.message, "duplicates", out)
            return False
        behind = newest - bar.time
        if behind > self.pace.us("late"):
            told = self.kept.told_of(bar.asset, bar.time)
            if any(alike(bar, values) for values in told):
                self._drop(bar.message, "duplicates", out)
                return False
            why = f"{behind / 1e6:,.0f} s behind the newest bar, allowed {self.pace.late}"
            self._aside(bar.message, "late", why, out)
            return False
        self.waiting.setdefault(bar.time, []).append(bar)
        return True

    def _due(self, all_due: bool) -> list[Arrived]:
        """Bars up to the last time that is complete, or has waited long enough; by time, asset."""
        times = sorted(self.waiting)
        ready = [time for time in times if all_due or not self.says.across or self._ready(time)]
        due = [time for time in times if ready and time <= ready[-1]]
        return [bar for t in due for bar in sorted(self.waiting.pop(t), key=lambda bar: bar.asset)]

    def _ready(self, time: int) -> bool:
        """Whether those that came the time before are all there, or the time is over."""
        held, hold = self.waiting[time], self.pace.us("hold")
        if max([self.history.newest, *self.waiting]) - time >= hold:
            return True
        if clocks.monotonic() - min(bar.since for bar in held) >= hold / 1e6:
            return True
        earlier = {t: {bar.asset for bar in bars} for t, bars in self.waiting.items() if t < time}
        for asset, line in self.history.lines.items():
            end = line.place(time)
            if end > 0:
                earlier.setdefault(int(line.times[end - 1]), set()).add(asset)
        return bool(earlier) and earlier[max(earlier)] <= {bar.asset for bar in held}

    def _store(self, found: Sorted, due: Sequence[Arrived]) -> None:
        counts, bars, asked = Counter(found.counts), [], defaultdict(set)
        aside, newest = list(found.aside), self.history.newest
        messages = {}
        for bar in due:
            row = self.history.row(bar.names, bar.values.tolist())
            fate, revision = self.history.put(bar.asset, bar.time, row)
            if fate == "copy" and not self.again:
                counts["duplicates"] += 1
                continue
            if fate != "copy":
                counts["stored" if fate == "new" else "corrected"] += 1
                counts["reordered"] += bar.time < newest
                bars.append((bar, revision, row))
            messages[bar.asset, bar.time] = bar
            for time, asset in self._touched(bar):
                asked[time].add(asset)
        signals = self._said(asked, messages, aside)
        counts["received"] = len(found.done) + len(due)
        counts += self.latencies
        names = list(self.history.names)
        step = Step(
            [stored(bar, revision, row, len(names)) for bar, revision, row in bars],
            names,
            signals,
            aside,
            counts,
            self._gauges(),
        )
        written = self.kept.write(step, self.last, self.says.rules(signals) if signals else None)
        self.last = written.last
        now = clocks.monotonic()
        self.latencies = Counter(bucket(now - bar.since) for bar, _, _ in bars)

    def _touched(self, bar: Arrived) -> Iterable[tuple[int, str]]:
        """Rows that a bar has a part in: its own, and those after it, of others too if compared."""
        among = self.history.lines if self.says.across else [bar.asset]
        return self.history.since(bar.time, among)

    def _said(
        self,
        asked: dict[int, set[str]],
        messages: dict[tuple[str, int], Arrived],
        aside: list[Aside],
    ) -> list[Signal]:
        out: list[Signal] = []
        for time in sorted(asked):
            found = answer(self.says, self.history, time, asked[time])
            out += found.signals
            for asset, why in found.failed.items():
                bar = messages.get((asset, time))
                if bar is None:  # a row after it, whose own message was done with long ago
                    log.error("%s at %s could not be restated: %s", asset, time, why)
                    continue
                own = bar.message
                aside.append(Aside(own.id, "failed", why, own.content, own.deliveries))
        return out

    def _remember(self, past: pd.DataFrame) -> None:
        table = past.assign(session=past["session"].to_numpy().astype("M8[us]").astype("int64"))
        names = list(table.columns)
        assets = past.index.get_level_values("asset")
        times = pd.DatetimeIndex(past.index.get_level_values("time")).as_unit("us").asi8
        values = table.to_numpy("float64")
        for asset, time, row in zip(assets, times.tolist(), values, strict=True):
            self.history.put(str(asset), time, self.history.row(names, row.tolist()))

    def _gauges(self) -> dict[str, int]:
        now = clocks.monotonic()
        if now - self.asked < 1.0:
            return {}
        self.asked = now
        return dict(self.source.gauges())

    def _count_latencies(self) -> None:
        gauges = self._gauges()
        if self.latencies or gauges:
            self.kept.count(self.latencies, gauges)
            self.latencies = Counter()
