"""A fold's prototypes and a cohort: who uses which, where everybody lies, and which genes belong to each.

OUT/usage.csv        the nearest code of every patient, by its slides and (training patients) by its RNA
    genes.csv        correlation of expression with likeness to each code, over training patients; q by FDR
    map-<memory>.png usage-<memory>.png
    index.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.stats import false_discovery_control
from scipy.stats import t as student_t

from momkd.cohort.dataset import CohortData, load_data
from momkd.errors import ExplainError
from momkd.explain.codes import code_names, memory_names
from momkd.explain.index import write_prototypes
from momkd.explain.pictures import draw_map, draw_usage
from momkd.files import write_text
from momkd.models.student import Student
from momkd.student import StudentPredictor, load_student
from momkd.study.crossval import roles_of
from momkd.study.fold_memory import SHARED, MemorySpace, read_memory
from momkd.study.run_folder import FoldId, RunFolder, write_csv

FloatArray = npt.NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class PrototypeReport:
    """Both tables, and what was written."""

    out: Path
    usage: pd.DataFrame
    genes: pd.DataFrame


def explain_prototypes(run_path: Path, out: Path, *, fold: str = "fold-0-0") -> PrototypeReport:
    """Explain the memories of the first member of one fold by the cohort of its run.

    Raises RunError and ExplainError where the run has no such fold or no memory that omics taught.
    """
    run, out = RunFolder(Path(run_path)), Path(out)
    known = {one.name: one for one in run.done_folds()}
    if fold not in known:
        raise ExplainError(f"{run.path}: no finished {fold}; finished: {', '.join(known) or 'none'}")
    experiment = run.experiment()
    memories = read_memory(run.path / fold)
    cohort = load_data(experiment)
    student = load_student(run.path / fold / "student").member(0)
    roles = _roles(run, known[fold])
    names = memory_names(student.card)
    points = _slide_points(student, cohort, roles["patient_id"].tolist())
    usage, genes = [], []
    for memory, space in memories.items():
        slides = points[memory]
        usage.append(_usage(memory, "slide", list(slides), np.stack(list(slides.values())), space.codes, names))
        for table, rna in space.rna.items():
            patients = list(space.patients[table])
            usage.append(_usage(memory, table, patients, rna, space.codes, names))
            values = cohort.omics[table].values.loc[patients]
            genes.append(gene_correlations(values, rna, space.codes, names).assign(memory=memory, table=table))
    labels = cohort.cohort.patients["label"]
    told = pd.concat(usage, ignore_index=True).merge(roles, on="patient_id")
    told["label"] = [names[int(label)] if 0 <= int(label) < len(names) else "" for label in labels[told["patient_id"]]]
    of_genes = pd.concat(genes, ignore_index=True)
    of_genes = of_genes[["memory", "table", "code", "gene", "r", "p", "q", "patients"]]
    write_csv(out / "usage.csv", told)
    write_csv(out / "genes.csv", of_genes)
    for memory, space in memories.items():
        _draw(out, memory, space, points[memory], told[told["memory"] == memory], names)
    write_text(out / "index.html", write_prototypes(run.path, fold, sorted(memories), told, of_genes))
    return PrototypeReport(out, told, of_genes)


def _roles(run: RunFolder, fold: FoldId) -> pd.DataFrame:
    """patient_id and role in this fold."""
    splits = pd.read_csv(run.splits_file, dtype={"patient_id": str})
    roles = roles_of(splits, fold)
    rows = [(p, name) for name in ("train", "val", "test") for p in getattr(roles, name)]
    return pd.DataFrame(rows, columns=["patient_id", "role"])


@torch.no_grad()
def _slide_points(
    student: StudentPredictor, cohort: CohortData, patients: Sequence[str]
) -> dict[str, dict[str, FloatArray]]:
    """Unit points of every patient by memory: the mean of its slides' programmes, or of their projections w."""
    (network,) = student.members
    if not isinstance(network, Student):
        raise ExplainError(f"{student.card.model.name} has no memory; explain the prototypes of a run of momkd")
    found: dict[str, dict[str, FloatArray]] = {}
    for patient in patients:
        outputs = [network(student.prepare(cohort.bag(slide))) for slide in cohort.slides_of(patient)]
        spaces = {SHARED: [out.slides[0] for out in outputs]}
        spaces |= {name: [out.programmes[name][0] for out in outputs] for name in outputs[0].programmes}
        for memory, rows in spaces.items():
            mean = torch.stack(rows).double().mean(0).cpu().numpy()
            found.setdefault(memory, {})[patient] = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return found


def _usage(
    memory: str, by: str, patients: Sequence[str], rows: FloatArray, codes: FloatArray, names: Sequence[str]
) -> pd.DataFrame:
    """The nearest code of each patient, and how near it is."""
    flat = codes.reshape(-1, codes.shape[-1])
    cosines = rows @ flat.T
    return pd.DataFrame(
        {
            "memory": memory,
            "by": by,
            "patient_id": list(patients),
            "code": np.array(code_names(names, codes.shape[1]))[cosines.argmax(1)],
            "cosine": cosines.max(1),
        }
    )


def gene_correlations(values: pd.DataFrame, rna: FloatArray, codes: FloatArray, names: Sequence[str]) -> pd.DataFrame:
    """Pearson's r of each gene (M patients × G) with likeness to each code: r, two-sided p, q by Benjamini–Hochberg.

    All genes of all codes are one family of tests. Genes or codes that do not vary have no row.
    """
    likeness = rna @ codes.reshape(-1, codes.shape[-1]).T
    genes, own = _standard(values.to_numpy(dtype=np.float64)), _standard(likeness.astype(np.float64))
    n = len(values)
    r = np.clip(own.T @ genes / n, -1.0, 1.0)
    with np.errstate(divide="ignore"):
        t = r * np.sqrt((n - 2) / np.maximum(1.0 - r**2, 1e-300))
    p = 2.0 * student_t.sf(np.abs(t), n - 2)
    code, gene = np.nonzero(np.isfinite(r))
    table = pd.DataFrame(
        {
            "code": np.array(code_names(names, codes.shape[1]))[code],
            "gene": values.columns.to_numpy()[gene],
            "r": r[code, gene],
            "p": p[code, gene],
            "patients": n,
        }
    )
    table["q"] = false_discovery_control(table["p"].to_numpy()) if len(table) else []
    return table


def _standard(columns: FloatArray) -> FloatArray:
    centred = columns - columns.mean(0)
    deviation = centred.std(0)
    return np.asarray(centred / np.where(deviation > 1e-12, deviation, np.nan))


def _draw(
    out: Path,
    memory: str,
    space: MemorySpace,
    slides: dict[str, FloatArray],
    told: pd.DataFrame,
    names: Sequence[str],
) -> None:
    by_patient = told.drop_duplicates("patient_id").set_index("patient_id")["label"]
    points = [("slides", np.stack(list(slides.values())), by_patient.loc[list(slides)].tolist())]
    for table, rna in space.rna.items():
        points.append((table, rna, by_patient.loc[list(space.patients[table])].tolist()))
    draw_map(points, space.codes, names, out / f"map-{memory}.png", title=f"the {memory} memory")
    draw_usage(told, names, space.codes.shape[1], out / f"usage-{memory}.png", title=f"the {memory} memory")
