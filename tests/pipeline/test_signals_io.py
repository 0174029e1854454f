import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError

from pipeline.signals_io import from_record, read_records, to_record, write_signals
from stages.base import ConfigError, StoreError
from stages.signal import Lag, Reasons, Signal, WhyNot

SCHEMA = json.loads((Path(__file__).parents[2] / "schemas" / "signal-v1.json").read_text())
VALID = Draft202012Validator(SCHEMA)
TIME = pd.Timestamp("2022-03-01 21:00:00.000123", tz="UTC")
WHY = Reasons(
    side=1,
    baseline=0.125,
    margin=0.625,
    contributions={"momentum_20": 0.75, "rsi_14": -0.25},
    by_stage={"filter.lightgbm": 0.5},
    raw_gap=1e-9,
    references="ab12",
    text=("momentum_20 1.2 favours BUY (+0.750)",),
    by_family={"returns": 0.75, "oscillators": -0.25},
    lags=(Lag("momentum_20", 0, 0.5), Lag("momentum_20", 3, 0.25)),
    effort="fast",
    fidelity={"rows": 32.0, "correlation": 0.97, "relative_l1": 0.25, "top_1": 0.875},
)
LOW = WhyNot("certainty", "certainty 0.61 < 0.80", 0.61, 0.8)
BUY = Signal(
    asset="AAPL",
    time=TIME,
    side=1,
    status="unproven",
    probabilities={-1: 0.25, 0: 0.35, 1: 0.4},
    confidence=0.4,
    certainty=0.85,
    epistemic=0.01,
    aleatoric=1.05,
    expires=TIME + pd.Timedelta(days=7),
    model="m" * 64,
    strength="strong",
    stages={"filter": 0.1, "refiner": None, "ensemble": 0.2, "gate": True},
    reasons=WHY,
    replay={"size": 3, "capacity": 9, "oldest": TIME, "newest": None, "strata": {"1/0": 2}},
    prices={"close": 163.2, "target": 170.0, "stop": 156.4},
    session="2022-03-01",
    why_not=(WhyNot("skill", "skill: e-value 3.1 < 20 after 812 bars", 3.125, 20.0),),
    novelty=1.25,
    disagreement=0.5,
    interval={"low": -0.031, "high": 0.042, "level": 0.95},
    sides=(0, 1),
    skill={
        "e_value": 3.125,
        "needed": 20.0,
        "progress": 0.375,
        "bars": 812,
        "left": 700.5,
        "proven": False,
    },
)
HOLD = replace(BUY, side=0, status="hold", confidence=0.35, why_not=(LOW,), strength="weak")
ABSTAIN = replace(
    BUY,
    asset="BRK.B",
    side=None,
    status="abstain",
    probabilities={},
    confidence=math.nan,
    certainty=math.nan,
    epistemic=math.nan,
    aleatoric=math.nan,
    strength=None,
    reasons=None,
    why_not=(WhyNot.of("history: incomplete"),),
    stages={},
    prices={},
    session=None,
    novelty=math.nan,
    disagreement=math.nan,
    interval={},
    sides=(),
    skill=BUY.skill | {"left": None},
)
SIGNALS = [BUY, replace(HOLD, asset="MSFT"), ABSTAIN]


@pytest.fixture(params=["signals.jsonl", "signals.parquet"])
def path(request, tmp_path) -> Path:
    return tmp_path / "out" / request.param


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.status)
def test_every_status_follows_the_published_schema(signal):
    record = to_record(signal, "config")
    VALID.validate(json.loads(json.dumps(record, allow_nan=False)))


def test_a_record_says_it_in_text():
    record = to_record(BUY, "config")
    assert (record["side"], record["time"]) == ("BUY", "2022-03-01T21:00:00.000123Z")
    assert record["probabilities"] == {"SELL": 0.25, "HOLD": 0.35, "BUY": 0.4}
    assert record["replay"]["oldest"] == record["time"]
    assert to_record(ABSTAIN, "config")["confidence"] is None
    assert record["why_not"] == [
        {
            "key": "skill",
            "text": "skill: e-value 3.1 < 20 after 812 bars",
            "value": 3.125,
            "limit": 20.0,
        }
    ]
    assert (record["sides"], record["interval"]["low"]) == (["HOLD", "BUY"], -0.031)
    assert record["skill"]["proven"] is False


def test_an_interval_without_end_has_none_in_the_record():
    wide = replace(BUY, interval={"low": -1.0, "high": math.inf, "level": 0.95})
    record = to_record(wide, "config")
    assert record["interval"]["high"] is None
    VALID.validate(json.loads(json.dumps(record, allow_nan=False)))
    assert from_record(record).interval == wide.interval


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.status)
def test_a_record_becomes_the_signal_again(signal):
    record = to_record(signal, "config")
    again = from_record(record)
    assert to_record(again, "config") == record
    if signal.status != "abstain":  # NaN differs from itself
        assert replace(again, replay={}) == replace(signal, replay={})


@given(st.floats(0, 1), st.floats(-50, 50), st.text(min_size=1))
@settings(max_examples=50)
def test_no_bit_is_lost_on_the_way(share, margin, asset):
    p = {-1: share / 2, 0: 1 - share, 1: share / 2}
    why = replace(WHY, baseline=margin, margin=margin, contributions={asset: 0.0})
    signal = replace(BUY, asset=asset, probabilities=p, confidence=p[1], reasons=why)
    assert replace(from_record(to_record(signal, "")), replay=signal.replay) == signal


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": "2"},
        {"side": "HOLD"},
        {"side": None},
        {"status": "maybe"},
        {"time": "2022-03-01 21:00"},
        {"probabilities": None},
        {"probabilities": {"SELL": 1.0}},
        {"confidence": None},
        {"certainty": 1.5},
        {"why_not": "text"},
        {"why_not": ["certainty 0.61 < 0.80"]},
        {"why_not": [{"key": "luck", "text": "luck", "value": None, "limit": None}]},
        {"sides": []},
        {"interval": {"low": 0.0}},
        {"skill": {"e_value": 3.0}},
        {"more": 1},
        {"explanation": {"side": "BUY"}},
    ],
    ids=str,
)
def test_the_schema_refuses_a_record_that_contradicts_itself(change):
    with pytest.raises(ValidationError):
        VALID.validate(to_record(BUY, "config") | change)


def test_another_schema_version_is_not_guessed_at():
    with pytest.raises(ValueError, match="schema_version '2'"):
        from_record(to_record(BUY, "") | {"schema_version": "2"})


def test_numpy_values_become_plain_ones():
    trail = {"filter": np.float64(0.5), "refiner": np.float64("nan"), "gate": np.bool_(True)}
    record = to_record(replace(BUY, stages=trail, replay={"x": math.nan}), "")
    assert json.loads(json.dumps(record["stages"])) == {
        "filter": 0.5,
        "refiner": None,
        "gate": True,
    }
    assert record["replay"] == {"x": None}


def test_a_rerun_adds_nothing(path):
    assert write_signals(path, SIGNALS, "config") == 3
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert write_signals(path, SIGNALS[::-1], "config") == 0
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_the_file_is_the_union_of_all_runs(path):
    later = replace(BUY, time=TIME + pd.Timedelta(days=1))
    assert write_signals(path, [BUY], "one") == 1
    assert write_signals(path, [BUY, later], "one") == 1
    assert write_signals(path, [BUY], "two") == 1
    assert write_signals(path, [replace(BUY, model="other")], "one") == 1
    records = read_records(path)
    assert len(records) == 4
    assert records[0] == to_record(BUY, "one")


def test_what_is_read_is_what_was_written(path):
    write_signals(path, SIGNALS, "config")
    expected = sorted((to_record(s, "config") for s in SIGNALS), key=lambda r: r["asset"])
    assert read_records(path) == expected


def test_no_signals_still_make_a_file(path):
    assert write_signals(path, [], "config") == 0
    assert read_records(path) == []


def test_a_stored_signal_is_never_edited(path):
    write_signals(path, SIGNALS, "config")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="AAPL at 2022-03-01T21:00:00.000123Z") as error:
        write_signals(path, [replace(BUY, certainty=0.86)], "config")
    assert error.value.code == "SV-X520"
    assert path.read_bytes() == before


def test_a_parquet_file_has_typed_columns(tmp_path):
    write_signals(tmp_path / "s.parquet", SIGNALS, "config")
    table = pd.read_parquet(tmp_path / "s.parquet")
    assert str(table["time"].dtype) == "datetime64[us, UTC]"
    assert table["confidence"].dtype == "float64"


@pytest.mark.parametrize("content", [b"{", b"[1]\n", b"{}\n", b"\n", b'"text"\n'])
def test_a_file_of_something_else_is_left_alone(path, content):
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="does not hold signals"):
        write_signals(path, SIGNALS, "config")
    assert path.read_bytes() == content


def test_a_parquet_file_of_something_else_is_left_alone(tmp_path):
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "s.parquet")
    with pytest.raises(StoreError, match="does not hold signals"):
        write_signals(tmp_path / "s.parquet", SIGNALS, "config")


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="'.csv'") as error:
        write_signals(tmp_path / "s.csv", SIGNALS, "config")
    assert error.value.cure == "name the file s.jsonl"


def test_a_full_disk_keeps_the_old_file(path, monkeypatch):
    write_signals(path, [BUY], "config")
    before = path.read_bytes()

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.files.os.replace", full)
    with pytest.raises(StoreError, match="No space left"):
        write_signals(path, [ABSTAIN], "config")
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
