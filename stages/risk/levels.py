"""Target, stop and size of a signal, from its odds and from how far the asset moves."""

from dataclasses import dataclass
from math import expm1, inf, isfinite, log, nan

from stages.signal import Signal


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a signal would be left, how likely that is, and how much to put on it.

    Attributes
    ----------
    target, stop : float or None
        Prices, not rounded to a tick.
    size : float in [0, 1] or None
        Share of the capital.
    chance : float in (0, 1) or None
        That the target is reached before the stop, if one of them is.
    expected : float or None
        Mean return after costs, fraction of what is put on it: a hold earns nothing and pays them.
    missing : tuple of str
        What is not known, and what cannot be said without it; nothing is made up instead.
    """

    target: float | None = None
    stop: float | None = None
    size: float | None = None
    chance: float | None = None
    expected: float | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Levels:
    """Place target and stop, and stake a part of the Kelly fraction.

    The odds of a signal are those of a move by ``scale`` to either side, so that is its target;
    they imply how strongly the price drifts. The stop stands some average true ranges away; the
    chance to reach the target before it follows from the drift. The size is the part `kelly` of
    the fraction that grows such bets fastest, kept so that the stop costs at most `at_risk`.

    Parameters
    ----------
    stop_ranges : float > 0, default=2
        Average true ranges from the price to the stop.
    kelly : float in (0, 1], default=0.25
        Part of the Kelly fraction: odds are estimates, and the full one is only best if true.
    at_risk : float in (0, 1], default=0.01
        Most of the capital that the stop may cost, before the gap over it.
    largest : float in (0, 1], default=0.2
        Most of the capital in one signal.

    References
    ----------
    Kelly (1956), "A New Interpretation of Information Rate", Bell System Technical Journal 35(4).
    Karlin & Taylor (1981), "A Second Course in Stochastic Processes", ch. 15 (chances to leave an
    interval).
    """

    stop_ranges: float = 2.0
    kelly: float = 0.25
    at_risk: float = 0.01
    largest: float = 0.2

    def __post_init__(self) -> None:
        if not self.stop_ranges > 0:
            raise ValueError(f"stop_ranges must be above 0, got {self.stop_ranges}")
        for name in ("kelly", "at_risk", "largest"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in (0, 1], got {getattr(self, name)}")

    def plan(self, signal: Signal, scale: float = nan, atr: float = nan, cost: float = nan) -> Plan:
        """Plan one signal.

        Parameters
        ----------
        signal : Signal
            With a side and the price ``close``.
        scale : float
            Return at stake, that its odds speak of: fraction.
        atr : float
            Average true range over the price: fraction.
        cost : float
            Round trip, fraction.

        Returns
        -------
        Plan
            Without a target if `scale` is not known, without a stop if `atr` is not, and without a
            size if anything is not; NaN, and what is not above 0, counts as not known.
        """
        side, price = signal.side, signal.prices.get("close", nan)
        if side not in (-1, 1):
            return Plan(missing=("side: there is nothing to plan",))
        if not 0 < price < inf:
            return Plan(missing=("price: no target, stop or size",))
        scale, atr = (x if 0 < x < inf else nan for x in (scale, atr))
        away = self.stop_ranges * atr
        away = away if away < 1 else nan  # a stop at 0 stops nothing
        told = {
            "scale: no target and no size": scale,
            "average true range: no stop and no size": away,
            "cost: no size": cost if 0 <= cost < inf else nan,
        }
        missing = tuple(text for text, value in told.items() if not isfinite(value))
        chance = expected = size = None
        if not missing:
            odds = signal.probabilities
            moves = odds[side] + odds[-side]
            chance = chance_first(odds[side], odds[-side], scale, scale, away)
            expected = moves * (chance * scale - (1 - chance) * away) - cost
            toll = cost / moves if moves > 0 else inf  # a hold costs too: the moves pay for it
            size = self._size(chance, scale - toll, away + toll)
        return Plan(
            target=price * (1 + side * scale) if isfinite(scale) else None,
            stop=price * (1 - side * away) if isfinite(away) else None,
            size=size,
            chance=chance,
            expected=expected,
            missing=missing,
        )

    def _size(self, chance: float, gain: float, loss: float) -> float:
        if gain <= 0:
            return 0.0
        best = chance / loss - (1 - chance) / gain
        return max(0.0, min(self.kelly * best, self.at_risk / loss, self.largest))


def chance_first(p_for: float, p_against: float, scale: float, up: float, down: float) -> float:
    """Chance that a price goes `up` before it goes `down`, given its odds to go `scale` either way.

    A Brownian motion with drift that is `scale` up before `scale` down with odds `p_for` to
    `p_against` has ``exp(-theta x)`` as a martingale, ``theta = log(p_for / p_against) / scale``;
    stopped at either level it says how likely each is.

    Parameters
    ----------
    p_for, p_against : float in (0, 1)
    scale, up, down : float > 0
        Distances.

    Returns
    -------
    float
        ``p_for / (p_for + p_against)`` where both distances are `scale`; ``down / (up + down)``
        without a drift.
    """
    if p_for <= 0 or p_against <= 0:
        return 1.0 if p_for > p_against else 0.0
    theta = log(p_for / p_against) / scale
    if abs(theta) * max(up, down) < 1e-9:
        return down / (up + down)
    if theta > 0:  # of e^x - 1 take the side that does not overflow
        return expm1(-theta * down) / expm1(-theta * (up + down))
    lost = expm1(theta * up) / expm1(theta * (up + down))
    return 1.0 - lost
