"""The one table of what each asset is: class, calendar, currency, tick, lot, sector."""

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.nearest import nearest
from stages.base import ConfigError, DataError

log = logging.getLogger(__name__)

UNKNOWN = "unknown"  # sector of an asset of which nothing else is said


@dataclass(frozen=True)
class Instrument:
    """What one asset is.

    Attributes
    ----------
    asset_class : str
        Key of the costs and of the rules by class: equity, etf, index, future, fx, crypto ...
    calendar : str
        Name in exchange_calendars.
    currency : str
        ISO 4217.
    tick : float > 0
        Smallest price step, in `currency`.
    lot : float > 0
        Smallest tradable quantity, units.
    sector : str
    negative_price : bool
        Whether a price at or below zero is a price (spreads, some futures) and not a fault.
    """

    asset_class: str = "equity"
    calendar: str = "XNYS"
    currency: str = "USD"
    tick: float = 0.01
    lot: float = 1.0
    sector: str = UNKNOWN
    negative_price: bool = False

    def __post_init__(self) -> None:
        if not (self.tick > 0 and self.lot > 0):
            raise ValueError(f"need tick > 0 and lot > 0, got {self.tick} and {self.lot}")


FIELDS = tuple(f.name for f in fields(Instrument))


@dataclass(frozen=True)
class Instruments:
    """The instruments table.

    Parameters
    ----------
    table : mapping of str to mapping
        Asset to the fields of `Instrument` in which it differs from `default`.
    default : mapping
        Fields of an asset that is not in the table.
    """

    table: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    default: Mapping[str, Any] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # plain containers, so that the table goes into an artifact as JSON
        object.__setattr__(self, "default", dict(self.default))
        object.__setattr__(self, "table", {str(a): dict(row) for a, row in self.table.items()})
        for asset, row in {"default": self.default, **self.table}.items():
            unknown = [str(name) for name in row if name not in FIELDS]
            if unknown:
                raise ConfigError(
                    f"instruments: {asset} has no field {unknown[0]!r}",
                    code="SV-F33",
                    where=f"fields: {', '.join(FIELDS)}",
                    cure=nearest(unknown[0], FIELDS) or "remove it",
                )
            Instrument(**{**self.default, **row})

    def of(self, asset: str) -> Instrument:
        """The row of `asset`; the default row, logged once, where the table has none."""
        self._tell([asset])
        return Instrument(**{**self.default, **self.table.get(asset, {})})

    def classes(self, assets: Iterable[str]) -> np.ndarray:
        """Asset class of each of N assets: shape (N,), text."""
        return self.column("asset_class", assets)

    def sectors(self, assets: Iterable[str]) -> np.ndarray:
        """A number for the sector of each of N assets, NaN where it is unknown: float64 (N,).

        The number is made of the name, so that it is the same in every table of instruments.
        """
        names, codes = np.unique(self.column("sector", assets), return_inverse=True)
        numbers = [np.nan if name == UNKNOWN else _number(str(name)) for name in names]
        return np.array(numbers, dtype="float64")[codes]

    def column(self, name: str, assets: Iterable[str]) -> np.ndarray:
        """One field of `Instrument` for each of N assets: shape (N,)."""
        asked = [str(asset) for asset in assets]
        places = {asset: place for place, asset in enumerate(dict.fromkeys(asked))}
        self._tell(places)
        values = np.array([getattr(self.of(asset), name) for asset in places])
        return values[[places[asset] for asset in asked]] if places else values

    def _tell(self, assets: Iterable[str]) -> None:
        new = [a for a in assets if a and a not in self.table and a not in self._told]
        if new:
            self._told.update(new)
            names = ", ".join(new[:10]) + (" ..." if len(new) > 10 else "")
            log.info("%d not in the instruments table, default class applies: %s", len(new), names)


def read_instruments(path: str, default: Mapping[str, Any] | None = None) -> Instruments:
    """Read the table from a file.

    Parameters
    ----------
    path : str
        CSV or Parquet with a column ``asset`` and any of the fields of `Instrument`; an empty
        cell takes the default.
    default : mapping, optional

    Raises
    ------
    DataError
        If the file cannot be read, or names an asset twice.
    ConfigError
        On a column that is no field.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(
            f"instruments file {file.name} is not there",
            code="SV-F20",
            cure="check instruments.path",
        )
    if file.suffix == ".parquet":
        table = pd.read_parquet(file)
    else:  # NA is a ticker too, so only an empty cell is missing
        table = pd.read_csv(file, keep_default_na=False, na_values=[""], encoding="utf-8-sig")
    if "asset" not in table:
        raise DataError(
            f"instruments file {file.name} has no column 'asset'",
            code="SV-F20",
            where=f"columns: {list(table.columns)}",
            cure=nearest("asset", table.columns) or "name the column of symbols 'asset'",
        )
    twice = table["asset"].duplicated()
    if twice.any():
        raise DataError(
            f"{table['asset'][twice].iloc[0]} stands twice in {file.name}",
            code="SV-F02",
            cure="keep one row an asset",
        )
    rows = table.set_index(table["asset"].astype("str")).drop(columns="asset")
    return Instruments(
        {str(asset): _present(row) for asset, row in rows.iterrows()}, default=default or {}
    )


def _number(name: str) -> int:
    # 48 bits, which a float64 holds exactly
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=6).digest(), "little")


def _present(row: pd.Series) -> dict[str, Any]:
    plain = {name: getattr(value, "item", lambda v=value: v)() for name, value in row.items()}
    return {str(name): value for name, value in plain.items() if not pd.isna(value)}
