"""Tell people that something is wrong: once, where they asked to be told, and without waiting."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import pandas as pd

log = logging.getLogger(__name__)

MOST = 1000  # alerts that are remembered
SHORT = 400  # letters of a text


@dataclass(frozen=True)
class Alert:
    """Something that a person should look at, or that is well again.

    Attributes
    ----------
    kind : str
        ``failed``, ``stale``, ``quality``, ``drift``, ``latency``, ``model``.
    about : str
        What it concerns; with `kind` it tells alerts apart.
    text : str
        One sentence.
    details : mapping
        JSON values.
    resolved : bool, default=False
        Whether it is over.
    """

    kind: str
    about: str
    text: str
    details: Mapping[str, Any] = field(default_factory=dict)
    resolved: bool = False

    @property
    def key(self) -> str:
        """What an alert is known again by."""
        return f"{self.kind} {self.about}"

    def record(self, now: pd.Timestamp) -> dict[str, Any]:
        """Plain values, with the time."""
        values = asdict(self) | {"text": self.text[:SHORT], "details": dict(self.details)}
        return {"time": now.isoformat(), **values}


class Sender(Protocol):
    """Where alerts go. It must return at once and raise nothing."""

    def send(self, record: Mapping[str, Any]) -> None:
        """Take an alert, as `Alert.record` gives it."""
        ...

    def close(self) -> None:
        """End, after a short wait for what is on its way."""
        ...


@dataclass(frozen=True)
class Log:
    """Alerts as warnings of the log, which a service prints."""

    def send(self, record: Mapping[str, Any]) -> None:
        state = "resolved" if record["resolved"] else "alert"
        log.warning("%s: %s, %s: %s", state, record["kind"], record["about"], record["text"])

    def close(self) -> None:
        """Nothing is on its way."""


@dataclass(frozen=True)
class Limits:
    """From where on a person is told; None never tells.

    Parameters
    ----------
    age_hours : float > 0 or None, default=100.0
        Since the last good run. 100 hours span a long weekend.
    quality : float or None, default=50.0
        Least mean quality of the signals of a run, points of 100.
    drop : float or None, default=15.0
        Most points by which it may lie below the median of the runs before.
    valid : float or None, default=0.5
        Least share of a run's signals that pass their checks.
    abstained : float or None, default=0.5
        Largest share that abstains.
    novelty : float or None, default=2.0
        Largest mean novelty of the inputs of the last 30 days; 1 is that of the training.
    run_seconds : float or None, default=1800.0
        Longest run.
    request_ms : float or None, default=2000.0
        99th percentile of the answers of the service, over its last 1,000 requests.
    """

    age_hours: float | None = 100.0
    quality: float | None = 50.0
    drop: float | None = 15.0
    valid: float | None = 0.5
    abstained: float | None = 0.5
    novelty: float | None = 2.0
    run_seconds: float | None = 1800.0
    request_ms: float | None = 2000.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and (isinstance(value, bool) or not value >= 0):
                raise ValueError(f"need {name} >= 0 or null, got {value}")
        for name in ("valid", "abstained"):
            if (getattr(self, name) or 0) > 1:
                raise ValueError(f"need {name} in [0, 1], got {getattr(self, name)}")


@dataclass
class Alerts:
    """Who is told of what, and how often.

    Parameters
    ----------
    senders : sequence of Sender
    limits : Limits
    repeat_hours : float > 0, default=24.0
        An alert that stands is told again after so long; until then it is told once.

    Attributes
    ----------
    standing_ : dict of str to dict
        Alerts that stand: when each was first seen and last told, ISO format. It can be kept as
        JSON and set again.
    """

    senders: Sequence[Sender]
    limits: Limits = field(default_factory=Limits)
    repeat_hours: float = 24.0

    def __post_init__(self) -> None:
        if not self.repeat_hours > 0:
            raise ValueError(f"need repeat_hours > 0, got {self.repeat_hours}")
        self.standing_: dict[str, dict[str, str]] = {}

    def tell(self, found: Iterable[Alert], kinds: Iterable[str], now: pd.Timestamp) -> list[Alert]:
        """Tell what is new, what stands for long, and what is over.

        Parameters
        ----------
        found : iterable of Alert
            All that is wrong now.
        kinds : iterable of str
            Kinds that were looked at: an alert of these that is not among `found` is over.
        now : Timestamp

        Returns
        -------
        list of Alert
            Those that were told.
        """
        wrong = {alert.key: alert for alert in found}
        told = [alert for alert in wrong.values() if self._is_due(alert.key, now)]
        looked = set(kinds)
        for key in [k for k in self.standing_ if k not in wrong and k.split(" ")[0] in looked]:
            since = self.standing_.pop(key)["since"]
            kind, _, about = key.partition(" ")
            told.append(Alert(kind, about, f"well again; it began {since}", resolved=True))
        for alert in told:
            if not alert.resolved:
                first = self.standing_.get(alert.key, {}).get("since", now.isoformat())
                self.standing_[alert.key] = {"since": first, "told": now.isoformat()}
            for sender in self.senders:
                sender.send(alert.record(now))
        while len(self.standing_) > MOST:  # the oldest is forgotten, and told again if it stands
            self.standing_.pop(next(iter(self.standing_)))
        return told

    def _is_due(self, key: str, now: pd.Timestamp) -> bool:
        known = self.standing_.get(key)
        if known is None:
            return True
        return now - pd.Timestamp(known["told"]) >= pd.Timedelta(hours=self.repeat_hours)

    def close(self) -> None:
        """End the senders."""
        for sender in self.senders:
            sender.close()


def below(value: float | None, limit: float | None) -> bool:
    """Whether a value is known, has a limit, and lies below it."""
    return value is not None and limit is not None and value < limit


def above(value: float | None, limit: float | None) -> bool:
    """Whether a value is known, has a limit, and lies above it."""
    return value is not None and limit is not None and value > limit
