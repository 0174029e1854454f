"""What every request passes before anything reads it: an id, a name, a token, a rate, a size."""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import quote

import pandas as pd
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from pipeline.api.limits import Rate
from pipeline.api.metrics import Metrics
from pipeline.api.problems import Refused, internal, refused, response
from pipeline.api.settings import LOOPBACK, Settings
from pipeline.api.tokens import Tokens
from pipeline.jsonlog import correlation

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "sieve_token"
ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
OPEN = ("/healthz", "/readyz", "/openapi.json", "/login")
FILES = "/static/"
API = ("/v1/", "/metrics")  # what only a bearer token opens: a cookie is sent by browsers unasked
SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

log = logging.getLogger(__name__)


class Gate:
    """Lets a request through to the application, or answers in its place.

    Parameters
    ----------
    app : ASGI application
    settings : Settings
    tokens : Tokens
        None known: everyone on this machine is let in.
    metrics : Metrics
    clock : callable
        Gives the time, UTC.
    """

    def __init__(
        self,
        app: App,
        settings: Settings,
        tokens: Tokens,
        metrics: Metrics,
        clock: Callable[[], pd.Timestamp],
    ) -> None:
        self.app, self.settings, self.tokens, self.metrics = app, settings, tokens, metrics
        self.clock = clock
        self.rate = Rate(settings.rate, settings.burst)
        self.names = {*LOOPBACK, settings.host, *settings.names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        request.state.request_id = _id(request.headers)
        told = _Told(send, request.state.request_id)
        mark = correlation.set(request.state.request_id)
        began = time.perf_counter()
        self.metrics.open.inc()
        try:
            try:
                answer = await self._passes(request, receive)
            except Refused as refusal:
                answer = response(request, refusal.status_code, refusal.error, refusal.headers)
            if isinstance(answer, Response):
                await answer(scope, receive, told)
            else:
                await self.app(scope, answer, told)
        except Exception:  # the caller gets its number, the log all of it
            log.exception("request %s failed", request.state.request_id)
            if told.status is None:
                fault = internal(request.state.request_id)
                await response(request, 500, fault)(scope, receive, told)
        finally:
            self.metrics.open.dec()
            self._note(request, told, time.perf_counter() - began)
            correlation.reset(mark)

    async def _passes(self, request: Request, receive: Receive) -> Receive | Response:
        """How to receive the body of a request that may pass, or the answer to another."""
        path = request.url.path
        self._refuse_name(request.headers)
        if path not in OPEN and not path.startswith(FILES):
            caller = self._caller(request)
            self._refuse_often(caller or _address(request))
            if caller is None:
                self.metrics.unknown.inc()
                if path.startswith(API) or "text/html" not in request.headers.get("accept", ""):
                    raise _unknown()
                return RedirectResponse(f"/login?next={quote(path)}", 303)
            request.state.caller = caller
        elif path == "/login" and request.method == "POST":
            self._refuse_often(_address(request))
        return _replay(await self._body(request.headers, receive), receive)

    def _caller(self, request: Request) -> str | None:
        """Who asks: the holder of the token, or the address where no token is needed."""
        if not len(self.tokens):
            return _address(request)
        kind, _, text = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self.holder(text.strip())
        if request.url.path.startswith(API) or request.method not in ("GET", "HEAD"):
            return None
        return self.holder(_cookie(request.headers.get("cookie", "")))

    def holder(self, text: str) -> str | None:
        """Who holds a token; None if nobody does."""
        return self.tokens.holder(text.encode("utf-8", "surrogatepass"), self.clock())

    def _refuse_name(self, headers: Headers) -> None:
        name = headers.get("host", "").strip().lower()
        name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
        if "*" in self.names or name in self.names or not self.settings.loopback:
            return
        raise refused(
            421,
            f"this service is not called {name[:80]!r}",
            "SV-F36",
            why="a page elsewhere could point a name of its own at this machine",
            cure="ask by 127.0.0.1 or localhost, or add the name to service.names",
        )

    def _refuse_often(self, caller: str) -> None:
        wait = self.rate.wait(caller)
        if wait:
            self.metrics.limited.inc()
            raise refused(
                429,
                f"more than {self.settings.rate:g} requests a second",
                "SV-X711",
                {"Retry-After": str(max(1, round(wait)))},
                cure="ask more slowly, ask for more at once, or raise service.rate",
            )

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        """The whole body, if it is small enough, plain, and comes in time."""
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise refused(
                415, "the body is compressed", "SV-F37", cure="send it as it is: identity"
            )
        said = headers.get("content-length", "0")
        if not (said.isascii() and said.isdigit()):
            raise refused(400, "Content-Length is no number", "SV-F37", cure="leave it out")
        if int(said) > self.settings.max_body:
            raise self._too_large()
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                return await self._read(receive)
        except TimeoutError as error:
            raise refused(
                408,
                f"the body did not come within {self.settings.body_seconds:g} s",
                "SV-F37",
                {"Connection": "close"},
                cure="send it at once, or raise service.body_seconds",
            ) from error

    async def _read(self, receive: Receive) -> bytes:
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.settings.max_body:
                raise self._too_large()
            more = message.get("more_body", False)
        return b"".join(parts)

    def _too_large(self) -> Refused:
        return refused(
            413,
            f"the body is larger than {self.settings.max_body:,} bytes",
            "SV-F37",
            {"Connection": "close"},
            cure="send fewer bars at once, or raise service.max_body",
        )

    def _note(self, request: Request, told: "_Told", seconds: float) -> None:
        route = getattr(request.scope.get("route"), "path", "other")
        method = request.method if request.method in METHODS else "other"
        self.metrics.requests.labels(method, route, str(told.status)).inc()
        self.metrics.seconds.labels(method, route).observe(seconds)
        self.metrics.recent.append((seconds, told.status is None or told.status >= 500))
        log.info(
            "%s %s %s %.1f ms %s %s",
            *(request.method[:10], quote(request.url.path)[:200], told.status, 1000 * seconds),
            *(getattr(request.state, "caller", "-"), request.state.request_id),
        )


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class _Told:
    """Sends on an answer, with its id and what keeps a browser from misreading it."""

    def __init__(self, send: Send, request_id: str) -> None:
        self.send, self.request_id = send, request_id
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message.setdefault("headers", [])
            there = {name.lower() for name, _ in headers}
            own = {**SECURITY, "X-Request-ID": self.request_id}
            for name, value in own.items():
                if name.lower().encode() not in there:
                    headers.append((name.lower().encode(), value.encode()))
        await self.send(message)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Hand out a body that has been read; afterwards what comes, such as a disconnect."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return left.pop() if left else await receive()

    return again


def _id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if ID.fullmatch(given) else secrets.token_hex(8)


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"


def _cookie(text: str) -> str:
    try:
        found = SimpleCookie(text).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _unknown() -> Refused:
    return refused(
        401,
        "no valid token",
        "SV-F36",
        {"WWW-Authenticate": "Bearer"},
        why="it is missing, wrong or expired",
        cure="send Authorization: Bearer TOKEN; an operator makes one with new_token=NAME",
    )
