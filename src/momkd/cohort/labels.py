"""Classes of the cohort table: cells to class positions, one a patient."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from momkd.cohort.rows import UNLABELLED, Outcome, Row, conflicting, left_out
from momkd.errors import Problem
from momkd.experiment import TaskSettings

Found = tuple[tuple[list[Row], dict[str, Outcome]], list[Problem]]


def read_labels(rows: Sequence[Row], name: str, task: TaskSettings) -> Found:
    """Return the rows that have a class and the outcome of every patient, and all problems.

    Rows without a label are noted and left out; values that are no class, patients whose slides disagree and classes
    without a patient are errors.
    """
    labelled, problems = _read_rows(rows, name, task)
    unknown = any(problem.severity == "error" for problem in problems)
    labels, conflicts = _patient_labels(labelled, name, task)
    problems += conflicts
    if not unknown:
        problems += _absent_classes(labels, name, task)
    outcomes = {patient: Outcome(label, math.nan) for patient, label in labels.items()}
    return ([row for row, _ in labelled], outcomes), problems


def _read_rows(rows: Sequence[Row], name: str, task: TaskSettings) -> tuple[list[tuple[Row, int]], list[Problem]]:
    """Turn label text into class positions; note rows without one, and report values that are no class."""
    meaning = _meaning(task)
    labelled, unlabelled, unknown = [], [], Counter[str]()
    for row in rows:
        position = meaning.get(row.label.casefold())
        if position is not None:
            labelled.append((row, position))
        elif row.label.casefold() in UNLABELLED:
            unlabelled.append(row)
        else:
            unknown[row.label] += 1
    problems = left_out(unlabelled, name, f"a {task.label!r} label")
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
    labelled: Sequence[tuple[Row, int]], name: str, task: TaskSettings
) -> tuple[dict[str, int], list[Problem]]:
    """Return the one label of every patient; patients whose slides disagree are an error and left out."""
    found: dict[str, set[int]] = {}
    for row, label in labelled:
        found.setdefault(row.patient, set()).add(label)
    conflicts = [
        f"{patient} ({', '.join(task.classes[label] for label in sorted(labels))})"
        for patient, labels in sorted(found.items())
        if len(labels) > 1
    ]
    problems = conflicting(conflicts, name, f"{task.label!r} labels")
    labels = {patient: min(values) for patient, values in found.items() if len(values) == 1}
    return labels, problems


def _absent_classes(labels: Mapping[str, int], name: str, task: TaskSettings) -> list[Problem]:
    counts = Counter(task.classes[label] for label in labels.values())
    absent = [of_class for of_class in task.classes if not counts[of_class]]
    if not absent:
        return []
    listed = ", ".join(f"{of_class} {counts[of_class]}" for of_class in task.classes)
    found = f"no patient of class {', '.join(absent)} in column {task.label!r} (patients: {listed})"
    return [Problem(name, found, "both classes" if len(task.classes) == 2 else "every class")]
