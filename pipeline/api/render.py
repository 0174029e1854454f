"""Pages from templates, and the files that they ask for; nothing comes from elsewhere."""

import contextlib
import gzip
import hashlib
import re
import secrets
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from plotly.offline import get_plotlyjs
from starlette.requests import Request
from starlette.responses import HTMLResponse

from pipeline.api.routes import service
from pipeline.api.views import span_text
from stages.base import SieveError

FILES = {"style.css": "text/css", "page.js": "text/javascript", "plotly.js": "text/javascript"}
REPORT = "pipeline.report"
SHARED = "asked.html"  # what was found out, as the pages of reports show it
SCRIPT = re.compile(r'<script( type="text/javascript")?>')


def page(request: Request, template: str, **values: Any) -> HTMLResponse:
    """A filled template under a policy that runs no script but ours."""
    own, nonce = service(request), secrets.token_urlsafe(16)
    known, run = hasattr(request.state, "caller"), None  # who is not let in learns nothing
    if known:
        with contextlib.suppress(SieveError):  # the page tells of it in its own words
            run = own.last_run()
    loaded = own.live.loaded
    text = (
        _environment()
        .get_template(template)
        .render(
            **values,
            nonce=nonce,
            request_id=getattr(request.state, "request_id", ""),
            known=known,
            path=request.url.path,
            about=own.about,
            model=loaded.digest if loaded else "",
            fault=own.live.fault,
            run=run and span_text(run["age_seconds"]),
            versions={name: read_file(name)[2] for name in FILES},
        )
    )
    # the figures of plotly carry a script each; it escapes what stands in them
    text = SCRIPT.sub(f'<script nonce="{nonce}">', text)
    policy = (
        f"default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    )
    return HTMLResponse(text, headers={"Content-Security-Policy": policy})


@cache
def _environment() -> Environment:
    return Environment(
        autoescape=True,
        loader=FunctionLoader(
            lambda name: _text(name, REPORT) if name == SHARED else _text(f"templates/{name}")
        ),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )


@cache
def read_file(name: str) -> tuple[bytes, bytes, str]:
    """Content of a file, the same compressed, and what tells its versions apart."""
    if name == "plotly.js":
        text = get_plotlyjs()
    elif name == "style.css":
        text = _text("style.css", REPORT) + _text("static/style.css")
    else:
        text = _text(f"static/{name}")
    content = text.encode()
    return content, gzip.compress(content, 6, mtime=0), hashlib.sha256(content).hexdigest()[:12]


def _text(name: str, package: str = "pipeline.api") -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")
