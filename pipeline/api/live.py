"""The model in service: loaded once, and replaced as a whole when the champion changes."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline import artifacts
from pipeline.api.served import Served
from pipeline.signal_pipeline import SignalPipeline
from stages.base import ArtifactError, SieveError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A model and where it came from; a request keeps the one it began with.

    Attributes
    ----------
    pipeline : Served
    folder : Path
    digest : str
    since : Timestamp
        When it was loaded, UTC.
    """

    pipeline: Served
    folder: Path
    digest: str
    since: pd.Timestamp


class LiveModel:
    """The champion of a root, or one model for good.

    Parameters
    ----------
    root : Path
    model : Path or None
        Folder of a model that is served whatever the champion is.
    clock : callable
        Gives the time, UTC.

    Attributes
    ----------
    loaded : Loaded or None
        None until a model could be loaded.
    fault : SieveError or None
        Why the champion of now is not in service: the one before stays.
    swaps : int
        How often a model took the place of another.
    """

    def __init__(self, root: Path, model: Path | None, clock: Callable[[], pd.Timestamp]) -> None:
        self.root, self.model, self.clock = root, model, clock
        self.loaded: Loaded | None = None
        self.fault: SieveError | None = None
        self.swaps = 0
        self._refused = ""  # digest that could not be loaded: tried once

    def now(self) -> Loaded:
        """The model in service.

        Raises
        ------
        ArtifactError
            SV-X410 if there is none, or why it could not be loaded.
        """
        loaded = self.loaded
        if loaded is not None:
            return loaded
        raise self.fault or ArtifactError(
            "no model is loaded yet", code="SV-X410", cure="ask again in a moment"
        )

    def refresh(self) -> bool:
        """Look at the pointer; load and put in service what it names, if that is new.

        One thread at a time may call it. Requests go on with the model they hold.

        Returns
        -------
        bool
            Whether another model is in service now.
        """
        before = self.loaded
        try:
            folder = self.model or artifacts.champion(self.root)
            wanted = _digest(folder)
            if before is not None and wanted == before.digest:
                self.fault = None
                return False
            if wanted is not None and wanted == self._refused:
                return False
            self._refused = wanted or ""
            pipeline = Served.of(SignalPipeline.load(folder))
            pipeline.background  # noqa: B018  made now, or the first request would wait for it
            self.loaded = Loaded(pipeline, folder, pipeline.digest, self.clock())
        except SieveError as error:
            if self.fault is None or str(error) != str(self.fault):
                log.error("the champion is not in service: %s", error)
            self.fault = error
            return False
        self.fault, self._refused = None, ""
        self.swaps += before is not None
        log.info("model %s in service, from %s", self.loaded.digest[:12], folder)
        return True


def _digest(folder: Path) -> str | None:
    """What the seal beside a manifest says, unverified: loading verifies."""
    try:
        return (folder / artifacts.SEAL).read_text(encoding="ascii", errors="replace").split()[0]
    except (OSError, IndexError):
        return None
