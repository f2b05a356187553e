"""Text tables, read as text: identifiers keep their leading zeros, and an empty cell is an empty string."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow
import pyarrow.parquet

from momkd.errors import Problem

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}
_COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")


def read_text_table(path: Path, required: Mapping[str, str]) -> tuple[pd.DataFrame | None, list[Problem]]:
    """Read a CSV, TSV or Parquet table with every cell as text, and check that the ``required`` columns are there.

    ``required`` maps a column name to what names it ("cohort.patient"), which is told to the user. The index of the
    table is the line number in the file, the header being line 1; rows whose cells are all empty are no rows. Returns
    None for the table, and why, where it cannot be used. Raises nothing.
    """
    try:
        table = _read_parquet(path) if _kind(path) == ".parquet" else _read_delimited(path)
    except FileNotFoundError:
        return None, [Problem(str(path), "no such file", "a table", "mend the path in the experiment file")]
    except (OSError, EOFError, UnicodeDecodeError, ValueError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        return None, [Problem(str(path), f"not readable as a table: {reason}", "CSV or TSV in UTF-8, or Parquet")]
    problems = _column_problems(path, [str(name) for name in table.columns], required)
    if problems:
        return None, problems
    table = table[list(required)]
    return table[(table != "").any(axis=1)], []


def _kind(path: Path) -> str:
    """Return the suffix that says how a table is written, without that of a compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in _COMPRESSIONS:
        suffixes.pop()
    kind = suffixes[-1] if suffixes else ""
    return ".parquet" if kind == ".pq" else kind


def _read_delimited(path: Path) -> pd.DataFrame:
    separator = _SEPARATORS.get(_kind(path))
    if separator is None:
        raise ValueError(f"its name ends in {_kind(path) or 'nothing'!r}, which is none of .csv, .tsv, .txt, .parquet")
    # The header is read as a row: pandas would otherwise rename columns that occur twice, and take the first column
    # of a table with a trailing separator as its index.
    table = pd.read_csv(
        path, sep=separator, header=None, dtype=str, keep_default_na=False, skip_blank_lines=False, encoding="utf-8-sig"
    ).fillna("")
    header = [str(name).strip() for name in table.iloc[0]]
    body = table.iloc[1:].set_axis(header, axis=1)
    return body.set_axis(range(2, len(body) + 2), axis=0)


def _read_parquet(path: Path) -> pd.DataFrame:
    table = pyarrow.parquet.read_table(path)
    columns = [[_as_text(value) for value in column.to_pylist()] for column in table.columns]
    body = pd.DataFrame(dict(enumerate(columns)), dtype=object)
    return body.set_axis([name.strip() for name in table.column_names], axis=1).set_axis(
        range(2, len(body) + 2), axis=0
    )


def _as_text(value: object) -> str:
    """Return a Parquet cell as the text a user would type; whole floats come from integer columns with gaps."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _column_problems(path: Path, columns: Sequence[str], required: Mapping[str, str]) -> list[Problem]:
    problems = []
    for name, setting in required.items():
        count = columns.count(name)
        if count > 1:
            problems.append(Problem(str(path), f"{count} columns are called {name!r}", "one", "rename the others"))
        elif count == 0:
            problems.append(
                Problem(str(path), f"no column {name!r}", f"the column of {setting}", _nearest(name, setting, columns))
            )
    return problems


def _nearest(name: str, setting: str, columns: Sequence[str]) -> str:
    if len(columns) == 1 and any(mark in columns[0] for mark in ";\t,|"):
        return f"the whole header was read as one column ({columns[0]!r}): .csv needs commas, .tsv and .txt tabs"
    folded = {column.casefold().replace(" ", "_"): column for column in columns}
    near = difflib.get_close_matches(name.casefold().replace(" ", "_"), list(folded), n=1, cutoff=0.5)
    listed = f"its columns are {', '.join(columns)}"
    if not near:
        return listed
    # A setting such as "cohort.patient" can be changed; the columns of splits.csv cannot.
    change = f"set {setting}: {folded[near[0]]}" if "." in setting and " " not in setting else "rename it"
    return f"did you mean {folded[near[0]]!r}? {change}; {listed}"
