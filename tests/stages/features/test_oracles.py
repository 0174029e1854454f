"""Numbers of the indicators against TA-Lib, pandas, scipy and numpy, on drawn and on real bars."""

import numpy as np
import pandas as pd
import pytest
import talib
from numpy.testing import assert_allclose
from scipy import stats

from stages.features import market, oscillators, returns, trend, volatility, volume


@pytest.fixture(scope="module", params=["drawn", "real"])
def one(request, one):
    """Arrays of one asset: high, low, close, volume."""
    if request.param == "drawn":
        return one
    path = request.getfixturevalue("realdata")("us_equity_daily_296_1990_2006.parquet")
    own = [("symbol", "==", "XOM"), ("date", ">=", pd.Timestamp("2000-01-03"))]
    table = pd.read_parquet(path, filters=own).sort_values("date").tail(700)
    names = ("open", "high", "low", "close", "volume")
    return {name: table[name].to_numpy("float64", copy=True) for name in names}


def series(one, *names):
    return [one[name] for name in names]


def tail(made, bars=300):
    return np.asarray(made)[-bars:]


def test_returns_equal_pandas(one):
    close = pd.Series(one["close"])
    for bars in (1, 5, 60):
        assert_allclose(
            returns.log_return(one["close"], bars), np.log(close).diff(bars), atol=1e-12
        )
    expected = np.log(close.shift(21)) - np.log(close.shift(252))
    assert_allclose(returns.skipped_momentum(one["close"]), expected, atol=1e-12)
    moves = np.log(close).diff()
    expected = moves.rolling(60).sum() / moves.rolling(60).std() / np.sqrt(60)
    assert_allclose(returns.momentum(one["close"], 60), expected, rtol=1e-8)
    assert_allclose(returns.largest_return(one["close"], 20), moves.rolling(20).max())


def test_place_in_the_year_equals_pandas(one):
    close = pd.Series(one["close"])
    high, low = close.rolling(252).max(), close.rolling(252).min()
    assert_allclose(returns.below_high(one["close"]), np.log(close / high), atol=1e-12)
    assert_allclose(returns.above_low(one["close"]), np.log(close / low), atol=1e-12)


def test_moments_equal_scipy(one):
    moves = np.diff(np.log(one["close"]))[-60:]
    assert returns.skewness(one["close"])[-1] == pytest.approx(stats.skew(moves))
    assert returns.excess_kurtosis(one["close"])[-1] == pytest.approx(stats.kurtosis(moves))
    moves = np.diff(np.log(one["close"]))
    expected = np.corrcoef(moves[-60:], moves[-61:-1])[0, 1]
    assert returns.autocorrelation(one["close"])[-1] == pytest.approx(expected)


def test_volatility_equals_pandas(one):
    moves = np.log(pd.Series(one["close"])).diff()
    made = volatility.realised_volatility(one["close"], 20)
    assert_allclose(made, moves.rolling(20).std(), rtol=1e-8)
    expected = np.sqrt((moves**2).ewm(alpha=0.06).mean())
    # what lies further back than the memory weighs 0.94 ** 160
    assert_allclose(tail(volatility.ewma_volatility(one["close"])), tail(expected), rtol=1e-3)
    ratio = np.log(moves.rolling(10).std() / moves.rolling(60).std())
    assert_allclose(volatility.volatility_ratio(one["close"]), ratio, rtol=1e-7, atol=1e-9)


def test_averages_equal_talib(one):
    close = one["close"]
    expected = np.log(close / talib.SMA(close, 50))
    assert_allclose(trend.distance_to_average(close, 50), expected, atol=1e-9)
    expected = np.log(talib.EMA(close, 10) / talib.EMA(close, 50))
    assert_allclose(tail(trend.average_cross(close, 10, 50)), tail(expected), atol=1e-4)


def test_macd_equals_talib(one):
    close = one["close"]
    # left out: a weight of e^-10 times how far the price has gone since
    line, signal, histogram = talib.MACD(close, 12, 26, 9)
    assert_allclose(tail(trend.macd_line(close)), tail(line / close), atol=3e-5)
    assert_allclose(tail(trend.macd_signal(close)), tail(signal / close), atol=3e-5)
    assert_allclose(tail(trend.macd_histogram(close)), tail(histogram / close), atol=3e-5)


def test_the_adaptive_average_equals_talib(one):
    close = one["close"]
    expected = np.log(close / talib.KAMA(close, 10))
    made = trend.distance_to_adaptive_average(close, 10, memory=400)
    assert_allclose(tail(made, 200), tail(expected, 200), atol=1e-4)
    usual = trend.distance_to_adaptive_average(close, 10)
    assert np.corrcoef(tail(usual, 200), tail(expected, 200))[0, 1] > 0.999


def test_directional_movement_equals_talib(one):
    bars = series(one, "high", "low", "close")
    for made, expected in (
        (trend.plus_directional_index(*bars), talib.PLUS_DI(*bars, 14)),
        (trend.minus_directional_index(*bars), talib.MINUS_DI(*bars, 14)),
        (trend.average_directional_index(*bars), talib.ADX(*bars, 14)),
    ):
        assert_allclose(tail(made), tail(expected), atol=0.02)


def test_the_average_true_range_equals_talib(one):
    bars = series(one, "high", "low", "close")
    expected = talib.ATR(*bars, 14) / one["close"]
    assert_allclose(tail(volatility.average_true_range(*bars)), tail(expected), rtol=1e-4)
    assert_allclose(volatility.true_range(*bars)[1:], talib.TRANGE(*bars)[1:])


def test_relative_strength_equals_talib(one):
    close = one["close"]
    assert_allclose(
        tail(oscillators.relative_strength(close)), tail(talib.RSI(close, 14)), atol=0.01
    )
    made = oscillators.relative_strength(close, 30, memory=250)
    assert_allclose(tail(made), tail(talib.RSI(close, 30)), atol=0.05)


def test_bollinger_equals_talib(one):
    close = one["close"]
    upper, middle, lower = talib.BBANDS(close, 20, 2, 2)
    made = oscillators.bollinger_percent(close, 20)
    assert_allclose(made[19:], ((close - lower) / (upper - lower))[19:], atol=1e-6)
    made = oscillators.bollinger_width(close, 20)
    assert_allclose(made[19:], ((upper - lower) / middle)[19:], rtol=1e-6)


def test_ranges_equal_pandas(one):
    high, low, close = (pd.Series(one[name]) for name in ("high", "low", "close"))
    top, bottom = high.rolling(14).max(), low.rolling(14).min()
    raw = 100 * (close - bottom) / (top - bottom)
    bars = series(one, "high", "low", "close")
    assert_allclose(oscillators.williams_r(*bars), raw - 100, atol=1e-8)
    k = raw.rolling(3).mean()
    assert_allclose(oscillators.stochastic_k(*bars)[17:], k[17:], atol=1e-8)
    assert_allclose(oscillators.stochastic_d(*bars)[17:], k.rolling(3).mean()[17:], atol=1e-8)
    typical = (high + low + close) / 3
    mean = typical.rolling(20).mean()
    spread = typical.rolling(20).apply(lambda w: np.abs(w - w.mean()).mean())
    expected = (typical - mean) / (0.015 * spread)
    assert_allclose(oscillators.commodity_channel(*bars), expected, atol=1e-6)


def test_volume_equals_talib_and_pandas(one):
    bars = series(one, "high", "low", "close", "volume")
    assert_allclose(volume.money_flow(*bars)[14:], talib.MFI(*bars, 14)[14:], atol=1e-8)
    close, traded = one["close"], pd.Series(one["volume"])
    change = pd.Series(talib.OBV(close, one["volume"])).diff(20)
    made = volume.on_balance_volume(close, one["volume"])
    assert_allclose(made, change / traded.rolling(20).sum(), atol=1e-9)
    window = traded.rolling(60)
    expected = (traded - window.mean()) / window.std()
    assert_allclose(volume.volume_score(one["volume"]), expected, rtol=1e-7, atol=1e-9)
    money = volume.turnover_score(close, one["volume"])
    assert_allclose(money, volume.volume_score(close * one["volume"]))


def test_illiquidity_is_impact_per_money(one):
    close, traded = pd.Series(one["close"]), pd.Series(one["volume"])
    impact, money = np.log(close).diff().abs(), (close * traded)[1:]
    fast = impact.rolling(20).sum() / money.rolling(20).sum()
    slow = impact.rolling(120).sum() / money.rolling(120).sum()
    made = volume.illiquidity(one["close"], one["volume"])
    assert_allclose(made, np.log(fast / slow), rtol=1e-7, atol=1e-9)


def test_beta_and_its_residual_equal_least_squares(one):
    rng = np.random.default_rng(3)
    index = 50 * np.exp(rng.normal(0, 0.01, 700).cumsum())
    own, common = np.diff(np.log(one["close"]))[-60:], np.diff(np.log(index))[-60:]
    line = stats.linregress(common, own)
    assert market.beta(one["close"], index)[-1] == pytest.approx(line.slope)
    rest = own - line.slope * common
    expected = rest.sum() / rest.std(ddof=1) / np.sqrt(60)
    assert market.residual_momentum(one["close"], index)[-1] == pytest.approx(expected)


def test_the_market_itself_has_a_beta_of_one_and_no_residual(one):
    close = one["close"]
    assert_allclose(market.beta(close, 3 * close)[60:], 1)
    assert np.isnan(market.residual_momentum(close, 3 * close)).all()


def test_a_planted_storm_is_seen_and_passes():
    rng = np.random.default_rng(0)
    sd = np.full(900, 0.01)
    sd[400:430], sd[700:730] = 0.05, 0.001
    level = np.exp((rng.normal(size=900) * sd).cumsum())
    state = market.volatility_regime(level)
    assert (state[410:430] == 1).all()
    assert (state[720:730] == -1).all()
    assert set(state[251:]) == {-1.0, 0.0, 1.0}
    place = market.volatility_place(level)
    assert place[425] > 0.45
    assert place[725] < -0.45


FLAT = np.full(600, 41.3)


@pytest.mark.parametrize(
    "made",
    [
        oscillators.relative_strength(FLAT),
        oscillators.bollinger_percent(FLAT),
        oscillators.stochastic_k(FLAT, FLAT, FLAT),
        oscillators.stochastic_d(FLAT, FLAT, FLAT),
        oscillators.williams_r(FLAT, FLAT, FLAT),
        oscillators.commodity_channel(FLAT, FLAT, FLAT),
        trend.average_directional_index(FLAT, FLAT, FLAT),
        returns.momentum(FLAT),
        returns.skewness(FLAT),
        returns.autocorrelation(FLAT),
        volatility.volatility_ratio(FLAT),
        market.beta(FLAT, FLAT),
        market.residual_momentum(FLAT, FLAT),
        volume.money_flow(FLAT, FLAT, FLAT, FLAT),
        volume.volume_score(FLAT),
        volume.illiquidity(FLAT, FLAT),
    ],
)
def test_zero_by_zero_is_unknown_and_not_zero(made):
    assert np.isnan(made).all()


def test_a_price_that_stands_still_is_on_its_averages():
    for made in (
        trend.distance_to_average(FLAT),
        trend.average_cross(FLAT),
        trend.macd_histogram(FLAT),
        trend.distance_to_adaptive_average(FLAT),
    ):
        assert_allclose(tail(made), 0, atol=1e-13)


def test_a_flat_stretch_spoils_only_the_averages_that_hold_it(one):
    high, low, close = (x.copy() for x in series(one, "high", "low", "close"))
    high[300:330] = low[300:330] = close[300:330] = close[300]
    k = oscillators.stochastic_k(high, low, close)
    d = oscillators.stochastic_d(high, low, close)
    # ranges of 14 bars are flat from 313 to 329; %K averages 3 of them, %D 5
    assert np.flatnonzero(np.isnan(k[17:])).tolist() == [*range(313 - 17, 332 - 17)]
    assert np.flatnonzero(np.isnan(d[17:])).tolist() == [*range(313 - 17, 334 - 17)]


def test_a_bar_without_trades_is_not_a_gap(one):
    traded = one["volume"].copy()
    traded[::3] = 0
    assert np.isfinite(volume.illiquidity(one["close"], traded)[120:]).all()
    assert np.isfinite(volume.on_balance_volume(one["close"], traded)[20:]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: trend.average_cross(x, 50, 10), "fast=50, slow=10"),
        (lambda x: trend.macd_line(x, 26, 26), "fast=26, slow=26"),
        (lambda x: volatility.volatility_ratio(x, 60, 10), "fast=60, slow=10"),
        (lambda x: volume.illiquidity(x, x, 60, 10), "fast=60, slow=10"),
        (lambda x: returns.skipped_momentum(x, 21, 21), "skip=21, bars=21"),
        (lambda x: market.volatility_regime(x, low=0.8, high=0.2), "low=0.8, high=0.2"),
    ],
)
def test_windows_must_be_ordered(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.ones(300))
