"""What every market of known truth is made of: moves cut into sides, their exact odds and causes.

A row's features tell a tilt: how far the price is expected to move to the next bar, in standard
deviations of what nothing tells. The price moves by ``v = tilt + noise`` times the volatility of
the row. The side that paid is v cut into thirds, so its odds given the features are known in
closed form.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import ndtr

from stages.signal import ODDS

AMPLITUDE = 0.8  # of a Gaussian signal at snr 1: Bayes accuracy 0.546, IC 0.56, 0.79 given a move
ARCH, GARCH = 0.1, 0.88  # weight of the last squared move and of the last variance
SHARES = (0.35, 0.25, 0.4)  # of the variance of `last_bar`: x0, x1, and x2 by x3
TICK = 0.01  # log return of one unit of v: about the daily volatility of a stock

Term = tuple[tuple[int, ...], np.ndarray]  # features that it takes together, and their product


@dataclass(frozen=True)
class Market:
    """A market and its truth.

    Attributes
    ----------
    panel : DataFrame of shape (N, F + 2)
        `close`, ``feature.x0`` … (float32, standard normal) and ``context.regime`` (float32,
        -1 or 1, the same for all assets of a bar), more where a market says so. The price moves
        after the features are seen.
    y : DataFrame of shape (N - A, 4)
        See `check_labels`. `end` is the next bar, so the last row of an asset has no label.
    posterior : DataFrame of shape (N, 3)
        `p_sell`, `p_hold`, `p_buy`: the exact odds given all features so far and the regime.
    regime : Series of N int8
        Which of the market's rules holds at a row: 0 at first or as a rule, 1 where it is turned
        or after it drifted, 2 where there is a third.
    contributions : DataFrame of shape (N, F + 1)
        What each ``feature.*`` and ``context.*`` column adds to the row's tilt, float64, in
        standard deviations of the noise: exact Shapley values, a column and its whole past being
        one player. Against what the columns hold on average: independent standard normal
        features, and the share of the regimes. Rows sum to their tilt; the mean tilt is 0.
    """

    panel: pd.DataFrame
    y: pd.DataFrame
    posterior: pd.DataFrame
    regime: pd.Series
    contributions: pd.DataFrame


@dataclass(frozen=True)
class Moves:
    """How each price moves from its bar to the next.

    Attributes
    ----------
    tilt : ndarray of shape (A, T)
        What the columns shown so far say of it.
    noise : ndarray of shape (A, T)
        What they do not say; the move is their sum.
    cut : float > 0, or ndarray of shape (A, 1)
        A move beyond it, up or down, is a side that paid.
    law : callable
        Distribution function of the noise over `spread`, symmetric; Gaussian by default.
    spread : ndarray of shape (T,) or float
        Scale of the noise.
    volatility : ndarray of shape (A, T) or float
        Standard deviations of return in one unit of v, over `TICK`; the cut moves with it.
    """

    tilt: np.ndarray
    noise: np.ndarray
    cut: np.ndarray | float
    law: Callable[[np.ndarray], np.ndarray] = ndtr
    spread: np.ndarray | float = 1.0
    volatility: np.ndarray | float = 1.0

    @property
    def v(self) -> np.ndarray:
        """Moves in units of their volatility, (A, T)."""
        return np.asarray(self.tilt + self.noise)

    @property
    def steps(self) -> np.ndarray:
        """Log returns from each bar to the next, over `TICK`: (A, T)."""
        return np.asarray(self.volatility * self.v)

    def odds(self) -> np.ndarray:
        """Odds of sell, hold and buy, asset-major: shape (A * T, 3)."""
        sell = self.law((-self.cut - self.tilt) / self.spread).ravel()
        buy = self.law((self.tilt - self.cut) / self.spread).ravel()
        return np.column_stack([sell, 1 - sell - buy, buy])


def third(tilt: np.ndarray, law: Callable[[np.ndarray], np.ndarray] = ndtr) -> float:
    """The cut beyond which v lies in a third of all rows.

    Parameters
    ----------
    tilt : ndarray
    law : callable
        Distribution function of the noise, symmetric.

    Returns
    -------
    float > 0
    """
    tilt = tilt.ravel()
    beyond = lambda cut: (law(tilt - cut) + law(-tilt - cut)).mean() - 2 / 3  # noqa: E731
    return float(brentq(beyond, 0.0, 10 + np.abs(tilt).max()))


def clustered(v_AT: np.ndarray, variance: float = 1.0) -> np.ndarray:
    """Volatility of every move, known before it: GARCH(1, 1) of mean variance 1.

    Parameters
    ----------
    v_AT : ndarray of shape (A, T)
        Moves in units of their volatility.
    variance : float > 0
        Theirs.

    Returns
    -------
    ndarray of shape (A, T)

    References
    ----------
    Bollerslev (1986), "Generalized autoregressive conditional heteroskedasticity", J. Econom. 31.
    """
    squared_AT = np.ones(v_AT.shape)
    for t in range(1, v_AT.shape[1]):
        shock_A = ARCH * v_AT[:, t - 1] ** 2 / variance + GARCH
        squared_AT[:, t] = 1 - ARCH - GARCH + shock_A * squared_AT[:, t - 1]
    return np.asarray(np.sqrt(squared_AT))


def last_bar(x_ATF: np.ndarray) -> list[Term]:
    """A signal of mean 0 and variance 1: two linear terms, and one feature that turns another."""
    # x2 * sign(x3) is as normal as x2: g stays Gaussian, and no linear model finds this term
    turned = x_ATF[..., 2] * np.sign(x_ATF[..., 3])
    return [
        ((0,), np.sqrt(SHARES[0]) * x_ATF[..., 0]),
        ((1,), -np.sqrt(SHARES[1]) * x_ATF[..., 1]),
        ((2, 3), np.sqrt(SHARES[2]) * turned),
    ]


def total(terms: Iterable[Term]) -> np.ndarray:
    """The signal that `terms` make up, (A, T)."""
    return np.asarray(sum(part for _, part in terms))


def scaled(terms: Iterable[Term], factor: np.ndarray | float) -> list[Term]:
    """The same terms, each times `factor`, a number or of shape (A, T) or (T,)."""
    return [(players, factor * part) for players, part in terms]


def plant(
    x_ATF: np.ndarray,
    moves: Moves,
    terms: Iterable[Term],
    regime_T: np.ndarray | None = None,
    turned: tuple[np.ndarray, float] | None = None,
    bars: dict[str, np.ndarray] | None = None,
) -> Market:
    """Put a market together.

    Parameters
    ----------
    x_ATF : float32 ndarray of shape (A, T, F)
        Features as they are shown; NaN is a missing one.
    moves : Moves
    terms : iterable of Term
        What makes up the tilt, before `turned` turns it.
    regime_T : int ndarray of shape (T,), optional
        Id of the rule that holds; 0 by default.
    turned : (ndarray of shape (T,), float), optional
        Factor on all terms that ``context.regime`` shows, and its mean. 1 by default.
    bars : mapping of str to ndarray of shape (A, T), optional
        Bars to show; by default `close`, as the moves lead it from 100.
    """
    assets, times, features = x_ATF.shape
    index = _index(assets, times)
    context_T, mean = turned or (np.ones(times), 1.0)
    shown = {"close": _prices(moves.steps)} if bars is None else bars
    panel = pd.DataFrame({name: values_AT.ravel() for name, values_AT in shown.items()}, index)
    panel[[f"feature.x{k}" for k in range(features)]] = x_ATF.reshape(-1, features)
    panel["context.regime"] = np.tile(context_T, assets).astype("float32")
    ids = np.zeros(times) if regime_T is None else regime_T
    return Market(
        panel,
        _labels(moves, index),
        pd.DataFrame(moves.odds(), index, ODDS),
        pd.Series(np.tile(ids, assets).astype("int8"), index, name="regime"),
        _contributions(terms, context_T, mean, features, index),
    )


def check_size(times: int, assets: int, features: int, **others: float) -> None:
    """Refuse a market that cannot be: ValueError naming every setting.

    Parameters
    ----------
    times, assets, features : int
        At least 2, 1 and 5.
    **others : float
        `snr` and `shift` must not lie below 0, `flipped` and `missing` in [0, 1), all else
        strictly between 0 and 1.
    """
    sound = times >= 2 and assets >= 1 and features >= 5
    for name, value in others.items():
        least, most = (0, np.inf) if name in ("snr", "shift") else (0, 1)
        strict = name not in ("snr", "shift", "flipped", "missing")
        sound &= (least < value if strict else least <= value) and value < most
    if not sound:
        given = {"times": times, "assets": assets, "features": features, **others}
        raise ValueError(
            "need times >= 2, assets >= 1, features >= 5, snr and shift >= 0, flipped and missing "
            "in [0, 1) and other shares in (0, 1), got "
            + ", ".join(f"{name}={value}" for name, value in given.items())
        )


def _contributions(
    terms: Iterable[Term],
    context_T: np.ndarray,
    mean: float,
    features: int,
    index: pd.MultiIndex,
) -> pd.DataFrame:
    """Shapley values of the product of each term and the context.

    A term is a product of k factors of mean 0, so it is worth nothing to a coalition that lacks
    one of them: with the context c as one more player, each factor is due
    ``part * (mean / k + c) / (k + 1)`` and the context ``part * (c - mean) / (k + 1)``.
    """
    assets, times = len(index) // len(context_T), len(context_T)
    due_AT = np.zeros((features + 1, assets, times))
    for players, part in terms:
        k = len(players)
        for player in players:
            due_AT[player] += part * (mean / k + context_T) / (k + 1)
        due_AT[features] += part * (context_T - mean) / (k + 1)
    names = [*(f"feature.x{k}" for k in range(features)), "context.regime"]
    return pd.DataFrame(due_AT.reshape(features + 1, -1).T, index, names)


def _prices(steps_AT: np.ndarray) -> np.ndarray:
    """Closes before each move, from 100: the row that shows the features has not moved yet."""
    path = np.cumsum(steps_AT, axis=1) - steps_AT
    return np.asarray(100 * np.exp(TICK * path))


def _index(assets: int, times: int) -> pd.MultiIndex:
    width = len(str(assets - 1))  # so that the order of the names is the order of the rows
    names = [f"A{k:0{width}d}" for k in range(assets)]
    bars = pd.bdate_range("2000-01-03", periods=times, tz="UTC").as_unit("us")
    return pd.MultiIndex.from_product(
        [names, bars + pd.Timedelta(hours=21)], names=["asset", "time"]
    )


def _labels(moves: Moves, index: pd.MultiIndex) -> pd.DataFrame:
    assets, times = moves.noise.shape
    bars = pd.DatetimeIndex(index.get_level_values("time")[:times])
    ends = np.tile(np.roll(bars.tz_localize(None), -1), assets)
    v_AT = moves.v
    side = np.sign(v_AT) * (np.abs(v_AT) > moves.cut)
    y = pd.DataFrame(
        {
            "side": side.ravel().astype("int8"),
            "end": pd.DatetimeIndex(ends, tz="UTC"),
            "weight": 1.0,
            "ret": np.expm1(TICK * moves.steps).ravel(),
        },
        index,
    )
    return y[np.tile(np.arange(times) < times - 1, assets)]
