"""From a configuration to a backtest that has been judged and counted."""

import copy
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from pipeline import ledger
from pipeline.assemble import assemble, count, flag, instant, load_model
from pipeline.backtested import (
    Backtested,
    Counted,
    Search,
    costs_of,
    counted,
    counted_variant,
    remarks,
)
from pipeline.daily import MODEL_COLUMNS, lots_of, with_lots
from pipeline.data.sources import Source
from pipeline.signal_pipeline import SignalPipeline
from pipeline.universe import read_universe, with_universe
from pipeline.unseen import evaluated
from stages.backtest.benchmarks import benchmark_returns
from stages.backtest.compare import contest
from stages.backtest.costs import FREE
from stages.backtest.judgement import judge
from stages.backtest.simulate import Backtest, simulate
from stages.backtest.terms import Terms
from stages.backtest.walk import joined, walk_forward, windows
from stages.base import ConfigError, DataError
from stages.portfolio.rebalancing import Rebalancing

MOST = 200  # variants of one search
Step = Callable[[str], None]


def backtest(
    cfg: DictConfig, source: Source, name: str = "", step: Step = lambda text: None
) -> Backtested:
    """Simulate what ``cfg.portfolio`` says on the bars of `source`, and judge it.

    Parameters
    ----------
    cfg : DictConfig
        ``conf/backtest.yaml``, composed.
    source : Source
    name : str, optional
        Of the portfolio and the data.
    step : callable, optional
        Told what is being done.

    Raises
    ------
    ConfigError, DataError
        See `stages.backtest.simulate.simulate`.
    """
    resamples = count(cfg, "bootstrap", 2)
    capital, start, end = _capital(cfg), instant(cfg, "start"), _until(cfg)
    bars, first = source.bars, start
    if cfg.model is not None:
        step("asking the model")
        bars, first = _with_model(cfg, source, start)
    if end is not None:
        bars = bars[bars.index.get_level_values("time") <= end]
    bars, absent = with_universe(cfg.universe, bars)
    assets = bars.index.unique("asset").tolist()
    instruments = assemble(cfg, "instruments")
    rates = OmegaConf.to_container(cfg.costs, resolve=True)
    costs, words = costs_of(rates, instruments, assets)  # type: ignore[arg-type]
    terms: Terms = assemble(cfg, "terms")
    policy = with_lots(assemble(cfg, "portfolio"), lots_of(instruments, assets))
    if isinstance(policy, Rebalancing):  # partial fills are of the same lots as orders
        terms = replace(terms, lot=policy.sizes.lot, lots=policy.sizes.lots)
    settings: dict[str, Any] = {"costs": costs, "terms": terms}
    mean = 0.0 if costs == FREE else float(np.mean(list(costs.values())) * 1e4)  # type: ignore[union-attr]
    if cfg.optimise.grid:
        step("searching")
        run, search = _searched(cfg, source, bars, {**settings, "capital": capital}, mean)
    else:
        step("simulating")
        run, search = simulate(bars, policy, begin=capital, start=first, **settings), None
    step("judging")
    said = judge(run, bars, str(cfg.benchmark), terms.cash_rate, resamples, cfg.seed)
    entered = counted(run, said, cfg.root, source, Counted(_recipe(cfg), mean, cfg.seed))
    adjusts = bool((cfg.data.get("columns") or {}).get("adj_close"))
    notes = [*absent, *said.warnings, *remarks(source, str(cfg.benchmark), adjusts, instruments)]
    notes += _unavailable(run)
    return Backtested(
        name=name or source.name,
        run=run,
        judgement=said,
        standing=entered[0].standing(entered[1], resamples),
        trial=entered[1].digest,
        assumptions=tuple(_assumed(terms, words, capital, run, search, cfg.universe)),
        warnings=tuple(notes),
        search=search,
    )


def _searched(
    cfg: DictConfig,
    source: Source,
    bars: pd.DataFrame,
    settings: Mapping[str, Any],
    cost: float,
) -> tuple[Backtest, Search]:
    """Walk forward through the grid; every variant is entered into the ledger."""
    lots = lots_of(assemble(cfg, "instruments"), bars.index.unique("asset").tolist())
    variants = _variants(cfg)
    policies = {
        name: with_lots(assemble(variant, "portfolio"), lots) for name, variant in variants.items()
    }
    search = cfg.optimise
    try:
        cut = partial(
            windows,
            train=search.train,
            test=search.test,
            purge=search.purge,
            anchored=flag(search, "anchored"),
        )
        found = walk_forward(bars, policies, cut, **settings)
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise ConfigError(str(error), code="SV-F33", where="key optimise", cure="") from error
    for name, variant in variants.items():
        told = Counted(_recipe(variant, search=False), cost, cfg.seed)
        counted_variant(found.trials[name], cfg.root, source, told)
    # the first period has no benchmark: its beginning is no row of the table
    times = pd.DatetimeIndex(found.trials.index)
    other = benchmark_returns(bars, str(cfg.benchmark), times, settings["terms"].cash_rate)
    tested = contest(found.trials.iloc[1:], other, seed=cfg.seed)
    return joined(found.parts), Search(found.chosen, found.trials, tested)


def _variants(cfg: DictConfig) -> dict[str, DictConfig]:
    """The configuration of every combination of the grid, by its words."""
    found: Any = OmegaConf.to_container(cfg.optimise.grid, resolve=True)
    grid: dict[str, list[Any]] = {str(key): list(values) for key, values in found.items()}
    wrong = [key for key in grid if not key.startswith("portfolio.")]
    sizes = [len(values) for values in grid.values()]
    if wrong or not math.prod(sizes) or math.prod(sizes) > MOST:
        raise ConfigError(
            f"optimise.grid holds {wrong[0]!r}" if wrong else f"a grid of {math.prod(sizes)}",
            code="SV-F33",
            where="key optimise.grid",
            why="only settings of the portfolio are chosen, up to "
            f"{MOST} combinations: each is simulated, and counts as a trial",
            cure="optimise.grid={portfolio.every: [5, 10]}",
        )
    out = {}
    for values in itertools.product(*grid.values()):
        variant = copy.deepcopy(cfg)
        for key, value in zip(grid, values, strict=True):
            OmegaConf.update(variant, key, value, force_add=False)
        words = zip(grid, values, strict=True)
        out[" ".join(f"{k.removeprefix('portfolio.')}={v}" for k, v in words)] = variant
    return out


def _with_model(
    cfg: DictConfig, source: Source, start: pd.Timestamp | None
) -> tuple[pd.DataFrame, pd.Timestamp]:
    """Bars with what the model says of those after everything it learnt from; the first of them."""
    pipeline = _loaded(cfg)
    known = pipeline.learned_until_
    if start is not None and start <= known:
        raise DataError(
            f"start={start:%Y-%m-%d} reaches back before {known:%Y-%m-%d}",
            code="SV-F25",
            where="key start",
            why="the model learnt from bars up to then: trading on them is no test",
            cure="leave `start` out, or train on an earlier part with split=dates",
        )
    bars = source.bars
    times = bars.index.get_level_values("time")
    later = bars.index[times > known]
    if not len(later):
        raise DataError(
            f"the data end before the model has learnt its last, {known:%Y-%m-%d}",
            code="SV-F18",
            cure="bring newer bars, or train with split=dates to hold a part back",
        )
    said = evaluated(pipeline, bars, later)
    new = [name for name in MODEL_COLUMNS if name in said and name not in bars]
    first = later.get_level_values("time").min() if start is None else start
    return bars.join(said[new]), first


def _model(cfg: DictConfig) -> str | None:
    """Digest of the model, None without one."""
    if not cfg.model:
        return None
    return str(_loaded(cfg).digest)


def _loaded(cfg: DictConfig) -> SignalPipeline:
    named = cfg.copy()
    named.model = None if cfg.model == "champion" else cfg.model
    return load_model(named)


def _capital(cfg: DictConfig) -> float:
    if isinstance(cfg.capital, int | float) and 0 < cfg.capital < float("inf"):
        return float(cfg.capital)
    raise ConfigError(
        f"capital={cfg.capital} is no amount above 0",
        code="SV-F33",
        where="key capital",
        cure="capital=1000000",
    )


def _until(cfg: DictConfig) -> pd.Timestamp | None:
    """End of the day that ``cfg.end`` names, or the time it gives."""
    end = instant(cfg, "end")
    whole = end is not None and end == end.normalize()
    return end + pd.Timedelta(days=1) - pd.Timedelta(microseconds=1) if whole else end  # type: ignore[operator]


def _recipe(cfg: DictConfig, search: bool = True) -> str:
    """Digest of all that a result depends on, beside the data."""
    keys = ["portfolio", "terms", "costs", "instruments", *(["optimise"] if search else [])]
    values = [OmegaConf.to_container(cfg[key], resolve=True) for key in keys]
    values += [cfg.capital, cfg.start, cfg.end]
    if cfg.universe is not None:
        values.append(read_universe(cfg.universe).to_csv(index=False))
    return ledger.digest_of(values, _model(cfg))


def _assumed(
    terms: Terms,
    costs: str,
    capital: float,
    run: Backtest,
    search: Search | None,
    universe: str | None,
) -> list[str]:
    days = run.days.index
    said = [f"{capital:,.0f} in cash at the first decision, {days[0]:%Y-%m-%d}."]
    if universe is not None:
        of = Path(universe).name
        said.append(f"Bought is only what belonged on the day, by {of}; what leaves it is sold.")
    if search is not None:
        said.append(
            f"{search.trials.shape[1]} variants were simulated. In each of {len(search.chosen)} "
            "windows the one with the highest Sharpe ratio before it was followed."
        )
    return [*said, *terms.in_words(costs)]


def _unavailable(run: Backtest) -> list[str]:
    return [
        f"The check {name} could not run: {said}."
        for name, said in run.checks.items()
        if said.startswith("unavailable")
    ]
