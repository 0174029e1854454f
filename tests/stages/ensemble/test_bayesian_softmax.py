import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import check_estimator

from stages.ensemble.bayesian_softmax import BayesianSoftmax


def sample(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2))
    eta = np.column_stack([X @ [0.8, 0.3], np.zeros(n), X @ [-0.5, 0.6] + 0.3])
    return X, (eta + rng.gumbel(size=(n, 3))).argmax(axis=1) - 1


def test_it_is_a_scikit_learn_classifier():
    checks = check_estimator(BayesianSoftmax(), on_fail=None, on_skip=None)
    assert [c["check_name"] for c in checks if c["status"] in ("failed", "xfail")] == []


def test_it_finds_the_planted_coefficients_within_its_own_error_bars():
    model = BayesianSoftmax(reference=0).fit(*sample(4000))
    truth = np.array([[0.8, 0.3, 0], [-0.5, 0.6, 0.3]])
    sd = np.sqrt(np.diag(model.covariance_)).reshape(2, 3)
    assert (np.abs(model.mean_ - truth) < 3 * sd).all()
    assert sd.max() < 0.06


def test_any_number_of_classes_and_any_labels_will_do():
    X, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    model = BayesianSoftmax(reference="virginica").fit(X, names)
    assert model.score(X, names) > 0.95
    assert model.predict_proba(X).shape == (150, 3)
    five = BayesianSoftmax().fit(X, np.arange(150) % 6)
    np.testing.assert_allclose(five.predict_proba(X).sum(axis=1), 1)


def test_the_odds_hardly_depend_on_the_reference():
    X, y = sample(2000)
    first, second = (BayesianSoftmax(reference=r, tau=1.0).fit(X, y) for r in (-1, 1))
    np.testing.assert_allclose(first.predict_proba(X), second.predict_proba(X), atol=0.01)


def test_a_row_gets_the_same_bits_alone():
    X, y = sample(300)
    model = BayesianSoftmax().fit(X, y)
    alone = np.concatenate([model.predict_proba(row[None]) for row in X])
    np.testing.assert_array_equal(alone, model.predict_proba(X))


def test_on_noise_the_evidence_shrinks_the_weights():
    rng = np.random.default_rng(0)
    model = BayesianSoftmax().fit(rng.normal(size=(2000, 10)), rng.integers(0, 3, 2000))
    assert model.tau_ <= 1e-2
    assert np.abs(model.predict_proba(rng.normal(size=(500, 10))) - 1 / 3).mean() < 0.02


def test_a_given_prior_mean_counts_as_the_evidence_has_it():
    X, y = sample(40)
    good = [[0.8, 0.3, 0.0], [-0.5, 0.6, 0.3]]
    told = BayesianSoftmax(reference=0, prior_mean=[np.zeros((2, 3)), good]).fit(X, y)
    untold = BayesianSoftmax(reference=0).fit(X, y)
    lie = [[-9.0, 9.0, 0.0], [9.0, -9.0, 0.0]]
    lied = BayesianSoftmax(reference=0, prior_mean=[np.zeros((2, 3)), lie]).fit(X, y)
    assert told.log_evidence_ > untold.log_evidence_
    np.testing.assert_allclose(told.mean_[:, :2], np.array(good)[:, :2], atol=0.25)
    np.testing.assert_allclose(lied.mean_, untold.mean_, atol=1e-6)  # evidence all but drops a lie


def test_more_rows_cure_epistemic_doubt_and_leave_the_rest():
    new, _ = sample(100, seed=9)
    doubt = {n: BayesianSoftmax(tau=1.0).fit(*sample(n)).uncertainty(new) for n in (250, 1000)}
    shrink = doubt[250][0].mean() / doubt[1000][0].mean()
    assert 3 < shrink < 5.5  # like 1 / n
    assert doubt[1000][1].mean() == pytest.approx(doubt[250][1].mean(), rel=0.1)


def test_epistemic_doubt_rises_away_from_what_was_seen():
    model = BayesianSoftmax().fit(*sample(500))
    near, far = (model.uncertainty(np.full((1, 2), at))[0][0] for at in (0.5, 4.0))
    assert far > 5 * near


def test_it_can_learn_online_from_nothing():
    X, y = sample(2000)
    online = BayesianSoftmax(reference=0).partial_fit(X, y, classes=[-1, 0, 1])
    batch = BayesianSoftmax(reference=0, tau=1.0).fit(X, y)
    sd = np.sqrt(np.diag(batch.covariance_)).reshape(2, 3)
    assert (np.abs(online.mean_ - batch.mean_) < 0.2 * sd).all()
    assert np.isnan(online.log_evidence_)


def test_the_cut_of_the_stream_changes_no_bit():
    X, y = sample(200)
    once, twice = (BayesianSoftmax(tau=1.0).fit(X[:50], y[:50]) for _ in range(2))
    once.partial_fit(X[50:], y[50:])
    twice.partial_fit(X[50:101], y[50:101]).partial_fit(X[101:], y[101:])
    np.testing.assert_array_equal(once.mean_, twice.mean_)
    np.testing.assert_array_equal(once.covariance_, twice.covariance_)


def test_forgetting_follows_a_market_that_turned():
    X, y = sample(3000)
    scores = {}
    for rate in (1.0, 0.99):
        model = BayesianSoftmax(reference=0, forget=rate).fit(X[:2000], y[:2000])
        for i in range(2000, 3000, 5):
            model.partial_fit(X[i : i + 5], -y[i : i + 5])
        scores[rate] = model.score(X, -y)
    assert scores[0.99] > scores[1.0] + 0.05


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"tau": 0.0}, "tau must be above 0"),
        ({"forget": 0.0}, r"\(0, 1\], got 0.0"),
        ({"reference": 7}, "7 is not one of the classes"),
        ({"prior_mean": [[1.0]]}, r"shape \(1, 1\), not \(2, 3\)"),
    ],
)
def test_a_setting_out_of_range_is_refused_when_fitted(setting, message):
    with pytest.raises(ValueError, match=message):
        clone(BayesianSoftmax(**setting)).fit(*sample(30))


def test_one_class_or_a_new_class_is_refused():
    X, y = sample(30)
    with pytest.raises(ValueError, match="one class"):
        BayesianSoftmax().fit(X, np.zeros(30))
    with pytest.raises(ValueError, match=r"\[5\], which are none of"):
        BayesianSoftmax().fit(X, y).partial_fit(X[:1], [5])


def test_an_unfitted_model_says_so():
    with pytest.raises(NotFittedError):
        BayesianSoftmax().posterior([[0.0, 1.0]])
