"""Markets that return columns, labels and the exact odds of every row, so skill has a ceiling.

All of them draw independent standard normal features, turn them into a signal g of mean 0 and
variance 1, and move the price from one bar to the next by ``v = AMPLITUDE * snr * g + noise``.
The side that paid is v cut into thirds, so its odds given the features are known in closed form.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import ndtr

from stages.signal import ODDS

AMPLITUDE = 0.8  # of a Gaussian signal at snr 1: Bayes accuracy 0.546, IC 0.56, 0.79 given a move
LAGS = (5, 1)  # bars; the sequence term is the product of one feature at these two lags
TABULAR = 0.6  # share of variance that `mixed` leaves to what the last bar shows
REDRAW = 0.05  # chance per bar that the regime is drawn anew: flipped spells of about 25 bars
TICK = 0.01  # log return of one unit of v: about the daily volatility of a stock

Signal = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Market:
    """A planted market and its truth.

    Attributes
    ----------
    panel : DataFrame of shape (N, F + 2)
        `close`, ``feature.x0`` … (float32, standard normal) and ``context.regime`` (float32,
        -1 or 1, the same for all assets of a bar). The price moves after the features are seen.
    y : DataFrame of shape (N - A, 4)
        See `check_labels`. `end` is the next bar, so the last row of an asset has no label.
    posterior : DataFrame of shape (N, 3)
        `p_sell`, `p_hold`, `p_buy`: the exact odds given all features so far and the regime.
    """

    panel: pd.DataFrame
    y: pd.DataFrame
    posterior: pd.DataFrame


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
    return _market(seed, times, assets, snr, features, _last_bar)


def sequence(
    seed: int, times: int = 4000, assets: int = 20, snr: float = 1.0, features: int = 8
) -> Market:
    """Only the order of the bars tells: the product of ``x4`` five bars and one bar ago.

    The first five rows of an asset have no such product and no signal. Parameters as `tabular`.
    """
    return _market(seed, times, assets, snr, features, _lagged)


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
    flipped : float in (0, 1)
        Share of the bars in the turned regime.
    """
    return _market(seed, times, assets, snr, features, _last_bar, flipped)


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
    return _market(seed, times, assets, snr, features, _both, flipped)


def noise_iid(seed: int, times: int = 4000, assets: int = 20, features: int = 8) -> Market:
    """Nothing tells anything: the odds are thirds. Parameters as `tabular`."""
    return _market(seed, times, assets, 0.0, features, _last_bar)


def _last_bar(x_ATF: np.ndarray, seen: np.ndarray) -> np.ndarray:
    # x2 * sign(x3) is as normal as x2: g stays Gaussian, and no linear model finds this term
    turned = x_ATF[..., 2] * np.sign(x_ATF[..., 3])
    return np.sqrt(0.35) * x_ATF[..., 0] - np.sqrt(0.25) * x_ATF[..., 1] + np.sqrt(0.4) * turned


def _lagged(x_ATF: np.ndarray, seen: np.ndarray) -> np.ndarray:
    late, soon = (np.roll(x_ATF[..., 4], lag, axis=1) for lag in LAGS)
    return np.where(seen >= max(LAGS), late * soon, 0.0)


def _both(x_ATF: np.ndarray, seen: np.ndarray) -> np.ndarray:
    parts = np.sqrt(TABULAR) * _last_bar(x_ATF, seen)
    return parts + np.sqrt(1 - TABULAR) * _lagged(x_ATF, seen)


def _market(
    seed: int,
    times: int,
    assets: int,
    snr: float,
    features: int,
    signal: Signal,
    flipped: float = 0.0,
) -> Market:
    if times < 2 or assets < 1 or features < 5 or snr < 0 or not 0 <= flipped < 1:
        raise ValueError(
            "need times >= 2, assets >= 1, features >= 5, snr >= 0 and flipped in [0, 1), got "
            f"times={times}, assets={assets}, features={features}, snr={snr}, flipped={flipped}"
        )
    rng = np.random.default_rng(seed)
    # the signal is computed from what the panel shows: float32, else the odds would not be exact
    x_ATF = rng.standard_normal((assets, times, features)).astype("float32")
    regime_T = _regimes(rng, times, flipped)
    tilt_AT = AMPLITUDE * snr * regime_T * signal(x_ATF.astype("float64"), np.arange(times))
    cut = _third(tilt_AT)
    move_AT = tilt_AT + rng.standard_normal((assets, times))

    index = _index(assets, times)
    panel = pd.DataFrame({"close": _prices(move_AT).ravel()}, index)
    panel[[f"feature.x{k}" for k in range(features)]] = x_ATF.reshape(-1, features)
    panel["context.regime"] = np.tile(regime_T, assets).astype("float32")
    odds = _odds(tilt_AT.ravel(), cut)
    posterior = pd.DataFrame(odds, index, ODDS)
    return Market(panel, _labels(move_AT, cut, index), posterior)


def _regimes(rng: np.random.Generator, times: int, flipped: float) -> np.ndarray:
    """1 or -1 per bar: a two-state Markov chain that spends `flipped` of its time at -1."""
    redrawn = rng.random(times) < REDRAW
    redrawn[0] = True
    drawn = np.where(rng.random(times) < flipped, -1.0, 1.0)
    last = np.maximum.accumulate(np.where(redrawn, np.arange(times), 0))
    return np.asarray(drawn[last])


def _third(tilt: np.ndarray) -> float:
    """The cut beyond which v lies in a third of all rows."""
    tilt = tilt.ravel()
    beyond = lambda cut: (ndtr(tilt - cut) + ndtr(-tilt - cut)).mean() - 2 / 3  # noqa: E731
    return float(brentq(beyond, 0.0, 10 + np.abs(tilt).max()))


def _odds(tilt: np.ndarray, cut: float) -> np.ndarray:
    sell, buy = ndtr(-cut - tilt), ndtr(tilt - cut)
    return np.column_stack([sell, 1 - sell - buy, buy])


def _prices(move_AT: np.ndarray) -> np.ndarray:
    """Closes before each move, from 100: the row that shows the features has not moved yet."""
    path = np.cumsum(move_AT, axis=1) - move_AT
    return 100 * np.exp(TICK * path)


def _index(assets: int, times: int) -> pd.MultiIndex:
    width = len(str(assets - 1))  # so that the order of the names is the order of the rows
    names = [f"A{k:0{width}d}" for k in range(assets)]
    bars = pd.bdate_range("2000-01-03", periods=times, tz="UTC").as_unit("us")
    return pd.MultiIndex.from_product(
        [names, bars + pd.Timedelta(hours=21)], names=["asset", "time"]
    )


def _labels(move_AT: np.ndarray, cut: float, index: pd.MultiIndex) -> pd.DataFrame:
    assets, times = move_AT.shape
    bars = pd.DatetimeIndex(index.get_level_values("time")[:times])
    ends = np.tile(np.roll(bars.tz_localize(None), -1), assets)
    side = np.sign(move_AT) * (np.abs(move_AT) > cut)
    y = pd.DataFrame(
        {
            "side": side.ravel().astype("int8"),
            "end": pd.DatetimeIndex(ends, tz="UTC"),
            "weight": 1.0,
            "ret": np.expm1(TICK * move_AT).ravel(),
        },
        index,
    )
    return y[np.tile(np.arange(times) < times - 1, assets)]
