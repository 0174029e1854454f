"""One connection to Redis that outlives its restarts, up to a deadline."""

import random
import time
from collections.abc import Callable
from threading import Event
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pipeline.streaming.messages import StreamError
from stages.base import ConfigError

T = TypeVar("T")
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds between two tries
SOCKET = 10.0  # seconds that an answer may take, beyond what a read waits


class Stopped(Exception):  # noqa: N818 - no fault
    """The worker was told to end while Redis did not answer."""


class Link:
    """Calls to Redis, each tried again while it cannot be reached.

    Parameters
    ----------
    url : str
        ``redis://HOST:PORT/DATABASE``; ``rediss://`` with TLS, ``unix://PATH``.
    wait : float
        Seconds for which it is tried again before SV-F41.
    stop : Event
        Ends the waiting.

    Raises
    ------
    ConfigError
        SV-X720 if the package redis is not installed, SV-F33 for a URL of another kind.
    """

    def __init__(self, url: str, wait: float, stop: Event) -> None:
        try:
            import redis
        except ModuleNotFoundError as error:
            raise ConfigError(
                "the package redis is not installed, and a stream of Redis was asked for",
                code="SV-X720",
                cure="pip install 'sieve-signals[stream]'",
            ) from error
        self.wait, self.stop = wait, stop
        parts = urlsplit(url)
        self.place = f"{parts.hostname or parts.path}:{parts.port or 6379}"  # without a password
        try:
            self.client: Any = redis.Redis.from_url(
                url, socket_timeout=SOCKET, socket_connect_timeout=SOCKET, retry=None
            )
        except ValueError as error:
            raise ConfigError(
                "a stream is named by redis://HOST:PORT/DATABASE",  # the text may hold a password
                code="SV-F33",
                where="URL of Redis",
                cure="redis://127.0.0.1:6379/0",
            ) from error
        gone = redis.exceptions
        self._passing = (
            gone.ConnectionError,
            gone.TimeoutError,
            gone.BusyLoadingError,
            gone.ReadOnlyError,
            gone.TryAgainError,
        )
        self.refused = gone.ResponseError
        self._final = (gone.AuthenticationError, gone.NoPermissionError)

    def ask(self, call: Callable[[Any], T]) -> T:
        """What `call` gives; it runs again after a passing fault, so twice must do no harm.

        Raises
        ------
        StreamError
            SV-F41 if Redis does not answer for `wait` seconds, or lets nobody in.
        Stopped
            If the worker is to end meanwhile.
        """
        until, pause = time.monotonic() + self.wait, FIRST_PAUSE
        while True:
            try:
                return call(self.client)
            except self._final as error:
                raise self._gone(error) from error
            except self._passing as error:
                if time.monotonic() >= until:
                    raise self._gone(error) from error
                if self.stop.wait(random.uniform(0, pause)):  # full jitter
                    raise Stopped from error
            pause = min(2 * pause, LONGEST_PAUSE)

    def close(self) -> None:
        """Let go of the connection."""
        self.client.close()

    def _gone(self, error: Exception) -> StreamError:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        return StreamError(
            f"Redis does not answer: {said}",
            code="SV-F41",
            where=self.place,
            why=f"tried for {self.wait:g} s; what was not acknowledged comes again",
            cure="start Redis, or correct the URL, and start again: it goes on where it was",
        )
