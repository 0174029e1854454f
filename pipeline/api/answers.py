"""Values to JSON as it leaves the service: times in UTC, no NaN, and the record of a signal."""

import math
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd
from starlette.responses import Response

from pipeline.api.messages import TIME
from pipeline.files import json_bytes
from pipeline.store.log import Event
from pipeline.store.rows import Stored
from stages.base import ConfigError
from stages.signal import SIDE_TEXT


def answer(values: Any, headers: Mapping[str, str] | None = None) -> Response:
    """A response with JSON values."""
    return Response(json_bytes(values), 200, headers, "application/json")


def plain(value: Any) -> Any:
    """JSON values: times as text, NaN and infinities as null, numpy's numbers as Python's."""
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if value is None or value is pd.NaT:
        return None
    if isinstance(value, pd.Timestamp):
        return time_text(value)
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def time_text(time: pd.Timestamp) -> str:
    """ISO 8601 in UTC, as in the records: ``2022-12-28T21:00:00Z``."""
    return time.tz_convert("UTC").as_unit("us").isoformat().replace("+00:00", "Z")


def read_time(text: str | None, name: str) -> pd.Timestamp | None:
    """A time that a request gave, UTC unless it says otherwise.

    Raises
    ------
    ConfigError
        SV-F33 for a text that is no time, or one outside of 1970 to 2199.
    """
    if text is None:
        return None
    time = pd.to_datetime(text, errors="coerce") if re.fullmatch(TIME, text) else pd.NaT
    if isinstance(time, pd.Timestamp):  # not the 30th of February
        zoned = time.tz_localize("UTC") if time.tz is None else time.tz_convert("UTC")
        return zoned.as_unit("us")
    raise ConfigError(
        f"{name}={text[:80]!r} is no time of 1970 to 2199",
        code="SV-F33",
        where=name,
        cure=f"{name}=2022-12-28, or {name}=2022-12-28T21:00:00Z",
    )


def record(found: Stored) -> dict[str, Any]:
    """A stored signal: its published record, and what the store knows of it."""
    outcome, verdict = found.outcome, found.verdict
    came = None
    if outcome is not None:
        came = {
            "label": SIDE_TEXT[outcome.label],
            "ret": outcome.ret,
            "excess": outcome.excess,
            "ended": time_text(outcome.ended),
        }
    about = {
        "id": found.id,
        "revision": found.revision,
        "strategy": found.strategy,
        "stored": time_text(found.stored),
        "emitted": None if verdict is None else verdict.emitted,
        "withheld": verdict.reason or None if verdict else None,
        "outcome": came,
    }
    return about | found.record


def inquiry(found: Event | None) -> dict[str, Any] | None:
    """What was found out about a signal, and when that was stored; None where nobody has asked."""
    if found is None or found.time is None:
        return None
    return {"stored": time_text(found.time), **found.details}
