"""Which name of an omics table is which patient of the cohort."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from momkd.errors import Problem, summarise

# TCGA barcode: project-site-participant, then the sample type (01 = primary solid tumour) and a vial letter. R's
# make.names turns hyphens into dots, and some portals write lower case.
_BARCODE = re.compile(r"(TCGA)[-.]([A-Z0-9]{2})[-.]([A-Z0-9]{4})(?:[-.](\d{2})[A-Z]?(?:[-.].*)?)?", re.IGNORECASE)
_PRIMARY = "01"


@dataclass(frozen=True)
class PatientMatch:
    """The outcome of matching: for each patient found, the position of the one name that stands for it.

    ``patients`` counts the patients that any name stands for, also where ``problems`` say that none could be chosen.
    """

    chosen: dict[str, int]
    unmatched: tuple[str, ...]
    patients: int
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]


def match_patients(names: Sequence[str], patient_ids: Sequence[str]) -> PatientMatch:
    """Match the names of one axis with patient ids: exactly, else TCGA barcodes on their 12-character case id.

    Of several TCGA samples of one patient the primary tumour (-01) is taken when there is exactly one; any other name
    that occurs twice is a problem. The order of ``names`` changes nothing but the positions.
    """
    known = set(patient_ids)
    by_case: dict[str, list[str]] = defaultdict(list)
    for patient in sorted(known):
        if case := tcga_case(patient):
            by_case[case].append(patient)
    candidates: dict[str, list[int]] = defaultdict(list)
    shortened: list[tuple[str, str]] = []
    unmatched: list[str] = []
    problems: list[Problem] = []
    for position, name in enumerate(names):
        cases = [] if name in known else by_case.get(tcga_case(name) or "", [])
        if name in known:
            candidates[name].append(position)
        elif len(cases) == 1:
            candidates[cases[0]].append(position)
            shortened.append((name, cases[0]))
        elif cases:
            problems.append(_shared_case(name, cases))
        else:
            unmatched.append(name)
    chosen, notes, repeated = _choose_samples(names, candidates)
    if shortened:
        name, patient = min(shortened)
        notes.insert(
            0, f"{len(shortened)} TCGA barcodes matched on the 12-character case id (for example {name} → {patient})"
        )
    problems = sorted([*problems, *repeated], key=str)
    return PatientMatch(chosen, tuple(sorted(unmatched)), len(candidates), tuple(notes), tuple(problems))


def tcga_case(name: str) -> str | None:
    """Return the 12-character TCGA case id of a barcode of any length, or None if the name is no barcode."""
    found = _BARCODE.fullmatch(name)
    return "-".join(found.groups()[:3]).upper() if found else None


def _sample_type(name: str) -> str | None:
    found = _BARCODE.fullmatch(name)
    return found.group(4) if found else None


def _choose_samples(
    names: Sequence[str], candidates: dict[str, list[int]]
) -> tuple[dict[str, int], list[str], list[Problem]]:
    chosen: dict[str, int] = {}
    passed_over: list[str] = []
    other_tissue: list[str] = []
    problems: list[Problem] = []
    for patient, positions in sorted(candidates.items()):
        primary = [position for position in positions if _sample_type(names[position]) == _PRIMARY]
        if len(positions) == 1:
            chosen[patient] = positions[0]
            if (_sample_type(names[positions[0]]) or _PRIMARY) != _PRIMARY:
                other_tissue.append(names[positions[0]])
        elif len(primary) == 1:
            chosen[patient] = primary[0]
            passed_over.extend(names[position] for position in positions if position != primary[0])
        else:
            problems.append(
                Problem(
                    f"patient {patient}",
                    f"{len(positions)} samples: {summarise(sorted(names[position] for position in positions))}",
                    "one, or exactly one primary tumour (-01) among several",
                    "keep one of them in the omics table",
                )
            )
    notes = []
    if passed_over:
        listed = summarise(sorted(passed_over))
        notes.append(f"{len(passed_over)} samples passed over for the patient's primary tumour (-01): {listed}")
    if other_tissue:
        listed = summarise(sorted(other_tissue))
        notes.append(f"{len(other_tissue)} patients whose only sample is no primary tumour (-01): {listed}")
    return chosen, notes, problems


def _shared_case(name: str, cases: Sequence[str]) -> Problem:
    return Problem(
        f"sample {name}",
        f"patients {summarise(cases)} of the cohort are the same TCGA case",
        "one patient a case, or exactly equal ids",
        "use the 12-character case id as patient id in the cohort table",
    )
