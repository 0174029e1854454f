import json

import numpy as np
import pytest
from scipy.special import expit

from stages.ensemble.bank import LEAST, Bank, Family
from stages.ensemble.posterior import Posterior, laplace

RATES = (1.0, 0.98, None)


def sample(seed: int, n: int, slope: float) -> tuple[np.ndarray, np.ndarray]:
    """Features with an intercept, and which of two ways it went."""
    rng = np.random.default_rng(seed)
    phi = np.column_stack([rng.normal(size=n), np.ones(n)])
    return phi, rng.random(n) < expit(slope * phi[:, 0])


def learnt(seed: int = 0, n: int = 400, slope: float = 1.0, share: float = 1.0) -> Family:
    phi, hit = sample(seed, n, slope)
    mean, precision = np.zeros((1, 2)), np.eye(2)
    return Family(
        share, laplace(phi, hit[:, None] * 1.0, np.ones(n), mean, precision), mean, precision
    )


def nothing(share: float) -> Family:
    tight = Posterior(np.zeros((1, 2)), 1e-8 * np.eye(2), 0.0)
    return Family(share, tight, np.zeros((1, 2)), 1e8 * np.eye(2))


def fed(bank: Bank, phi: np.ndarray, hit: np.ndarray, batch: int = 10) -> Bank:
    for at in range(0, len(phi), batch):
        rows = slice(at, at + batch)
        bank.update(phi[rows], hit[rows], np.ones(len(hit[rows])))
    return bank


def loss(bank: Bank, phi: np.ndarray, hit: np.ndarray) -> float:
    p = bank.predict(phi).p
    return float(-np.log(p[np.arange(len(hit)), hit.astype(int)]).mean())


def test_before_any_update_all_experts_are_one():
    bank = Bank([learnt()], RATES)
    said = bank.predict(sample(1, 50, 1.0)[0])
    assert [weight for weight, *_ in said.experts] == [pytest.approx(1.0)]
    np.testing.assert_allclose(said.p.sum(axis=1), 1)


def test_a_market_that_turned_moves_the_weight_to_the_expert_that_forgets():
    phi, hit = sample(2, 1500, -1.5)
    old = learnt(n=3000, slope=1.5)
    bank = fed(Bank([old], RATES), phi, hit)
    weights = np.exp(bank.log_weight[0])
    assert weights.argmax() == RATES.index(0.98)
    assert weights.min() >= LEAST / 2
    lone = fed(Bank([old], (1.0,)), phi, hit)
    assert loss(bank, *sample(3, 2000, -1.5)) < loss(lone, *sample(3, 2000, -1.5)) - 0.02


def test_a_market_that_stays_costs_the_bank_next_to_nothing():
    bank = fed(Bank([learnt()], RATES), *sample(2, 2000, 1.0))
    lone = fed(Bank([learnt()], (1.0,)), *sample(2, 2000, 1.0))
    new = sample(3, 4000, 1.0)
    assert loss(bank, *new) < loss(lone, *new) + 0.003


def test_when_the_old_regime_returns_the_snapshot_speaks_for_it_at_once():
    bank = fed(Bank([learnt(n=2000, slope=2.0)], RATES), *sample(2, 1500, -2.0))
    live = fed(Bank([learnt(n=2000, slope=2.0)], RATES[:2]), *sample(2, 1500, -2.0))
    back = sample(4, 400, 2.0)
    for bank_ in (bank, live):
        fed(bank_, *back)
    assert np.exp(bank.log_weight[0]).argmax() == RATES.index(None)
    assert loss(bank, *sample(5, 3000, 2.0)) < loss(live, *sample(5, 3000, 2.0))


def test_families_add_up_all_evidence_and_never_die():
    bank = Bank([nothing(0.9), learnt(share=0.1)], (1.0,))
    fed(bank, *sample(2, 600, 1.0))
    assert bank.share[1] > 0.99
    assert bank.share[0] >= LEAST / 2
    dull = fed(Bank([nothing(0.9), learnt(share=0.1, slope=0.0, n=50)], (1.0,)), *sample(2, 600, 0))
    assert dull.share[0] > 0.9


def test_odds_that_are_too_sure_are_cooled_online():
    """Coefficients twice too large: the inverse temperature falls below one."""
    true = learnt(n=3000)
    far = Posterior(2 * true.posterior.mean, true.posterior.covariance, 0.0)
    bank = Bank([Family(1.0, far, true.prior_mean, true.prior_precision)], (None,))
    before = loss(bank, *sample(6, 3000, 1.0))
    fed(bank, *sample(2, 2000, 1.0))
    assert bank.sharpness[0] == pytest.approx(0.5, abs=0.1)
    assert bank.sharpness[1] < 0.2**2
    true_loss = loss(Bank([true], (None,)), *sample(6, 3000, 1.0))
    assert loss(bank, *sample(6, 3000, 1.0)) - true_loss < 0.1 * (before - true_loss)


def test_the_mean_coefficients_give_the_mean_log_odds():
    bank = fed(Bank([nothing(0.5), learnt(share=0.5)], RATES), *sample(2, 100, 1.0))
    phi, _ = sample(3, 40, 1.0)
    said = bank.predict(phi)
    np.testing.assert_allclose(phi @ bank.mean[0], said.mu[:, 0], rtol=1e-12)
    np.testing.assert_allclose(bank.margin(phi), said.mu[:, 0], rtol=1e-12)
    np.testing.assert_array_equal(bank.margin(phi[:1]), bank.margin(phi)[:1])


def test_the_spread_between_experts_is_doubt_that_more_data_would_cure():
    bank = Bank([nothing(0.5), learnt(share=0.5, n=5000, slope=2.0)], (1.0,))
    phi = np.array([[2.0, 1.0]])
    said = bank.predict(phi)
    alone = Bank([learnt(n=5000, slope=2.0)], (1.0,)).predict(phi)
    assert said.epistemic[0] > 10 * alone.epistemic[0]
    total = -(said.p * np.log(said.p)).sum()
    assert said.epistemic[0] + said.aleatoric[0] == pytest.approx(total)


def test_a_restored_bank_goes_on_with_the_same_bits():
    bank = fed(Bank([nothing(0.9), learnt(share=0.1)], RATES), *sample(2, 300, 1.0))
    again = Bank.restored(json.loads(json.dumps(bank.state())))
    phi, hit = sample(3, 60, 1.0)
    for one in (bank, again):
        fed(one, phi, hit)
    assert bank.state() == again.state()
    np.testing.assert_array_equal(bank.predict(phi).p, again.predict(phi).p)


def test_rows_that_matured_together_may_be_none():
    bank = fed(Bank([learnt()], RATES), *sample(2, 30, 1.0))
    bank.update(np.zeros((0, 2)), np.zeros(0, dtype=bool), np.zeros(0))
    assert np.isfinite(bank.predict(np.ones((1, 2))).p).all()
