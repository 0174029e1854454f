"""How runs, streams and the service do: over HTTP, for Prometheus, on the page, and as alerts."""

import json
import re
from dataclasses import replace

import pandas as pd
import pytest

from pipeline import artifacts
from pipeline.account import account
from pipeline.alerts import Alerts, Limits
from pipeline.api import app as application
from pipeline.api.metrics import Metrics
from pipeline.api.service import Service
from pipeline.api.status import found_wrong
from pipeline.due import Every
from pipeline.jsonlog import JsonFormatter
from pipeline.scheduled import Plan, Runner
from pipeline.store.stream_health import COUNTS
from tests.pipeline.api.conftest import CONFIG, serving
from tests.pipeline.test_scheduled import Clock, Kept, Script

NOW = pd.Timestamp("2024-07-05 20:15", tz="UTC")


@pytest.fixture
def ran(own, said, tmp_path, tiny):
    """A service whose root had two scheduled runs, one of them good, and whose store knows one."""
    tiny.save(tmp_path / "models")
    artifacts.promote(tmp_path, tiny.digest)
    new = own.store.append(said, CONFIG)
    seconds = {"predicting": 0.5, "storing": 0.25}
    own.store.event("run", **account(said, new, {"": 3, "status": 1}, seconds), run="r1")
    for text, minutes in (("pass", 0), ("raise SystemExit('SV-F20 no file')", 1)):
        clock = Clock(NOW + pd.Timedelta(minutes=minutes))
        plan = Plan(tmp_path, [Script("predict", [text])], Every("60s"), 60.0, None, list)
        Runner(plan, Alerts([]), clock).catch_up()
    return replace(own, root=tmp_path, clock=lambda: NOW + pd.Timedelta(hours=1))


def test_the_status_tells_of_runs_and_answers(ran):
    with serving(ran) as client:
        client.get("/v1/signals")
        found = client.get("/v1/status").json()
    assert found["schedule"]["last_good"]["age_seconds"] == 3600
    assert (found["schedule"]["runs"], found["schedule"]["failed_in_a_row"]) == (2, 1)
    assert found["schedule"]["alerts"] == ["failed predict"]
    assert found["run"]["emitted"] == 0.75
    assert found["run"]["seconds"] == {"predicting": 0.5, "storing": 0.25}
    assert found["answers"]["requests"] >= 1
    assert found["answers"]["error_rate"] == 0
    assert found["stream"]["sources"] == {}


def test_prometheus_reads_them(ran):
    with serving(ran) as client:
        text = client.get("/metrics").text
    for line in (
        "sieve_schedule_good_age_seconds 3600.0",
        "sieve_schedule_failed_in_a_row 1.0",
        "sieve_run_emitted_share 0.75",
        'sieve_run_step_seconds{step="predicting"} 0.5',
        "sieve_stream_unpublished 0.0",
    ):
        assert line in text
    assert re.search(
        r'sieve_schedule_step_seconds\{quantile="p99",step="predict"\}|'
        r'sieve_schedule_step_seconds\{step="predict",quantile="p99"\}',
        text,
    )


def test_the_page_shows_them(ran):
    with serving(ran) as client:
        page = client.get("/model", headers={"Accept": "text/html"}).text
    for text in ("Runs and answers", "1 h ago", "2, 1 failed", "failed predict", "No stream has"):
        assert text in page


def test_streams_are_shown_where_there_are_some(ran, monkeypatch):
    one = dict.fromkeys(COUNTS, 7) | {"signals": 1234, "lag": None, "pending": 2}
    one |= {"quarantined": {"poison": 3}, "age_seconds": 5.0, "at": NOW}
    one["latency_ms"] = {"p50": 1.5, "p95": 3.0, "p99": None}
    told = {"waiting": 4, "sources": {"bars": one}}
    monkeypatch.setattr("pipeline.api.status.stream_health", lambda store: told)
    with serving(ran) as client:
        page = client.get("/model", headers={"Accept": "text/html"}).text
        text = client.get("/metrics").text
        found = client.get("/v1/status").json()["stream"]
    assert found["sources"]["bars"]["signals"] == 1234
    assert 'sieve_stream_messages{kind="signals",source="bars"} 1234.0' in text or (
        'sieve_stream_messages{source="bars",kind="signals"} 1234.0' in text
    )
    assert "sieve_stream_lag{" not in text  # a file cannot tell
    for word in ("1,234", "3 poison", "2 · 3 · –", "4 signals wait"):
        assert word in page


def test_a_service_tells_what_is_wrong(ran):
    service = Service(replace(ran, clock=lambda: NOW + pd.Timedelta(days=9000)))
    service.live.refresh()
    metrics = Metrics(dict)
    metrics.recent.extend([(0.001, False)] * 97 + [(9.0, False)] * 3)
    found = {alert.kind: alert for alert in found_wrong(service, metrics, Limits())}
    assert set(found) == {"stale", "latency"}
    assert "9000 ms" in found["latency"].text
    quiet = Limits(*[None] * 8)
    assert found_wrong(service, metrics, quiet) == []
    (ran.root / "champion").write_text("0" * 64)
    service.live.refresh()
    assert [a.kind for a in found_wrong(service, metrics, quiet)] == ["model"]


def test_a_running_service_looks_and_tells(ran, monkeypatch):
    monkeypatch.setattr(application, "LOOK", 0.01)
    kept = Kept()
    old = replace(ran, clock=lambda: NOW + pd.Timedelta(days=9000), alerts=Alerts([kept]))
    with serving(old) as client:
        for _ in range(1000):
            client.get("/healthz")
            if kept.told:
                break
    assert kept.told == [("stale", "runs", False)]


def test_lines_of_the_log_carry_the_id_of_the_request(client, caplog):
    lines = []
    with caplog.at_level("INFO", logger="pipeline.api.gate"):
        handler = caplog.handler
        formatter = JsonFormatter()
        emit = handler.emit
        handler.emit = lambda record: (lines.append(formatter.format(record)), emit(record))
        client.get("/v1/signals", headers={"X-Request-ID": "mine-7"})
        handler.emit = emit
    assert "mine-7" in {json.loads(line).get("correlation") for line in lines}
