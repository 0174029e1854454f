"""What one day of a portfolio begins with: checked settings, the book, lots, what a model says."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from pipeline.assemble import assemble, load_model
from pipeline.books import Snapshot, before, read_snapshot
from pipeline.data.bars import digest
from pipeline.data.instruments import Instruments
from pipeline.fills import filled, read_fills, round_trips, simulated
from stages.base import ConfigError
from stages.portfolio.book import Book, Order
from stages.portfolio.prepared import Prepared
from stages.portfolio.restate import restated

MODEL_COLUMNS = (
    *("p_sell", "p_hold", "p_buy", "margin", "margin_sd", "certainty_sell", "certainty_buy"),
    *("scale", "cost", "epistemic", "novelty"),
)


def check(cfg: DictConfig) -> None:
    """Refuse keys out of range before anything is read, and set the level of the log.

    Raises
    ------
    ConfigError
        SV-F33, naming the key.
    """
    levels = ("DEBUG", "INFO", "WARNING", "ERROR")
    numbers = {name: cfg[name] for name in ("cash", "fresh", "turnover", "slow")}
    wrong = {
        n: v for n, v in numbers.items() if isinstance(v, bool) or not isinstance(v, int | float)
    }
    sound = {
        **{name: name not in wrong and numbers[name] > 0 for name in numbers},
        "fresh": "fresh" not in wrong and 0 <= cfg.fresh <= 1,
        "slow": "slow" not in wrong and cfg.slow >= 0,
        "log_level": cfg.log_level in levels,
    }
    cures = {"cash": "1000000", "fresh": "0.5", "turnover": "0.5", "slow": "30"}
    for name, well in sound.items():
        if not well:
            raise ConfigError(
                f"{name}={cfg[name]} is out of range",
                code="SV-F33",
                where=f"key {name}",
                cure=f"{name}={cures.get(name, 'INFO')}",
            )
    logging.getLogger().setLevel(cfg.log_level)


def restore(cfg: DictConfig, key: str) -> Snapshot | None:
    """The newest book older than the session, or the one named; None where there is none yet.

    Raises
    ------
    StoreError
        SV-X613 for a damaged book, or a file that is not there.
    """
    if cfg.book is None:
        return None
    path: Path | None = Path(cfg.book)
    if path is not None and path.suffix != ".json":
        path = before(path, key)
    return None if path is None else read_snapshot(path)


def lots_of(instruments: Instruments | None, assets: Sequence[str]) -> dict[str, int]:
    """Lots of the assets that the instruments table gives another than 1, in shares.

    Raises
    ------
    ConfigError
        SV-F33 for a part of a share.
    """
    if instruments is None:
        return {}
    out = {}
    for asset, lot in zip(assets, instruments.column("lot", assets).tolist(), strict=True):
        if lot != int(lot):
            raise ConfigError(
                f"instruments: the lot of {asset} is {lot}",
                code="SV-F33",
                why="books hold whole shares",
                cure="give the asset a lot of 1 or more, or leave it out with data.assets",
            )
        if lot != 1:
            out[asset] = int(lot)
    return out


def with_lots(policy: Any, lots: Mapping[str, int]) -> Any:
    """`policy` with these lots; one of a user's own may know none."""
    return policy.with_lots(lots) if lots and hasattr(policy, "with_lots") else policy


def with_model(cfg: DictConfig, bars: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Bars with what the model says of the newest of each asset, and what to know about it."""
    if not cfg.model:
        return bars, []
    named = cfg.copy()
    named.model = None if cfg.model == "champion" else cfg.model
    said = load_model(named).predict(bars, newest=True)
    found = [name for name in MODEL_COLUMNS if name in said and name not in bars]
    joined = bars.join(said[found])
    proven = "unproven" not in set(said["status"])
    return joined, [] if proven else ["model: it has not passed the skill test"]


def brought_up(
    cfg: DictConfig,
    snapshot: Snapshot | None,
    prepared: Prepared,
    bars: pd.DataFrame,
    lots: Mapping[str, int],
) -> tuple[Book, list[str], list[str]]:
    """The book at the decision: in today's prices, with what was traded since.

    Returns
    -------
    Book
    notes, alerts : list of str
    """
    if snapshot is None:
        book, notes = Book.opened(cfg.cash), ["a new book"]
        alerts = [f"book: there is none yet, so it begins empty with {book.cash} of cash"]
        if cfg.book is None:
            alerts = [f"book: none is named, so it begins empty with {book.cash}; book=FOLDER"]
    else:
        book, notes, alerts = _in_todays_prices(cfg, snapshot, prepared)
    if cfg.fills == "simulated":
        orders = snapshot.orders if snapshot else ()
        book, number = _simulated(cfg, book, orders, bars, lots)
        notes.append(f"{number} of {len(orders)} orders filled, simulated")
    elif cfg.fills is not None:
        book, number = filled(book, read_fills(cfg.fills, prepared), prepared.times[-1])
        notes.append(f"{number} fills booked")
    return book, notes, alerts


def _simulated(
    cfg: DictConfig,
    book: Book,
    orders: Sequence[Order],
    bars: pd.DataFrame,
    lots: Mapping[str, int],
) -> tuple[Book, int]:
    terms = replace(assemble(cfg, "terms"), lots=dict(lots))
    rates: Any = OmegaConf.to_container(cfg.costs, resolve=True)
    assets = bars.index.unique("asset").tolist()
    costs = round_trips(rates, assemble(cfg, "instruments"), assets)
    return simulated(book, orders, bars, costs if any(costs.values()) else "none", terms)


def _in_todays_prices(
    cfg: DictConfig, snapshot: Snapshot, prepared: Prepared
) -> tuple[Book, list[str], list[str]]:
    book, notes = snapshot.book, [f"book of {snapshot.key}"]
    if book.as_of is None or not set(book.positions) <= set(prepared.assets):
        return book, notes, []  # the plan names the holding that is missing
    day = prepared.day(book.as_of)
    closes = {asset: day.price(asset) for asset in book.positions}
    splits = {str(asset): float(factor) for asset, factor in (cfg.splits or {}).items()}
    found = restated(book, snapshot.prices, closes, splits)
    moved = [asset for asset, p in found.positions.items() if p != book.positions[asset]]
    alerts = [f"restated: the history of {a} was adjusted anew" for a in moved]
    return found, notes, alerts


def folder_of(cfg: DictConfig) -> Path:
    """Where the files go: ``output``, else the folder of the books, else that of the run."""
    if cfg.output:
        return Path(cfg.output)
    if cfg.book:
        book = Path(cfg.book)
        return book.parent if book.suffix == ".json" else book
    return Path(HydraConfig.get().runtime.output_dir)


def metadata_of(cfg: DictConfig, bars: pd.DataFrame) -> dict[str, Any]:
    """What the orders depend on beside the book: the same for the same input."""
    settings = OmegaConf.to_container(cfg.portfolio, resolve=True)
    text = json.dumps(settings, sort_keys=True, default=str)
    return {"policy": hashlib.sha256(text.encode()).hexdigest(), "bars": digest(bars)}
