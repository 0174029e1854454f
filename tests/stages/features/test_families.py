"""Numbers of the families of features=default against TA-Lib, pandas and plain loops, to 1e-8.

On drawn bars and on real ones. TA-Lib's recursions remember their first bar, ours forget after a
declared number of bars: with a memory far longer than the weights reach both must agree.
"""

import numpy as np
import pandas as pd
import pytest
import talib
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from stages.features import (
    averages,
    calendar,
    candles,
    comovement,
    flows,
    levels,
    liquidity,
    oscillators,
    profile,
    ranges,
    swings,
    trend,
)
from tests.stages.features.contract import clean_bars

TIGHT = {"rtol": 1e-8, "atol": 1e-8}


@pytest.fixture(scope="module", params=["drawn", "real"])
def bars(request):
    """Bars of one asset, and the closes of another as its market."""
    if request.param == "drawn":
        table = clean_bars(np.random.default_rng(4), "AB", 1500)
    else:
        path = request.getfixturevalue("realdata")("us_equity_daily_296_1990_2006.parquet")
        few = [("symbol", "in", ["XOM", "GE"]), ("date", ">=", pd.Timestamp("2000-01-03"))]
        table = pd.read_parquet(path, filters=few).set_index(["symbol", "date"]).sort_index()
    first, second = table.index.unique(0)
    own = table.loc[first][["open", "high", "low", "close", "volume"]]
    return own.assign(market=table.loc[second]["close"]).astype("float64").dropna()


@pytest.fixture
def lasting(monkeypatch):
    """Exponential averages that look back on forty time constants."""
    monkeypatch.setattr(trend, "SPANS", 20)


def arrays(bars, *names):
    return [bars[name].to_numpy(dtype="float64", copy=True) for name in names]


def newest(made, expected, rows=300):
    assert np.isfinite(np.asarray(expected)[-rows:]).all()
    assert_allclose(np.asarray(made)[-rows:], np.asarray(expected)[-rows:], **TIGHT)


def known(made, expected):
    """The same everywhere, the rows without a value included."""
    assert_allclose(np.asarray(made), np.asarray(expected), **TIGHT)
    assert np.isfinite(made).sum() > 300


@pytest.mark.usefixtures("lasting")
def test_averages_with_less_lag_equal_talib(bars):
    (close,) = arrays(bars, "close")
    newest(averages.distance_to_double_average(close, 20), np.log(close / talib.DEMA(close, 20)))
    newest(averages.triple_average_change(close, 15), talib.TRIX(close, 15))
    newest(averages.percentage_oscillator(close), talib.PPO(close, 12, 26, matype=1))
    line = pd.Series(talib.PPO(close, 12, 26, matype=1))
    histogram = line - line.ewm(span=9, adjust=True).mean()
    newest(averages.percentage_histogram(close), histogram)


def test_the_hull_average_equals_weighted_averages_of_talib(bars):
    (close,) = arrays(bars, "close")
    for length, root in ((20, 4), (50, 7)):
        ahead = 2 * talib.WMA(close, length // 2) - talib.WMA(close, length)
        hull = (
            pd.Series(ahead).rolling(root).apply(lambda w: np.average(w, weights=WEIGHTS[w.size]))
        )
        known(averages.distance_to_hull_average(close, length), np.log(close / hull))
    with pytest.raises(ValueError, match="bars=1"):
        averages.distance_to_hull_average(close, 1)


WEIGHTS = {root: np.arange(1, root + 1) for root in (4, 7)}


def test_lines_equal_talib(bars):
    (close,) = arrays(bars, "close")
    known(averages.slope(close, 20), talib.LINEARREG_SLOPE(np.log(close), 20))
    place = np.arange(len(close), dtype=float)
    known(averages.straightness(close, 60), talib.CORREL(np.log(close), place, 60) ** 2)


def test_crossings_and_states_equal_talib(bars):
    (close,) = arrays(bars, "close")
    quick, steady = talib.SMA(close, 50), talib.SMA(close, 200)
    known(averages.simple_average_cross(close, 50, 200), np.log(quick / steady))
    state = np.where((close > quick) & (quick > steady), 1.0, 0.0)
    state = np.where((close < quick) & (quick < steady), -1.0, state)
    made = averages.trend_state(close)
    assert_allclose(made[199:], state[199:])
    assert set(made[199:]) == {-1.0, 0.0, 1.0}


def test_efficiency_is_the_net_move_over_the_path(bars):
    close = bars["close"]
    expected = close.diff(20) / close.diff().abs().rolling(20).sum()
    known(averages.efficiency(*arrays(bars, "close"), 20), expected)


def test_stochastics_and_channels_equal_talib(bars):
    prices = arrays(bars, "high", "low", "close")
    k, d = talib.STOCH(*prices, 14, 3, 0, 3, 0)
    assert_allclose(swings.stochastic_fast(*prices)[17:], k[17:], **TIGHT)
    assert_allclose(swings.stochastic_slow(*prices)[17:], d[17:], **TIGHT)
    known(swings.channel_index(*prices, 20), talib.CCI(*prices, 20))
    # what stands in features=core, from where both are known
    assert_allclose(swings.stochastic_fast(*prices)[17:], oscillators.stochastic_k(*prices)[17:])
    known(swings.channel_index(*prices), oscillators.commodity_channel(*prices))


def test_the_stochastic_of_the_strength_equals_talib(bars):
    (close,) = arrays(bars, "close")
    expected = talib.STOCHRSI(close, 14, 14, 1, 0)[0]
    newest(swings.stochastic_strength(close, 14, 14, memory=600), expected)


def test_ultimate_oscillator_and_aroon_equal_talib(bars):
    high, low, close = arrays(bars, "high", "low", "close")
    known(swings.ultimate_oscillator(high, low, close), talib.ULTOSC(high, low, close, 7, 14, 28))
    down, up = talib.AROON(high, low, 25)
    known(swings.aroon_up(high, 25), up)
    known(swings.aroon_down(low, 25), down)
    known(swings.aroon(high, low, 25), talib.AROONOSC(high, low, 25))


def test_choppiness_is_the_path_over_the_range(bars):
    high, low, close = (bars[c] for c in ("high", "low", "close"))
    before = close.shift(1)
    top = pd.concat([high, before], axis=1).max(axis=1, skipna=False)
    bottom = pd.concat([low, before], axis=1).min(axis=1, skipna=False)
    span = top.rolling(14).max() - bottom.rolling(14).min()
    expected = np.log10((top - bottom).rolling(14).sum() / span) / np.log10(14)
    known(swings.choppiness(*arrays(bars, "high", "low", "close"), 14), expected)


def test_a_streak_counts_the_bars_of_one_direction(bars):
    (close,) = arrays(bars, "close")
    sign, expected, run = np.sign(np.diff(close, prepend=np.nan)), [], 0
    for t, now in enumerate(sign):
        run = 0 if now == 0 or np.isnan(now) else (run + now if sign[t - 1] == now else now)
        expected.append(np.clip(run, -10, 10) if t >= 10 else np.nan)
    known(swings.streak(close, 10), expected)


def test_a_streak_ends_where_a_close_stands_and_is_unknown_where_one_is_missing():
    close = np.array([1, 2, 3, 3, 4, 5, np.nan, 6, 7, 6, 5, 4])
    expected = [np.nan, np.nan, 2, 0, 1, 2, np.nan, np.nan, np.nan, -1, -2, -2]
    assert_array_equal(swings.streak(close, 2), expected)
    wide = np.stack([close, -close, close[::-1]], axis=1)
    alone = [swings.streak(column.copy(), 2) for column in wide.T]
    assert_array_equal(swings.streak(wide, 2), np.stack(alone, axis=1))


def test_drawdowns_equal_pandas(bars):
    close = bars["close"]
    top = close.rolling(60).max()
    ulcer = np.sqrt(((close / top - 1) ** 2).rolling(60).mean())
    known(swings.ulcer(*arrays(bars, "close"), 60), ulcer)
    since = close.rolling(252).apply(lambda w: 251 - (251 - np.argmax(w[::-1])), raw=True) / 252
    known(swings.under_water(*arrays(bars, "close"), 252), since)


def test_range_volatilities_equal_their_formulas(bars):
    o, h, low, c = (np.log(bars[name]) for name in ("open", "high", "low", "close"))
    every = arrays(bars, "open", "high", "low", "close")
    expected = np.sqrt(((h - low) ** 2).rolling(20).mean() / (4 * np.log(2)))
    known(ranges.parkinson(*every[1:3], 20), expected)
    each = 0.5 * (h - low) ** 2 - (2 * np.log(2) - 1) * (c - o) ** 2
    known(ranges.garman_klass(*every, 20), np.sqrt(each.rolling(20).mean()))
    shadows = (h - c) * (h - o) + (low - c) * (low - o)
    known(ranges.rogers_satchell(*every, 20), np.sqrt(shadows.rolling(20).mean()))
    k = 0.34 / (1.34 + 21 / 19)
    variance = (o - c.shift(1)).rolling(20).var() + k * (c - o).rolling(20).var()
    variance += (1 - k) * shadows.rolling(20).mean()
    known(ranges.yang_zhang(*every, 20), np.sqrt(variance))


def test_a_price_outside_of_its_own_range_has_no_variance():
    flat = np.full(30, 100.0)
    assert np.isnan(ranges.garman_klass(flat, flat, flat, flat * 1.1, 20)).all()


@pytest.mark.usefixtures("lasting")
def test_bands_equal_talib(bars):
    high, low, close = arrays(bars, "high", "low", "close")
    middle, reach = talib.EMA(close, 20), 2 * talib.ATR(high, low, close, 10)
    made = ranges.keltner_position(high, low, close, memory=400)
    newest(made, (close - (middle - reach)) / (2 * reach))
    newest(ranges.keltner_width(high, low, close, memory=400), 2 * reach / middle)
    upper, _, lower = talib.BBANDS(close, 20, 2, 2)
    mean = talib.SMA(talib.TRANGE(high, low, close)[1:], 20)
    newest(ranges.squeeze(high, low, close, 20)[1:], np.log((upper - lower)[1:] / (4 * mean)))
    span = talib.TRANGE(high, low, close)
    moved = np.where(span > 0, span, np.nan)
    expected = np.log(moved / talib.ATR(high, low, close, 14))
    newest(ranges.range_expansion(high, low, close, memory=500), expected)


def test_moves_of_volatility_equal_pandas(bars):
    move = np.log(bars["close"]).diff()
    volatility = move.rolling(20).std().rolling(60)
    (close,) = arrays(bars, "close")
    known(ranges.volatility_of_volatility(close), volatility.std() / volatility.mean())
    falls = (move.clip(upper=0) ** 2).rolling(60).sum() / (move**2).rolling(60).sum()
    known(ranges.downside(close, 60), falls)


@pytest.mark.usefixtures("lasting")
def test_flows_equal_talib_and_pandas(bars):
    every = arrays(bars, "high", "low", "close", "volume")
    volume = bars["volume"]
    line = pd.Series(talib.AD(*every), bars.index)
    flow = line.diff(20) / volume.rolling(20).sum()
    assert_allclose(flows.chaikin_flow(*every, 20)[20:], flow[20:], **TIGHT)
    expected = talib.ADOSC(*every, 3, 10) / volume.rolling(20).mean()
    newest(flows.accumulation_oscillator(*every), expected)
    typical = (bars["high"] + bars["low"] + bars["close"]) / 3
    paid = (typical * volume).rolling(20).sum() / volume.rolling(20).sum()
    known(flows.distance_to_vwap(*every, 20), np.log(bars["close"] / paid))


def test_unusual_volume_equals_pandas(bars):
    volume = bars["volume"]
    (traded,) = arrays(bars, "volume")
    known(flows.unusual_volume(traded), np.log1p(volume / volume.rolling(20).median().shift(1)))
    usual = volume.rolling(60).mean()
    spikes = (volume > 2 * usual).astype(float).where(usual.notna()).rolling(20).mean()
    known(flows.volume_spikes(traded), spikes)
    line = talib.LINEARREG_SLOPE(traded, 20) / volume.rolling(20).mean()
    known(flows.volume_slope(traded), line)
    close, money = bars["close"], bars["close"] * volume
    fast, slow = money.rolling(20).mean(), money.rolling(120).mean()
    known(flows.money_trend(*arrays(bars, "close", "volume")), np.log(fast / slow))
    expected = np.log(close).diff().rolling(60).corr(volume)
    known(flows.return_volume_correlation(*arrays(bars, "close", "volume"), 60), expected)


def test_the_profile_equals_numpy_histograms(bars):
    every = arrays(bars, "high", "low", "close", "volume")
    typical, close, volume = sum(every[:3]) / 3, every[2], every[3]
    distance = profile.distance_to_busiest(*every, 60, 12)
    share, below = profile.busiest_share(*every, 60, 12), profile.volume_below(*every, 60)
    for row in range(700, 760):
        window = slice(row - 59, row + 1)
        held, edges = np.histogram(typical[window], bins=12, weights=volume[window])
        busiest = held.argmax()
        middle = (edges[busiest] + edges[busiest + 1]) / 2
        assert distance[row] == pytest.approx(np.log(close[row] / middle), abs=1e-8)
        assert share[row] == pytest.approx(held.max() / held.sum(), abs=1e-8)
        under = volume[window][typical[window] < close[row]].sum()
        ties = volume[window][typical[window] == close[row]].sum()
        assert below[row] == pytest.approx((under + ties / 2) / volume[window].sum(), abs=1e-8)


def test_levels_equal_pandas(bars):
    high, low, close = (bars[c] for c in ("high", "low", "close"))
    top, bottom = high.rolling(20).max().shift(1), low.rolling(20).min().shift(1)
    h, lo, c, o = arrays(bars, "high", "low", "close", "open")
    known(levels.distance_to_support(lo, c, 20), np.log(close / bottom))
    known(levels.distance_to_resistance(h, c, 20), np.log(close / top))
    beyond = (close - top).clip(lower=0) - (bottom - close).clip(lower=0)
    known(levels.breakout(h, lo, c, 20), beyond / (top - bottom))
    gap = np.log(bars["open"] / close.shift(1))
    known(levels.gap(o, c), gap)
    known(levels.overnight(o, c, 20), gap.rolling(20).sum())
    known(levels.within_bars(o, c, 20), np.log(close / bars["open"]).rolling(20).sum())
    held = [
        np.mean((lo[t - 59 : t + 1] <= c[t]) & (c[t] <= h[t - 59 : t + 1]))
        for t in range(59, len(c))
    ]
    known(levels.congestion(lo, h, c, 60)[59:], held)


def test_candles_are_what_they_are_called():
    open_ = np.array([10.0, 12, 9, 11, 10, 10])
    close = np.array([12.0, 10, 13, 12, 11, 10])
    nan = np.nan
    # up, down over all of it, up over all of it, up again, up from below, no body at all
    assert_allclose(candles.engulfing(open_, close), [nan, -1, 1, 0, 0, 0])
    part = candles.engulfing(np.array([10.0, 11]), np.array([12.0, 9]))
    assert_allclose(part, [nan, -0.5])
    high, low = np.array([5.0, 4, 6, 9]), np.array([1.0, 2, 3, 7])
    assert_allclose(candles.inside(high, low), [nan, 1, 1 / 3, 0])
    made = candles.body_share(open_, close + 1, open_ - 1, close, 2)
    ranges_ = close + 1 - (open_ - 1)
    expected = (np.abs(close - open_)[1:] + np.abs(close - open_)[:-1]) / (
        ranges_[1:] + ranges_[:-1]
    )
    assert_allclose(made[1:], expected)


def test_spreads_equal_their_papers(bars):
    high, low, close = arrays(bars, "high", "low", "close")
    pairs = np.full(len(high), np.nan)
    for t in range(1, len(high)):
        beta = np.log(high[t] / low[t]) ** 2 + np.log(high[t - 1] / low[t - 1]) ** 2
        gamma = np.log(max(high[t], high[t - 1]) / min(low[t], low[t - 1])) ** 2
        root = 3 - 2 * np.sqrt(2)
        alpha = (np.sqrt(2 * beta) - np.sqrt(beta)) / root - np.sqrt(gamma / root)
        pairs[t] = max(2 * (np.exp(alpha) - 1) / (1 + np.exp(alpha)), 0)
    known(liquidity.high_low_spread(high, low, 20), pd.Series(pairs).rolling(20).mean())
    move = np.log(bars["close"]).diff()
    covariance = move.rolling(60).cov(move.shift(1), ddof=0)
    roll = 2 * np.sqrt((-covariance).clip(lower=0))
    assert_allclose(liquidity.bounce(close, 60), roll, atol=1e-6)  # root of what rounds at 1e-16
    still = (bars["close"].diff() == 0).astype(float).where(move.notna()).rolling(60).mean()
    known(liquidity.standing(close, 60), still)


def test_comovement_equals_pandas_and_scipy(bars):
    close, index = arrays(bars, "close", "market")
    own, common = np.log(bars["close"]).diff(), np.log(bars["market"]).diff()
    known(comovement.correlation(close, index, 60), own.rolling(60).corr(common))
    beta = own.rolling(60).cov(common) / common.rolling(60).var()
    five = np.log(bars["close"]).diff(5) - beta * np.log(bars["market"]).diff(5)
    known(comovement.residual_return(close, index), five)
    apart = np.log(bars["close"]).diff(20) - np.log(bars["market"]).diff(20)
    known(comovement.beyond_market(close, index, 20), apart)
    x, y = own.to_numpy()[-120:], common.to_numpy()[-120:]
    line = stats.linregress(y[-60:], x[-60:])
    rest = x[-60:] - line.intercept - line.slope * y[-60:]
    made = comovement.own_volatility(close, index, 60)[-1]
    assert made == pytest.approx(np.sqrt((rest**2).sum() / 58), rel=1e-8)
    down = y < y.mean()
    made = comovement.downside_beta(close, index, 120)[-1]
    assert made == pytest.approx(stats.linregress(y[down], x[down]).slope, rel=1e-8)
    moment = np.mean((x - x.mean()) * (y - y.mean()) ** 2) / (x.std() * y.var())
    assert comovement.coskewness(close, index, 120)[-1] == pytest.approx(moment, rel=1e-8)


def test_the_calendar_equals_pandas():
    days = pd.date_range("1999-11-20", "2004-03-10")
    number = (days - pd.Timestamp("1970-01-01")).days.to_numpy(dtype="float64")
    week = 2 * np.pi * days.day_of_week / 7
    length = np.where(days.is_leap_year, 366, 365)
    year = 2 * np.pi * (days.day_of_year - 1) / length
    for made, expected in (
        (calendar.week_sine(number), np.sin(week)),
        (calendar.week_cosine(number), np.cos(week)),
        (calendar.year_sine(number), np.sin(year)),
        (calendar.year_cosine(number), np.cos(year)),
        (calendar.month_place(number), (days.day - 1) / days.days_in_month),
        (calendar.month_turn(number), (days.day <= 4) | (days.days_in_month - days.day < 2)),
    ):
        assert_allclose(made, np.asarray(expected, dtype=float), atol=1e-12)
        assert np.isfinite(made).all()
    assert np.isnan(calendar.month_turn(np.array([np.nan]))).all()


def test_days_of_any_century_and_in_any_order_have_their_place():
    days = np.arange("1583-01-01", "2412-01-01", dtype="datetime64[D]")
    days = np.random.default_rng(0).permutation(days)[:20_000]
    for unit, made, of in (
        ("M", calendar.month_place, lambda share: share),
        ("Y", calendar.year_sine, lambda share: np.sin(2 * np.pi * share)),
    ):
        first = days.astype(f"datetime64[{unit}]")
        start, stop = (edge.astype("datetime64[D]") for edge in (first, first + 1))
        number = days.astype("int64").astype("float64")
        assert_array_equal(made(number), of((days - start) / (stop - start)))
        number[7] = np.nan
        assert_array_equal(np.flatnonzero(np.isnan(made(number))), [7])


FLAT = np.full(600, 41.3)


@pytest.mark.parametrize(
    "made",
    [
        swings.stochastic_fast(FLAT, FLAT, FLAT),
        swings.channel_index(FLAT, FLAT, FLAT),
        swings.stochastic_strength(FLAT),
        swings.ultimate_oscillator(FLAT, FLAT, FLAT),
        swings.choppiness(FLAT, FLAT, FLAT),
        averages.straightness(FLAT),
        averages.efficiency(FLAT),
        ranges.keltner_position(FLAT, FLAT, FLAT),
        ranges.volatility_of_volatility(FLAT),
        ranges.downside(FLAT),
        ranges.range_expansion(FLAT, FLAT, FLAT),
        levels.breakout(FLAT, FLAT, FLAT),
        candles.body_share(FLAT, FLAT, FLAT, FLAT),
        candles.inside(FLAT, FLAT),
        comovement.correlation(FLAT, FLAT),
        comovement.downside_beta(FLAT, FLAT),
        comovement.coskewness(FLAT, FLAT),
        flows.return_volume_correlation(FLAT, FLAT),
        flows.chaikin_flow(FLAT, FLAT, FLAT, 0 * FLAT),
        profile.busiest_share(FLAT, FLAT, FLAT, FLAT),
    ],
)
def test_zero_by_zero_is_unknown_and_not_zero(made):
    assert np.isnan(made).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: averages.simple_average_cross(x, 50, 10), "fast=50, slow=10"),
        (lambda x: averages.percentage_oscillator(x, 26, 26), "fast=26, slow=26"),
        (lambda x: averages.trend_state(x, 200, 50), "fast=200, slow=50"),
        (lambda x: swings.ultimate_oscillator(x, x, x, 14, 7, 28), "got 14, 7, 28"),
        (lambda x: flows.accumulation_oscillator(x, x, x, x, 10, 3), "fast=10, slow=3"),
        (lambda x: profile.busiest_share(x, x, x, x, 60, 1), "needs 2 bins, got 1"),
        (lambda x: comovement.own_volatility(x, x, 2), "need 3 bars, got 2"),
    ],
)
def test_settings_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.ones(300))
