"""Alerts to an address of the web, from a thread of their own: nothing waits for it."""

import json
import logging
import os
import queue
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from stages.base import ConfigError

log = logging.getLogger(__name__)

ROOM = 100  # alerts that may wait
AGAIN = (408, 425, 429)  # beside 5xx: answers after which the same may be taken later


@dataclass
class Webhook:
    """Posts each alert as JSON, with ``text`` as chat services expect it.

    The address is a secret: it stands in the environment, and in no log, error or configuration.

    Parameters
    ----------
    variable : str, default='SIEVE_WEBHOOK'
        Of the environment; holds the address, ``https://…`` (or ``http://…`` within a machine).
    timeout : float > 0, default=5.0
        Seconds for one try.
    tries : int >= 1, default=5
    pause : float >= 0, default=2.0
        Seconds before the second try at most; twice as many before each further one. The wait is
        drawn evenly from 0 to that, so that many senders do not come at once.

    Raises
    ------
    ConfigError
        SV-F33 if the variable holds no such address.
    """

    variable: str = "SIEVE_WEBHOOK"
    timeout: float = 5.0
    tries: int = 5
    pause: float = 2.0

    def __post_init__(self) -> None:
        if not (self.timeout > 0 and self.tries >= 1 and self.pause >= 0):
            raise ValueError(
                f"need timeout > 0, tries >= 1 and pause >= 0, got {self.timeout}, {self.tries} "
                f"and {self.pause}"
            )
        self._address = _address(self.variable)
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(ROOM)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)
        self._thread.start()

    def send(self, record: Mapping[str, Any]) -> None:
        """Take an alert and return at once; where too many wait, it goes to the log alone."""
        state = "Resolved" if record["resolved"] else "Alert"
        text = f"{state}: {record['kind']}, {record['about']}: {record['text']}"
        try:
            self._waiting.put_nowait({**record, "text": text})
        except queue.Full:
            log.error("the webhook is too slow: an alert was not posted: %s", text)

    def close(self) -> None:
        """Wait at most two timeouts for what is on its way, then end."""
        until = time.monotonic() + 2 * self.timeout
        try:
            self._waiting.put(None, timeout=self.timeout)
        except queue.Full:
            log.error("alerts that waited for the webhook were not posted")
        self._thread.join(max(0.0, until - time.monotonic()))
        self._ended.set()
        self._thread.join(self.timeout)

    def _run(self) -> None:
        while (record := self._waiting.get()) is not None:
            body = json.dumps(record).encode()
            said = self._post(body)
            if said:
                log.error("an alert was not posted: %s: %s", said, record["text"])

    def _post(self, body: bytes) -> str:
        """Post until it is taken; why it was not, empty if it was."""
        said = ""
        for number in range(self.tries):
            wait = random.uniform(0, self.pause * 2 ** (number - 1)) if number else 0.0
            if self._ended.wait(wait):
                return said or "the program ended"
            said, again = self._try(body)
            if not again:
                return said
        return f"{said}, {self.tries} times"

    def _try(self, body: bytes) -> tuple[str, bool]:
        """What went wrong, without the address; and whether to try again."""
        request = urllib.request.Request(
            self._address,
            data=body,
            headers={"Content-Type": "application/json", "User-Agent": "sieve"},
        )
        try:
            with _OPENER.open(request, timeout=self.timeout):
                return "", False
        except urllib.error.HTTPError as error:
            error.close()
            return f"status {error.code}", error.code >= 500 or error.code in AGAIN
        except urllib.error.URLError as error:
            return _plain(error.reason), True
        except (OSError, HTTPException) as error:
            return _plain(error), True


class _Stay(urllib.request.HTTPRedirectHandler):
    """An address that points elsewhere is refused: the alert was not meant for it."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_Stay)


def _plain(reason: Any) -> str:
    return str(getattr(reason, "strerror", None) or type(reason).__name__)


def _address(variable: str) -> str:
    text = os.environ.get(variable, "").strip()
    parts = text.partition("://")
    if parts[0] in ("https", "http") and parts[2] and text.isprintable() and " " not in text:
        return text
    raise ConfigError(
        f"{variable} holds no address" if text else f"{variable} is not set",
        code="SV-F33",
        where="the environment",
        why="alerts are to be posted there",
        cure=f"{variable}=https://…, or alerts=default, which writes them to the log",
    )
