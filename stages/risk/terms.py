"""Checks of what a signal promises: its risk, its edge, its target and its stop."""

from collections.abc import Mapping
from typing import Any

from stages.risk.checks import NotRunError, check

SPREAD_OF_RANGE = 1.596  # mean range of a Brownian motion over its standard deviation, sqrt(8 / pi)


@check(
    "risk calibration", "critical", "fit the risk score again, or correct the class of the asset"
)
def outside_band(risk: float, band: tuple[float, float]) -> str | None:
    """The risk score lies outside of the band of the asset's class."""
    low, high = band
    inside = low <= risk <= high
    return None if inside else f"risk {risk:.1f} outside of {low:g} to {high:g}"


@check("risk calibration", "error", "leave it: on its own odds it loses")
def no_edge(side: int, probabilities: Mapping[int, float], scale: float, cost: float) -> str | None:
    """On the odds it states, the signal earns less than it costs."""
    earns = (probabilities[side] - probabilities[-side]) * scale - cost
    return f"expected {earns:+.2%} after a cost of {cost:.2%}" if earns <= 0 else None


@check("risk calibration", "warning", "size it as an experiment until the skill test has passed")
def unproven_skill(skill: Mapping[str, Any]) -> str | None:
    """The skill test of the model has not passed."""
    return None if skill["proven"] else f"skill test at {skill['progress']:.0%} of what it needs"


@check("risk calibration", "warning", "leave it, or take a smaller position")
def interval_against(side: int, interval: Mapping[str, float]) -> str | None:
    """More of the interval of returns lies against the side than for it."""
    low, high = interval["low"], interval["high"]
    leans = low + high
    if leans != leans or abs(leans) == float("inf"):
        raise NotRunError("the interval has no middle")
    if side * leans >= 0:
        return None
    return f"the interval {low:+.1%} to {high:+.1%} leans the other way"


@check("risk calibration", "warning", "train on more labels of rows like this one")
def doubtful_model(epistemic: float, aleatoric: float, share: float = 0.2) -> str | None:
    """Too large a share of the uncertainty is the model's own."""
    if epistemic + aleatoric == 0:
        raise NotRunError("there is no uncertainty to share")
    own = epistemic / (epistemic + aleatoric)
    return (
        f"{own:.0%} of the uncertainty is the model's, at most {share:.0%}" * (own > share) or None
    )


@check("risk calibration", "error", "take a smaller size or a nearer stop")
def oversized(size: float, price: float, stop: float, cap: float = 0.02) -> str | None:
    """The stop would cost more of the capital than one signal may."""
    at_risk = size * abs(price - stop) / price
    return f"{at_risk:.1%} of the capital at risk, at most {cap:.1%}" if at_risk > cap else None


@check("price targets", "critical", "do not trade it: target and side contradict each other")
def target_on_wrong_side(side: int, price: float, target: float) -> str | None:
    """The target lies where the signal would lose."""
    wrong = side * (target - price) <= 0
    return f"target {target:g} of a side {side:+d} at {price:g}" if wrong else None


@check("price targets", "critical", "do not trade it: stop and side contradict each other")
def stop_on_wrong_side(side: int, price: float, stop: float) -> str | None:
    """The stop lies where the signal would win."""
    wrong = side * (price - stop) <= 0
    return f"stop {stop:g} of a side {side:+d} at {price:g}" if wrong else None


@check("price targets", "warning", "take a nearer stop, or ask for better odds")
def poor_reward(price: float, target: float, stop: float, least: float = 0.5) -> str | None:
    """The target is too near for a stop so far away."""
    if stop == price:
        raise NotRunError("the stop is the price")
    reward = abs(target - price) / abs(price - stop)
    return f"reward {reward:.2f} of the risk, at least {least:g}" if reward < least else None


@check("price targets", "warning", "expect less, or give it more time")
def target_out_of_reach(
    price: float, target: float, atr: float, span: int, deviations: float = 3.0
) -> str | None:
    """The target is further than the asset moves in that time, but for one case in hundreds."""
    if not atr > 0:
        raise NotRunError("the average true range is 0")
    far = abs(target - price) / (atr / SPREAD_OF_RANGE * span**0.5)
    return f"target {far:.1f} deviations away over {span} bars" if far > deviations else None


@check("price targets", "warning", "put the stop further away, and take a smaller size")
def stop_within_noise(price: float, stop: float, atr: float, least: float = 0.5) -> str | None:
    """An ordinary bar reaches the stop."""
    if not atr > 0:
        raise NotRunError("the average true range is 0")
    away = abs(price - stop) / atr
    return f"stop {away:.2f} average ranges away, at least {least:g}" if away < least else None


@check("price targets", "error", "leave it: even a hit does not pay")
def target_below_cost(price: float, target: float, cost: float) -> str | None:
    """The way to the target is shorter than the cost of a round trip."""
    way = abs(target / price - 1)
    return f"target {way:.2%} away, cost {cost:.2%}" if way <= cost else None
