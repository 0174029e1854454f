"""The one object: three stages between bars and signals, the same for every command."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from pipeline import artifacts, recipe
from pipeline.appraised import appraised
from pipeline.content import content, restore
from pipeline.data.cached import built
from pipeline.data.instruments import Instruments
from pipeline.evaluable import abstain, none_evaluable, obstacles, outdated, too_short
from pipeline.inquiry import Ask, Inquiry, inquiries
from pipeline.learning import learn
from pipeline.matured import newest_rows
from pipeline.signals import Signals, choose_rows, expiries, to_signals
from stages.base import ConfigError, DataError, Explanation, State, fitted
from stages.ensemble.conformal import Coverage
from stages.ensemble.decide import Decide
from stages.ensemble.skill import SkillTest
from stages.explain.background import Background, reference_panel
from stages.explain.explainer import Effort, Explainer
from stages.features.build import FeatureSet
from stages.features.given import GivenFeatures
from stages.features.quality import Quality
from stages.filter.tree_filter import TreeFilter
from stages.folds import PurgedWalkForward
from stages.labels import Given
from stages.online.learning import Learning, Pending
from stages.online.replay import ReplayBuffer
from stages.online.track_record import TrackRecord
from stages.panel import (
    age,
    asset_starts,
    bars_left,
    check_labels,
    check_panel,
    last_rows,
    settled,
    stretch,
    until,
)
from stages.risk.appraise import Appraiser
from stages.roles import DEPLOYED, EVERY
from stages.stack import Stack, pass_forward

log = logging.getLogger(__name__)


@dataclass
class SignalPipeline:
    """Features, three stages and a decision: fitted, explained, updated and saved as one.

    Parameters
    ----------
    features : FeatureSet or GivenFeatures
        Turns bars into the panel.
    labels : TripleBarrier, FixedHorizon, Terciles or Given
        Turns bars into what came of them.
    folds : PurgedWalkForward
        How `fit` makes the predictions that the next stage learns from.
    filter : TreeFilter
        Stage 1.
    refiner : SequenceRefiner or None
        Stage 2; None is the ablation without it.
    ensemble : BayesianStacker or SoftVote
        Stage 3.
    decide : Decide
        From posterior to side, status and why-not.
    skill : SkillTest
        Nothing is fired before it has passed.
    coverage : Coverage or None
        Sets of sides and intervals of returns; None promises none.
    explainer : Explainer
        Reference rows, and how many reasons are put in words.
    replay : ReplayBuffer
        Memory of matured rows, part of every signal's provenance.
    instruments : Instruments
        Asset class, calendar and sector by asset.
    appraiser : Appraiser or None, default=None
        Risk, target, stop, size and checks of each signal; None says nothing of them.
    max_missing : float in [0, 1], default=0.2
        Share of a row's inputs that may be missing before the row abstains.
    quality : Quality
        Which inputs are not learnt from, and which rows are not predicted.

    Attributes
    ----------
    features_, labels_
        What they learnt from the training bars.
    quality_ : Quality
        What is wrong with the inputs of the training bars, and the spans that they had.
    stack_ : Stack
        The three fitted stages.
    unseen_ : DataFrame
        Out-of-fold rows with the columns of every stage and the decision: what to evaluate.
    record_ : TrackRecord
        Skill and coverage so far: first of `unseen_`, then of what `update` learns.
    appraiser_ : Appraiser or None
        Its risk score is fitted on `unseen_`, and learns what `update` learns.
    references_ : DataFrame
        Rows the explanations compare with.
    fidelity_ : dict of str to float
        How close fast reasons come to full ones, see `Explainer.measure`.
    roles_ : Roles
        Which rows did what in which fit; of a stored model the table alone.
    pending_ : Pending
        What the members of stages 1 and 2 have still to learn, where they learn at all.
    learned_until_ : Timestamp
        Newest bar that a horizon of a label learnt from reaches.
    learned_rows_ : dict of str to Timestamp
        Newest row of each asset that was learnt from: `update` goes on after it.
    evaluation_ : dict or None
        Card of the evaluation that travels with the artifact.
    """

    features: FeatureSet | GivenFeatures
    labels: Any
    folds: PurgedWalkForward
    filter: TreeFilter
    refiner: Any
    ensemble: Any
    decide: Decide
    skill: SkillTest = field(default_factory=SkillTest)
    coverage: Coverage | None = None
    explainer: Explainer = field(default_factory=Explainer)
    replay: ReplayBuffer = field(default_factory=ReplayBuffer)
    instruments: Instruments = field(default_factory=Instruments)
    max_missing: float = 0.2
    quality: Quality = field(default_factory=Quality)
    appraiser: Appraiser | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.max_missing <= 1:
            raise ValueError(f"max_missing must lie in [0, 1], got {self.max_missing}")
        if not isinstance(self.folds, PurgedWalkForward):
            raise ValueError(
                f"folds must be PurgedWalkForward, got {type(self.folds).__name__}: stages pass "
                "their words forward in time; use it as split"
            )
        horizon = self.labels.horizon
        if self.folds.embargo < horizon:
            raise ValueError(
                f"folds.embargo={self.folds.embargo} bars is shorter than horizon={horizon}: "
                "training labels would touch the test block; raise folds.embargo"
            )
        if self.coverage is not None:
            own, theirs = (self.coverage.horizon, self.coverage.delay), (horizon, self.labels.delay)
            if own != theirs:
                raise ValueError(
                    f"coverage has horizon and delay {own}, the labels {theirs}: an interval "
                    "would be of another return than the one that is decided on"
                )

    @property
    def window(self) -> int:
        """Bars that stage 2 reads for one row, L; 1 without stage 2."""
        return int(self.refiner.window) if self.refiner is not None else 1

    @property
    def warmup(self) -> int:
        """Bars an asset needs, the newest included, for its newest row to be evaluable."""
        look_back = int(fitted(self, "features_").warmup) + self.window
        # else what stands still would pass as long as little of it is shown
        return max(look_back, self.quality.stale + 1) if self.features_.reads_bars else look_back

    def fit(
        self,
        bars: pd.DataFrame,
        y: pd.DataFrame | None = None,
        rows: pd.Index | None = None,
    ) -> Self:
        """Fit each stage on what the stages before it said about rows they had not seen.

        Parameters
        ----------
        bars : DataFrame of shape (N, F)
            A checked panel of bars.
        y : DataFrame of shape (n, 3), optional
            Labels that override the labeler; see `check_labels`.
        rows : MultiIndex, optional
            The only rows that anything is learnt from, where others between them are held out;
            all bars still are the past of the rows after them.

        Raises
        ------
        DataError
            When too few rows are evaluable, or a block lacks a side.
        LeakError
            SV-F26 when a row has two roles in a fold; see `Roles`.
        """
        check_panel(bars)
        self.features_ = replace(self.features).fit(bars)
        self.step_ = _median_step(bars)
        self._refuse_short(bars)
        self.labels_ = self._labeler(bars, y, rows)
        self.quality_ = replace(self.quality)  # knows no spans yet, so that all rows lie in them
        first = self._first_block(bars, rows)
        y = check_labels(self.labels_.label(bars) if y is None else y)
        panel = self._without_faults(self.panel(bars), y.index if rows is None else rows, first)
        y = y[panel["ready"].reindex(y.index, fill_value=False).to_numpy()]
        y = y if rows is None else y[y.index.isin(rows)]
        if y.empty:
            raise self._unlabelled(panel)
        log.info("%d labelled rows of %d assets", len(y), len(y.index.unique("asset")))
        template = Stack(self.filter, self.refiner, self.ensemble)
        passed = pass_forward(template, panel, y, self.folds, self.decide)
        self.stack_, self.gate_ = passed.stack, dict(passed.gate)
        self.record_ = TrackRecord(self.skill, self.coverage).fit(
            passed.unseen, y, bars, self.labels.span
        )
        self.unseen_ = self.judged(passed.unseen)
        heard = [name for name, _ in self.stack_]
        judged = {"calibrate": passed.unseen.index}
        passed.roles.record("record", DEPLOYED, judged, hears=heard)
        self.appraiser_ = None
        if self.appraiser is not None:
            fresh, classes = replace(self.appraiser), self.instruments.classes
            self.appraiser_ = fresh.fit(passed.unseen, bars, classes, self.labels.span)
            passed.roles.record("risk", DEPLOYED, fresh.roles_, hears=heard)
        self.roles_ = passed.roles.record("labels", EVERY, getattr(self.labels_, "roles_", {}))
        known = panel if rows is None else panel.assign(ready=panel.index.isin(y.index))
        chosen = self.explainer.pick(self.stack_, known, self.window)
        self.roles_.record("references", DEPLOYED, {"reference": chosen})
        references = reference_panel(panel, chosen, self.window)
        self.references_ = references.astype("float32")  # as they are stored
        self.fidelity_ = self.explainer.measure(self.stack_, known, self.background, self.window)
        self.replay_ = replace(self.replay).add(passed.panel, passed.matured)
        self.pending_ = Pending(self.replay)
        self.learned_until_, self.learned_rows_ = settled(y).max(), newest_rows(y)
        self.evaluation_: dict[str, Any] | None = None  # of another training, if any
        return self

    @property
    def background(self) -> Background:
        """What reasons compare with, and what stages 1 and 2 say of it: they are asked once."""
        references = fitted(self, "references_")
        made = getattr(self, "_background", None)
        if made is None or made[0] is not references:
            made = self._background = references, Background.of(self.stack_, references)
        return made[1]

    def forget_background(self) -> None:
        """After members have moved: what they had said of the references is no longer so."""
        self.__dict__.pop("_background", None)

    def predict(
        self, bars: pd.DataFrame, newest: bool = False, as_of: pd.Timestamp | None = None
    ) -> pd.DataFrame:
        """Panel of `bars` with the columns of every stage and the decision.

        Parameters
        ----------
        bars : DataFrame of shape (N, F)
        newest : bool, default=False
            Only the newest row of each asset: the same bits, sooner.
        as_of : Timestamp, optional
            Assets whose newest signal has expired by then abstain as stale; default the newest
            bar of all.

        Raises
        ------
        DataError
            SV-F18 when no asset has the history that `warmup` asks for (names each), or when
            all rows that have it lack inputs or the rest of the universe.
        """
        whole = self._evaluable_panel(bars)
        return self._decided(whole, self._said(whole, newest), newest, as_of)

    def signals(
        self,
        bars: pd.DataFrame,
        newest: bool = True,
        as_of: pd.Timestamp | None = None,
        explain: bool = True,
        appraise: bool = True,
    ) -> Signals:
        """Signals for the newest bar of each asset, or for all bars.

        Parameters
        ----------
        bars, newest, as_of
            See `predict`.
        explain : bool, default=True
            Whether each carries its reasons.
        appraise : bool, default=True
            Whether each carries risk, size and checks, where the model has an `appraiser`.
        """
        whole = self._evaluable_panel(bars)  # once: the features are the dear part
        said = self._said(whole, newest)
        panel = self._decided(whole, said, newest, as_of)
        rows = panel.index[panel["status"] != "abstain"]
        why = self._explained(said, rows) if explain and len(rows) else None
        out = to_signals(self, panel, why)
        return appraised(self, out, panel, bars, as_of) if appraise else out

    def explain(
        self, bars: pd.DataFrame, rows: pd.Index, effort: Effort | None = None
    ) -> Explanation:
        """Contributions of the raw inputs to the margin of buy over sell at `rows`.

        Parameters
        ----------
        bars : DataFrame of shape (N, F)
        rows : MultiIndex of n rows
        effort : {'fast', 'full'}, optional
            Default what signals carry.

        Raises
        ------
        DataError
            SV-F18 for a row that is not in `bars`, or lacks the history to be evaluated.
        """
        return self.explain_panel(self.panel(check_panel(bars)), rows, effort)

    def explain_panel(
        self, panel: pd.DataFrame, rows: pd.Index, effort: Effort | None = None
    ) -> Explanation:
        """`explain`, where `panel` has been made of the bars already: that is the dear part."""
        panel = stretch(panel, rows, self.window)
        panel = fitted(self, "stack_").predict(_asked(panel, panel.index.isin(rows)))
        silent = panel.loc[rows, "margin"].isna().to_numpy()
        if silent.any():
            asset, time = rows[int(silent.argmax())]
            raise DataError(
                f"{asset} at {time} cannot be evaluated, so there is nothing to explain",
                code="SV-F18",
                where=f"{silent.sum()} of {len(rows)} rows",
                why=f"this model needs {self.warmup} bars of history, and most inputs",
                cure="explain rows that do not abstain",
            )
        return self._explained(panel, rows, effort)

    def inquire(
        self,
        bars: pd.DataFrame,
        asset: str | None = None,
        time: pd.Timestamp | None = None,
        ask: Ask | None = None,
        exact: bool = False,
    ) -> list[Inquiry]:
        """Signals of one asset, or of one time, each with all that can be said about it.

        Parameters
        ----------
        bars : DataFrame of shape (N, F)
        asset : str, optional
            Default all.
        time : Timestamp, optional
            UTC; midnight stands for all bars of that day. Default the newest bar of each asset.
        ask : Ask, optional
            What to find out.
        exact : bool, default=False
            Midnight stands for itself.

        Raises
        ------
        DataError
            SV-F18 when there is no such row, or none is evaluable; see `predict`.
        """
        ask, whole = ask or Ask(), self._evaluable_panel(bars)
        newest = time is None
        decided = self._decided(whole, self._said(whole, newest), newest, None)
        decided = choose_rows(decided, asset, time, exact)
        rows = decided.index[decided["status"] != "abstain"]
        why, windows = None, decided
        if len(rows):
            windows = self.judged(self.stack_.predict(stretch(whole, rows, self.window)))
            said = windows["why_not"].copy()
            said[rows] = decided.loc[rows, "why_not"]  # a repeat shows among all bars only
            windows = windows.assign(why_not=said)
            why = self._explained(windows, rows, ask.effort)
        signals = appraised(self, to_signals(self, decided, why), decided, bars, None)
        return inquiries(self, windows, signals, why, ask)

    def update(
        self,
        bars: pd.DataFrame,
        y: pd.DataFrame | None = None,
        learning: Learning | None = None,
        drifted: bool = False,
    ) -> dict[str, int]:
        """Learn from labels that matured since the last time: stage 3, and the replay buffer.

        Before it learns, the model is judged by what it had said of the rows, as if it had been
        updated at every bar: skill and coverage count nothing that it said afterwards.

        Parameters
        ----------
        bars : DataFrame of shape (N, F)
            With `warmup` bars before the first new row.
        y : DataFrame of shape (n, 3), optional
            Labels that override the labeler.
        learning : Learning, optional
            How the members of stages 1 and 2 learn too; default not at all.
        drifted : bool, default=False
            Whether a change of the market is confirmed, so that members learn at once, and more.

        Returns
        -------
        mapping
            Rows ``learned``, ``known`` (up to the newest row learnt from before, of their asset;
            of all assets for one that is new) and ``incomplete`` (history too short, or bars that
            came so late that members had learnt from those after them).

        Raises
        ------
        DataError
            SV-F25 when a label ends after the newest bar: its horizon is still open.
        """
        return learn(self, bars, y, learning, drifted).counts

    def save(self, root: Path | str, facts: Mapping[str, Any] | None = None) -> Path:
        """Write the artifact as a folder named by its digest under `root`; return the folder."""
        values, parts = self.content()
        folder = Path(root) / artifacts.digest_of(values, parts)[:16]
        artifacts.write(folder, values, parts, facts)
        return folder

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read an artifact back; every part is verified before any loader sees a byte.

        Raises
        ------
        ArtifactError
            When a part is missing, extra, damaged, or made by an incompatible library.
        """
        artifact = artifacts.read(Path(folder))
        pipeline = recipe.build(artifact.values["recipe"])
        return pipeline.restore(State(artifact.values, artifact.parts))

    @property
    def digest(self) -> str:
        """SHA-256 of the artifact's manifest: what a signal names as its model."""
        return artifacts.digest_of(*self.content())

    def panel(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Bars with their inputs, the return at stake, its cost, and which rows are evaluable."""
        panel = built(fitted(self, "features_"), bars)
        extra = self._obstacles(panel, self.features_.ready(bars))
        if self.coverage is not None:
            extra["sigma"] = self.coverage.sigma(bars)
        classes = self.instruments.classes(bars.index.get_level_values("asset"))
        if self.decide.floors:
            extra["floor"] = self.decide.floor(classes)
        scale = self.labels_.scale(bars)
        if scale is not None:
            extra |= {"scale": scale, "cost": self.decide.cost(classes)}
        elif any(self.decide.cost_bps.values()):
            raise ConfigError(
                "costs are set, but nothing says what return is at stake",
                code="SV-X102",
                where=f"labels {type(self.labels_).__name__}, costs {dict(self.decide.cost_bps)}",
                why="labels that come with the data carry no barrier to compare the cost with",
                cure="costs=none, or labels=triple_barrier",
            )
        return _beside(panel, pd.DataFrame(extra, panel.index))

    def judged(self, panel: pd.DataFrame, record: TrackRecord | None = None) -> pd.DataFrame:
        """`panel` with skill and coverage as known at the time of each row, and the decision.

        Parameters
        ----------
        panel : DataFrame of shape (N, F)
            With the columns of every stage.
        record : TrackRecord, optional
            Of what was known when; default `record_`.
        """
        panel = _beside(panel, (record or fitted(self, "record_")).predict(panel))
        return _beside(panel, self.decide.decide(panel))

    def content(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """JSON values and binary parts that make up the artifact."""
        return content(self)

    def restore(self, state: State) -> Self:
        """Take back what `content` gave."""
        restore(self, state)
        return self

    def _obstacles(self, panel: pd.DataFrame, covered: np.ndarray) -> dict[str, Any]:
        """What keeps rows from being evaluated, and which have nothing in their way."""
        unfit = self.quality_.obstacles(panel, self.features_.sources(panel))
        why = obstacles(panel, covered, self.warmup, self.max_missing, unfit)
        return {"obstacle": why, "ready": (why == "").to_numpy()}

    def _without_faults(
        self, panel: pd.DataFrame, rows: pd.Index, first: pd.Timestamp
    ) -> pd.DataFrame:
        """`panel` less the features in which there is nothing to learn, here and from now on.

        Judged on `rows`, as what is learnt from: bars without a label yet have no say.
        """
        covered = self.features_.ready(panel)
        known = covered & panel.index.isin(rows)
        early = (panel.index.get_level_values("time") <= first) & known
        sources = self.features_.sources(panel)
        self.quality_.fit(panel, known, early, sources)
        gone = list(self.quality_.review_.dropped)
        if not gone:
            return panel
        self.features_.drop(gone)
        panel = panel.drop(columns=gone)
        return panel.assign(**self._obstacles(panel, covered))

    def _evaluable_panel(self, bars: pd.DataFrame) -> pd.DataFrame:
        """`panel`, or why none of its rows can be evaluated."""
        self._refuse_short(check_panel(bars))
        panel = self.panel(bars)
        if not panel["ready"].any():
            raise none_evaluable(panel["obstacle"])
        return panel

    def _said(self, panel: pd.DataFrame, newest: bool) -> pd.DataFrame:
        """What the stages say and what is decided: of all rows, or of the newest of each asset.

        With the newest come the bars of their windows, of which the stages are asked nothing.
        """
        if newest:
            asked = self._tied(panel) + 1
            left = bars_left(panel)
            near = left < self.window - 1 + asked
            panel = _asked(panel[near], left[near] < asked)
        return self.judged(fitted(self, "stack_").predict(panel))

    def _decided(
        self, panel: pd.DataFrame, said: pd.DataFrame, newest: bool, as_of: pd.Timestamp | None
    ) -> pd.DataFrame:
        """Rows of `said`, where stale or not evaluable as an abstention."""
        expires = expiries(last_rows(panel), self.instruments, self.labels.span, self.step_)
        why = outdated(panel["obstacle"], expires, as_of)
        said = last_rows(said) if newest else said
        return abstain(said, why.loc[said.index])

    def _tied(self, panel: pd.DataFrame) -> int:
        """Most rows of an asset, beside its newest, that the decision on that one looks at."""
        starts, times = asset_starts(panel), panel.index.get_level_values("time")
        since = self.decide.since(pd.DatetimeIndex(times[starts[1:] - 1]))
        within = times >= since.repeat(np.diff(starts))
        return int(np.add.reduceat(np.asarray(within, dtype=int), starts[:-1]).max()) - 1

    def _explained(
        self, panel: pd.DataFrame, rows: pd.Index, effort: Effort | None = None
    ) -> Explanation:
        return self.explainer.explain(self.stack_, panel, rows, self.background, effort)  # type: ignore[arg-type]

    def _labeler(self, bars: pd.DataFrame, y: pd.DataFrame | None, rows: pd.Index | None) -> Any:
        """Labeler whose barrier width is fitted on bars that every fold trains on."""
        if y is not None:
            return Given(self.labels.horizon, self.labels.delay)
        return replace(self.labels).fit(until(bars, self._first_block(bars, rows)), rows)

    def _first_block(self, bars: pd.DataFrame, rows: pd.Index | None) -> pd.Timestamp:
        """Last time that every fold trains on."""
        times = (bars.index if rows is None else rows).unique("time").sort_values()
        # the last bars have no label, so the first block ends that much earlier; and the
        # embargo before the second holds for the width as for any other training
        labelled = len(times) - (self.labels.span if rows is None else 0)
        return times[max(int(self.folds.first * labelled) - 1 - self.folds.embargo, 0)]

    def _refuse_short(self, bars: pd.DataFrame) -> None:
        if not (age(bars) >= self.warmup - 1).any():
            raise too_short(bars, self.warmup, self.window)

    def _unlabelled(self, panel: pd.DataFrame) -> DataError:
        if not panel["ready"].any():
            return none_evaluable(panel["obstacle"])
        return DataError(
            "no evaluable row has a label",
            code="SV-F18",
            where=f"{int(panel['ready'].sum())} evaluable rows of {len(panel)}",
            why=f"a row needs {self.warmup} bars up to it, and its label's bars after it",
            cure=f"bring more than {self.warmup + self.labels.span} bars of each asset",
        )


def _beside(panel: pd.DataFrame, columns: pd.DataFrame) -> pd.DataFrame:
    """`panel` with columns of the same rows in place of its own of that name."""
    had = [name for name in columns if name in panel]
    kept = panel.drop(columns=had) if had else panel
    return pd.concat([kept, columns.set_axis(panel.index)], axis=1)


def _asked(panel: pd.DataFrame, rows: np.ndarray) -> pd.DataFrame:
    """`panel` where only `rows` (N,) are evaluable: stages cost as many rows as they answer."""
    return panel.assign(ready=panel["ready"].to_numpy() & rows)


def _median_step(bars: pd.DataFrame) -> pd.Timedelta:
    times = pd.DatetimeIndex(bars.index.unique("time")).sort_values()
    if len(times) < 2:
        raise DataError("the bars hold a single time", code="SV-F18", cure="bring more history")
    return pd.Timedelta(np.median(np.diff(times.as_unit("us").asi8)), unit="us")
