"""Has the market left the model behind? Alarms that are rare without cause, and what each asks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from stages.evaluate.bootstrap import autocovariance, long_run
from stages.online.change import By, ChangeWatch, Side
from stages.online.duel import FLOOR, duel
from stages.online.shift import STATISTICS, Shift, shift
from stages.panel import until
from stages.signal import ODDS

ACTIONS = ("nothing", "recalibrate", "refit", "fine-tune", "retrain", "stop firing")
KINDS = {
    "covariate": "the inputs come from elsewhere",
    "calibration": "confidence and accuracy part",
    "coverage": "sets of sides hold more or less than they did",
    "labels": "more or fewer labels are a move than were",
    "concept": "losses exceed what the odds themselves expect",
    "confirmed": "both detectors say so of the losses",
    "worthless": "since then, the base rates alone lose less",
    "reasons": "inputs push otherwise than they did",
}
SERIES: dict[str, Side] = {  # of each bar, and which changes of it alarm
    "concept": "up",
    "calibration": "both",
    "coverage": "both",
    "labels": "both",
}
SPELLS = 2.0  # where volatility comes in spells, alarms are twice as frequent: measured
# the losses by both; ADWIN knows nothing of spells, such as volatility comes in
WATCHES: list[tuple[str, By]] = [*((kind, "page_hinkley") for kind in SERIES), ("concept", "adwin")]
ASKED: Mapping[str, str] = {
    "covariate": "recalibrate",
    "calibration": "recalibrate",
    "coverage": "recalibrate",
    "labels": "recalibrate",
    "concept": "refit",
    "confirmed": "retrain",
    "worthless": "stop firing",
    "reasons": "nothing",
}


@dataclass(frozen=True)
class Alarm:
    """One alarm: what changed, who says so, since which bar it is known, what it asks for."""

    kind: str
    detector: str
    time: pd.Timestamp
    action: str
    text: str


@dataclass(frozen=True)
class DriftReport:
    """What was found on a stream of bars.

    Attributes
    ----------
    alarms : tuple of Alarm
        In the order of time; the last `kept`.
    active : tuple of Alarm
        Those of the newest bars, which count.
    count : int
        Alarms on the whole stream, those dropped among them.
    bars : DataFrame of shape (T, 4)
        By settled bar: ``concept`` (log-loss less the entropy of the odds, nats), ``calibration``
        (share of right calls less confidence), ``coverage`` (share of labels outside of the set
        that a quantile fixed at the beginning gives; NaN there) and ``labels`` (share of moves).
    levels : mapping of str to float
        How near Page-Hinkley is to an alarm, by series: 1 is one.
    shift : Shift or None
        Of the inputs; None without enough bars.
    accuracy : mapping of str to float
        ``foreseen`` accuracy of the rows whose labels are open, its 95 % interval ``low`` and
        ``high``, their number ``rows``, and the accuracy ``known`` of the newest settled bars;
        NaN where there is nothing to tell it by. It sees calibration drift, and is blind to a
        change of concept until labels come.
    action : str
        The strongest that an active alarm asks for, of `ACTIONS`.
    text : str
        One sentence.
    """

    alarms: tuple[Alarm, ...]
    active: tuple[Alarm, ...]
    count: int
    bars: pd.DataFrame
    levels: Mapping[str, float]
    shift: Shift | None
    accuracy: Mapping[str, float]
    action: str
    text: str


@dataclass(frozen=True)
class DriftWatch:
    """Detectors of change on what a model said and what came of it, with rare false alarms.

    All detectors together raise a false alarm once in `run_length` bars in the mean: each gets
    its share. A recommendation is all that follows; who acts on it is told by name.

    Parameters
    ----------
    run_length : float >= 1000, default=10000
        Bars between false alarms of all detectors together.
    block : int >= 1, default=10
        Bars of a step of the detectors; a longer span of the labels takes its place.
    slack : float > 0, default=0.25
        See `ChangeWatch`.
    level : float in (0, 1), default=0.95
        Of the sets whose coverage is watched.
    reference, recent : int
        Bars of the windows of inputs that are compared; alarms of the last `recent` bars count.
    every : int >= 1, default=20
        Bars from one look at the inputs to the next.
    psi : float >= 0, default=0.25
        Smallest shift of an input that matters, however sure it is.
    draws : int, default=9999
        See `stages.online.shift.shift`.
    most : int >= 1, default=20
        Inputs that are watched, the first ones handed over.
    kept : int >= 1, default=100
        Alarms that are remembered.
    actions : mapping of str to str
        What an alarm of each kind asks for, one of `ACTIONS`.
    seed : int
    """

    run_length: float = 10_000.0
    block: int = 10
    slack: float = 0.25
    level: float = 0.95
    reference: int = 1000
    recent: int = 250
    every: int = 20
    psi: float = 0.25
    draws: int = 9_999
    most: int = 20
    kept: int = 100
    actions: Mapping[str, str] = field(default_factory=lambda: dict(ASKED))
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.actions) - set(KINDS))
        strange = sorted(set(self.actions.values()) - set(ACTIONS))
        if unknown or strange:
            raise ValueError(
                f"actions name {unknown + strange}; alarms are {tuple(KINDS)}, actions {ACTIONS}"
            )
        if not self.run_length >= 1000 or not 0 < self.level < 1 or not self.psi >= 0:
            raise ValueError(
                "need run_length >= 1000, level in (0, 1) and psi >= 0, got "
                f"{self.run_length}, {self.level}, {self.psi}"
            )
        counts = (self.block, self.reference, self.recent, self.every, self.most, self.kept)
        if min(counts) < 1:
            raise ValueError(f"need whole numbers of at least 1, got {counts}")
        least, asked = len(STATISTICS) / (self.draws + 1), self.every / self.share
        if least > asked:
            raise ValueError(
                f"draws={self.draws} give no p-value below {least:.1e}, and a look every "
                f"{self.every} bars asks for {asked:.1e}: raise draws, or lower run_length"
            )

    @property
    def share(self) -> float:
        """Bars between false alarms of a single detector."""
        return self.run_length * (len(WATCHES) + 1)

    def watch(
        self,
        rows: pd.DataFrame,
        span: int,
        inputs: tuple[pd.DataFrame, pd.DataFrame] | None = None,
        names: Sequence[str] = (),
        reasons: Any = None,
    ) -> DriftReport:
        """Run through all settled bars, and look at the inputs once.

        Parameters
        ----------
        rows : DataFrame of shape (N, F)
            Indexed by (asset, time): `p_sell`, `p_hold`, `p_buy`, and `side` (NaN while open) and
            `end` of what came of it; said before any of it was known.
        span : int >= 1
            Bars from a row to the bar at which its label is known.
        inputs : tuple of two DataFrames, optional
            Panels of the bars that the model learnt from and of those after it.
        names : sequence of str
            Columns of `inputs` to watch, the important ones first.
        reasons : stages.explain.drift.Drift, optional
            Of the reasons, where they were compared.
        """
        bars = settled_bars(rows, span, self.level)
        found, levels = self._changes(bars, span)
        newest: Any = rows.index.get_level_values("time").max() if len(rows) else pd.NaT
        found += self._confirmed(rows, bars, found, span)
        looked = None if inputs is None else self._look(*inputs, list(names)[: self.most])
        if looked is not None and self._moved(looked):
            first = looked.table.index[looked.table["judged"]][0]
            size = looked.table.loc[first, "psi"]
            said = f"{first} most: PSI {size:.2f}, p {looked.least:.2g}"
            found.append(self._alarm("covariate", "PSI, KS, MMD", newest, said))
        if reasons is not None and reasons.drifted:
            found.append(self._alarm("reasons", "Holm", newest, reasons.text))
        found.sort(key=lambda alarm: alarm.time)
        since = bars.index[-min(self.recent, len(bars))] if len(bars) else newest
        active = tuple(alarm for alarm in found if alarm.time >= since)[-self.kept :]
        action = max((a.action for a in active), key=ACTIONS.index, default=ACTIONS[0])
        return DriftReport(
            tuple(found[-self.kept :]),
            active,
            len(found),
            bars,
            levels,
            looked,
            foreseen(rows, bars, self.recent),
            action,
            _sentence(active, action, self.recent),
        )

    def _changes(self, bars: pd.DataFrame, span: int) -> tuple[list[Alarm], dict[str, float]]:
        found, levels = [], {}
        for kind, by in WATCHES:
            series = bars[kind].dropna()
            span_of = max(self.block, span)
            watch = ChangeWatch(by, SPELLS * self.share, span_of, self.slack, SERIES[kind])
            for time, value in zip(series.index, series.tolist(), strict=True):
                if watch.update(value):
                    found.append(self._alarm(kind, by, time, KINDS[kind]))
            if by == "page_hinkley":
                levels[kind] = watch.level_
        return found, levels

    def _confirmed(
        self, rows: pd.DataFrame, bars: pd.DataFrame, found: list[Alarm], span: int
    ) -> list[Alarm]:
        """What follows where both detectors speak of the losses, not too far apart."""
        times: dict[str, list[pd.Timestamp]] = {"page_hinkley": [], "adwin": []}
        for alarm in found:
            if alarm.kind == "concept":
                times[alarm.detector].append(alarm.time)
        pairs = [
            max(one, other)
            for one in times["page_hinkley"]
            for other in times["adwin"]
            if len(bars.loc[min(one, other) : max(one, other)]) <= self.recent
        ]
        if not pairs:
            return []
        last = max(pairs)
        out = [self._alarm("confirmed", "both", last, KINDS["confirmed"])]
        won = _won_by_base_rates(rows, last, span)
        if won >= 1 / 0.05:
            said = f"{KINDS['worthless']}: {won:.3g} won by betting on it"
            out.append(self._alarm("worthless", "bet", bars.index[-1], said))
        return out

    def _look(self, before: pd.DataFrame, after: pd.DataFrame, names: list[str]) -> Shift | None:
        """Compare the windows as they stood at the last bar at which a look was due."""
        times = after.index.unique("time").sort_values()
        due = len(times) // self.every * self.every
        if not names or not due or not len(before):
            return None
        late = until(after, times[due - 1])
        late = late[late.index.get_level_values("time") >= times[max(due - self.recent, 0)]]
        old = before.index.unique("time").sort_values()
        early = before[before.index.get_level_values("time") >= old[-min(self.reference, len(old))]]
        return shift(early, late, names, draws=self.draws, seed=self.seed)

    def _moved(self, looked: Shift) -> bool:
        large = looked.table["psi"][looked.table["judged"]].max() >= self.psi
        return bool(large and looked.least <= self.every / self.share)

    def _alarm(self, kind: str, detector: str, time: pd.Timestamp, text: str) -> Alarm:
        return Alarm(kind, detector, time, self.actions.get(kind, ACTIONS[0]), text)


def settled_bars(rows: pd.DataFrame, span: int, level: float = 0.95) -> pd.DataFrame:
    """What each bar came to, up to the first whose labels are not all known.

    A label that is not known after ``2 span`` bars is taken not to exist. See `DriftReport.bars`.

    Parameters
    ----------
    rows, span
        See `DriftWatch.watch`.
    level : float in (0, 1)
        Of the sets.
    """
    times, bar = np.unique(rows.index.get_level_values("time"), return_inverse=True)
    known = rows["side"].notna().to_numpy()
    still = np.bincount(bar[~known], minlength=len(times)) > 0
    still[: max(len(times) - 2 * span, 0)] = False
    last = int(still.argmax()) if still.any() else len(times)
    index = pd.DatetimeIndex(pd.to_datetime(times, utc=True), name="time")
    used = known & (bar < last)
    p, side = rows[ODDS].to_numpy("float64")[used], rows["side"].to_numpy()[used].astype(int) + 1
    paid = p[np.arange(len(p)), side]
    safe = np.maximum(p, FLOOR)
    columns = {
        "concept": -np.log(np.maximum(paid, FLOOR)) + (p * np.log(safe)).sum(axis=1),
        "calibration": (p.argmax(axis=1) == side) - p.max(axis=1),
        "coverage": _missed(1 - paid, bar[used], span, level),
        "labels": (side != 1).astype("float64"),
    }
    table = pd.DataFrame(
        {name: _means(x, bar[used], len(times)) for name, x in columns.items()}, index
    )
    return table.iloc[:last].dropna(subset="concept")


def foreseen(rows: pd.DataFrame, bars: pd.DataFrame, recent: int) -> dict[str, float]:
    """Accuracy of the rows whose labels are open, told by their confidence; see `DriftReport`.

    Mean confidence, plus what confidence fell short by on the newest settled bars. The interval
    holds the mean over the open bars if that does not change.

    References
    ----------
    Guillory et al. (2021), "Predicting with Confidence on Unseen Distributions", ICCV (the
    correction); see `stages.evaluate.bootstrap.long_run` for the error.
    """
    nothing = dict.fromkeys(("foreseen", "low", "high", "known"), float("nan"))
    later = rows[rows["side"].isna()]
    if len(bars):
        later = later[later.index.get_level_values("time") > bars.index[-1]]
    gaps = bars["calibration"].to_numpy()[-recent:]
    if len(gaps) < 20 or not len(later):
        return {**nothing, "rows": float(len(later))}
    variance, _ = long_run(autocovariance(gaps), len(gaps), 1)
    ahead = later.index.get_level_values("time").nunique()
    error = 1.96 * float(np.sqrt(variance / len(gaps) + variance / ahead))
    middle = float(later[ODDS].max(axis=1).mean() + gaps.mean())
    settled = rows[rows["side"].notna()]
    settled = settled[settled.index.get_level_values("time") >= bars.index[-len(gaps)]]
    right = settled[ODDS].to_numpy().argmax(axis=1) - 1 == settled["side"]
    return {
        "foreseen": min(max(middle, 0.0), 1.0),
        "low": min(max(middle - error, 0.0), 1.0),
        "high": min(max(middle + error, 0.0), 1.0),
        "known": float(right.mean()),
        "rows": float(len(later)),
    }


def _missed(score: np.ndarray, bar: np.ndarray, span: int, level: float) -> np.ndarray:
    """Whether each score lies beyond the quantile of the first bars; NaN on these."""
    first = bar < 20 + 2 * span
    if not first.any():
        return np.full(len(score), np.nan)
    return np.where(first, np.nan, score > np.quantile(score[first], level))


def _means(values: np.ndarray, bar: np.ndarray, bars: int) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.bincount(bar, values, bars) / np.bincount(bar, minlength=bars)


def _won_by_base_rates(rows: pd.DataFrame, since: pd.Timestamp, span: int) -> float:
    """Capital won since by betting that the base rates of before lose less than the model."""
    time = rows.index.get_level_values("time")
    earlier = rows["side"][(time < since) & rows["side"].notna()]
    later = rows[time > since]
    known = later[later["side"].notna()]
    if not len(known) or not len(earlier):
        return 1.0
    shares = earlier.value_counts(normalize=True).reindex([-1, 0, 1], fill_value=0.0)
    base = pd.DataFrame([shares.to_numpy()] * len(later), later.index, ODDS)
    y = known[["side", "end"]].assign(side=known["side"].astype("int8"), weight=1.0)
    return float(duel(later, base, y, span, time.max()).path["for"].max())


def _sentence(active: Sequence[Alarm], action: str, recent: int) -> str:
    if not active:
        return f"No alarm in the last {recent} bars."
    kinds = list(dict.fromkeys(alarm.kind for alarm in active))
    said = "; ".join(f"{kind}: {KINDS[kind]}" for kind in kinds)
    return f"{said}. Asked for: {action}."
