"""Each risk check on a day that asks for it, and on one that does not."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
import talib

from stages.portfolio.book import Book, Position
from stages.portfolio.checks import (
    CircuitBreaker,
    CorrelationBreakdown,
    DrawdownLimit,
    TimeStop,
    TrailingStop,
    Verdict,
    VolatilitySpike,
)
from stages.portfolio.prepared import prepare
from tests.stages.portfolio.conftest import bars_of, holding, traded


def judged(check, bars, row, **positions):
    prepared = prepare(bars, check.columns())
    book = holding(replace(Book.opened(1000), peak=1000.0), **positions)
    return check.judge(prepared.day(prepared.times[row]), book)


def held(bars, row, price, highest=None, shares=10):
    entered = bars.index.get_level_values("time").unique().sort_values()[row]
    return Position(shares, entered, price, highest or price)


def test_the_trailing_stop_hangs_two_average_ranges_below_the_highest_close(bars):
    one = bars.loc["E00"]
    span = 2 * talib.ATR(*(one[c].to_numpy() for c in ("high", "low", "close")), 14)[300]
    close = float(one["close"].iloc[300])
    just, not_yet = close + 1.0001 * span, close + 0.9999 * span
    sold = judged(TrailingStop(), bars, 300, E00=held(bars, 200, close, just))
    assert list(sold.exits) == ["E00"]
    assert f"close {close:.6g} below" in sold.exits["E00"]
    assert not judged(TrailingStop(), bars, 300, E00=held(bars, 200, close, not_yet)).exits


def test_a_stop_without_its_range_says_that_it_is_unavailable(bars):
    said = judged(TrailingStop(), bars, 100, E00=held(bars, 90, 1.0, 1e6))
    assert said.exits == {}
    assert said.said == "nothing; unavailable for E00: too short a history"


def test_the_time_stop_needs_the_days_and_the_loss(bars):
    close = float(bars.loc["E00", "close"].iloc[300])
    check = TimeStop(60, -0.05)
    late = judged(check, bars, 300, E00=held(bars, 240, close / 0.949))
    assert late.exits == {"E00": "time stop: -5.1% after 60 bars"}
    assert not judged(check, bars, 300, E00=held(bars, 241, close / 0.949)).exits
    assert not judged(check, bars, 300, E00=held(bars, 240, close / 0.951)).exits


def test_a_halted_or_missing_holding_is_not_sold(bars):
    halted = held(bars, 200, 1e5, 1e6)
    for check in (TrailingStop(), TimeStop(), VolatilitySpike(times=1.0001)):
        assert not judged(check, bars, 322, E05=halted).exits  # no volume
        assert not judged(check, bars, 305, E03=halted).exits  # no bar


@pytest.mark.parametrize(("level", "blocked"), [(0.91, False), (0.89, True)])
def test_the_breaker_blocks_buys_below_a_tenth_off_the_high(closes, level, blocked):
    market = pd.Series(1.0, closes.index)
    market.iloc[300:] = level
    found = judged(CircuitBreaker(), bars_of(closes, market=market), 301)
    assert bool(found.blocked) == blocked
    assert found.said == f"market {level - 1:+.1%} from its high of 252 bars"
    assert found.exits == {}


def test_the_breaker_forgets_a_high_of_more_than_a_year_ago(closes):
    market = pd.Series(1.0, closes.index)
    market.iloc[10:] = 0.5
    assert judged(CircuitBreaker(bars=253), bars_of(closes, market=market), 262).blocked == ""
    assert judged(CircuitBreaker(bars=254), bars_of(closes, market=market), 262).blocked


def test_without_a_market_the_breaker_is_unavailable_and_says_so(bars):
    found = judged(CircuitBreaker(), bars.drop(columns="market"), 300)
    assert found.said.startswith("unavailable: the data have no market column")
    gone = bars.assign(market=np.nan)
    assert judged(CircuitBreaker(), gone, 300).said.startswith("unavailable: the market has no")


def test_a_volatility_spike_sells(closes):
    table = closes.copy()
    table.iloc[296:301, 0] *= [1.08, 0.94, 1.09, 0.93, 1.08]
    bars = bars_of(table)
    found = judged(VolatilitySpike(), bars, 300, E00=held(bars, 200, 1), E04=held(bars, 200, 1))
    assert list(found.exits) == ["E00"]
    returns = np.log(table["E00"]).diff()
    ratio = returns.iloc[296:301].std() / returns.iloc[241:301].std()
    assert f"{ratio:.1f} times" in found.exits["E00"]


def test_holdings_that_begin_to_move_as_one_block_buys(closes):
    table = closes.copy()
    table.iloc[281:301, 4] = table.iloc[280, 4] * (table.iloc[281:301, 0] / table.iloc[280, 0])
    bars = bars_of(table)
    pair = {"E00": held(bars, 200, 1), "E04": held(bars, 200, 1)}
    found = judged(CorrelationBreakdown(), bars, 300, **pair)
    assert found.blocked.startswith("correlation breakdown: mean correlation 1.00 over 20")
    assert not judged(CorrelationBreakdown(), bars, 279, **pair).blocked
    assert (
        judged(CorrelationBreakdown(), bars, 300, E00=pair["E00"]).said == "fewer than two holdings"
    )
    assert judged(CorrelationBreakdown(), bars, 100, **pair).said.startswith("unavailable")


@pytest.mark.parametrize("sell", [False, True])
def test_the_portfolio_itself_may_not_fall_too_far(bars, sell):
    price = float(bars.loc["E00", "close"].iloc[300])
    prepared = prepare(bars, {})
    day = prepared.day(prepared.times[300])
    book = holding(Book.opened(1000), E00=held(bars, 200, 1.0))
    worth = 1000 + 10 * price
    near, far = (replace(book, peak=worth / (1 - d)) for d in (0.149, 0.151))
    check = DrawdownLimit(-0.15, sell)
    assert (check.judge(day, near).blocked, check.judge(day, near).exits) == ("", {})
    assert check.judge(day, far).blocked.startswith("drawdown limit: portfolio -15.1%")
    assert set(check.judge(day, far).exits) == ({"E00"} if sell else set())


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (TrailingStop, {"multiple": 0}),
        (TimeStop, {"bars": 0}),
        (CircuitBreaker, {"drawdown": 0.1}),
        (VolatilitySpike, {"times": 1}),
        (CorrelationBreakdown, {"fast": 120}),
        (DrawdownLimit, {"drawdown": -1}),
    ],
)
def test_a_check_out_of_range_is_refused(kind, wrong):
    with pytest.raises(ValueError, match="need"):
        kind(**wrong)


@dataclass(frozen=True)
class NoFridays:
    """A check of a user's own."""

    def columns(self):
        return {}

    def judge(self, day, book):
        friday = day.time.day_of_week == 4
        return Verdict(
            "friday" if friday else "fine", blocked="no buys on fridays" if friday else ""
        )


def test_a_check_of_ones_own_takes_part(policy, bars):
    own = replace(policy, checks={"fridays": NoFridays()}, every=1)
    prepared = own.prepare(bars)
    book, bought = Book.opened(1_000_000), {day: 0 for day in range(5)}
    for row in range(200, 300):
        plan = own.plan(prepared, prepared.times[row], book)
        bought[prepared.times[row].day_of_week] += sum(o.action == "BUY" for o in plan.orders)
        book = traded(plan, prepared, row + 1)
    assert bought.pop(4) == 0
    assert all(bought.values())
