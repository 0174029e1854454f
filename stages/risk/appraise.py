"""Signals put through all of it: risk, then target, stop and size, then the checks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import nan
from typing import Any, Self

import numpy as np
import pandas as pd
from safetensors.numpy import load, save

from stages.base import DataError, State
from stages.features.rows import Rows
from stages.features.volatility import average_true_range
from stages.panel import asset_starts, check_panel
from stages.risk.checks import Checks, Quality
from stages.risk.factors import FACTORS, risk_factors, worst_loss
from stages.risk.levels import Levels, Plan
from stages.risk.score import RiskScore
from stages.signal import Appraisal, Signal, WhyNot

OPEN = "open.safetensors"
COLUMNS = (*FACTORS, "side")  # of the rows that are kept until their loss is known
NEEDED = 142  # bars that all measures of a row look back over, itself included
POINTS = 1  # decimals of a score: places are known to half a point

Classes = Callable[[Iterable[str]], Any]  # of A assets, their classes


@dataclass
class Appraiser:
    """Say what signals risk, where they would be left, and what speaks against them.

    Parameters
    ----------
    checks : Checks
    score : RiskScore or None, default=None
        Unfitted; None leaves risk unknown.
    levels : Levels, optional
    look : int >= 142, default=250
        Bars that the checks of a signal see: the same of any history that is long enough.
    abstains : bool, default=False
        Whether a signal that is not valid becomes an abstention, ``quality``. It never becomes a
        hold, for a hold is a decision of the model.

    Attributes
    ----------
    score_ : RiskScore or None
        Fitted on out-of-fold rows; None if these were too few, see `lack_`.
    lack_ : str
        Why there is no score, empty if there is one.
    open_ : DataFrame
        Factors and side of rows that were spoken of, whose worst loss is not known yet.
    market_ : {'given', 'equal weight', 'absent'}
        Where the market of the training came from; later bars are held to it.
    roles_ : dict of str to MultiIndex
        Rows that the score was fitted on: ``calibrate``.
    """

    checks: Checks
    score: RiskScore | None = None
    levels: Levels = field(default_factory=Levels)
    look: int = 250
    abstains: bool = False

    def __post_init__(self) -> None:
        if self.look < NEEDED:
            raise ValueError(f"look must be at least {NEEDED} bars, got {self.look}")

    def fit(self, said: pd.DataFrame, bars: pd.DataFrame, classes: Classes, span: int) -> Self:
        """Fit the score on what was said of rows that no stage had seen, and what they then lost.

        Parameters
        ----------
        said : DataFrame of shape (N, F)
            `p_sell`, `p_buy` and `epistemic` of out-of-fold rows.
        bars : DataFrame
            All bars of the training.
        classes : callable
            From A assets to their classes.
        span : int >= 1
            Bars from a row to the bar at which its label is known.
        """
        several = len(bars.index.unique("asset")) > 1
        self.market_ = "given" if "market" in bars else "equal weight" if several else "absent"
        self.span_, self.score_, self.lack_ = span, None, "none was fitted"
        self.open_ = said.iloc[:0].reindex(columns=COLUMNS).astype("float64")
        self.roles_: dict[str, pd.Index] = {}
        if self.score is None or "close" not in bars:
            return self
        rows, loss = self._settled(self._measured(said, bars), bars)
        try:
            names = classes(rows.index.get_level_values("asset"))
            self.score_ = replace(self.score).fit(rows, loss, names)
        except DataError as error:  # a model without a risk score is still a model
            self.lack_ = f"none was fitted, for {error.what}"
        else:
            self.lack_, self.roles_ = "", {"calibrate": rows.index}
        return self

    def update(self, said: pd.DataFrame, bars: pd.DataFrame, classes: Classes) -> Self:
        """Note what was said of new rows, and learn what the rows noted before came to.

        Parameters
        ----------
        said : DataFrame of shape (N, F)
            As of `fit`, by a model that knew no label which was settled after the row.
        bars, classes
            See `fit`.
        """
        if self.score_ is not None and "close" in bars:
            rows = pd.concat([self.open_, self._measured(said, bars)])
            rows, loss = self._settled(rows[~rows.index.duplicated()], bars)
            self.score_.update(rows, loss, classes(rows.index.get_level_values("asset")))
        return self

    def appraise(
        self,
        signals: Sequence[Signal],
        bars: pd.DataFrame,
        classes: Sequence[str],
        context: Sequence[Mapping[str, Any]],
    ) -> list[Signal]:
        """Signals with their appraisal, and with the target and the stop of it in their prices.

        Parameters
        ----------
        signals : sequence of N Signal
        bars : DataFrame of shape (M, F)
            Panel of the assets; of each signal only the bars up to its own are seen. `look` of
            them give every measure.
        classes : sequence of N str
            Asset class of each signal.
        context : sequence of N mapping
            ``scale`` and ``cost`` (fractions) for the plan, and what else checks may ask for.

        Raises
        ------
        DataError
            SV-X640 if a check fails: a fault in a check is no word about the signal.
        """
        if not signals:
            return []
        bars = self._with_market(check_panel(bars)) if self._has_score(bars) else bars
        mine = bars.index.get_level_values("asset").isin({signal.asset for signal in signals})
        bars = bars if mine.all() else bars[mine]
        seen = _Seen.of(bars)
        at = np.array([seen.row(signal) for signal in signals])
        exact = np.array([seen.times[i] == s.time for i, s in zip(at, signals, strict=True)])
        scores, lacks = self._scores(signals, bars, classes, np.where(exact, at, -1))
        ranges = _true_ranges(bars, seen.starts)
        read = bars[[name for name in bars.columns.tolist() if name in self.checks.asked]]
        out = []
        for i, (signal, known) in enumerate(zip(signals, context, strict=True)):
            atr = ranges[at[i]] if exact[i] else nan
            plan = self._plan(signal, known, atr)
            said = replace(signal, prices=_prices(signal, plan))
            facts = {**known, "size": plan.size, "atr": atr * said.prices.get("close", nan)}
            facts |= {name: scores[i][name] for name in ("risk", "band") if name in scores[i]}
            quality = self.checks.examine(said, seen.tail(read, at[i], self.look), facts)
            found = _appraisal(quality, plan, scores[i], lacks[i], len(self.checks.checks))
            out.append(self._said(replace(said, appraisal=found)))
        return out

    def state(self) -> State:
        """What was learnt: JSON values, and the open rows."""
        asset, time = (self.open_.index.get_level_values(name) for name in ("asset", "time"))
        codes, names = asset.factorize()
        table = {
            "asset": codes.astype("int64"),
            "time": pd.DatetimeIndex(time).as_unit("us").asi8,
            "values": np.ascontiguousarray(self.open_.to_numpy("float64")),
        }
        values = {
            "span": self.span_,
            "market": self.market_,
            "lack": self.lack_,
            "assets": [str(name) for name in names],
            "score": None if self.score_ is None else dict(self.score_.state().values),
        }
        return State(values, {OPEN: save(table)})

    def restore(self, state: State) -> Self:
        """Take back what `state` gave."""
        values, table = state.values, load(state.parts[OPEN])
        self.span_, self.market_, self.lack_ = values["span"], values["market"], values["lack"]
        self.score_ = None
        if values["score"] is not None and self.score is not None:
            self.score_ = replace(self.score).restore(State(values["score"]))
        assets = pd.Index(values["assets"], dtype="str")[table["asset"]]
        times = pd.to_datetime(table["time"], unit="us", utc=True)
        index = pd.MultiIndex.from_arrays([assets, times], names=["asset", "time"])
        self.open_ = pd.DataFrame(table["values"], index, list(COLUMNS))
        return self

    def _said(self, signal: Signal) -> Signal:
        found = signal.appraisal
        if not self.abstains or signal.side is None or found is None or found.valid:
            return signal
        return _abstention(signal, found, self.checks.least)

    def _plan(self, signal: Signal, known: Mapping[str, Any], atr: float) -> Plan:
        if signal.side not in (-1, 1):  # nothing to plan, and nothing missing
            return Plan()
        return self.levels.plan(signal, known.get("scale", nan), atr, known.get("cost", nan))

    def _has_score(self, bars: pd.DataFrame) -> bool:
        return getattr(self, "score_", None) is not None and "close" in bars

    def _scores(
        self, signals: Sequence[Signal], bars: pd.DataFrame, classes: Sequence[str], at: np.ndarray
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """Of each signal what its score is, and why there is none."""
        score = getattr(self, "score_", None)
        if score is None or not self._has_score(bars):
            lack = getattr(self, "lack_", "none was fitted") or "the bars have no close"
            return [{} for _ in signals], [lack] * len(signals)
        factors = _rounded(risk_factors(bars))[at]
        factors[:, FACTORS.index("model")] = [signal.epistemic for signal in signals]
        told = score.predict(pd.DataFrame(_rounded(factors), columns=list(FACTORS)), classes)
        scores, lacks = [], []
        for row, there, name in zip(told.to_dict("records"), at >= 0, classes, strict=True):
            lack = f"{row['missing']} not known" if row["missing"] else ""
            lacks.append(lack if there else "the newest bar is not the signal's")
            scores.append({} if lacks[-1] else _points(row, score.assets.of(name).band))
        return scores, lacks

    def _measured(self, said: pd.DataFrame, bars: pd.DataFrame) -> pd.DataFrame:
        """Factors and leading side of the rows that something was said of."""
        factors = risk_factors(self._with_market(bars)).reindex(said.index)
        factors["model"] = said["epistemic"].to_numpy("float64")
        side = np.sign((said["p_buy"] - said["p_sell"]).to_numpy("float64"))
        return pd.DataFrame(_rounded(factors), said.index, list(FACTORS)).assign(side=side)

    def _settled(
        self, rows: pd.DataFrame, bars: pd.DataFrame
    ) -> tuple[pd.DataFrame, "pd.Series[float]"]:
        """Rows whose worst loss is known by now, and the loss; the others stay open."""
        side = rows["side"].reindex(bars.index).fillna(0).to_numpy("int64")
        loss = worst_loss(bars, side, self.span_).reindex(rows.index)
        known = loss.notna().to_numpy()
        times = bars.index.unique("time").sort_values()
        late = rows.index.get_level_values("time") >= times[-min(2 * self.span_, len(times))]
        self.open_ = rows[~known & late].sort_index()
        return rows[known], loss[known]

    def _with_market(self, bars: pd.DataFrame) -> pd.DataFrame:
        """`bars` beside the market that the training had; without one if they bring none."""
        if self.market_ == "equal weight" and len(bars.index.unique("asset")) > 1:
            return bars.assign(market=Rows.of(bars, {"close"}).equal_weight())
        return bars if self.market_ == "given" else bars.drop(columns="market", errors="ignore")


@dataclass(frozen=True)
class _Seen:
    """A panel by asset: which row is the newest that a signal may see."""

    times: pd.DatetimeIndex
    starts: np.ndarray
    spans: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, bars: pd.DataFrame) -> Self:
        starts = asset_starts(bars)
        names = bars.index.get_level_values("asset")[starts[:-1]].tolist()
        spans = dict(zip(names, zip(starts[:-1], starts[1:], strict=True), strict=True))
        return cls(pd.DatetimeIndex(bars.index.get_level_values("time")), starts, spans)

    def row(self, signal: Signal) -> int:
        """Row of the newest bar of its asset that is no later than the signal."""
        begin, end = self.spans.get(signal.asset, (0, 0))
        at = begin + int(self.times[begin:end].searchsorted(signal.time, side="right")) - 1
        if at < begin:
            raise DataError(
                f"no bar of {signal.asset} up to its signal of {signal.time}",
                code="SV-F18",
                why="risk and checks are about the bars that a signal rests on",
                cure="hand over the bars that the signal was made of",
            )
        return at

    def tail(self, bars: pd.DataFrame, at: int, look: int) -> pd.DataFrame:
        """Up to `look` bars of the asset that end at row `at`, by time."""
        begin = self.starts[np.searchsorted(self.starts, at, side="right") - 1]
        rows = slice(max(begin, at - look + 1), at + 1)
        return bars.iloc[rows].set_axis(self.times[rows])


def _true_ranges(bars: pd.DataFrame, starts: np.ndarray) -> np.ndarray:
    """Average true range over the price at every row, NaN where it is not known: (M,)."""
    out = np.full(len(bars), nan)
    if {"high", "low", "close"} <= set(bars):
        high, low, close = (
            bars[name].to_numpy("float64", copy=True) for name in ("high", "low", "close")
        )
        for begin, end in zip(starts[:-1], starts[1:], strict=True):
            rows = slice(begin, end)
            out[rows] = average_true_range(high[rows], low[rows], close[rows])
    return out


def _rounded(factors: pd.DataFrame | np.ndarray) -> np.ndarray:
    """To the digits of a float32, which do not depend on how many bars came along."""
    return np.asarray(factors).astype("float32").astype("float64")


def _points(row: Mapping[Any, Any], band: tuple[float, float]) -> dict[str, Any]:
    """What the score says of one row, in points."""
    told = {name: round(float(row[name]), POINTS) for name in ("risk", "raw", "calibrated")}
    told["risk"] = min(max(told["risk"], band[0]), band[1])  # an end may have more decimals
    parts = [str(name) for name in row if str(name).startswith("part.")]
    factors = {name.removeprefix("part."): round(float(row[name]), POINTS) for name in parts}
    return {**told, "band": band, "factors": factors}


def _prices(signal: Signal, plan: Plan) -> dict[str, float]:
    prices = {name: p for name, p in signal.prices.items() if name not in ("target", "stop")}
    planned = {"target": plan.target, "stop": plan.stop}
    return prices | {name: price for name, price in planned.items() if price is not None}


def _appraisal(
    quality: Quality, plan: Plan, score: Mapping[str, Any], lack: str, checks: int
) -> Appraisal:
    return Appraisal(
        quality=quality.score,
        valid=quality.valid,
        findings=quality.findings,
        ran=checks - len(quality.not_run),
        checks=checks,
        size=plan.size,
        chance=plan.chance,
        expected=plan.expected,
        missing=(*plan.missing, *([f"risk score: {lack}"] if lack else [])),
        **score,
    )


def _abstention(signal: Signal, found: Appraisal, least: int) -> Signal:
    """A signal that may not be acted on: no side, no odds, no promise, and the reason."""
    worst = found.findings[0] if found.findings else None
    text = "quality: not one check could run"
    if found.quality is not None and worst is not None:
        text = f"quality {found.quality} of {least} asked; {worst.check}: {worst.text}"
    given = None if found.quality is None else float(found.quality)
    return replace(
        signal,
        side=None,
        status="abstain",
        probabilities={},
        strength=None,
        why_not=(WhyNot("quality", text, given, float(least)),),
        stages={},
        reasons=None,
        prices={name: p for name, p in signal.prices.items() if name not in ("target", "stop")},
        interval={},
        sides=(),
        appraisal=replace(found, size=None, chance=None, expected=None),
        confidence=nan,
        certainty=nan,
        epistemic=nan,
        aleatoric=nan,
        novelty=nan,
        disagreement=nan,
    )
