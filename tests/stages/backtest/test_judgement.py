import numpy as np
import pandas as pd
import pytest

from stages.backtest.adapters import to_alphalens, to_pyfolio, to_quantstats
from stages.backtest.benchmarks import benchmark_returns, riskless
from stages.backtest.judgement import judge
from stages.backtest.metrics import measure, sharpe
from stages.backtest.relative import measure_against
from stages.backtest.simulate import simulate
from stages.backtest.terms import Terms
from stages.backtest.trips import measure_trips
from stages.base import ConfigError, DataError
from tests.stages.backtest.conftest import Scripted, panel, walk

SCRIPT = {k: [(f"A{k % 5}", 60)] for k in range(0, 60, 3)} | {
    k: [(f"A{k % 5}", -60)] for k in range(1, 78, 4)
}


@pytest.fixture(scope="module")
def run():
    return simulate(walk(1), Scripted(SCRIPT), costs=0.001, begin=20_000.0)


@pytest.fixture(scope="module")
def said(run):
    return judge(run, walk(1), resamples=50)


# benchmarks


def test_equal_parts_of_what_is_listed_earn_their_mean():
    close = np.array([[10.0, np.nan], [11.0, 5.0], [11.0, 6.0], [12.1, np.nan]])
    bars = panel({"close": close}, ["A", "B"])
    times = bars.index.get_level_values("time").unique()[:4]
    out = benchmark_returns(bars, "equal_weight", times)
    assert out.tolist() == pytest.approx([0.1, (0 + 0.2) / 2, (0.1 + 0) / 2])
    assert benchmark_returns(bars, "A", times).tolist() == pytest.approx([0.1, 0, 0.1])
    with pytest.raises(DataError, match="B has no price at 2024-01-01"):
        benchmark_returns(bars, "B", times)
    assert benchmark_returns(bars, "B", times[1:]).tolist() == pytest.approx([0.2, 0.0])


def test_an_asset_that_left_is_no_part_of_the_equal_book_any_more():
    close = np.ones((30, 2)) * [[10.0, 10.0]]
    close[3:, 1] = np.nan
    close[20:, 0] = 11.0
    times = pd.DatetimeIndex(panel({"close": close}).index.get_level_values("time").unique())
    out = benchmark_returns(panel({"close": close}), "equal_weight", times)
    assert out[out != 0].tolist() == pytest.approx([0.1])


def test_cash_earns_simple_interest_over_365_days():
    times = pd.to_datetime(["2024-01-05", "2024-01-08", "2024-01-09"]).tz_localize("UTC")
    assert riskless(times, 0.0365).tolist() == pytest.approx([0.0003, 0.0001])
    cash = benchmark_returns(walk(), "cash", times, 0.0365)
    assert cash.tolist() == riskless(times, 0.0365).tolist()


def test_the_market_is_a_benchmark_and_an_unknown_name_is_none():
    bars = walk()
    times = bars.index.get_level_values("time").unique()
    level = bars["market"].xs("A0").to_numpy()
    out = benchmark_returns(bars, "market", times)
    assert out.to_numpy() == pytest.approx(level[1:] / level[:-1] - 1)
    for name, cure in (("a0", "benchmark=A0"), ("SPY", "an asset of the data")):
        with pytest.raises(ConfigError, match=f"benchmark={name}") as refused:
            benchmark_returns(bars, name, times)
        assert cure in refused.value.cure
    with pytest.raises(ConfigError, match="benchmark=market"):
        benchmark_returns(bars.drop(columns="market"), "market", times)


# the judgement


def test_every_figure_is_that_of_its_own_measure(run, said):
    assert said.figures["sharpe"] == sharpe(run.returns.to_numpy(), said.per_year)
    for name, value in measure(run.returns, said.per_year).items():
        assert said.figures[name] == pytest.approx(value, nan_ok=True), name
    for name, value in measure_trips(run.trips).items():
        assert said.figures[name] == pytest.approx(value, nan_ok=True), name
    for name, value in measure_against(run.returns, said.benchmark, said.per_year).items():
        assert said.figures[name] == pytest.approx(value), name
    assert said.benchmark.name == "equal_weight"
    assert said.beside["sharpe"] == sharpe(said.benchmark.to_numpy(), said.per_year)


def test_figures_of_the_book_add_up(run, said):
    days, orders = run.days, run.orders
    years = (len(days) - 1) / said.per_year
    assert said.figures["exposure"] == pytest.approx((1 - days["cash"] / days["equity"]).mean())
    traded = orders["value"].sum()
    assert days["traded"].sum() == pytest.approx(traded)
    turnover = traded / 2 / days["equity"].mean() / years
    assert said.figures["turnover"] == pytest.approx(turnover)
    gross = days["equity"].iloc[-1] - 20_000 + orders["cost"].sum()
    share = orders["cost"].sum() / gross if gross > 0 else np.nan
    assert said.figures["cost_share"] == pytest.approx(share, nan_ok=True)
    assert said.figures["most_in_one"] == run.weights.max(axis=None)


def test_figures_of_trades_are_those_of_the_closed_ones(run):
    figures, closed = measure_trips(run.trips), run.trips[~run.trips["open"]]
    assert figures["trades"] == len(closed) > 3
    won = closed["gain"] > 0
    assert figures["hit_rate"] == won.mean()
    ratio = closed.loc[won, "gain"].sum() / -closed.loc[~won, "gain"].sum()
    assert figures["profit_factor"] == pytest.approx(ratio)
    assert figures["mean_trade"] == pytest.approx(closed["return"].mean())
    none = measure_trips(run.trips[:0])
    assert none["trades"] == 0
    assert np.isnan([none[k] for k in ("hit_rate", "mean_trade", "profit_factor")]).all()


def test_ratios_are_of_what_exceeds_cash():
    idle = simulate(walk(), Scripted(), costs=0.001, begin=1e9, terms=Terms(cash_rate=0.05))
    said = judge(idle, walk(), cash_rate=0.05, resamples=20)
    assert said.figures["geometric_return"] > 0.04
    assert (said.returns - said.rate).abs().max() < 1e-10


def test_what_is_held_throughout_leaves_blocks_enough_for_an_interval():
    bars = walk(2, bars=500, assets=2)
    run = simulate(bars, Scripted({0: [("A0", 300)]}), costs=0.001, begin=20_000.0)
    assert run.trips["bars"].tolist() == [498]
    spread = judge(run, bars, resamples=200)
    low, high = spread.intervals.loc["volatility", ["low", "high"]]
    value = spread.figures["volatility"]
    assert 0.5 * value < low < value < high < 1.5 * value


def test_what_flatters_is_warned_of(run, said):
    assert any("less than one" in line for line in said.warnings)
    assert not any("Before costs" in line for line in said.warnings)
    free = simulate(walk(1), Scripted(SCRIPT), costs="none", begin=20_000.0)
    assert any("Before costs" in line for line in judge(free, walk(1), resamples=20).warnings)
    idle = simulate(walk(), Scripted(), costs=0.001)
    assert "Nothing was bought." in judge(idle, walk(), resamples=20).warnings


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_few_rows_are_judged_or_refused(rows):
    bars = walk(1, bars=rows)
    run = simulate(bars, Scripted({0: [("A0", 10)]}), costs=0.001)
    if rows < 3:
        with pytest.raises(DataError, match="too few to judge"):
            judge(run, bars, resamples=20)
        return
    said = judge(run, bars, resamples=20)
    assert np.isfinite(said.figures["total_return"])
    assert said.months["year"].notna().all()


def test_another_weighting_of_the_same_assets_is_warned_of():
    """Four assets rise, the benchmark does not: holding all of them is no skill."""
    close = np.ones((300, 5)) * 10
    close[:, 1:] *= np.linspace(1, 1.5, 300)[:, None]
    bars = panel({"close": close})
    run = simulate(bars, Scripted({0: [("A1", 10)]}), costs=0.001)
    lines = judge(run, bars, "A0", resamples=20).warnings
    [line] = [line for line in lines if "weighting" in line]
    assert "a year more than the benchmark A0" in line
    assert not any("weighting" in w for w in judge(run, bars, resamples=20).warnings)


# adapters


def test_frames_for_pyfolio_tell_the_same_story(run):
    returns, positions, transactions = to_pyfolio(run)
    assert str(returns.index.tz) == "UTC"
    assert (returns.index == returns.index.normalize()).all()
    assert returns.to_numpy() == pytest.approx(run.returns.to_numpy())
    assert positions.sum(axis=1).to_numpy() == pytest.approx(run.days["equity"].to_numpy())
    held = transactions.groupby("symbol")["amount"].sum()
    last = run.shares.iloc[-1]
    assert held.reindex(last.index).fillna(0).tolist() == last.tolist()
    assert set(transactions) == {"amount", "price", "symbol", "txn_dollars"}
    signs = np.sign(transactions["txn_dollars"]) == -np.sign(transactions["amount"])
    assert signs.all()


def test_frames_for_quantstats_are_by_naive_date(run):
    out = to_quantstats(run)
    assert out.index.tz is None
    assert out.to_numpy() == pytest.approx(run.returns.to_numpy())


def test_frames_for_alphalens_pair_a_score_with_what_it_can_be_traded_at():
    bars = walk(2, bars=10, assets=3)
    score = pd.Series(np.arange(30.0), bars.index).where(np.arange(30) != 4)
    factor, prices = to_alphalens(score, bars)
    assert factor.index.names == ["date", "asset"]
    assert len(factor) == 29
    time = bars.index.get_level_values("time").unique()
    assert prices.loc[time[3], "A1"] == bars.loc[("A1", time[4]), "open"]
    assert prices.loc[time[-1]].isna().all()
