import json

import pandas as pd
import pytest

from stages.audit.certificate import Certificate
from stages.audit.examine import Finding
from stages.audit.leak import LeakAudit, LeakReport

TIME = pd.Timestamp("2024-05-06 20:00", tz="UTC")
LEAK = Finding("features", "feature.x", "A", TIME, TIME, "garbage", 1, 3, "1", "2")
DIGESTS = {"recipe": "r" * 64, "data": "d" * 64, "code": "c" * 64}


def certified(findings=(), made="2024-06-01T00:00:00+00:00", **more):
    report = LeakReport(findings, {"features": 24}, (TIME,), remarks=("a remark",))
    return Certificate.of(report, LeakAudit(), made, **(DIGESTS | more))


def test_it_comes_back_from_json_as_it_was():
    certificate = certified()
    values = json.loads(json.dumps(certificate.to_json()))
    again = Certificate.from_json(values)
    assert again == certificate
    assert again.made == certificate.made
    assert (again.verdict, again.times) == ("passed", (TIME.isoformat(),))


def test_the_hash_covers_all_but_the_day_it_was_made():
    hashes = {
        certified(made="2025-01-01T00:00:00+00:00").hash,
        certified().hash,
        certified((LEAK,)).hash,
        *(certified(**{name: "x" * 64}).hash for name in DIGESTS),
    }
    assert len(hashes) == 5


@pytest.mark.parametrize(
    "change",
    [{"verdict": "passed", "findings": []}, {"recipe": "0" * 64}, {"checked": {}}, {"more": 1}],
)
def test_a_changed_certificate_is_refused(change):
    values = certified((LEAK,)).to_json() | change
    with pytest.raises(ValueError, match="certificate"):
        Certificate.from_json(values)


def test_a_leak_names_the_part_the_column_and_the_time():
    assert certified((LEAK,)).findings == ("features feature.x A 2024-05-06T20:00:00+00:00",)
    assert certified((LEAK,)).verdict == "leak"


def test_a_verdict_must_fit_its_findings():
    with pytest.raises(ValueError, match="verdict"):
        Certificate("passed", "r", "d", "c", {}, {}, (), findings=("one",))
