"""The cohort table: one row a slide, many slides a patient; read as text, checked whole, sorted canonically."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from momkd.cohort.tabular import read_text_table
from momkd.errors import Problem, summarise
from momkd.experiment import Experiment, TaskSettings
from momkd.slides.readers import find_features

# What other programs write into a cell that has no value; a class or a key of task.map of that name goes first.
_UNLABELLED = frozenset({"", "na", "n/a", "nan", "null", "<na>"})

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Cohort:
    """The patients and slides that can be used.

    ``slides``: patient_id, slide_id, path (Path of the feature file), sorted by patient and slide, index 0…n-1.
    ``patients``: indexed by patient_id, sorted; ``label`` int64, the position in ``classes``; ``group`` str, or None
    everywhere when the experiment names no group column.
    ``notes``: what the user should know and need not mend.
    """

    slides: pd.DataFrame
    patients: pd.DataFrame
    classes: tuple[str, ...]
    notes: list[Problem] = field(default_factory=list)


def read_cohort(experiment: Experiment) -> tuple[Cohort, list[Problem]]:
    """Read the cohort table of an experiment, match labels to classes and slides to feature files.

    Returns the cohort of everything usable and all problems found, notes among them; it raises nothing, so that a
    user sees every problem at once (``errors.raise_problems`` turns them into one CohortError). Rows without a label
    and slides of ``cohort.exclude`` are left out and noted; whatever else cannot be used is an error.
    """
    settings, task = experiment.cohort, experiment.task
    columns = {settings.patient: "cohort.patient", settings.slide: "cohort.slide", task.label: "task.label"}
    if settings.group is not None:
        columns[settings.group] = "cohort.group"
    table, problems = read_text_table(settings.table, columns)
    if table is None:
        return _assemble([], {}, {}, task.classes, problems), problems
    name = str(settings.table)
    rows = _rows(table, experiment)
    rows = _collect(problems, _check_ids(rows, name, experiment))
    rows = _collect(problems, _leave_out_excluded(rows, name, settings.exclude))
    problems += _duplicates(rows, name)
    labelled, found = _read_labels(rows, name, task)
    problems += found
    labels = _collect(problems, _patient_labels(labelled, name, task))
    if not any(problem.severity == "error" for problem in found):
        problems += _absent_classes(labels, name, task)
    groups: dict[str, str] = {}
    if settings.group is not None:
        groups = _collect(problems, _patient_groups(labelled, name, settings.group))
    usable = sorted({(row.patient, row.slide) for row, _ in labelled if row.patient in labels})
    paths = _collect(problems, find_features(experiment.features.dir, sorted({slide for _, slide in usable})))
    slides = [(patient, slide, paths[slide]) for patient, slide in usable if slide in paths]
    return _assemble(slides, labels, groups, task.classes, problems), problems


@dataclass(frozen=True)
class _Row:
    """One row of the table: the line in the file, and the text of its cells."""

    line: int
    patient: str
    slide: str
    label: str
    group: str


def _collect(problems: list[Problem], result: tuple[T, list[Problem]]) -> T:
    """Put the problems of a step with the others and pass on what it found."""
    found, more = result
    problems += more
    return found


def _rows(table: pd.DataFrame, experiment: Experiment) -> list[_Row]:
    settings = experiment.cohort
    groups = [""] * len(table) if settings.group is None else table[settings.group].tolist()
    cells = (table[settings.patient].tolist(), table[settings.slide].tolist(), table[experiment.task.label].tolist())
    return [_Row(*row) for row in zip(table.index.tolist(), *cells, groups, strict=True)]


def _check_ids(rows: Sequence[_Row], name: str, experiment: Experiment) -> tuple[list[_Row], list[Problem]]:
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
            kept.append(_Row(row.line, patient, slide, row.label.strip(), row.group.strip()))
    if padded:
        shown = summarise(sorted(set(padded)))
        problems.append(Problem(name, f"spaces around {len(padded)} ids were removed: {shown}", severity="note"))
    for column, lines in empty.items():
        if lines:
            where = summarise([str(line) for line in lines])
            problems.append(
                Problem(
                    name, f"column {column!r} is empty in {_count(lines, 'row')} (line {where})", "an id in every row"
                )
            )
    if unsafe:
        problems.append(
            Problem(
                name,
                f"{_count(unsafe, 'slide id')} could lead out of the feature folder: {summarise(sorted(set(unsafe)))}",
                "names without '/', '\\' and '..'",
                "write the file's name without folder and suffix",
            )
        )
    return kept, problems


def _leave_out_excluded(rows: Sequence[_Row], name: str, exclude: Sequence[str]) -> tuple[list[_Row], list[Problem]]:
    present = {row.slide for row in rows}
    excluded = {slide.strip() for slide in exclude}
    problems = []
    unknown = sorted(excluded - present)
    if unknown:
        near = difflib.get_close_matches(unknown[0], sorted(present), n=1)
        mend = f"did you mean {near[0]!r}?" if near else "mend or remove them from cohort.exclude"
        problems.append(
            Problem("cohort.exclude", f"{_count(unknown, 'slide')} not in {name}: {summarise(unknown)}", mend=mend)
        )
    left_out = sorted(excluded & present)
    if left_out:
        found = f"{_count(left_out, 'slide')} left out on purpose: {summarise(left_out)}"
        problems.append(Problem("cohort.exclude", found, severity="note"))
    kept = [row for row in rows if row.slide not in excluded]
    lost = sorted({row.patient for row in rows} - {row.patient for row in kept})
    if lost:
        found = f"{_count(lost, 'patient')} with no other slide left out with them: {summarise(lost)}"
        problems.append(Problem("cohort.exclude", found, severity="note"))
    return kept, problems


def _duplicates(rows: Sequence[_Row], name: str) -> list[Problem]:
    """Find slides on more than one row, apart by whether one patient or several claim them."""
    owners: dict[str, list[str]] = {}
    for row in rows:
        owners.setdefault(row.slide, []).append(row.patient)
    repeated = sorted(slide for slide, patients in owners.items() if len(patients) > len(set(patients)))
    shared = sorted(slide for slide, patients in owners.items() if len(set(patients)) > 1)
    problems = []
    if repeated:
        found = f"{_count(repeated, 'slide')} on more than one row: {summarise(repeated)}"
        problems.append(Problem(name, found, "one row a slide", "remove the repeated rows"))
    if shared:
        listed = [f"{slide} ({', '.join(sorted(set(owners[slide])))})" for slide in shared]
        found = f"{_count(shared, 'slide')} given to several patients: {summarise(listed)}"
        problems.append(Problem(name, found, "one patient a slide"))
    return problems


def _read_labels(rows: Sequence[_Row], name: str, task: TaskSettings) -> tuple[list[tuple[_Row, int]], list[Problem]]:
    """Turn label text into class positions; note rows without one, and report values that are no class."""
    meaning = _meaning(task)
    labelled, unlabelled, unknown = [], [], Counter[str]()
    for row in rows:
        position = meaning.get(row.label.casefold())
        if position is not None:
            labelled.append((row, position))
        elif row.label.casefold() in _UNLABELLED:
            unlabelled.append(row)
        else:
            unknown[row.label] += 1
    problems = []
    if unlabelled:
        slides = sorted(row.slide for row in unlabelled)
        found = f"{_count(slides, 'slide')} without a {task.label!r} label left out: {summarise(slides)}"
        problems.append(Problem(name, found, severity="note"))
    if unknown:
        values = ", ".join(f"{value!r} ({count})" for value, count in sorted(unknown.items()))
        mapping = ", ".join(f"{value!r}: {_guess(value, task)}" for value in sorted(unknown))
        problems.append(
            Problem(
                name,
                f"column {task.label!r} has values that are no class: {values}",
                f"{', '.join(task.classes)} (in upper or lower case), or an empty cell",
                f"say which class each value means in the experiment file, task.map: {{{mapping}}}",
            )
        )
    return labelled, problems


def _meaning(task: TaskSettings) -> dict[str, int]:
    """Return the class position of every label text, folded; an explicit map goes before a class's own name."""
    position = {name.strip().casefold(): index for index, name in enumerate(task.classes)}
    mapped = {value.strip().casefold(): position[target.strip().casefold()] for value, target in task.map.items()}
    return {**position, **mapped}


def _guess(value: str, task: TaskSettings) -> str:
    """Propose a class for an unknown value: for the user to read, never to be applied."""
    for name in task.classes:
        if _number(name) is not None and _number(name) == _number(value):
            return name
    folded = value.casefold()
    begins = [name for name in task.classes if name.casefold().startswith(folded) or folded.startswith(name.casefold())]
    if len(begins) == 1:
        return begins[0]
    near = difflib.get_close_matches(folded, [name.casefold() for name in task.classes], n=1, cutoff=0.5)
    return next((name for name in task.classes if near and name.casefold() == near[0]), "<class>")


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _patient_labels(
    labelled: Sequence[tuple[_Row, int]], name: str, task: TaskSettings
) -> tuple[dict[str, int], list[Problem]]:
    """Return the one label of every patient; patients whose slides disagree are an error and left out."""
    found: dict[str, set[int]] = {}
    for row, label in labelled:
        found.setdefault(row.patient, set()).add(label)
    problems = []
    conflicts = [
        f"{patient} ({', '.join(task.classes[label] for label in sorted(labels))})"
        for patient, labels in sorted(found.items())
        if len(labels) > 1
    ]
    if conflicts:
        problems.append(
            Problem(
                name,
                f"{_count(conflicts, 'patient')} with conflicting {task.label!r} labels: {summarise(conflicts)}",
                "one label a patient",
                "mend the table, or list the slides that do not count in cohort.exclude",
            )
        )
    labels = {patient: min(values) for patient, values in found.items() if len(values) == 1}
    return labels, problems


def _absent_classes(labels: Mapping[str, int], name: str, task: TaskSettings) -> list[Problem]:
    counts = Counter(task.classes[label] for label in labels.values())
    absent = [of_class for of_class in task.classes if not counts[of_class]]
    if not absent:
        return []
    listed = ", ".join(f"{of_class} {counts[of_class]}" for of_class in task.classes)
    found = f"no patient of class {', '.join(absent)} in column {task.label!r} (patients: {listed})"
    return [Problem(name, found, "both classes")]


def _patient_groups(
    labelled: Sequence[tuple[_Row, int]], name: str, column: str
) -> tuple[dict[str, str], list[Problem]]:
    """Return the one group of every patient; none, or more than one, is an error."""
    found: dict[str, set[str]] = {}
    for row, _ in labelled:
        found.setdefault(row.patient, set()).add(row.group)
    problems = []
    straddling = [
        f"{patient} ({', '.join(repr(group) for group in sorted(groups))})"
        for patient, groups in sorted(found.items())
        if len(groups) > 1
    ]
    if straddling:
        found_text = f"{_count(straddling, 'patient')} in more than one {column!r}: {summarise(straddling)}"
        problems.append(Problem(name, found_text, "one group a patient"))
    without = sorted(patient for patient, groups in found.items() if groups == {""})
    if without:
        problems.append(
            Problem(
                name,
                f"{_count(without, 'patient')} without a {column!r}: {summarise(without)}",
                "a group for every patient, because groups must not straddle folds",
                "fill the column, or leave cohort.group out",
            )
        )
    return {patient: min(groups) for patient, groups in found.items()}, problems


def _assemble(
    slides: Sequence[tuple[str, str, Path]],
    labels: Mapping[str, int],
    groups: Mapping[str, str],
    classes: tuple[str, ...],
    problems: Sequence[Problem],
) -> Cohort:
    names = sorted(labels)
    columns = [[row[position] for row in slides] for position in range(3)]
    patients = pd.DataFrame(
        {
            "label": np.array([labels[name] for name in names], dtype=np.int64),
            "group": pd.Series([groups.get(name) for name in names], dtype=object).to_numpy(),
        },
        index=pd.Index(names, dtype=object, name="patient_id"),
    )
    table = pd.DataFrame(dict(zip(("patient_id", "slide_id", "path"), columns, strict=True)), dtype=object)
    return Cohort(table, patients, classes, [problem for problem in problems if problem.severity == "note"])


def _count(items: Sequence[object], noun: str) -> str:
    return f"1 {noun}" if len(items) == 1 else f"{len(items)} {noun}s"
