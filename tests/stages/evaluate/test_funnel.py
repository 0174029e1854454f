import numpy as np
import pandas as pd
import pytest

from stages.evaluate import forward_return, funnel, screened
from stages.evaluate.funnel import STEPS
from stages.markets import mixed

FAST = {"resamples": 60}


@pytest.fixture(scope="module")
def market():
    return mixed(2, times=600, assets=10)


def stages(market, gate: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Stages that see the truth ever better: noise of 2, 1 and 0 on the true log-odds."""
    rng = np.random.default_rng(seed)
    truth = market.posterior.loc[market.y.index]
    lean = np.log(truth["p_buy"] / truth["p_sell"])
    first, second = (lean + size * rng.normal(size=len(lean)) for size in (2.0, 1.0))
    passes = first.abs() > gate
    sure = truth.max(axis=1) > 0.5
    leading = pd.Series(np.where(truth["p_buy"] > truth["p_sell"], 1, -1), truth.index)
    side = leading.where(sure & passes & (truth["p_hold"] < 0.5), 0)
    columns = {"filter.a.z_buy": first / 2, "filter.a.z_sell": -first / 2}
    columns |= {"refiner.b.z_buy": second / 2, "refiner.b.z_sell": -second / 2}
    return truth.assign(**columns, **{"filter.gate": passes * 1.0, "side": side.astype("Int8")})


def test_each_step_is_counted_as_by_hand(market):
    rows = stages(market, gate=1.0)
    label, ahead = market.y["side"], forward_return(market.panel, 1, 0)
    rows["cost"] = 0.001
    table = funnel(rows, label, ahead, **FAST)
    assert list(table.index) == list(STEPS)
    side = np.sign(rows["filter.a.z_buy"])
    keep = {"all": side != 0, "gate": rows["filter.gate"] == 1}
    keep["refiner"] = keep["gate"] & (np.sign(rows["refiner.b.z_buy"]) == side)
    keep["ensemble"] = keep["refiner"] & (np.sign(rows["p_buy"] - rows["p_sell"]) == side)
    keep["decision"] = keep["ensemble"] & (rows["side"] == side)
    right, earned = label == side, side * ahead.loc[rows.index] - 0.001
    for step, before in zip(STEPS[1:], STEPS, strict=False):
        here, gone = keep[step], keep[before] & ~keep[step]
        said = table.loc[step]
        assert (said["rows"], said["dropped"]) == (here.sum(), gone.sum())
        assert said["false_positives"] == (gone & ~right).sum()
        assert said["precision"] == pytest.approx(right[here].mean())
        assert said["recall"] == pytest.approx((here & right).sum() / right.sum())
        assert said["lift"] == pytest.approx(right[here].mean() / right.mean())
        assert said["cut"] == pytest.approx((gone & ~right).sum() / (keep[before] & ~right).sum())
        assert said["lost"] == pytest.approx((gone & right).sum() / (keep[before] & right).sum())
        assert said["earned"] == pytest.approx(earned[here].mean())
        assert said["forgone"] == pytest.approx(earned[gone].mean())
        assert said["precision_low"] < said["precision"] < said["precision_high"]


def test_stages_that_see_more_raise_precision_and_drop_what_would_have_lost(market):
    table = funnel(stages(market), market.y["side"], forward_return(market.panel, 1, 0), **FAST)
    assert table["precision"].drop("gate").is_monotonic_increasing
    assert table.loc["refiner", "forgone_high"] < table.loc["refiner", "earned_low"]
    assert table.loc["ensemble", "forgone_high"] < 0
    assert table.loc["decision", "lift_low"] > 1.2


def test_without_a_refiner_or_returns_nothing_is_said_of_them(market):
    rows = stages(market).drop(columns=["refiner.b.z_buy", "refiner.b.z_sell"])
    table = funnel(rows, market.y["side"], **FAST)
    assert "refiner" not in table.index
    assert table[["earned", "forgone"]].isna().all(axis=None)
    assert table.loc["gate", "dropped"] == 0


def test_rows_without_a_label_are_left_out_and_a_silent_pipeline_drops_the_rest(market):
    rows = stages(market).assign(side=pd.array([0] * len(market.y), dtype="Int8"))
    rows.iloc[:50, rows.columns.get_loc("side")] = pd.NA
    table = funnel(rows, market.y["side"].iloc[100:], **FAST)
    assert table.loc["all", "rows"] == len(rows) - 100
    assert table.loc["decision", "rows"] == 0
    assert table.loc["decision", "cut"] == 1
    assert np.isnan(table.loc["decision", "precision"])


def test_false_positives_dropped_at_a_recall_are_counted_as_by_hand(market):
    rows, label = stages(market), market.y["side"]
    buys = rows["filter.a.z_buy"] > 0
    chance = rows["p_buy"].where(buys, rows["p_sell"])
    paid = label == buys.map({True: 1, False: -1})
    bar = chance[paid].sort_values().iloc[round(0.1 * paid.sum())]
    share = screened(rows, market.posterior, label, recall=0.9)
    assert share == pytest.approx((chance[~paid] < bar).mean(), abs=0.002)
    blind = market.posterior * 0 + 1 / 3  # odds that tell nothing drop as many of either kind
    assert screened(rows, blind, label, recall=0.9) == pytest.approx(0.1)
    assert share > 0.3
    assert np.isnan(screened(rows, rows, label * 0, recall=0.9))
