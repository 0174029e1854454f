"""Signals, momentum, clusters and the choice, against well-known libraries and by hand."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import talib
from scipy.cluster.hierarchy import fcluster, linkage

from stages.portfolio.book import Book
from stages.portfolio.clusters import Clusters
from stages.portfolio.momentum import Momentum
from stages.portfolio.prepared import prepare
from stages.portfolio.signals import (
    Filter,
    Trend,
    combo,
    kama,
    macd,
    relative_volume,
    slope,
    traded_value,
)
from stages.portfolio.target import Buffer, chosen, ranked
from tests.stages.portfolio.conftest import bars_of


@pytest.fixture(scope="module")
def close(closes):
    return np.ascontiguousarray(closes["E00"])


def test_the_sign_of_the_macd_is_that_of_talib(close):
    known = ~np.isnan(macd(close))
    histogram = talib.MACD(close, 12, 26, 9)[2]
    clear = known & (np.abs(histogram) > 1e-4 * close)  # ours forgets, theirs remembers
    assert clear.sum() > 150
    assert (np.sign(macd(close)) == np.sign(histogram))[clear].all()


def test_the_sign_of_the_adaptive_average_is_that_of_talib(close):
    gap = close - talib.KAMA(close, 10)
    clear = ~np.isnan(kama(close)) & (np.abs(gap) > 1e-4 * close)
    assert clear.sum() > 150
    assert (np.sign(kama(close)) == np.sign(gap))[clear].all()


def test_strength_is_counted_in_daily_volatilities(close):
    rough = close[0] * (close / close[0]) ** 2  # twice the move, twice the volatility
    both = np.isfinite(kama(close))
    assert np.median(np.abs(kama(rough)[both] / kama(close)[both])) == pytest.approx(1, abs=0.15)


def test_the_combination_is_up_only_where_both_are(close):
    one, other, both = macd(close), kama(close), combo(close)
    known = np.isfinite(one) & np.isfinite(other)
    assert np.array_equal(np.isfinite(both), known)
    agree = np.sign(one) == np.sign(other)
    assert 0 < agree[known].mean() < 1
    assert np.array_equal(np.sign(both)[known], np.where(agree, np.sign(one), 0)[known])


def test_the_slope_is_that_of_a_line_through_the_log_closes(close):
    expected = [np.polyfit(np.arange(20), np.log(close[i - 19 : i + 1]), 1)[0] for i in (19, 200)]
    np.testing.assert_allclose(slope(close, 20)[[19, 200]], expected, rtol=1e-9)


def test_what_is_traded_is_close_times_volume_in_the_mean(bars):
    one = bars.loc["E00"]
    found = traded_value(one["close"].to_numpy(), one["volume"].to_numpy(), 20)
    expected = (one["close"] * one["volume"]).rolling(20).mean()
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("least", [None, 1.0, 1e9])
def test_a_filter_stops_buys_and_never_exits(bars, least):
    part = Filter(partial(relative_volume, bars=20), least)
    plain, strict = Trend(macd), Trend(macd, {"volume": part})
    day = prepare(bars, {**plain.columns(), "filter.volume": part.value}).day(bars.index[300][1])
    before, after = plain.at(day), strict.at(day)
    assert set(before[np.isfinite(before)]) == {-1.0, 1.0}
    assert np.array_equal(after[before < 0], before[before < 0])
    passed = day.column("filter.volume") >= (-np.inf if least is None else least)
    assert np.array_equal(after[before > 0], passed[before > 0].astype(float))


def test_a_filter_that_cannot_be_told_makes_the_signal_unknown(bars):
    part = Filter(partial(relative_volume, bars=20), 1.0)
    dry = bars.assign(volume=np.nan)
    trend = Trend(macd, {"volume": part})
    side = trend.at(prepare(dry, trend.columns()).day(dry.index[300][1]))
    assert np.isnan(side).any()
    assert not (side > 0).any()


def test_momentum_is_the_weighted_return_of_each_window_in_its_volatility(bars, closes):
    score = Momentum((20, 60, 120), (0.3, 0.4, 0.3), inertia=0.05)
    day = prepare(bars, score.columns()).day(bars.index[250][1])
    held = np.arange(12) == 0
    path = np.log(closes["E00"].iloc[: day.row + 1])
    expected = 0.05 + sum(
        weight * (path.iloc[-1] - path.iloc[-1 - n]) / (path.diff().iloc[-n:].std() * np.sqrt(n))
        for n, weight in ((20, 0.3), (60, 0.4), (120, 0.3))
    )
    assert score.at(day, held)[0] == pytest.approx(expected, rel=1e-9)


def test_clusters_are_the_groups_that_move_together(bars, closes):
    day = prepare(bars, {}).day(bars.index[290][1])
    found = Clusters(correlation=0.5).at(day)
    groups = [{found[f"E{n:02d}"] for n in part} for part in (range(4), range(4, 8), range(8, 12))]
    assert [len(g) for g in groups] == [1, 1, 1]
    assert len(set.union(*groups)) == 3


def test_clusters_are_those_of_scipy_on_the_correlation_of_60_returns(bars, closes):
    day = prepare(bars, {}).day(bars.index[290][1])
    found = Clusters(correlation=0.93).at(day)
    returns = np.log(closes).diff().iloc[day.row - 59 : day.row + 1]
    condensed = (1 - returns.corr().to_numpy())[np.triu_indices(12, 1)]
    labels = fcluster(linkage(condensed, "average"), 0.07, "distance")
    together = {(a, b) for a in range(12) for b in range(12) if labels[a] == labels[b]}
    names = list(closes)
    ours = {(a, b) for a in range(12) for b in range(12) if found[names[a]] == found[names[b]]}
    assert ours == together
    assert len(set(labels)) > 3


def test_clusters_are_made_anew_when_they_are_old(bars):
    prepared, part = prepare(bars, {}), Clusters(every=20)
    book = replace(Book.opened(1), clustered=prepared.times[200])
    due = [part.due(prepared.day(prepared.times[row]), book) for row in (200, 219, 220)]
    assert due == [False, False, True]
    assert part.due(prepared.day(prepared.times[200]), Book.opened(1))


def test_an_asset_that_hardly_trades_or_stands_still_is_in_no_cluster(closes):
    table = closes.copy()
    table["E01"] = 50.0
    table.iloc[270:290, 2] = np.nan
    prepared = prepare(bars_of(table), {})
    found = Clusters().at(prepared.day(prepared.times[299]))
    assert {"E01", "E02"} & set(found) == set()
    assert len(found) == 10


def test_without_enough_returns_there_are_no_clusters(bars):
    prepared = prepare(bars, {})
    assert Clusters().at(prepared.day(prepared.times[59])) == {}
    assert Clusters().at(prepared.day(prepared.times[60])) != {}


def test_rows_are_sessions_where_exchanges_close_at_different_times(closes):
    bars = bars_of(closes[["E00", "E01"]]).reset_index()
    early = bars["asset"] == "E00"
    bars.loc[early, "time"] -= pd.Timedelta(hours=5)
    prepared = prepare(bars.set_index(["asset", "time"]), {})
    assert len(prepared.times) == len(closes)
    assert (prepared.times.hour == 21).all()
    assert np.isfinite(prepared.columns["close"]).all()
    day = prepared.day(prepared.times[30])
    assert day.since(prepared.times[30] - pd.Timedelta(hours=5)) == 0  # the early exchange's bar
    assert prepared.row(prepared.times[30] - pd.Timedelta(hours=5)) == 29  # not all is known yet


def test_rows_are_times_where_a_session_has_several_bars(closes):
    bars = bars_of(closes[["E00", "E01"]]).reset_index()
    later = bars.assign(time=bars["time"] + pd.Timedelta(hours=1))
    both = pd.concat([bars, later]).set_index(["asset", "time"]).sort_index()
    prepared = prepare(both, {})
    assert len(prepared.times) == 2 * len(closes)
    assert prepared.sessions is None


def test_ranks_go_from_the_highest_score_and_leave_out_who_takes_no_part():
    scores = np.array([1.0, 3.0, np.nan, 2.0, 3.0])
    among = np.array([True, True, False, True, True])
    assert ranked("abcde", scores, among) == {"b": 1, "e": 2, "d": 3, "a": 4}


RANKS = {name: rank for rank, name in enumerate("abcdefghij", start=1)}
ZONE = Buffer(buy=3, hold=6, per_cluster=2)


def test_holdings_stay_in_the_buffer_and_only_the_top_is_bought():
    found = chosen(RANKS, ["e", "h"], {}, ZONE, room=20)
    assert list(found.reasons) == ["a", "b", "c", "e"]
    assert found.leave == {"h": "rank 8 is beyond 6"}


def test_holdings_take_their_place_in_a_cluster_first():
    clusters = dict.fromkeys("abef", 0)
    found = chosen(RANKS, ["e", "f"], clusters, ZONE, room=20)
    assert list(found.reasons) == ["c", "e", "f"]


def test_of_too_many_holdings_in_one_cluster_the_worst_is_sold():
    clusters = dict.fromkeys("abef", 0)
    found = chosen(RANKS, ["b", "e", "f"], clusters, ZONE, room=20)
    assert found.leave == {"f": "rank 6: 2 better ones in cluster 0"}


def test_there_is_room_for_so_many_and_the_best_stay():
    found = chosen(RANKS, ["d", "e", "f"], {}, ZONE, room=2)
    assert list(found.reasons) == ["d", "e"]
    assert found.leave == {"f": "rank 6: 2 better positions are held"}


def test_while_blocked_nothing_new_is_chosen_and_exits_go_on():
    found = chosen(RANKS, ["d", "h"], {}, ZONE, room=20, blocked="market")
    assert list(found.reasons) == ["d"]
    assert set(found.leave) == {"h"}


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Buffer, {"buy": 5, "hold": 4}),
        (Buffer, {"per_cluster": 0}),
        (Momentum, {"bars": [20, 60]}),
        (Momentum, {"weights": [0, 0, 0]}),
        (Momentum, {"inertia": -1}),
        (Clusters, {"bars": 2}),
        (Clusters, {"correlation": 1.0}),
    ],
)
def test_a_setting_out_of_range_is_refused(kind, wrong):
    with pytest.raises(ValueError, match="need"):
        kind(**wrong)
