"""A backtest with its judgement: counted in the ledger, stored as tables, told in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.books import Snapshot, write_snapshot
from pipeline.data.instruments import Instruments
from pipeline.data.sources import Source
from pipeline.files import json_bytes, replace_atomic, write_atomic
from pipeline.ledger import Ledger, Trial, enter
from stages.backtest.compare import Contest
from stages.backtest.costs import Costs
from stages.backtest.judgement import Judgement, span_of
from stages.backtest.simulate import Backtest
from stages.base import ConfigError
from stages.evaluate.standing import Standing

PART = "backtest"  # what the ledger and the record of a run call it
BPS = 1e4


@dataclass(frozen=True)
class Search:
    """What a walk-forward search looked at.

    Attributes
    ----------
    chosen, trials : DataFrame
        See `stages.backtest.walk.WalkForward`.
    contest : Contest
        Of all variants over the whole history, against the benchmark.
    """

    chosen: pd.DataFrame
    trials: pd.DataFrame
    contest: Contest


@dataclass(frozen=True)
class Counted:
    """What the ledger is told of a trial.

    Attributes
    ----------
    recipe : str
        Digest of the policy and of every setting of the backtest.
    cost : float
        Mean round trip, basis points.
    seed : int
    """

    recipe: str
    cost: float
    seed: int


@dataclass(frozen=True)
class Backtested:
    """A backtest and all that is said of it.

    Attributes
    ----------
    name : str
        Of the portfolio and the data.
    run : Backtest
    judgement : Judgement
    standing : Standing
        Of its Sharpe ratio among all trials of the root.
    trial : str
        Digest of its line in the ledger.
    assumptions, warnings : tuple of str
    search : Search or None
    """

    name: str
    run: Backtest
    judgement: Judgement
    standing: Standing
    trial: str
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]
    search: Search | None = None

    def metrics(self) -> dict[str, Any]:
        """Every figure: ``value``, with ``low``, ``high`` and ``benchmark`` where there are any."""
        said = self.judgement
        ends = said.intervals.to_dict("index")
        beside = said.beside.to_dict()
        return {
            str(name): {
                "value": value,
                **ends.get(name, {}),
                **({"benchmark": beside[name]} if name in beside else {}),
            }
            for name, value in said.figures.to_dict().items()
        }

    def card(self) -> dict[str, Any]:
        """What is stored as JSON beside the tables."""
        days = self.run.days
        return {
            "name": self.name,
            "first": f"{days.index[0]:%Y-%m-%d}",
            "last": f"{days.index[-1]:%Y-%m-%d}",
            "rows": len(days),
            "benchmark": str(self.judgement.benchmark.name),
            "before_costs": self.run.before_costs,
            "figures": self.metrics(),
            "luck": self.standing.values(),
            "trial": self.trial,
            "assumptions": list(self.assumptions),
            "warnings": list(self.warnings),
            "skipped": {str(k): int(v) for k, v in self.run.skipped.items()},
            "checks": dict(self.run.checks),
        }


def costs_of(
    rates: Mapping[str, float], instruments: Instruments | None, assets: Sequence[str]
) -> tuple[Costs, str]:
    """Round trip of each asset as a fraction, from basis points by class, and the same in words.

    Parameters
    ----------
    rates : mapping of str to float
        The group ``costs``: basis points by asset class, with ``default``.
    instruments : Instruments or None
        Says the class of an asset; without it all take ``default``.
    assets : sequence of str

    Raises
    ------
    ConfigError
        SV-X101 for a class without a cost.
    """
    if rates and not any(rates.values()):
        return "none", "Trading is free, as costs=none asks: every figure is before costs."
    classes = {a: instruments.of(a).asset_class if instruments else "default" for a in assets}
    missing = sorted(set(classes.values()) - set(rates))
    if missing and "default" not in rates:
        raise ConfigError(
            f"costs has none for the asset class {missing[0]!r}",
            code="SV-X101",
            where=f"it names {sorted(rates)}",
            why="a missing cost is not a cost of 0",
            cure=f"add costs.{missing[0]}, or costs.default",
        )
    trips = {a: rates.get(kind, rates.get("default", 0.0)) / BPS for a, kind in classes.items()}
    levels = sorted({round(trip * BPS, 6) for trip in trips.values()})
    said = " or ".join(f"{level:g}" for level in levels)
    return (
        trips,
        f"A round trip costs {said} bps of the value, half of it at each side: half-spreads, "
        "commission and the impact of a small order.",
    )


def remarks(
    source: Source, benchmark: str, adjusts: bool, instruments: Instruments | None
) -> list[str]:
    """What is known of the data that flatters or blurs a backtest.

    Parameters
    ----------
    source : Source
    benchmark : str
    adjusts : bool
        Whether prices were scaled by an adjusted close that carries dividends.
    instruments : Instruments or None
    """
    out = []
    if source.survivors:
        out.append(
            "The assets were chosen knowing that they lasted: whoever failed is missing, and the "
            "result is too good."
        )
    jumps = source.report.flagged.get("SV-F15.jump", 0)
    if jumps:
        example = source.report.examples["SV-F15.jump"][0]
        out.append(
            f"{jumps} jumps look like splits that nobody adjusted, the first: {example}. A holding "
            "would seem to have made or lost that much."
        )
    known = instruments is not None and benchmark in source.bars.index.get_level_values("asset")
    if known and adjusts and instruments.of(benchmark).asset_class == "index":  # type: ignore[union-attr]
        out.append(
            f"The benchmark {benchmark} is an index without dividends, the portfolio gets them: "
            "compare with a fund on it."
        )
    return out


def counted(
    run: Backtest, judgement: Judgement, root: Path | str, source: Source, said: Counted
) -> tuple[Ledger, Trial]:
    """Enter a backtest into the trial ledger: whoever tries many must not show one."""
    figures = {
        str(name): value if np.isfinite(value) else None
        for name, value in judgement.figures.to_dict().items()
    }
    excess = judgement.returns - judgement.rate.to_numpy()
    trial = _trial(source, said, excess)
    return enter(root, replace(trial, figures=figures, span=span_of(run)))


def counted_variant(
    returns: pd.Series, root: Path | str, source: Source, said: Counted
) -> tuple[Ledger, Trial]:
    """Enter a variant that a search looked at."""
    return enter(root, _trial(source, said, returns))


def _trial(source: Source, said: Counted, returns: pd.Series) -> Trial:
    return Trial(
        kind=PART,
        recipe=said.recipe,
        data=source.digest,
        name=source.name,
        part=PART,
        returns=returns,
        cost=said.cost,
        seed=said.seed,
    )


def store(result: Backtested, folder: Path | str) -> Path:
    """Write tables, figures and the last book into `folder`.

    ``days``, ``shares``, ``orders``, ``trips`` and ``returns`` (with those of benchmark and cash)
    as parquet, ``backtest.json``, and the book as the daily rebalance restores it.

    Raises
    ------
    StoreError
        SV-F34 if the disk refuses.
    """
    folder, run, said = Path(folder), result.run, result.judgement
    returns = pd.DataFrame(
        {"portfolio": said.returns, "benchmark": said.benchmark, "cash": said.rate}
    )
    tables = {
        "days": run.days,
        "shares": run.shares,
        "orders": run.orders,
        "trips": run.trips,
        "returns": returns,
    }
    if result.search is not None:
        tables |= {"chosen": result.search.chosen, "trials": result.search.trials}
    for name, table in tables.items():
        replace_atomic(folder / f"{name}.parquet", table.to_parquet)
    book = run.state.book
    prices = {a: float(run.values[a].iloc[-1]) / p.shares for a, p in book.positions.items()}
    key = f"{run.days.index[-1]:%Y-%m-%d}"
    write_snapshot(folder / "book", Snapshot(key, book, prices, run.state.pending))
    write_atomic(folder / "backtest.json", json_bytes(_finite(result.card()), indent=2))
    return folder


def _finite(value: Any) -> Any:
    """NaN and infinities as None: JSON has neither."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
