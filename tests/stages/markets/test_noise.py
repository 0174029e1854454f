import numpy as np
import pandas as pd
import pytest

from stages.features.volatility import average_true_range
from stages.labels import TripleBarrier
from stages.markets import NOISE, mixed, noise_garch, noise_iid, permuted, shifted
from stages.panel import named


def dependence(inputs: pd.DataFrame, side: pd.Series) -> float:
    """Largest correlation, in standard errors, of inputs and their squares with side and size."""
    told = pd.concat([inputs, (inputs**2).add_suffix(" squared")], axis=1).astype("float64")
    told = told.loc[:, told.std() > 0]
    told = (told - told.mean()) / told.std()
    came = pd.DataFrame({"side": side.astype("float64"), "size": side.abs().astype("float64")})
    came = (came - came.mean()) / came.std()
    return float(np.abs(told.to_numpy().T @ came.to_numpy()).max() / np.sqrt(len(side)))


def autocorrelation(returns: pd.Series) -> float:
    by_asset = returns.groupby(level="asset")
    return float(returns.corr(by_asset.shift(1)))


@pytest.mark.parametrize("name", NOISE)
def test_the_odds_of_noise_are_a_die_with_three_sides(name):
    np.testing.assert_allclose(NOISE[name](0, times=200).posterior, 1 / 3)


@pytest.mark.parametrize("name", NOISE)
@pytest.mark.parametrize("seed", [0, 1])
def test_nothing_tells_anything_of_noise(name, seed):
    market = NOISE[name](seed, times=3000)
    inputs = market.panel.loc[market.y.index, named(market.panel, "feature", "context")]
    assert dependence(inputs, market.y["side"]) < 4.2
    assert abs(autocorrelation(market.y["side"])) < 0.02
    shares = market.y["side"].value_counts(normalize=True)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.01)


def test_the_same_search_finds_what_there_is_to_find():
    market = mixed(0, times=3000)
    inputs = market.panel.loc[market.y.index, named(market.panel, "feature", "context")]
    assert dependence(inputs, market.y["side"]) > 30


def test_volatility_clusters_where_it_should_and_direction_never_does():
    garch, iid = noise_garch(0, times=3000), noise_iid(0, times=3000)
    assert autocorrelation(garch.y["ret"].abs()) > 0.1
    assert abs(autocorrelation(iid.y["ret"].abs())) < 0.02
    assert abs(autocorrelation(garch.y["ret"])) < 0.03
    assert abs(garch.y["ret"].mean()) < 4 * garch.y["ret"].std() / np.sqrt(len(garch.y))
    assert garch.y["ret"].kurtosis() > 0.5 > abs(iid.y["ret"].kurtosis())


def test_garch_bars_are_bars():
    bars = noise_garch(1, times=500, assets=3).panel
    assert (bars["high"] >= bars[["open", "close"]].max(axis=1)).all()
    assert (bars["low"] <= bars[["open", "close"]].min(axis=1)).all()
    assert (bars[["low", "volume"]] > 0).all(axis=None)
    before = bars["close"].groupby(level="asset").shift(1)
    assert (bars["open"] != before).all()  # a gap overnight
    big = np.log(bars["close"] / before).abs()
    assert big.corr(bars["volume"]) > 0.1


def test_technical_features_and_barriers_can_be_computed_on_garch_bars():
    bars = noise_garch(2, times=1500, assets=8).panel
    y = TripleBarrier(horizon=5).fit(bars).label(bars)
    np.testing.assert_allclose(y["side"].value_counts(normalize=True), 1 / 3, atol=0.03)
    one = bars.loc["A0"]
    atr = average_true_range(*(one[c].to_numpy() for c in ("high", "low", "close")), 14, 140)
    assert np.isfinite(atr[200:]).all()


def test_the_move_of_garch_is_that_of_the_next_bar():
    market = noise_garch(3, times=200, assets=2)
    moved = market.panel["close"].groupby(level="asset").pct_change()
    moved = moved.groupby(level="asset").shift(-1).dropna()
    np.testing.assert_allclose(market.y["ret"], moved, rtol=1e-9)


def ragged():
    """A market in which one asset was listed later than the other."""
    market = mixed(0, times=400, assets=2)
    late = market.panel.drop(market.panel.loc[["A1"]].index[:150])
    return late, market.y[market.y.index.isin(late.index)]


@pytest.mark.parametrize("remake", [shifted, permuted])
def test_labels_go_more_than_a_span_away_and_stay_with_their_asset(remake):
    panel, y = ragged()
    number = pd.Series(np.arange(len(y), dtype="float64"), y.index)
    noise = remake(panel, y.assign(ret=number), seed=1, span=25)
    came_from = noise.y["ret"].astype(int)
    kept = number.loc[noise.y.index].astype(int)
    assert ((came_from - kept).abs() > 25).all()
    origin = y.index[came_from.to_numpy()]
    assert (origin.get_level_values("asset") == noise.y.index.get_level_values("asset")).all()
    assert came_from.is_unique
    assert (noise.y["side"].to_numpy() == y["side"].to_numpy()[came_from]).all()
    pd.testing.assert_frame_equal(
        noise.y[["end", "weight"]], y.loc[noise.y.index, ["end", "weight"]]
    )
    pd.testing.assert_frame_equal(noise.panel, panel)


def test_a_shift_keeps_every_label_and_what_assets_share_at_a_time():
    market = mixed(0, times=300, assets=3)
    noise = shifted(market.panel, market.y, seed=4)
    assert len(noise.y) == len(market.y)
    rows = noise.y["ret"].unstack("asset").to_numpy()
    were = market.y["ret"].unstack("asset").to_numpy()
    step = int(np.flatnonzero(were[:, 0] == rows[0, 0])[0])
    np.testing.assert_array_equal(np.roll(were, -step, axis=0), rows)


def test_blocks_of_labels_stay_whole():
    market = mixed(0, times=300, assets=3)
    noise = permuted(market.panel, market.y, seed=4, span=29)
    rows = noise.y["ret"].unstack("asset").to_numpy()
    were = market.y["ret"].unstack("asset").to_numpy()
    assert len(rows) == 270  # nine blocks of thirty; 29 labels are left over
    places = [int(np.flatnonzero(were[:, 0] == first)[0]) for first in rows[::30, 0]]
    assert sorted(places) == list(range(0, 270, 30))
    assert places != sorted(places)
    for block, place in enumerate(places):
        np.testing.assert_array_equal(rows[30 * block : 30 * block + 30], were[place : place + 30])


def test_the_odds_of_relabelled_data_are_the_shares_of_the_sides():
    market = mixed(0, times=200, assets=2)
    y = market.y.assign(side=market.y["side"].clip(lower=0).astype("int8"))  # nothing sells
    odds = shifted(market.panel, y, seed=0).posterior
    assert (odds["p_sell"] == 0).all()
    assert odds["p_buy"].unique() == pytest.approx((y["side"] == 1).mean())


@pytest.mark.parametrize("remake", [shifted, permuted])
def test_too_few_labels_to_move_are_refused(remake):
    market = mixed(0, times=60, assets=2)
    with pytest.raises(ValueError, match="span=40 and 59 labels of A0"):
        remake(market.panel, market.y, seed=0)
