"""Checks of the bars that a signal rests on, and of its time."""

import numpy as np
import pandas as pd

from stages.risk.checks import NotRunError, check, newest

MAD = 1.4826  # standard deviations in a median absolute deviation of a Gaussian


@check("data integrity", "error", "bring more bars of the asset")
def short_history(close: np.ndarray, bars: int = 60) -> str | None:
    """Fewer bars than what a judgement of the market needs."""
    return f"{len(close)} bars, {bars} asked" if len(close) < bars else None


@check("data integrity", "error", "complete the bars, or let the asset abstain")
def missing_closes(close: np.ndarray, bars: int = 20) -> str | None:
    """A close is missing among the last `bars`."""
    gone = int(np.isnan(close[-bars:]).sum())
    return f"{gone} of the last {min(bars, len(close))} closes missing" if gone else None


@check("data integrity", "critical", "correct the bars, and make the signal again")
def broken_bars(
    open: np.ndarray, high: np.ndarray, low: np.ndarray, close: np.ndarray, bars: int = 20
) -> str | None:
    """A bar whose prices contradict each other, among the last `bars`."""
    o, h, lo, c = (x[-bars:] for x in (open, high, low, close))
    wrong = int(((lo > np.minimum(o, c)) | (h < np.maximum(o, c))).sum())
    if not wrong and not np.isfinite(o + h + lo + c).all():
        raise NotRunError(f"a price is missing among the last {len(c)} bars")
    return f"{wrong} bars with open or close outside of low and high" if wrong else None


@check("data integrity", "critical", "make the signal from the bars that it is judged by")
def other_price(price: float, close: np.ndarray, tolerance: float = 1e-6) -> str | None:
    """The signal was made at another price than the newest close."""
    if np.isnan(close[-1]):
        raise NotRunError("the newest close is missing")
    off = abs(price / close[-1] - 1)
    return f"price {price:g}, newest close {close[-1]:g}" if off > tolerance else None


@check("data integrity", "error", "hand over the bars up to the signal's own")
def other_bar(time: pd.Timestamp, times: pd.DatetimeIndex) -> str | None:
    """The newest bar is not the one the signal was made of."""
    return f"the newest bar is of {times[-1]}, the signal of {time}" if times[-1] != time else None


@check("data integrity", "warning", "look whether bars were lost or the asset was halted")
def lost_bars(times: pd.DatetimeIndex, bars: int = 20, longer: float = 5.0) -> str | None:
    """A distance between the last `bars` bars so many times longer than their median."""
    apart = np.diff(times[-bars - 1 :].asi8)
    if len(apart) < 5:
        raise NotRunError(f"{len(apart)} distances between bars, 5 asked")
    worst = apart.max() / np.median(apart)
    return f"a gap of {worst:.1f} times the usual distance" if worst > longer else None


@check("data integrity", "warning", "look whether the source still delivers")
def standing_price(close: np.ndarray, bars: int = 5) -> str | None:
    """The close has not moved for `bars` bars."""
    still = np.ptp(newest(close, bars + 1)) == 0
    return f"the close stood still for {bars} bars" if still else None


@check("data integrity", "error", "look for a split or a wrong price among the last bars")
def jump(close: np.ndarray, recent: int = 20, bars: int = 120, times: float = 12.0) -> str | None:
    """A recent return so many times the usual (from the median absolute one) that it may be none.

    Returns have heavy tails, so the limit is far out; a split of two is a return of 0.69.
    """
    close = close[-bars - 1 :]
    if not np.isfinite(close).all() or not (close > 0).all():
        raise NotRunError("a close is missing or not above 0")
    size = np.abs(np.diff(np.log(close)))
    if len(size) < 2 * recent:
        raise NotRunError(f"{len(size)} returns, {2 * recent} asked")
    usual = MAD * float(np.median(size))
    if usual == 0:
        raise NotRunError("half of the returns are 0")
    worst = size[-recent:].max() / usual
    return f"a bar moved {worst:.0f} times as far as usual" if worst > times else None


@check("timing", "critical", "do not act on it; take the newest signal")
def expired(now: pd.Timestamp, expires: pd.Timestamp) -> str | None:
    """It says nothing any more."""
    return f"expired at {expires}" if now >= expires else None


@check("timing", "critical", "check the clock, and the time zone of the bars")
def from_the_future(now: pd.Timestamp, time: pd.Timestamp) -> str | None:
    """It rests on a bar that is not over yet."""
    return f"its bar ends at {time}, it is {now}" if time > now else None


@check("timing", "error", "fetch newer bars")
def stale(now: pd.Timestamp, time: pd.Timestamp, step: pd.Timedelta, bars: float = 4) -> str | None:
    """Its bar is so many bars old; four days hold a weekend with a holiday."""
    age = (now - time) / step
    return f"{age:.1f} bars old, at most {bars:g}" if age > bars else None


@check("timing", "note", "act at once, or ask for a longer horizon")
def short_lived(time: pd.Timestamp, expires: pd.Timestamp, step: pd.Timedelta) -> str | None:
    """It expires before the next bar."""
    return f"it lives for {expires - time}, a bar is {step}" if expires - time < step else None


@check("timing", "error", "do not chase it: what it foretold has happened")
def overtaken(side: int, target: float, stop: float, last_price: float) -> str | None:
    """The price has reached target or stop since."""
    for name, level, way in (("target", target, side), ("stop", stop, -side)):
        if way * (last_price - level) >= 0:
            return f"the price {last_price:g} is beyond the {name} {level:g}"
    return None


@check("timing", "note", "wait for the open; the price will be another")
def closed_market(market_open: bool) -> str | None:
    """Nothing can be traded now."""
    return None if market_open else "the exchange is closed"
