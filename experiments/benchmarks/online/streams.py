"""Markets that flip, return, stay and lie, and the models that live through them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier
from sklearn.ensemble import RandomForestClassifier

from pipeline.learning import learn
from pipeline.signal_pipeline import SignalPipeline
from stages.base import State
from stages.ensemble.decide import Decide
from stages.ensemble.stacker import BayesianStacker
from stages.explain.explainer import Explainer
from stages.features.given import GivenFeatures
from stages.filter.relearn import TreeLearning
from stages.filter.tree_filter import TreeFilter
from stages.folds import PurgedWalkForward
from stages.labels import Given
from stages.markets.drift import drift_covariate, drift_flip, drift_recurring
from stages.markets.market import Market
from stages.markets.planted import tabular
from stages.online.learning import Learning
from stages.online.replay import ReplayBuffer
from stages.panel import settled
from stages.refiner.lstm import Lstm
from stages.refiner.refiner import SequenceRefiner
from stages.refiner.relearn import NetLearning
from stages.signal import ODDS

TIMES, TRAINED = 1000, 500  # bars of a market, and those a model is trained on
FLIP, BACK = 550, 775  # bars at which everything turns, and turns back
POISON = (550, 570)  # bars whose labels are the opposite of what came
ALARM, CALM = 40, 100  # bars from the change to a detector's alarm, and for which it lasts
YEAR = 250  # bars between two trainings anew
WINDOW = 8
EVERY = 5  # bars between two updates of stage 3


@dataclass(frozen=True)
class Stream:
    """A market, and the labels that a model is told of it, which may lie."""

    name: str
    market: Market
    told: pd.DataFrame
    changes: tuple[int, ...]

    @property
    def times(self) -> pd.DatetimeIndex:
        """All bars."""
        return pd.DatetimeIndex(self.market.panel.index.unique("time").sort_values())

    def upto(self, bar: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Panel and labels that are known with the bar of this number."""
        now, panel = self.times[bar], self.market.panel
        past = panel[panel.index.get_level_values("time") <= now]
        return past, self.told[(settled(self.told) <= now).to_numpy()]


def stream(name: str, seed: int, assets: int) -> Stream:
    """``flip``, ``recurring``, ``covariate``, ``stationary`` or ``poisoned``, at strength 1."""
    made: dict[str, Callable[[], Market]] = {
        "flip": partial(drift_flip, at=FLIP / TIMES),
        "recurring": partial(drift_recurring, at=FLIP / TIMES, back=BACK / TIMES),
        "covariate": partial(drift_covariate, at=FLIP / TIMES),
        "stationary": tabular,
        "poisoned": tabular,
    }
    market = made[name](seed, times=TIMES, assets=assets, snr=1.0)  # type: ignore[call-arg]
    told = market.y
    if name == "poisoned":
        bar = told.index.get_level_values("time").factorize(sort=True)[0]
        lies = (bar >= POISON[0]) & (bar < POISON[1])
        told = told.assign(side=np.where(lies, -told["side"], told["side"]).astype("int8"))
    changes = {"flip": (FLIP,), "recurring": (FLIP, BACK)}.get(name, ())
    return Stream(name, market, told, changes)


def pipeline(seed: int, nets: bool, twins: bool = False) -> SignalPipeline:
    """A booster and a forest, and a small LSTM if `nets`; trained in seconds.

    With `twins` there is a second booster, the same but for its name: ``live``.
    """
    light = LGBMClassifier(
        n_estimators=80,
        learning_rate=0.08,
        num_leaves=15,
        min_child_samples=50,
        reg_lambda=5.0,
        n_jobs=1,
        verbosity=-1,
        random_state=seed,
        deterministic=True,
        force_row_wise=True,
    )
    forest = RandomForestClassifier(
        40, max_depth=6, min_samples_leaf=50, max_samples=4000, random_state=seed, n_jobs=1
    )
    refiner = SequenceRefiner(
        {"lstm": partial(Lstm, hidden=16)},
        window=WINDOW,
        epochs=8,
        seeds=[seed],
        accelerator="cpu",
    )
    return SignalPipeline(
        features=GivenFeatures(),
        labels=Given(),
        folds=PurgedWalkForward(n_folds=4, first=0.4, embargo=1, update_every=0),
        filter=TreeFilter(
            {"lightgbm": light, "forest": forest} | ({"live": light} if twins else {}), recall=1.0
        ),
        refiner=refiner if nets else None,
        ensemble=BayesianStacker(),
        decide=Decide(),
        explainer=Explainer(n_references=4),
        replay=ReplayBuffer(window=WINDOW if nets else 1, capacity=4000, seed=seed),
    )


@dataclass(frozen=True)
class Way:
    """How a model lives on: what learns, and on what."""

    name: str
    learning: Learning | None = None
    frozen: bool = False
    retrained: bool = False
    nets: bool = False
    alarmed: bool = False
    twins: bool = False
    every: int = EVERY


def members(share: float, decay: float = 0.5, nets: bool = False, **trees: object) -> Learning:
    """Trees, and nets if asked for, with this share of replayed rows."""
    taught = TreeLearning(decay=decay, decay_drifted=0.5, **trees)  # type: ignore[arg-type]
    return Learning(taught, NetLearning(1e-3) if nets else None, share=share)


SHARES = (0.0, 0.1, 0.5, 1.0)
WAYS = [
    Way("frozen", frozen=True),
    Way("stage 3 (default)"),
    *(Way(f"trees, decay .5, share {share:g}", members(share)) for share in SHARES),
    Way("trees, decay .9, share .5", members(0.5, 0.9)),
    Way("trees, decay .9, alarm 40 bars late", members(0.5, 0.9), alarmed=True),
    Way("trees grown on top, share .5", members(0.5, boosted="grow")),
    Way("a live booster beside the old", members(0.1, only=["live"], forest=0.0), twins=True),
    Way(
        "the same, stage 3 at every bar",
        members(0.1, only=["live"], forest=0.0),
        twins=True,
        every=1,
    ),
    Way("trained anew each 250 bars", retrained=True),
    Way("with nets: frozen", frozen=True, nets=True),
    Way("with nets: stage 3", nets=True),
    *(
        Way(f"with nets: all members, share {share:g}", members(share, nets=True), nets=True)
        for share in SHARES
    ),
]


def lived(way: Way, at: Stream, state: State, fresh: SignalPipeline) -> pd.DataFrame:
    """What the model said of each row after its training, before it learnt of the row.

    Returns
    -------
    DataFrame of shape (n, 3)
        `p_sell`, `p_hold`, `p_buy`.
    """
    model = replace(fresh).restore(state)
    panel, y = at.upto(TIMES - 1)
    if way.frozen:
        since = at.times[TRAINED]
        rows = panel[panel.index.get_level_values("time") >= since]
        rows = rows[rows.index.isin(y.index)]
        return model.stack_.predict(model.panel(panel)).loc[rows.index, ODDS]
    if way.retrained:
        return _retrained(at, model, fresh)
    stops = [TIMES - 1]
    if way.alarmed:
        alarms = [(c + ALARM, c + ALARM + CALM) for c in at.changes]
        stops = sorted({stop for pair in alarms for stop in pair} | {TIMES - 1})
    said = []
    for stop in stops:
        loud = way.alarmed and any(stop == c + ALARM + CALM for c in at.changes)
        said.append(learn(model, *at.upto(stop), way.learning, loud, every=way.every).said)
    return pd.concat(said).sort_index()


def _retrained(at: Stream, model: SignalPipeline, fresh: SignalPipeline) -> pd.DataFrame:
    """Stage 3 learns each day; every year all stages are trained anew on as many bars as once."""
    said = []
    for stop in [*range(TRAINED + YEAR, TIMES - 1, YEAR), TIMES - 1]:
        said.append(learn(model, *at.upto(stop), every=EVERY).said)
        if stop < TIMES - 1:
            past, y = at.upto(stop)
            since = at.times[stop - TRAINED]
            recent = past[past.index.get_level_values("time") > since]
            y = y[y.index.get_level_values("time") > since]
            model = replace(fresh).fit(recent, y)
    return pd.concat(said).sort_index()
