"""Forgetting is a fall on remembered rows, forward transfer a start above the commonest side."""

import numpy as np
import pandas as pd
import pytest

from stages.online.transfer import by_regime, scores, transfer

SIDE = np.array([-1, 0, 1, 1])
ODDS = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])


def test_scores_of_four_rows_by_hand():
    told = scores(ODDS, SIDE)
    assert told["rows"] == 4
    assert told["accuracy"] == 0.75
    assert told["log_loss"] == pytest.approx(-np.log([0.6, 0.5, 0.7, 0.2]).mean())
    assert told["brier"] == pytest.approx((0.26 + 0.38 + 0.14 + 0.98) / 4)


def test_rows_that_nothing_was_said_of_do_not_count():
    odds = np.vstack([ODDS, [np.nan] * 3])
    assert scores(odds, np.append(SIDE, 0)) == scores(ODDS, SIDE)
    assert scores(odds[4:], SIDE[:1]) == {
        "rows": 0,
        "log_loss": None,
        "accuracy": None,
        "brier": None,
    }


def test_each_regime_has_its_own_scores():
    said = pd.DataFrame(ODDS, columns=["p_sell", "p_hold", "p_buy"])
    told = by_regime(said, SIDE, np.array([-1.0, -1.0, 1.0, np.nan]))
    assert {name: one["rows"] for name, one in told.items()} == {"-1": 2, "1": 1, "nan": 1}
    assert [told[name]["accuracy"] for name in ("-1", "1", "nan")] == [1.0, 1.0, 0.0]
    assert by_regime(said, SIDE, None) == {"all": scores(ODDS, SIDE)}


def test_backward_and_forward_transfer():
    before = {"0": {"rows": 10, "accuracy": 0.6, "log_loss": 0.9}}
    before["1"] = {"rows": 10, "accuracy": 0.5, "log_loss": 1.0}
    after = {"0": {"rows": 10, "accuracy": 0.4, "log_loss": 1.2}}
    after["1"] = {"rows": 10, "accuracy": 0.6, "log_loss": 0.9}
    moved = transfer(before, after, {"accuracy": 0.45}, 0.4)
    assert moved["backward"] == pytest.approx((-0.2 + 0.1) / 2)
    assert moved["backward_loss"] == pytest.approx((-0.3 + 0.1) / 2)
    assert moved["forward"] == pytest.approx(0.05)


def test_nothing_remembered_is_nothing_forgotten():
    none = {"rows": 0, "accuracy": None, "log_loss": None}
    assert transfer({"all": none}, {"all": none}, {"accuracy": None}, 0.4) == {
        "backward": None,
        "backward_loss": None,
        "forward": None,
    }
