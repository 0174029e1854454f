"""What many tests share: a tiny planted market, pipelines fitted on it once, and the commands."""

import contextlib
import importlib
import io
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from pipeline.cli import THREADS

for name in THREADS:  # before numpy, numba and torch are imported and count the cores
    os.environ.setdefault(name, "1")

from functools import partial  # noqa: E402

import hypothesis  # noqa: E402
import pytest  # noqa: E402
from hydra import compose, initialize_config_module  # noqa: E402
from lightgbm import LGBMClassifier  # noqa: E402
from omegaconf import DictConfig  # noqa: E402
from sklearn.ensemble import RandomForestClassifier  # noqa: E402
from xgboost import XGBClassifier  # noqa: E402

from pipeline.signal_pipeline import SignalPipeline  # noqa: E402
from stages.ensemble.conformal import Coverage  # noqa: E402
from stages.ensemble.decide import Decide  # noqa: E402
from stages.ensemble.stacker import BayesianStacker  # noqa: E402
from stages.explain.explainer import Explainer  # noqa: E402
from stages.features.given import GivenFeatures  # noqa: E402
from stages.filter.tree_filter import TreeFilter  # noqa: E402
from stages.folds import PurgedWalkForward  # noqa: E402
from stages.labels import Given, TripleBarrier  # noqa: E402
from stages.markets.planted import Market, mixed  # noqa: E402
from stages.online.replay import ReplayBuffer  # noqa: E402
from stages.refiner.lstm import Lstm  # noqa: E402
from stages.refiner.refiner import SequenceRefiner  # noqa: E402

# the same examples on every run of CI; other runs keep looking for new ones
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")

ROOT = Path(__file__).parents[1]
QUIET = ("hydra/job_logging=none", "hydra/hydra_logging=none")  # pytest keeps its own
TREES = (
    "filter.members.lightgbm.n_estimators=8",
    "filter.members.xgboost.n_estimators=8",
    "filter.members.forest.n_estimators=10",
)
PLANTED = (  # a market and a model too small to be slow
    *("data=synthetic", "features=given", "labels=given", "costs=none"),
    *("horizon=1", "delay=0", "window=8", "folds.n_folds=4", "folds.first=0.3"),
    *("data.market.times=300", "data.market.assets=4", "data.market.snr=2.0"),
    *("filter=quick", "refiner=quick"),
    "refiner.epochs=1",
    "refiner.progress=false",
    *TREES,
)


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    """Hydra's --help and --cfg leave a handler that writes to the stdout of their test."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    for handler in set(root.handlers) - set(before):
        root.removeHandler(handler)
    root.setLevel(level)


def times_of(table):
    return table.index.get_level_values("time")


def before(panel, bars):
    """`panel` without its last bars."""
    times = panel.index.unique("time").sort_values()
    return panel[times_of(panel) <= times[-1 - bars]]


def ended(y, bars):
    """Labels that are over by the last of `bars`."""
    return y[(y["end"] <= times_of(bars).max()).to_numpy()]


def tiny_pipeline(seed: int = 0, **parts) -> SignalPipeline:
    """All three stages, unfitted, as small as they may be."""
    members = {
        "lightgbm": LGBMClassifier(
            n_estimators=8,
            num_leaves=7,
            n_jobs=1,
            verbosity=-1,
            random_state=seed,
            deterministic=True,
            force_row_wise=True,
        ),
        "xgboost": XGBClassifier(n_estimators=8, max_depth=3, n_jobs=1, random_state=seed),
        "forest": RandomForestClassifier(
            10, max_depth=4, min_samples_leaf=10, max_samples=400, random_state=seed
        ),
    }
    settings = {
        "features": GivenFeatures(),
        "labels": Given(),
        "folds": PurgedWalkForward(n_folds=4, first=0.3, embargo=1),
        "filter": TreeFilter(members),
        "refiner": SequenceRefiner(
            {"lstm": partial(Lstm, hidden=8, dropout=0.1)},
            window=8,
            epochs=1,
            batch=128,
            seeds=[seed],
            accelerator="cpu",
            progress=False,
        ),
        "ensemble": BayesianStacker(interactions=["context.regime"]),
        "decide": Decide(),
        "explainer": Explainer(n_references=4),
        "replay": ReplayBuffer(window=8, capacity=300),
    }
    settings |= parts
    labels = settings["labels"]
    settings.setdefault("coverage", Coverage(horizon=labels.horizon, delay=labels.delay))
    return SignalPipeline(**settings)


@pytest.fixture(scope="session")
def tiny_market() -> Market:
    return mixed(seed=0, times=300, assets=4, snr=2.0)


@pytest.fixture(scope="session")
def tiny(tiny_market) -> SignalPipeline:
    """Fitted once; tests must not change it."""
    return tiny_pipeline().fit(tiny_market.panel, tiny_market.y)


@pytest.fixture(scope="session")
def tiny_folder(tiny, tmp_path_factory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def copy(tiny_folder) -> SignalPipeline:
    """The fitted pipeline, read back: a test may change it."""
    return SignalPipeline.load(tiny_folder)


@pytest.fixture(scope="session")
def barrier(tiny_market) -> SignalPipeline:
    """Labels by barriers on the planted closes, with costs: the return at stake is known."""
    return tiny_pipeline(
        labels=TripleBarrier(horizon=2, delay=0),
        folds=PurgedWalkForward(n_folds=4, first=0.3, embargo=2),
        refiner=None,
        decide=Decide(certainty=0.55, cost_bps={"default": 2.0}),
        replay=ReplayBuffer(window=1, capacity=300),
    ).fit(tiny_market.panel)


def composed(name: str, *overrides: str) -> DictConfig:
    """The configuration that the command line would make of `overrides`."""
    with initialize_config_module("conf", version_base="1.3"):
        return compose(name, overrides=list(overrides))


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


def command(name: str, *words: str) -> Ended:
    """Run ``python -m pipeline.NAME`` in this process."""
    out, err = io.StringIO(), io.StringIO()
    entry = importlib.import_module(f"pipeline.{name}").main
    with (
        mock.patch.object(sys, "argv", [name, *words, *QUIET]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        entry()
    return Ended(end.value.code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> tuple[Path, Ended]:
    """A root in which the train command has run once, and what it printed."""
    root = tmp_path_factory.mktemp("trained")
    rows = f"predictions={root}/rows.parquet"
    return root, command("train", *PLANTED, f"root={root}", "bootstrap=20", rows)


@pytest.fixture(scope="session")
def realdata():
    """Path of a file of real market data, where it is at hand."""
    folder = Path(os.environ.get("SIEVE_DATA", ROOT.parent / "shared" / "data"))

    def find(name: str) -> Path:
        if not (folder / name).is_file():
            pytest.skip(f"no {name} at $SIEVE_DATA or ../shared/data")
        return folder / name

    return find
