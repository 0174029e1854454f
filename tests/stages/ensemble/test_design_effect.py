"""How much a label is worth beside its neighbours, and how much a prior beside the others."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from stages.base import State
from stages.ensemble import stacker
from stages.ensemble.bayesian_softmax import TAUS, BayesianSoftmax
from stages.ensemble.posterior import laplace
from stages.ensemble.stacker import BLOCK, BayesianStacker

START = pd.Timestamp("2020-01-01 21:00", tz="UTC")


def table(side_TA: np.ndarray, weight: float | np.ndarray = 1.0) -> pd.DataFrame:
    """Labels of A assets over T bars, asset-major."""
    times, assets = side_TA.shape
    bars = pd.date_range(START, periods=times, freq="D", unit="us")
    names = [f"A{a:02d}" for a in range(assets)]
    index = pd.MultiIndex.from_product([names, bars], names=["asset", "time"])
    side = side_TA.T.ravel().astype("int8")
    end = index.get_level_values("time") + pd.Timedelta(days=1)
    return pd.DataFrame({"side": side, "end": end, "weight": weight}, index)


def drawn(seed: int, times: int, assets: int, shared: float = 0.0) -> np.ndarray:
    """Sides in thirds of Gaussian moves whose correlation between assets is `shared`."""
    rng = np.random.default_rng(seed)
    common = np.sqrt(shared) * rng.normal(size=(times, 1))
    moves = common + np.sqrt(1 - shared) * rng.normal(size=(times, assets))
    return np.digitize(moves, [-0.43, 0.43]) - 1


def design_effect(y: pd.DataFrame, **settings) -> float:
    """Of the buys among all labels."""
    return stacker.design_effect(y, (y["side"] == 1).to_numpy(), **settings)


# the design effect


def test_independent_labels_count_in_full():
    effects = [design_effect(table(drawn(seed, 2000, 10))) for seed in range(5)]
    assert max(effects) < 1.4


def test_assets_that_move_as_one_count_as_one():
    for seed in range(3):
        lone = drawn(seed, 2000, 1)
        raw = design_effect(table(lone))
        assert design_effect(table(np.repeat(lone, 12, axis=1))) == pytest.approx(12, rel=0.35)
        assert raw < 1.35


@pytest.mark.parametrize("shared", [0.1, 0.3, 0.6])
def test_between_the_two_it_is_kishs_formula(shared):
    """1 + (A - 1) rho, with rho the correlation of what is counted: hits, not moves."""
    sides = drawn(1, 4000, 8, shared)
    rho = np.corrcoef((sides == 1).T)[np.triu_indices(8, 1)].mean()
    assert design_effect(table(sides)) == pytest.approx(1 + 7 * rho, rel=0.25)


def test_labels_that_overlap_count_for_their_weights_only():
    """A side held over h bars is h labels of weight 1 / h: together one, as their weights say."""
    held = np.repeat(drawn(2, 600, 4), 5, axis=0)
    assert design_effect(table(held, weight=1 / 5)) < 1.4
    assert design_effect(table(held)) == pytest.approx(5, rel=0.35)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    times=st.integers(3, 60),
    assets=st.integers(1, 4),
    shared=st.floats(0, 1),
)
def test_it_lies_between_one_and_the_weight_of_the_heaviest_block(seed, times, assets, shared):
    rng = np.random.default_rng(seed)
    y = table(drawn(seed, times, assets, shared), rng.uniform(0.1, 3, times * assets))
    kept = y[rng.random(len(y)) < 0.8]
    if kept.empty:
        return
    effect = design_effect(kept)
    bar = kept.index.get_level_values("time").factorize(sort=True)[0]
    total = np.insert(np.bincount(bar, kept["weight"]).cumsum(), 0, 0)
    heaviest = total[-1] if len(total) <= BLOCK else (total[BLOCK:] - total[:-BLOCK]).max()
    assert 1 <= effect <= max(heaviest, 1) * (1 + 1e-9) * 2
    order = rng.permutation(len(kept))
    assert design_effect(kept.iloc[order]) == pytest.approx(effect, rel=1e-9)


def test_one_side_alone_surprises_nobody():
    assert design_effect(table(np.ones((30, 3)))) == 1
    assert design_effect(table(np.zeros((30, 3)))) == 1


def test_the_blocks_are_of_bars_not_of_rows():
    """The bars of a block are neighbours in time, wherever their rows stand."""
    sides = np.repeat(drawn(3, 100, 2), BLOCK, axis=0)  # a side lasts as long as a block
    shuffled = table(sides).sample(frac=1, random_state=0)
    assert design_effect(table(sides)) > 0.5 * BLOCK
    assert design_effect(shuffled) == pytest.approx(design_effect(table(sides)), rel=1e-9)


def test_a_block_is_four_label_spans_where_those_are_long():
    """Labels of 20 bars still share their surprises over a block of 20."""
    held = np.repeat(drawn(4, 60, 2), 20, axis=0)
    y = table(held)
    y["end"] += pd.Timedelta(days=19)
    assert design_effect(y) > 1.1 * design_effect(table(held))


def twins(panel: pd.DataFrame, y: pd.DataFrame, count: int):
    """Every asset `count` times under other names: more rows, nothing new."""
    tables = []
    for source in (panel, y):
        copies = [source.rename(index=lambda a, k=k: f"{a}-{k}", level=0) for k in range(count)]
        tables.append(pd.concat(copies))
    return tables


def test_copies_of_a_market_teach_the_stacker_nothing_new(make):
    panel, y = make(seed=5, times=300, assets=3, silent=0)
    # what the assets of a bar share, else the effect of one copy would be below one and cut off
    bars = y.index.get_level_values("time").factorize()[0]
    y = y.assign(side=np.random.default_rng(0).integers(-1, 2, 300)[bars].astype("int8"))
    stage = BayesianStacker(interactions=("context.regime",))
    once = replace(stage).fit(panel, y)
    thrice = replace(stage).fit(*twins(panel, y, 3))
    for name, effect in once.design_effects_.items():
        assert effect > 1
        assert thrice.design_effects_[name] == pytest.approx(3 * effect, rel=1e-9)
    one, two = (s.predict(panel)[["margin", "margin_sd"]] for s in (once, thrice))
    np.testing.assert_allclose(two, one, rtol=1e-6, atol=1e-9)


def test_updates_count_labels_as_the_fit_did(make):
    panel, y = make(seed=5, times=200, assets=4, silent=0)
    bars = y.index.get_level_values("time").factorize()[0]
    y = y.assign(side=np.random.default_rng(1).integers(-1, 2, 200)[bars].astype("int8"))
    early = y[bars < 150]
    late = y[bars >= 150]
    stage = BayesianStacker().fit(panel, early)
    effects = stage.design_effects_
    assert min(effects.values()) > 1.5
    lighter = replace(stage).restore(State(json.loads(json.dumps(stage.state().values))))
    assert lighter.design_effects_ == effects
    lighter.design_effects_ = {name: effect / 2 for name, effect in effects.items()}
    stage.update(panel, late)
    lighter.update(panel, late.assign(weight=late["weight"] / 2))
    pd.testing.assert_frame_equal(stage.predict(panel), lighter.predict(panel), rtol=1e-12)


# the prior


def beliefs(X, y, m0, taus):
    """Laplace posteriors of a two-class model under each prior."""
    phi = np.column_stack([X, np.ones(len(X))])
    hits = (y == 1)[:, None].astype(float)
    out = []
    for mean in m0:
        for tau in taus:
            prior = np.diag(1 / np.append(np.full(X.shape[1], tau), 9.0))
            out.append(laplace(phi, hits, np.ones(len(X)), np.asarray(mean), prior, None))
    return out


def sample(seed: int, n: int, slope: float, features: int = 1):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, features))
    return X, (rng.random(n) < expit(slope * X[:, 0] - 0.3)).astype(int)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(5, 80), slope=st.floats(-2, 2))
def test_the_posterior_has_the_moments_of_the_mixture(seed, n, slope):
    """The mean, and by the law of total variance the covariance, of all priors together."""
    X, y = sample(seed, n, slope, features=2)
    if len(set(y)) < 2:
        return
    guesses = [np.zeros((1, 3)), [[0.7, 0.1, 0.0]]]
    model = BayesianSoftmax(prior_mean=guesses).fit(X, y)
    all_ = beliefs(X, y, guesses, TAUS)
    evidence = np.array([b.log_evidence for b in all_])
    share = np.exp(evidence - np.logaddexp.reduce(evidence))
    means = np.array([b.mean.ravel() for b in all_])
    centre = share @ means
    within = np.einsum("i,ijk->jk", share, np.array([b.covariance for b in all_]))
    between = np.einsum("i,ij,ik->jk", share, means - centre, means - centre)
    # Newton stops where it stops: the fit starts each prior from the one before, this does not
    np.testing.assert_allclose(model.mean_.ravel(), centre, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.covariance_, within + between, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(model.covariance_, model.covariance_.T)
    assert np.linalg.eigvalsh(model.covariance_).min() > 0
    assert model.tau_ == (TAUS * 2)[evidence.argmax()]
    assert model.log_evidence_ == pytest.approx(
        np.logaddexp.reduce(evidence) - np.log(len(evidence))
    )


def test_one_prior_is_its_own_average():
    X, y = sample(0, 60, 1.0)
    model = BayesianSoftmax(tau=0.5).fit(X, y)
    (only,) = beliefs(X, y, [np.zeros((1, 2))], [0.5])
    np.testing.assert_allclose(model.mean_, only.mean, atol=1e-9)
    np.testing.assert_allclose(model.covariance_, only.covariance, atol=1e-9)


@pytest.mark.parametrize(("seed", "slope"), [(1, 0.0), (2, 0.5), (3, 1.2)])
def test_the_average_is_that_of_exact_integration(seed, slope):
    """No Laplace: priors, evidence and moments summed over a fine grid of both coefficients."""
    X, y = sample(seed, 60, slope)
    model = BayesianSoftmax().fit(X, y)
    w, b = np.meshgrid(np.linspace(-6, 6, 801), np.linspace(-6, 6, 121), indexing="ij")
    eta = w[..., None] * X[:, 0] + b[..., None]
    fit = np.where(y == 1, -np.logaddexp(0, -eta), -np.logaddexp(0, eta)).sum(axis=-1)
    density = np.zeros_like(fit)
    for tau in TAUS:
        if tau < 1e-3:  # narrower than the grid: a spike at 0
            spike = np.zeros(len(w))
            spike[len(w) // 2] = 1
        else:
            spike = np.exp(-(w[:, 0] ** 2) / (2 * tau))
            spike /= spike.sum()
        density += spike[:, None] * np.exp(fit - fit.max()) * np.exp(-(b**2) / 18)
    density /= density.sum()
    mean = (density * w).sum()
    sd = np.sqrt((density * (w - mean) ** 2).sum())
    assert model.mean_[0, 0] == pytest.approx(mean, abs=0.15 * sd + 0.01)
    assert np.sqrt(model.covariance_[0, 0]) == pytest.approx(sd, rel=0.15)


def test_where_no_skill_is_nearly_as_likely_the_average_is_less_sure_than_the_choice():
    """The failure it cures: the likeliest prior alone forgets how near the others were."""
    chosen_skill = 0
    for seed in range(20):
        X, y = sample(seed, 40, 0.8)
        model = BayesianSoftmax().fit(X, y)
        chosen = BayesianSoftmax(tau=model.tau_).fit(X, y)
        if model.tau_ >= 0.1:  # skill was chosen
            sure = [abs(m.mean_[0, 0]) / np.sqrt(m.covariance_[0, 0]) for m in (model, chosen)]
            chosen_skill += 1
            assert sure[0] < sure[1]
    assert chosen_skill >= 5


def test_much_evidence_leaves_one_prior():
    X, y = sample(0, 4000, 1.5)
    model = BayesianSoftmax().fit(X, y)
    chosen = BayesianSoftmax(tau=model.tau_).fit(X, y)
    np.testing.assert_allclose(model.mean_, chosen.mean_, atol=0.02)
    np.testing.assert_allclose(model.covariance_, chosen.covariance_, rtol=0.05, atol=1e-5)
