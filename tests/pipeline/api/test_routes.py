"""The API from outside: what it answers, and that it is what the pipeline and the store say."""

import json

import jsonschema
import pytest

from pipeline.api.messages import Inquiry, OneSignal, Signal
from pipeline.data.sources import frame
from pipeline.signals_io import to_record
from tests.conftest import ROOT
from tests.pipeline.api.conftest import CONFIG, serving, told

SCHEMA = json.loads((ROOT / "schemas" / "signal-v1.json").read_text())


def ok(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_predictions_are_those_of_the_pipeline(client, tiny, recent):
    import pandas as pd

    said = ok(client.post("/v1/predict", json={"bars": recent}))
    expected = tiny.signals(frame(pd.DataFrame(recent)).bars)
    config = f"{CONFIG}NoneTrue"
    assert said["signals"] == [to_record(signal, config) for signal in expected]
    assert said["model"] == tiny.digest
    assert said["stored"] is None
    for found in said["signals"]:
        jsonschema.validate(found, SCHEMA)


def test_kept_predictions_are_stored_before_the_answer_and_once(own, recent):
    with serving(own) as client:
        first = ok(client.post("/v1/predict", json={"bars": recent, "keep": True}))
        again = ok(client.post("/v1/predict", json={"bars": recent, "keep": True}))
        page = ok(client.get("/v1/signals", params={"strategy": "api"}))
    assert (first["stored"], again["stored"]) == (4, 0)
    assert {found["asset"] for found in page["signals"]} == {"A0", "A1", "A2", "A3"}
    assert [found.record for found in own.store.latest(9)] == [
        {name: found[name] for name in first["signals"][0]} for found in page["signals"]
    ]


def test_other_bars_under_the_same_key_are_refused(own, recent):
    feature = next(name for name in recent[-1] if name.startswith("feature."))
    changed = [*recent[:-1], recent[-1] | {feature: recent[-1][feature] + 3.0}]
    with serving(own) as client:
        ok(client.post("/v1/predict", json={"bars": recent, "keep": True}))
        answer = client.post("/v1/predict", json={"bars": changed, "keep": True})
    assert (answer.status_code, answer.json()["code"]) == (409, "SV-X520")


def test_reasons_may_be_left_out(client, recent):
    said = ok(client.post("/v1/predict", json={"bars": recent, "explain": False}))
    assert {found["explanation"] for found in said["signals"]} == {None}


def test_what_has_expired_abstains_and_never_holds(client, recent):
    asked = {"bars": recent, "as_of": "2100-01-01"}
    said = ok(client.post("/v1/predict", json=asked))
    assert {(found["status"], found["side"]) for found in said["signals"]} == {("abstain", None)}


def test_pages_give_every_signal_once_and_as_it_is_stored(client, parts):
    seen, cursor = [], None
    while True:
        page = ok(
            client.get("/v1/signals", params={"n": 30} | ({"cursor": cursor} if cursor else {}))
        )
        seen += page["signals"]
        cursor = page["next"]
        if cursor is None:
            break
    stored = parts.store.latest(1000)
    assert [found["id"] for found in seen] == [found.id for found in stored]
    for mine, theirs in zip(seen, stored, strict=True):
        assert {name: mine[name] for name in theirs.record} == theirs.record
        Signal.model_validate(mine)


@pytest.mark.parametrize("name", ["asset", "side", "status", "model", "strategy", "config"])
def test_signals_are_narrowed_by(client, parts, name):
    value = parts.store.latest(1)[0].row[name]
    found = ok(client.get("/v1/signals", params={name: value, "n": 500}))["signals"]
    assert len(found) == len(parts.store.latest(1000, **{name: value})) > 0
    assert {one[name] for one in found} == {value}


def test_times_narrow_at_both_ends(client, parts):
    time = parts.store.latest(60)[-1].time
    span = {"since": time.isoformat(), "until": time.isoformat()}
    found = ok(client.get("/v1/signals", params=span))["signals"]
    assert [one["asset"] for one in found] == ["A3", "A2", "A1", "A0"]


def test_active_signals_are_those_of_the_store_at_that_time(client, parts):
    newest = parts.store.latest(1)[0]
    at = newest.time.isoformat()
    answer = ok(client.get("/v1/signals/active", params={"at": at, "n": 2}))
    expected = parts.store.active(newest.time)
    assert answer["count"] == len(expected) > 2
    assert [one["id"] for one in answer["signals"]] == [one.id for one in expected[:2]]
    assert ok(client.get("/v1/signals/active"))["count"] == 0  # the market lies in the past


def test_one_signal_with_its_reasons_and_outcome(client, parts):
    stored = next(one for one in parts.store.latest(100) if one.outcome)
    found = ok(client.get(f"/v1/signals/{stored.id}"))
    assert found["explanation"] == stored.record["explanation"]
    assert found["outcome"]["ret"] == stored.outcome.ret
    missing = client.get("/v1/signals/999999")
    assert (missing.status_code, missing.json()["code"]) == (404, "SV-X533")


def test_what_was_found_out_about_a_signal_comes_with_it(asked, inquired):
    with serving(asked) as client:
        found = ok(client.get("/v1/signals/1"))
        [listed] = ok(client.get("/v1/signals"))["signals"]
        parts = ok(client.get("/openapi.json"))["components"]
    assert "inquiry" not in listed
    OneSignal.model_validate(found)
    jsonschema.validate(found, parts["schemas"]["OneSignal"] | {"components": parts})
    inquiry = found["inquiry"]
    assert inquiry.pop("stored")[:10] == f"{asked.store.inquiry(1).time:%Y-%m-%d}"
    assert inquiry == told(inquired)
    read = Inquiry.model_validate(inquiry | {"stored": "2022-12-28"})
    for name in ("sentence", "change", "lean", "episodes", "lime"):
        assert getattr(read, name) == getattr(inquired, name)
    assert read.asked.lime


def test_a_signal_that_nobody_asked_about_says_so(client, parts):
    found = ok(client.get(f"/v1/signals/{parts.store.latest(1)[0].id}"))
    assert found["inquiry"] is None
    OneSignal.model_validate(found)


def test_performance_is_that_of_the_store(client, parts):
    found = ok(client.get("/v1/performance", params={"by": "side"}))["groups"]
    table = parts.store.performance("side")
    assert [group["group"] for group in found] == [*table.index]
    for group in found:
        assert group["hit_rate"] == pytest.approx(table.loc[group["group"], "hit_rate"])
        assert group["signals"] == table.loc[group["group"], "signals"]


def test_calibration_counts_every_outcome_of_a_side_once(client, parts):
    judged = [one for one in parts.store.latest(1000) if one.outcome and one.row["side"] != "HOLD"]
    hits = sum(one.signal.side == one.outcome.label for one in judged)
    found = ok(client.get("/v1/calibration", params={"days": 7}))
    for part, share, count in (("bins", "accuracy", "rows"), ("periods", "hit_rate", "signals")):
        assert sum(row[count] for row in found[part]) == len(judged)
        assert sum(row[share] * row[count] for row in found[part]) == pytest.approx(hits)
    for row in found["bins"]:
        assert row["low"] <= row["accuracy"] <= row["high"]


def test_health_tells_of_the_model_in_service(client, tiny):
    found = ok(client.get("/v1/health"))
    assert found["model"] == tiny.digest
    assert found["warmup"] == tiny.warmup
    assert found["skill"]["needed"] == 20
    assert "not audited" in found["leak_audit"]
    assert 0 <= found["coverage"]["interval_coverage"] <= 1
    assert found["fault"] is None


def test_models_of_the_root_are_listed(client, tiny):
    [line] = ok(client.get("/v1/models"))["models"]
    assert line["model"] == tiny.digest
    assert line["champion"]
    assert line["in_service"]


def test_ready_tells_the_last_run_and_its_age(parts):
    stored_at = parts.store.latest(1)[0].stored
    with serving(parts) as client:
        found = ok(client.get("/readyz"))
    assert found["ready"]
    assert found["last_run"]["kind"] == "appended"
    assert abs(found["last_run"]["age_seconds"]) < 3600
    assert found["last_run"]["at"][:10] == f"{stored_at:%Y-%m-%d}"
    with serving(parts, stale_after=1e-9) as client:
        answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "last run" in answer.json()["obstacles"][0]


def test_metrics_count_what_was_asked(client, recent, tiny):
    ok(client.post("/v1/predict", json={"bars": recent}))
    client.get("/v1/signals/999999")
    text = client.get("/metrics").text
    assert 'route="/v1/signals/{id}",status="404"} 1.0' in text
    assert f'sieve_model_info{{digest="{tiny.digest}"}} 1.0' in text
    assert "sieve_batch_requests_count 1.0" in text
    assert "sieve_last_run_age_seconds" in text


def test_without_a_model_it_starts_and_says_so(own, tmp_path, recent):
    from dataclasses import replace

    with serving(replace(own, root=tmp_path)) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        answer = client.post("/v1/predict", json={"bars": recent})
        assert (answer.status_code, answer.json()["code"]) == (503, "SV-X410")
        assert "pipeline.train" in answer.json()["cure"]
        assert str(tmp_path) not in answer.text  # where things lie here is nobody's business
        assert client.get("/v1/signals").status_code == 200


def test_the_document_has_examples_and_no_path_without_refusals(client):
    document = ok(client.get("/openapi.json"))
    assert document["openapi"].startswith("3.1")
    schemas = document["components"]["schemas"]
    assert schemas["PredictIn"]["examples"]
    [example] = schemas["Inquiry"]["examples"]
    jsonschema.validate(example, schemas["Inquiry"] | {"components": {"schemas": schemas}})
    for path, methods in document["paths"].items():
        for method in methods.values():
            if path.startswith("/v1/"):
                assert {"401", "422", "429", "500", "503"} <= method["responses"].keys()
                assert method["security"]
