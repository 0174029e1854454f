"""What every HTML page shares: a template beside it, one style, figures that need no network."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FunctionLoader
from plotly.offline import get_plotlyjs

from pipeline.files import write_atomic


def write_document(path: Path, template: str, **values: Any) -> None:
    """Fill `template`, a file of this package, and write it; all text is escaped.

    Parameters
    ----------
    path : Path
    template : str
        Name of the file.
    **values
        Beside ``plotly`` and ``style``, which every page may use.
    """
    loader = FunctionLoader(_text)
    environment = Environment(autoescape=True, loader=loader, trim_blocks=True, lstrip_blocks=True)
    page = environment.get_template(template)
    text = page.render(plotly=get_plotlyjs(), style=_text("style.css"), **values)
    write_atomic(path, text.encode())


def div(figure: go.Figure) -> str:
    """A figure as an element of a page."""
    return str(
        figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            config={"displayModeBar": False, "responsive": True},
        )
    )


def _text(name: str) -> str:
    return files("pipeline.report").joinpath(name).read_text(encoding="utf-8")
