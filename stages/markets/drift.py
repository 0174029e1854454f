"""Markets that change, when they say and only in what they say: to be noticed, and survived.

Each starts as the market `tabular`, whose signal is in the last bar. No column tells that it has
changed: ``context.regime`` is 1 throughout, and the attribute `regime` counts the rules.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

from stages.markets.market import (
    AMPLITUDE,
    SHARES,
    Market,
    Moves,
    Term,
    check_size,
    last_bar,
    plant,
    scaled,
    third,
    total,
)

VOLATILE = 3.0  # times the volatility before


def drift_flip(
    seed: int,
    times: int = 4000,
    assets: int = 20,
    snr: float = 1.0,
    features: int = 8,
    at: float = 0.5,
) -> Market:
    """At once, everything means the opposite.

    Parameters
    ----------
    seed, times, assets, snr, features
        As `stages.markets.planted.tabular`.
    at : float in (0, 1)
        Share of the bars before the change.
    """
    check_size(times, assets, features, snr=snr, at=at)
    late_T = _from(times, at)
    return _rules(seed, (assets, times, features), snr, late_T, _flipped(late_T))


def drift_recurring(
    seed: int,
    times: int = 4000,
    assets: int = 20,
    snr: float = 1.0,
    features: int = 8,
    at: float = 1 / 3,
    back: float = 2 / 3,
) -> Market:
    """Everything means the opposite for a while, and then what it meant at first: A, B, A.

    Parameters
    ----------
    seed, times, assets, snr, features
        As `stages.markets.planted.tabular`.
    at, back : float in (0, 1)
        Share of the bars before the change, and before the return; `at` < `back`.
    """
    _ordered(at, back)
    check_size(times, assets, features, snr=snr, at=at, back=back)
    other_T = _from(times, at) - _from(times, back)
    return _rules(seed, (assets, times, features), snr, other_T, _flipped(other_T))


def drift_rotation(
    seed: int,
    times: int = 4000,
    assets: int = 20,
    snr: float = 1.0,
    features: int = 8,
    at: float = 0.25,
    until: float = 0.75,
) -> Market:
    """Little by little, other features tell: the signal turns by a right angle.

    From the signal of `tabular` to one of the same strength that has nothing in common with it:
    ``x0`` and ``x1`` trade places, and ``x3`` turns ``x4`` instead of ``x2``.

    Parameters
    ----------
    seed, times, assets, snr, features
        As `stages.markets.planted.tabular`.
    at, until : float in (0, 1)
        Share of the bars before the turn begins, and before it ends; `at` < `until`. Rows between
        them are of regime 1, rows after it of regime 2.
    """
    _ordered(at, until)
    check_size(times, assets, features, snr=snr, at=at, until=until)
    first, last = round(at * times), round(until * times)
    angle_T = np.pi / 2 * np.clip((np.arange(times) - first) / max(last - first, 1), 0, 1)

    def turning(x_ATF: np.ndarray) -> list[Term]:
        before = scaled(last_bar(x_ATF), np.cos(angle_T))
        return before + scaled(_other(x_ATF), np.sin(angle_T))

    regime_T = _from(times, at) + _from(times, until)
    return _rules(seed, (assets, times, features), snr, regime_T, turning)


def drift_covariate(
    seed: int,
    times: int = 4000,
    assets: int = 20,
    snr: float = 1.0,
    features: int = 8,
    at: float = 0.5,
    shift: float = 1.0,
) -> Market:
    """The features move, what they mean does not: the odds given the features stay the same.

    The sides are thirds before the change and not after it. Contributions compare with the
    features as they were before it.

    Parameters
    ----------
    seed, times, assets, snr, features
        As `stages.markets.planted.tabular`.
    at : float in (0, 1)
        Share of the bars before the change.
    shift : float >= 0
        Standard deviations by which the mean of every feature moves.
    """
    check_size(times, assets, features, snr=snr, at=at, shift=shift)
    late_T, rng = _from(times, at), np.random.default_rng(seed)
    x_ATF = rng.standard_normal((assets, times, features)) + shift * late_T[:, None]
    x_ATF = x_ATF.astype("float32")
    terms = scaled(last_bar(x_ATF.astype("float64")), AMPLITUDE * snr)
    tilt_AT = total(terms)
    cut = third(tilt_AT[:, late_T == 0])
    moves = Moves(tilt_AT, rng.standard_normal(tilt_AT.shape), cut)
    return plant(x_ATF, moves, terms, late_T)


def drift_volatility(
    seed: int,
    times: int = 4000,
    assets: int = 20,
    snr: float = 1.0,
    features: int = 8,
    at: float = 0.5,
) -> Market:
    """Every return becomes three times as large, and nothing else.

    The label's cut moves with the volatility, so neither the labels nor their odds change.

    Parameters
    ----------
    seed, times, assets, snr, features
        As `stages.markets.planted.tabular`.
    at : float in (0, 1)
        Share of the bars before the change.
    """
    check_size(times, assets, features, snr=snr, at=at)
    late_T = _from(times, at)
    volatility_T = np.where(late_T, VOLATILE, 1.0)
    return _rules(seed, (assets, times, features), snr, late_T, last_bar, volatility_T)


def drift_dead_feature(
    seed: int,
    times: int = 4000,
    assets: int = 20,
    snr: float = 1.0,
    features: int = 8,
    at: float = 0.5,
    dead: Literal["missing", "constant"] = "missing",
) -> Market:
    """The feed of ``x0`` dies: the price still moves by it, but no one is told.

    The odds are those given what is still shown; contributions sum to the tilt expected from it.

    Parameters
    ----------
    seed, times, assets, snr, features
        As `stages.markets.planted.tabular`.
    at : float in (0, 1)
        Share of the bars before the change.
    dead : {'missing', 'constant'}
        Whether the column is NaN or 0 after it.
    """
    if dead not in ("missing", "constant"):
        raise ValueError(f"need dead missing or constant, got dead={dead}")
    check_size(times, assets, features, snr=snr, at=at)
    late_T, rng = _from(times, at), np.random.default_rng(seed)
    x_ATF = rng.standard_normal((assets, times, features)).astype("float32")
    terms = scaled(last_bar(x_ATF.astype("float64")), AMPLITUDE * snr)
    hidden_AT = terms[0][1] * late_T
    terms[0] = ((0,), terms[0][1] * (1 - late_T))
    x_ATF[:, late_T == 1, 0] = np.nan if dead == "missing" else 0.0
    tilt_AT = total(terms)
    noise_AT = hidden_AT + rng.standard_normal(tilt_AT.shape)
    # what is not told is noise as well: Gaussian, and independent of the rest
    spread_T = np.sqrt(1 + late_T * SHARES[0] * (AMPLITUDE * snr) ** 2)
    moves = Moves(tilt_AT, noise_AT, third(tilt_AT + hidden_AT), spread=spread_T)
    return plant(x_ATF, moves, terms, late_T)


def _rules(
    seed: int,
    shape: tuple[int, int, int],
    snr: float,
    regime_T: np.ndarray,
    signal: Callable[[np.ndarray], list[Term]],
    volatility_T: np.ndarray | float = 1.0,
) -> Market:
    """A market of standard normal features whose `signal` may depend on the time."""
    rng = np.random.default_rng(seed)
    x_ATF = rng.standard_normal(shape).astype("float32")
    terms = scaled(signal(x_ATF.astype("float64")), AMPLITUDE * snr)
    tilt_AT = total(terms)
    noise_AT = rng.standard_normal(tilt_AT.shape)
    moves = Moves(tilt_AT, noise_AT, third(tilt_AT), volatility=volatility_T)
    return plant(x_ATF, moves, terms, regime_T)


def _flipped(other_T: np.ndarray) -> Callable[[np.ndarray], list[Term]]:
    return lambda x_ATF: scaled(last_bar(x_ATF), 1.0 - 2.0 * other_T)


def _other(x_ATF: np.ndarray) -> list[Term]:
    """A signal of mean 0 and variance 1, uncorrelated with `last_bar`."""
    turned = x_ATF[..., 4] * np.sign(x_ATF[..., 3])
    return [
        ((0,), np.sqrt(SHARES[1]) * x_ATF[..., 0]),
        ((1,), np.sqrt(SHARES[0]) * x_ATF[..., 1]),
        ((3, 4), np.sqrt(SHARES[2]) * turned),
    ]


def _from(times: int, share: float) -> np.ndarray:
    """1 from the bar on that `share` of them come before, else 0: int, (T,)."""
    return (np.arange(times) >= round(share * times)).astype(int)


def _ordered(first: float, second: float) -> None:
    if not first < second:
        raise ValueError(f"need the first change before the second, got {first} and {second}")
