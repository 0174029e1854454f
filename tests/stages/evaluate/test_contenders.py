import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from stages.evaluate.contenders import contenders
from stages.markets import noise_iid

ODDS = ["p_sell", "p_hold", "p_buy"]
MEMBERS = ["filter.lightgbm", "filter.rules", "refiner.lstm"]


def said(index: pd.MultiIndex, members=tuple(MEMBERS), seed: int = 0) -> pd.DataFrame:
    """Random logits of the members, and odds of stage 3 with and without the gate."""
    rng = np.random.default_rng(seed)
    columns = {
        f"{m}.{z}": rng.normal(size=len(index)) for m in members for z in ("z_sell", "z_buy")
    }
    for prefix in ("", "ungated."):
        odds = rng.dirichlet([1, 1, 1], len(index)).T
        columns |= {prefix + name: values for name, values in zip(ODDS, odds, strict=True)}
    return pd.DataFrame(columns | {"filter.gate": 1.0}, index)


def labels(seed: int, times: int, assets: int, unit: str = "us") -> pd.DataFrame:
    """Labels of some rows of a ragged panel, with ends of any length that tie with times."""
    rng = np.random.default_rng(seed)
    clock = pd.date_range("2020-01-01 21:00", periods=times + 9, tz="UTC").as_unit(unit)
    rows = [(f"A{a}", clock[t], t) for a in range(assets) for t in range(times)]
    rows = [row for k, row in enumerate(rows) if k == 0 or rng.random() < 0.8]
    index = pd.MultiIndex.from_tuples([row[:2] for row in rows], names=["asset", "time"])
    late = [row[2] for row in rows] + rng.integers(1, 9, len(rows))
    side = rng.choice([-1, 0, 1], len(rows), p=[0.2, 0.3, 0.5]).astype("int8")
    return pd.DataFrame({"side": side, "end": clock[late], "weight": 1.0}, index)


def counted(rows: pd.DataFrame, y: pd.DataFrame, group: pd.Series | None = None) -> np.ndarray:
    """Odds from the labels that had ended by each row's time, label by label."""
    odds = []
    for row in rows.index:
        counts = [1, 1, 1]
        for other, side, end in zip(y.index, y["side"], y["end"], strict=True):
            if end <= row[1] and (group is None or group[other] == group[row]):
                counts[side + 1] += 1
        odds.append(np.array(counts) / sum(counts))
    return np.array(odds)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    times=st.integers(2, 12),
    assets=st.integers(1, 3),
    unit=st.sampled_from(["us", "ns", "s"]),
)
def test_the_base_rate_counts_only_labels_that_had_ended(seed, times, assets, unit):
    y = labels(seed, times, assets, unit)
    rows = said(labels(seed + 1, times, assets).index)
    found = contenders(rows, y)["base rate"]
    np.testing.assert_allclose(found, counted(rows, y), rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), times=st.integers(2, 12), assets=st.integers(1, 3))
def test_the_last_sign_counts_only_ended_labels_that_followed_the_same_sign(seed, times, assets):
    y = labels(seed, times, assets)
    rows = said(y.index)
    rng = np.random.default_rng(seed)
    last = pd.Series(rng.choice([-0.02, 0.0, 0.01, np.nan], len(y)), y.index)
    found = contenders(rows, y, last)["last sign"]
    np.testing.assert_allclose(found, counted(rows, y, np.sign(last).fillna(0)), rtol=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), order=st.randoms(use_true_random=False))
def test_the_order_of_the_labels_does_not_matter(seed, order):
    y = labels(seed, 8, 2)
    rows = said(y.index)
    shuffled = y.sample(frac=1, random_state=order.randrange(1000))
    one, two = (contenders(rows, table)["base rate"] for table in (y, shuffled))
    pd.testing.assert_frame_equal(one, two)


def test_labels_of_the_future_change_no_baseline_of_the_past():
    y = labels(3, 30, 3)
    cut = y["end"].sort_values().iloc[len(y) // 2]
    garbage = y.assign(side=y["side"].where(y["end"] <= cut, np.int8(1)))
    rows = said(y.index)
    last = pd.Series(np.random.default_rng(0).normal(size=len(y)), y.index)
    past = y.index.get_level_values("time") <= cut
    for name in ("base rate", "last sign"):
        one, two = (contenders(rows, table, last)[name] for table in (y, garbage))
        pd.testing.assert_frame_equal(one[past], two[past], check_exact=True)
        assert not one[~past].equals(two[~past])


def test_a_frequency_is_never_certain_even_before_the_first_label():
    y = labels(0, 20, 2).assign(side=np.int8(1))
    odds = contenders(said(y.index), y)["base rate"]
    first = odds.index.get_level_values("time") == odds.index.get_level_values("time").min()
    np.testing.assert_allclose(odds[first], 1 / 3)
    assert (odds > 0).all(axis=None)


def test_without_last_returns_there_is_no_last_sign_and_the_order_is_that_of_the_stages():
    y = labels(0, 20, 2)
    rows = said(y.index)
    names = ["base rate", "lightgbm", "rules", "lstm", "soft vote", "stage 1", "stage 2"]
    names += ["stage 3", "pipeline"]
    assert list(contenders(rows, y)) == names
    last = pd.Series(1.0, y.index)
    assert list(contenders(rows, y, last)) == ["base rate", "last sign", *names[1:]]


def test_members_and_stages_speak_by_the_softmax_of_their_mean_logits():
    y = labels(1, 20, 2)
    rows = said(y.index)
    found = contenders(rows, y)
    zeros = np.zeros(len(rows))
    z = {m: np.column_stack([rows[f"{m}.z_sell"], zeros, rows[f"{m}.z_buy"]]) for m in MEMBERS}
    expected = {
        "lightgbm": z["filter.lightgbm"],
        "rules": z["filter.rules"],
        "lstm": z["refiner.lstm"],
        "soft vote": sum(z.values()) / 3,
        "stage 1": (z["filter.lightgbm"] + z["filter.rules"]) / 2,
        "stage 2": z["refiner.lstm"],
    }
    for name, logits in expected.items():
        np.testing.assert_allclose(found[name], softmax(logits, axis=1), rtol=1e-12)
    for odds in found.values():
        assert list(odds) == ODDS
        assert odds.index.equals(rows.index)
        np.testing.assert_allclose(odds.sum(axis=1), 1)


def test_stage_three_stands_before_the_gate_and_the_pipeline_behind_it():
    y = labels(1, 20, 2)
    rows = said(y.index)
    found = contenders(rows, y)
    np.testing.assert_array_equal(found["stage 3"], rows[[f"ungated.{c}" for c in ODDS]])
    np.testing.assert_array_equal(found["pipeline"], rows[ODDS])


def test_without_a_refiner_there_is_no_second_stage():
    y = labels(1, 20, 2)
    found = contenders(said(y.index, ["filter.xgboost"]), y)
    assert "stage 2" not in found
    np.testing.assert_array_equal(found["stage 1"], found["xgboost"])


def test_two_members_of_one_name_keep_both_their_rows():
    y = labels(1, 20, 2)
    rows = said(y.index, ["filter.net", "filter.rules", "refiner.net"])
    found = contenders(rows, y)
    assert {"filter.net", "refiner.net", "rules"} < set(found)
    assert "net" not in found
    assert not found["filter.net"].equals(found["refiner.net"])


@pytest.mark.parametrize("size", [1e3, 1e5])
def test_huge_logits_give_odds_and_a_silent_member_none(size):
    y = labels(1, 20, 2)
    rows = said(y.index)
    rows["filter.rules.z_buy"] = size
    rows.iloc[3, rows.columns.get_loc("refiner.lstm.z_sell")] = np.nan
    found = contenders(rows, y)
    np.testing.assert_allclose(found["rules"]["p_buy"], 1)
    for name in ("lstm", "soft vote", "stage 2"):
        assert found[name].iloc[3].isna().all()
        assert found[name].drop(index=rows.index[3]).notna().all(axis=None)


def test_on_a_market_of_thirds_the_base_rate_settles_there():
    market = noise_iid(0, times=400, assets=5)
    odds = contenders(said(market.y.index), market.y)["base rate"]
    late = odds.groupby(level="asset").tail(50)
    assert np.abs(late - 1 / 3).max(axis=None) < 0.03
