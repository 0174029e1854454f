import numpy as np
import pandas as pd
import pytest

from stages.markets import gated, mixed, noise_iid, sequence, tabular
from stages.panel import check_labels, check_panel, named, until

PLANTED = [tabular, sequence, gated, mixed]
MARKETS = [*PLANTED, noise_iid]


def agreement(market) -> float:
    """Share of the labels that the true odds call."""
    odds = market.posterior.loc[market.y.index].to_numpy()
    return float((odds.argmax(axis=1) - 1 == market.y["side"]).mean())


@pytest.mark.parametrize("plant", MARKETS)
def test_a_market_keeps_the_contracts_of_panel_and_labels(plant):
    market = plant(0, times=60, assets=11)
    check_panel(market.panel, ["close", "feature.x7", "context.regime"])
    check_labels(market.y)
    assert set(market.panel[named(market.panel, "feature", "context")].dtypes) == {
        np.dtype("float32")
    }
    assert market.panel["close"].dtype == "float64"
    assert market.panel.index.is_monotonic_increasing
    assert market.posterior.index.equals(market.panel.index)
    np.testing.assert_allclose(market.posterior.sum(axis=1), 1)


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
    assert sides.max()[-1] < sides.min()[0] < 0 < sides.max()[0] < sides.min()[1]


@pytest.mark.parametrize("plant", MARKETS)
def test_one_seed_makes_one_market(plant):
    one, again, other = (plant(seed, times=40, assets=2) for seed in (5, 5, 6))
    pd.testing.assert_frame_equal(one.panel, again.panel)
    pd.testing.assert_frame_equal(one.y, again.y)
    pd.testing.assert_frame_equal(one.posterior, again.posterior)
    assert not one.panel["close"].equals(other.panel["close"])


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
def test_the_true_odds_are_calibrated_and_the_sides_balanced(plant, snr):
    market = plant(1, times=2000, snr=snr)
    odds = market.posterior.loc[market.y.index]
    for side, name in ((-1, "p_sell"), (0, "p_hold"), (1, "p_buy")):
        hit = (market.y["side"] == side).astype(float)
        assert hit.mean() == pytest.approx(1 / 3, abs=0.02)
        bins = pd.qcut(odds[name], 10)
        gap = (hit - odds[name]).groupby(bins, observed=True).mean()
        assert gap.abs().max() < 4 * np.sqrt(0.25 / (len(hit) / 10))


@pytest.mark.parametrize("plant", PLANTED)
def test_the_odds_of_a_row_use_nothing_that_comes_later(plant):
    market = plant(2, times=600, assets=4)
    time = market.panel.index.unique("time")[300]
    shown = until(market.panel, time)
    # recomputed from the shown columns alone: odds are equal where all that the signal reads is
    x = {k: shown[f"feature.x{k}"].astype(float) for k in range(5)}
    now = np.sqrt(0.35) * x[0] - np.sqrt(0.25) * x[1] + np.sqrt(0.4) * x[2] * np.sign(x[3])
    lagged = x[4].groupby(level="asset")
    was = (lagged.shift(5) * lagged.shift(1)).fillna(0)
    signal = {
        tabular: now,
        sequence: was,
        gated: now * shown["context.regime"],
        mixed: (np.sqrt(0.6) * now + np.sqrt(0.4) * was) * shown["context.regime"],
    }[plant]
    odds = until(market.posterior, time)
    ordered = odds.assign(g=signal).sort_values("g")
    assert (ordered["p_buy"].diff().dropna() >= -1e-12).all()
    assert (ordered["p_sell"].diff().dropna() <= 1e-12).all()


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
