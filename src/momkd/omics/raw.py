"""A table file as it lies on disk: names on both axes and cells not yet required to be numbers."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from momkd.errors import OmicsError

_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}
_DELIMITER_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons"}
# Many small blocks of a table with 20 000 columns make millions of tiny arrays; a row must also fit into one block.
_BLOCK_BYTES = 64 << 20
_KNOWN = "expected .csv, .tsv, .txt (tabs), each plain or .gz, or .parquet"
_CONVERSION_ERRORS = (pa.ArrowInvalid, pa.ArrowNotImplementedError)


@dataclass(frozen=True)
class BadCell:
    """A cell that is no number: positions in the selection that was asked for, and its text."""

    row: int
    column: int
    text: str


@dataclass(frozen=True, eq=False)
class RawTable:
    """A table file: ``corner`` heads the id column, ``rows`` are its ids, ``columns`` name the others."""

    source: Path
    corner: str
    rows: list[str]
    columns: list[str]
    cells: pa.Table

    def numbers(self, rows: Sequence[int], columns: Sequence[int]) -> tuple[NDArray[np.float64], list[BadCell]]:
        """Return the chosen cells as float64 (len(rows), len(columns)), and those among them that are no number.

        A missing cell is NaN, and so is a cell that is no number.
        """
        order = pa.array(rows, type=pa.int64())
        whole = list(rows) == list(range(len(self.rows)))
        # Filled column by column, hence laid out so.
        out = np.empty((len(columns), len(rows)), dtype=np.float64)
        bad: list[BadCell] = []
        for position, index in enumerate(columns):
            column = self.cells.column(index)
            column = column if whole else column.take(order)
            out[position], faults = _column_numbers(column)
            bad.extend(BadCell(row, position, text) for row, text in faults)
        return out.T, bad

    def text_columns(self) -> dict[str, list[str]]:
        """Return the columns that hold text, by name; the first of those with equal names."""
        found: dict[str, list[str]] = {}
        for name, column in zip(self.columns, self.cells.columns, strict=True):
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                found.setdefault(name, [str(value) for value in column.to_pylist()])
        return found


def read_raw(source: Path) -> RawTable:
    """Read a CSV, TSV (each plain or .gz) or Parquet table; the first column, or a Parquet index, holds the row ids.

    Raises OmicsError naming the file when it is absent, of an unknown kind, unreadable, ragged or empty.
    """
    if not source.is_file():
        raise OmicsError(f"{source}: no such omics table → correct omics.table in the experiment file")
    suffixes = [suffix.lower() for suffix in source.suffixes]
    kind = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])
    if kind in {".parquet", ".pq"}:
        table = _read_parquet(source)
    elif kind in _DELIMITERS:
        table = _read_delimited(source, _DELIMITERS[kind])
    else:
        raise OmicsError(f"{source}: found a file of kind {kind or 'none'!r}; {_KNOWN} → rename or convert the table")
    if not table.rows or not table.columns:
        raise OmicsError(
            f"{source}: the table is empty (found {len(table.rows)} rows × {len(table.columns)} columns beside the ids)"
            "; expected patients × genes or genes × patients"
        )
    return table


def _read_parquet(source: Path) -> RawTable:
    try:
        table = parquet.read_table(source)
    except (pa.ArrowException, OSError) as error:
        raise OmicsError(f"{source}: not a readable Parquet file: {error}") from error
    if table.num_columns == 0:
        raise OmicsError(f"{source}: the table is empty (found no columns)")
    metadata: dict[str, Any] = table.schema.pandas_metadata or {}
    named = [name for name in metadata.get("index_columns", []) if isinstance(name, str)]
    if len(named) > 1:
        raise OmicsError(f"{source}: found an index of {len(named)} levels {named}; expected one level of ids")
    index = table.schema.get_field_index(named[0]) if named else 0
    ids = ["" if value is None else str(value).strip() for value in table.column(index).to_pylist()]
    corner = str(table.schema.field(index).name)
    table = table.remove_column(index)
    decoded = [pc.cast(c, pa.string()) if pa.types.is_dictionary(c.type) else c for c in table.columns]
    names = [str(name).strip() for name in table.column_names]
    return RawTable(source, corner, ids, names, pa.Table.from_arrays(decoded, names=_anonymous(len(names))))


def _read_delimited(source: Path, delimiter: str) -> RawTable:
    header, n_fields = _read_header(source, delimiter)
    fields = _anonymous(n_fields)
    try:
        try:
            table = _parse(source, delimiter, fields, pa.float64())
        except pa.ArrowInvalid:
            # Some cell is no number. Perhaps one that nobody asks for, so the cells stay text until they are chosen.
            table = _parse(source, delimiter, fields, pa.string())
    except (pa.ArrowException, OSError) as error:
        reason = str(error).split(": ", 1)[-1][:200]
        raise OmicsError(
            f"{source}: not a readable table: {reason}; expected UTF-8 text with {n_fields} columns, separated by "
            f"{_DELIMITER_NAMES[delimiter]}, in every line → write the table again"
        ) from error
    ids = [value.strip() for value in table.column(0).to_pylist()]
    return RawTable(source, header[0], ids, header[1:], table.remove_column(0))


def _read_header(source: Path, delimiter: str) -> tuple[list[str], int]:
    """Return the names of the columns and how many columns the body has; R leaves out the name of the id column."""
    try:
        with gzip.open(source, "rb") if _is_gzip(source) else source.open("rb") as handle:
            lines = [handle.readline().decode("utf-8-sig").rstrip("\r\n") for _ in range(2)]
        header, second = (
            [field.strip() for field in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])]
            for line in lines
        )
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise OmicsError(f"{source}: not a readable table: {error}; {_KNOWN}") from error
    if not lines[0].strip():
        raise OmicsError(f"{source}: the table is empty (found no header line)")
    if len(header) < 2:
        other = max(_DELIMITER_NAMES, key=lambda mark: (lines[0].count(mark), mark))
        hint = f"; the header has {lines[0].count(other)} {_DELIMITER_NAMES[other]}" if other in lines[0] else ""
        raise OmicsError(
            f"{source}: found one column only{hint}; expected {_DELIMITER_NAMES[delimiter]} between columns in a "
            f"{''.join(source.suffixes[-2:])} file → name it by its kind: .csv for commas, .tsv for tabs"
        )
    if len(second) == len(header) + 1:
        header = ["", *header]
    return header, len(header)


def _is_gzip(source: Path) -> bool:
    return source.suffix.lower() == ".gz"


def _anonymous(count: int) -> list[str]:
    """Names for parsing only: a file's own may be repeated, which pyarrow's options cannot express."""
    return [f"c{i}" for i in range(count)]


def _parse(source: Path, delimiter: str, fields: Sequence[str], cell_type: pa.DataType) -> pa.Table:
    types = dict.fromkeys(fields, cell_type)
    types[fields[0]] = pa.string()
    with pa.input_stream(str(source), compression="gzip" if _is_gzip(source) else None) as stream:
        return pacsv.read_csv(
            stream,
            read_options=pacsv.ReadOptions(column_names=list(fields), skip_rows=1, block_size=_BLOCK_BYTES),
            parse_options=pacsv.ParseOptions(delimiter=delimiter),
            convert_options=pacsv.ConvertOptions(column_types=types, strings_can_be_null=False),
        )


def _column_numbers(column: pa.ChunkedArray) -> tuple[NDArray[np.float64], list[tuple[int, str]]]:
    """Return one column as float64 and its bad cells as (position, text)."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = pc.utf8_trim_whitespace(column)
        missing = pc.is_in(column, value_set=pa.array(pacsv.ConvertOptions().null_values, type=column.type))
        column = pc.if_else(missing, pa.scalar(None, type=column.type), column)
    try:
        return np.asarray(pc.cast(column, pa.float64()).to_numpy(), dtype=np.float64), []
    except _CONVERSION_ERRORS:
        pass
    values = np.full(len(column), np.nan)
    bad: list[tuple[int, str]] = []
    for position, cell in enumerate(column):
        try:
            number = pc.cast(cell, pa.float64()).as_py()
            values[position] = np.nan if number is None else number
        except _CONVERSION_ERRORS:
            bad.append((position, str(cell.as_py())))
    return values, bad
