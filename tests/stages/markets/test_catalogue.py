"""What holds for every market, whatever it plants."""

from itertools import combinations
from math import factorial

import numpy as np
import pandas as pd
import pytest

from stages.markets import DRIFT, MARKETS, NOISE, PLANTED, mixed
from stages.panel import check_labels, check_panel, named, until
from stages.signal import ODDS
from tests.stages.markets.truth import PLAYERS, scores, worth

EACH = pytest.mark.parametrize("name", MARKETS)


def test_the_catalogue_holds_every_market_by_its_name():
    assert len(PLANTED) + len(NOISE) + len(DRIFT) == len(MARKETS) == 16
    assert all(plant.__name__ == name for name, plant in MARKETS.items())


@EACH
def test_a_market_keeps_the_contracts_of_panel_and_labels(name):
    market = MARKETS[name](0, times=120, assets=11)
    check_panel(market.panel, ["close", "feature.x7", "context.regime"])
    check_labels(market.y)
    assert set(market.panel[named(market.panel, "feature", "context")].dtypes) == {
        np.dtype("float32")
    }
    assert market.panel["close"].dtype == "float64"
    assert market.panel.index.is_monotonic_increasing
    for table in (market.posterior, market.regime, market.contributions):
        assert table.index.equals(market.panel.index)
    assert list(market.posterior) == ODDS
    np.testing.assert_allclose(market.posterior.sum(axis=1), 1)
    assert (market.posterior > 0).all(axis=None)
    assert market.regime.dtype == "int8"
    assert list(market.contributions) == named(market.panel, "feature", "context")


@EACH
def test_one_seed_makes_one_market(name):
    one, again, other = (MARKETS[name](seed, times=120, assets=2) for seed in (5, 5, 6))
    for table in ("panel", "y", "posterior", "contributions"):
        pd.testing.assert_frame_equal(getattr(one, table), getattr(again, table))
    pd.testing.assert_series_equal(one.regime, again.regime)
    assert not one.panel["close"].equals(other.panel["close"])


@EACH
@pytest.mark.parametrize("setting", [{"times": 1}, {"assets": 0}, {"features": 4}])
def test_an_impossible_market_is_refused(name, setting):
    (key, value), *_ = setting.items()
    with pytest.raises(ValueError, match=f"{key}={value}"):
        MARKETS[name](0, **setting)


@EACH
def test_the_odds_are_what_comes_of_the_rows_in_every_regime(name):
    market = MARKETS[name](3, times=2500)
    for regime, rows in market.y.groupby(market.regime.loc[market.y.index]):
        assert len(rows) > 5000, regime
        assert np.abs(scores(market.posterior.loc[rows.index], rows["side"])).max() < 4.5
    if name not in NOISE:  # the same test refuses odds that are wrong by a little
        power = market.posterior.loc[market.y.index] ** 1.15
        wrong = power.div(power.sum(axis=1), axis=0)
        assert np.abs(scores(wrong, market.y["side"])).max() > 4.5


@EACH
def test_the_odds_lean_as_the_tilt_does(name):
    market = MARKETS[name](1, times=400, assets=5)
    tilt = market.contributions.sum(axis=1)
    lean = market.posterior["p_buy"] - market.posterior["p_sell"]
    leads = tilt.index.get_level_values("asset") == "A0"
    for _, rows in tilt.groupby([leads, market.regime]):
        assert lean.loc[rows.sort_values().index].diff().min() >= -1e-12
    np.testing.assert_array_equal(np.sign(tilt.round(9)), np.sign(lean.round(9)))


@EACH
def test_contributions_are_the_shapley_values_of_a_full_enumeration(name):
    settings = {"snr": 0.7} if name in PLANTED else {}
    market = MARKETS[name](2, times=96, assets=2, **settings)
    known, tilt = worth(name, market.panel, settings.get("snr", 1.0), 96)
    n = len(PLAYERS)
    coalitions = [frozenset(c) for size in range(n + 1) for c in combinations(PLAYERS, size)]
    value = {some: known(some) for some in coalitions}
    np.testing.assert_allclose(value[frozenset()], 0, atol=1e-12)  # the mean tilt
    np.testing.assert_allclose(value[frozenset(PLAYERS)], tilt, atol=1e-12)
    due = dict.fromkeys(PLAYERS, 0.0)
    for some in coalitions[:-1]:
        share = factorial(len(some)) * factorial(n - len(some) - 1) / factorial(n)
        for player in set(PLAYERS) - some:
            due[player] = due[player] + share * (value[some | {player}] - value[some])
    np.testing.assert_allclose(market.contributions[PLAYERS], pd.DataFrame(due), atol=1e-12)
    assert not market.contributions.drop(columns=PLAYERS).any(axis=None)


@EACH
def test_the_tilt_of_a_row_follows_from_what_was_shown_by_then(name):
    market = MARKETS[name](4, times=300, assets=4)
    shown = until(market.panel, market.panel.index.unique("time")[170])
    _, tilt = worth(name, shown, 1.0, 300)
    said = market.contributions.loc[shown.index].sum(axis=1)
    np.testing.assert_allclose(said, tilt, atol=1e-12)


def test_the_seed_still_makes_the_market_that_stored_models_were_trained_on():
    market = mixed(7, times=12, assets=2)
    close = market.panel["close"].to_numpy()[[1, 11, 13, 23]]
    np.testing.assert_allclose(close, [99.76979004, 93.64718988, 99.08613242, 97.78722184])
    calls = "0 0 0 0 -1 -1 -1 0 0 1 -1 -1 -1 0 -1 -1 0 1 -1 1 0 0"
    assert market.y["side"].tolist() == [int(side) for side in calls.split()]
