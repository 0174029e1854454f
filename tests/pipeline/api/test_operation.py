"""What operators start: the commands of compose.yaml; and the document clients are made from."""

import re
import shlex

import pytest
import yaml
from hypothesis import HealthCheck, given, settings

from pipeline.api.tokens import Tokens, new_token
from pipeline.recipe import check_targets
from tests.conftest import ROOT, composed

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]


@pytest.mark.parametrize("name", ["api", "worker"])
def test_commands_of_containers_compose(name):
    from omegaconf import OmegaConf

    command = COMPOSE[name]["command"]
    text = command if isinstance(command, str) else command[-1]
    text = re.sub(r"\$+\{\w+(?::-(\w+))?\}", lambda found: found[1] or "XNYS", text)
    [line] = [line for line in text.splitlines() if "python -m pipeline." in line]
    words = shlex.split(line)
    module = words[words.index("-m") + 1].removeprefix("pipeline.")
    cfg = composed(module, *words[words.index("-m") + 2 :])
    check_targets(OmegaConf.to_container(cfg, resolve=True))
    assert cfg.root == "/data"  # the only place that a container may write to


def test_no_container_of_ours_runs_as_root_or_is_reached_from_elsewhere():
    for name, service in COMPOSE.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
    for name in ("api", "worker"):
        assert "USER sieve" in COMPOSE[name]["build"]["dockerfile_inline"]
        assert COMPOSE[name]["read_only"]


# the document: a little of what experiments/benchmarks/service does at length


@pytest.fixture(scope="module")
def document():
    return pytest.importorskip("schemathesis").openapi


def test_answers_are_what_the_document_says(document, parts):
    from dataclasses import replace

    import schemathesis

    from tests.pipeline.api.test_browser import running

    text, entry = new_token("fuzz")
    expected = ["2xx", "401", "403", "404", "409", "422", "429", "503"]
    checks = {"positive_data_acceptance": {"expected-statuses": expected}}
    config = schemathesis.Config.from_dict({"checks": checks})
    few = settings(
        max_examples=4, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    seen = set()
    with running(replace(parts, tokens=Tokens.of({"SIEVE_TOKENS": entry}))) as url:
        described = document.from_url(f"{url}/openapi.json", config=config)
        for found in described.get_all_operations():
            operation = found.ok()

            @few
            @given(case=operation.as_strategy())
            def asked(case):
                answer = case.call(headers={"Authorization": f"Bearer {text}"})
                case.validate_response(answer)
                seen.add(answer.status_code)

            asked()
    assert 200 in seen
    assert not any(code == 500 for code in seen)
