from dataclasses import replace
from math import nan

import numpy as np
import pandas as pd
import pytest

from pipeline.assemble import assemble
from stages.base import DataError
from stages.features.volatility import average_true_range
from stages.markets.noise import noise_garch
from stages.risk.appraise import Appraiser
from stages.risk.factors import risk_factors, worst_loss
from stages.signal import WhyNot
from tests.conftest import composed
from tests.stages.risk.made import BUY, CONTEXT

ASKED = {key: CONTEXT[key] for key in ("cost", "scale", "span", "step", "market_open")}
SPAN = 5


def equities(assets):
    return ["equity"] * len(assets)


@pytest.fixture(scope="module")
def market():
    panel = noise_garch(5, times=400, assets=4).panel
    panel["market"] = panel["close"].groupby("time").transform("mean")
    return panel


@pytest.fixture(scope="module")
def said(market):
    """What some model said of every bar."""
    rng = np.random.default_rng(0)
    buy = rng.choice([0.3, 0.4], len(market))
    table = {"p_sell": 0.7 - buy, "p_buy": buy, "epistemic": rng.gamma(2, 0.01, len(market))}
    return pd.DataFrame(table, market.index)


@pytest.fixture(scope="module")
def appraiser(market, said):
    return assemble(composed("config"), "risk").fit(said, market, equities, SPAN)


def signal_of(market, said, at=300, **changes):
    """The signal of one bar of A1."""
    one = market.loc["A1"]
    doubt = said.loc[("A1", one.index[at]), "epistemic"]
    values = {
        "asset": "A1",
        "time": one.index[at],
        "expires": one.index[at] + pd.Timedelta("8D"),
        "epistemic": float(doubt),
        "prices": {"close": one["close"].iloc[at], "target": 1.0, "stop": 2.0},
    }
    return replace(BUY, **values | changes)


def told(appraiser, signal, bars, context=ASKED):
    [found] = appraiser.appraise([signal], bars, ["equity"], [context])
    return found


def test_a_signal_gets_its_risk_its_levels_and_its_checks(market, said, appraiser):
    signal = signal_of(market, said)
    found = told(appraiser, signal, market)
    row = risk_factors(market.assign(epistemic=said["epistemic"])).loc[[("A1", signal.time)]]
    want = appraiser.score_.predict(row, ["equity"]).iloc[0]
    assert found.appraisal.risk == pytest.approx(want["risk"], abs=0.05001)
    assert found.appraisal.raw == pytest.approx(want["raw"], abs=0.05001)
    assert found.appraisal.band == (30.0, 80.0)
    assert sum(found.appraisal.factors.values()) == pytest.approx(want["raw"], abs=0.31)
    bars = market.loc["A1"].iloc[:301]
    atr = average_true_range(*(bars[n].to_numpy(copy=True) for n in ("high", "low", "close")))[-1]
    plan = appraiser.levels.plan(signal, 0.03, atr, 0.001)
    assert found.prices == {
        "close": bars["close"].iloc[-1],
        "target": plan.target,
        "stop": plan.stop,
    }
    assert (found.appraisal.size, found.appraisal.chance) == (plan.size, plan.chance)
    known = ASKED | {"size": plan.size, "atr": atr * bars["close"].iloc[-1], "risk": 50.0}
    known |= {"band": (30.0, 80.0)}
    examined = appraiser.checks.examine(replace(found, appraisal=None), bars, known)
    assert found.appraisal.findings == examined.findings
    assert found.appraisal.quality == examined.score
    assert found.appraisal.ran == len(examined.passed) + len(examined.findings)
    assert found.appraisal.missing == ()


def test_many_at_once_are_told_what_each_is_told_alone(market, said, appraiser):
    signals = [signal_of(market, said, at) for at in (120, 200, 300, 399)]
    together = appraiser.appraise(signals, market, ["equity"] * 4, [ASKED] * 4)
    assert together == [told(appraiser, signal, market) for signal in signals]
    assert appraiser.appraise([], market, [], []) == []


def test_it_says_the_same_with_no_more_bars_than_it_looks_at(market, said, appraiser):
    signal = signal_of(market, said)
    times = market.index.get_level_values("time")
    until = market[times <= signal.time]
    short = until.groupby(level="asset", sort=False).tail(appraiser.look)
    assert told(appraiser, signal, short) == told(appraiser, signal, until)


def test_later_bars_are_not_seen(market, said, appraiser):
    signal = signal_of(market, said)
    times = market.index.get_level_values("time")
    broken = market.mul(np.where(times <= signal.time, 1, 3), axis=0)
    assert told(appraiser, signal, broken) == told(appraiser, signal, market)


def test_what_is_not_known_is_said_and_not_made_up(market, said, appraiser):
    signal = signal_of(market, said)
    found = told(appraiser, signal, market[["close"]], {})
    assert found.appraisal.risk is found.appraisal.size is found.appraisal.band is None
    assert found.prices == {"close": signal.prices["close"]}
    assert [text.partition(":")[0] for text in found.appraisal.missing] == [
        *("scale", "average true range", "cost", "risk score")
    ]
    assert found.appraisal.missing[-1] == "risk score: liquidity, concentration not known"


def test_the_risk_of_another_bar_is_not_taken(market, said, appraiser):
    signal = signal_of(market, said)
    times = market.index.get_level_values("time")
    found = told(appraiser, signal, market[times < signal.time])
    assert found.appraisal.risk is None
    assert "risk score: the newest bar is not the signal's" in found.appraisal.missing
    assert "average true range: no stop and no size" in found.appraisal.missing
    assert "other_bar" in {f.check for f in found.appraisal.findings}
    with pytest.raises(DataError, match="no bar of A1"):
        told(appraiser, signal, market[times > signal.time])


def test_a_hold_has_risk_and_quality_and_no_plan(market, said, appraiser):
    why = (WhyNot.of("certainty 0.6 < 0.8"),)
    hold = signal_of(market, said, side=0, status="hold", confidence=0.2, why_not=why)
    found = told(appraiser, hold, market)
    assert (found.side, found.status) == (0, "hold")
    assert 30 <= found.appraisal.risk <= 80
    assert found.appraisal.quality is not None
    assert (found.appraisal.size, found.appraisal.missing) == (None, ())
    assert set(found.prices) == {"close"}


def test_a_failed_check_is_a_finding_and_an_abstention_only_if_asked(market, said, appraiser):
    late = ASKED | {"now": signal_of(market, said).expires}
    found = told(appraiser, signal_of(market, said), market, late)
    assert not found.appraisal.valid
    assert (found.side, found.status) == (1, "fired")
    strict = replace(appraiser, abstains=True).restore(appraiser.state())
    left = told(strict, signal_of(market, said), market, late)
    assert (left.side, left.status, left.probabilities) == (None, "abstain", {})
    assert left.why_not[0].key == "quality"
    assert "expired" in left.why_not[0].text
    assert left.appraisal.findings == found.appraisal.findings
    assert set(left.prices) == {"close"}
    fine = ASKED | {"now": signal_of(market, said).time}
    assert told(strict, signal_of(market, said), market, fine).status == "fired"


def test_without_a_score_there_is_no_risk_and_the_reason_is_said(market, said, appraiser):
    signal, few = signal_of(market, said), said.iloc[:100]
    bare = Appraiser(appraiser.checks).fit(said, market, equities, SPAN)
    assert told(bare, signal, market).appraisal.missing == ("risk score: none was fitted",)
    short = replace(appraiser).fit(few, market, equities, SPAN)
    [reason] = told(short, signal, market).appraisal.missing
    assert reason.startswith("risk score: none was fitted, for 80 rows have a loss")
    assert short.roles_ == {}
    with pytest.raises(ValueError, match="look must be"):
        replace(appraiser, look=50)


# learning


def test_it_is_fitted_on_rows_whose_loss_is_known_and_on_no_others(market, said, appraiser):
    rows = appraiser.roles_["calibrate"]
    loss = worst_loss(market, np.ones(len(market), int), SPAN)
    assert rows.isin(loss.index[loss.notna()]).all()
    assert len(appraiser.open_) == 4 * SPAN
    assert not appraiser.open_.index.isin(rows).any()


def test_what_was_said_is_learnt_once_its_loss_is_known(market, said):
    times = market.index.get_level_values("time")
    early, late = (times <= times.unique()[at] for at in (350, 380))
    one = assemble(composed("config"), "risk").fit(said[early], market[early], equities, SPAN)
    before = one.score_.scales_["equity"].rows.sum()
    one.update(said[late & ~early], market[late], equities)
    learnt = one.score_.scales_["equity"].rows.sum() - before
    assert learnt == 30 * 4  # the bars between, of which the last five are open now as then
    assert len(one.open_) == 4 * SPAN
    # the same rows told again, or bars without news, teach nothing
    again = replace(one).restore(one.state())
    again.update(said[:0], market[late], equities)
    assert again.state() == one.state()


def test_what_was_learnt_is_kept(market, said, appraiser):
    read = replace(appraiser).restore(appraiser.state())
    assert read.state() == appraiser.state()
    signal = signal_of(market, said)
    assert told(read, signal, market) == told(appraiser, signal, market)


def test_the_market_is_made_where_the_training_made_it(market, said):
    bare = market.drop(columns="market")
    made = assemble(composed("config"), "risk").fit(said, bare, equities, SPAN)
    assert made.market_ == "equal weight"
    signal = signal_of(market, said)
    assert told(made, signal, market) == told(made, signal, bare)
    alone = told(made, signal, bare.loc[["A1"]])  # no market can be made of one asset
    assert alone.appraisal.missing == ("risk score: concentration not known",)
    silent = {"confidence": nan, "certainty": nan, "epistemic": nan, "aleatoric": nan}
    nothing = {"side": None, "status": "abstain", "probabilities": {}, "interval": {}}
    left = replace(signal, why_not=(WhyNot.of("inputs: none"),), **silent, **nothing)
    assert told(made, left, bare).appraisal.missing == ("risk score: model not known",)
