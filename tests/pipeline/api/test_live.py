"""One model an answer: batches, swaps under load, refused champions, and a real process."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pandas as pd
import pytest

from pipeline import artifacts
from pipeline.api.app import build
from pipeline.api.live import LiveModel
from pipeline.api.served import Asked, Served
from pipeline.api.tokens import new_token
from pipeline.data.sources import frame
from pipeline.signal_pipeline import SignalPipeline
from pipeline.signals_io import to_record
from pipeline.store.signal_store import utc_now
from stages.base import SieveError
from stages.online.replay import ReplayBuffer
from tests.conftest import ROOT, command, tiny_pipeline
from tests.pipeline.api.conftest import rows

SWAPS = 4  # under 10 requests each; the benchmark sends 1,000 requests


@pytest.fixture(scope="module")
def two(tiny_market, tmp_path_factory):
    """A root with two models that say different things, and their digests."""
    root, digests = tmp_path_factory.mktemp("two"), []
    for seed in (0, 1):
        small = tiny_pipeline(
            seed, refiner=None, replay=ReplayBuffer(window=1, capacity=100), coverage=None
        )
        fitted = small.fit(tiny_market.panel, tiny_market.y)
        fitted.save(root / "models")
        digests.append(fitted.digest)
    artifacts.promote(root, digests[0])
    return root, digests


def asked(market, k):
    """The bars of request `k`: other assets, lengths and times for each."""
    names = [f"A{i}" for i in range(1 + k % 4)]
    bars = market.panel[market.panel.index.isin(names, "asset")]
    until = bars.index.unique("time")[100 + 3 * (k % 50)]
    bars = bars[bars.index.get_level_values("time") <= until]
    return bars.groupby(level="asset").tail(9 + k % 5)


def records(said):
    return [to_record(one, "c") for one in said]


def test_requests_answered_together_get_the_bits_they_would_get_alone(tiny, tiny_market):
    served = Served.of(tiny)
    asks = [Asked(asked(tiny_market, k), None, k % 2 == 0) for k in range(6)]
    together = served.answers(asks)
    for one, said in zip(asks, together, strict=True):
        alone = tiny.signals(one.bars, explain=one.explain)
        assert records(said) == records(alone)


def test_a_request_that_fails_harms_no_other(tiny, tiny_market):
    good, short = asked(tiny_market, 0), asked(tiny_market, 1).groupby(level="asset").tail(2)
    lacking = good.drop(columns=[c for c in good if c.startswith("feature.")][:1])
    first, second, third, fourth = Served.of(tiny).answers(
        [Asked(good), Asked(short), Asked(lacking), Asked(good)]
    )
    assert isinstance(second, SieveError)
    assert second.code == "SV-F18"
    assert isinstance(third, SieveError)
    assert records(first) == records(fourth) == records(tiny.signals(good))


def test_while_models_are_swapped_each_answer_is_wholly_from_one(two, parts, tiny_market):
    root, digests = two
    bars = [asked(tiny_market, k) for k in range(10)]
    posted = [rows(table) for table in bars]
    expected = {}
    for digest in digests:
        served = SignalPipeline.load(artifacts.find(root, digest))
        for k, table in enumerate(posted):
            said = served.signals(frame(pd.DataFrame(table)).bars, explain=k == 0)
            expected[digest, k] = records(said)

    async def run():
        still = replace(parts.settings, poll=3600.0)  # the pointer is looked at below
        app = build(replace(parts, settings=still, root=root, config=lambda as_of, explain: "c"))
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as c:
                answers = []
                for turn in range(SWAPS):
                    under_way = [asyncio.create_task(ask(c, k)) for k in range(10)]
                    artifacts.promote(root, digests[(turn + 1) % 2])
                    assert await asyncio.to_thread(app.state.service.live.refresh)
                    answers += await asyncio.gather(*under_way)
                return answers, app.state.service.live.swaps

    async def ask(client, k):
        body = {"bars": posted[k], "explain": k == 0}
        return await client.post("/v1/predict", json=body)

    answers, swaps = asyncio.run(run())
    assert swaps == SWAPS
    seen = set()
    for k, answer in enumerate(answers):
        assert answer.status_code == 200, answer.text
        said = answer.json()
        seen.add(said["model"])
        assert said["signals"] == expected[said["model"], k % 10]
    assert seen == set(digests)
    assert max(answer.json()["batch"] for answer in answers) > 1


def test_a_champion_that_cannot_be_loaded_leaves_the_one_before_in_service(two, tmp_path):
    import shutil

    root, (first, second) = two
    own = tmp_path / "root"
    shutil.copytree(root, own)
    artifacts.promote(own, first)
    live = LiveModel(own, None, utc_now)
    assert live.refresh()
    artifacts.promote(own, second)
    damaged = next(p for p in artifacts.find(own, second).iterdir() if p.suffix == ".txt")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert not live.refresh()
    assert live.now().digest == first
    assert live.fault is not None
    assert live.fault.code == "SV-F29"
    artifacts.promote(own, first)
    assert not live.refresh()
    assert live.fault is None


def test_too_many_that_wait_are_told_to_come_later(parts, recent):
    async def run():
        app = build(replace(parts, settings=replace(parts.settings, queue=2, batch=1)))
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as c:
                body = {"bars": recent, "explain": False}
                return await asyncio.gather(*[c.post("/v1/predict", json=body) for _ in range(8)])

    answers = asyncio.run(run())
    codes = [answer.status_code for answer in answers]
    assert set(codes) == {200, 503}
    refusal = answers[codes.index(503)]
    assert refusal.json()["code"] == "SV-X711"
    assert int(refusal.headers["retry-after"]) >= 1


# a real process


@pytest.fixture
def started(two, stored, tmp_path):
    """Start ``python -m pipeline.serve``; it is ended afterwards."""
    running = []

    def start(*words, **environment):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        words = ["data=synthetic", f"root={two[0]}", f"store={stored}", "service.port=0", *words]
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.serve", *words, f"hydra.run.dir={tmp_path}/run"],
            env=environment,
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        running.append(process)
        for line in process.stderr:
            if found := re.search(r"serving (http://\S+),", line):
                return process, found[1]
        return process, ""

    yield start
    for process in running:
        process.kill()
        process.stderr.close()
        process.wait()


def test_a_real_service_starts_answers_and_ends(started, two, tiny_market):
    text, entry = new_token("tests")
    process, url = started(SIEVE_TOKENS=entry)
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {text}"}, timeout=60) as c:
        while not c.get("/readyz").is_success:
            time.sleep(0.1)
        said = c.post(
            "/v1/predict", json={"bars": rows(asked(tiny_market, 3)), "explain": False}
        ).json()
        assert said["model"] == artifacts.read(artifacts.champion(two[0])).digest
        assert len(said["signals"]) == 4
        assert c.get("/v1/signals").json()["signals"]
        assert httpx.get(f"{url}/v1/signals").status_code == 401
        assert refuses(c, "Bearer " + 1_000_000 * "x")
        assert c.get("/v1/signals").is_success
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) in (0, -signal.SIGTERM)


def refuses(client, words):
    """Whether a header is answered with a refusal, or the line is closed on it."""
    try:
        return 400 <= client.get("/v1/models", headers={"Authorization": words}).status_code < 500
    except httpx.TransportError:
        return True


def test_a_service_refuses_another_address_without_a_token(tmp_path, monkeypatch):
    monkeypatch.delenv("SIEVE_TOKENS", raising=False)
    words = [f"root={tmp_path}", "data=synthetic", "json=true"]
    ended = command("serve", *words, "service.host=0.0.0.0")
    error = json.loads(ended.err.splitlines()[-1])
    assert (ended.code, error["code"]) == (2, "SV-F36")
    assert "new_token" in error["cure"]
    assert not Path(tmp_path / "signals.db").exists()


def test_a_new_token_is_printed_with_its_hash_and_no_service_starts(tmp_path):
    ended = command("serve", f"root={tmp_path}", "new_token=desk")
    assert ended.code == 0
    text = re.search(r"token, shown once: (\S+)", ended.out)[1]
    entry = re.search(r"SIEVE_TOKENS=(\S+)", ended.out)[1]
    from pipeline.api.tokens import Tokens

    assert Tokens.of({"SIEVE_TOKENS": entry}).holder(text.encode(), utc_now()) == "desk"


def test_a_missing_extra_names_itself(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    ended = command("serve", f"root={tmp_path}", "data=synthetic")
    assert ended.code == 2
    assert "sieve-signals[api]" in ended.err


def test_small_answers_do_not_wait_for_an_acknowledgement():
    import socket

    from pipeline.serve import _listen

    with _listen("127.0.0.1", 0) as listening:
        assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_that_is_taken_is_told(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = command("serve", f"root={tmp_path}", "data=synthetic", f"service.port={port}")
    assert ended.code == 2
    assert f"port {port}" in ended.err
