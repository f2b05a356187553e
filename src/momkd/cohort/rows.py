"""One row of the cohort table, and what it says of its patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from momkd.errors import Problem, summarise

# What other programs write into a cell that has no value; a class or a key of task.map of that name goes first.
UNLABELLED = frozenset({"", "na", "n/a", "nan", "null", "<na>"})


@dataclass(frozen=True)
class Row:
    """One row of the table: the line in the file, and the text of its cells."""

    line: int
    patient: str
    slide: str
    label: str
    group: str
    event: str


@dataclass(frozen=True)
class Outcome:
    """What is to be predicted of a patient: ``label`` (a class, a quarter, the event), ``value`` (NaN for classes)."""

    label: int
    value: float


def count(items: Sequence[object], noun: str) -> str:
    """Return "1 slide", "2 slides"."""
    return f"1 {noun}" if len(items) == 1 else f"{len(items)} {noun}s"


def left_out(rows: Sequence[Row], name: str, what: str) -> list[Problem]:
    """Note the slides whose row has no ``what``."""
    if not rows:
        return []
    slides = sorted(row.slide for row in rows)
    found = f"{count(slides, 'slide')} without {what} left out: {summarise(slides)}"
    return [Problem(name, found, severity="note")]


def conflicting(patients: Sequence[str], name: str, what: str) -> list[Problem]:
    """Report the ``patients`` (each with its values in brackets) whose slides disagree."""
    if not patients:
        return []
    return [
        Problem(
            name,
            f"{count(patients, 'patient')} with conflicting {what}: {summarise(patients)}",
            "one label a patient",
            "mend the table, or list the slides that do not count in cohort.exclude",
        )
    ]
