import numpy as np
import pandas as pd
import pytest
from arch.bootstrap import SPA

from stages.backtest.compare import contest, paired
from stages.base import DataError
from stages.evaluate.overfitting import overfitting

YEAR = 252


def variants(count=6, bars=500, best=0.0, seed=0):
    """Noise about a common market; the last variant has a mean of its own."""
    rng = np.random.default_rng(seed)
    times = pd.date_range("2020-01-01", periods=bars, tz="UTC")
    market = pd.Series(rng.normal(3e-4, 0.01, bars), times)
    own = pd.DataFrame(rng.normal(0, 0.004, (bars, count)), times)
    own[count - 1] += best
    return own.add(market, axis=0).add_prefix("v"), market


def test_a_pair_differs_where_one_has_more():
    table, market = variants(best=0.002)
    gap = paired(table["v5"], market, YEAR, resamples=300)
    assert (gap["low"] > 0).all()
    assert gap.loc["arithmetic_return", "value"] == pytest.approx(
        (table["v5"] - market).mean() * YEAR, rel=1e-12
    )
    other = paired(market, table["v5"], YEAR, resamples=300)
    assert other["value"].to_numpy() == pytest.approx(-gap["value"].to_numpy(), rel=1e-12)
    same = paired(market, market, YEAR, resamples=300)
    assert (same == 0).all(axis=None)


def test_pairs_are_drawn_together():
    """What both share cancels: the interval of the difference is narrower than that of either."""
    table, market = variants()
    gap = paired(table["v0"], market, YEAR, resamples=300).loc["arithmetic_return"]
    shared = 4 * 0.01 / np.sqrt(500) * YEAR
    assert gap["high"] - gap["low"] < 0.75 * shared


def test_intervals_of_pairs_without_a_difference_hold_0():
    held = 0
    for seed in range(40):
        table, market = variants(1, 250, seed=seed)
        row = paired(table["v0"], market, YEAR, resamples=100, seed=seed).loc["sharpe"]
        held += row["low"] <= 0 <= row["high"]
    assert held >= 34


def test_the_best_of_many_without_skill_is_not_superior():
    table, market = variants(30)
    found = contest(table, market, resamples=300)
    assert found.p_value > 0.05
    assert found.superior == ()
    assert found.p_lower <= found.p_value <= found.p_upper
    assert found.confidence_set["benchmark"] > 0.05


def test_one_with_skill_is_found_among_many():
    table, market = variants(30, best=0.0015)
    found = contest(table, market, resamples=300)
    assert found.p_value < 0.05
    assert found.superior == ("v29",)
    assert found.confidence_set["v29"] == 1
    assert found.confidence_set["benchmark"] < 0.05
    assert found.overfitting == overfitting(table.to_numpy(), 16).probability < 0.2


def test_the_p_value_is_that_of_arch():
    table, market = variants(5, best=0.0004)
    found = contest(table, market, resamples=200, seed=3)
    theirs = SPA(-market, -table, block_size=found.block, reps=200, seed=3)
    theirs.compute()
    assert found.p_value == theirs.pvalues["consistent"]


def test_twins_share_their_places_and_one_like_the_benchmark_is_not_superior():
    table, market = variants(4, best=0.003)
    table["twin"], table["market"] = table["v3"], market
    found = contest(table, market, resamples=200)
    assert found.superior == ("v3", "twin")
    assert found.confidence_set["twin"] == found.confidence_set["v3"]
    assert found.confidence_set["market"] == found.confidence_set["benchmark"]
    alone = contest(table[["market"]], market, resamples=200)
    assert (alone.p_value, alone.superior) == (1.0, ())


def test_variants_need_the_same_complete_periods():
    table, market = variants()
    with pytest.raises(DataError, match="v1 has no return at 2020-01-03"):
        contest(table.assign(v1=table["v1"].where(table.index != table.index[2])), market)
    with pytest.raises(DataError, match="no return"):
        paired(market, market[1:], YEAR)
    with pytest.raises(DataError, match="no variant"):
        contest(table[[]], market)
