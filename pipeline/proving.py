"""The audit put to the proof: planted leaks it must find, honest pipelines it must pass."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd
from hydra import compose, initialize_config_module

from pipeline.assemble import assemble, load_source
from stages.audit.leak import LeakAudit, LeakReport
from stages.audit.zoo.honest import Bars, Honest
from stages.audit.zoo.leaks import Leak
from stages.features.build import FeatureSet
from stages.panel import warmup

if TYPE_CHECKING:
    from pipeline.signal_pipeline import SignalPipeline

SHORT = 60  # bars that a context or a rule of these pipelines may look back
# enough to meet every leak of the zoo within seconds
QUICK = LeakAudit(times=12, fits=3, decisions=2, assets=5, bars=160, nulls=False, first=True)
GROUND = Honest(
    words=(
        *("horizon=3", "delay=1", "window=4", "seed=1", "filter=lightgbm", "refiner=none"),
        *("folds.n_folds=4", "folds.first=0.4", "decide.certainty=0.5"),
    ),
    bars=Bars(assets=5, times=260, seed=1),
    columns=("return_1", "return_5", "volatility_10", "sma_10"),
)


@dataclass(frozen=True)
class Proof:
    """What the audit said of one pipeline of the zoo.

    Attributes
    ----------
    kind, name : str
        Of the leak, or ``honest`` and the number.
    leak : Leak or None
    report : LeakReport
    """

    kind: str
    name: str
    leak: Leak | None
    report: LeakReport

    @property
    def right(self) -> bool:
        """Whether a leak was found in the part it was planted in, or an honest pipeline passed."""
        if self.leak is None:
            return self.report.passed
        return not self.report.passed and self.report.findings[0].component in self.leak.parts


def prove_leaks(leaks: Iterable[Leak], audit: LeakAudit = QUICK) -> Iterator[Proof]:
    """Plant each leak in a real pipeline, and audit it."""
    pipeline, bars, y = built(GROUND)
    for leak in leaks:
        yield Proof(leak.kind, leak.name, leak, audit.run(leak.plant(pipeline), bars, y))


def prove_honest(honest: Iterable[Honest], audit: LeakAudit = QUICK) -> Iterator[Proof]:
    """Audit pipelines that have no leak."""
    for number, each in enumerate(honest):
        name = " ".join(each.words)
        yield Proof("honest", f"{number} {name}", None, audit.run(*built(each)))


def built(honest: Honest) -> "tuple[SignalPipeline, pd.DataFrame, pd.DataFrame | None]":
    """The pipeline of a configuration, its bars, and labels where they come with the data."""
    given = ["data=synthetic", "data.market.times=400", "data.market.assets=5"]
    words = [*honest.words, *(given if honest.bars is None else [])]
    with initialize_config_module("conf", version_base="1.3"):
        cfg = compose("config", overrides=words)
    pipeline: SignalPipeline = assemble(cfg, "pipeline")
    if honest.bars is None:
        source = load_source(cfg)
        return pipeline, source.bars, source.y
    core = pipeline.features
    assert isinstance(core, FeatureSet)
    short = FeatureSet(
        columns={n: f for n, f in core.columns.items() if n in honest.columns},
        context={n: f for n, f in core.context.items() if warmup(f) <= SHORT},
        rules={n: f for n, f in core.rules.items() if warmup(f) <= SHORT},
        min_coverage=core.min_coverage,
    )
    return replace(pipeline, features=short), honest.bars.draw(), None
