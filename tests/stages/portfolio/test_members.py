"""Who belonged when: lists without dates are refused, and nothing else is bought."""

import numpy as np
import pandas as pd
import pytest

from stages.backtest.benchmarks import benchmark_returns
from stages.backtest.simulate import simulate
from stages.base import DataError
from stages.portfolio.clusters import Clusters
from stages.portfolio.members import MEMBER, absent, check_members, with_members
from stages.portfolio.prepared import given, reading
from stages.portfolio.sizes import Sizes, equal
from stages.portfolio.target import Buffer
from stages.portfolio.top import TopScores
from tests.stages.backtest.conftest import panel, walk

DAYS = pd.date_range("2024-01-01", periods=80)


def listed(*rows):
    return pd.DataFrame(rows, columns=["asset", "from", "to"])


def day(number):
    return f"{DAYS[number]:%Y-%m-%d}"


EVER = [(f"A{k}", "2020-01-01", None) for k in range(4)]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (pd.DataFrame({"asset": ["A0"]}), "no column 'from'"),
        (pd.DataFrame({"asset": ["A0"], "from": ["2024-01-01"]}), "no column 'to'"),
        (listed(("A0", None, None)), "A0 has nothing as `from`"),
        (listed(("A0", "2024-01-01", "soon")), "A0 has 'soon' as `to`"),
        (listed(("A0", "2024-02-01", "2024-01-01")), "before it begins"),
    ],
)
def test_a_list_without_dates_is_refused(table, said):
    with pytest.raises(DataError, match=said) as refused:
        check_members(table)
    assert (refused.value.code, refused.value.exit_code) == ("SV-F16", 3)


def test_first_and_last_day_belong_and_who_comes_back_does_too():
    bars = walk(bars=10, assets=2)
    marked = with_members(
        bars, listed(("A0", day(2), day(4)), ("A0", day(7), None), ("A9", day(0), None))
    )
    assert np.flatnonzero(marked.loc["A0", MEMBER]).tolist() == [2, 3, 4, 7, 8, 9]
    assert not marked.loc["A1", MEMBER].any()
    within = with_members(bars.drop(columns="session"), listed(("A0", day(2), day(4))))
    assert np.flatnonzero(within.loc["A0", MEMBER]).tolist() == [2, 3, 4]


def test_those_who_are_missing_are_counted_and_named():
    close = np.full((10, 3), 10.0)
    close[5:, 1] = np.nan
    bars = panel({"close": close})
    members = listed(("A0", day(0), None), ("A1", day(0), None), ("FAILED", day(0), day(4)))
    share, names = absent(bars, members)
    assert share == pytest.approx((5 + 5) / 25)
    assert names == ("FAILED",)
    assert absent(bars, listed(("A0", day(0), None))) == (0.0, ())
    nobody = absent(bars, listed(("A0", "2030-01-01", None)))
    assert np.isnan(nobody[0])


@pytest.fixture(scope="module")
def best():
    """Whoever closed highest."""
    score, sizes = reading(given, values="close"), Sizes(volatility=equal, band=0.1)
    clusters = Clusters(bars=20)
    return TopScores(score=score, every=1, buffer=Buffer(4, 4, 4), sizes=sizes, clusters=clusters)


def test_only_who_belongs_is_bought_and_who_leaves_is_sold(best):
    bars = walk(5, assets=5)
    members = listed(*EVER[:3], ("A3", day(70), None), ("A4", "2020-01-01", day(60)))
    run = simulate(with_members(bars, members), best, costs=0.001, begin=20_000.0)
    held = run.shares > 0
    known = pd.DatetimeIndex(run.days.index).tz_localize(None).normalize()
    assert held["A4"].any()
    bought = run.orders[run.orders["action"] == "BUY"].groupby("asset")["decided"].min()
    assert f"{bought['A3']:%Y-%m-%d}" == day(70)
    assert f"{bought['A0']:%Y-%m-%d}" < day(70)
    # decided on at the first close after it left, filled at the next open
    left = run.orders[run.orders["reason"] == "left the universe"]
    assert left["asset"].tolist() == ["A4"]
    assert f"{left['decided'].iloc[0]:%Y-%m-%d}" == day(61)
    assert not held.loc[known > day(61), "A4"].any()
    assert run.skipped["not in the universe"] > 0


def test_the_universe_of_all_is_no_universe(best):
    bars = walk(5, assets=5)
    members = listed(*((f"A{k}", "2020-01-01", None) for k in range(5)))
    one, other = (simulate(b, best, costs=0.001) for b in (bars, with_members(bars, members)))
    pd.testing.assert_frame_equal(one.orders, other.orders)


def test_equal_parts_are_of_those_who_belong():
    close = np.array([[10.0, 5.0], [11.0, 5.0], [11.0, 6.0], [12.1, 9.0]])
    bars = with_members(
        panel({"close": close}), listed(("A0", day(0), None), ("A1", day(1), day(1)))
    )
    times = bars.index.get_level_values("time").unique()
    out = benchmark_returns(bars, "equal_weight", times)
    assert out.tolist() == pytest.approx([0.1, (0 + 0.2) / 2, 0.1])
