"""Truncate and compare, perturb the future: what was said by a time must not depend on later."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from stages.audit.components import ORDER
from stages.audit.examine import Examined, Finding, examine, first_of_each
from stages.audit.nulls import Null, label_nulls
from stages.audit.plan import LABELS_END, Plan


@dataclass(frozen=True)
class LeakReport:
    """What an audit found.

    Attributes
    ----------
    findings : tuple of Finding
        One a component and column, in the order in which information flows: the first is the
        guilty part, the others are mostly what came of it.
    checked : mapping of str to int
        Comparisons made of each component.
    times : tuple of Timestamp
        Decision times, ascending.
    nulls : tuple of Null
        Beside the verdict, never part of it.
    remarks : tuple of str
        What could not be audited, and why.
    """

    findings: tuple[Finding, ...]
    checked: Mapping[str, int]
    times: tuple[pd.Timestamp, ...]
    nulls: tuple[Null, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing moved."""
        return not self.findings


@dataclass(frozen=True)
class LeakAudit:
    """Examine every part of a pipeline for what it could not have known.

    Parameters
    ----------
    times : int, default=24
        Decision times of features and labels, on all assets; early, spread and random ones.
    fits : int, default=4
        Decision times for which the pipeline is fitted again, at probe size.
    decisions : int, default=6
        Decision times of a fitted pipeline and its explanations.
    assets, bars : int, default=6, 300
        Size of a probe: assets, and bars beside those that features and windows look back.
    nulls : bool, default=True
        Also measure what skill is left when labels are shifted, and when they are shuffled.
    first : bool, default=False
        Stop at the first group of components that leaks.
    seed : int, default=0
    """

    times: int = 24
    fits: int = 4
    decisions: int = 6
    assets: int = 6
    bars: int = 300
    nulls: bool = True
    first: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.times, self.fits, self.decisions, self.assets) < 1:
            raise ValueError(f"need times, fits, decisions and assets >= 1, got {self}")
        if self.bars < 2 * LABELS_END or self.seed < 0:
            raise ValueError(f"need bars >= {2 * LABELS_END} and seed >= 0, got {self}")

    def run(
        self,
        pipeline: Any,
        bars: pd.DataFrame,
        y: pd.DataFrame | None = None,
        split: Any = None,
        model: Any = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> LeakReport:
        """Audit `pipeline` on `bars`.

        Parameters
        ----------
        pipeline : SignalPipeline
            What would be trained; copies are fitted.
        bars : DataFrame of shape (N, F)
        y : DataFrame of shape (n, 3 to 5), optional
            Labels that come with the data.
        split : DateSplit, RollingSplit or None
            The outer split that is to be reported on.
        model : SignalPipeline, optional
            Fitted, to be audited in place of the probe where something is decided or explained.
        tell : callable, optional
            Called with the name of what is examined next.

        Raises
        ------
        DataError
            If the bars do not suffice to fit a probe.
        """
        plan = Plan(self, pipeline, bars, y, split, model)
        done: list[Examined] = []
        told = ""
        for name, run, trials in plan:
            if name != told:
                tell(f"examining {name}")
            told = name
            done.append(examine(run, trials))
            if self.first and done[-1].findings:
                break
        found = first_of_each([finding for part in done for finding in part.findings])
        checked: Counter[str] = Counter()
        for part in done:
            checked.update(part.checked)
        remarks = [*_unseen_here(pipeline, y, split), *(r for part in done for r in part.remarks)]
        whole = self.nulls and not (self.first and found)
        if whole:
            tell("measuring skill where there can be none")
        return LeakReport(
            findings=tuple(sorted(found, key=lambda f: ORDER.index(f.component))),
            checked={name: checked[name] for name in ORDER if name in checked},
            times=tuple(sorted({time for part in done for time in part.times})),
            nulls=label_nulls(plan.probe, plan.sample, self.seed) if whole else (),
            remarks=tuple(dict.fromkeys(remarks)),
        )


def _unseen_here(pipeline: Any, y: pd.DataFrame | None, split: Any) -> list[str]:
    """What no audit of a pipeline can see, because it was done before."""
    out = []
    if not hasattr(pipeline.features, "columns"):
        out.append("features come with the data: how they were computed is not seen here")
    if y is not None:
        out.append("labels come with the data: how they were computed is not seen here")
    if hasattr(split, "paths"):
        out.append("the split trains on what comes after a tested group, by design")
    return out
