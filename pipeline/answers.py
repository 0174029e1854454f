"""What follows from an alarm of the drift watch: each kind gets what the configuration says."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from stages.base import ConfigError
from stages.online.drift import ACTIONS, Alarm, DriftReport
from stages.online.learning import Learning

ONCE = ("covariate", "reasons")  # compare windows: the alarm is as of the newest bar, each time


@dataclass(frozen=True)
class Answer:
    """What an update does about the alarms that are active.

    Attributes
    ----------
    actions : tuple of str
        Asked for, of `stages.online.drift.ACTIONS`, the mildest first.
    alarms : tuple of str
        Names of the active alarms.
    learning : Learning or None
        What may learn: members only where an alarm asks for it.
    at_once : bool
        Whether the members do not wait for the next lesson: an alarm is new.
    stop : bool
        Whether the proof of skill is taken back: an alarm that asks for it is new.
    told : bool or None
        Whether a change of the market is confirmed, where that was told; None where alarms say.
    """

    actions: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()
    learning: Learning | None = None
    at_once: bool = False
    stop: bool = False
    told: bool | None = None

    @property
    def drifted(self) -> bool:
        """Whether members learn as after a confirmed change."""
        if self.told is not None:
            return self.told
        return self.learning is not None and self.learning.teaches

    def record(self) -> dict[str, Any]:
        """As an update notes it; empty without a watch."""
        if self.told is not None:
            return {}
        values = {"actions": list(self.actions), "alarms": list(self.alarms)}
        return {**values, "at_once": self.at_once, "stop": self.stop}


def answer(found: DriftReport, learning: Learning | None, answered: Collection[str]) -> Answer:
    """What follows from a report.

    ``nothing`` and ``recalibrate`` leave the members as they are: stage 3, its temperature and
    the intervals follow every label anyway. ``refit`` lets the trees learn, ``fine-tune`` trees
    and nets, ``stop firing`` takes the proof of skill back, so that it has to be won anew.
    ``retrain`` is left to `pipeline.retrain`, which asks the same watch.

    Parameters
    ----------
    found : DriftReport
    learning : Learning or None
        What trees and nets may learn at most.
    answered : collection of str
        Names of alarms that updates before have answered.
    """
    names = {named(alarm, found): alarm.action for alarm in found.active}
    actions = tuple(sorted(set(names.values()), key=ACTIONS.index))
    new = {action for name, action in names.items() if name not in answered}
    taught = False
    if learning is not None:
        trees = learning.trees if {"refit", "fine-tune"} & set(actions) else None
        nets = learning.nets if "fine-tune" in actions else None
        learning = replace(learning, trees=trees, nets=nets)
        taught = learning.teaches
    return Answer(
        actions,
        tuple(names),
        learning,
        taught and bool(new & {"refit", "fine-tune"}),
        "stop firing" in new,
    )


def named(alarm: Alarm, found: DriftReport) -> str:
    """What an alarm is known by from one look to the next."""
    if alarm.kind in ONCE:
        return f"{alarm.kind} by {alarm.detector}"
    time = alarm.time
    if alarm.kind == "worthless":  # since a change was confirmed, and told anew at every bar
        time = max((a.time for a in found.alarms if a.kind == "confirmed"), default=time)
    return f"{alarm.kind} by {alarm.detector} {time.isoformat()}"


def refuse_unanswerable(
    actions: Mapping[str, str], learning: Learning | None, needed: float
) -> None:
    """Refuse to watch for what could then not be answered.

    Parameters
    ----------
    actions : mapping of str to str
        By kind of alarm.
    learning : Learning or None
    needed : float
        Capital at which skill is proven; 1 is never asked for.

    Raises
    ------
    ConfigError
        SV-F33.
    """
    can = {
        "refit": learning is not None and learning.trees is not None,
        "fine-tune": learning is not None and learning.nets is not None,
        "stop firing": needed > 1,
    }
    cure = {
        "refit": "online=live, online=trees or online=members says what the trees learn",
        "fine-tune": "online=members says what the nets learn",
        "stop firing": "skill=default asks for a proof",
    }
    for kind, action in actions.items():
        if not can.get(action, True):
            raise ConfigError(
                f"drift.actions.{kind}={action}, and nothing would do that",
                code="SV-F33",
                where="drifted=watch",
                why="an alarm that is heard and not answered is worse than none",
                cure=f"{cure[action]}; or drift.actions.{kind}=recalibrate",
            )
