import numpy as np
import pandas as pd
import pytest

from stages.online.duel import Duel, duel
from stages.online.promotion import GATES, Facts, Promotion
from stages.signal import ODDS

DAY = pd.Timedelta(days=1)
START = pd.Timestamp("2020-01-01", tz="UTC")
SOUND = Facts(gap=1e-9, seconds=1.0, audit="pass", lineage=True)


def found(won, bars=80, gain=0.01, ece=(0.02, 0.02), against=1.0):
    """A duel that stands as told."""
    rng = np.random.default_rng(0)
    gains = rng.normal(0, 0.02, bars)
    path = pd.DataFrame(
        {
            "gain": gains - gains.mean() + gain,
            "for": np.linspace(1, won, bars),
            "against": np.linspace(1, against, bars),
            "settled": np.arange(1.0, bars + 1),
        },
        pd.date_range(START, periods=bars, name="time"),
    )
    return Duel(path, 1, bars, ece)


def test_a_challenger_that_passes_every_gate_is_promoted():
    verdict = Promotion().judge(found(25), SOUND, SOUND)
    assert verdict.action == "promote"
    assert [check.gate for check in verdict.checks] == list(GATES)
    assert verdict.left == 0


@pytest.mark.parametrize(
    ("gate", "stand", "challenger"),
    [
        ("evidence", found(19.9), SOUND),
        ("bars", found(25, bars=59), SOUND),
        ("loss", found(25, gain=-0.001), SOUND),
        ("calibration", found(25, ece=(0.02, 0.031)), SOUND),
        ("additivity", found(25), Facts(1e-3, 1.0, "pass", True)),
        ("additivity", found(25), Facts(np.nan, 1.0, "pass", True)),
        ("latency", found(25), Facts(1e-9, 2.5, "pass", True)),
        ("latency", found(25), Facts(1e-9, np.nan, "pass", True)),
        ("leak audit", found(25), Facts(1e-9, 1.0, "leak", True)),
        ("leak audit", found(25), Facts(1e-9, 1.0, "none", True)),
        ("lineage", found(25), Facts(1e-9, 1.0, "pass", False)),
    ],
)
def test_each_gate_alone_keeps_the_champion_and_is_named(gate, stand, challenger):
    verdict = Promotion().judge(stand, SOUND, challenger)
    assert verdict.action == "wait"
    assert [check.gate for check in verdict.closed] == [gate]
    assert gate in verdict.text


def test_gates_are_those_of_the_configuration():
    rules = Promotion(gates=["evidence", "bars"])
    assert rules.judge(found(25), SOUND, Facts()).action == "promote"
    with pytest.raises(ValueError, match="no such gate"):
        Promotion(gates=["luck"])


def test_what_is_left_shrinks_as_evidence_comes_and_is_infinite_without_any():
    early, late = (Promotion().judge(found(won), SOUND, SOUND).left for won in (2, 15))
    assert 0 < late < early < np.inf
    assert Promotion().judge(found(1, gain=-0.01), SOUND, SOUND).left == np.inf


def test_the_former_champion_comes_back_on_the_reverse_bet():
    assert Promotion().undo(found(1, against=10.5)).action == "roll back"
    assert Promotion().undo(found(1, against=9.5)).action == "keep"
    assert Promotion().undo(found(1, against=10.5, bars=59)).action == "keep"


def test_after_its_time_in_the_shadow_the_former_champion_is_not_looked_at():
    late = found(1, bars=400, against=12)  # 10 is reached after bar 250
    assert Promotion().undo(late).action == "keep"
    assert Promotion(shadow=400).undo(late).action == "roll back"


# a stream with labels that are wrong for a while


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def learner(x_TAF, up_TA, rate, w_F):
    """Odds of a logistic model that learns every bar, one bar later: said before it learnt."""
    said = []
    for x_AF, up_A in zip(x_TAF, up_TA, strict=True):
        p_A = sigmoid(x_AF @ w_F)
        said.append(p_A)
        w_F = w_F + rate * ((up_A - p_A)[:, None] * x_AF).mean(axis=0)
    return np.array(said)


def stream(seed, turned, bars=300, assets=20):
    """Odds of a slow and of a fast learner, and the labels; `turned` (T,) says where they flip."""
    rng = np.random.default_rng(seed)
    x_TAF = rng.standard_normal((bars, assets, 2))
    w_F = np.array([0.8, -0.4])
    up_TA = (rng.random((bars, assets)) < sigmoid(x_TAF @ w_F)) ^ turned[:, None]
    times = pd.DatetimeIndex([START + DAY * t for t in range(bars)], name="time")
    index = pd.MultiIndex.from_product([[f"A{i:02d}" for i in range(assets)], times])
    index.names = ["asset", "time"]
    tables = []
    for rate in (0.0, 1.0):
        p = learner(x_TAF, up_TA, rate, w_F).T.ravel()
        odds = np.column_stack([0.9 * (1 - p), np.full(len(p), 0.1), 0.9 * p])
        tables.append(pd.DataFrame(odds, index, ODDS))
    side = np.where(up_TA.T.ravel(), 1, -1).astype("int8")
    end = index.get_level_values("time") + DAY
    return *tables, pd.DataFrame({"side": side, "end": end, "weight": 1.0}, index)


def ever_promoted(champion, challenger, y):
    """Whether the rules would have moved the pointer at any bar."""
    rules = Promotion(gates=("evidence", "bars", "loss"))
    whole = duel(champion, challenger, y, 1)
    return any(
        rules.judge(Duel(whole.path.iloc[:t], 1, t, (0.0, 0.0)), SOUND, SOUND).action == "promote"
        for t in range(1, len(whole.path) + 1)
    )


def test_a_challenger_that_learns_a_poisoned_batch_is_never_promoted():
    bars = np.arange(300)
    for seed in range(3):
        poisoned = (bars >= 100) & (bars < 120)
        assert not ever_promoted(*stream(seed, poisoned)), seed


def test_the_same_challenger_is_promoted_when_the_market_has_turned_for_good():
    bars = np.arange(300)
    for seed in range(3):
        assert ever_promoted(*stream(seed, bars >= 100)), seed
