"""Sets and intervals: what is issued, what counts against it, and that coverage holds."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.base import DataError
from stages.ensemble.conformal import COLUMNS, Coverage
from stages.labels import TripleBarrier, forward_return
from stages.markets.drift import drift_volatility
from stages.panel import PanelError, last_rows, settled, until
from tests.stages.ensemble.test_conformal_quantile import garch, plain_aci, plain_pi

ODDS = ["p_sell", "p_hold", "p_buy"]


def bars_of(returns):
    """Closes of the returns (T, A), each known at its bar."""
    times = pd.bdate_range("2015-01-01 21:00", periods=len(returns), tz="UTC").as_unit("us")
    names = [f"A{a:02d}" for a in range(returns.shape[1])]
    index = pd.MultiIndex.from_product([names, times], names=["asset", "time"])
    return pd.DataFrame({"close": 100 * np.cumprod(1 + returns, axis=0).T.ravel()}, index)


def prepared(coverage, bars, y, seed=0):
    """A panel of odds that know a little of the outcome, its volatility, and its outcomes."""
    rng = np.random.default_rng(seed)
    side = y["side"].reindex(bars.index, fill_value=0).to_numpy()
    drawn = rng.normal(size=(len(bars), 3))
    drawn[np.arange(len(bars)), side + 1] += 0.4
    odds = np.exp(drawn) / np.exp(drawn).sum(axis=1, keepdims=True)
    panel = bars.assign(**dict(zip(ODDS, odds.T, strict=True)), sigma=coverage.sigma(bars))
    return panel, coverage.outcomes(bars, y)


@pytest.fixture(scope="module", params=["pi", "aci"])
def small(request):
    """Four assets that do not all start, stop and trade at the same times; labels of 3 bars."""
    bars = bars_of(garch(0, 260, 4))
    asset, time = (bars.index.get_level_values(level) for level in ("asset", "time"))
    times = bars.index.unique("time")
    gone = ((asset == "A01") & (time < times[60])) | ((asset == "A02") & (time > times[200]))
    gone |= (asset == "A03") & np.isin(time, times[[90, 91, 92, 150]])
    bars = bars[~gone]
    coverage = Coverage(method=request.param, horizon=2, delay=1, start=20, window=60)
    y = TripleBarrier(horizon=2, delay=1).fit(bars).label(bars)
    return coverage, *prepared(coverage, bars, y)


def held(said, outcomes):
    """Whether interval and set of each row held its outcome, NaN where there was none."""
    said, r = said.loc[outcomes.index], outcomes["forward_return"]
    inside = (said["interval_low"] <= r) & (r <= said["interval_high"])
    sides = said[COLUMNS[2:]].to_numpy()
    chosen = sides[np.arange(len(sides)), outcomes["side"].astype(int) + 1]
    return pd.DataFrame(
        {
            "interval": inside.astype(float).where(said["interval_low"].notna() & r.notna()),
            "set": chosen,
        },
        outcomes.index,
    )


# one path, however it is walked


def test_at_once_in_chunks_and_live_are_the_same_bits(small):
    template, panel, outcomes = small
    whole = replace(template).fit(panel, outcomes)
    said = whole.predict(panel)
    assert said.notna().all(axis=1).mean() > 0.8

    live, told = replace(template), []
    left = outcomes.sort_values("end")
    for now in panel.index.unique("time").sort_values():
        matured, left = left[left["end"] <= now].sort_index(), left[left["end"] > now]
        live.update(panel.loc[matured.index], matured)
        told.append(live.predict(panel[panel.index.get_level_values("time") == now]))
    pd.testing.assert_frame_equal(pd.concat(told).loc[panel.index], said, check_exact=True)
    pd.testing.assert_frame_equal(live.history_, whole.history_, check_exact=True)
    assert live.state() == whole.state()


@settings(max_examples=10, deadline=None)
@given(cuts=st.sets(st.integers(0, 270), max_size=6))
def test_any_chunks_make_the_same_path(small, cuts):
    template, panel, outcomes = small
    whole = replace(template).fit(panel, outcomes)
    times = np.sort(outcomes["end"].unique())
    part = np.searchsorted(times[[c for c in sorted(cuts) if c < len(times)]], outcomes["end"])
    chunked = replace(template)
    for number in range(part.max() + 1):
        rows = outcomes[part == number]
        chunked.update(panel.loc[rows.index], rows)
    assert chunked.state() == whole.state()


def test_what_is_issued_does_not_know_what_matures_later(small):
    template, panel, outcomes = small
    now = panel.index.unique("time")[180]
    past = until(panel, now)
    early = replace(template).fit(past, outcomes[outcomes["end"] <= now])
    late = replace(template).fit(panel, outcomes)
    pd.testing.assert_frame_equal(early.predict(past), late.predict(past), check_exact=True)


def test_a_row_alone_gets_the_same_bits_as_in_a_batch(small):
    template, panel, outcomes = small
    fitted = replace(template).fit(panel, outcomes)
    said = fitted.predict(panel)
    for row in np.random.default_rng(0).integers(0, len(panel), 20):
        alone = fitted.predict(panel.iloc[[row]])
        pd.testing.assert_frame_equal(alone, said.iloc[[row]], check_exact=True)


def test_a_restored_state_goes_on_with_the_same_bits(small):
    template, panel, outcomes = small
    now = panel.index.unique("time")[170]
    known = outcomes["end"] <= now
    one = replace(template).fit(panel, outcomes[known])
    other = replace(template).restore(one.state())
    pd.testing.assert_frame_equal(other.history_, one.history_, check_exact=True)
    assert other.state() == one.state()
    for part in (one, other):
        part.update(panel, outcomes[~known])
    assert other.state() == one.state()
    unfitted = replace(template)
    assert replace(template).restore(unfitted.state()).state() == unfitted.state()


def test_memory_bounds_what_is_kept_and_nothing_else(small):
    template, panel, outcomes = small
    short = replace(template, memory=40)
    whole = replace(template).fit(panel, outcomes).history_
    pd.testing.assert_frame_equal(short.fit(panel, outcomes).history_, whole[-40:])
    said = short.predict(panel)
    assert (
        said["set_buy"]
        .notna()
        .equals(pd.Series(panel.index.get_level_values("time") >= whole.index[-40], panel.index))
    )


# what is issued


@pytest.mark.parametrize("method", ["pi", "aci"])
def test_scores_delay_and_quantiles_follow_the_definition(method):
    bars = bars_of(garch(3, 260, 1))
    coverage = Coverage(method=method, horizon=2, delay=1, start=30, window=80, lean=0.7)
    y = TripleBarrier(horizon=2, delay=1).fit(bars).label(bars)
    panel, outcomes = prepared(coverage, bars, y)
    said = coverage.fit(panel, outcomes).predict(panel)

    rows = panel.loc[outcomes.index]
    p = rows[ODDS].to_numpy()
    unit = (rows["sigma"] * np.sqrt(2)).to_numpy()
    centre = 0.7 * unit * (p[:, 2] - p[:, 0])
    away = np.abs(outcomes["forward_return"].to_numpy() - centre) / unit
    unlikely = 1 - p[np.arange(len(p)), outcomes["side"].astype(int) + 1]
    common = {"level": 0.95, "span": 3, "window": 80, "start": 30}
    for kind, scores in (("interval", away), ("set", unlikely)):
        path = (
            plain_pi(scores, **common, rate=0.1, budget=35.0)
            if method == "pi"
            else plain_aci(scores, **common, gamma=0.01)
        )
        if kind == "interval":
            low = np.maximum(centre - path * unit, -1)
            expected = pd.DataFrame(dict(zip(COLUMNS, (low, centre + path * unit), strict=False)))
        else:
            inside = (1 - p <= path[:, None]) | (p == p.max(axis=1, keepdims=True))
            expected = pd.DataFrame(inside.astype(float), columns=COLUMNS[2:])
            expected[np.isnan(path)] = np.nan
        got = said.loc[rows.index, expected.columns]
        np.testing.assert_allclose(got, expected, rtol=1e-9)


@pytest.mark.parametrize("quantile", [-np.inf, -0.2, 0.0, 0.3, np.inf])
def test_nothing_issued_is_empty(quantile):
    coverage = Coverage(horizon=4)
    time = pd.DatetimeIndex(["2020-01-01"], tz="UTC").as_unit("us")
    coverage._times, coverage._path = time.asi8, np.full((1, 2, 3), quantile)
    index = pd.MultiIndex.from_product([["A", "B"], time], names=["asset", "time"])
    odds = {"p_sell": [0.1, 0.4], "p_hold": [0.2, 0.4], "p_buy": [0.7, 0.2]}
    said = coverage.predict(pd.DataFrame({**odds, "sigma": [0.1, 0.3]}, index))
    sets = said[COLUMNS[2:]].to_numpy()
    assert sets[0, 2] == 1
    assert (sets[1, :2] == 1).all()  # both are likeliest
    assert sets[0].sum() == {0.3: 1, np.inf: 3}.get(quantile, 1)
    centre = np.array([0.2 * 0.6, 0.6 * -0.2])
    half = max(quantile, 0) * np.array([0.2, 0.6])
    np.testing.assert_allclose(said["interval_low"], np.maximum(centre - half, -1))
    np.testing.assert_allclose(said["interval_high"], centre + half)


def test_the_interval_does_not_reach_below_a_total_loss(small):
    template, panel, outcomes = small
    wild = panel.assign(sigma=panel["sigma"] * 50)
    said = replace(template).fit(panel, outcomes).predict(wild)
    assert said["interval_low"].min() == -1


def test_unknown_odds_or_volatility_give_no_answer_and_do_not_count(small):
    template, panel, outcomes = small
    rng = np.random.default_rng(5)
    silent, still = rng.random(len(panel)) < 0.2, rng.random(len(panel)) < 0.2
    holes = panel.copy()
    holes.loc[silent, ODDS] = np.nan
    holes.loc[still, "sigma"] = np.nan
    fitted = replace(template).fit(holes, outcomes)
    said = fitted.predict(holes)
    assert said[silent].isna().all(axis=None)
    assert said.loc[still, ["interval_low", "interval_high"]].isna().all(axis=None)
    early = replace(template).fit(panel, outcomes).predict(panel).isna().any(axis=1)
    assert said.loc[still & ~silent & ~early.to_numpy(), "set_hold"].notna().mean() > 0.9
    rows = fitted.history_[["interval_rows", "set_rows"]].sum()
    assert rows["interval_rows"] < rows["set_rows"] < len(outcomes)
    # outcomes that are not known do not count either
    unknown = outcomes.assign(forward_return=np.nan)
    history = replace(template).fit(panel, unknown).history_
    assert history["interval_quantile"].isna().all()
    assert history["interval_rows"].sum() == 0
    assert history["set_quantile"].notna().any()


def test_without_history_there_is_no_answer(small):
    template, panel, outcomes = small
    assert replace(template).predict(panel).isna().all(axis=None)
    few = outcomes[outcomes["end"] <= np.sort(outcomes["end"].unique())[18]]
    assert replace(template).fit(panel, few).predict(panel).isna().all(axis=None)


def test_history_counts_what_was_issued(small):
    template, panel, outcomes = small
    fitted = replace(template).fit(panel, outcomes)
    history = fitted.history_
    got = held(fitted.predict(panel), outcomes).groupby(outcomes["end"])
    for kind in ("interval", "set"):
        want = got[kind].mean()
        np.testing.assert_allclose(history[f"{kind}_coverage"], want, atol=1e-12)
        np.testing.assert_array_equal(history[f"{kind}_rows"], got[kind].count())
    realised = fitted.realised(window=50)
    rows, share = history["set_rows"], history["set_coverage"].fillna(0)
    assert realised["set_coverage"] == pytest.approx((rows * share).sum() / rows.sum())
    started = rows[rows > 0].index
    windows = [slice(i, i + 50) for i in range(len(started) - 49)]
    worst = min(np.average(share[started][w], weights=rows[started][w]) for w in windows)
    assert realised["set_worst"] == pytest.approx(worst)
    assert np.isnan(replace(template).realised()["interval_coverage"])


# outcomes


def test_outcomes_are_the_return_over_the_horizon_known_at_its_end(small):
    coverage, panel, outcomes = small
    bars = panel[["close"]]
    y = TripleBarrier(horizon=2, delay=1).fit(bars).label(bars)
    assert outcomes.index.equals(y.index)
    want = forward_return(bars, 2, 1).loc[y.index].rename("forward_return")
    pd.testing.assert_series_equal(outcomes["forward_return"], want)
    assert (outcomes["end"] == settled(y)).all()
    assert (outcomes["end"] >= y["end"]).all()
    assert (outcomes["end"] > y["end"]).any()  # a barrier touched early still waits
    time = panel.index.get_level_values("time")
    third = pd.Series(time, panel.index).groupby("asset").shift(-3)
    assert (outcomes["end"] == third[y.index]).all()


def test_labels_without_closes_or_a_whole_horizon():
    bars = bars_of(garch(1, 60, 2))
    y = TripleBarrier(horizon=2, delay=1).fit(bars).label(bars)
    coverage = Coverage(horizon=3, delay=1)  # longer than the labels
    outcomes = coverage.outcomes(bars, y)
    assert outcomes.index.equals(y.index.drop(last_rows(y).index))
    known = coverage.outcomes(bars.rename(columns={"close": "price"}), y)
    assert known["forward_return"].isna().all()
    assert coverage.sigma(bars.rename(columns={"close": "price"})).isna().all()
    assert coverage.outcomes(bars, y.iloc[:0]).empty


def test_positions_that_enter_at_the_open_are_counted_from_there():
    bars = bars_of(garch(2, 80, 2))
    bars["open"] = bars["close"].groupby("asset").shift() * 1.001
    coverage = Coverage(horizon=1, delay=1, entry="open")
    y = TripleBarrier(horizon=1, delay=1, entry="open").fit(bars).label(bars)
    outcomes = coverage.outcomes(bars, y)
    next_bar = bars.groupby("asset").shift(-1)
    want = (next_bar["close"] / next_bar["open"] - 1).loc[y.index]
    np.testing.assert_allclose(outcomes["forward_return"], want)
    assert outcomes.index.equals(y.index)  # known as soon as the label is


def test_an_outcome_known_at_its_own_row_is_refused(small):
    template, panel, outcomes = small
    bad = outcomes.copy()
    bad.iloc[7, 2] = bad.index[7][1]
    with pytest.raises(DataError, match="no later") as error:
        replace(template).fit(panel, bad)
    assert error.value.code == "SV-F25"


@pytest.mark.parametrize("name", ["sigma", "p_hold"])
def test_missing_columns_are_named(small, name):
    template, panel, outcomes = small
    with pytest.raises(PanelError, match=name):
        replace(template).predict(panel.drop(columns=name))
    with pytest.raises(PanelError, match="end"):
        replace(template).fit(panel, outcomes.drop(columns="end"))


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "split"},
        {"horizon": 0},
        {"memory": 6},
        {"decay": 1.0},
        {"lean": -1.0},
        {"entry": "open", "delay": 0},
        {"level": 0.0},
        {"method": "aci", "gamma": 0.0},
        {"rate": 0.0},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=r"must|need"):
        Coverage(**settings)


# the figure: 0.94 to 0.96 overall, at least 0.90 in the worst 250 bars and after a shift


def figures(coverage, panel, outcomes, shift):
    """Overall, worst 250 bars, and the 250 bars from `shift` on, of interval and set."""
    said = coverage.fit(panel, outcomes).predict(panel)
    by_bar = held(said, outcomes).groupby("time").mean().dropna()
    return {
        "overall": by_bar.mean(),
        "worst": by_bar.rolling(250).mean().min(),
        "after": by_bar[by_bar.index >= shift].iloc[:250].mean(),
    }


@pytest.mark.parametrize("method", ["pi", "aci"])
def test_coverage_holds_through_a_threefold_shift_of_volatility(method):
    bars = bars_of(garch(1, 1300, 20))
    shift = bars.index.unique("time")[650]
    coverage = Coverage(method=method)
    y = TripleBarrier().fit(until(bars, bars.index.unique("time")[400])).label(bars)
    got = figures(coverage, *prepared(coverage, bars, y), shift)
    for kind in ("interval", "set"):
        assert 0.94 <= got["overall"][kind] <= 0.96
        assert got["worst"][kind] >= 0.90
        assert got["after"][kind] >= 0.90


def test_coverage_holds_on_the_planted_market_with_its_true_odds():
    market = drift_volatility(seed=0, times=1200, assets=20)
    coverage = Coverage(horizon=1, delay=0)
    panel = market.panel.assign(**market.posterior, sigma=coverage.sigma(market.panel))
    outcomes = coverage.outcomes(market.panel, market.y)
    got = figures(coverage, panel, outcomes, market.panel.index.unique("time")[600])
    for kind in ("interval", "set"):
        assert 0.94 <= got["overall"][kind] <= 0.96
        assert got["worst"][kind] >= 0.90
        assert got["after"][kind] >= 0.90
    size = coverage.predict(panel)[COLUMNS[2:]].sum(axis=1, skipna=False).mean()
    assert size < 2.6  # odds that know something make sets smaller than all three


@pytest.mark.realdata
def test_coverage_holds_on_stocks_and_funds_through_2020(realdata):
    table = pd.read_parquet(realdata("m6_assets_daily_100_2018_2022.parquet"))
    table["time"] = pd.DatetimeIndex(table["date"]).tz_localize("UTC") + pd.Timedelta(hours=21)
    table = table.rename(columns={"symbol": "asset"}).set_index(["asset", "time"]).sort_index()
    bars = table[["adj_close"]].set_axis(["close"], axis=1)[lambda t: ~t.index.duplicated()]
    coverage = Coverage()
    y = TripleBarrier(width=0.9).label(bars)
    base = y["side"].value_counts(normalize=True)
    panel = bars.assign(p_sell=base[-1], p_hold=base[0], p_buy=base[1], sigma=coverage.sigma(bars))
    got = figures(coverage, panel, coverage.outcomes(bars, y), pd.Timestamp("2020-02-20", tz="UTC"))
    for kind in ("interval", "set"):
        assert 0.94 <= got["overall"][kind] <= 0.96
        assert got["worst"][kind] >= 0.90
        assert got["after"][kind] >= 0.90
