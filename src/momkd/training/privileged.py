"""The omics of one fit: each table's genes, scale and profiles, and soft labels, from the training patients alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from momkd.cohort.dataset import CohortData
from momkd.cohort.pairing import word_of
from momkd.cohort.parts import balanced_parts
from momkd.errors import OmicsError, SplitError
from momkd.experiment import Experiment, ModelSettings, OmicsSettings
from momkd.models.registry import METHODS
from momkd.omics.prepare import OmicsPreparer
from momkd.omics.select import make_selector
from momkd.omics.table import OmicsTable
from momkd.omics.teacher import joint_scores, soft_scores, unit_profiles
from momkd.training.samples import OmicsRows, Rows, Sample, targets_of


@dataclass(frozen=True, eq=False)
class PreparedTable:
    """A table and what was fitted on it: ``paired``, the training patients that are in it, sorted."""

    source: OmicsTable
    paired: list[str]
    preparer: OmicsPreparer
    rows: OmicsRows


def prepare_tables(cohort: CohortData, patients: Sequence[str], experiment: Experiment) -> dict[str, PreparedTable]:
    """Fit every omics table on the training ``patients`` that are in it.

    Raises OmicsError naming a table that holds fewer than two of them.
    """
    settings = experiment.omics or {}
    return {
        name: _prepare(name, table, cohort, patients, experiment, settings[name])
        for name, table in cohort.omics.items()
        if name in settings
    }


def _prepare(
    name: str,
    table: OmicsTable,
    cohort: CohortData,
    patients: Sequence[str],
    experiment: Experiment,
    settings: OmicsSettings,
) -> PreparedTable:
    values, programmes = table.values, experiment.model.programmes.dim
    paired = [patient for patient in sorted(patients) if patient in values.index]
    if len(paired) < 2:
        place = "omics" if len(experiment.omics or {}) == 1 else f"omics.{name}"
        raise OmicsError(
            f"{table.source}: only {len(paired)} of the {len(patients)} training patients of a fold have "
            f"{word_of(name)}; give a table with more of them, or leave {place} out"
        )
    own, labels = values.loc[paired], cohort.cohort.among(paired)["label"]
    preparer = OmicsPreparer(settings, seed=experiment.train.seed).fit(own, labels.to_numpy())
    profiles = None
    if programmes and experiment.model.name == "momkd":
        profiles = Rows.of(dict(zip(paired, unit_profiles(preparer.transform(own), programmes), strict=True)))
    seen = sorted(values.index) if METHODS[experiment.model.name].omics == "test" else paired
    rows = Rows.of(dict(zip(seen, preparer.transform(values.loc[seen]), strict=True)))
    return PreparedTable(table, paired, preparer, OmicsRows(tuple(preparer.genes_), rows, profiles))


def needs_soft_labels(model: ModelSettings) -> bool:
    """Whether a method learns from the scores of an omics teacher."""
    return METHODS[model.name].soft or (model.name == "momkd" and model.teacher.weight > 0)


def prepare_soft_labels(
    cohort: CohortData, tables: Mapping[str, PreparedTable], experiment: Experiment, seed: int
) -> Rows | None:
    """Out-of-part scores of the training patients in any of the tables that teach; None where there is no table.

    Raises SplitError naming a table whose patients cannot be divided into parts.
    """
    teacher, task = experiment.model.teacher, experiment.task
    teaching = [table for name, table in tables.items() if name in teacher.tables or not teacher.tables]
    if not teaching:
        return None
    taught = [_scores(cohort, table, experiment, seed) for table in teaching]
    if len(taught) == 1:
        return Rows.of(dict(zip(teaching[0].paired, taught[0], strict=True)))
    patients = sorted({patient for table in teaching for patient in table.paired})
    place = {patient: number for number, patient in enumerate(patients)}
    scores = np.full((len(taught), len(patients), taught[0].shape[1]), np.nan)
    for number, (table, own) in enumerate(zip(teaching, taught, strict=True)):
        scores[number, [place[patient] for patient in table.paired]] = own
    joint = joint_scores(scores, _targets(cohort, patients, experiment), task, teacher)
    return Rows.of(dict(zip(patients, joint, strict=True)))


def _scores(cohort: CohortData, table: PreparedTable, experiment: Experiment, seed: int) -> np.ndarray:
    teacher, own = experiment.model.teacher, table.paired
    try:
        part = balanced_parts(cohort.cohort.among(own), teacher.folds, seed)
    except SplitError as error:
        raise SplitError(f"{table.source.source}: {error}") from None
    targets, values = _targets(cohort, own, experiment), table.source.values.loc[own]
    if not table.preparer.selector_.supervised:
        return soft_scores(table.preparer.select(values), targets, part, experiment.task, teacher)

    def choose(outside: np.ndarray) -> np.ndarray:
        others = values.loc[outside]
        labels = cohort.cohort.among([str(patient) for patient in others.index])["label"]
        selector = make_selector(table.preparer.settings.select, table.preparer.seed)
        return np.asarray(selector.fit(others, labels.to_numpy()).selected_)

    return soft_scores(values.to_numpy(dtype=np.float64), targets, part, experiment.task, teacher, choose)


def _targets(cohort: CohortData, patients: Sequence[str], experiment: Experiment) -> np.ndarray:
    known = cohort.cohort.among(patients)
    rows = zip(patients, known["label"].tolist(), known["value"].tolist(), strict=True)
    samples = [Sample(patient, "", label, value) for patient, label, value in rows]
    return np.asarray(targets_of(samples, experiment.task).double().numpy())


def genes_table(tables: Mapping[str, PreparedTable]) -> pd.DataFrame | None:
    """Rank, gene and score of the chosen genes, the table's name in front where there are several; None of no table."""
    frames = [table.preparer.genes_table() for table in tables.values()]
    if len(frames) > 1:
        for name, frame in zip(tables, frames, strict=True):
            frame.insert(0, "table", name)
    return pd.concat(frames, ignore_index=True) if frames else None
