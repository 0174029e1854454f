import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, ttest_1samp

from stages.base import DataError
from stages.explain.episodes import LEVEL, episodes
from stages.explain.memory import Memory, column_of
from stages.online.replay import ReplayBuffer
from stages.panel import age
from stages.signal import SIDE_TEXT

from .small import explained, market, memory, trained

HORIZON, K = 3, 8


@pytest.fixture(scope="module")
def found():
    _, panel = trained()
    rows, why, _ = explained()
    return dict(zip(rows, episodes(panel, rows, memory(), HORIZON, K, why), strict=True))


def by_brute_force(row, held, metric, k=K):
    """Nearest first, one by one, none whose outcome was open, none near one that was taken."""
    asset = held.y.index.get_level_values("asset")
    time = held.y.index.get_level_values("time")
    over = held.y.get("horizon_end")
    longest = None
    if over is None:
        spans = [e - t for e, t in zip(held.y["end"], time, strict=True) if e <= row[1]]
        longest = max(spans, default=pd.Timedelta(0))
    left = {}
    for i in range(len(held)):
        open_until = over.iloc[i] if over is not None else time[i] + longest
        if held.y["end"].iloc[i] <= row[1] and open_until <= row[1]:
            left[i] = metric(i)
    taken = []
    while left and len(taken) < k:
        best = min(left, key=lambda i: (left[i], i))
        left.pop(best)
        near = [j for j in taken if asset[j] == asset[best]]
        if all(abs(held.bar[j] - held.bar[best]) >= HORIZON for j in near):
            taken.append(best)
    return taken


def named(held, chosen):
    return [(a, t.isoformat()) for a, t in held.y.index[chosen]]


# which rows they are


@pytest.mark.parametrize("whole", [True, False])
def test_they_are_the_nearest_by_what_moved_the_margin(whole):
    _, panel = trained()
    rows, why, _ = explained()
    held = memory()
    if not whole:  # the buffer does not say when the whole horizon is over
        held = Memory(held.inputs, held.y.drop(columns="horizon_end"), held.weight, held.bar)
    center, spread = held.scale
    z = np.nan_to_num((held.inputs.to_numpy("float64") - center) / spread)
    for row in rows[::7]:
        here = np.nan_to_num((panel.loc[row, held.columns].to_numpy("float64") - center) / spread)
        pushes = {column_of(n): abs(p) for n, p in why.contributions.loc[row].items()}
        weight = np.array([pushes.get(c, 0.0) for c in held.columns])

        def metric(i, here=here, weight=weight):
            return np.sqrt(sum(weight * (z[i] - here) ** 2) / sum(weight))

        (got,) = episodes(panel, pd.MultiIndex.from_tuples([row]), held, HORIZON, K, why)
        chosen = by_brute_force(row, held, metric)
        assert [(e.asset, e.time) for e in got.episodes] == named(held, chosen)
        np.testing.assert_allclose(
            [e.distance for e in got.episodes], [metric(i) for i in chosen], atol=1e-9
        )


def test_without_reasons_they_are_the_nearest_by_mahalanobis():
    stack, panel = trained()
    rows, _, _ = explained()
    held, novelty = memory(), stack.novelty
    precision = novelty.root_ @ novelty.root_.T
    x = held.inputs[list(novelty.columns_)].to_numpy("float64")
    for row in rows[::9]:
        off = (x - panel.loc[row, list(novelty.columns_)].to_numpy("float64")) / novelty.spread_
        square = np.einsum("ni,ij,nj->n", off, precision, off) / off.shape[1]
        at = pd.MultiIndex.from_tuples([row])
        (got,) = episodes(panel, at, held, HORIZON, K, novelty=novelty)
        chosen = by_brute_force(row, held, lambda i, square=square: np.sqrt(square[i]))
        assert [(e.asset, e.time) for e in got.episodes] == named(held, chosen)


def test_without_reasons_and_measure_all_inputs_count_alike():
    _, panel = trained()
    row = explained()[0][-1]
    held = memory()
    z = held.rows - held.standardised(panel.loc[row, held.columns].to_numpy("float64"))
    (got,) = episodes(panel, pd.MultiIndex.from_tuples([row]), held, HORIZON, K)
    chosen = by_brute_force(row, held, lambda i: np.sqrt((z[i] ** 2).mean()))
    assert [(e.asset, e.time) for e in got.episodes] == named(held, chosen)


def test_no_outcome_was_open_at_the_time(found):
    y = memory().y
    for (_, time), told in found.items():
        for episode in told.episodes:
            row = (episode.asset, pd.Timestamp(episode.time))
            assert pd.Timestamp(episode.ended) == y.loc[row, "end"] <= time
            assert y.loc[row, "horizon_end"] <= time
    assert sum(len(told.episodes) == K for told in found.values()) > 20


def test_what_was_known_later_changes_nothing(found):
    """Rows whose outcome came later are spoilt, then taken away."""
    _, panel = trained()
    rows, why, _ = explained()
    for at in (10, 25):
        row = rows[at]
        held = memory()
        later = (held.y["horizon_end"] > row[1]).to_numpy()
        one = pd.MultiIndex.from_tuples([row])
        inputs = held.inputs.copy()
        inputs.loc[later, "feature.x0"] = panel.loc[row, "feature.x0"]
        side = held.y["side"].where(~later, -held.y["side"]).astype("int8")
        spoilt = Memory(inputs, held.y.assign(side=side), held.weight, held.bar)
        fewer = Memory(held.inputs[~later], held.y[~later], held.weight[~later], held.bar[~later])
        for other in (spoilt, fewer):
            # the unit of each input is that of the whole memory
            object.__setattr__(other, "scale", held.scale)
            assert episodes(panel, one, other, HORIZON, K, why) == [found[row]]


def test_a_label_that_ended_early_waits_for_the_longest():
    """Touched barriers end labels early; alone they would be all that is known of the last bars."""
    _, panel = trained()
    rows, why, _ = explained()
    held = memory()
    time = pd.DatetimeIndex(held.y.index.get_level_values("time"))
    late = np.arange(len(held)) % 5 == 0
    end = time + pd.to_timedelta(np.where(late, 12, 1), unit="D")
    y = held.y.drop(columns="horizon_end").assign(end=end)
    held = Memory(held.inputs, y, held.weight, held.bar)
    row = rows[18]
    (told,) = episodes(panel, pd.MultiIndex.from_tuples([row]), held, HORIZON, 500, why)
    newest = max(pd.Timestamp(e.time) for e in told.episodes)
    assert newest == max(t for t in time if t + pd.Timedelta("12D") <= row[1])


def test_episodes_of_one_asset_are_a_horizon_apart(found):
    place = pd.Series(memory().bar, memory().y.index)
    for told in found.values():
        for asset in {e.asset for e in told.episodes}:
            bars = sorted(
                place[asset, pd.Timestamp(e.time)] for e in told.episodes if e.asset == asset
            )
            assert (np.diff(bars) >= HORIZON).all()


def test_the_memory_of_an_artifact_is_enough():
    _, panel = trained()
    rows, why, _ = explained()
    buffer = ReplayBuffer(window=5, capacity=200).add(*market())
    held = Memory.of(ReplayBuffer(window=5, capacity=200).restore(buffer.state()))
    for told in episodes(panel, rows[20:], held, HORIZON, K, why):
        known = held.y["end"] <= pd.Timestamp(told.time)
        rate = np.average(held.y["side"][known] == told.side, weights=held.weight[known])
        assert told.base == pytest.approx(rate, abs=0.05)  # the last bars wait for the longest
        assert told.known <= known.sum()
        assert any(e.weight > 1 for e in told.episodes)


# what is told of them


def test_outcomes_are_counted_and_compared_with_the_base_rate(found):
    _, panel = trained()
    y = memory().y
    for row, told in found.items():
        lean = 1 if panel.loc[row, "margin"] >= 0 else -1
        assert told.side == lean
        assert told.count == sum(e.side == lean for e in told.episodes)
        known = y[y["horizon_end"] <= row[1]]
        assert told.known == len(known)
        if not told.episodes:
            continue
        assert told.share == pytest.approx(told.count / len(told.episodes))
        assert told.base == pytest.approx((known["side"] == lean).mean())
        assert told.base_ret == pytest.approx(known["ret"].mean())
        assert told.ret == pytest.approx(np.mean([e.ret for e in told.episodes]))
        for episode in told.episodes:
            row = (episode.asset, pd.Timestamp(episode.time))
            assert (episode.side, episode.ret) == tuple(y.loc[row, ["side", "ret"]])


def stretched(told) -> int:
    """Stretches of time that the episodes cover, merged one by one."""
    y = memory().y
    spans = sorted(
        (pd.Timestamp(e.time), y.loc[(e.asset, pd.Timestamp(e.time)), "horizon_end"])
        for e in told.episodes
    )
    merged = []
    for start, end in spans:
        if merged and start < merged[-1]:
            merged[-1] = max(merged[-1], end)
        else:
            merged.append(end)
    return len(merged)


def test_what_happened_to_many_assets_at_once_happened_once(found):
    """Against SciPy, where every episode is a witness of its own, and wider where not."""
    fewer = alone = 0
    for told in found.values():
        total = len(told.episodes)
        if total < K:
            continue
        assert told.witnesses == stretched(told)
        count = round(told.share * total)
        oracle = binomtest(count, total).proportion_ci(LEVEL, method="wilson")
        width = told.high - told.low
        if told.witnesses == total:
            alone += 1
            assert (told.low, told.high) == pytest.approx((oracle.low, oracle.high))
            interval = ttest_1samp([e.ret for e in told.episodes], 0).confidence_interval(LEVEL)
            assert (told.ret_low, told.ret_high) == pytest.approx(tuple(interval))
        else:
            fewer += 1
            assert width > oracle.high - oracle.low
        assert told.low <= told.share <= told.high
        assert told.ret_low <= told.ret <= told.ret_high
    assert min(fewer, alone) >= 3


def test_rows_of_a_sample_count_for_what_they_stand_for():
    _, panel = trained()
    rows, why, _ = explained()
    held = memory()
    weight = np.where(held.y["side"] == 1, 3.0, 1.0)
    held = Memory(held.inputs, held.y, weight, held.bar)
    (told,) = episodes(panel, rows[20:21], held, HORIZON, K, why)
    sides = np.array([e.side for e in told.episodes])
    own = np.where(sides == 1, 3.0, 1.0)
    assert told.share == pytest.approx(own[sides == told.side].sum() / own.sum())
    assert [e.weight for e in told.episodes] == own.tolist()


def test_a_planted_pattern_is_seen_in_what_followed():
    """The market's signal is in the inputs: rows that lean buy follow rows that rose."""
    _, panel = trained()
    rows, why, _ = explained()
    told = episodes(panel, rows, memory(), HORIZON, 40, why)
    told = [t for t in told if len(t.episodes) == 40]
    assert np.mean([t.share - t.base for t in told]) > 0.05
    assert np.mean([t.side * t.ret for t in told]) > 0


def test_the_text_says_what_the_figures_say(found):
    told = next(t for t in found.values() if len(t.episodes) == K)
    assert told.text.startswith(
        f"Of the {K} most similar rows of the past {told.count} ended as {SIDE_TEXT[told.side]}: "
        f"{told.share:.0%} by weight, {told.low:.0%} to {told.high:.0%}, "
        f"against {told.base:.0%} of all {told.known:,} known then; "
        f"mean return {told.ret:+.2%}, {told.ret_low:+.2%} to {told.ret_high:+.2%}"
    )


def test_before_the_first_outcome_there_is_nothing_to_tell():
    _, panel = trained()
    first = panel.index[:1]
    (told,) = episodes(panel, first, memory(), HORIZON)
    assert (told.episodes, told.known, told.witnesses) == ((), 0, 0)
    assert (told.share, told.base, told.ret) == (None, None, None)
    assert told.text.startswith("No row of the past")


def test_outcomes_without_returns_are_told_without_them():
    _, panel = trained()
    rows, why, _ = explained()
    held = memory()
    held = Memory(held.inputs, held.y.drop(columns="ret"), held.weight, held.bar)
    (told,) = episodes(panel.drop(columns="margin"), rows[20:21], held, HORIZON, K, why)
    assert (told.ret, told.base_ret, told.episodes[0].ret) == (None, None, None)
    assert "return" not in told.text
    most = max((1, 0, -1), key=lambda s: sum(e.side == s for e in told.episodes))
    assert told.side == most  # nothing says which side it leans to


# how it is computed


def test_a_row_is_told_the_same_alone_and_can_be_stored(found):
    _, panel = trained()
    rows, why, _ = explained()
    for row in rows[12:15]:
        at = pd.MultiIndex.from_tuples([row])
        assert episodes(panel.loc[[row]], at, memory(), HORIZON, K, why) == [found[row]]
        json.dumps(asdict(found[row]), allow_nan=False)


@pytest.mark.parametrize(("horizon", "k"), [(0, 5), (5, 0)])
def test_a_setting_below_one_is_refused(horizon, k):
    _, panel = trained()
    with pytest.raises(ValueError, match=f"horizon={horizon}, k={k}"):
        episodes(panel, panel.index[:1], memory(), horizon, k)


def test_a_row_that_is_not_there_is_refused():
    _, panel = trained()
    row = (panel.index[0][0], pd.Timestamp("1990-01-01", tz="UTC"))
    with pytest.raises(DataError, match="has no bar"):
        episodes(panel, pd.MultiIndex.from_tuples([row]), memory(), HORIZON)


def test_missing_inputs_lie_where_the_training_does():
    _, panel = trained()
    rows, why, _ = explained()
    gone = panel.copy()
    gone.loc[rows[20], "feature.x0"] = np.nan
    mean = panel.copy()
    center = memory().scale[0][memory().columns.index("feature.x0")]
    mean.loc[rows[20], "feature.x0"] = np.float32(center)
    one, other = (episodes(p, rows[20:21], memory(), HORIZON, K, why)[0] for p in (gone, mean))
    assert [e.time for e in one.episodes] == [e.time for e in other.episodes]


def test_explanations_without_a_push_leave_all_inputs_alike():
    _, panel = trained()
    rows, why, _ = explained()
    flat = replace(why, contributions=why.contributions * 0.0)
    assert episodes(panel, rows[20:21], memory(), HORIZON, K, flat) == episodes(
        panel, rows[20:21], memory(), HORIZON, K
    )
    assert age(panel).max() > HORIZON
