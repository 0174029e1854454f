import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from stages.ensemble.novelty import CLIP, Novelty


def rows(seed: int, n: int, features: int = 6, shift: float = 0.0) -> pd.DataFrame:
    """Correlated inputs; `shift` in standard deviations of each."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(features, features))
    x = rng.normal(size=(n, features)) @ mix
    x += shift * np.sqrt((mix**2).sum(axis=0))
    times = pd.date_range("2020-01-01", periods=n, tz="UTC").as_unit("us")
    index = pd.MultiIndex.from_product([["A"], times], names=["asset", "time"])
    return pd.DataFrame(x.astype("float32"), index, [f"feature.x{k}" for k in range(features)])


def test_new_rows_of_the_same_kind_lie_at_one():
    novelty = Novelty().fit(rows(0, 4000))
    assert np.sqrt((novelty.predict(rows(1, 4000)) ** 2).mean()) == pytest.approx(1, abs=0.02)


def test_rows_far_from_the_training_are_three_times_as_far():
    novelty = Novelty().fit(rows(0, 4000))
    near, far = (np.median(novelty.predict(rows(1, 500, shift=s))) for s in (0.0, 5.0))
    assert far > 3 * near


def test_an_ordinary_value_in_an_odd_company_is_novel():
    """Each input within its range, the combination never seen."""
    novelty = Novelty().fit(rows(0, 4000))
    apart = rows(1, 500)
    for k, name in enumerate(apart):
        apart[name] = np.roll(apart[name].to_numpy(), 7 * k)
    assert np.median(novelty.predict(apart)) > 1.5 * np.median(novelty.predict(rows(1, 500)))


def test_it_agrees_with_the_mahalanobis_distance_where_there_is_no_shrinking():
    train, new = rows(0, 40_000, 3), rows(1, 20, 3)
    x, z = (t.to_numpy("float64") for t in (train, new))
    off = z - x.mean(axis=0)
    square = np.einsum("ni,ij,nj->n", off, np.linalg.inv(np.cov(x.T)), off) / 3
    np.testing.assert_allclose(Novelty().fit(train).predict(new), np.sqrt(square), rtol=0.02)


def test_a_row_gets_the_same_bits_alone_and_after_a_round_trip():
    novelty = Novelty().fit(rows(0, 300))
    whole = novelty.predict(rows(1, 40))
    np.testing.assert_array_equal(novelty.predict(rows(1, 40).iloc[[17]]), whole[[17]])
    again = Novelty().restore(novelty.state())
    np.testing.assert_array_equal(again.predict(rows(1, 40)), whole)
    assert again.state().parts == novelty.state().parts


def test_a_missing_input_is_no_news_and_a_wild_one_is_bounded():
    novelty = Novelty().fit(rows(0, 2000))
    gone = rows(1, 200) * np.nan
    np.testing.assert_array_equal(novelty.predict(gone), 0)
    wild = rows(1, 200) + np.float32(1e30)
    assert np.isfinite(novelty.predict(wild)).all()
    assert novelty.predict(wild).min() > CLIP / 10


def test_without_features_there_is_no_distance():
    bare = rows(0, 10)[[]].assign(close=1.0)
    assert np.isnan(Novelty().fit(bare).predict(bare)).all()
    with pytest.raises(NotFittedError):
        Novelty().predict(bare)
