"""STAR-count files of many patients → one table, genes × patients.

A file has a comment line, a header, four counters of reads (N_unmapped, N_multimapping, N_noFeature, N_ambiguous) and a
line a gene. The counters are no genes and are left out. Genes with one symbol are added up: so a patient's values come
from the patient's own file only, nothing of a test fold enters a training fold, and every cohort has the same genes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from momkd.errors import GdcError, Problem, raise_problems, summarise
from momkd.files import atomic_path, write_text
from momkd.gdc.plan import Plan, read_plan
from momkd.gdc.records import RemoteFile

Values = Literal["tpm_unstranded", "fpkm_unstranded", "unstranded"]
VALUES: tuple[Values, ...] = ("tpm_unstranded", "fpkm_unstranded", "unstranded")
TABLE = "rna.parquet"
GENES = "rna_genes.csv"
_COUNTERS = "N_"
_NAMES = ("gene_id", "gene_name", "gene_type")
_RULE = "genes with one symbol are added up; N_* counters are left out"


@dataclass(frozen=True)
class Merged:
    """What was merged: ``genes`` symbols of ``patients`` patients; ``summed``: symbols that several genes share."""

    table: Path
    genes: int
    patients: int
    summed: tuple[str, ...]


def merge_expression(
    folder: Path,
    *,
    values: Values = "tpm_unstranded",
    gene_type: str | None = "protein_coding",
    progress: Callable[[int, int, str], None] | None = None,
) -> Merged:
    """Write rna.parquet (column gene, then a column a patient) and rna_genes.csv from a plan's STAR-count files.

    ``values``: TPM and FPKM are stored as float32, counts as int64. ``gene_type``: the only type of gene to keep, by
    the file's own column; None keeps all. Raises GdcError listing every file that is missing, not as the GDC writes
    them, or of another gene model than the first.
    """
    plan = read_plan(folder)
    files = sorted(plan.used("rna"), key=lambda file: file.patient)
    genes: _Genes | None = None
    columns: list[NDArray[Any]] = []
    problems: list[Problem] = []
    for number, (file, place) in enumerate(zip(files, _places(folder, files), strict=True), 1):
        try:
            table = _read(place, values)
            genes = genes or _Genes.of(table, gene_type, place.name)
            columns.append(genes.values(table, values))
        except GdcError as error:
            problems.append(Problem(str(place), str(error)))
        if progress is not None:
            progress(number, len(files), file.patient)
    raise_problems(problems, GdcError)
    if genes is None:
        raise GdcError(f"{folder}: the plan has no STAR-count files")
    _write(folder / TABLE, genes, [file.patient for file in files], columns, _provenance(plan, values, gene_type))
    write_text(folder / GENES, genes.listed())
    return Merged(folder / TABLE, len(genes.symbols), len(files), genes.shared())


def expression_digest(plan: Plan) -> str:
    """What tells an expression table of this plan from one of another: a digest of the files it is made of."""
    ids = sorted(file.file_id for file in plan.used("rna"))
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def read_provenance(table: Path) -> dict[str, Any]:
    """What an expression table says of itself: values, gene_type, project, data_release, files (a digest), rule."""
    found = parquet.read_schema(table).metadata or {}
    return dict(json.loads(found.get(b"momkd.gdc", b"{}")))


def _provenance(plan: Plan, values: str, gene_type: str | None) -> dict[str, str | None]:
    return {
        "project": plan.settings.project,
        "data_release": plan.data_release,
        "values": values,
        "gene_type": gene_type,
        "rule": _RULE,
        "files": expression_digest(plan),
    }


def _places(folder: Path, files: Sequence[RemoteFile]) -> list[Path]:
    """The complete files, or an error that says how to get them."""
    found = [file.find(folder) for file in files]
    missing = [file.patient for file, place in zip(files, found, strict=True) if place is None]
    if missing:
        raise GdcError(
            f"{folder / 'rna'}: {len(missing)} of {len(files)} STAR-count files are missing, of patients "
            f"{summarise(missing)} → momkd gdc download {folder} --what rna"
        )
    return [place for place in found if place is not None]


def _read(path: Path, values: Values) -> pa.Table:
    """The names of genes and one column of values, without the counters."""
    try:
        with path.open("rb") as handle:
            skipped = 1 if handle.readline().startswith(b"#") else 0
        types = dict.fromkeys(_NAMES, pa.string())
        table = pacsv.read_csv(
            path,
            read_options=pacsv.ReadOptions(skip_rows=skipped, use_threads=False),
            parse_options=pacsv.ParseOptions(delimiter="\t", quote_char=False),
            convert_options=pacsv.ConvertOptions(
                include_columns=[*_NAMES, values],
                column_types={**types, values: pa.int64() if values == "unstranded" else pa.float64()},
                strings_can_be_null=False,
            ),
        )
    except (OSError, pa.ArrowException, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise GdcError(f"no STAR-count table with the columns {', '.join((*_NAMES, values))}: {reason}") from error
    return table.filter(pc.invert(pc.starts_with(table.column("gene_id"), _COUNTERS)))


@dataclass(frozen=True, eq=False)
class _Genes:
    """The genes that all files list; ``keep`` (n,): which of them count; ``rows`` (n kept,): their symbols' numbers."""

    source: str
    names: pa.Table
    keep: NDArray[np.bool_]
    symbols: list[str]
    rows: NDArray[np.intp]

    @classmethod
    def of(cls, table: pa.Table, gene_type: str | None, source: str) -> _Genes:
        """Take the genes of the first file; symbols are sorted, and a gene without one is called by its id."""
        ids, names, types = (table.column(name).to_pylist() for name in _NAMES)
        keep = np.array([gene_type in (None, one) for one in types], dtype=bool)
        if not keep.any():
            raise GdcError(f"no gene of type {gene_type!r}; expected one of {summarise(sorted(set(types)), 12)}")
        own = [name or gene for gene, name, kept in zip(ids, names, keep.tolist(), strict=True) if kept]
        symbols = sorted(set(own))
        position = {symbol: number for number, symbol in enumerate(symbols)}
        rows = np.array([position[symbol] for symbol in own], dtype=np.intp)
        return cls(source, table.select(_NAMES), keep, symbols, rows)

    def values(self, table: pa.Table, values: Values) -> NDArray[Any]:
        """The values of every symbol in one file: float32, or int64 for counts; added up in float64 or int64."""
        if not table.select(_NAMES).equals(self.names):
            raise GdcError(f"its {table.num_rows} genes are not the {self.names.num_rows} of {self.source}, in order")
        numbers = table.column(values).to_numpy()
        bad = np.flatnonzero(~(np.isfinite(numbers) & (numbers >= 0)))
        if bad.size:
            gene = self.names.column("gene_id")[int(bad[0])]
            raise GdcError(f"{bad.size} values of {values} are missing, infinite or negative, the first of {gene}")
        total = np.zeros(len(self.symbols), dtype=numbers.dtype)
        np.add.at(total, self.rows, numbers[self.keep])
        return total if values == "unstranded" else total.astype(np.float32)

    def shared(self) -> tuple[str, ...]:
        """Symbols that several genes have."""
        counts = np.bincount(self.rows, minlength=len(self.symbols)).tolist()
        return tuple(symbol for symbol, count in zip(self.symbols, counts, strict=True) if count > 1)

    def listed(self) -> str:
        """Which genes a symbol stands for, as CSV: gene, gene_ids and gene_types joined by ;."""
        kept = self.names.filter(pa.array(self.keep))
        ids: list[list[str]] = [[] for _ in self.symbols]
        types: list[set[str]] = [set() for _ in self.symbols]
        columns = (kept.column(name).to_pylist() for name in ("gene_id", "gene_type"))
        for row, gene, kind in zip(self.rows.tolist(), *columns, strict=True):
            ids[row].append(gene)
            types[row].add(kind)
        pairs = zip(self.symbols, ids, types, strict=True)
        lines = [f"{symbol},{';'.join(own)},{';'.join(sorted(kinds))}" for symbol, own, kinds in pairs]
        return "\n".join(["gene,gene_ids,gene_types", *lines, ""])


def _write(
    target: Path, genes: _Genes, patients: Sequence[str], columns: Sequence[NDArray[Any]], provenance: dict[str, Any]
) -> None:
    """Write a column a patient: a Parquet file of 20 000 columns would be slow to open."""
    arrays = [pa.array(genes.symbols), *(pa.array(column) for column in columns)]
    table = pa.table(arrays, names=["gene", *patients])
    table = table.replace_schema_metadata({"momkd.gdc": json.dumps(provenance)})
    with atomic_path(target) as temporary:
        parquet.write_table(table, temporary, compression="zstd")
