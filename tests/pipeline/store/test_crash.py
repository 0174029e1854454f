"""A writer is killed, or two write at once: nothing is lost, doubled or half there."""

import multiprocessing
import os
import random
import signal
import time

import pytest

from pipeline.store.signal_store import SignalStore
from tests.pipeline.store import samples

# as many as a table of figures asks for: SIEVE_KILLS=200
KILLS = int(os.environ.get("SIEVE_KILLS", "4"))


@pytest.fixture(scope="module")
def processes():
    """Processes that start fast, from one that has imported what they need and nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "alembic.command", samples.__name__])
    return context


def killed(processes, url, delay):
    """Numbers of the batches that were acknowledged to a writer before it was killed."""
    ours, theirs = processes.Pipe(duplex=False)
    process = processes.Process(target=samples.append_until_killed, args=(url, theirs))
    process.start()
    theirs.close()
    ours.recv()
    time.sleep(delay)  # not to wait for anything: where the kill falls
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    acknowledged = []
    while True:
        try:
            acknowledged.append(ours.recv())
        except EOFError:
            return acknowledged


def test_a_killed_writer_leaves_whole_batches_and_all_that_was_acknowledged(processes, url):
    seed = random.randrange(10**6)
    delays = random.Random(seed)
    known = set()
    for _ in range(KILLS):
        known.update(killed(processes, url, delays.uniform(0.0, 0.4)))
        with SignalStore(url) as store:
            stored = store.follow(n=10**6)
            assert store.verify().signals == len(stored)
        size = len(samples.batch(0))
        numbers = [(s.time - samples.START) // samples.MINUTE for s in stored]
        whole = list(range(len(stored) // size))
        assert numbers == [number for number in whole for _ in range(size)], seed
        assert known <= set(whole), seed
    with SignalStore(url) as store:  # told again, the last adds what was not there
        last = max(known, default=-1) + 1
        store.append(samples.batch(last), "c")
        for number in known:
            assert store.append(samples.batch(number), "c") == 0
        assert store.verify().signals == size * max(len(whole), last + 1)


def test_two_writers_at_once_lose_and_double_nothing(processes, url):
    together = processes.Barrier(2)  # they also make the store at once
    numbers = range(12)
    writers = [
        processes.Process(target=samples.append_own_and_shared, args=(url, name, numbers, together))
        for name in ("one", "two")
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(100)
    assert [writer.exitcode for writer in writers] == [0, 0]
    with SignalStore(url) as store:
        found = [(s.asset, s.time) for s in store.follow()]
        expected = {
            (signal.asset, signal.time)
            for name in ("one", "two", "shared")
            for number in numbers
            for signal in samples.batch(number, 2, name)
        }
        assert len(found) == len(expected) == 72
        assert set(found) == expected
        assert store.verify().signals == 72
        assert [e.kind for e in store.events(n=10**4)].count("upgraded") == 1


def test_a_connection_does_not_cross_a_fork(url):
    with SignalStore(url) as store:
        store.append(samples.batch(0), "c")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if store.append(samples.batch(1), "c") == 5 else 2
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert store.append(samples.batch(2), "c") == 5
        assert store.verify().signals == 15
