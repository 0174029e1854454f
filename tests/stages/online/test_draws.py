"""What is kept is a fair sample; what is drawn of it follows the policy and the seed."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from stages.online.draws import DAY, ByAge, ByLoss, Remembered, weighted
from stages.online.replay import ReplayBuffer

N, KEPT, SEEDS = 60, 15, 250


def lone_stream(n=N):
    """One asset, one side, one regime; the feature is the row's number."""
    times = pd.date_range("2020-01-01", periods=n, tz="UTC").as_unit("us")
    index = pd.MultiIndex.from_product([pd.Index(["A"], dtype="str"), times])
    index.names = ["asset", "time"]
    row = np.arange(n, dtype="float32")
    panel = pd.DataFrame({"feature.row": row, "context.regime": np.float32(0)}, index)
    end = index.get_level_values("time") + pd.Timedelta("1D")
    return panel, pd.DataFrame({"side": np.int8(0), "end": end, "weight": 1.0}, index)


def uniform_p_value(counts, kept):
    """Chance of counts so uneven, if each of n rows is kept by each seed with the same chance.

    Inclusions of one seed sum to `kept`, so the statistic is scaled by (n - 1) / n.
    """
    n, share = len(counts), kept / len(counts)
    off = (counts - SEEDS * share) ** 2 / (SEEDS * share * (1 - share))
    return chi2.sf(off.sum() * (n - 1) / n, n - 1)


def inclusions():
    """How often each row is kept, over many seeds."""
    panel, y = lone_stream()
    counts = np.zeros(N)
    for seed in range(SEEDS):
        buffer = ReplayBuffer(capacity=KEPT, window=1, seed=seed).add(panel, y)
        counts[buffer.sample(KEPT, 0)[0]["feature.row"].to_numpy(dtype=int)] += 1
    return counts


def test_the_reservoir_is_uniform():
    counts = inclusions()
    assert counts.sum() == SEEDS * KEPT
    assert uniform_p_value(counts, KEPT) > 0.01


def test_the_test_of_uniformity_finds_a_biased_reservoir():
    """Rows that enter with a chance 20 % too high, as an off-by-a-few in the count would make."""
    rng = np.random.default_rng(0)
    counts = np.zeros(N)
    for _ in range(SEEDS):
        held = list(range(KEPT))
        for row in range(KEPT, N):
            if rng.random() < 1.2 * KEPT / (row + 1):
                held[rng.integers(KEPT)] = row
        counts[held] += 1
    assert uniform_p_value(counts, KEPT) < 1e-6


def remembered(loss, days=None):
    loss = np.asarray(loss, dtype="float64")
    time = DAY * np.asarray(days if days is not None else np.arange(len(loss)), dtype="int64")
    return Remembered(time, loss)


@settings(max_examples=40, deadline=None)
@given(
    loss=st.lists(st.one_of(st.floats(0, 20), st.just(float("nan"))), max_size=30),
    n=st.integers(0, 40),
    seed=st.integers(0, 5),
    policy=st.sampled_from([ByLoss(), ByLoss(share=1.0), ByAge(30.0)]),
)
def test_a_draw_is_seeded_and_never_repeats_a_row(loss, n, seed, policy):
    rows = remembered(loss)
    one, two = (policy.draw(rows, n, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert len(one) == len(set(one.tolist())) == min(n, len(loss))
    assert all(0 <= row < len(loss) for row in one)


def share_of(policy, rows, wanted, n=20, seeds=400):
    """Share of draws in which each row of `wanted` is."""
    hits = [
        np.isin(wanted, policy.draw(rows, n, np.random.default_rng(s))).mean() for s in range(seeds)
    ]
    return np.mean(hits)


def test_badly_foretold_rows_come_up_more_often():
    rows = remembered([0.2] * 180 + [2.0] * 20)
    bad = np.arange(180, 200)
    fair = share_of(ByLoss(share=0.0), rows, bad)
    assert fair == pytest.approx(0.1, abs=0.01)
    assert share_of(ByLoss(share=0.3), rows, bad) > 1.8 * fair
    assert share_of(ByLoss(share=0.3), rows, bad) < share_of(ByLoss(share=1.0), rows, bad)


def test_the_largest_losses_count_no_more_than_the_95th_percentile():
    loss = np.linspace(0.5, 1.5, 100)
    noise = loss.copy()
    noise[99] = 1e6  # a label that nobody could have foretold
    usual = share_of(ByLoss(share=1.0), remembered(loss), np.array([99]), n=10)
    assert share_of(ByLoss(share=1.0), remembered(noise), np.array([99]), n=10) == usual
    assert share_of(ByLoss(share=1.0, clip=1.0), remembered(noise), np.array([99]), n=10) > 0.99


def test_a_row_a_half_life_older_is_drawn_half_as_often():
    rows = remembered(np.zeros(200), days=np.repeat([0, 365], 100))
    old, young = (
        share_of(ByAge(365.0), rows, np.arange(*ends), n=2) for ends in ((0, 100), (100, 200))
    )
    assert young / old == pytest.approx(2.0, rel=0.1)


def test_weights_that_vanish_as_numbers_still_order_the_rows():
    rows = remembered(np.zeros(3), days=[0, 400_000, 800_000])
    assert ByAge(10.0).draw(rows, 3, np.random.default_rng(0)).tolist() == [2, 1, 0]


def test_weights_of_nothing_come_last():
    weight = np.array([0.0, 1.0, 0.0, 1.0])
    for seed in range(20):
        assert set(weighted(weight, 2, np.random.default_rng(seed)).tolist()) == {1, 3}


@pytest.mark.parametrize(
    ("policy", "setting"),
    [(ByLoss, {"share": 1.5}), (ByLoss, {"clip": 0.0}), (ByAge, {"half_life": 0.0})],
)
def test_a_setting_out_of_range_is_refused(policy, setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        policy(**setting)


# within the buffer


def spoken_stream():
    """Sides 80/10/10, and two members that spoke of the rows: of the sells they were sure."""
    rng = np.random.default_rng(1)
    panel, y = lone_stream(400)
    y["side"] = rng.choice([-1, 0, 1], 400, p=[0.1, 0.8, 0.1]).astype("int8")
    sell = np.where(y["side"] == -1, 2.0, -2.0)
    return panel.assign(
        **{
            "filter.a.z_sell": sell,
            "filter.a.z_buy": -2.0,
            "filter.gate": 1.0,
            "refiner.b.z_sell": np.where(np.arange(400) % 2, sell, np.nan),
            "refiner.b.z_buy": np.where(np.arange(400) % 2, -2.0, np.nan),
        }
    ), y


def test_the_loss_of_a_row_is_that_of_what_members_said_of_it():
    panel, y = spoken_stream()
    buffer = ReplayBuffer(capacity=400, window=1).add(panel, y)
    side = y["side"].to_numpy()
    norm = np.where(side == -1, np.log(1 + np.exp(2) + np.exp(-2)), np.log(1 + 2 * np.exp(-2)))
    expected = norm - np.select([side == -1, side == 1], [2.0, -2.0], 0.0)
    np.testing.assert_allclose(buffer.loss, expected)


def test_the_policy_draws_and_the_summary_names_it():
    panel, y = spoken_stream()
    fair = ReplayBuffer(capacity=400, window=1).add(panel, y)
    by_loss = ReplayBuffer(capacity=400, window=1, policy=ByLoss(share=1.0)).add(panel, y)
    assert by_loss.summary() == fair.summary() | {"policy": "ByLoss"}
    buys = [(buffer.sample(60, 3)[1]["side"] == 1).mean() for buffer in (fair, by_loss)]
    assert buys[1] > 2 * buys[0]
    for sample in (fair.sample, by_loss.sample):
        assert len(sample(1000, 0)[1]) == 400


def test_weighed_labels_count_as_their_side_did_in_the_stream():
    panel, y = spoken_stream()
    buffer = ReplayBuffer(capacity=60, window=1).add(panel, y)
    plain, weighed = buffer.sample(60, 0)[1], buffer.sample(60, 0, weighed=True)[1]
    assert plain["side"].value_counts(normalize=True)[0] < 0.5  # kept even
    mass = weighed.groupby("side")["weight"].sum() / weighed["weight"].sum()
    came = y["side"].value_counts(normalize=True)
    np.testing.assert_allclose(mass.sort_index(), came.sort_index(), atol=1e-9)
