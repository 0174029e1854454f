"""Directions and edges of the rules; the contract of every yaml is in tests/stages/features."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from stages.rules.flow import money_flow_reversal, volume_trend
from stages.rules.reversion import bollinger_reversion, rsi_reversal
from stages.rules.trend import breakout, macd_cross, momentum_sign, moving_average_cross

RISING = 100 * 1.01 ** np.arange(400.0)
FLAT = np.full(400, 41.3)


@pytest.mark.parametrize(("step", "score"), [(0.1, 1), (0, 0), (-0.1, -1)])
def test_the_average_cross_is_the_direction(step, score):
    close = 100.1 + step * np.arange(80)
    assert (moving_average_cross(close)[49:] == score).all()


@pytest.mark.parametrize(("close", "score"), [(RISING, 1), (FLAT, 0), (RISING[::-1], -1)])
def test_trend_rules_follow(close, score):
    assert (breakout(close)[20:] == score).all()
    assert (momentum_sign(close)[120:] == score).all()


def test_a_close_inside_the_channel_is_no_breakout():
    close = np.array([1.0, 3, 2, 2, 4, 1, 2, np.nan, 2])
    expected = [np.nan, np.nan, np.nan, 0, 1, -1, 0, np.nan, np.nan]
    assert_allclose(breakout(close, 3), expected)


def test_a_turn_upwards_lifts_the_macd_above_its_signal():
    close = np.concatenate([RISING[::-1][:300], RISING[100:200]])
    score = macd_cross(close)
    assert (score[303:320] > 0.5).all()
    assert np.isnan(macd_cross(FLAT)).all()


@pytest.mark.parametrize(("close", "score"), [(RISING, -1), (RISING[::-1], 1)])
def test_reversion_rules_lean_against(close, score):
    assert (rsi_reversal(close)[140:] == score).all()
    assert (bollinger_reversion(close)[19:] * score > 0.4).all()
    traded = np.full(400, 1e6)
    assert (money_flow_reversal(close, close, close, traded)[14:] == score).all()


def test_the_rsi_rule_is_full_at_its_bands_and_silent_in_the_middle():
    # moves alternate with up : down = 3 : 7, so the RSI swings about 30
    moves = np.tile([0.3, -0.7], 200)
    score = rsi_reversal(500 + moves.cumsum())[300:]
    assert score.max() == 1
    assert score.min() > 0.8
    even = rsi_reversal(500 + np.tile([0.5, -0.5], 200).cumsum())[300:]
    assert np.abs(even).max() < 0.2


def test_volume_takes_the_side_of_its_bars():
    close = 100 + np.tile([1.0, -1], 50).cumsum()
    traded = np.tile([300.0, 100], 50)
    assert_allclose(volume_trend(close, traded)[20:], 0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: moving_average_cross(x, fast=50, slow=20), "fast=50, slow=20"),
        (lambda x: macd_cross(x, fast=26, slow=12), "fast=26, slow=12"),
        (lambda x: rsi_reversal(x, low=60), "low=60"),
        (lambda x: money_flow_reversal(x, x, x, x, overbought=40), "20, 40"),
    ],
)
def test_settings_out_of_order_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.ones(80))
