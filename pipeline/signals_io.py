"""Signals as they leave the product: records of a published schema, written once each."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.files import json_bytes, replace_atomic, write_atomic
from stages.base import ConfigError, StoreError
from stages.signal import (
    SIDE_NUMBER,
    SIDE_TEXT,
    Appraisal,
    Finding,
    Lag,
    Reasons,
    Signal,
    WhyNot,
)

SCHEMA_VERSION = "1"  # of schemas/signal-v1.json
KEY = ("asset", "time", "model", "config")
Record = dict[str, Any]

_TIME = pa.timestamp("us", tz="UTC")
_SIDES = pa.struct([(text, pa.float64()) for text in SIDE_TEXT.values()])
_DOUBTS = pa.struct([("epistemic", pa.float64()), ("aleatoric", pa.float64())])
_INTERVAL = pa.struct([(name, pa.float64()) for name in ("low", "high", "level")])
_TABLE = pa.schema(
    [
        ("schema_version", pa.string()),
        ("asset", pa.string()),
        ("time", _TIME),
        ("session", pa.string()),
        ("side", pa.string()),
        ("status", pa.string()),
        ("strength", pa.string()),
        ("probabilities", _SIDES),
        ("confidence", pa.float64()),
        ("certainty", pa.float64()),
        ("uncertainty", _DOUBTS),
        ("why_not", pa.string()),  # JSON text from here on where the keys are the model's
        ("stages", pa.string()),
        ("explanation", pa.string()),
        ("prices", pa.string()),
        ("replay", pa.string()),
        ("expires", _TIME),
        ("model", pa.string()),
        ("config", pa.string()),
        ("novelty", pa.float64()),
        ("disagreement", pa.float64()),
        ("interval", _INTERVAL),
        ("sides", pa.list_(pa.string())),
        ("skill", pa.string()),
        ("appraisal", pa.string()),
    ]
)
_TIMES = ("time", "expires")
_TEXTS = ("why_not", "stages", "explanation", "prices", "replay", "skill", "appraisal")
_ADDED = {"appraisal": None}  # to the schema since its first files, which lack it


def to_record(signal: Signal, config: str) -> Record:
    """Give the JSON record of a signal, as ``schemas/signal-v1.json`` describes it.

    Parameters
    ----------
    signal : Signal
    config : str
        Digest of the settings it was made with.
    """
    odds = {SIDE_TEXT[side]: float(p) for side, p in sorted(signal.probabilities.items())}
    doubts = {"epistemic": signal.epistemic, "aleatoric": signal.aleatoric}
    return {
        "schema_version": SCHEMA_VERSION,
        "asset": signal.asset,
        "time": _text(signal.time),
        "session": signal.session,
        "side": None if signal.side is None else SIDE_TEXT[signal.side],
        "status": signal.status,
        "strength": signal.strength,
        "probabilities": odds or None,
        "confidence": _number(signal.confidence),
        "certainty": _number(signal.certainty),
        "uncertainty": {name: _number(value) for name, value in doubts.items()},
        "why_not": [
            {"key": why.key, "text": why.text, "value": why.value, "limit": why.limit}
            for why in signal.why_not
        ],
        "stages": _json_values(signal.stages),
        "explanation": None if signal.reasons is None else _explanation(signal.reasons),
        "prices": {name: float(price) for name, price in signal.prices.items()},
        "replay": _json_values(signal.replay),
        "expires": _text(signal.expires),
        "model": signal.model,
        "config": config,
        "novelty": _number(signal.novelty),
        "disagreement": _number(signal.disagreement),
        "interval": {n: _finite(v) for n, v in signal.interval.items()} or None,
        "sides": [SIDE_TEXT[side] for side in signal.sides] or None,
        "skill": _json_values(signal.skill) or None,
        "appraisal": None if signal.appraisal is None else _appraisal(signal.appraisal),
    }


def from_record(record: Mapping[str, Any]) -> Signal:
    """Rebuild the signal of a record; its checks run again.

    Raises
    ------
    ValueError
        If the record contradicts itself, or is of another schema version.
    """
    if record.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"schema_version {record.get('schema_version')!r}, not {SCHEMA_VERSION!r}")
    doubts = record["uncertainty"]
    why, found = record["explanation"], record.get("appraisal")
    return Signal(
        asset=record["asset"],
        time=pd.Timestamp(record["time"]).as_unit("us"),
        side=None if record["side"] is None else SIDE_NUMBER[record["side"]],
        status=record["status"],
        probabilities={SIDE_NUMBER[t]: p for t, p in (record["probabilities"] or {}).items()},
        confidence=_or_nan(record["confidence"]),
        certainty=_or_nan(record["certainty"]),
        epistemic=_or_nan(doubts["epistemic"]),
        aleatoric=_or_nan(doubts["aleatoric"]),
        expires=pd.Timestamp(record["expires"]).as_unit("us"),
        model=record["model"],
        strength=record["strength"],
        why_not=tuple(WhyNot(**why) for why in record["why_not"]),
        stages=record["stages"],
        reasons=None if why is None else _reasons(why),
        replay=record["replay"],
        prices=record["prices"],
        session=record["session"],
        novelty=_or_nan(record["novelty"]),
        disagreement=_or_nan(record["disagreement"]),
        interval={n: math.inf if v is None else v for n, v in (record["interval"] or {}).items()},
        sides=tuple(SIDE_NUMBER[text] for text in record["sides"] or ()),
        skill=record["skill"] or {},
        appraisal=None if found is None else _appraised(found),
    )


def write_signals(path: Path | str, signals: Iterable[Signal], config: str) -> int:
    """Add signals to a file of records, each once; the file is replaced as a whole.

    Parameters
    ----------
    path : Path or str
        ``.jsonl`` (JSON Lines) or ``.parquet``; made if absent.
    signals : iterable of Signal
    config : str
        Digest of the settings they were made with.

    Returns
    -------
    int
        How many were new, by asset, time, model and config.

    Raises
    ------
    ConfigError
        SV-F33 for another suffix.
    StoreError
        SV-X520 if a stored signal says something else under the same key, which is never edited;
        SV-X521 if the file holds no records; SV-F34 if the disk refuses.
    """
    path = Path(path)
    stored = {_key(record): record for record in read_records(path)} if path.exists() else {}
    before = len(stored)
    for signal in signals:
        record = to_record(signal, config)
        if stored.setdefault(_key(record), record) != record:
            raise _conflict(path, record)
    if len(stored) > before or not path.exists():
        _write(path, [stored[key] for key in sorted(stored)])
    return len(stored) - before


def read_records(path: Path | str) -> list[Record]:
    """Records of a file that `write_signals` made.

    Raises
    ------
    StoreError
        SV-X521, naming the first line that is no record.
    """
    path = Path(path)
    if record_suffix(path) == ".parquet":
        return _read_parquet(path)
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            record = _ADDED | json.loads(line)
            _key(record)
        except (ValueError, TypeError, KeyError) as error:
            raise _no_records(path, f"line {number}") from error
        records.append(record)
    return records


def record_suffix(path: Path) -> str:
    """``.jsonl`` or ``.parquet``, as `path` ends; ConfigError SV-F33 for anything else."""
    if path.suffix in (".jsonl", ".parquet"):
        return path.suffix
    raise ConfigError(
        f"signals are written as .jsonl or .parquet, not as {path.suffix or path.name!r}",
        code="SV-F33",
        where=str(path),
        cure=f"name the file {path.stem}.jsonl",
    )


def _write(path: Path, records: list[Record]) -> None:
    if record_suffix(path) == ".parquet":
        rows = [
            record
            | {name: pd.Timestamp(record[name]) for name in _TIMES}
            | {name: _json_text(record[name]) for name in _TEXTS}
            for record in records
        ]
        table = pa.Table.from_pylist(rows, schema=_TABLE)
        replace_atomic(path, lambda temporary: pq.write_table(table, temporary))
    else:
        write_atomic(path, b"".join(json_bytes(record) + b"\n" for record in records))


def _read_parquet(path: Path) -> list[Record]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise _no_records(path, "it is no Parquet file") from error
    names = [n for n in _TABLE.names if n in table.schema.names or n not in _ADDED]
    if table.schema.names != names:
        raise _no_records(path, f"columns {table.schema.names[:20]}")
    return [
        _ADDED
        | row
        | {name: _text(row[name]) for name in _TIMES}
        | {name: json.loads(row[name]) for name in _TEXTS if name in row}
        for row in table.to_pylist()
    ]


def _key(record: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(record[name] for name in KEY)


def _explanation(why: Reasons) -> Record:
    return {
        "side": SIDE_TEXT[why.side],
        "baseline": float(why.baseline),
        "margin": float(why.margin),
        "contributions": {name: float(push) for name, push in why.contributions.items()},
        "by_stage": {name: float(push) for name, push in why.by_stage.items()},
        "raw_gap": float(why.raw_gap),
        "references": why.references,
        "text": list(why.text),
        "by_family": {name: float(push) for name, push in why.by_family.items()},
        "lags": [{"feature": p.feature, "lag": p.lag, "push": float(p.push)} for p in why.lags],
        "effort": why.effort,
        "fidelity": {name: float(value) for name, value in why.fidelity.items()},
    }


def _reasons(why: Mapping[str, Any]) -> Reasons:
    own = {"side": SIDE_NUMBER[why["side"]], "text": tuple(why["text"])}
    return Reasons(**{**why, **own, "lags": tuple(Lag(**part) for part in why["lags"])})


def _appraisal(found: Appraisal) -> Record:
    parts = {part.name: getattr(found, part.name) for part in fields(found)}
    return parts | {
        "findings": [asdict(part) for part in found.findings],
        "band": None if found.band is None else list(found.band),
        "factors": dict(found.factors),
        "missing": list(found.missing),
    }


def _appraised(found: Mapping[str, Any]) -> Appraisal:
    own: dict[str, Any] = {"findings": tuple(Finding(**part) for part in found["findings"])}
    own["missing"] = tuple(found["missing"])
    own["band"] = None if found["band"] is None else tuple(found["band"])
    return Appraisal(**{**found, **own})


def _json_values(values: Mapping[str, Any]) -> Record:
    """Values of a trail or a summary: times as text, NaN as null, numpy's numbers as Python's."""
    out: Record = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            out[str(name)] = _json_values(value)
        elif isinstance(value, pd.Timestamp):
            out[str(name)] = _text(value)
        elif hasattr(value, "item"):
            out[str(name)] = _number(value.item()) if value != value else value.item()
        else:
            out[str(name)] = None if value != value else value
    return out


def _json_text(value: Any) -> str:
    return json_bytes(value).decode("ascii")


def _text(time: Any) -> str:
    return pd.Timestamp(time).tz_convert("UTC").as_unit("us").isoformat().replace("+00:00", "Z")


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _conflict(path: Path, record: Record) -> StoreError:
    return StoreError(
        f"{record['asset']} at {record['time']} is stored with another content",
        code="SV-X520",
        where=str(path),
        why="a stored signal is never edited: same model and settings, so its bars were changed",
        cure="write to another file with output=PATH",
    )


def _no_records(path: Path, where: str) -> StoreError:
    return StoreError(
        f"{path.name} does not hold signals",
        code="SV-X521",
        where=where,
        why="it was written by something else, or cut short",
        cure="move it away, or write to another file with output=PATH",
    )
