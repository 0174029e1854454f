"""What features=default holds, which columns bars may bring, and how assets stand to others."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from stages.features import kernels
from stages.features.build import FeatureSet
from stages.features.calendar import week_sine
from stages.features.cross_section import breadth, dispersion, rank, rank_in_sector, z_score
from stages.features.line import window_weighted_mean
from stages.features.order import window_age_of_max, window_age_of_min, window_quantile
from stages.features.peers import size
from stages.panel import named
from tests.stages.features.contract import clean_bars
from tests.stages.features.test_contract import ALL

THOUSANDTHS = st.integers(-9000, 9000).map(lambda n: n / 1000)  # no two alike but for rounding
TIES = st.one_of(st.integers(-2, 2).map(float), THOUSANDTHS, st.just(np.nan))


def test_the_default_set_names_over_120_columns_of_full_bars(aligned):
    features = ALL["default"]
    panel = features.build(aligned[["open", "high", "low", "close", "volume"]])
    made = named(panel, "feature")
    assert len(made) == 152
    assert set(ALL["core"].columns) < set(features.columns)
    left = {f"feature.sector_rank_{kind}" for kind in ("momentum", "reversal", "volatility")}
    assert features.left_out_ == dict.fromkeys(left, "the bars have no sector")
    assert panel.loc[features.ready(aligned), made].notna().all(axis=None)
    assert features.warmup == max(features.warmups.values()) == 252


def test_a_sector_adds_ranks_among_its_own(aligned):
    names = aligned.index.get_level_values("asset")
    sector = pd.Series(np.where(names < "C", "banks", "mines"), aligned.index, dtype="str")
    panel = ALL["default"].build(aligned.assign(sector=sector))
    made = panel["feature.sector_rank_reversal"].dropna()
    assert len(made) > 1000
    assert set(made) == {-0.25, 0.25}
    assert (
        made.groupby([made.index.get_level_values("time"), sector[made.index]]).sum() == 0
    ).all()
    # categories and any other names do as well
    again = ALL["default"].build(aligned.assign(sector=sector.astype("category")))
    assert_array_equal(again["feature.sector_rank_reversal"], panel["feature.sector_rank_reversal"])


def test_an_asset_without_a_sector_has_no_rank_in_it(aligned):
    sector = pd.Series("banks", aligned.index).where(aligned.index.get_level_values(0) != "A")
    panel = ALL["default"].build(aligned.assign(sector=sector))
    known = panel["feature.sector_rank_reversal"].notna().groupby("asset").any()
    assert known.to_dict() == {"A": False, "B": True, "C": True, "D": True}


def test_the_day_is_that_of_the_exchange_where_the_bars_know_it(aligned):
    features = FeatureSet({"week": week_sine})
    late = aligned[["close"]].assign(session=aligned.index.get_level_values(1).tz_localize(None))
    moved = late.index.get_level_values("time") + pd.Timedelta(hours=25)  # known the day after
    late.index = pd.MultiIndex.from_arrays(
        [late.index.get_level_values(0), moved], names=late.index.names
    )
    expected = features.build(aligned[["close"]])["feature.week"].to_numpy()
    assert_array_equal(features.build(late)["feature.week"], expected)
    assert (features.build(late.drop(columns="session"))["feature.week"] != expected).all()


# across the assets of a time


@settings(max_examples=60, deadline=None)
@given(arrays("float64", st.tuples(st.integers(1, 4), st.integers(1, 7)), elements=TIES))
def test_scores_among_assets_equal_pandas_row_by_row(of):
    table = pd.DataFrame(of)
    count = table.count(axis=1)
    spread = table.std(axis=1).where(count > 1)
    assert_allclose(dispersion(of), table.mask(table.notna(), spread, axis=0), atol=1e-12)
    scores = table.sub(table.mean(axis=1), axis=0).div(spread.where(spread > 1e-9), axis=0)
    assert_allclose(z_score(of), scores, atol=1e-9)
    above = ((table > 0).sum(axis=1) / count - 0.5).where(count > 1)
    assert_allclose(breadth(of), table.mask(table.notna(), above, axis=0), atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    arrays("float64", (3, 6), elements=TIES),
    arrays("float64", (3, 6), elements=st.sampled_from([0.0, 1.0, np.nan])),
)
def test_ranks_in_a_sector_are_the_ranks_of_its_members(of, sector):
    made = rank_in_sector(of, sector)
    for kind in (0.0, 1.0):
        members = sector == kind
        assert_array_equal(made[members], rank(np.where(members, of, np.nan))[members])
    assert np.isnan(made[np.isnan(sector)]).all()


def test_an_asset_that_is_absent_changes_no_bit_of_the_others():
    of = np.random.default_rng(0).lognormal(size=(30, 17))
    wide = np.insert(of, [0, 3, 9, 17], np.nan, axis=1)
    there = np.isfinite(wide[0])
    for function in (z_score, dispersion, breadth, rank):
        assert_array_equal(function(wide)[:, there], function(of))
    assert_array_equal(size(wide, wide)[:, there], size(of, of))


# windows that the families added


@settings(max_examples=60, deadline=None)
@given(arrays("float64", st.integers(1, 50), elements=TIES), st.integers(1, 12))
def test_new_windows_equal_numpy(x, bars):
    windows = pd.Series(x).rolling(bars)
    newest = windows.apply(lambda w: np.argmax(w[::-1]), raw=True)
    assert_array_equal(window_age_of_max(x, bars), newest)
    assert_array_equal(window_age_of_min(x, bars), window_age_of_max(-x, bars))
    weighted = windows.apply(lambda w: np.average(w, weights=np.arange(1, bars + 1)), raw=True)
    assert_allclose(window_weighted_mean(x, bars), weighted, atol=1e-9)
    mean = kernels.window_mean(x, bars)
    spread = windows.apply(lambda w: np.abs(w - w.mean()).mean(), raw=True)
    assert_allclose(kernels.window_moment(x, mean, bars, 1), spread, atol=1e-9)


KERNELS = {
    "sum": kernels.window_sum,
    "sd": lambda x, bars: kernels.window_sd(x, bars + 1),
    "third moment": lambda x, bars: kernels.window_moment(x, kernels.window_mean(x, bars), bars, 3),
    "covariance": lambda x, bars: kernels.window_covariance(x, x**2, bars),
    "max": kernels.window_max,
    "share": kernels.window_share_below,
    "even": lambda x, bars: kernels.smoothed(x, 0.3, bars),
    "adaptive": lambda x, bars: kernels.smoothed(x, 1 / (2 + np.abs(x)), bars),
    "age": window_age_of_max,
    "quantile": lambda x, bars: window_quantile(x, bars, 0.3),
    "weighted": window_weighted_mean,
    "shifted": kernels.shifted,
    "ratio": lambda x, bars: kernels.log_ratio(x, kernels.shifted(x, bars)),
}


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_assets_side_by_side_get_the_bits_that_each_gets_alone(kernel):
    wide = np.random.default_rng(3).normal(1, 1, size=(40, 5))
    wide[7, 2] = wide[30, 4] = np.nan
    for bars in (1, 2, 3, 4, 5, 8, 13, 40):
        alone = np.column_stack([kernel(wide[:, j].copy(), bars) for j in range(5)])
        assert_array_equal(kernel(wide, bars), alone)


def test_maxima_of_long_windows_equal_pandas():
    x = np.random.default_rng(4).normal(size=700).round(2)
    x[321] = np.nan
    for bars in (1, 2, 3, 31, 32, 33, 252):
        assert_array_equal(kernels.window_max(x, bars), pd.Series(x).rolling(bars).max())
        assert_array_equal(kernels.window_min(x, bars), pd.Series(x).rolling(bars).min())


def test_deviations_keep_their_accuracy_beside_a_large_level():
    x = 1e6 + np.random.default_rng(5).normal(size=200)
    expected = stats.tstd(x[-60:])
    assert kernels.window_sd(x, 60)[-1] == pytest.approx(expected, rel=1e-9)


@pytest.mark.realdata
def test_real_bars_leave_next_to_nothing_unknown(realdata):
    """Bars without a range or a trade have no shape; nothing is infinite."""
    path = realdata("m6_assets_daily_100_2018_2022.parquet")
    few = [("symbol", "in", ["IVV", "GSG", "XLF", "AMZN", "WRK"])]
    table = pd.read_parquet(path, filters=few).rename(columns={"symbol": "asset", "date": "time"})
    table["time"] = pd.to_datetime(table["time"]).dt.tz_localize("UTC").dt.as_unit("us")
    bars = table.set_index(["asset", "time"]).sort_index()[
        ["open", "high", "low", "close", "volume"]
    ]
    features = ALL["default"]
    panel = features.build(bars)
    made = panel.loc[features.ready(bars), named(panel, "feature")]
    assert made.shape[0] > 3000
    assert made.isna().mean().max() < 0.01


def test_bars_of_closes_alone_still_feed_most_columns():
    bars = clean_bars(np.random.default_rng(8), "ABC", 300)[["close"]]
    panel = ALL["default"].build(bars)
    assert len(named(panel, "feature")) >= 80
