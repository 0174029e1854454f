"""Size by calibrated odds: a fraction of Kelly's stake, less the less is known of the edge."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from stages.panel import warms_up
from stages.portfolio.prepared import Column, Day, reading
from stages.portfolio.rebalancing import Rebalancing
from stages.portfolio.situation import Opinion, Situation
from stages.portfolio.target import Choice


@warms_up(lambda **_: 0)
def edge(p_sell: np.ndarray, p_buy: np.ndarray, scale: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Expected return of a purchase after the cost of a round trip, fraction: shape (T,)."""
    return scale * (p_buy - p_sell) - cost


@warms_up(lambda **_: 0)
def stake(
    p_sell: np.ndarray,
    p_buy: np.ndarray,
    margin_sd: np.ndarray,
    scale: np.ndarray,
    cost: np.ndarray,
) -> np.ndarray:
    """Share of the value that full Kelly would buy, shrunk by the doubt about the edge: (T,).

    A purchase earns ``scale`` with ``p_buy``, loses it with ``p_sell`` and pays ``cost``. Its
    growth is about ``f e - f^2 v / 2`` with edge ``e = scale (p_buy - p_sell) - cost`` and
    variance ``v = scale^2 (p_buy + p_sell - (p_buy - p_sell)^2)``, so ``f = e / v``. An edge that
    is only known to ``t`` (its standard deviation) earns the most in the mean at
    ``f = e / v * e^2 / (e^2 + t^2)``.

    Parameters
    ----------
    p_sell, p_buy : float64 ndarray of shape (T,)
        Calibrated odds.
    margin_sd : float64 ndarray of shape (T,)
        Posterior standard deviation of ``log(p_buy / p_sell)``.
    scale : float64 ndarray of shape (T,)
        Return at stake, fraction.
    cost : float64 ndarray of shape (T,)
        Of a round trip, fraction.

    Returns
    -------
    float64 ndarray of shape (T,)
        0 where the edge is not above 0; NaN where an input is.

    References
    ----------
    Kelly (1956), "A New Interpretation of Information Rate"; Baker & McHale (2013), "Optimal
    betting under parameter uncertainty", Decision Analysis 10(3): the shrinkage. `t` follows from
    `margin_sd` by the delta method: ``p_buy - p_sell = (p_buy + p_sell) tanh(margin / 2)``.
    """
    lean, moves = p_buy - p_sell, p_buy + p_sell
    e = edge(p_sell, p_buy, scale, cost)
    v = scale**2 * (moves - lean**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = scale * moves / 2 * (1 - (lean / moves) ** 2) * margin_sd
        f = e / v * (e**2 / (e**2 + t**2))
    return np.where(e > 0, f, 0.0 * (e + margin_sd))


@dataclass(frozen=True, kw_only=True)
class KellyPolicy(Rebalancing):
    """Fractional Kelly from the odds of the pipeline, long only, one asset at a time.

    Parameters
    ----------
    fraction : float in (0, 1], default=0.25
        Of the stake of `stake`: stakes are reckoned asset by asset as if no others were held, and
        markets move together.
    least : float in [0, 1), default=0.01
        Weight below which nothing is bought, and a holding is sold.

    Notes
    -----
    Reads `p_sell`, `p_buy`, `margin_sd`, `scale` and `cost` from the panel: what
    `SignalPipeline.predict` adds to it. Weights are only ever cut by the caps, never raised.
    """

    by_volatility: ClassVar[bool] = False

    fraction: float = 0.25
    least: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.fraction <= 1 or not 0 <= self.least < 1:
            raise ValueError(f"need fraction in (0, 1] and least in [0, 1), got {self}")

    def judged_by(self) -> Mapping[str, Column]:
        return {
            "edge": edge,
            "stake": stake,
            "against": reading(edge, p_sell="p_buy", p_buy="p_sell"),
        }

    def opinion(self, day: Day, held: np.ndarray) -> Opinion:
        worth, against = day.column("edge"), day.column("against")
        side = np.where(worth > 0, 1.0, np.where(against > 0, -1.0, 0.0 * worth))
        columns = {"signal_strength": worth, "kelly": self.fraction * day.column("stake")}
        return Opinion(side, columns)

    def choose(self, now: Situation, ranks: Mapping[str, int]) -> Choice:
        claims, places = now.opinion.columns["kelly"], now.day.prepared.place
        worth = now.judged & ~now.barred & (claims >= self.least) & (claims > 0)
        if now.blocked:
            worth &= now.held
        order = np.argsort(-np.where(worth, claims, -1.0), kind="stable")
        taken = [now.day.assets[place] for place in order[: min(int(worth.sum()), now.room)]]
        edges = now.opinion.columns["signal_strength"]
        reasons = {a: f"edge {edges[places[a]]:+.2%}, stake {claims[places[a]]:.1%}" for a in taken}
        leave = {
            asset: f"stake {claims[places[asset]]:.1%} is too small"
            for asset in now.holdings
            if asset not in reasons
        }
        asked = {asset: float(claims[places[asset]]) for asset in taken}
        return Choice(reasons, leave, asked, full=False)
