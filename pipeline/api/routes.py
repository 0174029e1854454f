"""The paths of the API: each asks the service one thing and answers in JSON."""

from typing import Annotated, Any, cast

import pandas as pd
from fastapi import APIRouter, Depends, Path, Query
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from pipeline.api import messages
from pipeline.api.answers import answer, inquiry, plain, read_time, record, time_text
from pipeline.api.problems import MEDIA, response
from pipeline.api.service import Service
from pipeline.api.status import status
from pipeline.api.strict import StrictRoute
from pipeline.signals_io import to_record
from pipeline.store.queries import Where
from stages.base import SieveError

WORDS = {
    400: "The body is not JSON.",
    401: "No valid token.",
    404: "There is no such signal.",
    408: "The body did not come in time.",
    409: "The store holds another content under the same key.",
    413: "The body is too large.",
    415: "The body is compressed.",
    422: "A value is refused; the cure says what to change.",
    429: "Too many requests.",
    500: "A fault of Sieve.",
    503: "No model, no store, or too much at once; come again.",
}
ALWAYS = (401, 422, 429, 500, 503)
WITH_BODY = (400, 408, 409, 413, 415)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """How the document describes answers with these statuses."""
    return {
        status: {
            "description": WORDS[status],
            "content": {MEDIA: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


token = HTTPBearer(auto_error=False, description="A token that an operator made.")  # the gate asks
api = APIRouter(prefix="/v1", route_class=StrictRoute, dependencies=[Depends(token)])
open_api = APIRouter()


def service(request: Request) -> Service:
    """The service that answers a request."""
    return cast(Service, request.app.state.service)


def where(asked: messages.Filters) -> Where:
    """The conditions of a query to the store."""
    values = asked.model_dump(exclude={"n", "cursor", "at", "by", "days"})
    for name in ("since", "until"):
        if name in values:
            values[name] = read_time(values[name], name)
    return cast(Where, values)


@api.post("/predict", response_model=messages.Prediction, responses=refusals(*ALWAYS, *WITH_BODY))
async def predict(asked: messages.PredictIn, request: Request) -> Response:
    """Signals of the newest bar of each asset, all of one model."""
    own = service(request)
    as_of = read_time(asked.as_of, "as_of")
    table = await run_in_threadpool(pd.DataFrame.from_records, asked.bars)
    said = await own.batcher.ask(table, as_of, asked.explain)
    config = own.config(asked.as_of, asked.explain)
    stored = None
    if asked.keep:
        stored = await run_in_threadpool(
            own.store.append, said.signals, config, strategy=own.settings.strategy
        )
    metrics = request.app.state.metrics
    metrics.batches.observe(said.batch)
    for signal in said.signals:
        metrics.signals.labels(signal.status).inc()
    records = [to_record(signal, config) for signal in said.signals]
    return answer(
        {"model": said.model.digest, "batch": said.batch, "stored": stored, "signals": records}
    )


@api.get("/signals", response_model=messages.SignalPage, responses=refusals(*ALWAYS))
def signals(asked: Annotated[messages.Paging, Query()], request: Request) -> Response:
    """The newest signals by time of decision, page by page; pages do not shift meanwhile."""
    page = service(request).store.page(asked.n, asked.cursor, **where(asked))
    return answer({"signals": [record(found) for found in page.signals], "next": page.cursor})


@api.get("/signals/active", response_model=messages.SignalList, responses=refusals(*ALWAYS))
def active(asked: Annotated[messages.Active, Query()], request: Request) -> Response:
    """Signals that were decided by a time and expire later, newest first."""
    own = service(request)
    at = read_time(asked.at, "at") or own.clock()
    found, count = own.active(at, asked.n, where(asked))
    listed = [record(one) for one in found]
    return answer({"at": time_text(at), "count": count, "signals": listed})


@api.get("/signals/{id}", response_model=messages.OneSignal, responses=refusals(*ALWAYS, 404))
def one(id: Annotated[int, Path(ge=1, le=messages.LAST)], request: Request) -> Response:
    """One signal with its reasons, what stood in its way, what came of it and what was asked."""
    store = service(request).store
    return answer(record(store.get(id)) | {"inquiry": inquiry(store.inquiry(id))})


@api.get("/performance", response_model=messages.Performance, responses=refusals(*ALWAYS))
def performance(asked: Annotated[messages.Grouping, Query()], request: Request) -> Response:
    """How signals with a side and an outcome went, by one of their columns."""
    table = service(request).performance(asked.by, where(asked))
    names = messages.Group.model_fields
    groups = [
        {name: row.get(name) for name in names} | {"group": group}
        for group, row in zip(table.index, table.to_dict("records"), strict=True)
    ]
    return answer({"by": asked.by, "groups": plain(groups)})


@api.get("/calibration", response_model=messages.Calibration, responses=refusals(*ALWAYS))
def calibration(asked: Annotated[messages.Trend, Query()], request: Request) -> Response:
    """Whether confidence means what it says, by its size and over time."""
    counts, chosen = service(request).counts, where(asked)
    found = {"bins": counts.bins(chosen), "periods": counts.periods(asked.days, chosen)}
    return answer({"days": asked.days} | plain(found))


@api.get("/health", response_model=messages.ModelHealth, responses=refusals(*ALWAYS))
def health(request: Request) -> Response:
    """The model in service: its skill test, coverage, leak audit, evaluation and drift."""
    return answer(plain(service(request).health()))


@api.get("/models", response_model=messages.Models, responses=refusals(*ALWAYS))
def models(request: Request) -> Response:
    """The models of the root."""
    return answer({"models": plain(service(request).models())})


@api.get("/status", response_model=messages.State, responses=refusals(*ALWAYS))
def state(request: Request) -> Response:
    """How runs, streams and the service do: last good run, pass rates, errors, latencies."""
    return answer(plain(status(service(request), request.app.state.metrics)))


@open_api.get("/healthz", response_model=messages.Alive, responses=refusals(500))
async def alive() -> Response:
    """That the process answers."""
    return answer({"alive": True})


@open_api.get(
    "/readyz",
    response_model=messages.Ready,
    responses={503: {"model": messages.Ready, "description": "Not ready."}, **refusals(500)},
)
def ready(request: Request) -> Response:
    """Whether it can answer, and the last good run with its age."""
    found = service(request).ready()
    told = answer(plain(found))
    told.status_code = 200 if found["ready"] else 503
    return told


@open_api.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses=refusals(401, 429, 500, 503),
    dependencies=[Depends(token)],
)
def metrics(request: Request) -> Response:
    """Counters and gauges, as Prometheus reads them."""
    try:
        text = request.app.state.metrics.text()
    except SieveError as error:
        return response(request, 503, error)
    return Response(text, media_type="text/plain; version=1.0.0; charset=utf-8")
