"""Two versions against each other, looked at whenever one likes: no winner before it is sure."""

import hashlib
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from stages.base import DataError
from stages.online.duel import FLOOR, bars_needed, duel, outcomes, path_of
from stages.panel import check_labels, check_panel
from stages.signal import ODDS

Kind = Literal["paired", "split"]


@dataclass(frozen=True)
class Outcome:
    """How two versions compare by now.

    Attributes
    ----------
    winner : {'A', 'B'} or None
        None as long as it is too early to say.
    p : float
        Always-valid p-value of "both lose the same": it holds whenever one looks and stops.
    gain : float
        What B saves per bar in the mean, nats; NaN where nothing is settled.
    size : float
        Standard deviation of that, per bar.
    bars : int
        Settled.
    needed : float
        Bars that the claim needs, from the first one on.
    path : DataFrame
        See `stages.online.duel.Duel`.
    text : str
        One sentence.
    """

    winner: str | None
    p: float
    gain: float
    size: float
    bars: int
    needed: float
    path: pd.DataFrame
    text: str


@dataclass(frozen=True)
class Comparison:
    """An A/B test whose result may be looked at after every bar.

    Parameters
    ----------
    kind : {'paired', 'split'}, default='paired'
        Both speak of every row, or each of a half that is drawn anew at every bar. A split needs
        many times the bars, and is for versions that change what they are judged on.
    level : float in (0, 1), default=0.05
        Chance of a winner, ever, where there is none.
    claim : float > 0, default=0.002
        Difference of the mean loss that would matter, nats.
    bars : int >= 1, default=60
        Settled bars before a winner is named.
    seed : int, default=0
        Of the split.
    """

    kind: Kind = "paired"
    level: float = 0.05
    claim: float = 0.002
    bars: int = 60
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {get_args(Kind)}, got {self.kind!r}")
        if not 0 < self.level < 1 or not self.claim > 0 or self.bars < 1:
            raise ValueError(
                "need level in (0, 1), claim > 0 and bars >= 1, got "
                f"{self.level}, {self.claim}, {self.bars}"
            )

    def judge(
        self,
        one: pd.DataFrame,
        other: pd.DataFrame,
        y: pd.DataFrame,
        span: int,
        now: pd.Timestamp | None = None,
    ) -> Outcome:
        """Compare what A (`one`) and B (`other`) said; parameters as `stages.online.duel.duel`.

        In a split only the rows that `drawn` gives to a version count for it; it may have been
        silent on the others.
        """
        if self.kind == "paired":
            path = duel(one, other, y, span, now).path
        else:
            path = self._split(one, other, y, span, now)
        gains = path["gain"].dropna()
        gain, size = float(gains.mean()), float(gains.std()) if len(gains) > 1 else float("nan")
        won = {"B": path["for"].max(), "A": path["against"].max()} if len(path) else {}
        best = max(won, key=lambda name: won[name], default=None)
        p = min(1.0, 2 / max(won[best], 1.0)) if best else 1.0  # either could have been the better
        needed = self.needs(size, span)
        sure = p <= self.level and len(gains) >= self.bars
        winner = best if sure else None
        return Outcome(
            winner,
            p,
            gain,
            size,
            len(gains),
            needed,
            path,
            self._said(winner, p, len(gains), needed),
        )

    def needs(self, size: float, span: int) -> float:
        """Bars after which `claim` is usually shown, were it true; infinite where none is known.

        Parameters
        ----------
        size : float
            Standard deviation per bar of the difference of the losses.
        span : int
            Bars from a row to the bar at which its label is known.
        """
        if not size > 0:
            return float("inf")
        whole = bars_needed(self.claim, size, span, 2 / self.level)
        return float(max(np.ceil(whole), self.bars))

    def drawn(self, rows: pd.Index) -> np.ndarray:
        """Which of N rows belong to B: half of those of each bar, by lot: bool, (N,).

        The lot follows from the seed, the asset and the time alone.
        """
        asset, time = (rows.get_level_values(name) for name in ("asset", "time"))
        keys = [
            int.from_bytes(hashlib.sha256(f"{self.seed} {a} {t}".encode()).digest()[:7])
            for a, t in zip(asset, pd.DatetimeIndex(time).as_unit("us").asi8, strict=True)
        ]
        lots = pd.Series(keys, rows)
        place = lots.groupby(level="time").rank(method="first")
        count = lots.groupby(level="time").transform("size")
        # of an odd number the lot also says who gets one more
        odd = lots.groupby(level="time").transform("min") % 2
        return (place.to_numpy() <= (count.to_numpy() + odd.to_numpy()) // 2).astype(bool)

    def _split(
        self,
        one: pd.DataFrame,
        other: pd.DataFrame,
        y: pd.DataFrame,
        span: int,
        now: pd.Timestamp | None,
    ) -> pd.DataFrame:
        rows = one.index.union(other.index).sort_values()
        mine = self.drawn(rows)
        both = [check_panel(t, ODDS)[ODDS].reindex(rows).to_numpy("float64") for t in (one, other)]
        p = np.where(mine[:, None], both[1], both[0])
        if not np.isfinite(p).all(axis=1).any():
            raise DataError("no row has odds of the version it fell to", code="SV-F18")
        side, times, bar, due = outcomes(rows, check_labels(y), span, now)
        heard = (side >= 0) & np.isfinite(p).all(axis=1)
        loss = -np.log(np.maximum(p[heard, side[heard]], FLOOR))
        total, count = np.zeros((2, len(times))), np.zeros((2, len(times)))
        np.add.at(total, (mine[heard].astype(int), bar[heard]), loss)
        np.add.at(count, (mine[heard].astype(int), bar[heard]), 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            gain = total[0] / count[0] - total[1] / count[1]
        gain[due > len(times)] = np.nan
        return path_of(gain, due, times, span)

    def _said(self, winner: str | None, p: float, bars: int, needed: float) -> str:
        known = f"p {p:.3g} after {bars} settled bars"
        usually = f"{needed:.0f} bars" if np.isfinite(needed) else "more bars than can be told yet"
        claim = f"a difference of {self.claim:g} nats usually needs {usually}"
        if winner is None:
            return f"Too early to name a winner: {known}; {claim}."
        return f"{winner} loses less: {known}, valid whenever one looks; {claim}."
