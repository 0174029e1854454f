"""No cap is ever broken: checked in exact fractions, over many books."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.portfolio.book import exact
from stages.portfolio.sizes import Sizes, capped, equal, lots

CAPS = (0.15, 0.3, 0.95)
shares_of = st.floats(0.01, 1.0).map(lambda x: round(x, 4))


@st.composite
def claims(draw):
    n = draw(st.integers(1, 25))
    values = draw(st.lists(st.floats(0, 10), min_size=n, max_size=n))
    clusters = draw(st.lists(st.integers(0, 6), min_size=n, max_size=n))
    return np.array(values), clusters, tuple(draw(shares_of) for _ in range(3))


@settings(max_examples=150, deadline=None)
@given(claims(), st.booleans())
def test_weights_stay_under_every_cap(case, full):
    wanted, clusters, (each, group, total) = case
    weights = capped(wanted, clusters, (each, group, total), full)
    assert (weights >= 0).all()
    assert weights.max() <= each * (1 + 1e-9)
    assert np.bincount(clusters, weights).max() <= group * (1 + 1e-9)
    assert weights.sum() <= total * (1 + 1e-9)
    assert not weights[wanted == 0].any()
    if not full:
        assert (weights <= wanted * (1 + 1e-9)).all()


@settings(max_examples=150, deadline=None)
@given(claims())
def test_nothing_is_left_that_a_cap_would_still_allow(case):
    wanted, clusters, (each, group, total) = case
    weights = capped(wanted, clusters, (each, group, total))
    full = np.bincount(clusters, weights)[clusters] >= group * (1 - 1e-9)
    open_ = (wanted > 1e-9) & (weights < each * (1 - 1e-9)) & ~full
    assert weights.sum() >= total * (1 - 1e-9) or not open_.any()


def test_assets_under_no_cap_share_in_proportion_to_their_claims():
    weights = capped(np.array([100.0, 1, 2, 3]), [0, 1, 2, 3], (0.4, 1.0, 0.94))
    np.testing.assert_allclose(weights, [0.4, 0.09, 0.18, 0.27])


def test_a_full_cluster_hands_on_what_it_cannot_take():
    weights = capped(np.ones(4), [0, 0, 0, 1], (0.5, 0.36, 0.7))
    np.testing.assert_allclose(weights, [0.12, 0.12, 0.12, 0.34])


def test_weights_that_are_only_cut_are_never_raised():
    weights = capped(np.array([0.05, 0.5, 0.2, 0.2]), [0, 1, 2, 2], CAPS, full=False)
    np.testing.assert_allclose(weights, [0.05, 0.15, 0.15, 0.15])
    scaled = capped(np.full(10, 0.15), range(10), CAPS, full=False)
    np.testing.assert_allclose(scaled, np.full(10, 0.095))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1.0])
def test_a_claim_that_is_no_claim_is_refused(wrong):
    with pytest.raises(ValueError, match="claims must be finite"):
        capped(np.array([1.0, wrong]), [0, 1], CAPS)


def checked(rng):
    """One random book, sized and checked in fractions; the number of assets that got shares."""
    n = int(rng.integers(1, 16))
    names = [f"A{i}" for i in range(n)]
    places = int(rng.integers(0, 6))
    prices = {a: round(float(np.exp(rng.normal(2, 2))), places) or 0.01 for a in names}
    clusters = {a: int(rng.integers(0, 5)) for a in names}
    each, group, exposure = (round(float(rng.uniform(0.02, 1)), 4) for _ in range(3))
    each = min(each, group)
    sizes = Sizes(
        each=each,
        cluster=group,
        exposure=exposure,
        band=float(rng.choice([0, 0.02])),
        lots={a: int(rng.choice([1, 7, 10, 100])) for a in names},
    )
    total = Decimal(int(rng.integers(10_000, 10**9))) / 100
    raw = rng.random(n)
    weights = dict(zip(names, sizes.weights(raw, list(clusters.values())).tolist(), strict=True))
    moved = names[: int(rng.integers(0, n + 1))]
    fixed = {a: int(rng.integers(1, 50)) for a in names if a not in moved}
    held = {a: int(rng.integers(0, 500)) for a in moved}
    wanted = {a: weights[a] for a in moved}
    found = lots(wanted, prices, clusters, sizes, total, fixed, held)
    worth = {a: Fraction(exact(prices[a])) * s for a, s in {**fixed, **found}.items()}
    whole = Fraction(total)
    assert set(found) == set(moved)
    for asset, shares in found.items():
        assert shares % sizes.lot_of(asset) == 0 or shares == held[asset]
        assert shares == 0 or worth[asset] <= Fraction(exact(each)) * whole
    for cluster in {clusters[a] for a in moved if found[a]}:
        inside = sum(worth[a] for a in names if clusters[a] == cluster)
        assert inside <= Fraction(exact(group)) * whole
    if any(found.values()):
        assert sum(worth.values()) <= Fraction(exact(exposure)) * whole
    return sum(map(bool, found.values()))


def test_a_thousand_random_books_break_no_cap():
    rng = np.random.default_rng(11)
    sized = [checked(rng) for _ in range(1000)]
    assert np.mean(sized) > 2


def test_a_price_just_above_the_room_buys_nothing():
    sizes = Sizes(each=0.15, cluster=1.0, exposure=1.0)
    room = {"A": "x"}
    assert lots({"A": 0.15}, {"A": 15.0}, room, sizes, Decimal(100)) == {"A": 1}
    assert lots({"A": 0.15}, {"A": 15.000001}, room, sizes, Decimal(100)) == {"A": 0}


def test_binary_rounding_takes_no_lot_away():
    sizes = Sizes(each=1.0, cluster=1.0, exposure=1.0)
    # 0.29 * 100 is 28.999999999999996 in binary
    assert lots({"A": 0.29}, {"A": 1.0}, {"A": 0}, sizes, Decimal(100)) == {"A": 29}
    assert lots({"A": 1.0}, {"A": 0.1}, {"A": 0}, sizes, Decimal(100)) == {"A": 1000}


def test_a_holding_near_its_weight_is_left_alone_unless_it_breaks_a_cap():
    sizes = Sizes(each=0.3, cluster=1.0, exposure=0.95, band=0.02, lot=10)
    common = ({"A": 1.0}, {"A": 0}, sizes, Decimal(1000), None)
    assert lots({"A": 0.25}, *common, {"A": 263}) == {"A": 263}
    assert lots({"A": 0.25}, *common, {"A": 271}) == {"A": 250}
    assert lots({"A": 0.30}, *common, {"A": 301}) == {"A": 300}


def test_what_cannot_be_traded_uses_up_its_share_of_the_caps():
    sizes = Sizes(each=0.3, cluster=0.4, exposure=0.5)
    prices, clusters = dict.fromkeys("ABC", 1.0), {"A": 0, "B": 0, "C": 1}
    found = lots({"B": 0.3, "C": 0.3}, prices, clusters, sizes, Decimal(1000), {"A": 250})
    assert found == {"B": 150, "C": 100}


def test_the_calm_get_more_and_what_stands_still_no_more_than_the_calmest():
    sizes = Sizes()
    np.testing.assert_allclose(
        sizes.claims(np.array([0.01, 0.02, 0.0]), np.zeros(3)), [100, 50, 100]
    )
    np.testing.assert_allclose(equal(np.ones(3)), 1)


def test_a_tilt_leans_towards_high_scores():
    claims = Sizes(tilt=0.5).claims(np.full(3, 0.01), np.array([-1.0, 0.0, 9.0]))
    np.testing.assert_allclose(claims / claims[1], np.exp([-0.5, 0, 1.5]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"each": 0},
        {"cluster": 1.1},
        {"exposure": -0.1},
        {"positions": 0},
        {"band": 1},
        {"lot": 0},
        {"lots": {"A": 0.5}},
        {"tilt": float("inf")},
    ],
    ids=str,
)
def test_sizes_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=r"must lie|need"):
        Sizes(**wrong)
