"""How runs, streams and the service itself do: for the page, the metrics and the alerts."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline.account import QUANTILES
from pipeline.alerts import Alert, Limits, above
from pipeline.api.metrics import Metrics
from pipeline.api.service import Service
from pipeline.run_records import read_state, standing
from pipeline.store.stream_health import COUNTS, stream_health
from stages.base import SieveError

KINDS = ("model", "stale", "drift", "latency", "store")
SHARES = ("valid", "abstained", "emitted")


def status(own: Service, metrics: Metrics) -> dict[str, Any]:
    """State and figures of the service, of its runs and of its streams.

    Parameters
    ----------
    own : Service
    metrics : Metrics

    Returns
    -------
    dict
        ``ready``, ``schedule`` (None where no schedule ran on the root), ``run`` (what the newest
        run left of itself), ``stream``, ``answers``.

    Raises
    ------
    SieveError
        Where the store does not answer, or the state of the schedule cannot be read.
    """
    return {
        "ready": own.ready(),
        "schedule": schedule(own),
        "run": own.counts.account(),
        "stream": own.counts.once(("stream",), lambda: stream_health(own.store)),
        "answers": metrics.answers(),
    }


def schedule(own: Service) -> dict[str, Any] | None:
    """How the schedule of the root does; None where none ran."""
    state = read_state(own.root)
    return standing(state, own.clock()) if state["runs"] else None


def gauges(own: Service) -> dict[str, Any]:
    """What a scrape reads of runs and streams."""
    plan, run = schedule(own), own.counts.account() or {}
    stream = own.counts.once(("stream",), lambda: stream_health(own.store))
    out: dict[str, Any] = own.gauges()
    out |= {f"run_{name}_share": run.get(name) for name in SHARES}
    out |= {"run_quality": run.get("quality"), "run_risk": run.get("risk")}
    out["run_signals"] = run.get("signals")
    out["run_step_seconds(step)"] = {(name,): s for name, s in run.get("seconds", {}).items()}
    if plan is not None:
        good = plan["last_good"]
        out["schedule_good_age_seconds"] = good and good["age_seconds"]
        out["schedule_failed_in_a_row"] = plan["failed_in_a_row"]
        out["schedule_error_rate"] = plan["error_rate"]
        out["schedule_step_seconds(step,quantile)"] = {
            (name, key): row[key] for name, row in plan["steps"].items() for key in QUANTILES
        }
    return out | _stream_gauges(stream)


def _stream_gauges(stream: Mapping[str, Any]) -> dict[str, Any]:
    sources = stream["sources"]
    counts = {(at, n): float(one[n]) for at, one in sources.items() for n in COUNTS}
    kinds = {
        (at, kind): float(n)
        for at, one in sources.items()
        for kind, n in one["quarantined"].items()
    }
    times = {
        (at, name): None if ms is None else ms / 1000
        for at, one in sources.items()
        for name, ms in one["latency_ms"].items()
    }
    return {
        "stream_unpublished": float(stream["waiting"]),
        "stream_messages(source,kind)": counts,
        "stream_quarantined(source,kind)": kinds,
        "stream_latency_seconds(source,quantile)": times,
        "stream_lag(source)": {(at,): one["lag"] for at, one in sources.items()},
        "stream_pending(source)": {(at,): one["pending"] for at, one in sources.items()},
        "stream_age_seconds(source)": {(at,): one["age_seconds"] for at, one in sources.items()},
    }


def found_wrong(own: Service, metrics: Metrics, limits: Limits) -> list[Alert]:
    """What the service gives reason to tell, of `KINDS`.

    Parameters
    ----------
    own : Service
    metrics : Metrics
    limits : Limits
    """
    out, fault = [], own.live.fault
    if fault is not None:
        out.append(Alert("model", "champion", f"it is not in service: {fault.what}"))
    out += _answers_wrong(metrics, limits)
    try:
        run = own.last_run()
        drift = own.drift()
    except SieveError as error:
        return [*out, Alert("store", "signals", f"{error.code} {error.what}")]
    if limits.age_hours is not None and run and above(run["age_seconds"], 3600 * limits.age_hours):
        hours = run["age_seconds"] / 3600
        out.append(Alert("stale", "runs", f"the last good run is {hours:.0f} h old"))
    novelty = drift[-1]["novelty"] if drift else None
    if above(novelty, limits.novelty):
        since = pd.Timestamp(drift[-1]["begins"])
        out.append(Alert("drift", "inputs", f"novelty {novelty:.1f} since {since:%Y-%m-%d}"))
    return out


def _answers_wrong(metrics: Metrics, limits: Limits) -> list[Alert]:
    found = metrics.answers()
    if found["requests"] < 100:  # a percentile of few is chance
        return []
    late = found["milliseconds"]["p99"]
    if above(late, limits.request_ms):
        return [Alert("latency", "answers", f"one of a hundred takes {late:.0f} ms")]
    return []
