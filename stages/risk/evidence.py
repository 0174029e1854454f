"""Checks of what speaks for a signal: its reasons, the market it meets, its technical side."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from stages.features.oscillators import relative_strength
from stages.risk.checks import NotRunError, check, newest
from stages.signal import SIDE_TEXT, Reasons

STILL = 1e-9  # deviation of returns that is rounding
CLOSED = 1e-3  # log-odds: largest gap before closure that an explanation may have


@check("factor weights", "warning", "see whether that input can be trusted: lean on more of them")
def one_input(reasons: Reasons, share: float = 0.5) -> str | None:
    """One input carries more than `share` of all pushes."""
    name, part = _largest(reasons.contributions)
    return f"{name} carries {part:.0%} of the pushes" if part > share else None


@check("factor weights", "note", "add inputs of another kind")
def one_family(reasons: Reasons, share: float = 0.8) -> str | None:
    """One kind of input carries more than `share` of all pushes."""
    if len(reasons.by_family) < 2:
        raise NotRunError("fewer than two kinds of input")
    name, part = _largest(reasons.by_family)
    return f"{name} carries {part:.0%} of the pushes" if part > share else None


@check("factor weights", "note", "read the reasons before you act")
def cancelling_inputs(reasons: Reasons, least: float = 0.1) -> str | None:
    """What the inputs push for is little beside what they push against each other."""
    pushes = np.abs(list(reasons.contributions.values())).sum()
    if pushes == 0:
        raise NotRunError("no input pushes")
    net = abs(sum(reasons.contributions.values())) / pushes
    return f"{net:.0%} of the pushes are left after they cancel" if net < least else None


@check("factor weights", "error", "report it: side and reasons come from different odds")
def reasons_oppose(side: int, reasons: Reasons) -> str | None:
    """The explained margin speaks for the other side."""
    against = reasons.side * side * reasons.margin < 0
    return f"the margin of the reasons is {reasons.margin:+.3f}, against it" if against else None


@check("factor weights", "warning", "explain it in full: explain=full")
def open_explanation(reasons: Reasons, gap: float = CLOSED) -> str | None:
    """Closure had to spread more over the contributions than it should."""
    wide = abs(reasons.raw_gap) > gap
    return f"a gap of {reasons.raw_gap:.1e} before closure, at most {gap:g}" if wide else None


@check("factor weights", "confirmation", points=5)
def stages_agree(side: int, stages: Mapping[str, float | bool | None]) -> str | None:
    """Every stage that speaks leans to the side."""
    views = [v for k, v in stages.items() if k != "gate" and v is not None]
    if len(views) < 2:
        raise NotRunError("fewer than two stages speak")
    agree = all(side * view > 0 for view in views)
    return f"all {len(views)} stages lean to {SIDE_TEXT[side]}" if agree else None


@check("market conditions", "warning", "take a smaller size until it calms down")
def wild_market(close: np.ndarray, fast: int = 10, slow: int = 60, times: float = 2) -> str | None:
    """Over `fast` bars the asset moved so many times as much as over the `slow` before them."""
    returns = np.diff(np.log(newest(close, slow + fast + 1)))
    usual = returns[:-fast].std(ddof=1)
    if not usual > STILL:
        raise NotRunError("the returns of the closes are all alike")
    now = returns[-fast:].std(ddof=1) / usual
    return f"volatility {now:.1f} times that of the {slow} bars before" if now > times else None


@check("market conditions", "warning", "take a smaller size, and a limit order")
def thin_volume(volume: np.ndarray, bars: int = 20, share: float = 0.2) -> str | None:
    """The newest bar traded less than `share` of the usual volume."""
    usual = float(np.median(newest(volume, bars + 1)[:-1]))
    if not usual > 0:
        raise NotRunError("the usual volume is 0")
    part = volume[-1] / usual
    return f"{part:.0%} of the usual volume" if part < share else None


@check("market conditions", "warning", "do not rely on it: the model has not seen the like")
def novel_inputs(novelty: float, limit: float = 2.0) -> str | None:
    """The inputs lie far from those of the training."""
    return f"novelty {novelty:.1f}, at most {limit:g}" if novelty > limit else None


@check("market conditions", "error", "use a limit order, or leave it")
def wide_spread(price: float, target: float, spread: float, share: float = 0.25) -> str | None:
    """The spread eats more than `share` of the way to the target."""
    way = abs(target - price)
    if way == 0:
        raise NotRunError("the target is the price")
    part = spread / way
    return f"the spread is {part:.0%} of the way to the target" if part > share else None


@check("market conditions", "warning", "wait until it is over, or accept a gap over the stop")
def event_ahead(time: pd.Timestamp, expires: pd.Timestamp, next_event: pd.Timestamp) -> str | None:
    """A known event (earnings, a split, a decision on rates) falls within its life."""
    return f"an event at {next_event}, before it expires" if time < next_event < expires else None


@check("technical confirmation", "confirmation", points=10)
def with_the_trend(side: int, close: np.ndarray, bars: int = 50) -> str | None:
    """The close stands on the side's side of its average."""
    mean = newest(close, bars).mean()
    with_it = side * (close[-1] - mean) > 0
    return f"close {close[-1] / mean - 1:+.1%} from its mean of {bars} bars" if with_it else None


@check("technical confirmation", "confirmation", points=5)
def momentum_agrees(side: int, close: np.ndarray, bars: int = 12) -> str | None:
    """The last `bars` bars went the side's way."""
    went = newest(close, bars + 1)[-1] / close[-bars - 1] - 1
    return f"{went:+.1%} over {bars} bars" if side * went > 0 else None


@check("technical confirmation", "confirmation", points=5)
def volume_confirms(
    side: int, close: np.ndarray, volume: np.ndarray, bars: int = 20, times: float = 1.5
) -> str | None:
    """The newest bar went the side's way on more than the usual volume."""
    usual = newest(volume, bars + 1)[:-1].mean()
    went = newest(close, 2)[-1] - close[-2]
    if not usual > 0:
        raise NotRunError("the usual volume is 0")
    many = volume[-1] / usual
    return f"{many:.1f} times the usual volume" if many > times and side * went > 0 else None


@check("technical confirmation", "note", "wait for a pause, or take a smaller size")
def overextended(
    side: int, close: np.ndarray, period: int = 14, memory: int = 140, limit: float = 80
) -> str | None:
    """The asset has run far the side's way already: its relative strength index is extreme."""
    strength = float(relative_strength(newest(close, memory + 1), period, memory)[-1])
    if strength != strength:
        raise NotRunError("the relative strength index is not defined")
    far = strength if side > 0 else 100 - strength
    return f"relative strength index {strength:.0f}" if far > limit else None


def _largest(pushes: Mapping[str, float]) -> tuple[str, float]:
    """The input that pushes most, and its share of all pushes."""
    total = sum(map(abs, pushes.values()))
    if total == 0:
        raise NotRunError("no input pushes")
    name = max(pushes, key=lambda n: (abs(pushes[n]), n))
    return name, abs(pushes[name]) / total
