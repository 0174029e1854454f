"""The state of one running service, and what it can say of its own health."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa

from pipeline import artifacts
from pipeline.alerts import Alerts
from pipeline.api.batch import Batcher, Reader
from pipeline.api.live import LiveModel, Loaded
from pipeline.api.over_time import DAY, Counts
from pipeline.api.settings import Settings
from pipeline.api.tokens import Tokens
from pipeline.certificates import standing
from pipeline.store.queries import Where, select_active
from pipeline.store.rows import Stored, micros, stored_of
from pipeline.store.signal_store import SignalStore, utc_now
from pipeline.store.tables import SIGNALS
from stages.base import SieveError

RECENT = 12  # periods of 30 days in which drift is looked for
MONTH = 30  # days


@dataclass(frozen=True)
class Parts:
    """What a service is made of.

    Attributes
    ----------
    settings : Settings
    tokens : Tokens
    store : SignalStore
    root : Path
        Whose champion is served.
    read : callable
        Checks a posted table and returns its bars.
    config : callable
        Digest of the settings of a prediction, given `as_of` as text (or None) and `explain`.
    model : Path or None
        Folder of a model that is served in place of the champion.
    about : str
        What the signals are and are not.
    alerts : Alerts or None
        Who is told when something is wrong with the service.
    clock : callable
        Gives the time, UTC.
    """

    settings: Settings
    tokens: Tokens
    store: SignalStore
    root: Path
    read: Reader
    config: Callable[[str | None, bool], str]
    model: Path | None = None
    about: str = "Signals are estimates, not advice."
    alerts: Alerts | None = None
    clock: Callable[[], pd.Timestamp] = utc_now


class Service:
    """What the routes ask: the live model, the store, and how both are doing.

    Parameters
    ----------
    parts : Parts
    """

    def __init__(self, parts: Parts) -> None:
        self.settings, self.store, self.root = parts.settings, parts.store, parts.root
        self.tokens, self.config, self.about = parts.tokens, parts.config, parts.about
        self.clock, self.alerts = parts.clock, parts.alerts
        self.live = LiveModel(parts.root, parts.model, parts.clock)
        self.counts = Counts(parts.store.database)
        self.batcher = Batcher(self.live, parts.read, parts.settings.batch, parts.settings.queue)

    def last_run(self) -> dict[str, Any] | None:
        """The last run that told of itself, and its age in seconds; None where there was none."""
        found = self.counts.last_run()
        if found is None:
            return None
        age = (self.clock() - found["at"]).total_seconds()
        return found | {"age_seconds": max(0.0, age)}

    def ready(self) -> dict[str, Any]:
        """Whether the service can answer, and what stands in the way."""
        obstacles, run = [], None
        loaded, fault = self.live.loaded, self.live.fault
        if loaded is None:
            obstacles.append(f"model: {fault.what if fault else 'not loaded yet'}")
        try:
            run = self.last_run()
        except SieveError as error:
            obstacles.append(f"store: {error.code}")
        limit = self.settings.stale_after
        if limit is not None and not obstacles:
            if run is None:
                obstacles.append("last run: none yet")
            elif run["age_seconds"] > 3600 * limit:
                hours = run["age_seconds"] / 3600
                obstacles.append(f"last run: {hours:.1f} h ago, allowed {limit:g} h")
        return {
            "ready": not obstacles,
            "model": loaded.digest if loaded else None,
            "obstacles": obstacles,
            "last_run": run,
        }

    def gauges(self) -> dict[str, Any]:
        """What a scrape of the metrics reads."""
        loaded, found = self.live.loaded, self.ready()
        run = found["last_run"]
        return {
            "model": loaded.digest if loaded else "",
            "ready": float(found["ready"]),
            "model_loaded_seconds": loaded and (self.clock() - loaded.since).total_seconds(),
            "model_swaps": float(self.live.swaps),
            "model_refused": float(self.live.fault is not None),
            "last_run_age_seconds": run and run["age_seconds"],
        }

    def health(self) -> dict[str, Any]:
        """What is known of the worth of the model in service."""
        loaded = self.live.now()
        pipeline = loaded.pipeline
        coverage = pipeline.record_.coverage_
        return {
            "model": loaded.digest,
            "loaded": loaded.since,
            "learned_until": pipeline.learned_until_,
            "warmup": pipeline.warmup,
            "universe": sorted(getattr(pipeline.features_, "universe_", {})),
            "skill": self._skill(loaded),
            "coverage": None
            if coverage is None
            else {"level": coverage.level} | coverage.realised(),
            "leak_audit": standing(loaded.folder, pipeline),
            "evaluation": pipeline.evaluation_,
            "drift": self.drift(),
            "fault": self.live.fault and self.live.fault.what,
        }

    def drift(self) -> list[dict[str, Any]]:
        """What the model in service said of its own doubt, month by month; empty without one."""
        loaded = self.live.loaded
        if loaded is None:
            return []
        since = micros(self.clock()) - RECENT * MONTH * DAY
        return self.counts.drift(loaded.digest, MONTH, since)

    def _skill(self, loaded: Loaded) -> Mapping[str, Any]:
        path = loaded.pipeline.record_.skill_.path_
        needed = loaded.pipeline.record_.skill_.needed
        if path.empty:
            return {"needed": needed, "e_value": 1.0, "bars": 0, "proven": needed == 1}
        last = path.iloc[-1]
        return {
            "needed": needed,
            "e_value": float(last["e_value"]),
            "bars": int(last["bars"]),
            "proven": bool(last["proven"]),
            "until": path.index[-1],
        }

    def active(self, at: pd.Timestamp, n: int, where: Where) -> tuple[list[Stored], int]:
        """The `n` newest of the signals that `SignalStore.active` gives, and how many there are."""
        query = select_active(micros(at), where)
        counted = query.with_only_columns(sa.func.count(), maintain_column_froms=True)
        # by an expression: the index of the time would lead through all that was ever decided
        newest = query.order_by((SIGNALS.c.time + 0).desc(), SIGNALS.c.id.desc()).limit(n)

        def read(connection: sa.Connection) -> tuple[list[Stored], int]:
            found = [stored_of(row) for row in connection.execute(newest).mappings()]
            return found, connection.execute(counted).scalar() or 0

        return self.store.database.read(read)

    def performance(self, by: str, where: Where) -> pd.DataFrame:
        """`SignalStore.performance`, counted at most once in a while."""
        key = ("performance", by, *sorted((name, str(value)) for name, value in where.items()))
        return self.counts.once(key, lambda: self.store.performance(by, **where))

    def models(self) -> list[dict[str, Any]]:
        """The models of the root, newest first; what is no model is passed over."""
        loaded, champion = self.live.loaded, self._champion()
        out = []
        for path in (self.root / "models").glob(f"*/{artifacts.MANIFEST}"):
            try:
                digest = (path.parent / artifacts.SEAL).read_text(encoding="ascii").split()[0]
                made = path.stat().st_mtime
                facts = json.loads((path.parent / artifacts.FACTS).read_text(encoding="utf-8"))
            except (OSError, ValueError, IndexError):
                continue
            line = {"model": digest, "name": path.parent.name, "champion": digest == champion}
            serves = loaded is not None and digest == loaded.digest
            out.append((made, line | {"in_service": serves, "facts": facts}))
        return [line for _, line in sorted(out, key=lambda pair: pair[0], reverse=True)]

    def _champion(self) -> str:
        try:
            folder = artifacts.champion(self.root)
            return (folder / artifacts.SEAL).read_text(encoding="ascii").split()[0]
        except (SieveError, OSError, ValueError, IndexError):
            return ""
