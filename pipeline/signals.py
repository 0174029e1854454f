"""Turns decided rows into `Signal` objects: prices, expiry, reasons in words, provenance."""

import hashlib
import html
from collections.abc import Iterable, Mapping
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipeline.data.calendar import sessions_after
from pipeline.data.instruments import Instruments
from pipeline.nearest import nearest
from stages.base import DataError, Explanation
from stages.explain.families import by_family, families
from stages.panel import named
from stages.signal import SIDE_TEXT, SIDES, Lag, Reasons, Signal

if TYPE_CHECKING:
    from pipeline.signal_pipeline import SignalPipeline


APPRAISED = ("risk", "quality", "target", "stop", "size")  # columns of a table of signals
DAILY = pd.Timedelta(hours=20)  # bars at least so far apart are one a session


class Signals(list[Signal]):
    """Signals that show themselves as a table in a notebook."""

    def frame(self) -> pd.DataFrame:
        """One row a signal: what the demo prints."""
        rows = pd.DataFrame([_row(s) for s in self])
        asked = any(s.appraisal is not None for s in self)
        return rows if asked else rows.drop(columns=list(APPRAISED), errors="ignore")

    def newest(self) -> "Signals":
        """The last signal of each asset."""
        return Signals({signal.asset: signal for signal in self}.values())

    def _repr_html_(self) -> str:
        head, body = self.frame(), ""
        for _, row in head.iterrows():
            body += "<tr>" + "".join(f"<td>{html.escape(str(v))}</td>" for v in row) + "</tr>"
        names = "".join(f"<th>{html.escape(str(c))}</th>" for c in head.columns)
        return f"<table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>"


def to_signals(pipeline: "SignalPipeline", panel: pd.DataFrame, why: Explanation | None) -> Signals:
    """One `Signal` per row of `panel`, which holds the decision.

    Parameters
    ----------
    pipeline : SignalPipeline
    panel : DataFrame of shape (N, F)
    why : Explanation or None
        Of the rows that do not abstain.
    """
    expires = expiries(panel, pipeline.instruments, pipeline.labels.span, pipeline.step_)
    model, replay = pipeline.digest, pipeline.replay_.summary()
    reasons = {} if why is None else _reasons(pipeline, panel, why)
    trails = _trails(panel)
    out = Signals()
    rows = _records(panel)
    for at, (row, trail) in enumerate(zip(rows, trails, strict=True)):
        asset, time = panel.index[at]
        abstains = row["status"] == "abstain"
        out.append(
            Signal(
                asset=str(asset),
                time=time,
                side=None if abstains else int(row["side"]),
                status=row["status"],
                probabilities={} if abstains else {s: row[f"p_{n}"] for s, n in SIDES.items()},
                confidence=float("nan") if abstains else row[f"p_{SIDES[int(row['side'])]}"],
                certainty=row["certainty"],
                epistemic=row["epistemic"],
                aleatoric=row["aleatoric"],
                strength=None if abstains or pd.isna(row["strength"]) else row["strength"],
                why_not=row["why_not"],
                stages={} if abstains else trail,
                reasons=None if abstains else reasons.get((asset, time)),
                expires=expires[at],
                prices=_prices(row),
                session=_session(row),
                model=model,
                replay=replay,
                novelty=row.get("novelty", nan),
                disagreement=row.get("disagreement", nan),
                interval=_interval(row, pipeline),
                sides=tuple(s for s, n in SIDES.items() if row.get(f"set_{n}") == 1),
                skill=_skill(row, pipeline),
            )
        )
    return out


def choose_rows(
    panel: pd.DataFrame, asset: str | None, time: pd.Timestamp | None, exact: bool = False
) -> pd.DataFrame:
    """Rows of one asset, or of one time, of a decided panel.

    Parameters
    ----------
    panel : DataFrame of shape (N, F)
    asset : str or None
    time : Timestamp or None
        UTC; midnight stands for all bars of that session, or day where there are none.
    exact : bool, default=False
        Midnight stands for itself.

    Raises
    ------
    DataError
        SV-F18 when there is no such row.
    """
    if asset is not None:
        mine = panel.index.get_level_values("asset") == asset
        if not mine.any():
            raise _no_asset(asset, panel.index)
        panel = panel[mine]
    if time is None:
        return panel
    times = pd.DatetimeIndex(panel.index.get_level_values("time"))
    day = times.tz_localize(None).normalize()
    if "session" in panel and panel["session"].notna().all():
        day = pd.DatetimeIndex(panel["session"])
    whole = time == time.normalize() and not exact
    keep = np.asarray(day == time.tz_localize(None) if whole else times == time)
    if not keep.any():
        raise _no_bar(asset, time, times, day)
    return panel[keep]


def expiries(
    panel: pd.DataFrame, instruments: Instruments, span: int, step: pd.Timedelta
) -> pd.DatetimeIndex:
    """When the label of each row would be known: `span` sessions on, by the asset's calendar.

    Bars shorter than a day, and bars that no calendar stamped, are counted in steps of `step`,
    the median distance of the training bars. Bars that came later are never asked: the answer
    must not change when they arrive.
    """
    times = pd.DatetimeIndex(panel.index.get_level_values("time"))
    if step < DAILY or "session" not in panel or panel["session"].isna().any():
        return times + span * step
    calendars = instruments.column("calendar", panel.index.get_level_values("asset"))
    out = times.as_unit("us").asi8.copy()
    for calendar in np.unique(calendars):
        here = calendars == calendar
        out[here] = sessions_after(times[here], span, str(calendar)).asi8
    return pd.DatetimeIndex(out.view("M8[us]"), tz="UTC")


def skill_sentence(skill: Mapping[str, Any]) -> str:
    """How far the skill test of a signal has come, in words; empty where there was none."""
    if not skill or skill["needed"] == 1:
        return ""
    so_far = f"e = {skill['e_value']:.3g} of {skill['needed']:g} after {skill['bars']:,} bars"
    if skill["proven"]:
        return f"skill test: passed; {so_far}"
    if skill["left"] is None:
        return f"skill test: {so_far}; no skill so far"
    return f"skill test: {so_far}; about {_rough(skill['left'])} more at this pace"


def references_hash(references: pd.DataFrame) -> str:
    """SHA-256 of the reference rows, so that an explanation names what it compared with."""
    values = np.ascontiguousarray(references.to_numpy(dtype="float32"))
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]


def _reasons(
    pipeline: "SignalPipeline", panel: pd.DataFrame, why: Explanation
) -> dict[tuple[Any, Any], Reasons]:
    """What travels with each explained row, from the point of view of the side that leads."""
    rows: Any = why.output.index
    rows = rows.remove_unused_levels()  # to walk through it turns whole levels into objects
    said = panel if rows.equals(panel.index) else panel.loc[rows]
    kinds = by_family(why, families(why.contributions.columns, pipeline.features_))
    names, stages = [*map(str, why.contributions)], [*map(str, why.by_stage)]
    sides = np.where(said["margin"].to_numpy() >= 0, 1, -1)
    pushes, members, kind, ends = (
        sides[:, None] * table.to_numpy()
        for table in (
            why.contributions,
            why.by_stage,
            kinds,
            pd.concat([why.baseline, why.output], axis=1),
        )
    )
    first = np.argsort(-np.abs(pushes), axis=1, kind="stable")[:, : pipeline.explainer.top]
    records = _records(said)
    lags = _lags(why, dict(zip(rows, sides, strict=True)))
    references, raw_gap = references_hash(pipeline.references_), why.raw_gap.to_numpy()
    return {
        row: Reasons(
            side=int(side),
            baseline=float(ends[i, 0]),
            margin=float(ends[i, 1]),
            contributions=dict(zip(names, pushes[i].tolist(), strict=True)),
            by_stage=dict(zip(stages, members[i].tolist(), strict=True)),
            raw_gap=float(raw_gap[i]),
            references=references,
            text=tuple(_sentence(names[f], pushes[i, f], records[i], int(side)) for f in first[i]),
            by_family=dict(zip(map(str, kinds), kind[i].tolist(), strict=True)),
            lags=tuple(lags.get(row, ())),
            effort=why.effort,
            fidelity=pipeline.fidelity_,
        )
        for i, (row, side) in enumerate(zip(rows, sides, strict=True))
    }


def _records(panel: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as mappings: what `to_dict` gives, which takes each column apart with its index."""
    names = panel.columns.tolist()
    return [dict(zip(names, row, strict=True)) for row in panel.to_numpy(dtype=object)]


def _lags(why: Explanation, sides: Mapping[Any, int]) -> dict[Any, list[Lag]]:
    """The largest parts of single bars, by row."""
    out: dict[Any, list[Lag]] = {}
    if why.lags is not None:
        columns = (why.lags[name] for name in ("feature", "lag", "contribution"))
        for row, name, lag, part in zip(why.lags.index, *columns, strict=True):
            out.setdefault(row, []).append(Lag(str(name), int(lag), float(sides[row] * part)))
    return out


def _sentence(name: str, push: float, row: Mapping[str, Any], side: int) -> str:
    value = row.get(f"feature.{name}", row.get(name, float("nan")))
    verb = "favours" if push > 0 else "opposes"
    return (
        f"{name.removeprefix('rule.').removeprefix('context.')} {value:.3g} {verb} "
        f"{SIDE_TEXT[side]} ({push:+.3f})"
    )


def _trails(panel: pd.DataFrame) -> list[dict[str, float | bool | None]]:
    """Mean log-odds of buy over sell after each stage, and the gate: how the view moved."""
    views = {}
    for stage in ("filter", "refiner"):
        members = [c.removesuffix(".z_buy") for c in named(panel, stage) if c.endswith(".z_buy")]
        if members:  # summed in a fixed order: a mean along rows may differ in its last bit with N
            up, down = (
                [panel[f"{m}.{z}"].to_numpy() for m in members] for z in ("z_buy", "z_sell")
            )
            margins = [buy - sell for buy, sell in zip(up, down, strict=True)]
            views[stage] = np.asarray(sum(margins)) / len(members)
    views["ensemble"] = panel["margin"].to_numpy()
    out = []
    for i, gate in enumerate(panel["filter.gate"]):
        trail: dict[str, float | bool | None] = {
            name: None if np.isnan(view[i]) else float(view[i]) for name, view in views.items()
        }
        out.append(trail | {"gate": bool(gate == 1.0)})
    return out


def _prices(row: Mapping[str, Any]) -> dict[str, float]:
    close = row.get("close", float("nan"))
    if not np.isfinite(close):
        return {}
    prices = {"close": float(close)}
    scale, side = row.get("scale", float("nan")), row["side"]
    if row["status"] in ("fired", "unproven") and np.isfinite(scale):
        prices["target"] = close * (1 + side * scale)  # where to stop is for the plan to say
    return prices


def _rough(count: float) -> str:
    """Two digits of a count: 713.2 is about 710."""
    return f"{float(f'{count:.2g}'):,.0f}"


def _interval(row: Mapping[str, Any], pipeline: "SignalPipeline") -> dict[str, float]:
    low, high = row.get("interval_low", nan), row.get("interval_high", nan)
    if pipeline.coverage is None or np.isnan(low) or np.isnan(high):
        return {}
    return {"low": float(low), "high": float(high), "level": float(pipeline.coverage.level)}


def _skill(row: Mapping[str, Any], pipeline: "SignalPipeline") -> dict[str, float | bool | None]:
    e_value, left = row["skill.e_value"], row["skill.left"]
    return {
        "e_value": e_value,
        "needed": row["skill.needed"],
        "progress": pipeline.record_.skill_.progress(e_value),
        "bars": int(row["skill.bars"]),
        "left": None if np.isnan(left) else left,
        "proven": bool(row["skill.proven"]),
    }


def _no_asset(asset: str, rows: pd.Index) -> DataError:
    times, assets = rows.get_level_values("time"), sorted(set(rows.get_level_values("asset")))
    return DataError(
        f"no bar of asset={asset}",
        code="SV-F18",
        where=f"{len(assets)} assets, {times.min():%Y-%m-%d} to {times.max():%Y-%m-%d}: "
        f"{', '.join(assets[:20])}",
        cure=nearest(asset, assets) or "ask for an asset in the data",
    )


def _no_bar(
    asset: str | None, time: pd.Timestamp, times: pd.DatetimeIndex, days: pd.DatetimeIndex
) -> DataError:
    close_by = days[int(np.abs(times - time).argmin())]
    return DataError(
        f"no bar of {'any asset' if asset is None else asset} at time={time:%Y-%m-%d %H:%M} UTC",
        code="SV-F18",
        where=f"bars from {times.min():%Y-%m-%d} to {times.max():%Y-%m-%d}",
        why="no session then, or its bar is missing",
        cure=f"time={close_by:%Y-%m-%d} is the nearest",
    )


def _session(row: Mapping[str, Any]) -> str | None:
    session = row.get("session")
    return None if session is None or pd.isna(session) else f"{session:%Y-%m-%d}"


def _row(s: Signal) -> dict[str, Any]:
    side = "" if s.side is None else SIDE_TEXT[s.side]
    stopped = s.why_not if s.status in ("hold", "abstain") else ()  # before what it leans on
    words = [*map(str, stopped), *(s.reasons.text[:3] if s.reasons else ())]
    return {
        "asset": s.asset,
        "time": f"{s.time:%Y-%m-%d %H:%M}",
        "side": side,
        "status": s.status,
        "confidence": _number(s.confidence, ".1%"),
        "certainty": _number(s.certainty, ".2f"),
        "epistemic": _number(s.epistemic, ".4f"),
        "aleatoric": _number(s.aleatoric, ".3f"),
        "novelty": _number(s.novelty, ".1f"),
        "set": " ".join(SIDE_TEXT[held] for held in s.sides),
        "interval": interval_text(s.interval),
        "stages": " → ".join(_trail_text(s.stages.items())),
        **appraisal_cells(s),
        "why": "; ".join(words),
    }


def appraisal_cells(signal: Signal) -> dict[str, str]:
    """Risk, quality, target, stop and size as text; empty where they are not known."""
    found, side = signal.appraisal, signal.side in (-1, 1)
    values = (found.risk, found.quality, found.size) if found is not None else (None,) * 3
    forms = zip(("risk", "quality", "size"), values, (".0f", "d", ".1%"), strict=True)
    cells = {name: "" if value is None else format(value, form) for name, value, form in forms}
    prices = {name: signal.prices.get(name) if side else None for name in ("target", "stop")}
    cells |= {name: "" if p is None else f"{p:.6g}" for name, p in prices.items()}
    return {name: cells[name] for name in APPRAISED}


def interval_text(interval: Mapping[str, float]) -> str:
    """``-3.1% to +4.2%``, or empty."""
    return f"{interval['low']:+.1%} to {interval['high']:+.1%}" if interval else ""


def _trail_text(trail: Iterable[tuple[str, Any]]) -> list[str]:
    return [f"{n[0]}{v:+.2f}" if v is not None else f"{n[0]} –" for n, v in trail if n != "gate"]


def _number(value: float, form: str) -> str:
    return "" if np.isnan(value) else format(value, form)
