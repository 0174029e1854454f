import numpy as np
import pandas as pd
import pytest

from stages.markets import DRIFT, drift_dead_feature, drift_recurring, drift_rotation
from stages.panel import named

TIMES = 3000
CHANGES = {  # share of the bars at which a new regime begins
    "drift_flip": [0.5],
    "drift_rotation": [0.25, 0.75],
    "drift_recurring": [1 / 3, 2 / 3],
    "drift_covariate": [0.5],
    "drift_volatility": [0.5],
    "drift_dead_feature": [0.5],
}
EACH = pytest.mark.parametrize("name", DRIFT)


def spells(market) -> list[pd.DataFrame]:
    """Rows with side and ret, by spell of one regime."""
    rows = market.panel.join(market.y[["side", "ret"]], how="inner")
    bar = rows.groupby(level="asset").cumcount()
    edges = np.flatnonzero(np.diff(market.regime.loc["A00"].to_numpy())) + 1
    return [part for _, part in rows.groupby(np.searchsorted(edges, bar, side="right"))]


def slopes(rows: pd.DataFrame) -> pd.Series:
    """What the side gains with each planted term, and how sure that is (about 0.004)."""
    x = {k: rows[f"feature.x{k}"].astype(float) for k in range(5)}
    told = pd.DataFrame(
        {
            "x0": x[0],
            "x1": x[1],
            "x2 by x3": x[2] * np.sign(x[3]),
            "x4 by x3": x[4] * np.sign(x[3]),
        }
    ).fillna(0)
    told -= told.mean()
    side = rows["side"] - rows["side"].mean()
    return pd.Series(np.linalg.lstsq(told.to_numpy(), side.to_numpy())[0], told.columns)


@EACH
def test_the_regime_changes_when_it_says(name):
    regime = DRIFT[name](0, times=TIMES).regime
    assert (regime.groupby(level="time").nunique() == 1).all()
    edges = np.flatnonzero(np.diff(regime.loc["A00"].to_numpy())) + 1
    assert list(edges) == [round(share * TIMES) for share in CHANGES[name]]


@EACH
def test_only_what_is_said_to_drift_drifts(name):
    market = DRIFT[name](1, times=TIMES)
    first, *_, last = spells(market)
    middle = spells(market)[1]
    n = min(len(first), len(middle), len(last))
    chance = 4.5 / np.sqrt(n)
    features = named(market.panel, "feature")
    alive = features[1:] if name == "drift_dead_feature" else features
    moved = {
        "inputs": (middle[alive].mean() - first[alive].mean()).abs().max() > 1.5 * chance,
        "spread": abs(middle[alive].std() / first[alive].std() - 1).max() > 1.5 * chance,
        "shares": abs((middle["side"] == 1).mean() - (first["side"] == 1).mean()) > chance,
        "volatility": abs(middle["ret"].std() / first["ret"].std() - 1) > 1.5 * chance,
        "meaning": (slopes(last) - slopes(first)).abs().max() > 1.5 * chance
        or (slopes(middle) - slopes(first)).abs().max() > 1.5 * chance,
    }
    drifts = {
        "drift_covariate": {"inputs", "shares"},
        "drift_volatility": {"volatility"},
    }.get(name, {"meaning"})
    if name == "drift_covariate":  # meaning is linear in the tilt, not in the side: see the odds
        moved.pop("meaning"), moved.pop("volatility")
    assert {what for what, yes in moved.items() if yes} == drifts


def test_a_flip_turns_every_slope_and_a_return_turns_them_back():
    first, middle, last = (slopes(part) for part in spells(drift_recurring(2, times=TIMES)))
    assert (first.abs()[:3] > 0.15).all()
    np.testing.assert_allclose(middle, -first, atol=0.03)
    np.testing.assert_allclose(last, first, atol=0.03)
    first, middle = (slopes(part) for part in spells(DRIFT["drift_flip"](2, times=TIMES)))
    np.testing.assert_allclose(middle, -first, atol=0.03)


def test_a_rotation_hands_over_from_two_old_causes_to_new_ones():
    first, middle, last = (slopes(part) for part in spells(drift_rotation(2, times=TIMES)))
    assert first["x2 by x3"] > 0.2 > 0.03 > abs(first["x4 by x3"])
    assert last["x4 by x3"] > 0.2 > 0.03 > abs(last["x2 by x3"])
    assert first["x1"] < -0.15 < 0.15 < last["x1"]
    assert middle["x2 by x3"] == pytest.approx(middle["x4 by x3"], abs=0.03)


def test_volatility_becomes_threefold():
    first, last = spells(DRIFT["drift_volatility"](3, times=TIMES))
    assert last["ret"].std() / first["ret"].std() == pytest.approx(3, rel=0.03)


def test_the_sides_are_thirds_until_the_inputs_move_and_the_odds_of_a_row_never_change():
    market = DRIFT["drift_covariate"](4, times=TIMES)
    first, last = spells(market)
    np.testing.assert_allclose(first["side"].value_counts(normalize=True), 1 / 3, atol=0.01)
    np.testing.assert_allclose(
        last[named(last, "feature")].mean() - first[named(first, "feature")].mean(), 1, atol=0.03
    )
    tilt = market.contributions.sum(axis=1)
    pairs = pd.DataFrame({"tilt": tilt, "p": market.posterior["p_buy"]}).sort_values("tilt")
    assert pairs["p"].diff().min() >= 0  # one curve for both regimes


@pytest.mark.parametrize("dead", ["missing", "constant"])
def test_a_dead_feature_shows_nothing_and_still_moves_the_price(dead):
    market = drift_dead_feature(5, times=TIMES, dead=dead)
    first, last = spells(market)
    assert first["feature.x0"].notna().all()
    assert last["feature.x0"].isna().all() if dead == "missing" else not last["feature.x0"].any()
    assert (market.contributions.loc[last.index, "feature.x0"] == 0).all()
    # the market is the one whose feed lives: the same moves, less of them told
    alive = drift_dead_feature(5, times=TIMES, at=0.999, dead=dead)
    pd.testing.assert_frame_equal(market.y, alive.y)
    sure = market.posterior.max(axis=1), alive.posterior.max(axis=1)
    assert sure[0].loc[last.index].mean() < sure[1].loc[last.index].mean() - 0.03


@pytest.mark.parametrize("plant", [drift_recurring, drift_rotation])
def test_changes_out_of_order_are_refused(plant):
    with pytest.raises(ValueError, match="need the first change before the second"):
        plant(0, at=0.9)


def test_impossible_drifts_are_refused():
    with pytest.raises(ValueError, match="at=1.0"):
        DRIFT["drift_flip"](0, at=1.0)
    with pytest.raises(ValueError, match="shift=-1"):
        DRIFT["drift_covariate"](0, shift=-1)
    with pytest.raises(ValueError, match="dead=ill"):
        drift_dead_feature(0, dead="ill")
