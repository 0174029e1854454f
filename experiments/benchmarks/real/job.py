"""One job: the pipeline, its parts and its peers on the test part of one panel, with one seed."""

import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.benchmarks.real.peers import qlib_lightgbm, reversal
from pipeline.assemble import assemble, load_source
from pipeline.evaluation import table_rows
from pipeline.unseen import evaluated
from stages.evaluate import comparison
from stages.evaluate.cross_section import score_sums
from stages.features.build import FeatureSet
from stages.panel import until

FIGURES = ("log_loss", "accuracy", "base_rate", "mcc", "ece")
PEER = "LightGBM (Qlib)"
# each panel: what ``pipeline.train`` would be told; dates are the last of their part
PANELS = {
    "us_stocks": (
        "+experiment=us_stocks_next_day",
        "data.path={data}/us_equity_daily_296_1990_2006.parquet",
    ),
    "m6": (
        "+experiment=us_stocks_next_day",
        "data.path={data}/m6_assets_daily_100_2018_2022.parquet",
        "data.columns.adj_close=adj_close",
        "data.calendar=instruments",
        "data.survivors=false",
        "split.train_end=2020-12-31",
        "split.valid_end=2021-06-30",
        "split.test_end=2022-12-31",
    ),
    "us_large_caps": ("+experiment=next_day",),
}


@dataclass(frozen=True)
class Preset:
    """How much of everything: panels, seeds, words for every panel, draws behind intervals."""

    panels: tuple[str, ...]
    seeds: int
    words: tuple[str, ...]
    resamples: int


PRESETS = {
    "full": Preset(tuple(PANELS), 5, (), 500),
    "small": Preset(
        ("us_large_caps",),
        2,
        (
            *("data.start=2010-01-01", "split.train_end=2015-12-31", "split.valid_end=2016-12-31"),
            "split.test_end=2018-12-31",
            "filter.members.alpha.n_estimators=60",
        ),
        200,
    ),
}


@dataclass(frozen=True)
class Job:
    """One panel, one seed."""

    panel: str
    seed: int
    preset: Preset
    data: str
    retrained: bool = False

    @property
    def words(self) -> list[str]:
        """What sets its figures apart from those of another job of the same panel and seed."""
        return [*self.shared, *(["retrained"] if self.retrained else [])]

    @property
    def shared(self) -> tuple[str, ...]:
        """What ``python -m pipeline.train`` would be told, but for the seed."""
        own = [word.format(data=self.data) for word in PANELS[self.panel]]
        return (*own, *self.preset.words)


@dataclass
class Once(FeatureSet):
    """Features of a panel, built once: they depend neither on the seed nor on what comes after."""

    def build(self, bars: pd.DataFrame) -> pd.DataFrame:
        """As of `FeatureSet`; bars cut in time are taken from the whole panel, once it is built."""
        newest = bars.index.get_level_values("time").max()
        if "panel" not in _BUILT:
            _BUILT["panel"] = super().build(bars)
        return until(_BUILT["panel"], newest)


_BUILT: dict[str, pd.DataFrame] = {}


def measure(job: Job) -> dict[str, Any]:
    """Train on the part train, and return the figures of the part test as JSON values."""
    started = time.perf_counter()
    cfg = composed((*job.shared, f"seed={job.seed}"))
    source, y, parts = _prepared(job.shared)
    template = assemble(cfg, "pipeline")
    template = replace(template, features=_once(template.features))
    panel = template.features.fit(source.bars).build(source.bars)
    columns = [f"feature.{name}" for name in _alpha158() if f"feature.{name}" in panel]
    peer, trees = qlib_lightgbm(panel, columns, y, parts, job.seed)
    fitted, said = trained(template, source.bars, y, parts["train"], _join(parts, "valid", "test"))
    others = {"reversal": reversal(source.bars), PEER: peer}
    if job.retrained:
        others |= _retrained(job, template, source.bars, y, parts, columns)
    by_part = {}
    for part in ("valid", "test"):
        rows = said[said.index.isin(y.index[parts[part]])]
        tables = table_rows(rows, y, source.bars, fitted.labels_)
        scores = {name: t["score"] for name, t in tables.items() if name != "base rate"} | others
        at = rows.index.intersection(peer.index, sort=False)
        ret = y["ret"].loc[at]
        by_part[part] = {
            n: _by_day(s.loc[at], ret, cfg.horizon)
            for n, s in scores.items()
            if at.isin(s.index).all()
        }
    table = comparison(
        tables, horizon=cfg.horizon, delay=cfg.delay, resamples=job.preset.resamples, seed=0
    )
    models: dict[str, dict[str, Any]] = {n: {"odds": _figures(row)} for n, row in table.iterrows()}
    for name, by_day in by_part["test"].items():
        models.setdefault(name, {})["by_day"] = by_day
    times = at.get_level_values("time")
    return {
        "panel": job.panel,
        "seed": job.seed,
        "words": job.words,
        "rows": len(at),
        "span": [f"{times.min():%Y-%m-%d}", f"{times.max():%Y-%m-%d}"],
        "models": models,
        "valid": {name: _means(by_part["valid"][name]) for name in ("pipeline", PEER)},
        "trees": trees,
        "seconds": round(time.perf_counter() - started, 1),
    }


def trained(
    template: Any, bars: pd.DataFrame, y: pd.DataFrame, train: np.ndarray, judged: np.ndarray
) -> tuple[Any, pd.DataFrame]:
    """A pipeline that learnt from labels `train`, and what it says of rows `judged`."""
    fitted = replace(template).fit(until(bars, y["end"].iloc[train].max()))
    return fitted, evaluated(fitted, bars, y.index[judged], y)


def _retrained(
    job: Job,
    template: Any,
    bars: pd.DataFrame,
    y: pd.DataFrame,
    parts: dict[str, np.ndarray],
    columns: list[str],
) -> dict[str, pd.Series]:
    """Scores of the pipeline and of the peer, each trained again before every year of test.

    The pipeline learns from all labels that have ended; the peer stops on the years before that
    are as many as the part ``valid`` has, and learns from those before them.
    """
    time_of = pd.DatetimeIndex(y.index.get_level_values("time"))
    ends = pd.DatetimeIndex(y["end"])
    ours, theirs = [], []
    years = np.unique(time_of[parts["valid"]].year)
    for year in np.unique(time_of[parts["test"]].year):
        past = np.flatnonzero(ends.year < year)
        test = np.intersect1d(parts["test"], np.flatnonzero(time_of.year == year))
        _, said = trained(template, bars, y, past, test)
        ours.append(said["p_buy"] - said["p_sell"])
        recent = past[time_of[past].year >= year - len(years)]
        old = past[ends[past].year < year - len(years)]
        again = {"train": old, "valid": recent, "test": test}
        score, _ = qlib_lightgbm(template.features.build(bars), columns, y, again, job.seed)
        theirs.append(score[score.index.isin(y.index[test])])
    return {"pipeline, every year": pd.concat(ours), f"{PEER}, every year": pd.concat(theirs)}


def _join(parts: dict[str, np.ndarray], *names: str) -> np.ndarray:
    return np.sort(np.concatenate([parts[name] for name in names]))


def composed(words: tuple[str, ...]) -> Any:
    """The configuration that ``python -m pipeline.train`` would make of `words`."""
    from hydra import compose, initialize_config_module

    with initialize_config_module("conf", version_base="1.3"):
        return compose("train", overrides=list(words))


@lru_cache(maxsize=1)
def _prepared(words: tuple[str, ...]) -> tuple[Any, pd.DataFrame, dict[str, np.ndarray]]:
    """Source, all labels and the parts of the outer split: the same for every seed."""
    _BUILT.clear()
    cfg = composed(words)
    source = load_source(cfg)
    y = assemble(cfg, "labels").fit(source.bars).label(source.bars)
    (parts,) = assemble(cfg, "split").parts(y)
    return source, y, parts


def _once(features: FeatureSet) -> Once:
    settings = ("columns", "context", "rules", "min_coverage", "inner")
    return Once(**{name: getattr(features, name) for name in settings})


@lru_cache(maxsize=1)
def _alpha158() -> list[str]:
    from omegaconf import OmegaConf

    import conf

    found = OmegaConf.load(Path(conf.__file__).parent / "features" / "alpha158.yaml")
    return list(found.columns)


def _figures(line: pd.Series) -> dict[str, list[float | None]]:
    parts = ("value", "low", "high")
    return {name: [_number(line[(name, part)]) for part in parts] for name in FIGURES}


def _by_day(score: pd.Series, ret: pd.Series, horizon: int) -> dict[str, list[float | None]]:
    """Information coefficients of each day, linear and of ranks; null where there is none."""
    day, days = score.index.get_level_values("time").factorize(sort=True)
    asset = score.index.get_level_values("asset").factorize()[0]
    x, r = score.to_numpy("float64"), ret.to_numpy("float64")
    sums = score_sums(x, r, np.asarray(day), asset, len(days), horizon)
    return {
        name: [round(v, 6) if n else None for n, v, _ in sums[name].tolist()]
        for name in ("ic", "rank_ic")
    }


def _means(by_day: dict[str, list[float | None]]) -> dict[str, float | None]:
    """Mean of each coefficient over the days that have one."""
    known = {name: [v for v in values if v is not None] for name, values in by_day.items()}
    return {name: float(np.mean(values)) if values else None for name, values in known.items()}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
