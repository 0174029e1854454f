"""One signal put through all of it: risk, then target, stop and size, then the checks."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite, nan
from typing import Any

import numpy as np
import pandas as pd

from stages.features.volatility import average_true_range
from stages.risk.checks import Checks, Quality
from stages.risk.factors import FACTORS, measured
from stages.risk.levels import Levels, Plan
from stages.risk.score import RiskScore
from stages.signal import Signal


@dataclass(frozen=True)
class Appraisal:
    """What is known of a signal beyond its own words.

    Attributes
    ----------
    signal : Signal
        With the target and the stop of `plan` in its prices, or without them.
    quality : Quality
    plan : Plan
    risk : float or None
        In the band of the asset's class; None where it is not known.
    measures : mapping of str to float
        ``raw``, ``calibrated`` and ``part.*`` of the score; empty where it is not known.
    missing : tuple of str
        What is not known, and what cannot be said without it.
    """

    signal: Signal
    quality: Quality
    plan: Plan
    risk: float | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


@dataclass
class Appraiser:
    """Appraise signals one by one.

    Parameters
    ----------
    checks : Checks
    score : RiskScore or None, default=None
        Fitted, or restored; without one risk is not known.
    levels : Levels, optional
    """

    checks: Checks
    score: RiskScore | None = None
    levels: Levels = field(default_factory=Levels)

    def appraise(
        self,
        signal: Signal,
        bars: pd.DataFrame,
        asset_class: str,
        context: Mapping[str, Any] | None = None,
    ) -> Appraisal:
        """Say what a signal risks, where it would be left, and what speaks against it.

        Parameters
        ----------
        signal : Signal
        bars : DataFrame of shape (T, F)
            Bars of the asset up to the signal's own, indexed by UTC time: `close`, and `high`,
            `low`, `volume`, `market` where there are such. 141 of them give every measure.
        asset_class : str
        context : mapping, optional
            ``scale`` and ``cost`` (fractions) for the plan, and what else checks may ask for.

        Raises
        ------
        DataError
            SV-X641 if a bar is later than the signal, SV-X640 if a check fails.
        NotFittedError
            If the score has not been fitted.
        """
        context = dict(context or {})
        atr = _true_range(bars)
        cost, scale = (context.get(name, nan) for name in ("cost", "scale"))
        plan = self.levels.plan(signal, scale, atr, cost)
        prices = {name: p for name, p in signal.prices.items() if name not in ("target", "stop")}
        planned = {"target": plan.target, "stop": plan.stop}
        prices |= {name: price for name, price in planned.items() if price is not None}
        signal = replace(signal, prices=prices)
        measures, missing = self._measures(signal, bars, asset_class)
        risk = measures.pop("risk", None)
        if risk is not None and self.score is not None:
            context |= {"risk": risk, "band": self.score.assets.of(asset_class).band}
        context |= {"size": plan.size, "atr": atr * prices.get("close", nan)}
        quality = self.checks.examine(signal, bars, context)
        return Appraisal(signal, quality, plan, risk, measures, (*plan.missing, *missing))

    def _measures(
        self, signal: Signal, bars: pd.DataFrame, asset_class: str
    ) -> tuple[dict[str, float], tuple[str, ...]]:
        """Score of the signal's bar, and what it lacks."""
        if self.score is None:
            return {}, ("risk score: none was fitted",)
        if not len(bars) or bars.index[-1] != signal.time:
            return {}, ("risk score: the newest bar is not the signal's",)
        close, volume, market = (_column(bars, name) for name in ("close", "volume", "market"))
        doubt = np.full(len(bars), signal.epistemic)
        factors = measured(close, volume, market, doubt)[-1:]
        told = self.score.predict(pd.DataFrame(factors, columns=list(FACTORS)), [asset_class])
        row: dict[str, Any] = {str(name): value for name, value in told.iloc[0].items()}
        lacking = row.pop("missing")
        if lacking:
            return {}, (f"risk score: {lacking} not known",)
        return {name: float(value) for name, value in row.items()}, ()


def _true_range(bars: pd.DataFrame) -> float:
    """Average true range over the price at the newest bar, NaN where it is not known."""
    if not len(bars) or not {"high", "low", "close"} <= set(bars):
        return nan
    high, low, close = (_column(bars, name) for name in ("high", "low", "close"))
    ranges = average_true_range(high, low, close)
    return float(ranges[-1]) if isfinite(ranges[-1]) else nan


def _column(bars: pd.DataFrame, name: str) -> np.ndarray:
    if name not in bars:
        return np.full(len(bars), np.nan)
    return bars[name].to_numpy("float64", copy=True)
