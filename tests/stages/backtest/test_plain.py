"""The simulation beside the same policy written down independently, in plain pandas."""

from experiments.benchmarks.backtest import plain
from experiments.benchmarks.backtest.markets import market, panel
from stages.backtest.simulate import simulate
from stages.portfolio.checks import CircuitBreaker, TimeStop, TrailingStop
from stages.portfolio.trend import TrendPolicy


def test_the_trend_policy_earns_what_it_earns_in_plain_pandas():
    prices = market(20, 450, seed=3)
    checks = {"trailing": TrailingStop(), "time": TimeStop(), "breaker": CircuitBreaker()}
    run = simulate(panel(prices), TrendPolicy(checks=checks), costs=0.0004)
    equity, fills = plain.simulate(plain.frames(prices), trip=0.0004)
    assert run.returns.corr(equity.pct_change()) > 0.98
    mine = int((run.orders["filled"] != 0).sum())
    assert abs(mine / fills - 1) < 0.1
    assert abs(run.days["equity"].iloc[-1] / equity.iloc[-1] - 1) < 0.02
