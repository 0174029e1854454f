"""A line of the log as JSON, with the id of the run or request that it belongs to."""

import json
import logging
import os
import secrets
from contextvars import ContextVar
from datetime import UTC, datetime

VARIABLE = "SIEVE_RUN"  # a scheduled run hands its id to its commands
PLAIN = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})

# id of what is being done here: of a request, a message; empty outside of them
correlation: ContextVar[str] = ContextVar("correlation", default="")


def run_id() -> str:
    """Id of the run that this process belongs to: given by what started it, or drawn."""
    return os.environ.setdefault(VARIABLE, secrets.token_hex(8))


class JsonFormatter(logging.Formatter):
    """``time``, ``level``, ``logger``, ``message``, ``run``, ``correlation``; then what was added.

    Values given as ``extra=`` of a call are fields of their own. Line breaks and control letters
    are escaped, so that a text from outside cannot pass for a line.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        values = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "run": run_id(),
        }
        if correlation.get():
            values["correlation"] = correlation.get()
        values |= {name: value for name, value in vars(record).items() if name not in PLAIN}
        if record.exc_info:
            values["fault"] = self.formatException(record.exc_info)
        return json.dumps(values, default=str)
