import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import calibration_curve

from stages.evaluate import calibration, confidence_order, evaluate, reliability, risk_coverage
from stages.markets import mixed, tabular

ODDS = ["p_sell", "p_hold", "p_buy"]
FAST = {"resamples": 100}


def predictions(market, odds=None) -> pd.DataFrame:
    """What the true odds, or others, say about every labelled row."""
    odds = market.posterior if odds is None else odds
    return odds.assign(label=market.y["side"])


def too_sure(odds: pd.DataFrame, power: float = 2.0) -> pd.DataFrame:
    return (odds**power).div((odds**power).sum(axis=1), axis=0)


@pytest.fixture(scope="module")
def market():
    return mixed(1, times=800, assets=20)


@pytest.fixture(scope="module")
def rows(market):
    return predictions(market)


def test_reliability_by_class_holds_the_odds_of_each_side_against_its_frequency(rows):
    table = reliability(rows, bins=10, by="class")
    assert list(table["group"].unique()) == ["SELL", "HOLD", "BUY"]
    known = rows.dropna()
    for k, side in enumerate(("SELL", "HOLD", "BUY")):
        mine = table[table["group"] == side]
        frequency, said = calibration_curve(
            known["label"] == k - 1, known[ODDS[k]], n_bins=10, strategy="quantile"
        )
        np.testing.assert_allclose(mine["confidence"], said, atol=2e-3)
        np.testing.assert_allclose(mine["accuracy"], frequency, atol=2e-2)
        assert mine["rows"].sum() == len(known)
    inside = (table["low"] < table["confidence"]) & (table["confidence"] < table["high"])
    assert inside.mean() > 0.85


def test_reliability_by_regime_tells_a_regime_that_is_too_sure_from_one_that_is_not(market, rows):
    regime = market.panel["context.regime"] > 0
    odds = market.posterior.copy()
    odds[regime] = too_sure(odds)[regime]
    table = reliability(predictions(market, odds), bins=8, by=regime.rename("regime"))
    top = table.groupby("group").tail(3).groupby("group")[["confidence", "accuracy"]].mean()
    gap = top["confidence"] - top["accuracy"]
    assert gap[True] > 0.1
    assert abs(gap[False]) < 0.03
    named = reliability(predictions(market, odds).assign(regime=regime), bins=8, by="regime")
    pd.testing.assert_frame_equal(named, table)
    assert list(table) == ["group", "confidence", "accuracy", "low", "high", "rows"]


def test_the_calibration_error_of_the_truth_is_nothing_in_any_slice(market, rows):
    regime = market.panel["context.regime"]
    table = calibration(rows, regime, **FAST)
    assert list(table["said"][:4]) == ["confidence", "SELL", "HOLD", "BUY"]
    assert (table["low"] == 0).all()
    assert (table.loc[table["group"] == "all", "high"] < 0.02).all()
    assert table.loc[table["group"] == "all", "rows"].unique() == len(rows.dropna())
    groups = table[table["group"] != "all"].drop_duplicates("group")
    assert groups["rows"].sum() == len(rows.dropna())


def test_the_calibration_error_of_the_confidence_is_that_of_the_table(rows):
    mine = calibration(rows, **FAST).iloc[0]
    whole = evaluate(rows, **FAST)["ece"]
    assert (mine["ece"], mine["low"], mine["high"]) == pytest.approx(
        (whole["value"], whole["low"], whole["high"]), abs=1e-9
    )


def test_odds_of_one_side_that_are_too_high_are_found_in_that_side(market):
    odds = market.posterior.copy()
    odds["p_buy"], odds["p_hold"] = odds["p_buy"] + 0.3 * odds["p_hold"], 0.7 * odds["p_hold"]
    table = calibration(predictions(market, odds), **FAST).set_index("said")
    assert table.loc["BUY", "low"] > 0.03
    assert table.loc["HOLD", "low"] > 0.03
    assert table.loc["SELL", "ece"] < 0.02


def test_the_surer_the_rows_the_higher_their_accuracy_on_a_market_whose_truth_is_told(rows):
    table = risk_coverage(rows, "confidence", points=10, **FAST)
    np.testing.assert_allclose(table["coverage"], np.arange(1, 11) / 10, atol=1e-3)
    assert table["accuracy"].is_monotonic_decreasing
    assert table["least"].is_monotonic_decreasing
    assert ((table["low"] < table["accuracy"]) & (table["accuracy"] < table["high"])).all()
    whole = evaluate(rows, **FAST)
    assert table["accuracy"].iloc[-1] == pytest.approx(whole["accuracy"]["value"])
    assert table["direction"].iloc[-1] == pytest.approx(whole["direction"]["value"])


def test_rows_are_sorted_by_what_is_given_and_those_without_it_left_out(rows):
    rng = np.random.default_rng(0)
    useless = pd.Series(rng.random(len(rows)), rows.index)
    table = risk_coverage(rows, useless, points=5, **FAST)
    assert np.ptp(table["accuracy"]) < 0.05  # sorted by a coin, no share is better
    known = rows["p_buy"].where(rows["p_buy"] > 0.5)
    some = risk_coverage(rows.assign(certainty=known), points=4, **FAST)
    assert some["rows"].iloc[-1] == (known.notna() & rows["label"].notna()).sum()
    assert some["least"].iloc[-1] > 0.5


def test_confidence_is_in_order_on_a_planted_market():
    """C141: at SNR 1 the surest tenth is right on more than 80 %, the less sure on below 60 %."""
    table = confidence_order(predictions(tabular(3, times=2000, assets=20, snr=1.0)), **FAST)
    assert list(table.index) == ["lowest tenth", "lower half", "upper half", "top tenth"]
    assert table.loc["top tenth", "low"] > 0.80
    assert table.loc["lower half", "high"] < 0.60
    assert (
        table.loc["lower half", "rows"] + table.loc["upper half", "rows"]
        == table.loc[["lower half", "upper half"], "rows"].sum()
    )


def test_tenths_are_those_of_the_table(rows):
    table, whole = confidence_order(rows, **FAST), evaluate(rows, **FAST)
    for band, name in (("lowest tenth", "accuracy_decile_01"), ("top tenth", "accuracy_decile_10")):
        assert table.loc[band, "accuracy"] == pytest.approx(whole[name]["value"], abs=2e-3)
