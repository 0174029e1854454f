from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_module
from sklearn.exceptions import NotFittedError

from pipeline.assemble import assemble
from stages.base import DataError
from stages.features.volatility import average_true_range
from stages.markets.noise import noise_garch
from stages.risk.appraise import Appraiser
from stages.risk.factors import risk_factors, worst_loss
from tests.stages.risk.made import BUY, CONTEXT

ASKED = {key: CONTEXT[key] for key in ("cost", "scale", "span", "step", "market_open")}


@pytest.fixture(scope="module")
def market():
    panel = noise_garch(5, times=400, assets=4).panel
    panel["market"] = panel["close"].groupby("time").transform("mean")
    panel["epistemic"] = np.random.default_rng(0).gamma(2, 0.01, len(panel))
    return panel


@pytest.fixture(scope="module")
def appraiser(market):
    with initialize_config_module("conf", version_base="1.3"):
        cfg = compose("config", ["+checks=default", "+assets=default", "+risk=default"])
    built = assemble(cfg, "risk")
    side = np.random.default_rng(1).choice([-1, 1], len(market))
    built.score.fit(risk_factors(market), worst_loss(market, side, 5), ["equity"] * len(market))
    return built


def signal_of(market, at=300):
    """The signal of one bar, and the bars up to it."""
    one = market.loc["A1"]
    bars, row = one.iloc[: at + 1], one.iloc[at]
    signal = replace(
        BUY,
        asset="A1",
        time=one.index[at],
        expires=one.index[at] + pd.Timedelta("8D"),
        epistemic=float(row["epistemic"]),
        prices={"close": row["close"], "target": 1.0, "stop": 2.0},
    )
    return signal, bars.drop(columns="epistemic")


def test_a_signal_gets_its_risk_its_levels_and_its_checks(market, appraiser):
    signal, bars = signal_of(market)
    told = appraiser.appraise(signal, bars, "equity", ASKED)
    rows = risk_factors(market).loc[[("A1", signal.time)]]
    want = appraiser.score.predict(rows, ["equity"]).iloc[0]
    assert told.risk == pytest.approx(want["risk"])
    assert told.measures["raw"] == pytest.approx(want["raw"])
    high, low, close = (bars[name].to_numpy(copy=True) for name in ("high", "low", "close"))
    atr = average_true_range(high, low, close)[-1]
    assert told.plan == appraiser.levels.plan(signal, 0.03, atr, 0.001)
    assert told.signal.prices == {
        "close": close[-1],
        "target": told.plan.target,
        "stop": told.plan.stop,
    }
    ran = {*told.quality.passed, *(f.check for f in told.quality.findings)}
    assert {"outside_band", "oversized", "stop_within_noise", "target_below_cost"} <= ran
    assert told.missing == ()


def test_it_says_the_same_with_no_more_bars_than_it_needs(market, appraiser):
    signal, bars = signal_of(market)
    whole, short = (
        appraiser.appraise(signal, b, "equity", ASKED) for b in (bars, bars.iloc[-141:])
    )
    assert (whole.risk, whole.plan) == (short.risk, short.plan)


def test_what_is_not_known_is_said_and_not_made_up(market, appraiser):
    signal, bars = signal_of(market)
    told = appraiser.appraise(signal, bars[["close"]], "equity", {})
    assert told.risk is None
    assert told.measures == {}
    assert told.signal.prices == {"close": signal.prices["close"]}
    assert [text.partition(":")[0] for text in told.missing] == [
        *("scale", "average true range", "cost", "risk score")
    ]
    assert told.missing[-1] == "risk score: liquidity, concentration not known"
    assert told.quality.not_run["outside_band"] == "not known: risk, band"


def test_the_risk_of_another_bar_is_not_taken(market, appraiser):
    signal, bars = signal_of(market)
    told = appraiser.appraise(signal, bars[:-1], "equity", ASKED)
    assert told.missing == ("risk score: the newest bar is not the signal's",)
    assert "other_bar" in {found.check for found in told.quality.findings}
    with pytest.raises(DataError, match="SV-X641"):
        appraiser.appraise(replace(signal, time=bars.index[-2]), bars, "equity", ASKED)


def test_risk_needs_a_score_that_was_fitted(market, appraiser):
    signal, bars = signal_of(market)
    bare = Appraiser(appraiser.checks)
    assert bare.appraise(signal, bars, "equity", ASKED).missing == ("risk score: none was fitted",)
    unfitted = Appraiser(appraiser.checks, replace(appraiser.score))
    with pytest.raises(NotFittedError):
        unfitted.appraise(signal, bars, "equity", ASKED)
