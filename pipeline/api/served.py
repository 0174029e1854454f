"""A fitted pipeline as it is served: it learns no more, and answers several requests at once."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import pandas as pd

from pipeline.appraised import appraised
from pipeline.signal_pipeline import SignalPipeline
from pipeline.signals import Signals, to_signals
from stages.base import SieveError

MARK = "\x1f"  # between the number of a request and its asset


@dataclass(frozen=True)
class Asked:
    """What a request wants of the model.

    Attributes
    ----------
    bars : DataFrame of shape (N, F)
        A checked panel of bars.
    as_of : Timestamp or None
        See `SignalPipeline.predict`.
    explain : bool
        Whether signals carry their reasons.
    """

    bars: pd.DataFrame
    as_of: pd.Timestamp | None = None
    explain: bool = True


class Served(SignalPipeline):
    """A pipeline whose digest is computed once, because nothing of it changes any more."""

    digest: str = ""  # of the pipeline it was made of

    @classmethod
    def of(cls, pipeline: SignalPipeline) -> Self:
        """The same stages; `pipeline` must not learn afterwards."""
        served = cls(**{f.name: getattr(pipeline, f.name) for f in fields(pipeline)})
        served.__dict__.update(pipeline.__dict__)
        served.digest = pipeline.digest
        return served

    def answers(self, asked: Sequence[Asked]) -> list[Signals | SieveError]:
        """Signals of the newest bars of each request, as `signals` gives them one by one.

        Features are built request by request, since they look across the assets of a panel. The
        stages, whose answers do not depend on the rows that come along, run once for all.

        Parameters
        ----------
        asked : sequence of n Asked

        Returns
        -------
        list of n Signals or SieveError
            An error concerns its own request alone.
        """
        out: list[Signals | SieveError | None] = [None] * len(asked)
        panels: dict[int, pd.DataFrame] = {}
        for i, one in enumerate(asked):
            try:
                panels[i] = self._evaluable_panel(one.bars)
            except SieveError as error:
                out[i] = error
        alike: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for i, panel in panels.items():  # a column that only some have would be blank for others
            alike[(*panel.columns, *panel.dtypes)].append(i)
        for group in alike.values():
            for i, said in self._said_of({i: panels[i] for i in group}).items():
                out[i] = self._answer(asked[i], panels[i], said)
        return [answer for answer in out if answer is not None]

    def _said_of(self, panels: dict[int, pd.DataFrame]) -> dict[int, pd.DataFrame | SieveError]:
        """What the stages say of the newest rows of each panel, and the bars of their windows."""
        if len(panels) == 1:
            [(i, panel)] = panels.items()
            return {i: self._said_alone(panel)}
        together = pd.concat([_numbered(panel, i) for i, panel in panels.items()])
        try:
            said = self._said(together, newest=True)
        except SieveError:  # of one of them: which, and of no other
            return {i: self._said_alone(panel) for i, panel in panels.items()}
        numbers = said.index.get_level_values("asset").str.slice(0, 6).astype(int)
        return {i: _plain(said[numbers == i]) for i in panels}

    def _said_alone(self, panel: pd.DataFrame) -> pd.DataFrame | SieveError:
        try:
            return self._said(panel, newest=True)
        except SieveError as error:
            return error

    def _answer(
        self, one: Asked, panel: pd.DataFrame, said: pd.DataFrame | SieveError
    ) -> Signals | SieveError:
        if isinstance(said, SieveError):
            return said
        try:
            decided = self._decided(panel, said, True, one.as_of)
            rows = decided.index[decided["status"] != "abstain"]
            why = self._explained(said, rows) if one.explain and len(rows) else None
            found = to_signals(self, decided, why)
            return appraised(self, found, decided, one.bars, one.as_of)
        except SieveError as error:
            return error


def _numbered(panel: pd.DataFrame, number: int) -> pd.DataFrame:
    """`panel` with the number of its request before each asset, so that none meets another."""
    asset, time = (panel.index.get_level_values(level) for level in ("asset", "time"))
    names = [f"{number:06d}{MARK}{name}" for name in asset]
    return panel.set_axis(pd.MultiIndex.from_arrays([names, time], names=["asset", "time"]))


def _plain(panel: pd.DataFrame) -> pd.DataFrame:
    asset, time = (panel.index.get_level_values(level) for level in ("asset", "time"))
    names = asset.str.split(MARK, n=1).str[1]
    return panel.set_axis(pd.MultiIndex.from_arrays([names, time], names=["asset", "time"]))
