"""The cohort table of a plan, and an experiment file that points to it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from momkd.errors import GdcError, Problem, summarise
from momkd.files import write_text
from momkd.gdc.clinical import LABELS, Receptors, notes_on, read_receptors, receptor_table
from momkd.gdc.expression import TABLE as RNA
from momkd.gdc.expression import expression_digest, read_provenance
from momkd.gdc.labels import Labels, read_labels
from momkd.gdc.plan import Plan, read_plan
from momkd.gdc.records import Case

COHORT = "cohort.csv"
RECEPTORS = "receptors.csv"
EXPERIMENT = "experiment.yaml"
_DAYS_PER_MONTH = 365.25 / 12
_IDS = ("patient_id", "slide_id", "site")
_SURVIVAL = ("survival_months", "survival_status")

_TEMPLATE = """\
# {project}, {release}. Features: momkd extract slides --out features. Then: momkd check {name}
cohort:   {{table: cohort.csv, group: site}}
features: {{dir: features}}
graph:    {{k: 8}}
{omics}task:     {{{task}}}
cv:       {{folds: 5}}
"""
_TASKS = {
    "HER2": "type: classification, label: HER2, classes: [negative, positive]",
    "survival_months": "type: survival, label: survival_months, event: survival_status",
}
_OMICS = "omics:    {{table: {table}, transform: log2p1, select: {{method: xgboost, n: 768}}}}\n"


@dataclass(frozen=True)
class CohortReport:
    """The table that was written, its numbers of slides and patients, notes, and whether the template is new."""

    table: Path
    slides: int
    patients: int
    columns: tuple[str, ...]
    notes: tuple[Problem, ...]
    new_experiment: bool


def write_cohort(folder: Path, *, labels: Sequence[Path] = (), patient_column: str = "patient_id") -> CohortReport:
    """Write cohort.csv (a row a slide) and receptors.csv, and experiment.yaml where there is none.

    Columns: patient_id, slide_id (the slide's file name without .svs, as feature files are called), site; HER2, PR, ER
    where the clinical supplement has them; survival_months, survival_status; then those of the ``labels`` tables.
    Slides need not be downloaded. Raises GdcError where the clinical supplement is missing, or a table cannot be used.
    """
    plan = read_plan(folder)
    receptors = _receptors(folder, plan)
    columns = [*_IDS, *(LABELS if receptors is not None else ()), *_SURVIVAL]
    tables: list[Labels] = []
    for path in labels:
        tables.append(read_labels(path, patient=patient_column, taken=columns))
        columns += tables[-1].columns
    rows = _rows(plan, receptors, tables)
    write_text(folder / COHORT, _csv([columns, *rows]))
    if receptors is not None:
        write_text(folder / RECEPTORS, receptor_table(receptors))
    patients = [case.patient_id for case in plan.cases]
    notes = [] if receptors is None else notes_on(receptors, patients)
    notes += [note for table in tables for note in table.notes(patients)]
    notes += _expression_notes(folder, plan)
    is_new = not (folder / EXPERIMENT).exists()
    if is_new:
        write_text(folder / EXPERIMENT, _experiment(plan, columns))
    return CohortReport(folder / COHORT, len(rows), len(patients), tuple(columns), tuple(notes), is_new)


def survival(case: Case) -> tuple[str, str]:
    """Months and dead or alive; ("", "") where the time or the end is not known, or the time is negative."""
    status = case.vital_status.lower()
    days = {"dead": case.days_to_death, "alive": case.days_to_last_follow_up}.get(status)
    return ("", "") if days is None or days < 0 else (f"{days / _DAYS_PER_MONTH:.4f}", status)


def _receptors(folder: Path, plan: Plan) -> dict[str, Receptors] | None:
    files = plan.used("clinical")
    places = [file.find(folder) for file in files]
    missing = [file.name for file, place in zip(files, places, strict=True) if place is None]
    if missing:
        raise GdcError(
            f"{folder / 'clinical'}: {len(missing)} of {len(files)} files of the clinical supplement are missing or "
            f"old: {summarise(missing)} → momkd gdc download {folder} --what clinical"
        )
    return read_receptors([place for place in places if place is not None])


def _rows(plan: Plan, receptors: dict[str, Receptors] | None, tables: Sequence[Labels]) -> list[list[str]]:
    """A row a slide, sorted by patient and slide; an unknown label is an empty cell."""
    cases = {case.patient_id: case for case in plan.cases}
    rows = []
    for file in plan.used("slides"):
        row = [file.patient, PurePath(file.name).stem, cases[file.patient].site]
        if receptors is not None:
            own = receptors.get(file.patient)
            row += [""] * len(LABELS) if own is None else own.labels.values()
        row += survival(cases[file.patient])
        for table in tables:
            row += table.values.get(file.patient, ("",) * len(table.columns))
        rows.append(row)
    return sorted(rows)


def _expression_notes(folder: Path, plan: Plan) -> list[Problem]:
    if not plan.used("rna"):
        return []
    table, again = folder / RNA, f"momkd gdc rna {folder}"
    if not table.exists():
        return [Problem(str(table), "not there yet", mend=again, severity="note")]
    if read_provenance(table).get("files") != expression_digest(plan):
        return [Problem(str(table), "made of other files than the plan's", mend=again, severity="note")]
    return []


def _experiment(plan: Plan, columns: Sequence[str]) -> str:
    """An experiment file for the first label that there is, to be edited."""
    return _TEMPLATE.format(
        project=plan.settings.project,
        release=plan.data_release or "release unknown",
        name=EXPERIMENT,
        omics=_OMICS.format(table=RNA) if plan.used("rna") else "",
        task=next(task for label, task in _TASKS.items() if label in columns),
    )


def _csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
