"""``momkd check``: every problem of a cohort at once, with counts and names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from momkd.cohort.examine import Examination, examine
from momkd.cohort.pairing import pairing_counts
from momkd.cohort.table import Cohort
from momkd.errors import Problem
from momkd.experiment import Experiment


@dataclass(frozen=True)
class CheckReport:
    """What a check says: ``counts`` in the order to show them, ``problems`` (errors and notes)."""

    counts: dict[str, str]
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether the cohort can be trained on."""
        return not any(problem.severity == "error" for problem in self.problems)


def check(experiment: Experiment, *, deep: bool = False) -> CheckReport:
    """Find every problem of a cohort at once; nothing is trained, and nothing is raised that a user can mend.

    Reads tables and the headers of feature files (a millisecond each); ``deep`` reads every feature file whole and so
    finds NaN, damaged edges and equal contents under two names.
    """
    examination = examine(experiment, deep=deep)
    return CheckReport(_counts(examination, experiment), tuple(examination.problems))


def _counts(examination: Examination, experiment: Experiment) -> dict[str, str]:
    cohort, headers = examination.cohort, examination.headers
    patients = cohort.patients
    counts = {
        "patients": f"{len(patients)} with {experiment.task.label}: {_outcomes(cohort)}",
        "slides": f"{len(cohort.slides)}",
    }
    groups = patients["group"].dropna()
    if len(groups):
        counts["groups"] = f"{groups.nunique()} ({experiment.cohort.group})"
    if headers:
        sizes = sorted(info.n_patches for info in headers.values())
        counts["patches a slide"] = f"{sizes[0]} – {median(sizes):g} – {sizes[-1]} (least, median, most)"
        counts["patches"] = f"{sum(sizes)}"
        counts["features"] = _values(info.width for info in headers.values()) + " wide"
        counts["layout"] = _values(info.layout for info in headers.values())
        counts["encoder"] = _values(info.encoder for info in headers.values())
        counts["patch size (level-0 px)"] = _values(info.patch_size_level0 for info in headers.values())
        counts["µm per level-0 px"] = _values(info.mpp for info in headers.values())
    counts |= pairing_counts(cohort, experiment, examination.omics)
    return counts


def _outcomes(cohort: Cohort) -> str:
    """Say how many patients are of each class, or how the values are spread."""
    label, value = cohort.patients["label"], cohort.patients["value"]
    if cohort.classes:
        return ", ".join(f"{name} {int((label == i).sum())}" for i, name in enumerate(cohort.classes))
    if not len(value):
        return "none"
    spread = f"{value.min():.4g} – {value.median():.4g} – {value.max():.4g} (least, median, most)"
    if cohort.type != "survival":
        return spread
    return f"{int((label == 1).sum())} with the event, {int((label == 0).sum())} censored; times {spread}"


def _values(values: Iterable[object]) -> str:
    """List the distinct values, the most frequent first, with how many slides have each where they differ."""
    texts = Counter("not stated" if value is None else _text(value) for value in values)
    ordered = sorted(texts, key=lambda text: (-texts[text], text))
    if len(ordered) == 1:
        return ordered[0]
    return ", ".join(f"{text} ({texts[text]})" for text in ordered[:4]) + (" …" if len(ordered) > 4 else "")


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
