"""A Redis of a test's own: killed and started again as it likes."""

import os
import shutil
import socket
import subprocess
from threading import Event

import pytest

from pipeline.streaming.redis_link import Link

SHARED = os.environ.get("SIEVE_TEST_REDIS", "redis://127.0.0.1:6379/0")


def refuse(why):
    """No Redis: a reason to skip, and a failure where all must run."""
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


class Server:
    """A redis-server on a free port that keeps its data in a folder."""

    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process = None

    def start(self):
        program = shutil.which("redis-server")
        if program is None:
            refuse("redis-server is not installed")
        words = ["--port", str(self.port), "--dir", str(self.folder), "--appendonly", "yes"]
        words += ["--appendfsync", "always"]  # else a kill may take the last second with it
        words += ["--save", "", "--bind", "127.0.0.1", "--logfile", str(self.folder / "log")]
        self.process = subprocess.Popen([program, *words])
        Link(self.url, 30, Event()).ask(lambda r: r.ping())
        return self

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def shared():
    """The running server, if it answers."""
    import redis

    try:
        link = Link(SHARED, 0.5, Event())
        link.client.ping()
    except redis.exceptions.RedisError as error:
        refuse(f"no Redis at $SIEVE_TEST_REDIS or 127.0.0.1: {error}")
    return SHARED
