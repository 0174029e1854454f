import numpy as np
import pytest

from stages.markets import (
    gated,
    heavy_tailed,
    leader_lag,
    mixed,
    noise_iid,
    sequence,
    tabular,
)
from stages.panel import named

PLANTED = [tabular, sequence, gated, mixed, heavy_tailed, leader_lag]
MARKETS = [*PLANTED, noise_iid]


def agreement(market) -> float:
    """Share of the labels that the true odds call."""
    odds = market.posterior.loc[market.y.index].to_numpy()
    return float((odds.argmax(axis=1) - 1 == market.y["side"]).mean())


@pytest.mark.parametrize("plant", MARKETS)
def test_the_last_row_of_an_asset_has_no_label_and_each_other_row_ends_at_the_next(plant):
    market = plant(0, times=30, assets=2)
    time = market.panel.index.unique("time")
    for name in ("A0", "A1"):
        y = market.y.loc[name]
        assert list(y.index) == list(time[:-1])
        assert list(y["end"]) == list(time[1:])


@pytest.mark.parametrize("plant", MARKETS)
def test_the_price_moves_by_what_the_labels_say(plant):
    market = plant(3, times=50, assets=3)
    move = market.panel["close"].groupby(level="asset").pct_change().groupby(level="asset")
    np.testing.assert_allclose(market.y["ret"], move.shift(-1).dropna(), rtol=1e-9)
    sides = market.y.groupby("side")["ret"]
    if plant in (heavy_tailed, leader_lag):  # cut by its own volatility, and by asset
        assert sides.max()[-1] < 0 < sides.min()[1]
        return
    assert sides.max()[-1] < sides.min()[0] < 0 < sides.max()[0] < sides.min()[1]


@pytest.mark.parametrize(
    ("snr", "bayes"), [(0.1, 0.357), (0.25, 0.390), (0.5, 0.445), (1, 0.544), (2, 0.690)]
)
def test_bayes_accuracy_follows_the_table_of_the_design(snr, bayes):
    market = tabular(0, times=2000, snr=snr)
    rows = len(market.y)
    ceiling = market.posterior.max(axis=1).mean()
    assert ceiling == pytest.approx(bayes, abs=0.005)
    assert agreement(market) == pytest.approx(ceiling, abs=4 * np.sqrt(0.25 / rows))


@pytest.mark.parametrize("plant", PLANTED)
@pytest.mark.parametrize("snr", [0.5, 2])
def test_the_sides_are_balanced(plant, snr):
    shares = plant(1, times=2000, snr=snr).y["side"].value_counts(normalize=True)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.02)


def test_the_regime_turns_a_fifth_of_the_bars_for_all_assets_and_no_feature_shows_it():
    market = gated(0, times=8000, assets=3)
    regime = market.panel["context.regime"]
    assert set(regime) == {-1.0, 1.0}
    assert (regime.groupby(level="time").nunique() == 1).all()
    assert (regime < 0).mean() == pytest.approx(0.2, abs=0.05)
    assert (regime.loc["A0"].diff() != 0).mean() < 0.05  # spells, not a coin a bar
    features = market.panel[named(market.panel, "feature")]
    assert features.corrwith(regime).abs().max() < 0.04


def test_the_last_bar_says_nothing_of_a_sequence_and_its_first_bars_say_nothing_at_all():
    market = sequence(0, times=4000, assets=5)
    up = market.posterior["p_buy"] - market.posterior["p_sell"]
    last_bar = market.panel[named(market.panel, "feature")]
    assert last_bar.corrwith(up).abs().max() < 0.03
    assert (last_bar**2).corrwith(up).abs().max() < 0.03
    assert (up.groupby(level="asset").head(5) == 0).all()
    assert up.abs().mean() > 0.2


def test_noise_has_the_odds_of_a_die_with_three_sides():
    market = noise_iid(0, times=3000)
    np.testing.assert_allclose(market.posterior, 1 / 3)
    features = market.panel.loc[market.y.index, named(market.panel, "feature")]
    assert features.corrwith(market.y["side"].astype(float)).abs().max() < 4 / np.sqrt(60_000)


def test_dummy_features_may_be_added():
    market = mixed(0, times=20, assets=1, features=12)
    assert named(market.panel, "feature") == [f"feature.x{k}" for k in range(12)]


@pytest.mark.parametrize(
    "settings",
    [{"times": 1}, {"assets": 0}, {"features": 4}, {"snr": -1.0}, {"flipped": 1.0}],
)
def test_an_impossible_market_is_refused(settings):
    name, value = next(iter(settings.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        mixed(0, **settings)


def test_tails_are_heavy_volatility_clusters_and_features_are_missing():
    market = heavy_tailed(0, times=3000, missing=0.1)
    ret = market.y["ret"]
    size = ret.abs()
    assert ret.kurtosis() > 3
    assert size.corr(size.groupby(level="asset").shift(1)) > 0.1
    features = market.panel[named(market.panel, "feature")]
    assert features.isna().to_numpy().mean() == pytest.approx(0.1, abs=0.005)
    assert market.panel["close"].notna().all()
    told = market.contributions["feature.x0"].abs().groupby(features["feature.x0"].isna()).mean()
    assert told[True] == 0 < told[False]
    assert not heavy_tailed(0, times=50, missing=0).panel.isna().any(axis=None)


def test_followers_do_what_the_leader_did_a_bar_before():
    market = leader_lag(0, times=3000, assets=5)
    ret = market.y["ret"].unstack("asset")
    led = ret["A0"].shift(1)
    assert (ret.drop(columns="A0").corrwith(led) > 0.5).all()
    assert abs(ret["A0"].corr(led)) < 0.06
    assert ret.corrwith(ret["A0"]).drop("A0").abs().max() < 0.06  # nothing within the bar
    np.testing.assert_allclose(market.posterior.loc["A0"], 1 / 3)
    assert (market.panel["market"].unstack("asset").nunique(axis=1) == 1).all()
    np.testing.assert_array_equal(market.panel.loc["A3", "market"], market.panel.loc["A0", "close"])


def test_the_leaders_move_is_shown_to_all_and_is_that_of_its_close():
    market = leader_lag(1, times=200, assets=3)
    shown = market.panel["feature.x0"].unstack("asset")
    assert (shown.nunique(axis=1) == 1).all()
    moved = np.log(market.panel.loc["A0", "close"]).diff() / 0.01
    np.testing.assert_allclose(shown["A1"].iloc[1:], moved.iloc[1:], atol=1e-5)
