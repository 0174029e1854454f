import multiprocessing
import os
import threading

import pytest

from pipeline.lock import lock
from stages.base import StoreError


def test_the_second_is_told_who_holds_the_root(tmp_path):
    with lock(tmp_path / "new"), pytest.raises(StoreError) as held, lock(tmp_path / "new"):
        pass
    assert f"process {os.getpid()}" in held.value.what
    assert (held.value.code, held.value.exit_code) == ("SV-F40", 5)


def test_the_root_is_free_after_the_block_even_if_it_fails(tmp_path):
    with pytest.raises(KeyError), lock(tmp_path):
        raise KeyError
    with lock(tmp_path):
        pass


def test_a_holder_that_has_not_signed_yet_is_another_process(tmp_path):
    with lock(tmp_path):
        (tmp_path / ".lock").write_text("")
        with pytest.raises(StoreError, match="another process"), lock(tmp_path):
            pass


def test_the_second_waits_its_turn(tmp_path):
    order, held, release = [], threading.Event(), threading.Event()

    def first():
        with lock(tmp_path):
            held.set()
            release.wait(10)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    held.wait(10)
    threading.Timer(0.15, release.set).start()
    with lock(tmp_path, wait=10):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def hold_and_die(root, held):
    with lock(root):
        held.set()
        os._exit(9)


def test_a_killed_holder_leaves_no_lock(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    held = spawn.Event()
    process = spawn.Process(target=hold_and_die, args=(tmp_path, held))
    process.start()
    process.join(30)
    assert process.exitcode == 9
    with lock(tmp_path):
        pass


def test_a_root_that_cannot_be_made_is_a_store_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError), lock(tmp_path / "file" / "root"):
        pass
