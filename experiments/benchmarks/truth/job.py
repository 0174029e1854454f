"""One job: the pipeline of the real configuration on one market of one seed, against the truth."""

import inspect
import time
from dataclasses import dataclass

import numpy as np

from stages.evaluate import screened
from stages.markets import MARKETS

# rows of the table, their market and experiment: all as they come, and one whose members have goals
ROWS = {name: (name, "planted") for name in MARKETS}
ROWS["tabular SNR 2"] = ("tabular", "planted_tabular")
EXPLAINED = ("mixed", "tabular")
RECALL = 0.9  # of the true positives of stage 1 that the stages behind it have to leave
FIGURES = (
    *("accuracy", "log_loss", "brier", "ece", "base_rate", "base_log_loss", "direction"),
    *("bayes_accuracy", "bayes_log_loss", "skill_ratio", "information_ratio"),
    *("accuracy_decile_01", "accuracy_decile_10", "answered"),
)


@dataclass(frozen=True)
class Preset:
    """How much of everything.

    Attributes
    ----------
    seeds : int
        Each draws another market and another training.
    settings : tuple of str
        Words for the command line of ``pipeline.train``.
    resamples : int
        Histories behind the calibration error and its bound.
    explained : int
        Newest rows whose reasons are compared with the planted ones.
    rows : tuple of str
        Of the table, where none are asked for.
    """

    seeds: int
    settings: tuple[str, ...]
    resamples: int
    explained: int
    rows: tuple[str, ...] = tuple(ROWS)


ALWAYS = ("refiner.progress=false", "refiner.accelerator=cpu")
PRESETS = {
    "full": Preset(20, ("data.market.times=4000", "data.market.assets=20"), 300, 200),
    "small": Preset(
        2,
        (
            *("data.market.times=600", "data.market.assets=8"),
            *("filter.members.lightgbm.n_estimators=30", "filter.members.xgboost.n_estimators=30"),
            *("filter.members.forest.n_estimators=20", "refiner.epochs=3"),
        ),
        100,
        20,
    ),
    # enough seeds to tell a share of 5 % from one of 2 %
    "noise": Preset(
        200,
        ("data.market.times=800", "data.market.assets=8"),
        20,
        0,
        ("noise_iid", "noise_garch"),
    ),
}


@dataclass(frozen=True)
class Job:
    """One row of the table, for one seed."""

    row: str
    seed: int
    preset: Preset

    @property
    def words(self) -> list[str]:
        """What ``python -m pipeline.train`` would be told."""
        market, experiment = ROWS[self.row]
        plant = MARKETS[market]
        target = f"data.market._target_={plant.__module__}.{plant.__name__}"
        still = () if "snr" in inspect.signature(plant).parameters else ("~data.market.snr",)
        own = (f"+experiment={experiment}", *ALWAYS, target, *still)
        return [*own, *self.preset.settings, f"seed={self.seed}"]


def measure(job: Job) -> dict:
    """Train, judge, and return the figures as JSON values."""
    from hydra import compose, initialize_config_module

    from pipeline.assemble import assemble, load_source
    from pipeline.evaluation import judge

    started = time.perf_counter()
    with initialize_config_module("conf", version_base="1.3"):
        cfg = compose("train", overrides=job.words)
    source = load_source(cfg)
    pipeline = assemble(cfg, "pipeline").fit(source.bars, source.y)
    rows = pipeline.unseen_
    said = judge(pipeline, rows, source.y, source, resamples=job.preset.resamples, seed=job.seed)
    models = {
        model: {name: _number(line[(name, "value")]) for name in FIGURES}
        for model, line in said.table.iterrows()
    }
    models["pipeline"]["ece_high"] = _number(said.table.loc["pipeline", ("ece", "high")])
    status = rows["status"].value_counts(normalize=True)
    bets = pipeline.record_.skill_.path_
    return {
        "row": job.row,
        "seed": job.seed,
        "words": job.words,
        "rows": len(rows),
        "skill": {"e_value": float(bets["e_value"].max()), "proven": bool(bets["proven"].any())},
        "members": [*pipeline.filter.members, *pipeline.refiner.members],
        "models": models,
        "screened": {
            "Bayes": _number(screened(rows, source.truth, source.y["side"], RECALL)),
            "pipeline": _number(screened(rows, rows, source.y["side"], RECALL)),
        },
        "status": {name: float(share) for name, share in status.items()},
        "reasons": _reasons(job, cfg, pipeline, source) if job.row in EXPLAINED else None,
        "seconds": round(time.perf_counter() - started, 1),
    }


def _reasons(job: Job, cfg, pipeline, source) -> dict:
    """Contributions of the deployed model beside the planted ones, at the newest rows."""
    settings = {k: v for k, v in cfg.data.market.items() if k != "_target_"}
    planted = MARKETS[ROWS[job.row][0]](**settings).contributions
    time_of = planted.index.get_level_values("time")
    newest = time_of.unique().sort_values()[-1 - job.preset.explained // cfg.data.market.assets :]
    at = planted.index[time_of.isin(newest)][: job.preset.explained]
    told = pipeline.explain(source.bars, at).contributions
    due = planted.loc[at].rename(columns=lambda name: name.removeprefix("feature."))
    mine = told.reindex(columns=due.columns, fill_value=0.0)
    size = told.abs().sum()
    moot = [name for name in size.index if not planted.get(f"feature.{name}", due.get(name)).any()]
    return {
        "correlation": float(np.corrcoef(mine.to_numpy().ravel(), due.to_numpy().ravel())[0, 1]),
        "dummies": float(size[moot].sum() / size.sum()),
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
