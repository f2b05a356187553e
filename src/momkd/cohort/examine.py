"""Look at everything that an experiment points to, and collect every problem instead of stopping at the first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

from momkd.cohort.splits import load_splits
from momkd.cohort.table import Cohort, read_cohort
from momkd.errors import FeatureFileError, OmicsError, Problem, SplitError, summarise
from momkd.experiment import Experiment
from momkd.omics.table import OmicsTable, read_omics
from momkd.slides.bag import BagInfo
from momkd.slides.readers import inspect_bag, read_bag
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


def examine(experiment: Experiment, *, deep: bool = False) -> Examination:
    """Read the cohort table, the header of every feature file (all of it if ``deep``), the RNA table; try the folds.

    Raises nothing that a user can mend: problems are returned, errors and notes together.
    """
    cohort, problems = read_cohort(experiment)
    headers = _read_headers(cohort, experiment, problems, deep=deep)
    problems += _disagreements(headers, experiment)
    omics = _read_omics(experiment, cohort, problems)
    if len(cohort.patients):
        try:
            load_splits(cohort.patients, experiment.cv, classes=cohort.classes)
        except SplitError as error:
            problems.append(Problem("folds", str(error)))
    return Examination(cohort, headers, omics, problems)


def _read_headers(cohort: Cohort, experiment: Experiment, problems: list[Problem], *, deep: bool) -> dict[str, BagInfo]:
    headers = {}
    mpp = experiment.features.slide_mpp
    for row in cohort.slides.itertuples(index=False):
        try:
            headers[row.slide_id] = inspect_bag(row.path, slide_mpp=mpp)
            if deep:
                read_bag(row.path, slide_mpp=mpp)
        except FeatureFileError as error:
            problems.append(problem_of(error))
    return headers


def _disagreements(headers: Mapping[str, BagInfo], experiment: Experiment) -> list[Problem]:
    """Slides whose features cannot belong together, and slides that can have no graph."""
    if not headers:
        return []
    problems = []
    folder = str(experiment.features.dir)
    for name, of, severity in _PROPERTIES:
        problems += _minority(headers, folder, name, of, severity)
    if experiment.graph.k > 0:
        lost = sorted(
            s for s, info in headers.items() if not info.has_coords and not info.edge_ks and info.n_patches > 1
        )
        single = sorted(
            s for s, info in headers.items() if not info.has_coords and not info.edge_ks and info.n_patches == 1
        )
        if lost:
            found = f"{len(lost)} slides have neither coordinates nor edges: {summarise(lost)}"
            mend = "set graph.k: 0 (each patch sees only itself), or extract features with coordinates"
            problems.append(Problem(folder, found, f"coordinates for graph.k: {experiment.graph.k}", mend))
        if single and len(single) == len(headers):
            problems.append(Problem(folder, "every slide is a single vector: graph.k has no effect", severity="note"))
    return problems


_PROPERTIES: tuple[tuple[str, Callable[[BagInfo], Hashable], str], ...] = (
    ("feature width", lambda info: info.width, "error"),
    ("encoder", lambda info: info.encoder, "error"),
    ("patch size in level-0 px", lambda info: info.patch_size_level0, "note"),
    ("µm per level-0 px", lambda info: info.mpp, "note"),
)


def _minority(
    headers: Mapping[str, BagInfo], folder: str, name: str, of: Callable[[BagInfo], Hashable], severity: str
) -> list[Problem]:
    """Slides that differ from most others in one property; a value that a file does not state is no difference."""
    values = {slide: of(info) for slide, info in headers.items() if of(info) is not None}
    counts = Counter(values.values())
    if len(counts) < 2:
        return []
    usual = min(counts, key=lambda value: (-counts[value], str(value)))
    others = sorted(slide for slide, value in values.items() if value != usual)
    shown = ", ".join(f"{value} ({count} slides)" for value, count in sorted(counts.items(), key=lambda kv: -kv[1])[:5])
    found = f"{name} differs between slides: {shown}; not {usual}: {summarise(others)}"
    if severity == "note":
        return [Problem(folder, found, severity="note")]
    return [Problem(folder, found, f"one {name}", "extract these slides again, or list them in cohort.exclude")]


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
        text = str(error)
        problems.append(Problem(name, text.removeprefix(f"{name}: ")))
        return None
    problems += [Problem(name, note.removeprefix(f"{name}: "), severity="note") for note in omics.notes]
    paired = len(omics.values)
    if omics.missing:
        found = f"{len(omics.missing)} of {len(cohort.patients)} patients have no RNA: {summarise(omics.missing)}"
        problems.append(Problem(name, f"{found}; they train without the RNA losses", severity="note"))
    if paired < _FEWEST_PAIRED:
        mend = "check the patient ids, or leave omics out"
        problems.append(Problem(name, f"only {paired} patients have RNA", f"{_FEWEST_PAIRED} or more", mend))
    return omics
