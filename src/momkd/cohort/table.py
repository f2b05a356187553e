"""The cohort table: one row a slide, many slides a patient; read as text, checked whole, sorted canonically."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pandas as pd

from momkd.cohort.labels import read_labels
from momkd.cohort.rows import Outcome, Row, count
from momkd.cohort.tabular import read_text_table
from momkd.cohort.values import QUARTERS, quarters_of, read_values
from momkd.errors import Problem, summarise
from momkd.experiment import Experiment, TaskSettings
from momkd.experiment.data import TaskType
from momkd.slides.folders import find_features
from momkd.slides.remote import FeatureFile

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Cohort:
    """The patients and slides that can be used.

    ``slides``: patient_id, slide_id, path (Path of the feature file), sorted by patient and slide, index 0…n-1.
    ``patients``: indexed by patient_id, sorted; ``label`` int64, the position in ``strata``; ``value`` float64, the
    value of a continuous task, the time of survival, NaN where there are classes; ``group`` str, or None everywhere
    when the experiment names no group column.
    ``classes``: of the task, () for continuous and survival.
    ``notes``: what the user should know and need not mend.
    """

    slides: pd.DataFrame
    patients: pd.DataFrame
    classes: tuple[str, ...]
    notes: list[Problem] = field(default_factory=list)
    type: TaskType = "classification"

    @property
    def strata(self) -> tuple[str, ...]:
        """What ``label`` counts: the classes; quarters of the values; patients without and with the event."""
        if self.type == "continuous":
            return tuple(f"quarter {number + 1} of the values" for number in range(QUARTERS))
        return ("censored", "event") if self.type == "survival" else self.classes

    @property
    def required(self) -> tuple[str, ...]:
        """The strata that training, validation and test cannot do without."""
        if self.type == "continuous":
            return ()
        return ("event",) if self.type == "survival" else self.classes

    def among(self, patients: Sequence[str]) -> pd.DataFrame:
        """The rows of some patients, in the order given; ``label`` says nothing of anybody else.

        The quarters of a continuous value are those of these patients: what is fitted inside a fold must not know
        where the quarters of the whole cohort lie.
        """
        rows = self.patients.loc[list(patients)]
        return rows.assign(label=quarters_of(rows["value"].to_numpy())) if self.type == "continuous" else rows


def read_cohort(experiment: Experiment) -> tuple[Cohort, list[Problem]]:
    """Read the cohort table of an experiment, match labels to classes and slides to feature files.

    Returns the cohort of everything usable and all problems found, notes among them; it raises nothing, so that a
    user sees every problem at once (``errors.raise_problems`` turns them into one CohortError). Rows without a label
    and slides of ``cohort.exclude`` are left out and noted; whatever else cannot be used is an error.
    """
    settings, task = experiment.cohort, experiment.task
    columns = {settings.patient: "cohort.patient", settings.slide: "cohort.slide", task.label: "task.label"}
    if task.event is not None:
        columns[task.event] = "task.event"
    if settings.group is not None:
        columns[settings.group] = "cohort.group"
    table, problems = read_text_table(settings.table, columns)
    if table is None:
        return _assemble([], {}, {}, task, problems), problems
    name = str(settings.table)
    rows = _rows(table, experiment)
    rows = _collect(problems, _check_ids(rows, name, experiment))
    rows = _collect(problems, _leave_out_excluded(rows, name, settings.exclude))
    problems += _duplicates(rows, name)
    read = read_labels if task.categorical else read_values
    labelled, outcomes = _collect(problems, read(rows, name, task))
    groups: dict[str, str] = {}
    if settings.group is not None:
        groups = _collect(problems, _patient_groups(labelled, name, settings.group))
    usable = sorted({(row.patient, row.slide) for row in labelled if row.patient in outcomes})
    paths = _collect(problems, find_features(experiment.features.dir, sorted({slide for _, slide in usable})))
    slides = [(patient, slide, paths[slide]) for patient, slide in usable if slide in paths]
    return _assemble(slides, outcomes, groups, task, problems), problems


def _collect(problems: list[Problem], result: tuple[T, list[Problem]]) -> T:
    """Put the problems of a step with the others and pass on what it found."""
    found, more = result
    problems += more
    return found


def _rows(table: pd.DataFrame, experiment: Experiment) -> list[Row]:
    settings, task = experiment.cohort, experiment.task
    names = (settings.patient, settings.slide, task.label, settings.group, task.event)
    cells = [[""] * len(table) if name is None else table[name].tolist() for name in names]
    return [Row(*row) for row in zip(table.index.tolist(), *cells, strict=True)]


def _check_ids(rows: Sequence[Row], name: str, experiment: Experiment) -> tuple[list[Row], list[Problem]]:
    """Strip identifiers; drop rows whose identifiers are empty or would lead out of the feature folder."""
    problems, kept, padded, unsafe = [], [], [], []
    empty: dict[str, list[int]] = {experiment.cohort.patient: [], experiment.cohort.slide: []}
    for row in rows:
        patient, slide = row.patient.strip(), row.slide.strip()
        padded += [repr(raw) for raw, text in ((row.patient, patient), (row.slide, slide)) if raw != text]
        for column, text in ((experiment.cohort.patient, patient), (experiment.cohort.slide, slide)):
            if not text:
                empty[column].append(row.line)
        if slide and (any(mark in slide for mark in ("/", "\\", "..", "\0")) or slide.startswith("~")):
            unsafe.append(repr(slide))
        elif patient and slide:
            kept.append(Row(row.line, patient, slide, *(text.strip() for text in (row.label, row.group, row.event))))
    if padded:
        shown = summarise(sorted(set(padded)))
        problems.append(Problem(name, f"spaces around {len(padded)} ids were removed: {shown}", severity="note"))
    for column, lines in empty.items():
        if lines:
            where = summarise([str(line) for line in lines])
            problems.append(
                Problem(
                    name, f"column {column!r} is empty in {count(lines, 'row')} (line {where})", "an id in every row"
                )
            )
    if unsafe:
        problems.append(
            Problem(
                name,
                f"{count(unsafe, 'slide id')} could lead out of the feature folder: {summarise(sorted(set(unsafe)))}",
                "names without '/', '\\' and '..'",
                "write the file's name without folder and suffix",
            )
        )
    return kept, problems


def _leave_out_excluded(rows: Sequence[Row], name: str, exclude: Sequence[str]) -> tuple[list[Row], list[Problem]]:
    present = {row.slide for row in rows}
    excluded = {slide.strip() for slide in exclude}
    problems = []
    unknown = sorted(excluded - present)
    if unknown:
        near = difflib.get_close_matches(unknown[0], sorted(present), n=1)
        mend = f"did you mean {near[0]!r}?" if near else "mend or remove them from cohort.exclude"
        problems.append(
            Problem("cohort.exclude", f"{count(unknown, 'slide')} not in {name}: {summarise(unknown)}", mend=mend)
        )
    left_out = sorted(excluded & present)
    if left_out:
        found = f"{count(left_out, 'slide')} left out on purpose: {summarise(left_out)}"
        problems.append(Problem("cohort.exclude", found, severity="note"))
    kept = [row for row in rows if row.slide not in excluded]
    lost = sorted({row.patient for row in rows} - {row.patient for row in kept})
    if lost:
        found = f"{count(lost, 'patient')} with no other slide left out with them: {summarise(lost)}"
        problems.append(Problem("cohort.exclude", found, severity="note"))
    return kept, problems


def _duplicates(rows: Sequence[Row], name: str) -> list[Problem]:
    """Find slides on more than one row, apart by whether one patient or several claim them."""
    owners: dict[str, list[str]] = {}
    for row in rows:
        owners.setdefault(row.slide, []).append(row.patient)
    repeated = sorted(slide for slide, patients in owners.items() if len(patients) > len(set(patients)))
    shared = sorted(slide for slide, patients in owners.items() if len(set(patients)) > 1)
    problems = []
    if repeated:
        found = f"{count(repeated, 'slide')} on more than one row: {summarise(repeated)}"
        problems.append(Problem(name, found, "one row a slide", "remove the repeated rows"))
    if shared:
        listed = [f"{slide} ({', '.join(sorted(set(owners[slide])))})" for slide in shared]
        found = f"{count(shared, 'slide')} given to several patients: {summarise(listed)}"
        problems.append(Problem(name, found, "one patient a slide"))
    return problems


def _patient_groups(labelled: Sequence[Row], name: str, column: str) -> tuple[dict[str, str], list[Problem]]:
    """Return the one group of every patient; none, or more than one, is an error."""
    found: dict[str, set[str]] = {}
    for row in labelled:
        found.setdefault(row.patient, set()).add(row.group)
    problems = []
    straddling = [
        f"{patient} ({', '.join(repr(group) for group in sorted(groups))})"
        for patient, groups in sorted(found.items())
        if len(groups) > 1
    ]
    if straddling:
        found_text = f"{count(straddling, 'patient')} in more than one {column!r}: {summarise(straddling)}"
        problems.append(Problem(name, found_text, "one group a patient"))
    without = sorted(patient for patient, groups in found.items() if groups == {""})
    if without:
        problems.append(
            Problem(
                name,
                f"{count(without, 'patient')} without a {column!r}: {summarise(without)}",
                "a group for every patient, because groups must not straddle folds",
                "fill the column, or leave cohort.group out",
            )
        )
    return {patient: min(groups) for patient, groups in found.items()}, problems


def _assemble(
    slides: Sequence[tuple[str, str, FeatureFile]],
    outcomes: Mapping[str, Outcome],
    groups: Mapping[str, str],
    task: TaskSettings,
    problems: Sequence[Problem],
) -> Cohort:
    names = sorted(outcomes)
    columns = [[row[position] for row in slides] for position in range(3)]
    patients = pd.DataFrame(
        {
            "label": np.array([outcomes[name].label for name in names], dtype=np.int64),
            "value": np.array([outcomes[name].value for name in names], dtype=np.float64),
            "group": pd.Series([groups.get(name) for name in names], dtype=object).to_numpy(),
        },
        index=pd.Index(names, dtype=object, name="patient_id"),
    )
    table = pd.DataFrame(dict(zip(("patient_id", "slide_id", "path"), columns, strict=True)), dtype=object)
    notes = [problem for problem in problems if problem.severity == "note"]
    return Cohort(table, patients, task.classes, notes, task.type)
