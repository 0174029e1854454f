import numpy as np
import pandas as pd
import pytest

from stages.evaluate.book import book_returns, score_weights
from stages.markets import mixed, noise_iid


def panel(values: dict[str, list[float]], start: str = "2020-01-01") -> pd.Series:
    """One column of a panel, bars of all assets from the same day on."""
    rows = {
        (asset, time): value
        for asset, column in values.items()
        for time, value in zip(
            pd.date_range(start, periods=len(column), tz="UTC"), column, strict=True
        )
    }
    out = pd.Series(rows, dtype="float64")
    return out.set_axis(out.index.set_names(["asset", "time"]))


def test_weights_are_half_long_half_short_and_follow_the_score():
    weight = score_weights(panel({"A": [0.4, 1.0], "B": [0.1, 1.0], "C": [-0.2, 1.0]}))
    assert weight.tolist() == pytest.approx([0.5, 0, 0, 0, -0.5, 0])
    by_bar = score_weights(
        panel(
            {
                a: list(v)
                for a, v in zip("ABCDE", np.random.default_rng(0).normal(size=(5, 9)), strict=True)
            }
        )
    ).groupby("time")
    np.testing.assert_allclose(by_bar.sum(), 0, atol=1e-12)
    np.testing.assert_allclose(by_bar.apply(lambda w: w.abs().sum()), 1)


def test_too_few_assets_for_a_cross_section_follow_their_own_scores():
    weight = score_weights(panel({"A": [0.3, -0.2], "B": [0.1, np.nan]}))
    assert weight.tolist() == pytest.approx([0.75, -1, 0.25, 0])


def test_one_position_earns_from_its_entry_to_its_exit_and_pays_to_get_in_and_out():
    close = panel({"A": [100, 110, 121, 121, 133.1, 150]})
    score = close[:1] * 0 + 1.0  # one opinion, at the first bar
    book = book_returns(score, close, horizon=2, delay=1, cost=pd.Series({"A": 0.02}))
    # in at the second close, half of the capital; out at the fourth
    assert book["gain"].tolist() == pytest.approx([0.05, 0, 0])
    assert book["exposure"].tolist() == pytest.approx([0.5, 0.5, 0])
    assert book["cost"].tolist() == pytest.approx([0.005, 0, 0.005])
    np.testing.assert_allclose(book["net"], book["gain"] - book["cost"])
    assert book.index[0] == close.index[2][1]


def test_a_book_is_what_its_vintages_earn_one_by_one():
    market = mixed(0, times=120, assets=5)
    close, score = market.panel["close"], market.posterior["p_buy"] - market.posterior["p_sell"]
    book = book_returns(score, close, horizon=3, delay=2)
    weight = score_weights(score).unstack("asset").fillna(0)
    step = close.unstack("asset").pct_change()
    held = sum(weight.shift(2 + k).fillna(0) for k in (1, 2, 3)) / 3
    expected = (held * step).sum(axis=1).loc[book.index]
    np.testing.assert_allclose(book["gain"], expected, atol=1e-12)


def test_assets_that_end_or_pause_keep_to_their_own_bars():
    close = panel({"A": [100, 101, 102, 103], "B": [50, 55], "C": [10, 10, 10, 10]})
    close = close.drop(close.index[1])  # A lacks the second day
    score = close * 0 + 1.0
    book = book_returns(score * [1, 1, 1, 2, 2, 0, 0, 0, 0], close, horizon=1)
    first = score_weights(score * [1, 1, 1, 2, 2, 0, 0, 0, 0])
    # day 2: B and C; day 3: A's jump over the gap, on the weight of day 1
    assert book["gain"].iloc[0] == pytest.approx(first["B"].iloc[0] * 0.1)
    assert book["gain"].iloc[1] == pytest.approx(first["A"].iloc[0] * 0.02)


def test_the_true_odds_earn_and_noise_does_not():
    rich, poor = mixed(0, times=600, assets=10), noise_iid(0, times=600, assets=10)
    for market, least, most in ((rich, 0.3, 9), (poor, -0.15, 0.15)):
        rng = np.random.default_rng(1)
        score = market.posterior["p_buy"] - market.posterior["p_sell"]
        score = score + 1e-3 * rng.normal(size=len(score))
        net = book_returns(score, market.panel["close"], horizon=1)["net"]
        assert least < net.mean() / net.std() < most


def test_the_future_of_a_score_does_not_change_what_was_earned_before():
    market = mixed(0, times=80, assets=4)
    score = market.posterior["p_buy"] - market.posterior["p_sell"]
    cut = market.panel.index.unique("time")[50]
    late = score.index.get_level_values("time") > cut
    one, two = (
        book_returns(s, market.panel["close"], 2, 1)["net"]
        for s in (score, score.where(~late, -score))
    )
    pd.testing.assert_series_equal(one[:cut], two[:cut])
    assert not one[cut:].equals(two[cut:])


def test_equal_scores_hold_nothing():
    market = mixed(0, times=30, assets=4)
    book = book_returns(market.panel["close"] * 0 + 0.25, market.panel["close"], 1)
    assert book.empty
    assert list(book) == ["gain", "cost", "net", "exposure"]
