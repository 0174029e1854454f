import json
import re
from dataclasses import replace
from functools import partial

import pytest

from pipeline.artifacts import read_certificate
from pipeline.certificates import recipe_digest, standing, write_certificate
from pipeline.signal_pipeline import SignalPipeline
from stages.audit.certificate import Certificate
from stages.audit.leak import LeakAudit
from stages.audit.zoo.columns import shifted
from stages.audit.zoo.honest import Bars
from stages.audit.zoo.panels import peeking
from stages.base import ArtifactError
from stages.features.build import FeatureSet
from stages.features.returns import log_return
from stages.labels import TripleBarrier
from tests.conftest import PLANTED, command, tiny_pipeline

BRIEF = ("audit.times=4", "audit.fits=1", "audit.decisions=1", "audit.bars=120", "audit.assets=3")


@pytest.fixture(scope="module")
def audited(trained, tmp_path_factory):
    """The champion of a root after an audit of the configuration it was trained with."""
    root, _ = trained
    ended = command("audit", *PLANTED, f"root={root}", *BRIEF, "audit.nulls=false")
    return root, ended


def test_an_honest_configuration_passes_and_its_champion_is_certified(audited):
    root, ended = audited
    assert ended.code == 0, ended.err
    assert "leak audit: passed" in ended.out
    assert "labels come with the data" in ended.out
    folder = next((root / "models").iterdir())
    found = read_certificate(folder)
    assert found.verdict == "passed"
    assert {"folds", "filter", "refiner", "ensemble", "decision", "learnt"} <= set(found.checked)
    assert found.hash[:12] in ended.out
    copies = [read_certificate(p.parent) for p in root.rglob("runs/**/certificate.json")]
    assert found in copies
    SignalPipeline.load(folder)  # the artifact is as whole as before


def test_predict_shows_the_certificate_in_a_line(audited):
    root, _ = audited
    ended = command("predict", *PLANTED, f"root={root}", "explain_rows=false", "json=true")
    assert ended.code == 0, ended.err
    (folder,) = (root / "models").iterdir()
    said = " ".join(ended.err.split())
    assert re.search(r"leak audit: passed 20\d\d-\d\d-\d\d, \d+ decision times", said)
    assert read_certificate(folder).hash[:12] in said
    json.loads(ended.out)


def test_a_model_that_nobody_audited_says_so(tiny_folder, tiny, tmp_path):
    assert "not audited" in standing(tmp_path, tiny)


# a leak from the command line


def test_a_planted_leak_ends_with_seven_and_names_the_column(tmp_path):
    peek = "{_target_: stages.audit.zoo.columns.shifted, _partial_: true, ahead: 1}"
    words = ("data.start=2020-01-01", "data.assets=[AAPL,JPM,XOM]", "filter=lightgbm")
    ended = command(
        *("audit", f"root={tmp_path}", *words, "refiner=none", *BRIEF, "audit.first=true"),
        *(f"+features.columns.peek={peek}", "json=true"),
    )
    assert ended.code == 7, ended.err
    said = json.loads(ended.out)
    assert said["verdict"] == "leak"
    first = said["findings"][0]
    assert (first["component"], first["column"], first["ahead"]) == ("features", "feature.peek", 1)
    error = json.loads(ended.err.strip().splitlines()[-1])
    assert (error["code"], error["exit_code"]) == ("SV-F22", 7)
    (path,) = tmp_path.rglob("certificate.json")
    assert json.loads(path.read_text())["findings"][0].startswith("features feature.peek")


@pytest.mark.parametrize(
    ("words", "cure"),
    [(["check=warmth"], "check=leak"), (["audit.bars=10"], "audit"), (["model=champion"], "train")],
)
def test_what_cannot_be_audited_is_refused_with_a_cure(tmp_path, words, cure):
    ended = command("audit", *PLANTED, f"root={tmp_path}", *words)
    assert ended.code in (2, 4)
    assert cure in ended.err


# certificates


@pytest.fixture(scope="module")
def certificate(tiny):
    from pipeline.certificates import code_digest

    return Certificate(
        verdict="passed",
        recipe=recipe_digest(tiny),
        data="d" * 64,
        code=code_digest(),
        audit={"seed": 0},
        checked={"features": 24},
        times=("2024-05-06T20:00:00+00:00",),
        made="2024-06-01T00:00:00+00:00",
    )


def test_a_certificate_beside_a_model_is_read_back(tiny, tmp_path, certificate):
    write_certificate(tmp_path, certificate)
    assert read_certificate(tmp_path) == certificate
    line = standing(tmp_path, tiny)
    assert line == (
        f"leak audit: passed 2024-06-01, 1 decision times, certificate {certificate.hash[:12]}"
    )


def test_a_certificate_of_another_configuration_vouches_for_nothing(tmp_path, certificate):
    write_certificate(tmp_path, certificate)
    assert "another configuration" in standing(tmp_path, tiny_pipeline(max_missing=0.3))


def test_a_certificate_by_other_code_is_told(tiny, tmp_path, certificate):
    write_certificate(tmp_path, replace(certificate, code="0" * 64))
    assert "other code" in standing(tmp_path, tiny)


def test_a_leak_is_shown_as_one(tiny, tmp_path, certificate):
    leak = replace(certificate, verdict="leak", findings=("features feature.x A 2024",))
    write_certificate(tmp_path, leak)
    assert "LEAK FOUND" in standing(tmp_path, tiny)


def test_a_changed_certificate_is_refused_and_vouches_for_nothing(tiny, tmp_path, certificate):
    path = write_certificate(tmp_path, certificate)
    path.write_text(path.read_text().replace('"features":24', '"features":25').replace("24", "25"))
    with pytest.raises(ArtifactError, match="not what was written"):
        read_certificate(tmp_path)
    assert "not audited" in standing(tmp_path, tiny)


# the audit itself


def ground(**parts):
    features = FeatureSet({"one": log_return, "five": partial(log_return, bars=5)})
    given = {"labels": TripleBarrier(horizon=1, delay=0), "refiner": None} | parts
    return tiny_pipeline(features=features, **given), Bars(assets=3, times=200, seed=0).draw()


def test_the_first_leak_stops_an_audit_that_is_asked_to():
    pipeline, bars = ground()
    leaky = replace(pipeline, features=peeking(pipeline.features, "columns", shifted))
    audit = LeakAudit(times=4, bars=120, first=True)
    report = audit.run(leaky, bars)
    assert report.findings[0].column == "feature.peek"
    assert "filter" not in report.checked
    assert report.nulls == ()


def test_an_audit_is_the_same_for_the_same_seed_and_looks_elsewhere_for_another():
    pipeline, bars = ground()
    leaky = replace(pipeline, features=peeking(pipeline.features, "columns", shifted))
    one, two, other = (
        LeakAudit(times=4, bars=120, first=True, seed=seed).run(leaky, bars) for seed in (1, 1, 2)
    )
    assert one == two
    assert one.times != other.times


@pytest.mark.parametrize("wrong", [{"times": 0}, {"bars": 20}, {"seed": -1}, {"fits": 0}])
def test_a_size_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match="need"):
        LeakAudit(**wrong)
