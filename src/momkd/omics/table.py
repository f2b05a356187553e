"""Read an omics table, in either orientation, as patients × genes."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from momkd.errors import OmicsError, raise_problems, summarise
from momkd.omics.matching import PatientMatch, match_patients
from momkd.omics.raw import BadCell, RawTable, read_raw

# log2(1 + x) of any expression unit stays well below this; counts, TPM and FPKM of thousands of genes go beyond it.
_LARGEST_LOG_VALUE = 32.0


@dataclass(frozen=True, eq=False)
class OmicsTable:
    """The privileged table of a cohort.

    ``values``: patients × genes, float32, finite; patients sorted, gene names sorted and unique. ``missing``: patients
    of the cohort without a row. ``notes``: what the user should know about how the file was read. ``unused``: patients
    whose row was set aside by ``keep_share``.
    """

    values: pd.DataFrame
    missing: tuple[str, ...]
    source: Path
    notes: tuple[str, ...]
    unused: tuple[str, ...] = ()


def read_omics(
    path: Path | str, patient_ids: Sequence[str], *, transform: Literal["none", "log2p1"] = "none"
) -> OmicsTable:
    """Read patients × genes or genes × patients from CSV, TSV (plain or .gz) or Parquet, for the cohort's patients.

    The orientation is the axis whose names are patients of the cohort. The order of rows and columns in the file
    changes nothing: equal gene names are told apart (name, name.1 …) in the order of their values. ``transform`` log2p1
    is log2(1 + x), computed in float64.

    Raises OmicsError naming file, gene and patient: no axis or both match the cohort, a patient with several samples,
    cells that are missing, infinite or no number, negative values under log2p1, genes without a name, an empty table.
    """
    source = Path(path)
    patients = sorted(set(patient_ids))
    raw = read_raw(source)
    match, patients_are_rows = _orient(raw, patients)
    raise_problems([replace(problem, subject=f"{source}: {problem.subject}") for problem in match.problems], OmicsError)
    present = sorted(match.chosen)
    positions = [match.chosen[patient] for patient in present]
    if patients_are_rows:
        names = raw.columns
        values, bad = raw.numbers(positions, range(len(names)))
    else:
        names = raw.rows
        transposed, bad = raw.numbers(range(len(names)), positions)
        values, bad = transposed.T, [BadCell(cell.column, cell.row, cell.text) for cell in bad]
    _check_names(source, names, "column" if patients_are_rows else "row")
    _check_cells(source, values, bad, present, names)
    genes, values, notes = _sort_genes(names, values)
    transformed, more = _transform(source, values, transform, present, genes)
    frame = pd.DataFrame(transformed, index=pd.Index(present, name="patient_id"), columns=pd.Index(genes, name="gene"))
    missing = tuple(patient for patient in patients if patient not in match.chosen)
    reading = _describe(match, len(patients), patients_are_rows)
    return OmicsTable(frame, missing, source, (*reading, *notes, *more))


def keep_share(table: OmicsTable, share: float, seed: int) -> OmicsTable:
    """The table of a random ``share`` of its patients (rounded up); the others are ``unused``.

    Patients stand in an order that the hash of seed and patient id decides, and the first of them are kept. So a
    smaller share is a part of every larger one, and tables of the same patients keep the same ones. The choice knows
    neither labels nor folds; it is not stratified.
    """
    if share >= 1.0:
        return table
    ranked = sorted(table.values.index, key=lambda patient: (_rank(seed, patient), patient))
    # .1 × 60 is a little above 6 in floating point.
    kept = set(ranked[: max(1, math.ceil(share * len(ranked) - 1e-9))])
    inside = [patient in kept for patient in table.values.index]
    unused = tuple(patient for patient in table.values.index if patient not in kept)
    return replace(table, values=table.values.loc[inside], unused=unused)


def _rank(seed: int, patient: str) -> bytes:
    return hashlib.sha256(f"{seed}/omics/{patient}".encode()).digest()


def _orient(raw: RawTable, patients: Sequence[str]) -> tuple[PatientMatch, bool]:
    """Return the match of the axis that holds patients, and whether that axis is the rows."""
    by_row, by_column = match_patients(raw.rows, patients), match_patients(raw.columns, patients)
    if by_row.patients and by_column.patients:
        raise OmicsError(
            f"{raw.source}: the orientation is ambiguous: {by_row.patients} patients of the cohort are names of rows "
            f"and {by_column.patients} are names of columns ({summarise(sorted(by_column.chosen))}); expected patients "
            "on one axis only → rename the genes, or remove the columns that are no genes"
        )
    if not by_row.patients and not by_column.patients and not by_row.problems and not by_column.problems:
        raise OmicsError(_no_match(raw, patients))
    patients_are_rows = bool(by_row.patients or by_row.problems)
    return (by_row if patients_are_rows else by_column), patients_are_rows


def _no_match(raw: RawTable, patients: Sequence[str]) -> str:
    text = (
        f"{raw.source}: no patient of the cohort is found in the table; the cohort's patients are "
        f"{summarise(patients, 3)}, the table's rows {summarise(sorted(raw.rows), 3)} (column {raw.corner!r}), "
        f"its columns {summarise(sorted(raw.columns), 3)}"
    )
    for name, column in raw.text_columns().items():
        count = match_patients(column, patients).patients
        if count:
            return f"{text} → column {name!r} holds {count} of the patients: put it first"
    return f"{text} → use the same patient ids in both tables"


def _check_names(source: Path, names: Sequence[str], axis: str) -> None:
    nameless = [str(position + 2) for position, name in enumerate(names) if not name]
    if nameless:
        raise OmicsError(
            f"{source}: {len(nameless)} genes have no name ({axis} {summarise(nameless)} of the file) → name or "
            "remove them"
        )


def _check_cells(
    source: Path, values: NDArray[np.float64], bad: Sequence[BadCell], patients: Sequence[str], genes: Sequence[str]
) -> None:
    """Refuse cells that are no finite number; ``values`` and ``bad`` are patients × genes."""
    if bad:
        worst = min(bad, key=lambda cell: (genes[cell.column], patients[cell.row], cell.text))
        raise OmicsError(
            f"{source}: {len(bad)} cells are no numbers, for example gene {genes[worst.column]!r}, patient "
            f"{patients[worst.row]}: {worst.text!r}; genes with such cells: "
            f"{summarise(sorted({genes[cell.column] for cell in bad}))} → remove what is no gene; write numbers with "
            "a decimal point"
        )
    at = np.argwhere(~np.isfinite(values)).tolist()
    if at:
        found = "missing" if not np.isinf(values).any() else "missing or infinite"
        row, column = min(at, key=lambda cell: (genes[cell[1]], patients[cell[0]]))
        raise OmicsError(
            f"{source}: {len(at)} cells are {found}, for example gene {genes[column]!r}, patient {patients[row]}; "
            f"genes with such cells: {summarise(sorted({genes[cell[1]] for cell in at}))} → impute them or remove the "
            "genes: momkd invents no values"
        )


def _sort_genes(
    names: Sequence[str], values: NDArray[np.float64]
) -> tuple[list[str], NDArray[np.float64], tuple[str, ...]]:
    """Sort genes by name, tell equal names apart by a number in the order of their values, and say so."""
    positions: dict[str, list[int]] = defaultdict(list)
    for position, name in enumerate(names):
        positions[name].append(position)
    repeated = sorted(name for name, where in positions.items() if len(where) > 1)
    place = {name: where[0] for name, where in positions.items()}
    for name in repeated:
        first, *others = sorted(positions[name], key=lambda position: values[:, position].tolist())
        place[name] = first
        number = 0
        for position in others:
            number += 1
            while f"{name}.{number}" in place:
                number += 1
            place[f"{name}.{number}"] = position
    genes = sorted(place)
    notes = (
        (f"{len(repeated)} gene names occur several times and were numbered (name, name.1 …): {summarise(repeated)}",)
        if repeated
        else ()
    )
    return genes, values[:, [place[gene] for gene in genes]], notes


def _transform(
    source: Path, values: NDArray[np.float64], transform: str, patients: Sequence[str], genes: Sequence[str]
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    notes: tuple[str, ...] = ()
    lowest, largest = float(values.min()), float(values.max())
    if transform == "log2p1":
        if lowest < 0:
            at = np.argwhere(values < 0).tolist()
            row, column = min(at, key=lambda cell: (cell[1], cell[0]))
            raise OmicsError(
                f"{source}: log2p1 of {len(at)} negative values, for example gene {genes[column]!r}, patient "
                f"{patients[row]}: {values[row, column]:g}; expected counts, TPM or FPKM → if the table is on a log "
                "scale or z-scored already, set omics.transform: none"
            )
        if largest <= _LARGEST_LOG_VALUE:
            notes = (
                f"the largest value is {largest:.4g}: is the table on a log scale already? (omics.transform: none)",
            )
        values = np.log2(values + 1.0)
    elif transform != "none":
        raise OmicsError(f"{source}: found transform {transform!r}; expected none or log2p1 → correct omics.transform")
    elif lowest >= 0 and largest > _LARGEST_LOG_VALUE:
        notes = (f"values reach {largest:.4g} and none is negative: counts or TPM? (omics.transform: log2p1)",)
    limit = float(np.finfo(np.float32).max)
    if max(abs(float(values.min())), abs(float(values.max()))) > limit:
        raise OmicsError(f"{source}: found values beyond ±{limit:.3g}, which float32 cannot hold → rescale the table")
    return np.ascontiguousarray(values, dtype=np.float32), notes


def _describe(match: PatientMatch, n_patients: int, patients_are_rows: bool) -> list[str]:
    axis, other = ("rows", "columns") if patients_are_rows else ("columns", "rows")
    shape = "patients × genes" if patients_are_rows else "genes × patients"
    notes = [
        f"read as {shape}: {match.patients} of {n_patients} patients of the cohort are {axis}, 0 are {other}",
        *match.notes,
    ]
    if match.unmatched:
        listed = summarise(sorted(set(match.unmatched)))
        notes.append(f"{len(match.unmatched)} {axis} are no patients of the cohort and were left out: {listed}")
    return notes
