"""The application: routes, page, errors and gate put together."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from pipeline.alerts import Alerts
from pipeline.api import pages, routes, status
from pipeline.api.gate import Gate
from pipeline.api.messages import INQUIRY
from pipeline.api.metrics import Metrics
from pipeline.api.problems import Problem, of_http, of_validation, response, status_of
from pipeline.api.service import Parts, Service
from stages.base import SieveError

TITLE = "Sieve"
LOOK = 60  # seconds between two looks for what is wrong
ABOUT = (
    "Trading signals with their odds, doubts and reasons. Every error is problem+json with its "
    "code, its cause and its cure."
)

log = logging.getLogger(__name__)


def build(parts: Parts) -> FastAPI:
    """The application of a service; it loads the model when it is started.

    Parameters
    ----------
    parts : Parts

    Returns
    -------
    FastAPI
        An ASGI application whose ``state`` holds the `Service` and its `Metrics`.
    """
    service = Service(parts)
    app = FastAPI(
        title=TITLE,
        description=ABOUT,
        version=_version(),
        lifespan=_running,
        docs_url=None,  # both fetch their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.metrics = Metrics(lambda: status.gauges(service))
    app.include_router(routes.api)
    app.include_router(routes.open_api)
    if parts.settings.page:
        app.include_router(pages.router, include_in_schema=False)
    app.add_exception_handler(SieveError, _sieve_error)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _http_error)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _validation_error)  # type: ignore[arg-type]
    app.add_middleware(
        Gate,
        settings=parts.settings,
        tokens=parts.tokens,
        metrics=app.state.metrics,
        clock=parts.clock,
    )
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


@contextlib.asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    """Load the model, watch the pointer and answer predictions, until the service ends."""
    service: Service = app.state.service
    await asyncio.to_thread(service.live.refresh)
    work = [service.batcher.run(), _watch(service)]
    if service.alerts is not None:
        work.append(_warn(service, service.alerts, app.state.metrics))
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if service.alerts is not None:
            await asyncio.to_thread(service.alerts.close)


async def _watch(service: Service) -> None:
    """Put a new champion in service soon after the pointer changes."""
    while True:
        await asyncio.sleep(service.settings.poll)
        try:
            await asyncio.to_thread(service.live.refresh)
        except Exception:  # noqa: BLE001  a fault here must not end the watch for good
            log.exception("the champion could not be looked at")


async def _warn(service: Service, alerts: Alerts, metrics: Metrics) -> None:
    """Tell what is wrong, looking once a minute."""
    while True:
        await asyncio.sleep(LOOK)
        try:
            found = await asyncio.to_thread(status.found_wrong, service, metrics, alerts.limits)
            alerts.tell(found, status.KINDS, service.clock())
        except Exception:  # noqa: BLE001  a fault here must not end the watch for good
            log.exception("the service could not be looked at")


async def _sieve_error(request: Request, error: SieveError) -> Response:
    status = status_of(error)
    if status >= 500:
        log.error("%s: %s", getattr(request.state, "request_id", ""), error)
    return await _told(request, status, error)


async def _http_error(request: Request, fault: HTTPException) -> Response:
    return await _told(request, fault.status_code, of_http(fault), fault.headers)


async def _validation_error(request: Request, fault: RequestValidationError) -> Response:
    return await _told(request, 422, of_validation(fault))


async def _told(
    request: Request, status: int, error: SieveError, headers: Mapping[str, str] | None = None
) -> Response:
    """A page for a browser that asked for one, problem+json for all others."""
    settings = request.app.state.service.settings
    wants_page = "text/html" in request.headers.get("accept", "")
    if settings.page and wants_page and not request.url.path.startswith("/v1/"):
        return await asyncio.to_thread(pages.refusal, request, status, error)
    return response(request, status, error, headers)


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the shape of problems and without what is never answered."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        template = "#/components/schemas/{model}"
        schemas["Problem"] = Problem.model_json_schema(ref_template=template)
        schemas["Inquiry"]["examples"] = [INQUIRY]  # from its model FastAPI would take the nulls
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        app.openapi_schema = document
    return app.openapi_schema


def _version() -> str:
    try:
        return version("sieve-signals")
    except PackageNotFoundError:
        return "0"
