"""One file says who serves: a reader sees one change or the next; a kill leaves either."""

import multiprocessing
import os
import random
import signal
import threading
import time

import pytest

from pipeline.pointer import HISTORY, POINTER, Pointer, history, move, promoted, read_pointer
from stages.base import ArtifactError

# as many as a table of figures asks for: SIEVE_KILLS=200 SIEVE_MOVES=1000
KILLS = int(os.environ.get("SIEVE_KILLS", "4"))
MOVES = int(os.environ.get("SIEVE_MOVES", "150"))
DIGESTS = [f"{i:064x}" for i in range(1, 9)]


def step(root, i):
    """Change number `i`: every role follows from it, so that a mixture of two shows."""
    champion, challenger, previous = (DIGESTS[(i + k) % 8] for k in range(3))
    return move(root, Pointer(champion, challenger, previous, action="promote"), f"step {i}")


def belongs_together(pointer):
    i = pointer.number - 1
    roles = tuple(DIGESTS[(i + k) % 8] for k in range(3))
    found = (pointer.champion, pointer.challenger, pointer.previous)
    return found == roles and pointer.why == f"step {i}"


def test_the_pointer_comes_back_as_it_was_written(tmp_path):
    assert read_pointer(tmp_path) is None
    assert history(tmp_path) == []
    written = move(tmp_path, Pointer(DIGESTS[0], DIGESTS[1]), "because")
    assert read_pointer(tmp_path) == written
    assert (written.number, written.why, written.time[:2]) == (1, "because", "20")


def test_the_first_line_alone_is_a_pointer(tmp_path):
    (tmp_path / POINTER).write_text(f"{DIGESTS[0]}\n")
    assert read_pointer(tmp_path) == Pointer(DIGESTS[0])


@pytest.mark.parametrize("rest", ["{", "[]", '{"number":0}', '{"challenger":"x"}', '{"who":1}'])
def test_a_changed_pointer_is_refused(tmp_path, rest):
    (tmp_path / POINTER).write_text(f"{DIGESTS[0]}\n{rest}\n")
    with pytest.raises(ArtifactError) as error:
        read_pointer(tmp_path)
    assert error.value.code == "SV-F29"
    (tmp_path / POINTER).write_text(f"{DIGESTS[0]}\n")  # the cure
    assert read_pointer(tmp_path).champion == DIGESTS[0]


def test_promotion_keeps_the_old_champion_as_the_previous_one():
    first = promoted(None, "a")
    assert (first.champion, first.challenger, first.previous) == ("a", None, None)
    second = promoted(Pointer("a", challenger="b"), "b")
    assert (second.champion, second.challenger, second.previous) == ("b", None, "a")
    other = promoted(Pointer("a", challenger="b", previous="z"), "c")
    assert (other.champion, other.challenger, other.previous) == ("c", "b", "a")
    same = promoted(Pointer("a", previous="z"), "a")
    assert (same.champion, same.previous) == ("a", "z")


def test_changes_under_fifty_readers_are_never_mixed(tmp_path):
    step(tmp_path, 0)
    over, bad, reads = threading.Event(), [], []

    def reader():
        last, count = 0, 0
        while not over.is_set():
            pointer = read_pointer(tmp_path)
            if pointer is None or not belongs_together(pointer) or pointer.number < last:
                bad.append(pointer)
            last, count = pointer.number, count + 1
            time.sleep(0.02)  # fifty threads in one process: let the writer on
        reads.append(count)

    readers = [threading.Thread(target=reader) for _ in range(50)]
    for thread in readers:
        thread.start()
    for i in range(1, MOVES):
        step(tmp_path, i)
    over.set()
    for thread in readers:
        thread.join()
    assert not bad
    assert len(reads) == 50
    assert min(reads) > 0
    changes = history(tmp_path)
    assert [change.number for change in changes] == list(range(1, MOVES + 1))
    assert all(belongs_together(change) for change in changes)


def move_until_killed(root, ours):
    ours.send("ready")
    now = read_pointer(root)
    i = 0 if now is None else now.number
    while True:
        step(root, i)
        ours.send(i + 1)
        i += 1


def test_a_killed_writer_leaves_a_whole_pointer_and_a_history_without_gaps(tmp_path):
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    seed = random.randrange(10**6)
    delays, acknowledged = random.Random(seed), 0
    for _ in range(KILLS):
        ours, theirs = processes.Pipe(duplex=False)
        process = processes.Process(target=move_until_killed, args=(tmp_path, theirs))
        process.start()
        theirs.close()
        ours.recv()
        time.sleep(delays.uniform(0.0, 0.1))  # not to wait for anything: where the kill falls
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        while True:
            try:
                acknowledged = ours.recv()
            except EOFError:
                break
        pointer = read_pointer(tmp_path)
        if pointer is None:  # killed before the first move
            assert acknowledged == 0, seed
            continue
        assert belongs_together(pointer), seed
        assert pointer.number in (acknowledged, acknowledged + 1), seed
        acknowledged = pointer.number
    changes = history(tmp_path)
    assert [change.number for change in changes] == list(range(1, acknowledged + 1)), seed
    step(tmp_path, acknowledged)
    assert [change.number for change in history(tmp_path)] == list(range(1, acknowledged + 2)), seed


def test_a_line_that_a_crash_cut_short_is_written_again(tmp_path):
    for i in range(3):
        step(tmp_path, i)
    path = tmp_path / HISTORY  # the present change goes there first when the next is made
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[-1].replace(b'"number":2', b'"number":3')[:-20])
    assert [change.number for change in history(tmp_path)] == [1, 2, 3]
    step(tmp_path, 3)
    changes = history(tmp_path)
    assert [change.number for change in changes] == [1, 2, 3, 4]
    assert all(belongs_together(change) for change in changes)
