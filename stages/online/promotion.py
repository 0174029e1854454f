"""When a challenger takes the place of the champion, and when that is undone: by evidence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stages.online.duel import Duel, bars_needed

Action = Literal["wait", "promote", "keep", "roll back"]
GATES = (
    "evidence",
    "bars",
    "loss",
    "calibration",
    "additivity",
    "latency",
    "leak audit",
    "lineage",
)


@dataclass(frozen=True)
class Facts:
    """What was measured of a model beside its losses.

    Attributes
    ----------
    gap : float
        Largest share of a margin that its reasons leave unexplained, log-odds; NaN if not
        measured.
    seconds : float
        For the newest signal of every asset; NaN if not measured.
    audit : {'pass', 'leak', 'stale', 'none'}
        What the certificate of a leak audit beside it says.
    lineage : bool
        Whether it names the data, the code and the configuration that it comes from.
    """

    gap: float = float("nan")
    seconds: float = float("nan")
    audit: str = "none"
    lineage: bool = False


@dataclass(frozen=True)
class Check:
    """One gate: what it asks for, what was found, and whether it is open.

    Attributes
    ----------
    gate : str
        One of `GATES`.
    passed : bool
    found, asked : str
        In words, with figures.
    """

    gate: str
    passed: bool
    found: str
    asked: str


@dataclass(frozen=True)
class Verdict:
    """What the rules say of two models, and why.

    Attributes
    ----------
    action : {'wait', 'promote', 'keep', 'roll back'}
    checks : tuple of Check
        All gates that the rules name, in that order.
    e_value : float
        Capital won by betting on the change, open bets counted as lost.
    needed : float
    bars : int
        Settled.
    left : float
        Bars still needed at the pace so far; infinite where there is none, 0 once it is won.
    text : str
        One sentence.
    """

    action: Action
    checks: tuple[Check, ...]
    e_value: float
    needed: float
    bars: int
    left: float
    text: str

    @property
    def closed(self) -> tuple[Check, ...]:
        """Gates that stand in the way."""
        return tuple(check for check in self.checks if not check.passed)


@dataclass(frozen=True)
class Promotion:
    """What must be shown before a challenger is promoted, or a champion rolled back.

    Parameters
    ----------
    gates : sequence of str
        Those of `GATES` that must be open before the pointer moves.
    needed : float > 1, default=20
        Capital of the bet that the challenger loses less. One that does not is ever promoted
        with a probability of ``1 / needed`` at most.
    undone : float > 1, default=10
        Capital of the bet that the former champion loses less, at which it comes back.
    bars : int >= 1, default=60
        Settled bars before either.
    shadow : int >= 1, default=250
        Bars for which the former champion goes on speaking in the shadow.
    worse : float >= 0, default=0.01
        Calibration error that the challenger may have beyond the champion's.
    gap : float > 0, default=1e-5
        Largest share of a margin that reasons may leave unexplained, log-odds.
    slower : float > 0, default=2.0
        Longest time for the newest signals, as a multiple of the champion's.
    most, wide
        Of the bet, see `stages.online.duel.wealth`.
    """

    gates: Sequence[str] = GATES
    needed: float = 20.0
    undone: float = 10.0
    bars: int = 60
    shadow: int = 250
    worse: float = 0.01
    gap: float = 1e-5
    slower: float = 2.0
    most: float = 0.5
    wide: float = 4.0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.gates) - set(GATES))
        if unknown:
            raise ValueError(f"no such gate: {unknown}; there are {GATES}")
        if not self.needed > 1 or not self.undone > 1 or self.bars < 1 or self.shadow < 1:
            raise ValueError(
                "need needed > 1, undone > 1, bars >= 1 and shadow >= 1, got "
                f"{self.needed}, {self.undone}, {self.bars}, {self.shadow}"
            )
        if not self.worse >= 0 or not self.gap > 0 or not self.slower > 0:
            raise ValueError(
                "need worse >= 0, gap > 0 and slower > 0, got "
                f"{self.worse}, {self.gap}, {self.slower}"
            )

    def judge(self, duel: Duel, champion: Facts, challenger: Facts) -> Verdict:
        """Whether the challenger may take over by now.

        Parameters
        ----------
        duel : Duel
            Of the champion (`one`) and the challenger (`other`).
        champion, challenger : Facts
        """
        e_value = _newest(duel, "for")
        every = self._checks(duel, e_value, champion, challenger)
        checks = tuple(every[gate] for gate in self.gates)
        closed = [check for check in checks if not check.passed]
        left = _left(duel, 1.0, e_value, self.needed, self.bars)
        if not closed:
            said = f"the challenger has won {e_value:.3g} of {self.needed:g}: promote it"
            return Verdict("promote", checks, e_value, self.needed, duel.bars, 0.0, said)
        said = f"wait: {'; '.join(f'{c.gate}: {c.found}, asked {c.asked}' for c in closed)}"
        return Verdict("wait", checks, e_value, self.needed, duel.bars, left, said)

    def undo(self, duel: Duel) -> Verdict:
        """Whether the former champion should come back.

        Parameters
        ----------
        duel : Duel
            Of the former champion (`one`) and the present one (`other`), on bars since the
            change; beyond `shadow` of them nothing is looked at any more.
        """
        path = duel.path.iloc[: self.shadow]
        won = float(path["against"].max()) if len(path) else 1.0
        settled = int(path["settled"].max()) if len(path) else 0
        checks = (
            Check("evidence", won >= self.undone, f"{won:.3g} won", f"at least {self.undone:g}"),
            Check("bars", settled >= self.bars, f"{settled} settled", f"at least {self.bars}"),
        )
        left = _left(duel, -1.0, won, self.undone, self.bars)
        if all(check.passed for check in checks):
            said = f"the former champion has won {won:.3g} of {self.undone:g}: roll back"
            return Verdict("roll back", checks, won, self.undone, settled, 0.0, said)
        said = f"keep: the former champion has won {won:.3g} of {self.undone:g}"
        return Verdict("keep", checks, won, self.undone, settled, left, said)

    def _checks(
        self, duel: Duel, e_value: float, champion: Facts, challenger: Facts
    ) -> Mapping[str, Check]:
        before, after = duel.ece
        slower = challenger.seconds / champion.seconds if champion.seconds else np.nan
        found = {
            "evidence": (e_value >= self.needed, f"{e_value:.3g} won", f"{self.needed:g}"),
            "bars": (duel.bars >= self.bars, f"{duel.bars} settled", f"{self.bars}"),
            # bets are on cut differences; a model that wins often and loses hugely must not pass
            "loss": (duel.gain > 0, f"{-duel.gain:+.5f} nats a bar", "below 0"),
            "calibration": (
                after - before <= self.worse,
                f"error {after:.3f} against {before:.3f}",
                f"at most {self.worse:g} more",
            ),
            "additivity": (
                challenger.gap <= self.gap,
                _or_unknown(challenger.gap, "{:.1e} log-odds unexplained"),
                f"at most {self.gap:g}",
            ),
            "latency": (
                slower <= self.slower,
                _or_unknown(slower, "{:.2f} times the champion's"),
                f"at most {self.slower:g} times",
            ),
            "leak audit": (challenger.audit == "pass", challenger.audit, "pass"),
            "lineage": (
                challenger.lineage,
                "known" if challenger.lineage else "not known",
                "data, code and configuration",
            ),
        }
        return {
            gate: Check(gate, bool(ok), said, asked) for gate, (ok, said, asked) in found.items()
        }


def _newest(duel: Duel, column: str) -> float:
    return float(duel.path[column].iloc[-1]) if len(duel.path) else 1.0


def _left(duel: Duel, sign: float, e_value: float, needed: float, bars: int) -> float:
    """Bars until both the evidence and the bars are there, if all goes on as it did."""
    short = float(max(bars - duel.bars, 0))
    if e_value >= needed:
        return short
    gains = duel.path["gain"].dropna()
    if len(gains) < 2 or not gains.std() > 0:
        return float("inf")
    whole = bars_needed(sign * float(gains.mean()), float(gains.std()), duel.span, needed)
    share = 1 - np.log(max(e_value, 1.0)) / np.log(needed)
    return max(short, float(np.ceil(whole * share)) if np.isfinite(whole) else whole)


def _or_unknown(value: float, form: str) -> str:
    return form.format(value) if np.isfinite(value) else "not measured"
