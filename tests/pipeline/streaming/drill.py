"""The drill: duplicates, disorder, poison, workers that are killed; and what must be left of it."""

import os
import random
import signal
from collections import Counter
from threading import Event

from pipeline.store.signal_store import SignalStore
from pipeline.store.stream import StreamStore
from pipeline.streaming.arrivals import Pace
from pipeline.streaming.publish import RedisOutput
from pipeline.streaming.redis_link import Link
from pipeline.streaming.redis_source import RedisSource
from pipeline.streaming.sift import Sift
from pipeline.streaming.worker import Worker
from tests.pipeline.streaming.samples import CLOCK, Momentum, fields

KEY, OUT = "bars", "signals"
POINTS = ("before commit", "after commit", "after telling", "after acknowledging")


def mixture(n, seed, assets=40, duplicates=0.05, reordered=0.05, poison=0.001):
    """`n` messages: good ones in order but for some, some of them twice, some no bars at all."""
    draw = random.Random(seed)
    bad = round(n * poison)
    twice = round(n * duplicates)
    good = n - bad - twice
    rows = [fields(f"A{i % assets:03d}", i // assets, 50 + draw.random()) for i in range(good)]
    order = list(range(good))
    for at in draw.sample(range(good), round(n * reordered)):  # up to two minutes later
        order[at] += draw.uniform(1, 2 * assets)
    sent = [(order[i], rows[i]) for i in range(good)]
    sent += [(draw.uniform(order[i], good), rows[i]) for i in draw.sample(range(good), twice)]
    kinds = ({"close": "?"}, {"time": "never"}, {"close": b"\xff"})
    sent += [
        (draw.uniform(0, good), fields("A000", number) | kinds[number % 3]) for number in range(bad)
    ]
    sent.sort(key=lambda pair: pair[0])
    return [row for _, row in sent], {(row["asset"], row["time"]) for row in rows}, bad


def produce(url, rows, chunk=2000):
    link = Link(url, 10, Event())
    for start in range(0, len(rows), chunk):
        pipe = link.client.pipeline(transaction=False)
        for row in rows[start : start + chunk]:
            pipe.xadd(KEY, row)
        pipe.execute()


class Ending(RedisSource):
    """Ends when all that was sent is done with."""

    def read(self, n):
        found = super().read(n)
        if not found and not self.held:
            known = self.gauges()
            if known["lag"] == known["pending"] == 0:
                return None
        return found


class Doomed(Worker):
    """Is killed at one point of its n-th step."""

    point, steps = "", 0

    def _at(self, point):
        if point == self.point:
            self.steps -= 1
            if self.steps <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def _stored_by_one(self, found, due):
        self._at("before commit")
        super()._stored_by_one(found, due)
        self._at("after commit")

    def publish(self):
        super().publish()
        self._at("after telling")

    def take(self, messages, *, all_due=False):
        super().take(messages, all_due=all_due)
        self._at("after acknowledging")


class TooEarly(Doomed):
    """The mutant: acknowledges before it stores."""

    def _stored_by_one(self, found, due):
        self.source.ack([*found.done, *(bar.message.id for bar in due)])
        super()._stored_by_one(found, due)


def work(url, store_url, point="", steps=0, kind=Doomed, batch=500, ready=None):
    """One worker, until nothing is left to do; the process that runs it may be killed."""
    source = Ending(url, KEY, retry=0.05, claim=0.05, block=0.05, recheck=0, wait=60)
    with SignalStore(store_url) as store:
        kept = StreamStore(store, source.name, "c", "drill")
        output = RedisOutput(url, OUT, store, 60, source.stop)
        pace = Pace(batch=batch, late="1h")
        clock = lambda: CLOCK + (CLOCK - CLOCK.normalize()) * 400  # noqa: E731
        made = kind(source, Sift(), Momentum(), kept, output, pace, clock)
        made.point, made.steps = point, steps
        if ready is not None:
            ready.send(os.getpid())
        made.run()


def check(url, store_url, good, bad):
    """Each good message stored once and told once, each bad one set aside once, none pending."""
    with SignalStore(store_url) as store:
        stored = Counter()
        told, last = 0, 0
        while found := store.follow(last, 5000):
            stored.update((s.asset, s.time.isoformat()) for s in found if s.revision == 0)
            last = found[-1].id
        assert store.verify().signals == last
        kept = StreamStore(store, f"redis {KEY} sieve", "c")
        aside = kept.aside(n=10**6)
        waiting = kept.waiting(1)
    doubled = {key: n for key, n in stored.items() if n > 1}
    assert not doubled, f"stored twice: {list(doubled)[:3]}"
    assert set(stored) == good, f"{len(good - set(stored))} lost, {len(set(stored) - good)} made up"
    assert Counter(one.kind for one in aside) == ({"poison": bad} if bad else {})
    assert not waiting
    link = Link(url, 10, Event())
    told = link.client.xlen(OUT)
    assert told == last, f"{told} told of {last}"
    [group] = link.client.xinfo_groups(KEY)
    assert (group["pending"], group["lag"]) == (0, 0)
    return last
