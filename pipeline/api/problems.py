"""Errors as they leave the service: problem+json of RFC 9457, with what cures them."""

from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from stages.base import ArtifactError, ConfigError, DataError, SieveError, StoreError

MEDIA = "application/problem+json"
ABOUT = "urn:sieve:error:"
BY_CODE = {
    "SV-F36": 401,
    "SV-X533": 404,
    "SV-X520": 409,
    "SV-X535": 409,
    "SV-F40": 503,
    "SV-F34": 503,
    "SV-X410": 503,
}
BY_KIND = ((DataError, 422), (ConfigError, 422), (ArtifactError, 503), (StoreError, 500))
RETRY = 2  # seconds after which what passes may have passed


class Problem(BaseModel):
    """Why a request was refused, and what would make it pass."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "type": f"{ABOUT}SV-X533",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "there is no signal 7",
                    "instance": "/v1/signals/7",
                    "code": "SV-X533",
                    "where": "",
                    "why": "",
                    "cure": "take the id of a signal that latest, page or follow gave",
                    "request_id": "5f0c6a1f",
                }
            ]
        },
    )

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    where: str
    why: str
    cure: str
    request_id: str


class Refused(HTTPException):
    """A refusal of the service itself, or an error of Sieve with the status it leaves with."""

    def __init__(
        self, status: int, error: SieveError, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, error.what, headers)
        self.error = error


def refused(
    status: int, what: str, code: str, headers: dict[str, str] | None = None, **more: str
) -> Refused:
    """A refusal with its code, and `where`, `why`, `cure`."""
    return Refused(status, SieveError(what, code=code, **more), headers)


def status_of(error: SieveError) -> int:
    """The status of HTTP that an error stands for."""
    if error.code in BY_CODE:
        return BY_CODE[error.code]
    return next((status for kind, status in BY_KIND if isinstance(error, kind)), 500)


def response(request: Request, status: int, error: SieveError, headers: Any = None) -> JSONResponse:
    """`error` as problem+json. Where things lie on this machine is for the log alone."""
    ours = isinstance(error, ArtifactError | StoreError) or status >= 500
    body = {
        "type": f"{ABOUT}{error.code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": error.what,
        "instance": request.url.path,
        "code": error.code,
        "where": "" if ours else error.where,
        "why": error.why,
        "cure": error.cure,
        "request_id": getattr(request.state, "request_id", ""),
    }
    headers = dict(headers or {})
    if status == 503:
        headers.setdefault("Retry-After", str(RETRY))
    return JSONResponse(plain(body), status, headers, MEDIA)


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Texts without the halves of characters that UTF-8 cannot hold."""
    return {
        name: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for name, value in values.items()
    }


def of_http(fault: HTTPException) -> SieveError:
    """What the framework refuses: no such path, another method, a body that it cannot read."""
    if isinstance(fault, Refused):
        return fault.error
    if fault.status_code == 405:
        allowed = (fault.headers or {}).get("Allow", "")
        cure = f"use {allowed}" if allowed else ""
        return SieveError("the path does not take this method", code="SV-X712", cure=cure)
    if fault.status_code == 404:
        cure = "the paths stand in /openapi.json"
        return SieveError("there is no such path", code="SV-X712", cure=cure)
    cure = "send JSON in UTF-8, as /openapi.json describes it"
    return SieveError(str(fault.detail), code="SV-F37", cure=cure)


def of_validation(fault: RequestValidationError) -> SieveError:
    """The first value that is not as the document says, and where it stands."""
    first = fault.errors()[0]
    place = ".".join(str(part) for part in first["loc"])[:200]
    more = f" ({len(fault.errors()) - 1} more)" if len(fault.errors()) > 1 else ""
    return SieveError(
        f"{first['msg']}{more}",
        code="SV-F33",
        where=place,
        why="the request is not as /openapi.json describes it",
        cure="change that value, or leave it out where it has a default",
    )


def internal(request_id: str) -> SieveError:
    """What a caller is told of a fault of ours: no more than its number in the log."""
    return SieveError(
        "internal fault",
        code="SV-X500",
        why="this is a fault of Sieve, not of the request",
        cure=f"send the operator the request id {request_id}",
    )
