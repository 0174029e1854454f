"""What an operator may set of the service; the names are the keys of ``conf/serve.yaml``."""

from collections.abc import Sequence
from dataclasses import dataclass

from stages.base import ConfigError

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Settings:
    """Where the service listens, and what it allows.

    Parameters
    ----------
    host : str, default='127.0.0.1'
        Address to listen on; another one than loopback needs a token.
    port : int in [0, 65535], default=8080
        0 takes a free one.
    names : sequence of str
        Host names by which it is reached, beside loopback; ``*`` allows any. Others are refused,
        so that a page elsewhere cannot read a service on loopback through a name of its own.
    max_body : int > 0, default=1048576
        Bytes of a request body.
    body_seconds : float > 0, default=10.0
        Time that a client may take to send it.
    rate : float > 0, default=50.0
        Requests a second of one token, or of one address where none is known, in the long run.
    burst : int >= 1, default=100
        Most of them at once.
    batch : int >= 1, default=16
        Most predict requests that are answered by one run of the model.
    queue : int >= 1, default=64
        Most predict requests that wait; others are told to come later.
    poll : float > 0, default=1.0
        Seconds between two looks at the champion pointer.
    stale_after : float or None, default=None
        Hours after the last good run from which the service is not ready; None: any age will do.
    page : bool, default=True
        Whether the page is served at ``/``.
    strategy : str, default='api'
        Name under which predictions are stored that ask for it.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    names: Sequence[str] = ()
    max_body: int = 1 << 20
    body_seconds: float = 10.0
    rate: float = 50.0
    burst: int = 100
    batch: int = 16
    queue: int = 64
    poll: float = 1.0
    stale_after: float | None = None
    page: bool = True
    strategy: str = "api"

    def __post_init__(self) -> None:
        numbers = (self.max_body, self.body_seconds, self.rate, self.poll)
        if not all(number > 0 for number in numbers) or not 0 <= self.port <= 65535:
            raise ValueError(
                "need max_body, body_seconds, rate and poll above 0 and a port, "
                f"got {numbers} and {self.port}"
            )
        if min(self.burst, self.batch, self.queue) < 1:
            raise ValueError(
                f"need burst, batch and queue >= 1, got {self.burst}, {self.batch}, {self.queue}"
            )
        if self.stale_after is not None and not self.stale_after > 0:
            raise ValueError(f"need stale_after > 0 or null, got {self.stale_after}")
        if isinstance(self.names, str):
            raise ValueError(f"need names as a list, got {self.names!r}")

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in LOOPBACK

    def refuse_open(self, tokens: int) -> None:
        """Refuse to listen to other machines without a token; ConfigError SV-F36."""
        if self.loopback or tokens:
            return
        raise ConfigError(
            f"host={self.host} can be reached from elsewhere, and no token is set",
            code="SV-F36",
            where="keys service.host and SIEVE_TOKENS of the environment",
            why="anyone who reaches the port could read every signal and use the model",
            cure="python -m pipeline.serve new_token=NAME prints one; or service.host=127.0.0.1",
        )
