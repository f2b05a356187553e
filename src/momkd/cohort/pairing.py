"""Who of a cohort is in which omics table, and whether that is enough to teach with."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from momkd.cohort.table import Cohort
from momkd.errors import OmicsError, Problem, summarise
from momkd.experiment import Experiment, OmicsSettings
from momkd.omics.table import OmicsTable, keep_share, read_omics

# Fewer patients of a table than this cannot teach anything, in any fold.
_FEWEST_PAIRED = 10


def word_of(name: str) -> str:
    """What a table is called in a sentence."""
    return "RNA" if name == "rna" else name


def read_tables(experiment: Experiment, cohort: Cohort, problems: list[Problem]) -> dict[str, OmicsTable]:
    """Read every omics table of an experiment, the share of it that is used; what is wrong is added to ``problems``."""
    if experiment.omics is None or not len(cohort.patients):
        return {}
    several = len(experiment.omics) > 1
    tables = {
        name: _read(name, settings, experiment.cv.seed, cohort, problems, several=several)
        for name, settings in experiment.omics.items()
    }
    return {name: table for name, table in tables.items() if table is not None}


def _read(
    name: str, settings: OmicsSettings, seed: int, cohort: Cohort, problems: list[Problem], *, several: bool
) -> OmicsTable | None:
    source, place = str(settings.table), f"omics.{name}" if several else "omics"
    if not settings.table.is_file():
        problems.append(
            Problem(source, "no such file", "an omics table", f"correct {place}.table, or leave {place} out")
        )
        return None
    try:
        table = read_omics(settings.table, list(cohort.patients.index), transform=settings.transform)
    except OmicsError as error:
        problems.append(Problem(source, str(error).removeprefix(f"{source}: ")))
        return None
    problems += [Problem(source, note.removeprefix(f"{source}: "), severity="note") for note in table.notes]
    word, n_patients = word_of(name), len(cohort.patients)
    if table.missing:
        found = f"{len(table.missing)} of {n_patients} patients have no {word}: {summarise(table.missing)}"
        problems.append(Problem(source, f"{found}; they train without the {word} losses", severity="note"))
    table = keep_share(table, settings.share, seed)
    if table.unused:
        used, known = len(table.values), len(table.values) + len(table.unused)
        found = f"{place}.share {settings.share:g}: {word} of {used} of {known} patients is used"
        problems.append(Problem(source, found, severity="note"))
    mend = f"check the patient ids, or leave {place} out"
    if settings.share < 1.0:
        mend = f"raise {place}.share, {mend}"
    problems += _too_few(table, word, source, mend, cohort)
    return table


def _too_few(table: OmicsTable, word: str, source: str, mend: str, cohort: Cohort) -> list[Problem]:
    paired, problems = cohort.patients["label"].reindex(table.values.index), []
    if len(paired) < _FEWEST_PAIRED:
        found = f"only {len(paired)} patients have {word}"
        problems.append(Problem(source, found, f"{_FEWEST_PAIRED} or more", mend))
    for label, of_class in enumerate(cohort.strata):
        if of_class in cohort.required and len(paired) and label not in set(paired):
            found = f"no patient {_of(cohort, of_class)} has {word}"
            problems.append(Problem(source, found, f"{word} of {_every(cohort)}", mend))
    return problems


def unpaired_folds(splits: pd.DataFrame, cohort: Cohort, tables: Mapping[str, OmicsTable]) -> list[Problem]:
    """Find folds whose training patients of a class are all missing in a table: it would teach one class only."""
    problems = []
    for table_name, table in tables.items():
        word = word_of(table_name)
        train = splits[(splits["role"] == "train") & splits["patient_id"].isin(table.values.index)]
        label = cohort.patients["label"].reindex(train["patient_id"]).to_numpy()
        present = set(zip(train["repeat"], train["fold"], label, strict=True))
        for repeat, fold in sorted(set(zip(splits["repeat"], splits["fold"], strict=True))):
            for position, name in enumerate(cohort.strata):
                if name in cohort.required and (repeat, fold, position) not in present:
                    found = f"no training patient {_of(cohort, name)} has {word} in repeat {repeat} fold {fold}"
                    mend = f"lower cv.folds, add {word}"
                    problems.append(Problem(str(table.source), found, f"{word} of {_every(cohort)}", mend))
    return problems


def pairing_counts(cohort: Cohort, experiment: Experiment, tables: Mapping[str, OmicsTable]) -> dict[str, str]:
    """Lines of a check: the patients and genes of each table, and of several tables how many patients are in which."""
    if experiment.omics is None:
        return {"RNA": "none: the student is trained alone"}
    counts = {word_of(name): "not readable" for name in experiment.omics}
    for name, table in tables.items():
        used, genes = table.values.shape
        of_all = f" of {used + len(table.unused)}" if table.unused else ""
        share = f" (share {experiment.omics[name].share:g})" if table.unused else ""
        counts[word_of(name)] = f"{used}{of_all} patients × {genes} genes{share}"
    if len(experiment.omics) > 1:
        inside = sum(cohort.patients.index.isin(table.values.index).astype(int) for table in tables.values())
        number = pd.Series(inside, index=cohort.patients.index)
        in_all, in_none = int((number == len(experiment.omics)).sum()), int((number == 0).sum())
        counts["paired"] = (
            f"{in_all} patients in all {len(experiment.omics)} tables, {len(number) - in_all - in_none} in some, "
            f"{in_none} in none"
        )
    return counts


def _of(cohort: Cohort, stratum: str) -> str:
    return "with the event" if cohort.type == "survival" else f"of class {stratum}"


def _every(cohort: Cohort) -> str:
    if cohort.type == "survival":
        return "patients with the event"
    return "both classes" if len(cohort.classes) == 2 else "every class"
