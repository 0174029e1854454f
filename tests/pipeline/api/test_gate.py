"""What stands before the API: names, tokens, rates, sizes, and errors that say their cure."""

import hashlib
import re
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.api.limits import Rate
from pipeline.api.settings import Settings
from pipeline.api.tokens import Tokens, new_token
from stages.base import ConfigError
from tests.pipeline.api.conftest import serving

NOW = pd.Timestamp("2022-03-01", tz="UTC")
PROBLEM = {
    *("type", "title", "status", "detail", "instance", "code", "where", "why", "cure"),
    "request_id",
}


def problem(answer, status, code):
    """The refusal, after a look at its shape."""
    assert (answer.status_code, answer.headers["content-type"]) == (
        status,
        "application/problem+json",
    ), answer.text
    found = answer.json()
    assert found.keys() == PROBLEM
    assert (found["status"], found["code"]) == (status, code)
    assert found["request_id"] == answer.headers["x-request-id"]
    assert found["cure"]
    return found


# tokens


def test_a_token_opens_and_its_hash_does_not():
    text, entry = new_token("desk")
    tokens = Tokens.of({"SIEVE_TOKENS": entry})
    assert tokens.holder(text.encode(), NOW) == "desk"
    assert tokens.holder(entry.partition(":")[2].encode(), NOW) is None
    assert tokens.holder(b"", NOW) is None
    assert text not in entry


@settings(max_examples=30)
@given(st.binary(max_size=200))
def test_no_other_bytes_open(presented):
    text, entry = new_token("desk")
    assert Tokens.of({"SIEVE_TOKENS": entry}).holder(presented, NOW) is None


def test_a_token_ends_on_its_day():
    text, entry = new_token("desk")
    tokens = Tokens.of({"SIEVE_TOKENS": f"{entry}:2022-03-01, {new_token('other')[1]}"})
    assert tokens.holder(text.encode(), NOW - pd.Timedelta("1us")) == "desk"
    assert tokens.holder(text.encode(), NOW) is None


@pytest.mark.parametrize(
    "bad",
    [
        "secret",
        "desk:abc",
        "desk:" + 64 * "G",
        "a b:" + 64 * "0",
        "desk:" + 64 * "0" + ":2022-13-01",
    ],
)
def test_what_is_no_entry_is_refused_without_being_shown(bad):
    with pytest.raises(ConfigError) as error:
        Tokens.of({"SIEVE_TOKENS": bad})
    assert error.value.code == "SV-F36"
    assert "secret" not in str(error.value)
    assert "new_token" in error.value.cure


PRIVATE = [
    *(("GET", path) for path in ("/v1/signals", "/v1/signals/1", "/v1/health", "/v1/models")),
    *(
        ("GET", path)
        for path in ("/v1/performance", "/v1/calibration", "/metrics", "/", "/nothing")
    ),
    *(("POST", "/v1/predict"), ("PUT", "/v1/predict"), ("DELETE", "/v1/signals/1")),
]
WRONG = ["", "Bearer", "Bearer x", "Basic dTpw", "Bearer " + 10_000 * "ä", "bearer\tx"]


@pytest.mark.parametrize(("method", "path"), PRIVATE)
def test_nothing_is_answered_without_a_token(guarded, method, path):
    client, _ = guarded
    for words in WRONG:
        headers = {"Authorization": words.encode("latin-1")} if words else {}
        answer = client.request(method, path, headers=headers)
        found = problem(answer, 401, "SV-F36")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "x" not in found["detail"]


def test_a_token_opens_the_api_and_a_cookie_does_not(guarded):
    client, text = guarded
    assert client.get("/v1/signals", headers={"Authorization": f"Bearer {text}"}).is_success
    answer = client.get("/v1/signals", cookies={"sieve_token": text})
    problem(answer, 401, "SV-F36")


def test_health_needs_no_token(guarded):
    client, _ = guarded
    assert client.get("/healthz").is_success
    assert client.get("/readyz").is_success


def test_a_token_never_stands_in_the_log(guarded, caplog):
    client, text = guarded
    caplog.set_level("DEBUG", "pipeline")
    client.get("/v1/signals", headers={"Authorization": f"Bearer {text}"})
    client.get("/v1/signals", headers={"Authorization": f"Bearer {text}x"})
    assert "GET /v1/signals 200" in caplog.text
    assert "tests" in caplog.text  # its holder does
    assert text not in caplog.text
    assert hashlib.sha256(text.encode()).hexdigest() not in caplog.text


def test_another_address_than_loopback_needs_a_token():
    Settings(host="::1").refuse_open(0)
    Settings(host="0.0.0.0").refuse_open(1)
    with pytest.raises(ConfigError) as error:
        Settings(host="0.0.0.0").refuse_open(0)
    assert error.value.code == "SV-F36"


def test_a_name_from_elsewhere_is_refused_on_loopback(client):
    problem(client.get("/v1/signals", headers={"Host": "evil.example"}), 421, "SV-F36")
    assert client.get("/v1/signals", headers={"Host": "localhost:9999"}).is_success
    assert client.get("/v1/signals", headers={"Host": "[::1]:80"}).is_success


# rates


def test_a_caller_gets_a_burst_and_then_the_rate():
    now = [0.0]
    rate = Rate(2.0, 3, lambda: now[0])
    assert [rate.wait("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert rate.wait("b") == 0
    now[0] = 0.5
    assert [rate.wait("a"), rate.wait("a")] == [0, 0.5]
    now[0] = 100.0
    assert [rate.wait("a") for _ in range(4)] == [0, 0, 0, 0.5]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 3)), max_size=60))
def test_no_caller_passes_more_often_than_the_burst_and_the_rate_allow(asked):
    now, passed = [0.0], {"a": [], "b": []}
    rate = Rate(1.5, 2, lambda: now[0])
    for caller, pause in asked:
        now[0] += pause
        if rate.wait(caller) == 0:
            passed[caller].append(now[0])
    for times in passed.values():
        for i, first in enumerate(times):
            for k, last in enumerate(times[i:], start=1):
                assert k <= 2 + 1.5 * (last - first) + 1e-9


def test_callers_beyond_measure_are_forgotten_the_idle_ones_first():
    now = [0.0]
    rate = Rate(1.0, 2, lambda: now[0])
    rate.wait("idle")
    now[0] = 10.0
    rate.wait("busy"), rate.wait("busy")
    for k in range(9_999):
        rate.wait(f"c{k}")
    assert len(rate._buckets) <= 10_000
    assert rate.wait("busy") > 0


def test_too_often_is_told_when_to_come_again(parts):
    with serving(parts, rate=0.01, burst=3) as client:
        answers = [client.get("/v1/models") for _ in range(4)]
        assert [a.status_code for a in answers[:3]] == [200] * 3
        problem(answers[3], 429, "SV-X711")
        assert int(answers[3].headers["retry-after"]) > 1
        assert client.get("/healthz").is_success


def test_guesses_at_a_token_are_limited_too(parts):
    guarded = replace(parts, tokens=Tokens.of({"SIEVE_TOKENS": new_token("desk")[1]}))
    with serving(guarded, rate=0.01, burst=3) as client:
        wrong = {"Authorization": "Bearer x"}
        codes = [client.get("/v1/models", headers=wrong).status_code for _ in range(5)]
    assert codes == [401, 401, 401, 429, 429]


# bodies


def post(client, content, **headers):
    kind = {"Content-Type": "application/json"}
    return client.post("/v1/predict", content=content, headers=kind | headers)


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(parts):
    taken = []

    def chunks():
        for _ in range(1000):
            taken.append(1)
            yield 10_000 * b" "

    with serving(parts, max_body=50_000) as client:
        problem(post(client, 60_000 * b" "), 413, "SV-F37")
        problem(post(client, chunks()), 413, "SV-F37")
        problem(post(client, b"{}", **{"Content-Length": "99999999999"}), 413, "SV-F37")


@pytest.mark.parametrize(
    "content",
    [
        b'{"bars": [',
        b'{"bars": [{"asset": "A", "close": NaN}]}',
        b'{"bars": [{"asset": "A", "close": -Infinity}]}',
        b'{"bars": [{"asset": "A", "asset": "B"}]}',
        100_000 * b"[",
        b"\xff\xfe\x00",
        b'{"bars": [{"asset": "\\udcff"}]}',
        b'{"bars": [{"asset": "A", "close": 1' + 5000 * b"0" + b"}]}",
    ],
    ids=["cut", "nan", "infinity", "twice", "deep", "bytes", "half", "digits"],
)
def test_json_that_readers_could_disagree_about_is_refused(client, content):
    problem(post(client, content), 400, "SV-F37")


def test_a_compressed_body_is_refused(client):
    problem(post(client, b"x", **{"Content-Encoding": "gzip"}), 415, "SV-F37")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"bars": []},
        {"bars": [{}], "more": 1},
        {"bars": [[1]]},
        {"bars": [{"asset": {}}]},
        [],
        "bars",
    ],
)
def test_a_body_of_another_shape_is_refused_with_its_place(client, body):
    assert problem(client.post("/v1/predict", json=body), 422, "SV-F33")["where"]


@pytest.mark.parametrize(
    "bars",
    [
        [{"asset": "A", "time": "2020-01-01"}],
        [{"asset": "A", "close": 1.0}],
        [{"time": "2020-01-01", "close": 1.0}],
        [{"asset": "A", "time": "soon", "close": 1.0}],
        [{"asset": "A", "time": "2020-01-01T00:00:00Z", "close": "x"}],
        [{"asset": "A", "time": "2020-01-01T00:00:00Z", "close": -1.0}],
        [{"asset": None, "time": None, "close": None}],
        [{"asset": "A", "time": 5, "close": 1.0}],
        [{}],
        [{"": 1.0}],
    ],
)
def test_bars_that_break_their_contract_are_refused_with_a_cure(client, bars):
    answer = client.post("/v1/predict", json={"bars": bars})
    problem(answer, 422, answer.json()["code"])


@pytest.mark.parametrize(
    "asked",
    [
        "n=0",
        "n=x",
        "side=buy",
        "since=soon",
        "cursor=x",
        "cursor=1.2.3.4",
        "more=1",
        "asset=",
        "asset=%00",
        "until=0000-01-01",
    ],
)
def test_parameters_of_another_kind_are_refused(client, asked):
    answer = client.get(f"/v1/signals?{asked}")
    problem(answer, 422, answer.json()["code"])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/signals/", 404),
        ("DELETE", "/v1/signals", 405),
        ("GET", "/v1/predict", 405),
        ("TRACE", "/v1/signals", 405),
    ],
)
def test_paths_and_methods_that_are_not_there_are_problems_too(client, method, path, status):
    problem(client.request(method, path), status, "SV-X712")


@pytest.mark.parametrize(
    "text",
    [
        "'; DROP TABLE signals; --",
        "<script>alert(1)</script>",
        "=cmd|' /C calc'!A0",
        "../../etc/passwd",
        "a\r\nX-Evil: 1",
    ],
)
def test_texts_are_texts(client, parts, text):
    found = client.get("/v1/signals", params={"asset": text})
    assert (found.status_code, found.json()["signals"]) == (200, [])
    bars = [{"asset": text, "time": "2020-01-01T00:00:00Z", "close": 1.0}]
    assert client.post("/v1/predict", json={"bars": bars}).status_code == 422
    assert parts.store.verify().signals > 0


def test_a_request_keeps_the_id_it_came_with_if_it_is_one(client):
    assert client.get("/healthz", headers={"X-Request-ID": "a-1"}).headers["x-request-id"] == "a-1"
    for bad in ("", "a b", 65 * "a", "a\tb"):
        answer = client.get("/healthz", headers={"X-Request-ID": bad})
        assert re.fullmatch("[0-9a-f]{16}", answer.headers["x-request-id"])


def test_a_fault_of_ours_tells_the_caller_its_number_only(client, caplog, monkeypatch):
    monkeypatch.setattr(client.app.state.service, "models", lambda: 1 / 0)
    found = problem(client.get("/v1/models"), 500, "SV-X500")
    assert "ZeroDivision" not in str(found)
    assert "ZeroDivisionError" in caplog.text
    assert found["request_id"] in caplog.text
