"""The page on which signals are watched: rendered here, so that a browser needs no network."""

from typing import Annotated, Literal, TypeVar, cast
from urllib.parse import parse_qs, urlencode

from fastapi import APIRouter, Path
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from pipeline.api import views
from pipeline.api.gate import COOKIE
from pipeline.api.messages import LAST, Filters, Text, Trend
from pipeline.api.problems import refused
from pipeline.api.render import FILES, page, read_file
from pipeline.api.routes import service
from pipeline.api.service import Service
from pipeline.api.status import status
from pipeline.report.document import div
from pipeline.report.figures import reliability
from pipeline.report.page import claims
from pipeline.report.signal_page import why_sections
from pipeline.store.queries import Where
from pipeline.store.rows import Stored
from stages.base import SieveError
from stages.signal import SIDE_TEXT

ROWS = 50  # on a page of signals
SOUGHT = 1000  # newest signals that are looked through
YEAR = 31_536_000  # seconds
STATUSES = ("fired", "unproven", "hold", "abstain")
CHOICES = {
    "side": ("BUY", "SELL", "HOLD"),
    "status": STATUSES,
    "strength": ("weak", "medium", "strong"),
}

Shape = TypeVar("Shape", bound=Filters)

router = APIRouter()


class Shown(Filters):
    """What the table of signals shows."""

    show: Literal["active", "latest"] = "active"
    kind: Text | None = None
    cursor: Text | None = None


@router.get("/")
def signals(request: Request) -> Response:
    """Signals as they stand: those that say something, or the newest."""
    own = service(request)
    wanted = _read(Shown, request)
    known = wanted.model_dump(exclude_none=True)
    found, cursor, active = _found(own, wanted)
    now = own.clock()
    lines = [views.line(one, kind, now) for one, kind in found]
    older = urlencode({**known, "cursor": cursor}) if cursor else ""
    return page(
        request,
        "signals.html",
        lines=lines,
        more=views.columns(lines),
        came=any(line["came"] for line in lines),
        wanted=wanted,
        choices=CHOICES,
        kinds=_kinds(own),
        active=active,
        older=older,
    )


@router.get("/signals/{id}")
def one(id: Annotated[int, Path(ge=1, le=LAST)], request: Request) -> Response:
    """One signal: what it says, why, what stood in its way, and what came of it."""
    own = service(request)
    found = own.store.get(id)
    signal, now = found.signal, own.clock()
    prices = views.levels(signal)
    return page(
        request,
        "signal.html",
        found=found,
        signal=signal,
        side="" if signal.side is None else SIDE_TEXT[signal.side],
        facts=dict(views.facts(signal, now)),
        odds=views.odds_text(signal),
        skill=views.skill_text(signal),
        prices="" if prices is None else div(prices),
        why=list(why_sections(signal)),
        appraisal=found.record.get("appraisal"),
        outcome=found.outcome,
        came="" if found.outcome is None else SIDE_TEXT[found.outcome.label],
        asked=views.asked(signal, own.store.inquiry(id)),
        events=own.store.events(signal=id, n=50),
    )


@router.get("/performance")
def performance(request: Request) -> Response:
    """How signals went, whether their confidence was right, and how both moved."""
    own = service(request)
    wanted = _read(Trend, request)
    where = cast(Where, wanted.model_dump(exclude={"days"}))
    tables = []
    for by in ("strategy", "strength", "side", "model"):
        table = own.performance(by, where)
        if len(table):
            tables.append((by, [(group, row) for group, row in table.iterrows()]))
    bins, periods = own.counts.bins(where), own.counts.periods(wanted.days, where)
    judged = sum(row["rows"] for row in bins)
    return page(
        request,
        "performance.html",
        wanted=wanted,
        tables=tables,
        judged=judged,
        calibration=div(reliability({"signals": bins})) if bins else "",
        trend=div(views.over_time(periods, wanted.days)) if periods else "",
    )


@router.get("/model")
def model(request: Request) -> Response:
    """The model in service, and what is known of its worth."""
    own = service(request)
    loaded = own.live.loaded
    health, figures = None, []
    if loaded is not None:
        health = own.health()
        pipeline = loaded.pipeline
        drawn = claims(pipeline.evaluation_ or {}, pipeline.record_)
        figures = [(title, note, div(figure)) for title, note, figure in drawn]
    return page(
        request,
        "model.html",
        health=health,
        figures=figures,
        ready=own.ready(),
        status=views.status(status(own, request.app.state.metrics)),
        models=own.models(),
    )


@router.get("/login")
def ask_token(request: Request) -> Response:
    """The form that takes a token."""
    return page(request, "login.html", wrong=False, next=_local(_given(request).get("next", "/")))


@router.post("/login")
async def take_token(request: Request) -> Response:
    """Keep the token in a cookie that scripts cannot read and other sites cannot use."""
    sent = parse_qs((await request.body()).decode("utf-8", "replace"))
    form = {name: values[-1] for name, values in sent.items()}
    own, text = service(request), form.get("token", "").strip()
    place = _local(form.get("next", "/"))
    if own.tokens.holder(text.encode(), own.clock()) is None:
        answer = await run_in_threadpool(page, request, "login.html", wrong=True, next=place)
        answer.status_code = 401
        return answer
    moved = RedirectResponse(place, 303)
    secure = request.url.scheme == "https"
    moved.set_cookie(COOKIE, text, httponly=True, samesite="strict", secure=secure)
    return moved


@router.get("/static/{name}")
def file(name: str, request: Request) -> Response:
    """A file that pages ask for, compressed where the browser reads that."""
    if name not in FILES:
        raise refused(404, "there is no such file", "SV-X712", cure="the pages name their files")
    content, packed, _ = read_file(name)
    headers = {"Cache-Control": f"private, max-age={YEAR}, immutable", "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        content, headers["Content-Encoding"] = packed, "gzip"
    return Response(content, headers=headers, media_type=f"{FILES[name]}; charset=utf-8")


def refusal(request: Request, status: int, error: SieveError) -> Response:
    """An error as a page, for those who came by a browser."""
    answer = page(request, "problem.html", status=status, error=error)
    answer.status_code = status
    return answer


def _given(request: Request) -> dict[str, str]:
    """Parameters that say something: a form sends the empty ones too."""
    return {name: value for name, value in request.query_params.items() if value}


def _read(shape: type[Shape], request: Request) -> Shape:
    """The parameters of a page; what it does not know is passed over, as links grow old."""
    known = {name: v for name, v in _given(request).items() if name in shape.model_fields}
    try:
        return shape.model_validate(known)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error


def _found(own: Service, wanted: Shown) -> tuple[list[tuple[Stored, str]], str | None, bool]:
    """Signals with their classes, the cursor of the next ones, and whether they are active."""
    where = cast(Where, wanted.model_dump(exclude={"show", "kind", "cursor"}))
    if wanted.show == "active":
        known: dict[tuple[str, str], Stored] = {}
        for one in own.active(own.clock(), SOUGHT, where)[0]:
            known.setdefault((one.asset, one.strategy), one)  # the newest comes first
        found = _classed(own, sorted(known.values(), key=_urgency), wanted.kind)
        return found, None, True
    if wanted.kind:
        found = _classed(own, own.store.latest(SOUGHT, **where), wanted.kind)
        return found[:ROWS], None, False
    page = own.store.page(ROWS, wanted.cursor, **where)
    return _classed(own, page.signals, None), page.cursor, False


def _urgency(found: Stored) -> tuple[int, float]:
    """What can be acted on comes first, the surest of it before the others."""
    return STATUSES.index(found.row["status"]), -(found.row["certainty"] or 0.0)


def _classed(own: Service, found: list[Stored], kind: str | None) -> list[tuple[Stored, str]]:
    loaded = own.live.loaded
    kinds = [""] * len(found)
    if loaded is not None and found:
        kinds = [str(k) for k in loaded.pipeline.instruments.classes([one.asset for one in found])]
    return [(one, k) for one, k in zip(found, kinds, strict=True) if kind in (None, k)]


def _kinds(own: Service) -> list[str]:
    """Classes that the instruments of the model know."""
    if own.live.loaded is None:
        return []
    table = own.live.loaded.pipeline.instruments
    first = str(table.default.get("asset_class", "equity"))
    return sorted({first, *(str(row.get("asset_class", first)) for row in table.table.values())})


def _local(place: str) -> str:
    """A path of this service, never the address of another."""
    return place if place.startswith("/") and not place.startswith(("//", "/\\")) else "/"
