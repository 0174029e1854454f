"""Figures of a backtest under the names that people use, and how each is written."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pipeline.report.words import counted_trials, overfitting_words
from stages.evaluate.standing import Standing

SETTING = re.compile(r" (?=[\w.]+=)")  # between the settings of a variant
SHARE, RATIO, COUNT = ".2%", "+.2f", ",.0f"
# heading: figure, what it is called, how it is written
NAMED: dict[str, dict[str, tuple[str, str]]] = {
    "Return": {
        "geometric_return": ("return a year, geometric (compound)", "+.2%"),
        "arithmetic_return": ("return a year, arithmetic (mean)", "+.2%"),
        "total_return": ("return of the whole time", "+.2%"),
        "best": ("best period", "+.2%"),
        "worst": ("worst period", "+.2%"),
        "periods_up": ("periods with a gain", SHARE),
    },
    "Risk": {
        "volatility": ("volatility a year", SHARE),
        "max_drawdown": ("deepest drawdown", SHARE),
        "longest_drawdown": ("longest drawdown, periods", COUNT),
        "var_historical": ("value at risk, 95 %, a period, historical", SHARE),
        "var_gaussian": ("value at risk, Gaussian", SHARE),
        "var_cornish_fisher": ("value at risk, Cornish-Fisher", SHARE),
        "cvar_historical": ("expected shortfall, 95 %, a period, historical", SHARE),
        "cvar_gaussian": ("expected shortfall, Gaussian", SHARE),
        "cvar_cornish_fisher": ("expected shortfall, Cornish-Fisher", SHARE),
        "skew": ("skewness", RATIO),
        "kurtosis": ("kurtosis (Gaussian: 3)", ".2f"),
    },
    "Return for risk": {
        "sharpe": ("Sharpe ratio a year, arithmetic", RATIO),
        "sortino": ("Sortino ratio a year", RATIO),
        "calmar": ("Calmar ratio", RATIO),
    },
    "Beside the benchmark": {
        "alpha": ("alpha a year, arithmetic", "+.2%"),
        "beta": ("beta", ".2f"),
        "correlation": ("correlation", ".2f"),
        "active_geometric": ("return a year less the benchmark's, geometric", "+.2%"),
        "active_return": ("the same, arithmetic", "+.2%"),
        "tracking_error": ("tracking error a year", SHARE),
        "information_ratio": ("information ratio a year", RATIO),
    },
    "Trades": {
        "trades": ("round trips", COUNT),
        "open_trades": ("still open", COUNT),
        "hit_rate": ("round trips with a gain, after cost", SHARE),
        "profit_factor": ("profit factor", ".2f"),
        "mean_trade": ("mean return of a round trip", "+.2%"),
        "median_trade": ("median", "+.2%"),
        "best_trade": ("best", "+.2%"),
        "worst_trade": ("worst", "+.2%"),
        "bars_held": ("mean time held, periods", ".1f"),
    },
    "Book": {
        "exposure": ("mean share invested", SHARE),
        "time_in_market": ("periods with a holding", SHARE),
        "holdings": ("mean number of holdings", ".1f"),
        "most_in_one": ("largest weight an asset has grown to", SHARE),
        "turnover": ("turnover a year (half of bought and sold)", ".1f"),
        "cost_per_year": ("cost of trading a year, of the capital", SHARE),
        "cost_share": ("cost, of the gain before it", SHARE),
    },
}
BRIEF = (
    *("geometric_return", "volatility", "sharpe", "sortino", "max_drawdown", "calmar"),
    *("hit_rate", "mean_trade", "exposure", "turnover", "cost_per_year"),
)


def written(value: float | None, form: str) -> str:
    """A figure as text, empty where it is not defined; what is written as 0 has no minus."""
    if value is None or not np.isfinite(value):
        return ""
    text = f"{value:{form}}"
    return text if any(digit in text for digit in "123456789") else f"{0.0:{form}}"


def groups(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, list[dict[str, str]]]:
    """Rows of every group of figures: ``name``, ``value``, ``interval``, ``benchmark``."""
    out: dict[str, list[dict[str, str]]] = {}
    for heading, names in NAMED.items():
        out[heading] = [
            {
                "key": key,
                "name": name,
                "value": written(metrics[key]["value"], form),
                "interval": _interval(metrics[key], form),
                "benchmark": written(metrics[key].get("benchmark"), form),
            }
            for key, (name, form) in names.items()
        ]
    return out


def luck(standing: Standing) -> list[str]:
    """A Sharpe ratio is never said without how many were tried."""
    if not np.isfinite(standing.sharpe):
        return [f"No Sharpe ratio: nothing was held. {counted_trials(standing.trials)}."]
    return [
        f"Deflated Sharpe {standing.deflated:.2f}: probability that the true ratio is above 0, "
        f"given {counted_trials(standing.trials)}; luck alone would give "
        f"{standing.by_luck:+.2f}. {overfitting_words(standing)}.",
    ]


def by_period(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of years or regimes, in words."""
    shown = {
        "total_return": "+.2%",
        "volatility": SHARE,
        "sharpe": RATIO,
        "max_drawdown": SHARE,
        "periods": COUNT,
    }
    return [
        {"name": str(name), **{key: written(row[key], form) for key, form in shown.items()}}
        for name, row in table.iterrows()
    ]


def settings(sharpes: pd.Series) -> list[dict[str, Any]]:
    """How the Sharpe ratio of variants differs by the value of each setting that was varied.

    Parameters
    ----------
    sharpes : Series of N floats
        By the words of the variant: ``every=5 buffer.buy=10``.
    """
    words = [SETTING.split(str(name)) for name in sharpes.index]
    pairs = [
        (*word.split("=", 1), sharpe)
        for found, sharpe in zip(words, sharpes, strict=True)
        for word in found
    ]
    table = pd.DataFrame(pairs, columns=["setting", "value", "sharpe"])
    return [
        {
            "setting": setting,
            "value": value,
            "count": len(part),
            "mean": written(float(part.mean()), RATIO),
            "low": written(float(part.min()), RATIO),
            "high": written(float(part.max()), RATIO),
        }
        for setting, of_setting in table.groupby("setting", sort=False)
        for value, part in of_setting.groupby("value", sort=False)["sharpe"]
        if of_setting["value"].nunique() > 1
    ]


def _interval(cell: Mapping[str, float], form: str) -> str:
    low, high = (cell.get(end) for end in ("low", "high"))
    if low is None or high is None or not np.isfinite([low, high]).all():
        return ""
    return f"{low:{form}} to {high:{form}}"
