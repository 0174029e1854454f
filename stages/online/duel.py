"""Two models that spoke of the same bars: what each lost, and a bet that one loses less."""

import heapq
from dataclasses import dataclass
from math import exp, log

import numpy as np
import pandas as pd

from stages.evaluate.scores import calibration_gaps, odds_sums
from stages.panel import check_labels, check_panel, settled
from stages.signal import ODDS

FLOOR = 1e-3  # odds count as this at least: a certain miss costs 6.9 nats, not infinity
LEARNING = 1.3  # bars of a test beyond those of one that knows the best stake; measured
FADE = 0.98  # per settled bar, of the usual size of a difference: it remembers about fifty
MOST = log(1e12)  # of a capital: winnings beyond are given away, so that none overflows
PATH = ["gain", "for", "against", "settled"]
_NEVER = np.iinfo("int64").max


@dataclass(frozen=True)
class Duel:
    """What two models lost on the same rows, bar by bar, and the bets on the difference.

    Attributes
    ----------
    path : DataFrame of shape (T, 4)
        By bar: ``gain`` (mean loss of `one` less that of `other` over the assets, nats; NaN
        while the bar is not settled), ``for`` and ``against`` (capital won by then by betting that
        `other`, or `one`, loses less, with every open bet lost) and ``settled`` (bars by then).
        The last row is as of `now`.
    span : int
        Bars from a row to the bar at which its label is known, h.
    rows : int
        Rows whose labels are known.
    ece : tuple of float
        Mean distance of confidence from accuracy over 15 bins, of `one` and of `other`; NaN
        without rows.
    """

    path: pd.DataFrame
    span: int
    rows: int
    ece: tuple[float, float]

    @property
    def bars(self) -> int:
        """Bars that are settled."""
        return int(self.path["gain"].notna().sum())

    @property
    def gain(self) -> float:
        """Mean of ``path.gain``: what `other` saves per bar; NaN where nothing is settled."""
        return float(self.path["gain"].mean())

    def p_value(self, column: str = "for") -> float:
        """Always-valid p-value of "it does not lose less", whenever one looks and stops.

        Parameters
        ----------
        column : {'for', 'against'}
        """
        return float(min(1.0, 1.0 / max(self.path[column].max(), 1.0))) if len(self.path) else 1.0


def duel(
    one: pd.DataFrame,
    other: pd.DataFrame,
    y: pd.DataFrame,
    span: int,
    now: pd.Timestamp | None = None,
    most: float = 0.5,
    wide: float = 4.0,
) -> Duel:
    """Let two models bet against each other on every bar of which both spoke.

    Parameters
    ----------
    one, other : DataFrame of shape (N, F)
        With `p_sell`, `p_hold` and `p_buy`, as each said them before it knew any label that ended
        after the row. Rows of one model only are passed over.
    y : DataFrame of shape (n, 2 to 5)
        Labels of any of these rows; see `check_labels`.
    span : int >= 1
        Bars from a row to the bar at which its label is known.
    now : Timestamp, optional
        Labels that end later are not known; default: all of `y` are.
    most, wide
        See `wealth`.
    """
    both = [check_panel(table, ODDS)[ODDS] for table in (one, other)]
    shared = one.index[one.index.isin(other.index)]
    odds = [table.loc[shared].to_numpy("float64") for table in both]
    answered = np.isfinite(odds[0]).all(axis=1) & np.isfinite(odds[1]).all(axis=1)
    shared, odds = shared[answered], [p[answered] for p in odds]
    side, times, bar, due = outcomes(shared, check_labels(y), span, now)
    heard = side >= 0
    loss = [-np.log(np.maximum(p[heard, side[heard]], FLOOR)) for p in odds]
    rows = np.bincount(bar[heard], minlength=len(times))
    total = np.bincount(bar[heard], loss[0] - loss[1], len(times))
    gain = np.where(rows > 0, total / np.maximum(rows, 1), np.nan)
    gain[due > len(times)] = np.nan
    path = path_of(gain, due, times, span, most, wide)
    ece = tuple(_ece(p[heard], side[heard]) for p in odds)
    return Duel(path, span, int(heard.sum()), ece)  # type: ignore[arg-type]


def path_of(  # noqa: PLR0913  what was won, when it was known, and how it is bet on
    gain: np.ndarray,
    due: np.ndarray,
    times: np.ndarray,
    span: int,
    most: float = 0.5,
    wide: float = 4.0,
) -> pd.DataFrame:
    """`Duel.path` of given gains; see `wealth`, and `times` in microseconds since 1970."""
    sides = [wealth(sign * gain, due, span, most, wide) for sign in (1.0, -1.0)]
    known = np.sort(due[np.isfinite(gain)])
    counts = np.searchsorted(known, np.arange(len(times) + 1), side="right")
    columns = [gain, *(np.append(x[:-2], x[-1:]) for x in (*sides, counts) if len(times))]
    return pd.DataFrame(
        np.column_stack(columns) if len(times) else np.empty((0, len(PATH))),
        pd.DatetimeIndex(pd.to_datetime(times, unit="us", utc=True), name="time"),
        PATH,
    )


def wealth(
    gain: np.ndarray, due: np.ndarray, span: int, most: float = 0.5, wide: float = 4.0
) -> np.ndarray:
    """Capital of a bettor on ``gain > 0`` at every bar, with each open bet counted as lost.

    At bar t a share ``lambda_t`` of a capital is bet on ``x_t = clip(gain_t / c_t, -1, 1)``; both
    it and the scale ``c_t`` (`wide` times the usual size of a gain) follow from what is settled by
    then. If no gain is positive in the mean, given the past, the capital ever reaches k with a
    probability of ``1 / k`` at most. Labels over h bars overlap: h processes take turns, each
    with one open bet at a time; their mean is no martingale, therefore open bets count as lost.

    Parameters
    ----------
    gain : float64 ndarray of shape (T,)
        In the order of time; NaN for a bar of which nothing became known: its bet is void.
    due : int ndarray of shape (T,)
        Number of the bar by which each is settled, above its own; T for "by now", more for never.
    span : int >= 1
        h.
    most : float in (0, 1), default=0.5
        Largest share that is bet.
    wide : float > 0, default=4.0
        What is beyond so many usual sizes is cut: one wild bar decides nothing, for either.

    Returns
    -------
    float64 ndarray of shape (T + 1,)
        Before each bar's own bet is settled; the last is as of now.

    References
    ----------
    Waudby-Smith & Ramdas (2024), "Estimating means of bounded random variables by betting",
    JRSS B 86(1); Henzi & Ziegel (2022), Biometrika 109, with its correction (outcomes known h
    steps later); see `stages.ensemble.skill.SkillTest`.
    """
    if span < 1 or not 0 < most < 1 or not wide > 0:
        raise ValueError(f"need span >= 1, most in (0, 1), wide > 0, got {span}, {most}, {wide}")
    bettor, out = _Bettor(span, most, wide), np.ones(len(gain) + 1)
    pending: list[tuple[int, int]] = []  # due, bar
    for t, until in enumerate([*due.tolist(), 0]):
        while pending and pending[0][0] <= t:
            bar = heapq.heappop(pending)[1]
            bettor.settle(bar, float(gain[bar]))
        if t < len(gain):
            bettor.bet(t)
            heapq.heappush(pending, (until, t))
        out[t] = bettor.worst()
    return out


class _Bettor:
    """Capital of h processes, what each has at stake, and what was learnt of the gains."""

    def __init__(self, span: int, most: float, wide: float) -> None:
        self.most, self.wide = most, wide
        self.capital = [1.0] * span
        self.open: dict[int, tuple[int, float, float]] = {}  # of a process: bar, stake, scale
        self.won = self.swing = 0.0  # sums of x and of its square
        self.sizes = self.weights = 0.0  # weighted sum of sizes, and of weights

    def bet(self, bar: int) -> None:
        process = bar % len(self.capital)
        stake = min(max(self.won / (1 + self.swing), 0.0), self.most)
        if stake and process not in self.open:
            self.open[process] = (bar, stake, self.wide * self.sizes / self.weights)

    def settle(self, bar: int, gain: float) -> None:
        process = bar % len(self.capital)
        placed, stake, scale = self.open.get(process, (-1, 0.0, 0.0))
        if placed == bar:
            del self.open[process]
            x = min(max(gain / scale, -1.0), 1.0) if gain == gain else 0.0
            self.capital[process] = min(self.capital[process] * (1 + stake * x), exp(MOST))
        if gain != gain:
            return
        self.sizes, self.weights = FADE * self.sizes + abs(gain), FADE * self.weights + 1
        if self.sizes:
            x = min(max(gain * self.weights / (self.wide * self.sizes), -1.0), 1.0)
            self.won, self.swing = self.won + x, self.swing + x * x

    def worst(self) -> float:
        left = list(self.capital)
        for process, (_, stake, _) in self.open.items():
            left[process] *= 1 - stake
        return sum(left) / len(left)


def bars_needed(gain: float, size: float, span: int = 1, needed: float = 20.0) -> float:
    """Bars after which a bet on a mean gain is usually won, labels that overlap included.

    A bettor who stakes best grows by ``gain^2 / (2 size^2)`` per bet in the mean; each of the
    `span` processes bets once in `span` bars. Half of all tests take longer.

    Parameters
    ----------
    gain : float
        Mean difference of the losses per bar, nats; not above 0 never gets there.
    size : float > 0
        Its standard deviation per bar.
    span : int >= 1
    needed : float > 1
        Capital that counts as shown: 20 is a level of 5 %.

    References
    ----------
    Waudby-Smith & Ramdas (2024), section 4; compare Wald (1945), "Sequential Tests of Statistical
    Hypotheses".
    """
    if gain <= 0:
        return float("inf")
    return LEARNING * span * log(needed) * 2 * (size / gain) ** 2


def outcomes(
    rows: pd.Index, y: pd.DataFrame, span: int, now: pd.Timestamp | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Side 0 to 2 of each of N rows, -1 while unknown; times; bar of each row; when it is settled.

    Parameters
    ----------
    rows : MultiIndex
        (asset, time).
    y, span, now
        See `duel`.

    Returns
    -------
    tuple of ndarray
        Sides (N,), times (T,) in microseconds since 1970, bar of each row (N,), and for each bar
        the number of the bar by which it is settled (T,), see `wealth`.
    """
    end = _NEVER - 1 if now is None else int(_us(pd.DatetimeIndex([now]))[0])
    at = y.index.get_indexer(rows)
    known = np.full(len(rows), _NEVER)
    known[at >= 0] = _us(settled(y))[at[at >= 0]]
    known = np.where(known > end, _NEVER, known)
    times, bar = np.unique(_us(rows.get_level_values("time")), return_inverse=True)
    moment = np.zeros(len(times), dtype="int64")
    np.maximum.at(moment, bar, known)
    # what is not known by then is taken not to exist, or one lost label would hold up all
    patience = np.append(times[2 * span :], np.full(min(2 * span, len(times)), _NEVER))
    moment = np.minimum(moment, patience)
    side = np.full(len(rows), -1)
    heard = known <= np.minimum(moment[bar], end)
    side[heard] = y["side"].to_numpy()[at[heard]] + 1
    due = np.searchsorted(times, moment)
    due = np.where(moment > end, len(times) + 1, due)
    return side, times, bar, due


def _ece(p: np.ndarray, side: np.ndarray) -> float:
    """Mean absolute gap of confidence and accuracy, over bins of equal size."""
    if not len(p):
        return float("nan")
    gap, share = calibration_gaps(odds_sums(p, side, np.zeros(len(p), dtype=int), 1))
    return float((np.abs(gap) * share).sum())


def _us(times: pd.Index | pd.Series) -> np.ndarray:
    return pd.DatetimeIndex(times).as_unit("us").asi8
