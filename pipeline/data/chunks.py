"""Assets of Parquet files a few at a time, for tables that are larger than memory."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.data.columns import resolve, take
from pipeline.data.files import Raw, find_files
from pipeline.data.intake import Intake, Source, refuse_absent
from stages.base import DataError

SUFFIXES = (".parquet", ".pq")


@dataclass(frozen=True)
class Group:
    """A row group of a file: the part of it that can be read alone.

    Attributes
    ----------
    file : Path
    number : int
        Of the row group in its file.
    first : int
        Rows of the file before it.
    """

    file: Path
    number: int
    first: int


@dataclass(frozen=True)
class Chunk:
    """Some assets, and where their rows lie.

    Attributes
    ----------
    number : int
    assets : tuple of str
        In order of name; each asset is in one chunk.
    groups : tuple of Group
    """

    number: int
    assets: tuple[str, ...]
    groups: tuple[Group, ...]


def chunks_of(path: str, intake: Intake, most: int) -> list[Chunk]:
    """Split the assets of some files into chunks of about `most` rows, in order of name.

    Only the column of the assets is read. Files are best sorted by asset, or one an asset: a row
    group is read once for each chunk that has an asset in it.

    Parameters
    ----------
    path : str
        A file, a folder of Parquet files or a glob.
    intake : Intake
    most : int >= 1
        An asset with more rows is a chunk of its own.

    Raises
    ------
    DataError
        SV-F20 if a column, or an asset that `intake` asks for, is not there.
    """
    rows: dict[str, int] = {}
    places: dict[str, list[Group]] = {}
    for file in find_files(path, SUFFIXES):
        with pq.ParquetFile(file) as source:
            name = _found(source, file, intake).get("asset")
            first = 0
            for number in range(source.metadata.num_row_groups):
                group, count = (
                    Group(file, number, first),
                    source.metadata.row_group(number).num_rows,
                )
                first += count
                counts = {file.stem: count} if name is None else _counted(source, number, name)
                for asset, held in counts.items():
                    rows[asset] = rows.get(asset, 0) + held
                    places.setdefault(asset, []).append(group)
    wanted = rows if intake.assets is None else list(map(str, intake.assets))
    market = [] if intake.market is None else [intake.market]
    refuse_absent([*wanted, *market], rows)
    made: list[list[str]] = [[]]
    held = 0
    for asset in sorted(wanted):
        if made[-1] and held + rows[asset] > most:
            made.append([])
            held = 0
        made[-1].append(asset)
        held += rows[asset]
    return [_chunk(n, assets, market, places) for n, assets in enumerate(made) if assets]


def read_chunk(chunk: Chunk, intake: Intake) -> Source:
    """The checked bars of the assets of a chunk; see `Intake.take`."""
    names = [*chunk.assets, *([] if intake.market is None else [intake.market])]
    tables = [_read(group, intake, names) for group in chunk.groups]
    raw = Raw(pd.concat([table for table in tables if len(table)], ignore_index=True))
    return replace(intake, assets=list(chunk.assets)).take(raw, f"chunk {chunk.number}")


def _chunk(
    number: int, assets: Sequence[str], market: Sequence[str], places: dict[str, list[Group]]
) -> Chunk:
    groups = dict.fromkeys(g for asset in [*assets, *market] for g in places[asset])
    ordered = sorted(groups, key=lambda g: (str(g.file), g.number))
    return Chunk(number, tuple(assets), tuple(ordered))


def _found(source: pq.ParquetFile, file: Path, intake: Intake) -> dict[str, str]:
    names = [name for name in source.schema_arrow.names if not name.startswith("__index")]
    return resolve(intake.columns, names, file.name)


def _counted(source: pq.ParquetFile, number: int, name: str) -> dict[str, int]:
    """Rows of each asset in a row group."""
    column = source.read_row_group(number, columns=[name]).column(0)
    if column.null_count:
        raise DataError(
            "a row lacks its asset",
            code="SV-F20.asset",
            where=f"row group {number}",
            cure="drop or complete the row",
        )
    counts = pc.value_counts(column.cast(pa.string()))
    return dict(zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True))


def _read(group: Group, intake: Intake, assets: Sequence[str]) -> pd.DataFrame:
    """Rows of the assets in a row group, under panel names, with their place in the file."""
    with pq.ParquetFile(group.file) as source:
        found = _found(source, group.file, intake)
        arrow = source.read_row_group(group.number, columns=list(found.values()))
    row = np.arange(len(arrow)) + group.first + 1
    if "asset" in found:
        inside = pc.is_in(arrow.column(found["asset"]).cast(pa.string()), pa.array(assets))
        arrow, row = arrow.filter(inside), row[inside.to_numpy(zero_copy_only=False)]
    table = take(arrow.to_pandas(ignore_metadata=True), found)
    if "asset" not in table:
        table.insert(0, "asset", group.file.stem)
    return table.assign(file=group.file.name, row=row)
