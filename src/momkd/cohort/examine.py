"""Look at everything that an experiment points to, and collect every problem instead of stopping at the first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from momkd.cohort.agreement import disagreements
from momkd.cohort.pairing import read_tables, unpaired_folds
from momkd.cohort.splits import make_splits, read_splits
from momkd.cohort.table import Cohort, read_cohort
from momkd.errors import FeatureFileError, Problem, SplitError, summarise
from momkd.experiment import Experiment, memory_notes
from momkd.omics.table import OmicsTable
from momkd.slides.bag import BagInfo
from momkd.slides.mpp import SlideMpp, read_slide_mpp
from momkd.slides.readers import bag_digest, inspect_bag, read_bag
from momkd.slides.sheet import problem_of


@dataclass(frozen=True, eq=False)
class Examination:
    """What was found: the cohort, the headers of its feature files by slide id, its omics tables by name (those
    that could be read), every problem, and the µm per pixel with which the files are read."""

    cohort: Cohort
    headers: dict[str, BagInfo]
    omics: Mapping[str, OmicsTable]
    problems: list[Problem]
    slide_mpp: SlideMpp = None


def examine(experiment: Experiment, *, deep: bool = False, folds: bool = True) -> Examination:
    """Read the cohort table, the header of every feature file and the omics tables; make the folds unless told not to.

    ``deep`` reads every feature file whole, which finds NaN, damaged edges and equal contents under two names.
    Raises nothing that a user can mend: problems are returned, errors and notes together.
    """
    cohort, problems = read_cohort(experiment)
    headers: dict[str, BagInfo] = {}
    digests: dict[str, str] = {}
    slide_mpp: SlideMpp = None
    try:
        slide_mpp = read_slide_mpp(experiment.features.slide_mpp)
    except FeatureFileError as error:
        problems.append(problem_of(error))
    else:
        headers, digests = _read_files(cohort, slide_mpp, problems, deep=deep)
    problems += _equal_contents(cohort, digests)
    if headers:
        problems += disagreements(headers, experiment)
    omics = read_tables(experiment, cohort, problems)
    notes = memory_notes(experiment.model, omics=experiment.omics is not None)
    problems += [Problem("memory", note, severity="note") for note in notes]
    if folds and len(cohort.patients):
        _try_folds(experiment, cohort, omics, problems)
    return Examination(cohort, headers, omics, problems, slide_mpp)


def _read_files(
    cohort: Cohort, mpp: SlideMpp, problems: list[Problem], *, deep: bool
) -> tuple[dict[str, BagInfo], dict[str, str]]:
    """Return headers and, if ``deep``, digests of the contents, by slide id."""
    headers: dict[str, BagInfo] = {}
    digests: dict[str, str] = {}
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


def _try_folds(
    experiment: Experiment, cohort: Cohort, omics: Mapping[str, OmicsTable], problems: list[Problem]
) -> None:
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
    problems += unpaired_folds(splits, cohort, omics)
