"""JSON bodies that mean one thing: no NaN, no key twice, no depth that breaks a reader."""

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from pipeline.api.problems import refused

CURE = "send JSON in UTF-8, as /openapi.json describes it"


class StrictRequest(Request):
    """A request whose JSON is refused where readers could disagree about it."""

    async def json(self) -> Any:
        body = await self.body()
        try:
            values = json.loads(body, object_pairs_hook=_once, parse_constant=_no_number)
            if b"\\u" in body:
                _refuse_halves(values)
            return values
        except (ValueError, RecursionError) as error:
            what = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
            raise refused(
                400, f"the body is no JSON that is read: {what[:200]}", "SV-F37", cure=CURE
            ) from error


class StrictRoute(APIRoute):
    """A path whose requests are `StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await answer(StrictRequest(request.scope, request.receive))

        return strict


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:80]!r} stands twice")
    return found


def _refuse_halves(values: Any) -> None:
    """Escapes can name half a character, which no table and no store can hold."""
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("a text holds half a character") from error


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")
