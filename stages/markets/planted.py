"""Markets with something to find: columns, labels and the exact odds, so skill has a ceiling.

All of them draw independent standard normal features, turn them into a signal g of mean 0 and
variance 1, and tilt the price's move by ``AMPLITUDE * snr * g``; see `stages.markets.market`.
"""

import numpy as np
from scipy.special import stdtr

from stages.markets.market import (
    AMPLITUDE,
    Market,
    Moves,
    Term,
    check_size,
    clustered,
    last_bar,
    plant,
    scaled,
    third,
    total,
)

__all__ = [
    "Market",
    "gated",
    "heavy_tailed",
    "leader_lag",
    "mixed",
    "noise_iid",
    "sequence",
    "tabular",
]

LAGS = (5, 1)  # bars; the sequence term is the product of one feature at these two lags
TABULAR = 0.6  # share of variance that `mixed` leaves to what the last bar shows
REDRAW = 0.05  # chance per bar that the regime is drawn anew: flipped spells of about 25 bars
FREEDOM = 5  # degrees of the Student-t noise; its fourth moment is 9


def tabular(
    seed: int, times: int = 4000, assets: int = 20, snr: float = 1.0, features: int = 8
) -> Market:
    """The last bar tells all it can: two linear terms, and one feature that turns another.

    Parameters
    ----------
    seed : int
    times, assets : int
        T >= 2 bars of each of the A >= 1 assets.
    snr : float >= 0
        Amplitude of the signal; 0 is noise. Bayes accuracy at 0.1, 0.25, 0.5, 1, 2 is
        0.357, 0.391, 0.447, 0.546, 0.689.
    features : int >= 5
        F; ``x0`` to ``x3`` carry the signal, ``x4`` the sequence term where there is one, the
        rest moves nothing.

    Returns
    -------
    Market
    """
    x_ATF, turned, rng = _drawn(seed, times, assets, snr, features)
    return _gaussian(x_ATF, [(1.0, last_bar(x_ATF.astype("float64")))], snr, turned, rng)


def sequence(
    seed: int, times: int = 4000, assets: int = 20, snr: float = 1.0, features: int = 8
) -> Market:
    """Only the order of the bars tells: the product of ``x4`` five bars and one bar ago.

    The first five rows of an asset have no such product and no signal. Parameters as `tabular`.
    """
    x_ATF, turned, rng = _drawn(seed, times, assets, snr, features)
    return _gaussian(x_ATF, [(1.0, _lagged(x_ATF.astype("float64")))], snr, turned, rng)


def gated(
    seed: int,
    times: int = 4000,
    assets: int = 20,
    snr: float = 1.0,
    features: int = 8,
    flipped: float = 0.2,
) -> Market:
    """The market `tabular`, turned around while ``context.regime`` is -1.

    No feature shows the regime, so a model without the context sees the signal weakened to
    ``1 - 2 * flipped`` of itself.

    Parameters
    ----------
    seed, times, assets, snr, features
        As `tabular`.
    flipped : float in [0, 1)
        Share of the bars in the turned regime.
    """
    x_ATF, turned, rng = _drawn(seed, times, assets, snr, features, flipped)
    return _gaussian(x_ATF, [(1.0, last_bar(x_ATF.astype("float64")))], snr, turned, rng)


def mixed(
    seed: int,
    times: int = 4000,
    assets: int = 20,
    snr: float = 1.0,
    features: int = 8,
    flipped: float = 0.2,
) -> Market:
    """Something for every stage: the last bar, the sequence, and a regime that turns both.

    Parameters as `gated`.
    """
    x_ATF, turned, rng = _drawn(seed, times, assets, snr, features, flipped)
    x = x_ATF.astype("float64")
    groups = [(np.sqrt(TABULAR), last_bar(x)), (np.sqrt(1 - TABULAR), _lagged(x))]
    return _gaussian(x_ATF, groups, snr, turned, rng)


def heavy_tailed(
    seed: int,
    times: int = 4000,
    assets: int = 20,
    snr: float = 1.0,
    features: int = 8,
    missing: float = 0.05,
) -> Market:
    """The market `tabular` with Student-t noise, volatility that clusters, and missing features.

    A missing feature is one that was not published: it tells nothing and moves nothing. Volatility
    follows GARCH(1, 1) on the asset's own moves, and the label's cut moves with it, so the odds
    depend on the features alone.

    Parameters
    ----------
    seed, times, assets, snr, features
        As `tabular`.
    missing : float in [0, 1)
        Share of the features' cells that are NaN, at random.

    References
    ----------
    Bollerslev (1987), "A conditionally heteroskedastic time series model for speculative prices
    and rates of return", REStat 69(3): GARCH with Student-t noise.
    """
    check_size(times, assets, features, snr=snr, missing=missing)
    rng = np.random.default_rng(seed)
    x_ATF = rng.standard_normal((assets, times, features)).astype("float32")
    x_ATF[rng.random(x_ATF.shape) < missing] = np.nan
    terms = scaled(last_bar(np.nan_to_num(x_ATF.astype("float64"))), AMPLITUDE * snr)
    unit = np.sqrt(FREEDOM / (FREEDOM - 2))  # sd of the t distribution
    law = lambda z: stdtr(FREEDOM, unit * z)  # noqa: E731
    tilt_AT = total(terms)
    noise_AT = rng.standard_t(FREEDOM, (assets, times)) / unit
    volatility_AT = clustered(tilt_AT + noise_AT, (AMPLITUDE * snr) ** 2 + 1)
    moves = Moves(tilt_AT, noise_AT, third(tilt_AT, law), law, volatility=volatility_AT)
    return plant(x_ATF, moves, terms)


def leader_lag(
    seed: int, times: int = 4000, assets: int = 20, snr: float = 1.0, features: int = 8
) -> Market:
    """The first asset moves on its own, and all others follow it one bar later.

    ``feature.x0`` is the leader's newest move, in standard deviations, on the rows of every asset;
    the column `market` is the leader's close. It says nothing of the leader's own next move, so
    Bayes accuracy is that of `tabular` on the rows of the followers and a third on the leader's.

    Parameters
    ----------
    seed, times, snr, features
        As `tabular`.
    assets : int
        A >= 1; the first, named like the others, leads.
    """
    check_size(times, assets, features, snr=snr)
    rng = np.random.default_rng(seed)
    x_ATF = rng.standard_normal((assets, times, features)).astype("float32")
    x_ATF[:, :, 0] = x_ATF[0, :, 0]
    follows = np.arange(assets)[:, None] > 0
    push_AT = AMPLITUDE * snr * x_ATF[..., 0].astype("float64")
    terms: list[Term] = [((0,), follows * push_AT)]
    noise_AT = rng.standard_normal((assets, times))
    noise_AT[0, :-1] = x_ATF[0, 1:, 0]  # the move that the next bar shows
    cut_A = np.where(follows, third(push_AT[0]), third(np.zeros(1)))
    moves = Moves(total(terms), noise_AT, cut_A)
    made = plant(x_ATF, moves, terms)
    leader = np.tile(made.panel["close"].to_numpy()[:times], assets)
    made.panel.insert(1, "market", leader)
    return made


def noise_iid(seed: int, times: int = 4000, assets: int = 20, features: int = 8) -> Market:
    """Nothing tells anything: the odds are thirds. Parameters as `tabular`."""
    x_ATF, turned, rng = _drawn(seed, times, assets, 0.0, features)
    return _gaussian(x_ATF, [(1.0, last_bar(x_ATF.astype("float64")))], 0.0, turned, rng)


def _drawn(
    seed: int, times: int, assets: int, snr: float, features: int, flipped: float = 0.0
) -> tuple[np.ndarray, tuple[np.ndarray, float], np.random.Generator]:
    """Features, the factor that turns the signal and its mean, and the generator for the rest."""
    check_size(times, assets, features, snr=snr, flipped=flipped)
    rng = np.random.default_rng(seed)
    # the signal is computed from what the panel shows: float32, else the odds would not be exact
    x_ATF = rng.standard_normal((assets, times, features)).astype("float32")
    return x_ATF, (_regimes(rng, times, flipped), 1 - 2 * flipped), rng


def _gaussian(
    x_ATF: np.ndarray,
    groups: list[tuple[float, list[Term]]],
    snr: float,
    turned: tuple[np.ndarray, float],
    rng: np.random.Generator,
) -> Market:
    """The market whose signal is the weighted sum of `groups`, in Gaussian noise."""
    regime_T = turned[0]
    signal_AT = sum(weight * total(terms) for weight, terms in groups)
    tilt_AT = AMPLITUDE * snr * regime_T * signal_AT
    moves = Moves(tilt_AT, rng.standard_normal(tilt_AT.shape), third(tilt_AT))
    terms = [t for weight, group in groups for t in scaled(group, AMPLITUDE * snr * weight)]
    return plant(x_ATF, moves, terms, regime_T < 0, turned)


def _lagged(x_ATF: np.ndarray) -> list[Term]:
    late, soon = (np.roll(x_ATF[..., 4], lag, axis=1) for lag in LAGS)
    seen = np.arange(x_ATF.shape[1])
    return [((4,), np.where(seen >= max(LAGS), late * soon, 0.0))]


def _regimes(rng: np.random.Generator, times: int, flipped: float) -> np.ndarray:
    """1 or -1 per bar: a two-state Markov chain that spends `flipped` of its time at -1."""
    redrawn = rng.random(times) < REDRAW
    redrawn[0] = True
    drawn = np.where(rng.random(times) < flipped, -1.0, 1.0)
    last = np.maximum.accumulate(np.where(redrawn, np.arange(times), 0))
    return np.asarray(drawn[last])
