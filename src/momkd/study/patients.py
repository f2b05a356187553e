"""patients.csv: who took part in a run, so that it can be told without the cohort's files."""

from __future__ import annotations

import pandas as pd

from momkd.cohort.dataset import CohortData
from momkd.experiment import TaskSettings
from momkd.study.run_folder import RunFolder, write_csv
from momkd.study.tables import observed_table

# Before the name of an omics table: whether the patient's row of it was used.
OMICS_PREFIX = "omics_"


def patients_of(cohort: CohortData, task: TaskSettings) -> pd.DataFrame:
    """One row a patient, sorted: patient_id, what was observed, group, slides, patches, omics_<table> yes or no.

    ``group`` is there if the experiment names one. The only cost is the feature files' headers, which are read already.
    """
    who = cohort.cohort
    ids = [str(patient) for patient in who.patients.index]
    table = pd.concat(
        [pd.Series(ids, name="patient_id"), observed_table(task, ids, cohort.labels, cohort.values)], axis=1
    )
    if who.patients["group"].notna().any():
        table["group"] = who.patients["group"].to_numpy()
    slides = who.slides.assign(patches=[cohort.n_patches(slide) for slide in who.slides["slide_id"]])
    counts = slides.groupby("patient_id")["patches"].agg(["size", "sum"]).reindex(ids)
    table["slides"], table["patches"] = counts["size"].to_numpy(), counts["sum"].to_numpy()
    for name, omics in cohort.omics.items():
        used = set(map(str, omics.values.index))
        table[f"{OMICS_PREFIX}{name}"] = ["yes" if patient in used else "no" for patient in ids]
    return table


def write_patients(run: RunFolder, cohort: CohortData, task: TaskSettings) -> None:
    """Leave patients.csv in a run that has none."""
    if not run.patients_file.is_file():
        write_csv(run.patients_file, patients_of(cohort, task))
