import numpy as np
import pytest
from numpy.testing import assert_allclose

from stages.features import peers


def market(times=260, assets=12, seed=0, loud=0.02):
    """Returns that two factors drive, beside what each asset does of its own."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(0, loud, (times, 2))
    own = rng.normal(0, 0.004, (times, assets))
    return factors @ rng.normal(1, 0.5, (2, assets)) + own, own


def test_what_factors_leave_is_what_the_asset_did_itself():
    returns, own = market()
    rest = peers.idiosyncratic(returns, bars=120, factors=2)
    assert np.isnan(rest[:119]).all()
    late = slice(119, None)
    assert np.corrcoef(rest[late].ravel(), own[late].ravel())[0, 1] > 0.8
    assert np.corrcoef(returns[late].ravel(), own[late].ravel())[0, 1] < 0.3


def test_components_are_those_of_the_correlations():
    """Against a regression on scikit-learn's principal components."""
    from sklearn.decomposition import PCA

    for assets in (9, 150):  # fewer, and more, assets than days
        returns, _ = market(times=120, assets=assets)
        scaled = (returns - returns.mean(axis=0)) / returns.std(axis=0)
        model = PCA(2, svd_solver="full").fit(scaled)
        rest = scaled - model.inverse_transform(model.transform(scaled))
        made = peers.idiosyncratic(returns, bars=120, factors=2)[-1]
        assert_allclose(made, rest[-1] * returns.std(axis=0), atol=1e-12)


def test_a_missing_return_silences_its_asset_that_day_and_hardly_moves_the_others():
    returns, _ = market()
    whole = peers.idiosyncratic(returns, bars=120, factors=2)
    returns[200, 3] = np.nan
    holed = peers.idiosyncratic(returns, bars=120, factors=2)
    assert np.isnan(holed[200, 3])
    others = np.arange(12) != 3
    assert_allclose(holed[200, others], whole[200, others], atol=2e-3)
    assert np.isfinite(holed[201:]).all()


def test_an_asset_is_compared_once_it_has_a_window_of_its_own():
    returns, _ = market()
    returns[:50, 5] = np.nan
    rest = peers.idiosyncratic(returns, bars=120, factors=2)
    assert np.isnan(rest[:169, 5]).all()
    assert np.isfinite(rest[169:, 5]).all()
    returns[60:90, 5] = np.nan  # a quarter of the window is gone
    assert np.isnan(peers.idiosyncratic(returns, bars=120, factors=2)[169:180, 5]).all()


def test_few_assets_lose_few_factors_and_two_have_no_peers():
    returns, _ = market(assets=4)
    one = peers.idiosyncratic(returns, bars=60, factors=1)
    assert_allclose(peers.idiosyncratic(returns, bars=60, factors=5), one)
    assert np.isnan(peers.idiosyncratic(returns[:, :2], bars=60)).all()


def test_size_is_money_beside_the_others_whatever_its_unit():
    close, volume = np.random.default_rng(0).lognormal(size=(2, 5, 4))
    volume[2, 1], close[3, 0] = 0, np.nan
    made = peers.size(close, volume)
    assert_allclose(np.nanmean(made, axis=1), 0, atol=1e-12)
    assert np.isnan(made[2, 1])
    assert np.isnan(made[3, 0])
    assert_allclose(peers.size(100 * close, volume), made, atol=1e-12)


def test_jumps_are_summed_and_small_moves_are_not():
    rng = np.random.default_rng(0)
    moves = rng.normal(0, 0.01, 200)
    moves[150] = 0.2
    made = peers.jumps(moves, bars=20, history=60, least=3.0)
    assert made[160] == pytest.approx(0.2)
    assert made[171] == 0.0
    assert np.isnan(made[:78]).all()


def test_columns_along_one_asset_equal_pandas():
    import pandas as pd

    x, y = np.random.default_rng(0).normal(size=(2, 100))
    s = pd.Series(x)
    assert_allclose(peers.total(x, 5), s.rolling(5).sum(), atol=1e-12)
    assert_allclose(peers.average(x, 60), s.rolling(60).mean(), atol=1e-12)
    assert_allclose(peers.earlier(x, 3), s.shift(3))
    wanted = s.rolling(5).sum() / s.rolling(60).std() / np.sqrt(5)
    assert_allclose(peers.score(x, 5, 60), wanted, rtol=1e-9)
    wanted = np.log(s.rolling(60).std() / pd.Series(y).rolling(60).std())
    assert_allclose(peers.own_share(x, y, 60), wanted, rtol=1e-9)
    assert_allclose(peers.common(x, y, 2), pd.Series(y - x).rolling(2).sum(), atol=1e-12)
    assert_allclose(peers.traded(x, y, 3), pd.Series(x / y).rolling(3).sum(), rtol=1e-9)


@pytest.mark.parametrize("wrong", [{"factors": 0}, {"bars": 5, "factors": 5}])
def test_a_window_without_room_for_its_factors_is_refused(wrong):
    with pytest.raises(ValueError, match="1 <= factors < bars"):
        peers.idiosyncratic(market()[0], **wrong)
