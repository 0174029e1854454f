import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.backtest.simulate import simulate
from stages.backtest.walk import Window, choose_forward, walk_forward, windows
from stages.base import DataError
from tests.stages.backtest.conftest import Scripted, walk


@given(
    st.integers(10, 400), st.integers(2, 60), st.integers(2, 60), st.integers(0, 20), st.booleans()
)
def test_training_ends_a_purge_before_its_test_and_tests_follow_each_other(
    periods, train, test, purge, anchored
):
    if train + purge + 2 > periods:
        with pytest.raises(DataError, match="hold no window"):
            windows(periods, train, test, purge, anchored)
        return
    cuts = windows(periods, train, test, purge, anchored)
    assert cuts[0].test[0] == train + purge
    assert cuts[-1].test[1] == periods
    for cut in cuts:
        assert cut.test[0] - cut.train[1] == purge
        assert cut.train[0] == (0 if anchored else cut.train[1] - train)
        assert cut.test[1] > cut.test[0]
    for one, following in zip(cuts[:-1], cuts[1:], strict=True):
        assert one.test[1] == following.test[0]


def test_what_is_chosen_was_best_before_and_is_judged_after():
    times = pd.date_range("2024-01-01", periods=12, tz="UTC")
    table = pd.DataFrame(
        {
            "early": [0.02, 0.01] * 3 + [-0.02, -0.01] * 3,
            "late": [-0.02, -0.01] * 3 + [0.02, 0.01] * 3,
        },
        times,
    )
    out = choose_forward(table, windows(12, 4, 4, purge=0))
    assert out.chosen["chosen"].tolist() == ["early", "late"]
    assert out.chosen["score"].gt(0).all()
    assert out.returns.tolist() == table["early"][4:8].tolist() + table["late"][8:].tolist()
    assert out.chosen["begin"].tolist() == [times[4], times[8]]
    assert out.trials.equals(table)


def test_the_purge_is_not_looked_at():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(0, 0.01, (60, 5)))
    cuts = windows(60, 20, 10, purge=5)
    hidden = table.copy()
    for cut in cuts[:1]:
        hidden.iloc[cut.train[1] :] = rng.normal(0, 0.01, (60 - cut.train[1], 5))
    one, other = (choose_forward(t, cuts[:1]).chosen for t in (table, hidden))
    assert one["chosen"].equals(other["chosen"])
    assert one["score"].equals(other["score"])


def test_a_score_that_is_not_defined_is_not_chosen():
    table = pd.DataFrame({"still": [0.0] * 8, "loses": [-0.01, -0.02] * 4})
    assert choose_forward(table, [Window((0, 4), (4, 8))]).chosen["chosen"].tolist() == ["loses"]


def test_a_choice_of_one_is_that_one_with_one_book():
    """Cut into windows and joined again, a single policy does what it does at one go."""
    bars = walk(2, bars=60)
    policy = Scripted({k: [("A0", 40 if k % 6 < 3 else -40)] for k in range(59)})
    cuts = windows(59, 15, 10)
    out = walk_forward(bars, {"only": policy}, lambda periods: cuts, costs=0.001)
    start = bars.index.get_level_values("time").unique()[cuts[0].test[0]]
    whole = simulate(bars, policy, costs=0.001, start=start)
    assert len(out.parts) == len(cuts)
    pd.testing.assert_series_equal(out.returns, whole.returns)


def test_switching_policies_carries_the_book_over():
    bars = walk(4, bars=80)
    buys = Scripted({k: [("A0", 100)] for k in range(79)})
    sells = Scripted({k: [("A0", -100)] for k in range(79)})
    scores = iter([1.0, 0.0, 0.0, 1.0])
    cuts = windows(79, 20, 30)[:2]
    out = walk_forward(
        bars,
        {"buys": buys, "sells": sells},
        lambda periods: cuts,
        costs=0.001,
        score=lambda r: next(scores, 0.0),
    )
    assert out.chosen["chosen"].tolist() == ["buys", "sells"]
    held = pd.concat([part.shares["A0"] for part in out.parts])
    assert held.iloc[30] > 0
    assert (held.diff().iloc[32:] <= 0).all()
    assert set(out.trials) == {"buys", "sells"}


def test_too_short_a_history_is_refused():
    with pytest.raises(DataError, match="too few for a policy"):
        walk_forward(walk(bars=10), {"x": Scripted(warmup=20)}, list, costs=0.001)
    with pytest.raises(ValueError, match="need train"):
        windows(10, 1, 2)
