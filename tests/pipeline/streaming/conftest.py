"""A store of either kind, and a worker on it."""

from pipeline.store.stream import StreamStore
from pipeline.streaming.arrivals import Pace
from pipeline.streaming.sift import Sift
from pipeline.streaming.worker import Worker
from tests.pipeline.store.conftest import postgres_url, sqlite_url, store, url  # noqa: F401
from tests.pipeline.streaming.samples import CLOCK, Momentum


def worker(store, source, says=None, output=None, outbox=False, **more):  # noqa: F811
    """A worker whose clock stands a day after the first bar."""
    kept = StreamStore(store, source.name, "c", "s", outbox=outbox)
    more = {"clock": lambda: CLOCK, "pace": Pace(late="10min")} | more
    return Worker(source, Sift(), says or Momentum(), kept, output, **more)


def run(store, source, says=None, **more):  # noqa: F811
    """Run to the end of a source, and close the books."""
    made = worker(store, source, says, **more)
    made.run()
    return made
