"""Bets that the model knows which way assets move: nothing fires before enough has been won."""

import heapq
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from math import exp, log, nan
from typing import Self

import numpy as np
import pandas as pd
from safetensors.numpy import load, save

from stages.base import State, fitted
from stages.ensemble.bets import NEVER, Bars
from stages.panel import check_panel

FADE = 0.99  # per bar, of the usual size of a lean: it remembers about a hundred bars
CALM = 20  # moves at even odds that the drift of a lone asset is shrunk by
MOST = log(1e12)  # of a capital: winnings beyond are given away, so that none overflows
PART = "skill.safetensors"
PATH = ["settled", "e_value", "bars", "left", "proven"]


@dataclass
class SkillTest:
    """A betting test of directional skill: one bet a bar, its stake set by the past alone.

    At every bar of which the model speaks, a share of a capital is bet on ``x``: the mean of
    ``lean * (1 if it rose else -1)`` over the assets that moved, where ``lean = 2 P(up | move)
    - 1`` less its mean over these assets, so that neither a drift nor a move of the whole market
    pays. It is divided by its usual size in the past, or by its own where that is larger: whether
    a model leans boldly or hardly at all, ``|x| <= 1``, and without skill no bet gains in the
    mean, however assets and bars depend on each other. So the capital of a model without skill
    ever reaches `needed` with a probability of ``1 / needed`` at most.

    Labels that span h bars overlap. Therefore h processes take turns, each with one open bet at a
    time. Their mean is no martingale; it counts with every open bet lost.

    An asset that is alone at its bar has no cross-section. There the move less its running drift
    is what is bet on; that is exact in the limit only.

    Parameters
    ----------
    needed : float >= 1, default=20
        Capital at which skill counts as shown; 1 switches the test off.
    most : float in (0, 1), default=0.5
        Largest stake, share of the capital.
    faded : float in [0, 1), default=0.2
        Proven skill counts as gone when the bets of the last `memory` bars alone would have left
        less than this of a capital of 1; 0 is never.
    memory : int >= 1, default=500
        Bars.
    kept : int >= 1, default=5000
        Bars of `path_` that are kept.

    Attributes
    ----------
    span_ : int
        Bars from a row to the bar at which its label is known, h.
    proven_ : bool
        Once it is, it stays so until skill fades; then the test begins anew.
    restarts_ : int
        How often that happened. The promise of ``1 / needed`` holds from one restart to the
        next: over r restarts the chance of a false proof is ``(r + 1) / needed`` at most.

    Notes
    -----
    Rule of thumb: labels that do not depend on each other prove an edge e (share of directions
    called right, less 1/2) after about ``ln(needed) / (2 e^2)`` of them.

    References
    ----------
    Waudby-Smith & Ramdas (2024), "Estimating means of bounded random variables by betting",
    JRSS B 86(1); Ville (1939), "Etude critique de la notion de collectif"; Henzi & Ziegel (2022),
    "Valid sequential inference on probability forecast performance", Biometrika 109, with its
    correction (outcomes known h steps later); Choe & Ramdas (2024), "Combining evidence across
    filtrations", arXiv 2402.09698.
    """

    needed: float = 20.0
    most: float = 0.5
    faded: float = 0.2
    memory: int = 500
    kept: int = 5000

    def __post_init__(self) -> None:
        if not 1 <= self.needed < np.inf or not 0 < self.most < 1 or not 0 <= self.faded < 1:
            raise ValueError(
                "need needed >= 1, most in (0, 1) and faded in [0, 1), got "
                f"{self.needed}, {self.most}, {self.faded}"
            )
        if self.memory < 1 or self.kept < 1:
            raise ValueError(f"need memory and kept >= 1, got {self.memory} and {self.kept}")

    @property
    def path_(self) -> pd.DataFrame:
        """What was known when, by the times at which bets were settled, the last `kept` of them.

        Columns: ``settled`` (mean capital, open bets left out), ``e_value`` (with every open bet
        lost: what is compared with `needed`), ``bars`` whose bets were settled since the last
        restart, ``left`` (bars still needed at this pace; NaN where there is none) and ``proven``
        (1 or 0).
        """
        times = pd.to_datetime(fitted(self, "_times"), unit="us", utc=True)
        return pd.DataFrame(self._path, pd.DatetimeIndex(times, name="time"), PATH)

    def fit(
        self, said: pd.DataFrame, y: pd.DataFrame, span: int, now: pd.Timestamp | None = None
    ) -> Self:
        """Begin anew, with rows that no stage had seen.

        Parameters
        ----------
        said, y, now
            See `update`.
        span : int >= 1
            Bars from a row to the bar at which its label is known.
        """
        if span < 1:
            raise ValueError(f"span must be at least 1, got {span}")
        self.span_, self.restarts_ = int(span), 0
        self._begin()
        self._open: list[_Bet] = []
        self._placed, self._last, self._until = 0, -NEVER, -NEVER
        self._size = (0.0, 0.0)  # weighted sum of sizes, and of weights
        self._drift: dict[str, tuple[int, float]] = {}  # moves of lone assets, and their sum
        self._times, self._path = np.empty(0, "int64"), np.empty((0, len(PATH)))
        return self.update(said, y, now)

    def update(self, said: pd.DataFrame, y: pd.DataFrame, now: pd.Timestamp | None = None) -> Self:
        """Settle the bets whose labels are known, and bet on new bars, in the order of time.

        The result does not depend on how the bars are cut into calls. A bar is settled when the
        label of each of its rows is known; a label that is not known when the asset has `span_`
        later rows is taken not to exist; after ``2 span_`` bars nothing is waited for.

        Parameters
        ----------
        said : DataFrame of shape (N, F)
            With `p_sell` and `p_buy` as said by a model that knew no label which ended after the
            row: new bars, and all of the ``2 span_`` bars before them that were bet on.
        y : DataFrame of shape (n, 2 to 5)
            Labels of any of these rows, `side` and `end`; see `check_labels`.
        now : Timestamp, optional
            Labels that end later are not known; default: all of `y` are.

        Raises
        ------
        DataError
            SV-F18 when an open bar is not among the rows.
        """
        bars = Bars.of(check_panel(said, ["p_sell", "p_buy"]), y, fitted(self, "span_"), now)
        heap = [(*bars.settled(bet.time), bet) for bet in self._open]
        heapq.heapify(heap)
        record: list[tuple[int, list[float]]] = []
        for b in range(bisect_right(bars.times, self._last), len(bars.times)):
            time = bars.times[b]
            record += self._settle(heap, bars, time)
            bet = self._bet(bars, b, {bet.process for *_, bet in heap})
            heapq.heappush(heap, (bars.due[b], b, bet))
            self._last = self._until = time
        record += self._settle(heap, bars, bars.now)
        self._open = [bet for _, _, bet in sorted(heap, key=lambda entry: entry[1])]
        if record:
            times, path = (list(column) for column in zip(*record, strict=True))
            self._times = np.append(self._times, times)[-self.kept :]
            self._path = np.vstack([self._path, path])[-self.kept :]
        return self

    def restart(self) -> Self:
        """Take the proof back, as if skill had faded: what is to fire again is proven anew.

        Where the test is switched off there is no proof to take back.
        """
        fitted(self, "_times")
        self.restarts_ += 1
        self._begin()
        for bet in self._open:
            bet.stake = 0.0  # what is open is half known: no fair bet of a new test
        line = [1.0, 1.0, 0.0, nan, float(self.proven_)]
        self._times = np.append(self._times, self._until)[-self.kept :]
        self._path = np.vstack([self._path, line])[-self.kept :]
        return self

    def at(self, times: pd.Index) -> pd.DataFrame:
        """What was known at each of N times: the columns of `path_`, ``needed`` for ``settled``."""
        place = np.searchsorted(
            fitted(self, "_times"), pd.DatetimeIndex(times).as_unit("us").asi8, side="right"
        )
        before = np.array([[1.0, 1.0, 0.0, np.nan, float(self.needed == 1)]])
        known = np.vstack([before, self._path])[place]
        known[:, PATH.index("settled")] = self.needed
        names = ["needed" if name == "settled" else name for name in PATH]
        return pd.DataFrame(known, columns=names)

    def progress(self, e_value: float) -> float:
        """How far on a logarithmic scale `e_value` has come to `needed`, in [0, 1]."""
        if e_value >= self.needed:
            return 1.0
        return log(max(e_value, 1.0)) / log(self.needed)

    def state(self) -> State:
        values = {
            "span": fitted(self, "span_"),
            "restarts": self.restarts_,
            "proven": self.proven_,
            "wealth": list(self._wealth),
            "sums": [self._bars, self._won, self._swing],
            "open": [[b.time, b.process, b.stake, b.usual, b.drift] for b in self._open],
            "clock": [self._placed, self._last, self._until],
            "size": list(self._size),
            "drift": {asset: list(sums) for asset, sums in sorted(self._drift.items())},
            "recent": [list(entry) for entry in self._recent],
            "lately": list(self._lately),
        }
        return State(values, {PART: save({"times": self._times, "path": self._path})})

    def restore(self, state: State) -> Self:
        values = state.values
        self.span_, self.restarts_ = values["span"], values["restarts"]
        self._begin()
        self.proven_, self._wealth = values["proven"], list(values["wealth"])
        self._bars, self._won, self._swing = values["sums"]
        self._open = [_Bet(*entry) for entry in values["open"]]
        self._placed, self._last, self._until = values["clock"]
        self._size = (values["size"][0], values["size"][1])
        self._drift = {asset: (n, total) for asset, (n, total) in values["drift"].items()}
        self._recent.extend((process, gain) for process, gain in values["recent"])
        self._lately = list(values["lately"])
        arrays = load(state.parts[PART])
        self._times, self._path = arrays["times"].copy(), arrays["path"].copy()
        return self

    def _begin(self) -> None:
        self.proven_ = self.needed == 1
        self._wealth = [1.0] * self.span_  # of each process
        self._bars, self._won, self._swing = 0, 0.0, 0.0  # settled; sums of x and of its square
        self._recent: deque[tuple[int, float]] = deque()  # process and log of gain
        self._lately = [0.0] * self.span_  # their sums

    def _bet(self, bars: Bars, b: int, busy: set[int]) -> "_Bet":
        """Stake on bar `b`: nothing while the process whose turn it is has a bet open."""
        process = self._placed % self.span_
        self._placed += 1
        stake = self._stake() if process not in busy else 0.0
        total, weights = self._size
        usual = total / weights if weights else 0.0
        self._size = (FADE * total + bars.size[b], FADE * weights + 1)
        alone = bars.alone[b]
        moves, drift = self._drift.get(alone, (0, 0.0)) if alone else (0, 0.0)
        return _Bet(bars.times[b], process, stake, usual, drift / (moves + CALM))

    def _stake(self) -> float:
        return min(max(self._won / (1 + self._swing), 0.0), self.most)

    def _settle(
        self, heap: list[tuple[int, int, "_Bet"]], bars: Bars, until: int
    ) -> list[tuple[int, list[float]]]:
        """Pay out what is known by `until`; return a line of `path_` for each moment."""
        record = []
        while heap and heap[0][0] <= until:
            moment = heap[0][0]
            while heap and heap[0][0] == moment:
                _, b, bet = heapq.heappop(heap)
                self._pay(bet, bars, b)
            e_value = self._worst([bet for *_, bet in heap])
            self.proven_ = self.proven_ or e_value >= self.needed
            if self._faded():
                self.restarts_ += 1
                self._begin()
                for *_, bet in heap:
                    bet.stake = 0.0  # what is open is half known: no fair bet of a new test
                e_value = 1.0
            left = self._left(e_value)
            capital = sum(self._wealth) / self.span_
            line = [capital, e_value, float(self._bars), left, float(self.proven_)]
            record.append((max(moment, self._until), line))
        return record

    def _pay(self, bet: "_Bet", bars: Bars, b: int) -> None:
        x = bars.outcome(b, bet.usual, bet.drift)
        gain = 1 + bet.stake * x
        self._wealth[bet.process] = min(self._wealth[bet.process] * gain, exp(MOST))
        grown = log(gain)
        self._recent.append((bet.process, grown))
        self._lately[bet.process] += grown
        if len(self._recent) > self.memory:
            process, old = self._recent.popleft()
            self._lately[process] -= old
        self._bars, self._won, self._swing = self._bars + 1, self._won + x, self._swing + x * x
        if bars.alone[b] and bars.moved[b]:
            moves, total = self._drift.get(bars.alone[b], (0, 0.0))
            self._drift[bars.alone[b]] = (moves + 1, total + bars.net[b])

    def _worst(self, still_open: list["_Bet"]) -> float:
        left = list(self._wealth)
        for bet in still_open:  # of a process no more than one has a stake
            left[bet.process] -= self._wealth[bet.process] * bet.stake
        return sum(left) / self.span_

    def _faded(self) -> bool:
        """Whether the last `memory` bars alone would have left too little of 1."""
        if not self.proven_ or self.needed == 1:
            return False
        return sum(exp(min(gain, MOST)) for gain in self._lately) / self.span_ < self.faded

    def _left(self, e_value: float) -> float:
        """Bars until `needed` if bets go on winning as they did in the mean."""
        if self.proven_:
            return 0.0
        stake, bars = self._stake(), max(self._bars, 1)
        pace = (stake * self._won - stake**2 / 2 * self._swing) / bars / self.span_
        return log(self.needed / max(e_value, 1e-300)) / pace if pace > 0 else nan


@dataclass
class _Bet:
    """An open bet: bar, process, share of its capital, usual size of a lean, drift if alone."""

    time: int
    process: int
    stake: float
    usual: float
    drift: float
