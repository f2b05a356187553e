"""Numbers of the cohort table: a measured value, or a time and whether it ends in the event; one a patient."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from momkd.cohort.rows import UNLABELLED, Outcome, Row, conflicting, count, left_out
from momkd.errors import Problem, summarise
from momkd.experiment import TaskSettings

# A continuous value counts for stratified splits by the quarter of the cohort that it is in.
QUARTERS = 4

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_EVENT = {"1": 1, "1.0": 1, "true": 1, "dead": 1, "event": 1, "yes": 1}
_EVENT |= {"0": 0, "0.0": 0, "false": 0, "alive": 0, "censored": 0, "no": 0}

Found = tuple[tuple[list[Row], dict[str, Outcome]], list[Problem]]


def read_values(rows: Sequence[Row], name: str, task: TaskSettings) -> Found:
    """Return the rows that have a value and the outcome of every patient, and all problems.

    The value is the number in ``task.label``; for survival the time, which must be positive, with ``task.event``. Rows
    without one are noted and left out. Cells that are no number (or no event), patients whose slides disagree, a cohort
    of one value and one without an event are errors.
    """
    problems, kept, wrong, unknown = [], [], [], Counter[str]()
    without: dict[str, list[Row]] = {task.label: [], **({task.event: []} if task.event is not None else {})}
    for row in rows:
        empty = [column for column, text in zip(without, (row.label, row.event), strict=False) if _is_empty(text)]
        value = _number(row.label, positive=task.type == "survival")
        event = _EVENT.get(row.event.casefold()) if task.event is not None else 0
        if value is None and not _is_empty(row.label):
            wrong.append(row)
        if event is None and not _is_empty(row.event):
            unknown[row.event] += 1
        if empty:
            without[empty[0]].append(row)
        elif value is not None and event is not None:
            kept.append((row, value, event))
    for column, missing in without.items():
        problems += left_out(missing, name, f"a {column!r} value")
    problems += _not_numbers(wrong, name, task) + _not_events(unknown, name, task)
    measured, conflicts = _one_a_patient(kept, name, task)
    problems += conflicts
    if not wrong and not unknown:
        problems += _uninformative(measured, name, task)
    return ([row for row, _, _ in kept], _outcomes(measured, task)), problems


def _is_empty(text: str) -> bool:
    return text.casefold() in UNLABELLED


def _number(text: str, *, positive: bool) -> float | None:
    """Return a cell as a finite (and positive) number, or None; Python's own 1_000 and infinities are not numbers."""
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) and (value > 0 or not positive) else None


def _not_numbers(rows: Sequence[Row], name: str, task: TaskSettings) -> list[Problem]:
    if not rows:
        return []
    listed = summarise([f"{row.label!r} (slide {row.slide}, line {row.line})" for row in rows])
    expected = "a positive number" if task.type == "survival" else "a finite number"
    hint = "; a decimal point, not a comma" if any("," in row.label for row in rows) else ""
    what = "time" if task.type == "survival" else "number"
    found = f"column {task.label!r} holds no {what} in {count(rows, 'row')}: {listed}"
    mend = "mend the table, or list the slides in cohort.exclude"
    return [Problem(name, found, f"{expected}{hint}, or an empty cell", mend)]


def _not_events(unknown: Mapping[str, int], name: str, task: TaskSettings) -> list[Problem]:
    if not unknown:
        return []
    values = ", ".join(f"{value!r} ({number})" for value, number in sorted(unknown.items()))
    found = f"column {task.event!r} has values that say neither event nor censored: {values}"
    words = "1/0, true/false, dead/alive, event/censored or yes/no (in upper or lower case), or an empty cell"
    return [Problem(name, found, words, "write one of these pairs into the column")]


def _one_a_patient(
    kept: Sequence[tuple[Row, float, int]], name: str, task: TaskSettings
) -> tuple[dict[str, tuple[float, int]], list[Problem]]:
    """Return value and event of every patient; patients whose slides disagree are an error and left out."""
    found: dict[str, set[tuple[float, int]]] = {}
    for row, value, event in kept:
        found.setdefault(row.patient, set()).add((value, event))

    def text(value: float, event: int) -> str:
        return f"{value:g}" if task.event is None else f"{value:g} {('censored', 'event')[event]}"

    conflicts = [
        f"{patient} ({', '.join(text(*own) for own in sorted(values))})"
        for patient, values in sorted(found.items())
        if len(values) > 1
    ]
    what = f"{task.label!r} values" if task.event is None else f"{task.label!r} or {task.event!r}"
    measured = {patient: min(values) for patient, values in found.items() if len(values) == 1}
    return measured, conflicting(conflicts, name, what)


def _uninformative(measured: Mapping[str, tuple[float, int]], name: str, task: TaskSettings) -> list[Problem]:
    values = {value for value, _ in measured.values()}
    if task.type == "continuous" and len(values) < 2:
        found = f"column {task.label!r} has {count(sorted(values), 'value')} in {count(list(measured), 'patient')}"
        return [Problem(name, found, "values that differ")]
    if task.type == "survival" and not any(event for _, event in measured.values()):
        found = f"no event in column {task.event!r} ({count(list(measured), 'patient')}, all censored)"
        return [Problem(name, found, "patients with the event")]
    return []


def _outcomes(measured: Mapping[str, tuple[float, int]], task: TaskSettings) -> dict[str, Outcome]:
    """Return the outcomes: the label is the event, or the quarter of the cohort that a continuous value is in.

    Equal values are in the same quarter, so a quarter may be larger than others, or empty.
    """
    if task.type == "survival" or not measured:
        return {patient: Outcome(event, value) for patient, (value, event) in measured.items()}
    quarters = quarters_of(np.array([value for value, _ in measured.values()]))
    return {
        patient: Outcome(int(quarter), value)
        for (patient, (value, _)), quarter in zip(measured.items(), quarters, strict=True)
    }


def quarters_of(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The quarter 0 … 3 of each value among ``values`` (patients,)."""
    limits = np.quantile(values, np.arange(1, QUARTERS) / QUARTERS)
    return np.searchsorted(limits, values, side="left").astype(np.int64)
