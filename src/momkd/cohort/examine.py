"""Look at everything that an experiment points to, and collect every problem instead of stopping at the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from momkd.cohort.agreement import disagreements
from momkd.cohort.splits import make_splits, read_splits
from momkd.cohort.table import Cohort, read_cohort
from momkd.errors import FeatureFileError, OmicsError, Problem, SplitError, summarise
from momkd.experiment import Experiment, memory_notes
from momkd.omics.table import OmicsTable, read_omics
from momkd.slides.bag import BagInfo
from momkd.slides.readers import bag_digest, inspect_bag, read_bag
from momkd.slides.sheet import problem_of

# Fewer patients with RNA than this cannot teach anything, in any fold.
_FEWEST_PAIRED = 10


@dataclass(frozen=True, eq=False)
class Examination:
    """What was found: the cohort, the headers of its feature files by slide id, the RNA table, every problem."""

    cohort: Cohort
    headers: dict[str, BagInfo]
    omics: OmicsTable | None
    problems: list[Problem]


def examine(experiment: Experiment, *, deep: bool = False, folds: bool = True) -> Examination:
    """Read the cohort table, the header of every feature file and the RNA table; make the folds unless told not to.

    ``deep`` reads every feature file whole, which finds NaN, damaged edges and equal contents under two names.
    Raises nothing that a user can mend: problems are returned, errors and notes together.
    """
    cohort, problems = read_cohort(experiment)
    headers, digests = _read_files(cohort, experiment, problems, deep=deep)
    problems += _equal_contents(cohort, digests)
    if headers:
        problems += disagreements(headers, experiment)
    omics = _read_omics(experiment, cohort, problems)
    notes = memory_notes(experiment.model, omics=experiment.omics is not None)
    problems += [Problem("memory", note, severity="note") for note in notes]
    if folds and len(cohort.patients):
        _try_folds(experiment, cohort, omics, problems)
    return Examination(cohort, headers, omics, problems)


def _read_files(
    cohort: Cohort, experiment: Experiment, problems: list[Problem], *, deep: bool
) -> tuple[dict[str, BagInfo], dict[str, str]]:
    """Return headers and, if ``deep``, digests of the contents, by slide id."""
    headers, digests = {}, {}
    mpp = experiment.features.slide_mpp
    for slide, path in zip(cohort.slides["slide_id"], cohort.slides["path"], strict=True):
        try:
            headers[slide] = inspect_bag(path, slide_mpp=mpp)
            if deep:
                digests[slide] = bag_digest(read_bag(path, slide_mpp=mpp))
        except FeatureFileError as error:
            problems.append(problem_of(error))
    return headers, digests


def _equal_contents(cohort: Cohort, digests: dict[str, str]) -> list[Problem]:
    """Find one bag under several names: across patients it could be in training and test at once."""
    owner = dict(zip(cohort.slides["slide_id"], cohort.slides["patient_id"], strict=True))
    same: dict[str, list[str]] = {}
    for slide, digest in sorted(digests.items()):
        same.setdefault(digest, []).append(slide)
    problems = []
    for slides in same.values():
        if len(slides) > 1:
            patients = sorted({owner[slide] for slide in slides})
            found = f"the same contents in {len(slides)} feature files of patients {summarise(patients)}"
            if len(patients) == 1:
                found = f"the same contents in {len(slides)} feature files of patient {patients[0]}"
            severity: Literal["error", "note"] = "error" if len(patients) > 1 else "note"
            mend = "find out whose slide it is, and list the others in cohort.exclude"
            problems.append(Problem(summarise(slides), found, "one slide a file", mend, severity))
    return problems


def _read_omics(experiment: Experiment, cohort: Cohort, problems: list[Problem]) -> OmicsTable | None:
    settings = experiment.omics
    if settings is None or not len(cohort.patients):
        return None
    name = str(settings.table)
    if not settings.table.is_file():
        problems.append(Problem(name, "no such file", "an omics table", "correct omics.table, or leave omics out"))
        return None
    try:
        omics = read_omics(settings.table, list(cohort.patients.index), transform=settings.transform)
    except OmicsError as error:
        problems.append(Problem(name, str(error).removeprefix(f"{name}: ")))
        return None
    problems += [Problem(name, note.removeprefix(f"{name}: "), severity="note") for note in omics.notes]
    if omics.missing:
        found = f"{len(omics.missing)} of {len(cohort.patients)} patients have no RNA: {summarise(omics.missing)}"
        problems.append(Problem(name, f"{found}; they train without the RNA losses", severity="note"))
    paired = cohort.patients["label"].reindex(omics.values.index)
    mend = "check the patient ids, or leave omics out"
    if len(paired) < _FEWEST_PAIRED:
        found = f"only {len(paired)} patients have RNA"
        problems.append(Problem(name, found, f"{_FEWEST_PAIRED} or more", mend))
    for label, of_class in enumerate(cohort.strata):
        if of_class in cohort.required and len(paired) and label not in set(paired):
            found = f"no patient {_of(cohort, of_class)} has RNA"
            problems.append(Problem(name, found, f"RNA of {_every(cohort)}", mend))
    return omics


def _try_folds(experiment: Experiment, cohort: Cohort, omics: OmicsTable | None, problems: list[Problem]) -> None:
    cv = experiment.cv
    if cv.splits is None:
        try:
            splits = make_splits(cohort.patients, cv, classes=cohort.strata, required=cohort.required)
        except SplitError as error:
            problems.append(Problem("folds", str(error)))
            return
    else:
        splits, found = read_splits(cv.splits, cohort.patients, classes=cohort.strata, required=cohort.required)
        problems += found
    if omics is not None:
        problems += _unpaired_folds(splits, cohort, omics)


def _unpaired_folds(splits: pd.DataFrame, cohort: Cohort, omics: OmicsTable) -> list[Problem]:
    """Find folds whose training patients of a class all lack RNA: their teacher would know one class only."""
    train = splits[(splits["role"] == "train") & splits["patient_id"].isin(omics.values.index)]
    label = cohort.patients["label"].reindex(train["patient_id"]).to_numpy()
    present = set(zip(train["repeat"], train["fold"], label, strict=True))
    problems = []
    for repeat, fold in sorted(set(zip(splits["repeat"], splits["fold"], strict=True))):
        for position, name in enumerate(cohort.strata):
            if name in cohort.required and (repeat, fold, position) not in present:
                found = f"no training patient {_of(cohort, name)} has RNA in repeat {repeat} fold {fold}"
                mend = "lower cv.folds, add RNA"
                problems.append(Problem(str(omics.source), found, f"RNA of {_every(cohort)}", mend))
    return problems


def _of(cohort: Cohort, stratum: str) -> str:
    return "with the event" if cohort.type == "survival" else f"of class {stratum}"


def _every(cohort: Cohort) -> str:
    if cohort.type == "survival":
        return "patients with the event"
    return "both classes" if len(cohort.classes) == 2 else "every class"
