"""Where bars come from; each source is called by its yaml and returns a `Source`."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from pipeline.data.bars import digest
from pipeline.data.columns import resolve, take
from pipeline.data.files import CsvReader, Raw, as_dialect, read_files, read_parquet
from pipeline.data.intake import Intake, Source, refuse_absent, refuse_text
from pipeline.data.quality import QualityReport
from stages.base import DataError
from stages.panel import check_labels, check_panel, named

__all__ = ["Source", "csv", "frame", "parquet", "synthetic", "us_index", "us_large_caps"]

log = logging.getLogger(__name__)


def us_large_caps(**intake: Any) -> Source:
    """Adjusted closes of 20 US large caps, 1990-2022, packaged with skfolio; no network.

    The index stands beside them as asset ``SP500``, for ``market``. The names are survivors,
    adjusted with hindsight: no result on them is quoted without saying so.

    Parameters
    ----------
    **intake
        Fields of `Intake`; `assets` None takes the 20.
    """
    from skfolio.datasets import load_sp500_dataset, load_sp500_index

    closes = load_sp500_dataset()
    intake["assets"] = intake.get("assets") or closes.columns.tolist()
    wide = closes.join(load_sp500_index())
    long = wide.melt(ignore_index=False, var_name="asset", value_name="close")
    return _embedded(long.reset_index(names="time"), "us_large_caps", intake)


def us_index(**intake: Any) -> Source:
    """Daily OHLCV of the S&P 500 and the NASDAQ index, 1999-2018, packaged with arch.

    Parameters
    ----------
    **intake
        Fields of `Intake`.
    """
    from arch.data import nasdaq, sp500

    loaded = {"NASDAQ": nasdaq.load(), "SP500": sp500.load()}
    long = pd.concat(loaded, names=["asset", "time"]).reset_index()
    return _embedded(long.rename(columns=str.lower).drop(columns="adj close"), "us_index", intake)


def parquet(path: str, **intake: Any) -> Source:
    """Bars from Parquet: a file, a folder of files or a glob.

    Parameters
    ----------
    path : str
        One long table, or one file per asset named after it (``columns: {asset: null}``).
    **intake
        Fields of `Intake`.

    Raises
    ------
    DataError
        See `Intake.take`.
    """
    taker = Intake(**intake)
    raw = read_files(path, (".parquet", ".pq"), taker.columns, read_parquet)
    return taker.take(raw, "parquet")


def csv(path: str, dialect: Mapping[str, Any] | None = None, **intake: Any) -> Source:
    """Bars from CSV: a file, a folder of files or a glob.

    Parameters
    ----------
    path : str
        As in `parquet`.
    dialect : mapping, optional
        Fields of `pipeline.data.files.Dialect`.
    **intake
        Fields of `Intake`.

    Raises
    ------
    DataError
        See `Intake.take`.
    """
    taker = Intake(**intake)
    reader = CsvReader(as_dialect(dialect))
    return taker.take(read_files(path, (".csv", ".txt"), taker.columns, reader), "csv")


def frame(table: pd.DataFrame, y: pd.DataFrame | None = None, **intake: Any) -> Source:
    """Bars from a DataFrame: the same checks as for a file.

    Parameters
    ----------
    table : DataFrame
        Long, with columns to map; or already indexed by (asset, time) with UTC times, which
        are then taken as the instants at which the bars were known. ``feature.*``, ``rule.*``
        and ``context.*`` columns are kept.
    y : DataFrame, optional
        Labels on (a subset of) the rows; see `stages.panel.check_labels`.
    **intake
        Fields of `Intake`.

    Raises
    ------
    DataError
        See `Intake.take`.
    """
    taker = Intake(**intake)
    times = table.index.get_level_values("time") if "time" in table.index.names else None
    known = times is not None and getattr(times, "tz", None) is not None
    flat = table.reset_index() if times is not None or table.index.name else table
    kept = {name: name for name in ("market", "session") if known and name in flat}
    found = resolve({**kept, **taker.columns}, flat.columns, "frame")
    raw = take(flat, found)
    if "asset" not in raw:
        raise DataError(
            "a frame has no file name to take the asset from",
            code="SV-F20",
            cure="add a column 'asset', or map one with columns={'asset': NAME}",
        )
    placed = raw.assign(file="frame", row=range(1, len(raw) + 1)).reset_index(drop=True)
    source = taker.take(Raw(placed, known), "frame")
    return source if y is None else _with_labels(source, y)


def synthetic(
    market: Any,
    assets: Sequence[str] | None = None,
    on_bad: str = "refuse",
    planted: bool = True,
) -> Source:
    """A planted market whose truth is known.

    Parameters
    ----------
    market : Market
        What a function of `stages.markets` returned: panel, y and posterior.
    assets : sequence of str, optional
        Assets to take; None takes all.
    on_bad : str
        Takes the place of the same key of the other sources; a planted market has no bad rows.
    planted : bool, default=True
        Whether its features, labels and odds come along; False takes its bars only, for features
        and labels that are computed from bars.

    Raises
    ------
    DataError
        SV-F20 for an asset that the market does not hold.
    """
    panel = check_panel(market.panel)
    if "session" not in panel:
        day = pd.DatetimeIndex(panel.index.get_level_values("time")).tz_localize(None).normalize()
        panel = panel.assign(session=day)
    y, truth = check_labels(market.y), market.posterior
    refuse_text(assets)
    if assets is not None:
        refuse_absent(map(str, assets), panel.index.unique("asset"))
        panel, y, truth = (t[t.index.isin(list(assets), "asset")] for t in (panel, y, truth))
    report = QualityReport(len(panel), len(panel))
    if not planted:
        bars = panel.drop(columns=named(panel, "feature", "context"))
        return Source(bars, None, None, digest(bars), report, False, "synthetic")
    return Source(panel, y, truth, digest(panel), report, False, "synthetic")


def _embedded(long: pd.DataFrame, name: str, intake: Mapping[str, Any]) -> Source:
    taker = Intake(**intake)
    found = resolve(taker.columns, long.columns, name)
    placed = take(long, found).assign(file=name, row=range(1, len(long) + 1))
    return taker.take(Raw(placed), name)


def _with_labels(source: Source, y: pd.DataFrame) -> Source:
    strange = ~check_labels(y).index.isin(source.bars.index)
    if strange.any():
        asset, time = y.index[int(strange.argmax())]
        raise DataError(
            f"label of {asset} at {time} belongs to no bar",
            code="SV-F20",
            where=f"{strange.sum()} labels",
            cure="give y the (asset, time) index of the bars",
        )
    return replace(source, y=y)
