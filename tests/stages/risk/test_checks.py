from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from pipeline.recipe import build, check_targets, describe, instantiate
from stages.base import ConfigError, DataError
from stages.panel import inputs_of
from stages.risk.checks import (
    CONFIRMS,
    FAMILIES,
    POINTS,
    Checks,
    NotRunError,
    check,
    facts,
    quality,
)
from stages.risk.evidence import thin_volume
from tests.conftest import ROOT
from tests.stages.risk.made import BARS, BUY, CONTEXT, PRICE, STEP, TIMES, WHY

CHECKS: Checks = instantiate(OmegaConf.load(ROOT / "conf" / "checks" / "default.yaml"))
NAN = float("nan")


def at(**cells):
    """The bars with columns changed from some row on."""
    bars = BARS.copy()
    for name, (rows, values) in cells.items():
        bars.iloc[rows, bars.columns.get_loc(name)] = values
    return bars


def priced(**prices):
    return replace(BUY, prices=dict(BUY.prices) | prices)


def why(**words):
    return replace(BUY, reasons=replace(WHY, **words))


def wild():
    """Ten bars that swing by three in a hundred."""
    close = BARS["close"].to_numpy().copy()
    close[-10:] = close[-11] * np.exp(np.where(np.arange(10) % 2, 0.0, 0.03) + 0.005)
    return at(close=(slice(None), close)).assign(high=1e3, low=1.0)


def gone():
    """Ten bars lost, a week ago."""
    return BARS.drop(TIMES[-17:-7])


def rising():
    return at(close=(slice(None), PRICE * np.exp(0.01 * np.arange(-199, 1))))


FAULTS = {  # check: what is wrong with (signal, bars, context)
    "short_history": {"bars": BARS[-59:]},
    "missing_closes": {"bars": at(close=(-3, NAN))},
    "broken_bars": {"bars": at(low=(-2, 1e6))},
    "other_price": {"signal": priced(close=PRICE * 1.01)},
    "other_bar": {"bars": BARS[:-1]},
    "lost_bars": {"bars": gone()},
    "standing_price": {"bars": at(close=(slice(-6, None), PRICE))},
    "jump": {"bars": at(close=(slice(-4, None), PRICE / 2))},
    "expired": {"context": {"now": BUY.expires}},
    "from_the_future": {"context": {"now": BUY.time - STEP / 2}},
    "stale": {"context": {"now": BUY.time + 4.5 * STEP}},
    "short_lived": {"signal": replace(BUY, expires=BUY.time + STEP / 2)},
    "overtaken": {"context": {"last_price": PRICE * 0.96}},
    "closed_market": {"context": {"market_open": False}},
    "outside_band": {"context": {"risk": 80.1}},
    "no_edge": {"context": {"cost": 0.02}},
    "unproven_skill": {"signal": replace(BUY, skill={"progress": 0.4, "proven": False})},
    "interval_against": {"signal": replace(BUY, interval={"low": -0.06, "high": 0.05})},
    "doubtful_model": {"signal": replace(BUY, epistemic=0.3)},
    "oversized": {"context": {"size": 0.8}},
    "target_on_wrong_side": {"signal": priced(target=PRICE * 0.99)},
    "stop_on_wrong_side": {"signal": priced(stop=PRICE)},
    "poor_reward": {"signal": priced(target=PRICE * 1.01)},
    "target_out_of_reach": {"signal": priced(target=PRICE * 1.12)},
    "stop_within_noise": {"signal": priced(stop=PRICE * 0.995)},
    "target_below_cost": {"signal": priced(target=PRICE * 1.0009)},
    "one_input": {
        "signal": why(
            contributions={"feature.flow": 0.4, "feature.value": 0.05, "rule.cross": 0.05}
        )
    },
    "one_family": {"signal": why(by_family={"volume": 0.45, "returns": 0.05})},
    "cancelling_inputs": {"signal": why(margin=0.12, contributions={"a": 0.3, "b": -0.28})},
    "reasons_oppose": {"signal": why(side=-1)},
    "open_explanation": {"signal": why(raw_gap=-0.02)},
    "stages_agree": {"signal": replace(BUY, stages={"filter": -0.1, "refiner": 0.2})},
    "wild_market": {"bars": wild()},
    "thin_volume": {"bars": at(volume=(-1, 1e5))},
    "novel_inputs": {"signal": replace(BUY, novelty=2.4)},
    "wide_spread": {"context": {"spread": 0.3 * 0.03 * PRICE}},
    "event_ahead": {"context": {"next_event": BUY.time + STEP}},
    "with_the_trend": {"bars": at(close=(-1, 0.5 * PRICE))},
    "momentum_agrees": {"bars": at(close=(-13, 2 * PRICE))},
    "volume_confirms": {"bars": at(volume=(-1, 1.2e6))},
    "overextended": {"bars": rising()},
}


def examined(checks=CHECKS, signal=BUY, bars=BARS, context=None):
    return checks.examine(signal, bars, CONTEXT | (context or {}))


def found(result):
    return {finding.check: finding for finding in result.findings}


def declared(name):
    return CHECKS.checks[name].func.declared


def test_there_are_many_checks_in_every_family():
    families = [declared(name).family for name in CHECKS.checks]
    assert len(families) >= 20
    assert {family: families.count(family) >= 3 for family in FAMILIES} == dict.fromkeys(
        FAMILIES, True
    )
    assert set(FAULTS) == set(CHECKS.checks)


def test_the_page_lists_every_check_with_its_points():
    page = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8")
    for name in CHECKS.checks:
        told = declared(name)
        assert f"| `{name}` | {told.family} | {told.severity} {told.points:+d} |" in page
    assert page.count("\n| `") == len(CHECKS.checks)


def test_a_faultless_signal_passes_all_checks_and_is_confirmed():
    result = examined()
    assert result.not_run == {}
    assert {f.severity for f in result.findings} == {"confirmation"}
    assert set(found(result)) == {
        *("stages_agree", "with_the_trend", "momentum_agrees", "volume_confirms")
    }
    assert len(result.passed) == len(CHECKS.checks) - 4
    assert (result.score, result.valid) == (100, True)


@pytest.mark.parametrize("name", FAULTS)
def test_each_check_finds_its_fault_and_nothing_without_it(name):
    confirms = declared(name).severity == "confirmation"
    assert (name in found(examined())) == confirms
    result = examined(**FAULTS[name])
    assert (name in found(result)) != confirms
    if confirms:
        assert name in result.passed
    else:
        finding = found(result)[name]
        assert (finding.points, finding.cure) == (POINTS[finding.severity], declared(name).cure)
        assert any(c.isdigit() for c in finding.text) or name in ("closed_market",)


@pytest.mark.parametrize("name", CHECKS.checks)
def test_a_check_that_lacks_an_input_has_not_run(name):
    alone = Checks({name: CHECKS.checks[name]})
    known = facts(BUY, BARS, CONTEXT)
    for lacking in set(inputs_of(CHECKS.checks[name])) - {"time"}:  # which every signal has
        signal, bars, context = without(lacking)
        assert set(facts(signal, bars, context)) == set(known) - {lacking}
        result = alone.examine(signal, bars, context)
        assert result.not_run == {name: f"not known: {lacking}"}
        assert (result.score, result.valid, result.passed) == (None, False, ())


def without(name):
    """What is known, less one fact."""
    signal = replace(BUY)  # changed in place: its own checks allow no such gaps
    bars = BARS.drop(columns=name, errors="ignore")
    context = {key: value for key, value in CONTEXT.items() if key != name}
    key = "close" if name == "price" else name
    if name in ("price", "target", "stop"):
        prices = {k: v for k, v in BUY.prices.items() if k != key}
        object.__setattr__(signal, "prices", prices)
    elif name == "times":
        bars = None
    elif hasattr(signal, name):
        object.__setattr__(signal, name, None)
    if bars is None:  # the columns go with the times
        context |= {column: BARS[column].to_numpy() for column in BARS}
    return signal, bars, context


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("wild_market", {"bars": BARS[-30:]}),
        ("thin_volume", {"bars": at(volume=(-5, NAN))}),
        ("overextended", {"bars": BARS[-100:]}),
        ("with_the_trend", {"bars": at(close=(-5, NAN))}),
        ("broken_bars", {"bars": at(high=(-5, NAN))}),
        ("lost_bars", {"bars": BARS[-3:]}),
        ("stop_within_noise", {"context": {"atr": 0.0}}),
        ("interval_against", {"signal": replace(BUY, interval={"low": -np.inf, "high": np.inf})}),
        ("one_input", {"signal": why(margin=0.1, contributions={"a": 0.0})}),
    ],
)
def test_a_check_whose_inputs_do_not_say_enough_has_not_run(name, change):
    result = examined(**change)
    assert name in result.not_run
    assert name not in found(result)
    assert name not in result.passed


def test_an_abstention_is_not_called_good():
    quiet = replace(
        BUY,
        side=None,
        status="abstain",
        probabilities={},
        confidence=NAN,
        why_not=("history: short",),
        reasons=None,
        interval={},
        prices={"close": PRICE},
    )
    result = examined(signal=quiet)
    assert result.not_run["no_edge"] == "not known: side, probabilities"
    assert not set(found(result)) & {"with_the_trend", "momentum_agrees", "stages_agree"}
    assert Checks({"edge": CHECKS.checks["no_edge"]}).examine(quiet).score is None


def test_a_later_bar_is_refused():
    earlier = replace(BUY, time=TIMES[-2])
    with pytest.raises(DataError, match=r"SV-X641(.|\n)*no more than was known"):
        CHECKS.examine(earlier, BARS, CONTEXT)


# quality


@check("timing", "note", "nothing")
def says_what_it_is_told(said: str | None = None) -> str | None:
    return said


SEVERITIES = [*POINTS, "confirmation"]
RANK = {name: i for i, name in enumerate(SEVERITIES)}
SAID = st.lists(st.tuples(st.sampled_from(SEVERITIES), st.booleans()), min_size=1, max_size=14)


def judged(said, order=None):
    checks = {
        f"c{i}": partial(says_what_it_is_told, said=f"found {i}" if finds else None)
        for i, (_, finds) in enumerate(said)
    }
    names = list(checks) if order is None else [f"c{i}" for i in order]
    severities = {f"c{i}": severity for i, (severity, _) in enumerate(said)}
    return Checks({n: checks[n] for n in names}, severities).examine(BUY)


@settings(max_examples=40, deadline=None)
@given(SAID, st.randoms())
def test_quality_is_bounded_explained_and_free_of_order(said, random):
    result = judged(said)
    points = {**POINTS, "confirmation": CONFIRMS[0]}
    total = 100 + sum(points[severity] for severity, finds in said if finds)
    assert result.score == min(max(total, 0), 100)
    assert result.score == quality(f.points for f in result.findings)
    order = list(range(len(said)))
    random.shuffle(order)
    assert judged(said, order) == result


@settings(max_examples=40, deadline=None)
@given(SAID, st.data())
def test_a_graver_finding_never_raises_quality(said, data):
    i = data.draw(st.integers(0, len(said) - 1))
    severity, finds = said[i]
    graver = SEVERITIES[data.draw(st.integers(0, RANK[severity]))]
    worse = [*said[:i], (graver, finds), *said[i + 1 :]]
    before, after = judged(said), judged(worse)
    assert after.score <= before.score
    assert after.valid <= before.valid


def test_a_critical_finding_is_never_valid():
    assert judged([("critical", True)]).score == 50
    assert not judged([("critical", True)]).valid
    assert judged([("error", True), ("error", True)]).valid
    assert not judged([("error", True)] * 3).valid


# a check of one's own


def test_a_check_is_added_by_its_name_in_the_configuration():
    mine = {"_target_": "stages.risk.evidence.thin_volume", "_partial_": True, "share": 0.9}
    cfg = OmegaConf.load(ROOT / "conf" / "checks" / "default.yaml")
    cfg.checks.mine = mine
    cfg.severities = {"mine": "error"}
    result = examined(instantiate(cfg), bars=at(volume=(-1, 8e5)))
    assert found(result)["mine"].points == -20
    cfg.checks.mine._target_ = "os.path.join"
    with pytest.raises(ConfigError, match="SV-F32"):
        check_targets(OmegaConf.to_container(cfg))


def test_checks_can_be_written_down_and_built_again():
    again = build(describe(CHECKS))
    assert again.least == CHECKS.least
    assert examined(again) == examined()


def test_a_function_that_is_not_declared_is_no_check():
    with pytest.raises(ConfigError, match=r"SV-X640(.|\n)*decorate it"):
        Checks({"mine": lambda close: None})


def test_a_fault_in_a_check_is_no_word_about_the_signal():
    @check("timing", "note", "look")
    def divides(side):
        return str(side / 0)

    with pytest.raises(DataError, match=r"divides failed: ZeroDivisionError(.|\n)*of A at 2024"):
        Checks({"divides": divides}).examine(BUY)


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        (("tarot", "note", "look"), "no such family"),
        (("timing", "grave", "look"), "no such family or severity"),
        (("timing", "note"), "needs a cure"),
        (("timing", "confirmation", "", 11), "adds 5 to 10"),
    ],
)
def test_a_wrong_declaration_is_refused(declaration, message):
    with pytest.raises(ValueError, match=message):
        check(*declaration)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"least": 101}, "least"),
        ({"severities": {"other": "note"}}, "are no checks"),
        ({"severities": {"thin": "grave"}}, "no such severity"),
    ],
)
def test_wrong_settings_are_refused(settings_, message):
    with pytest.raises(ValueError, match=message):
        Checks({"thin": thin_volume}, **settings_)


def test_a_check_may_say_itself_that_it_cannot_run():
    @check("timing", "note", "look")
    def shy(side):
        raise NotRunError("not today")

    assert Checks({"shy": shy}).examine(BUY).not_run == {"shy": "not today"}


def test_what_a_signal_says_comes_before_its_context():
    assert facts(BUY, None, {"target": 1.0})["target"] == BUY.prices["target"]
    bare = replace(BUY, prices={"close": PRICE})
    assert facts(bare, None, {"target": 1.0})["target"] == 1.0
    assert "stop" not in facts(bare)
