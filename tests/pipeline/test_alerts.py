"""Alerts: told once, to the log and to a real HTTP server that may be slow, broken or gone."""

import contextlib
import json
import logging
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest

from pipeline.alerts import Alert, Alerts, Limits, Log
from pipeline.assemble import assemble
from pipeline.webhook import ROOM, Webhook
from stages.base import ConfigError
from tests.conftest import composed

NOW = pd.Timestamp("2024-07-05 20:15", tz="UTC")
FAILED = Alert("failed", "predict", "the file is not there", {"code": 3})
SECRET = "T0P-S3CRET"


@dataclass
class Kept:
    told: list = field(default_factory=list)

    def send(self, record):
        self.told.append(record)

    def close(self):
        self.told.append("closed")


def test_an_alert_is_told_once_again_after_a_day_and_when_it_is_over():
    kept = Kept()
    alerts = Alerts([kept], repeat_hours=24)
    for hour in range(0, 49):
        alerts.tell([FAILED], ["failed"], NOW + pd.Timedelta(hours=hour))
    assert [r["time"][8:13] for r in kept.told] == ["05T20", "06T20", "07T20"]
    assert alerts.tell([], ["quality"], NOW) == []  # it was not looked at
    [over] = alerts.tell([], ["failed"], NOW)
    assert over.resolved
    assert "2024-07-05" in over.text
    assert alerts.standing_ == {}


def test_a_storm_is_bounded():
    kept = Kept()
    alerts = Alerts([kept])
    for minute in range(50):
        storm = [Alert("failed", f"asset {k}", "x" * 10_000) for k in range(100)]
        alerts.tell(storm, ["failed"], NOW + pd.Timedelta(minutes=minute))
    assert len(kept.told) == 100
    assert max(len(r["text"]) for r in kept.told) <= 400
    for k in range(5000):
        alerts.tell([Alert("failed", str(k), "")], [], NOW)
    assert len(alerts.standing_) == 1000


def test_what_stands_survives_a_restart_as_json():
    kept = Kept()
    first, second = Alerts([kept]), Alerts([kept])
    first.tell([FAILED], ["failed"], NOW)
    second.standing_ = json.loads(json.dumps(first.standing_))
    second.tell([FAILED], ["failed"], NOW + pd.Timedelta(hours=1))
    assert len(kept.told) == 1


def test_the_log_hears_of_it(caplog):
    with caplog.at_level(logging.WARNING):
        Alerts([Log()]).tell([FAILED], [], NOW)
    assert caplog.messages == ["alert: failed, predict: the file is not there"]


@pytest.mark.parametrize("limits", [{"quality": -1}, {"valid": 1.5}, {"age_hours": True}])
def test_limits_out_of_range_are_refused(limits):
    with pytest.raises(ValueError, match="need"):
        Limits(**limits)


@pytest.mark.parametrize("choice", ["default", "webhook", "none"])
def test_every_choice_of_the_configuration_builds(choice, monkeypatch):
    monkeypatch.setenv("SIEVE_WEBHOOK", "http://127.0.0.1:9/x")
    alerts = assemble(composed("schedule", f"alerts={choice}"), "alerts")
    assert len(alerts.senders) == {"default": 1, "webhook": 2, "none": 0}[choice]
    alerts.close()


# the webhook


class Server(ThreadingHTTPServer):
    """Answers with the given statuses in turn, then 200; keeps what it was sent."""

    daemon_threads = True

    def __init__(self, *statuses, held=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.statuses, self.held, self.got = list(statuses), held, []
        self.came = threading.Semaphore(0)

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}/{SECRET}"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):  # noqa: N802  the name that http.server calls
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.held is not None:
            self.server.held.wait(20)
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        self.server.got.append((self.path, json.loads(body)))
        with contextlib.suppress(OSError):
            self.send_response(status)
            if status == 302:
                self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/other")
            self.send_header("Content-Length", "0")
            self.end_headers()
        self.server.came.release()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(monkeypatch, *statuses, held=None):
    server = Server(*statuses, held=held)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setenv("SIEVE_WEBHOOK", server.address)
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def test_an_alert_is_posted_as_json(monkeypatch):
    with serving(monkeypatch) as server:
        hook = Webhook(pause=0)
        Alerts([hook]).tell([FAILED], ["failed"], NOW)
        hook.close()
    [(path, body)] = server.got
    assert path == f"/{SECRET}"
    assert body["text"] == "Alert: failed, predict: the file is not there"
    assert body["details"] == {"code": 3}
    assert body["time"] == NOW.isoformat()


@pytest.mark.parametrize(
    ("statuses", "tries", "posted", "word"),
    [
        ((500, 503, 429), 5, 4, ""),  # taken at last
        ((500,) * 9, 3, 3, "status 500, 3 times"),
        ((404,), 5, 1, "status 404"),  # it would not be taken later either
        ((302,), 5, 1, "status 302"),  # what it points to was not meant
    ],
)
def test_it_is_tried_again_where_that_helps(monkeypatch, caplog, statuses, tries, posted, word):
    with serving(monkeypatch, *statuses) as server:
        hook = Webhook(tries=tries, pause=0.001)
        hook.send(FAILED.record(NOW))
        hook.close()
    assert len(server.got) == posted
    assert (word in caplog.text) if word else not caplog.text
    assert SECRET not in caplog.text


def test_a_server_that_is_gone_is_logged_without_its_address(monkeypatch, caplog):
    with serving(monkeypatch):
        pass  # now nobody listens there
    hook = Webhook(tries=2, pause=0.001, timeout=1)
    hook.send(FAILED.record(NOW))
    hook.close()
    assert "Connection refused, 2 times: Alert: failed, predict" in caplog.text
    assert SECRET not in caplog.text
    assert "127.0.0.1" not in caplog.text


def test_a_server_that_hangs_holds_up_nobody(monkeypatch, caplog):
    held = threading.Event()
    with serving(monkeypatch, held=held) as server:
        hook = Webhook(timeout=0.2, tries=1, pause=0)
        began = time.process_time()
        for k in range(3 * ROOM):
            hook.send(Alert("failed", str(k), "storm").record(NOW))
        assert time.process_time() - began < 2
        assert "too slow" in caplog.text  # what did not fit went to the log
        hook.close()
        held.set()
        assert not server.got or len(server.got) < 3 * ROOM
    assert "not posted" in caplog.text


@pytest.mark.parametrize("text", ["", "ftp://x/y", f"{SECRET}", f"https://x/ {SECRET}", "https://"])
def test_what_is_no_address_is_refused_without_showing_it(monkeypatch, text):
    monkeypatch.setenv("SIEVE_WEBHOOK", text)
    with pytest.raises(ConfigError) as refused:
        Webhook()
    assert refused.value.code == "SV-F33"
    assert SECRET not in str(refused.value)
