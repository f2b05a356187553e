"""A user's table of labels, such as Oncotype DX scores, joined by patient."""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from momkd.errors import GdcError, Problem, raise_problems, summarise
from momkd.gdc.barcodes import read_barcode

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}


@dataclass(frozen=True)
class Labels:
    """Columns of a table by patient: ``values``: {patient: a cell a column}."""

    source: Path
    columns: tuple[str, ...]
    values: dict[str, tuple[str, ...]]

    def notes(self, patients: Sequence[str]) -> list[Problem]:
        """Who of the cohort is not in the table, and who of the table is not in the cohort."""
        without = [patient for patient in patients if patient not in self.values]
        foreign = sorted(self.values.keys() - set(patients))
        notes = []
        if without:
            found = f"{len(without)} patients of the cohort are not in it: {summarise(without)}"
            notes.append(Problem(str(self.source), found, severity="note"))
        if foreign:
            found = f"{len(foreign)} patients in it are not in the cohort: {summarise(foreign)}"
            notes.append(Problem(str(self.source), found, severity="note"))
        return notes


def read_labels(path: Path, *, patient: str = "patient_id", taken: Collection[str] = ()) -> Labels:
    """Read a CSV or TSV table with a column of patients; barcodes of samples count for their patient.

    ``taken``: names of columns that the cohort table has already. Raises GdcError listing everything: no such file or
    column, lines of another length, ids that are no TCGA barcodes, a patient with two different rows.
    """
    header, lines = _read(path)
    problems = _header_problems(path, header, patient, taken)
    raise_problems(problems, GdcError)
    at = header.index(patient)
    values: dict[str, tuple[str, ...]] = {}
    for number, line in lines:
        if len(line) != len(header):
            problems.append(Problem(f"{path}, line {number}", f"{len(line)} cells", f"{len(header)}, as in the header"))
            continue
        cells = [cell.strip() for cell in line]
        barcode = read_barcode(cells.pop(at).upper())
        if barcode is None:
            problems.append(Problem(f"{path}, line {number}", f"{patient} {line[at]!r}", "a TCGA barcode"))
        elif values.setdefault(barcode.patient, tuple(cells)) != tuple(cells):
            problems.append(Problem(f"{path}, line {number}", f"another row of {barcode.patient}", "one row a patient"))
    raise_problems(problems, GdcError)
    return Labels(path, tuple(name for name in header if name != patient), values)


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    separator = _SEPARATORS.get(path.suffix.lower())
    if separator is None:
        raise GdcError(f"{path}: a table of labels ends in .csv, .tsv or .txt")
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle, delimiter=separator)
            lines = [(reader.line_num, line) for line in reader if any(cell.strip() for cell in line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise GdcError(f"{path}: not readable as a table: {error}; expected UTF-8 text") from error
    if not lines:
        raise GdcError(f"{path}: an empty table")
    return [name.strip() for name in lines[0][1]], lines[1:]


def _header_problems(path: Path, header: Sequence[str], patient: str, taken: Collection[str]) -> list[Problem]:
    problems = []
    if patient not in header:
        found = f"no column {patient!r}; it has {summarise(header, 12)}"
        problems.append(Problem(str(path), found, "a column of patients", "--patient-column NAME"))
    twice = sorted({name for name in header if header.count(name) > 1 or not name})
    if twice:
        problems.append(Problem(str(path), f"columns without a name of their own: {twice}", "a name each"))
    clash = sorted((set(header) - {patient}) & set(taken))
    if clash:
        problems.append(Problem(str(path), f"the cohort table has {summarise(clash)} already", mend="rename them"))
    return problems
