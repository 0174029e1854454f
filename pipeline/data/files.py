"""Tables from Parquet and CSV files that may be broken, huge or hostile."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from pipeline.data.columns import resolve, take
from pipeline.data.quality import shown
from stages.base import ConfigError, DataError

LARGEST_ROWS = 100_000_000  # a compressed constant column can claim any number of rows
LONGEST_LINE = 1 << 20  # bytes
CHUNK = 1 << 20  # bytes
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "-")


@dataclass(frozen=True)
class Dialect:
    """How a CSV file writes its numbers.

    Parameters
    ----------
    separator, decimal : str
    thousands : str or None
        ``","`` reads ``1,234.5``; None refuses it.
    encoding : str, default='utf8'
        With or without a byte order mark.
    missing : sequence of str
        Texts of a missing number. In the asset column, ``NA`` is a symbol.
    """

    separator: str = ","
    decimal: str = "."
    thousands: str | None = None
    encoding: str = "utf8"
    missing: tuple[str, ...] = MISSING


@dataclass(frozen=True)
class Raw:
    """A table as it came, with the place of every row.

    Attributes
    ----------
    table : DataFrame of shape (N, F)
        Columns ``asset``, ``time`` and values under their panel names, ``file`` and ``row``.
    known : bool
        Whether the times already say when the bars were known.
    """

    table: pd.DataFrame
    known: bool = False


def find_files(path: str, suffixes: tuple[str, ...]) -> list[Path]:
    """Files that a path, a folder or a glob names, sorted.

    Raises
    ------
    DataError
        If there is none.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        files = sorted(f for f in place.iterdir() if f.suffix.lower() in suffixes and f.is_file())
    elif has_magic(str(place)) and not place.exists():
        files = sorted(f for f in map(Path, glob(str(place), recursive=True)) if f.is_file())
    else:
        files = [place] if place.is_file() else []
    if not files:
        raise DataError(
            f"no {' or '.join(suffixes)} file at {path!r}",
            code="SV-F20",
            where="key data.path",
            cure="check data.path: a file, a folder or a glob; data=csv and data=parquet read the "
            "files of their kind",
        )
    return files


def read_files(
    path: str,
    suffixes: tuple[str, ...],
    columns: Mapping[str, str | None],
    read: Callable[[Path, Mapping[str, str | None]], pd.DataFrame],
) -> Raw:
    """Read and stack the files of a path; the asset is the file's name where none is mapped."""
    tables = []
    for file in find_files(path, suffixes):
        table = read(file, columns)
        if "asset" not in table:
            table.insert(0, "asset", file.stem)
        tables.append(table.assign(file=file.name, row=range(1, len(table) + 1)))
    return Raw(pd.concat(tables, ignore_index=True))


def read_parquet(file: Path, columns: Mapping[str, str | None]) -> pd.DataFrame:
    """The mapped columns of one Parquet file, under their panel names."""
    try:
        with pq.ParquetFile(file) as source:
            if source.metadata.num_rows > LARGEST_ROWS:
                raise _unreadable(file, f"it claims {source.metadata.num_rows} rows", "split it")
            names = [name for name in source.schema_arrow.names if not name.startswith("__index")]
            found = resolve(columns, names, file.name)
            arrow = source.read(columns=list(found.values()))
    except (pa.ArrowException, OSError, EOFError) as fault:
        raise _unreadable(file, shown(fault), "write it again; data=csv reads text") from fault
    return take(arrow.to_pandas(ignore_metadata=True), found)


@dataclass(frozen=True)
class CsvReader:
    """Reads one CSV file in a declared dialect; every line must have as many fields."""

    dialect: Dialect = field(default_factory=Dialect)

    def __call__(self, file: Path, columns: Mapping[str, str | None]) -> pd.DataFrame:
        """The mapped columns of one CSV file, under their panel names."""
        _scan(file)
        try:
            with self._open(file, {}) as reader:
                found = resolve(columns, reader.schema.names, file.name)
            table = self._read(file, found)
        except (pa.ArrowException, UnicodeError, LookupError) as fault:
            cure = "set data.dialect.separator or data.dialect.encoding to those of the file"
            raise _unreadable(file, shown(fault), cure) from fault
        return take(table, found)

    def _read(self, file: Path, found: Mapping[str, str]) -> pd.DataFrame:
        """Numbers where all are numbers; else texts, so that the first offender can be named."""
        text = {found[name] for name in ("asset", "time") if name in found}
        numbers = [name for name in found.values() if name not in text]
        types = dict.fromkeys(text, pa.string())
        if self.dialect.thousands is None:
            try:
                floats = types | dict.fromkeys(numbers, pa.float64())
                with self._open(file, floats) as reader:
                    return _no_blanks(reader.read_all().to_pandas(), text)
            except pa.ArrowInvalid as fault:
                if "conversion error" not in str(fault):
                    raise
        with self._open(file, types | dict.fromkeys(numbers, pa.string())) as reader:
            table = _no_blanks(reader.read_all().to_pandas(), text)
        return table.assign(**{name: self._plain(table[name]) for name in numbers})

    def _plain(self, texts: pd.Series) -> pd.Series:
        """Texts of numbers in the notation of Python."""
        plain = texts.mask(texts.isin(self.dialect.missing))
        if self.dialect.thousands is not None:
            plain = plain.str.replace(self.dialect.thousands, "", regex=False)
        return plain.str.replace(self.dialect.decimal, ".", regex=False)

    def _open(self, file: Path, types: Mapping[str, pa.DataType]) -> pcsv.CSVStreamingReader:
        d = self.dialect
        missing = pcsv.ConvertOptions(
            column_types=types,
            include_columns=list(types),
            null_values=list(d.missing),
            strings_can_be_null=False,  # NA is a symbol too
            decimal_point=d.decimal,
        )
        return pcsv.open_csv(
            file,
            read_options=pcsv.ReadOptions(encoding=d.encoding, use_threads=False),
            parse_options=pcsv.ParseOptions(delimiter=d.separator),
            convert_options=missing,
        )


def _no_blanks(table: pd.DataFrame, text: set[str]) -> pd.DataFrame:
    return table.assign(**{name: table[name].mask(table[name] == "") for name in text})


def _scan(file: Path) -> None:
    """Refuse, in constant memory, what a CSV parser would choke on."""
    if not file.stat().st_size:
        raise DataError(f"{file.name} is empty", code="SV-F18", cure="remove it, or fill it")
    open_line = 0
    for chunk in _chunks(file):
        if b"\x00" in chunk:
            raise _unreadable(file, "it holds null bytes", "write the file again as UTF-8 text")
        first, *rest = chunk.split(b"\n")
        if max(open_line + len(first), *map(len, rest), 0) > LONGEST_LINE:
            cure = "check that the file is a table"
            raise _unreadable(file, f"a line is longer than {LONGEST_LINE} bytes", cure)
        open_line = len(rest[-1]) if rest else open_line + len(first)


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as source:
        while chunk := source.read(CHUNK):
            yield chunk


def _unreadable(file: Path, what: str, cure: str) -> DataError:
    return DataError(f"{file.name} cannot be read: {what}", code="SV-F19", cure=cure)


def as_dialect(given: Mapping[str, Any] | None) -> Dialect:
    """A dialect from configuration keys."""
    keys = dict(given or {})
    unknown = set(keys) - set(Dialect.__dataclass_fields__)
    if unknown:
        raise ConfigError(
            f"data.dialect has no key {min(unknown)!r}",
            code="SV-F33",
            cure=f"keys: {', '.join(Dialect.__dataclass_fields__)}",
        )
    if "missing" in keys:
        keys["missing"] = tuple(keys["missing"])
    return Dialect(**keys)
