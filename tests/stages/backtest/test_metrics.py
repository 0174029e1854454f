import empyrical
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.integrate import quad
from scipy.special import ndtri
from scipy.stats import kurtosis, linregress, norm, skew
from skfolio import measures

from stages.backtest import metrics
from stages.backtest.drawdowns import drawdown, drawdowns
from stages.backtest.intervals import intervals
from stages.backtest.relative import measure_against
from stages.backtest.tails import KINDS, expected_shortfall, value_at_risk
from stages.base import DataError

YEAR = 252


def curve(seed=0, bars=1000, mean=4e-4, tail=4):
    rng = np.random.default_rng(seed)
    times = pd.date_range("2019-01-01 21:00", periods=bars, freq="B", tz="UTC", name="time")
    return pd.Series(mean + 0.01 * rng.standard_t(tail, bars), times)


@pytest.fixture(params=range(3))
def returns(request):
    return curve(request.param)


# by hand


def test_a_curve_worked_out_on_paper():
    """100, 110, 99, 99, 108.9: up a tenth, down a tenth, flat, up a tenth; four periods a year."""
    x = pd.Series([0.1, -0.1, 0.0, 0.1], pd.date_range("2024-01-01", periods=4, tz="UTC"))
    said = metrics.measure(x, per_year=4)
    assert said["total_return"] == pytest.approx(0.089, abs=1e-15)
    assert said["geometric_return"] == pytest.approx(0.089, abs=1e-15)
    assert said["arithmetic_return"] == pytest.approx(0.1, abs=1e-15)
    assert said["volatility"] == pytest.approx(2 * np.sqrt(0.0275 / 3), rel=1e-14)
    assert said["sharpe"] == pytest.approx(0.025 / np.sqrt(0.0275 / 3) * 2, rel=1e-14)
    assert said["sortino"] == pytest.approx(0.025 / 0.05 * 2, rel=1e-14)
    assert said["max_drawdown"] == pytest.approx(0.1, abs=1e-15)
    assert said["calmar"] == pytest.approx(0.89, rel=1e-13)
    assert said["periods_up"] == 0.5
    assert said["longest_drawdown"] == 3  # from the peak of the first period to the end
    assert said["var_historical"] == pytest.approx(0.085)


def test_falls_have_a_peak_a_trough_and_an_end_unless_they_last():
    times = pd.date_range("2024-01-01", periods=7, tz="UTC")
    x = pd.Series([-0.5, 1.0, 0.1, -0.1, -0.1, 0.5, -0.2], times)
    falls = drawdowns(x)
    assert falls["depth"].tolist() == pytest.approx([0.5, 0.19, 0.2])
    assert falls["length"].tolist() == [2, 3, 1]
    assert falls["fall"].tolist() == [1, 2, 1]
    assert falls["recovery"].fillna(-1).tolist() == [1, 1, -1]
    assert falls["peak"].tolist() == [pd.NaT, times[2], times[5]]
    assert falls["trough"].tolist() == [times[0], times[4], times[6]]
    assert falls["end"].tolist() == [times[1], times[5], pd.NaT]


@given(arrays("float64", st.integers(1, 60), elements=st.floats(-0.5, 0.5)))
def test_every_period_below_the_highest_is_in_one_fall(x):
    falls = drawdowns(pd.Series(x, pd.date_range("2024-01-01", periods=len(x), tz="UTC")))
    below = drawdown(x)
    assert falls["depth"].max() == -below.min() if len(falls) else (below == 0).all()
    ended = falls["end"].notna()
    assert (falls["length"] - ended).sum() == (below < 0).sum()
    assert (falls["length"] == falls["fall"] + falls["recovery"])[ended].all()


# against others


def test_figures_are_those_of_empyrical(returns):
    said = metrics.measure(returns, YEAR)
    theirs = {
        "total_return": empyrical.cum_returns_final(returns),
        "geometric_return": empyrical.annual_return(returns),
        "volatility": empyrical.annual_volatility(returns),
        "sharpe": empyrical.sharpe_ratio(returns),
        "sortino": empyrical.sortino_ratio(returns),
        "calmar": empyrical.calmar_ratio(returns),
        "max_drawdown": -empyrical.max_drawdown(returns),
        "var_historical": -empyrical.value_at_risk(returns, 0.05),
        "cvar_historical": -empyrical.conditional_value_at_risk(returns.to_numpy(), 0.05),
    }
    for name, value in theirs.items():
        assert said[name] == pytest.approx(value, rel=1e-10), name


def test_figures_against_a_benchmark_are_those_of_empyrical_and_of_a_regression(returns):
    market = 0.4 * returns + curve(9)
    rate = 1e-4
    said = measure_against(returns, market, YEAR, rate)
    alpha, beta = empyrical.alpha_beta(returns, market, risk_free=rate)
    assert said["beta"] == pytest.approx(beta, rel=1e-10)
    assert (1 + said["alpha"] / YEAR) ** YEAR - 1 == pytest.approx(alpha, rel=1e-10)
    line = linregress(market - rate, returns - rate)
    assert said["alpha"] == pytest.approx(line.intercept * YEAR, rel=1e-10)
    assert said["correlation"] == pytest.approx(line.rvalue, rel=1e-10)
    ratio = empyrical.excess_sharpe(returns, market) * np.sqrt(YEAR)
    assert said["information_ratio"] == pytest.approx(ratio, rel=1e-10)
    assert said["tracking_error"] == pytest.approx((returns - market).std() * np.sqrt(YEAR))
    grown = empyrical.annual_return(returns) - empyrical.annual_return(market)
    assert said["active_geometric"] == pytest.approx(grown, rel=1e-10)


def test_a_rate_is_taken_off_before_ratios(returns):
    rate = np.full(len(returns), 1e-4)
    assert metrics.sharpe(returns, YEAR, rate) == pytest.approx(
        empyrical.sharpe_ratio(returns, risk_free=1e-4), rel=1e-10
    )
    assert metrics.sortino(returns, YEAR, rate) == pytest.approx(
        empyrical.sortino_ratio(returns, required_return=1e-4), rel=1e-10
    )


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99, 0.973])
def test_tails_are_those_of_skfolio_and_of_their_own_quantiles(returns, level):
    x = returns.to_numpy()
    assert expected_shortfall(x, level) == pytest.approx(measures.cvar(x, beta=level), rel=1e-10)
    mean, sd = x.mean(), x.std(ddof=1)
    gaussian = norm(mean, sd)
    assert value_at_risk(x, level, "gaussian") == pytest.approx(-gaussian.ppf(1 - level), rel=1e-10)
    s, k = skew(x), kurtosis(x)

    def quantile(p):
        z = ndtri(p)
        return mean + sd * (
            z + (z**2 - 1) * s / 6 + (z**3 - 3 * z) * k / 24 - (2 * z**3 - 5 * z) * s**2 / 36
        )

    assert value_at_risk(x, level, "cornish_fisher") == pytest.approx(-quantile(1 - level))
    for kind, of in (("gaussian", gaussian.ppf), ("cornish_fisher", quantile)):
        mean_beyond = quad(of, 0, 1 - level, epsabs=1e-13)[0] / (1 - level)
        assert expected_shortfall(x, level, kind) == pytest.approx(-mean_beyond, rel=1e-8)


@given(st.integers(0, 100_000), st.integers(2, 300))
def test_a_shortfall_is_no_less_than_the_value_at_risk(seed, bars):
    x = np.random.default_rng(seed).normal(0, 0.01, bars)
    for level in (0.9, 0.99):
        for kind in ("historical", "gaussian"):
            assert expected_shortfall(x, level, kind) >= value_at_risk(x, level, kind) - 1e-15


# groups


def test_years_months_and_regimes_are_measured_apart(returns):
    years = metrics.by_year(returns, YEAR)
    for year, row in years.iterrows():
        mine = returns[returns.index.year == year]
        assert row["total_return"] == pytest.approx(empyrical.cum_returns_final(mine), rel=1e-10)
        assert row["sharpe"] == pytest.approx(empyrical.sharpe_ratio(mine), rel=1e-10)
    assert years["periods"].sum() == len(returns)
    months = metrics.by_month(returns)
    theirs = empyrical.aggregate_returns(returns, "monthly")
    for (year, month), value in theirs.items():
        assert months.loc[year, month] == pytest.approx(value, rel=1e-9)
    assert months.loc[2019, "year"] == pytest.approx(years.loc[2019, "total_return"])
    regime = pd.Series(np.where(np.arange(len(returns)) % 3, "calm", "wild"), returns.index)
    regime.iloc[:5] = None
    table = metrics.by_group(returns, regime, YEAR)
    assert sorted(table.index) == ["calm", "wild"]
    assert table["periods"].sum() == len(returns) - 5
    with pytest.raises(DataError, match="different times"):
        metrics.by_group(returns, regime.iloc[1:], YEAR)


def test_a_regime_is_known_before_the_bar_it_labels():
    close = pd.Series([10.0, 11, 12, 6, 5, 20], pd.date_range("2024-01-01", periods=6, tz="UTC"))
    regime = metrics.market_regimes(close, bars=2)
    assert regime.isna().tolist() == [True, True] + [False] * 4
    assert regime[2:].tolist() == ["rising", "rising", "falling", "falling"]
    later = close.copy()
    later.iloc[4:] = 1.0
    assert metrics.market_regimes(later, bars=2)[:5].equals(regime[:5])


# what is not defined


def test_what_is_not_defined_is_nan():
    flat = pd.Series(0.0, pd.date_range("2024-01-01", periods=5, tz="UTC"))
    said = metrics.measure(flat, YEAR)
    assert np.isnan([said[k] for k in ("sharpe", "sortino", "calmar", "skew")]).all()
    assert said["max_drawdown"] == said["volatility"] == 0
    empty = metrics.measure(flat[:0], YEAR)
    assert np.isnan([v for k, v in empty.items() if "drawdown" not in k]).all()
    assert np.isnan(list(measure_against(flat[:1], flat[:1], YEAR).values())).all()
    assert intervals(flat, YEAR).isna().all(axis=None)
    assert {k.removeprefix("var_") for k in said if k.startswith("var_")} == set(KINDS)


def test_a_return_that_is_missing_is_named():
    x = curve(bars=4)
    x.iloc[2] = np.nan
    with pytest.raises(DataError, match="the return at 2019-01-03"):
        metrics.measure(x, YEAR)
    with pytest.raises(DataError, match="not of one time"):
        measure_against(x[:2], x[1:3], YEAR)


def test_the_profit_factor_is_gains_over_losses():
    assert metrics.profit_factor([3.0, -1.0, 1.0, -1.0]) == 2
    assert metrics.profit_factor([1.0]) == np.inf
    assert np.isnan(metrics.profit_factor([0.0]))


# intervals


def test_intervals_hold_the_figures_and_narrow_with_history():
    x = curve(3, 2000, tail=30)
    market = 0.5 * x + curve(4, 2000, tail=30)
    wide, narrow = (
        intervals(r, YEAR, b, resamples=300) for r, b in ((x[:250], market[:250]), (x, market))
    )
    said = metrics.measure(x, YEAR) | measure_against(x, market, YEAR)
    for name, (low, high) in narrow.iterrows():
        assert low < said[name] < high, name
    width = (narrow["high"] - narrow["low"]) / (wide["high"] - wide["low"])
    assert (width.drop("max_drawdown") < 0.7).all()


def test_intervals_of_the_sharpe_ratio_hold_the_truth_as_often_as_they_say():
    held = 0
    for seed in range(60):
        x = pd.Series(np.random.default_rng(seed).normal(0, 0.01, 250))
        low, high = intervals(x, YEAR, resamples=100, seed=seed).loc["sharpe"]
        held += low <= 0 <= high
    assert held >= 52
