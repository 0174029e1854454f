"""What is said of new bars: the pipeline's own `signals`, and of which rows they are asked."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Protocol, Self

import pandas as pd

from pipeline.signal_pipeline import SignalPipeline
from pipeline.store.emission import Rules
from pipeline.streaming.history import History
from stages.base import SieveError
from stages.features.functions import across_assets
from stages.panel import check_panel
from stages.risk.emission import Emission
from stages.signal import Signal

log = logging.getLogger(__name__)


class Says(Protocol):
    """What a worker asks.

    Attributes
    ----------
    depth : int
        Bars of an asset that it looks back on, the asked one included.
    across : bool
        Whether what it says of an asset depends on the bars of others of that time.
    beside : str or None
        Asset whose bars it needs whatever it is asked.
    """

    depth: int
    across: bool
    beside: str | None

    def signals(self, bars: pd.DataFrame, time: pd.Timestamp, assets: set[str]) -> list[Signal]:
        """Signals of the bars of some assets at the newest time of a panel."""
        ...

    def rules(self, signals: Sequence[Signal]) -> Rules | None:
        """Which of them leave; None: all."""
        ...


@dataclass(frozen=True)
class Remembered:
    """A memory that learns no more: what a signal says of it, read once."""

    said: dict[str, Any]

    def summary(self) -> dict[str, Any]:
        """As that of the replay buffer it was made of."""
        return dict(self.said)


class Steady(SignalPipeline):
    """A fitted pipeline that learns no more, and abstains where `SignalPipeline` would refuse.

    A table in which no row can be evaluated is an error of who hands it in; in a stream it is how
    every asset begins.
    """

    digest: str = ""  # of the pipeline it was made of: computed once

    @classmethod
    def of(cls, pipeline: SignalPipeline) -> Self:
        """The same stages; `pipeline` must not learn afterwards."""
        steady = cls(**{f.name: getattr(pipeline, f.name) for f in fields(pipeline)})
        steady.__dict__.update(pipeline.__dict__)
        steady.digest = pipeline.digest
        steady.replay_ = Remembered(pipeline.replay_.summary())  # type: ignore[assignment]
        steady.background  # noqa: B018  made now, or the first bar would wait for it
        return steady

    @cached_property
    def warmup(self) -> int:  # type: ignore[override]
        """As that of `SignalPipeline`, counted once."""
        return SignalPipeline.warmup.fget(self)  # type: ignore[attr-defined,no-any-return]

    def _evaluable_panel(self, bars: pd.DataFrame) -> pd.DataFrame:
        return self.panel(check_panel(bars))


class Model:
    """A fitted pipeline, asked for the newest bars.

    Parameters
    ----------
    pipeline : SignalPipeline
    finished : callable
        Adds to a panel the columns that are made of other assets.
    beside : str or None
        Asset whose bars are needed whatever is asked, as the market is.
    explain, appraise : bool
        See `SignalPipeline.signals`.
    emission : Emission or None
        Which signals leave.
    """

    def __init__(
        self,
        pipeline: SignalPipeline,
        finished: Callable[[pd.DataFrame], pd.DataFrame] = lambda panel: panel,
        beside: str | None = None,
        explain: bool = True,
        appraise: bool = True,
        emission: Emission | None = None,
    ) -> None:
        self.pipeline = Steady.of(pipeline)
        self.finished, self.beside = finished, beside
        self.explain, self.appraise, self.emission = explain, appraise, emission
        self.depth = _depth(self.pipeline)
        self.across = beside is not None or _across(self.pipeline)

    def signals(self, bars: pd.DataFrame, time: pd.Timestamp, assets: set[str]) -> list[Signal]:
        """What `SignalPipeline.signals` says of the bars of `assets` at `time`."""
        panel = self.finished(bars)
        said = self.pipeline.signals(panel, True, None, self.explain, self.appraise)
        return [signal for signal in said if signal.time == time and signal.asset in assets]

    def rules(self, signals: Sequence[Signal]) -> Rules | None:
        """Floors and caps by asset class, and what each trade costs."""
        if self.emission is None:
            return None
        classes = self.pipeline.instruments.classes([signal.asset for signal in signals])
        costs = self.pipeline.decide.cost(classes).tolist()
        return Rules(self.emission, classes.tolist(), costs)


@dataclass(frozen=True)
class Answer:
    """What was said at one time.

    Attributes
    ----------
    signals : list of Signal
    failed : dict of str to str
        Why there is none for an asset.
    """

    signals: list[Signal]
    failed: dict[str, str]


def answer(says: Says, history: History, time: int, assets: set[str]) -> Answer:
    """Signals of the bars of `assets` at `time`; one that fails stands in nobody's way.

    Where the assets fail together, each is asked alone, to find out whose bars it is that cannot
    be answered; the others are then asked without them. A fault becomes no signal at all, and
    never a hold: who reads the answer is told of it.
    """
    with_others = set(history.lines) if says.across else set(assets)
    always = {asset for asset in history.lines if asset == says.beside}

    def ask(asked: set[str], among: set[str]) -> list[Signal]:
        stamp = pd.Timestamp(time, unit="us", tz="UTC")
        return says.signals(history.table(among | always, time), stamp, asked)

    present = {a for a in with_others if history.lines[a].times[0] <= time}
    said, fault = _tried(lambda: ask(assets, present))
    if fault is None:
        return Answer(said, {})
    failed: dict[str, str] = {}
    for asset in sorted(present):
        _, why = _tried(lambda a=asset: ask({a}, {a}))  # type: ignore[misc]
        if why is not None:
            failed[asset] = why
    rest = assets - set(failed)
    if not failed:
        return Answer([], dict.fromkeys(assets, fault))
    said, fault = _tried(lambda: ask(rest, present - set(failed))) if rest else ([], None)
    if fault is not None:
        failed |= dict.fromkeys(rest, fault)
    return Answer(said, {asset: why for asset, why in failed.items() if asset in assets})


def _tried(ask: Callable[[], list[Signal]]) -> tuple[list[Signal], str | None]:
    try:
        return ask(), None
    except Exception as fault:  # noqa: BLE001  kept with the bar, and told: the others go on
        log.error("a prediction failed: %s", fault, exc_info=not isinstance(fault, SieveError))
        code = fault.code if isinstance(fault, SieveError) else "SV-X500"
        return [], f"{code}  {type(fault).__name__}: {str(fault)[:300]}"


def _depth(pipeline: SignalPipeline) -> int:
    """Bars before and with one that a prediction of it looks at."""
    look = int(pipeline.appraiser_.look) if pipeline.appraiser_ is not None else 0
    tied = 0
    if pipeline.decide.repeat is not None:  # a decision also looks at those just before
        tied = int(pd.Timedelta(pipeline.decide.repeat) / pipeline.step_) + 1
    return max(pipeline.warmup, look) + tied


def _across(pipeline: SignalPipeline) -> bool:
    features: Any = pipeline.features_
    if not features.reads_bars:
        return False
    built = set(features.built_)
    compared = any(across_assets(f) for name, f in features.functions() if name in built)
    return compared or (features.market_ == "equal weight" and features.reads_market)
