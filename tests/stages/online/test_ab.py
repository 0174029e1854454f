import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from stages.online.ab import Comparison
from stages.signal import ODDS

DAY = pd.Timedelta(days=1)


def market(seed, bars=300, assets=10, sharper=0.0):
    """Odds of A and B, and labels; B knows more by `sharper`, none of both more if it is 0."""
    rng = np.random.default_rng(seed)
    shape = (assets, bars)
    x, a, b = (rng.standard_normal(shape) for _ in range(3))
    lean = {"A": 0.3 * x + 0.3 * a, "B": (0.3 + sharper) * x + 0.3 * b}
    times = pd.date_range("2020-01-01", periods=bars, tz="UTC", name="time").as_unit("us")
    index = pd.MultiIndex.from_product(
        [pd.Index([f"A{i}" for i in range(assets)], name="asset"), times]
    )

    def odds(z):
        weights = np.exp(np.stack([-z / 2, np.zeros_like(z), z / 2], axis=-1))
        return weights / weights.sum(axis=-1, keepdims=True)

    true = odds((0.3 + sharper) * x)
    side = (rng.random((*shape, 1)) > true.cumsum(axis=-1)).sum(axis=-1) - 1
    y = pd.DataFrame({"side": side.ravel().astype("int8"), "weight": 1.0}, index)
    y.insert(1, "end", index.get_level_values("time") + DAY)
    tables = [pd.DataFrame(odds(z).reshape(-1, 3), index, ODDS) for z in lean.values()]
    return *tables, y


@pytest.mark.parametrize("kind", ["paired", "split"])
def test_two_equals_have_no_winner(kind):
    found = [Comparison(kind).judge(*market(seed, 150, 3), 1) for seed in range(30)]
    assert sum(outcome.winner is not None for outcome in found) <= 3  # of 30, at 5 %
    assert min(outcome.p for outcome in found) < 1


def test_the_better_one_wins_and_the_mirror_agrees():
    a, b, y = market(0, 400, 10, sharper=1.0)
    found, mirrored = Comparison().judge(a, b, y, 1), Comparison().judge(b, a, y, 1)
    assert (found.winner, mirrored.winner) == ("B", "A")
    assert found.p == pytest.approx(mirrored.p)
    assert found.gain == pytest.approx(-mirrored.gain)
    assert "B loses less" in found.text
    assert Comparison("split").judge(a, b, y, 1).winner == "B"


def test_an_early_winner_is_refused_and_the_bars_needed_are_told():
    a, b, y = market(0, 400, 10, sharper=1.5)
    first = a.index.get_level_values("time") < a.index.get_level_values("time").min() + 40 * DAY
    found = Comparison().judge(a[first], b[first], y[first], 1)
    assert ttest_1samp(found.path["gain"].dropna(), 0).pvalue < 0.001  # it looks sure
    assert found.winner is None
    assert found.text.startswith("Too early to name a winner")
    assert f"{found.needed:.0f} bars" in found.text


def test_a_smaller_claim_needs_more_bars_and_a_split_more_than_pairs():
    a, b, y = market(1, 80, 4)
    needs = {
        (kind, claim): Comparison(kind, claim=claim).judge(a, b, y, 1).needed
        for kind in ("paired", "split")
        for claim in (0.01, 0.02)
    }
    assert needs["paired", 0.01] == pytest.approx(4 * needs["paired", 0.02], rel=0.01)
    assert needs["split", 0.01] > 2 * needs["paired", 0.01]


def test_what_is_split_is_fair_and_repeatable():
    a, _, _ = market(0, 300, 7)
    mine = Comparison("split").drawn(a.index)
    by_bar = pd.Series(mine, a.index).groupby(level="time").sum()
    assert set(by_bar) == {3, 4}
    assert mine.mean() == pytest.approx(0.5, abs=0.03)
    by_asset = pd.Series(mine, a.index).groupby(level="asset").mean()
    assert by_asset.between(0.38, 0.62).all()
    half = a.index[: len(a) // 2]
    np.testing.assert_array_equal(mine, Comparison("split").drawn(a.index))
    assert (Comparison("split", seed=1).drawn(half) != Comparison("split").drawn(half)).any()


def test_in_a_split_nobody_is_judged_on_the_rows_of_the_other():
    a, b, y = market(2, 100)
    test = Comparison("split")
    mine = test.drawn(a.index)
    whole = test.judge(a, b, y, 1)
    silent = test.judge(a[~mine], b[mine], y, 1)
    pd.testing.assert_frame_equal(whole.path, silent.path)


def test_without_labels_it_is_too_early():
    a, b, y = market(0, 20)
    found = Comparison().judge(a, b, y.iloc[:0], 1)
    assert (found.winner, found.p, found.bars) == (None, 1.0, 0)
    assert "more bars than can be told yet" in found.text
