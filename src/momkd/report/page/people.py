"""Who took part: the cohort, its sites, and the parts that the folds make of it."""

from __future__ import annotations

import pandas as pd

from momkd.cohort.pairing import word_of
from momkd.evaluation.scorers import primary_metric
from momkd.evaluation.subgroups import OTHERS, by_group
from momkd.experiment import TaskSettings
from momkd.report.names import metric_name
from momkd.report.page.document import Block, Section, Table, Text
from momkd.report.words import count, interval, number, spread_of
from momkd.study.patients import OMICS_PREFIX
from momkd.study.run_folder import RunFolder

_NO_PATIENTS = (
    "patients.csv is missing, so sites, slides and omics are not known here: the run was made by an earlier version. "
    "Running the same command again adds it."
)


def read_patients(run: RunFolder, task: TaskSettings) -> pd.DataFrame | None:
    """patients.csv, classes and groups as text; None where the run has none."""
    if not run.patients_file.is_file():
        return None
    text = {"patient_id": str, "group": str} | ({"label": str} if task.categorical else {})
    return pd.read_csv(run.patients_file, dtype=text, keep_default_na=False, na_values={"group": [""]})


def cohort_section(patients: pd.DataFrame | None, task: TaskSettings) -> Section:
    """Patients, slides, patches, what was observed, sites, missing omics."""
    if patients is None:
        return Section("Cohort", [Text(_NO_PATIENTS, "note")])
    n = len(patients)
    slides, patches = patients["slides"], patients["patches"]
    rows = [
        ["patients", count(n)],
        ["slides", f"{count(slides.sum())} ({slides.min()} – {slides.median():g} – {slides.max()} a patient)"],
        ["patches", f"{count(patches.sum())} ({patches.min()} – {patches.median():g} – {patches.max()} a patient)"],
        *_outcomes(patients, task),
    ]
    if "group" in patients:
        sizes = patients["group"].value_counts()
        rows.append(["sites", f"{len(sizes)} ({sizes.min()} – {sizes.median():g} – {sizes.max()} patients each)"])
    for column in [name for name in patients if str(name).startswith(OMICS_PREFIX)]:
        used = int((patients[column] == "yes").sum())
        rows.append([word_of(str(column).removeprefix(OMICS_PREFIX)), f"{count(used)} patients; {n - used} without"])
    return Section("Cohort", [Table(["", ""], rows, "Ranges: least – median – most.")])


def _outcomes(patients: pd.DataFrame, task: TaskSettings) -> list[list[str]]:
    if task.categorical:
        counts = patients["label"].value_counts()
        of = {name: int(counts.get(name, 0)) for name in task.classes}
        return [
            [f"{task.label} {name}", f"{count(number)} ({number / len(patients):.1%})"] for name, number in of.items()
        ]
    if task.type == "survival":
        events = int((patients["event"] == 1).sum())
        return [
            ["with the event", count(events)],
            ["censored", count(len(patients) - events)],
            ["time", spread_of(patients["time"])],
        ]
    return [[task.label, spread_of(patients["label"])]]


def sites_section(predictions: pd.DataFrame, patients: pd.DataFrame | None, task: TaskSettings) -> Section:
    """The metric that stands for the task, site by site; empty without sites or without tested patients."""
    title = "Sites"
    if patients is None or "group" not in patients or not (predictions["role"] == "test").any():
        return Section(title, [])
    known = patients.dropna(subset=["group"])
    found = by_group(predictions, dict(zip(known["patient_id"], known["group"], strict=True)), task)
    rows = []
    for row in found.to_dict("records"):
        name = f"{OTHERS} ({row['groups']} sites)" if row["group"] == OTHERS else str(row["group"])
        rows.append([name, str(row["patients"]), number(row["value"]), interval(row["ci_low"], row["ci_high"])])
    measure = metric_name(primary_metric(task))
    caption = (
        f"Test patients; {measure} of all patients of a site, averaged over repeats. Sites of fewer than 15 patients, "
        f"or where {measure} is undefined, are taken together. Interval: {found['ci_method'].iloc[0]}."
    )
    return Section(title, [Table(["site", "patients", measure, "95 % interval"], rows, caption, frozenset({1, 2, 3}))])


def splits_section(run: RunFolder, patients: pd.DataFrame | None, task: TaskSettings) -> Section:
    """Who is in which part: patients, sites and what is predicted, fold by fold."""
    if not run.splits_file.is_file():
        return Section("Splits", [])
    splits = pd.read_csv(run.splits_file, dtype={"patient_id": str})
    blocks: list[Block] = []
    if patients is not None:
        if "group" in patients:
            blocks.append(Text("Patients of one site are never in two parts of a fold."))
        splits = splits.merge(patients, on="patient_id", how="left", validate="many_to_one")
    rows, roles = [], [role for role in ("train", "val", "test") if (splits["role"] == role).any()]
    for (repeat, fold), part in splits.groupby(["repeat", "fold"], sort=True):
        row = [str(repeat), str(fold)]
        for role in roles:
            own = part[part["role"] == role]
            row += [str(len(own)), *([] if patients is None else [_share(own, task)])]
        rows.append(row)
    words = {"train": "training", "val": "validation", "test": "test"}
    heads = ["repeat", "fold"]
    for role in roles:
        heads += [words[role], *([] if patients is None else [_share_head(task)])]
    blocks.append(Table(heads, rows, "Patients of each part.", frozenset(range(1, len(heads)))))
    return Section("Splits", blocks)


def _share_head(task: TaskSettings) -> str:
    if task.type == "survival":
        return "events"
    return f"median {task.label}" if task.type == "continuous" else " / ".join(task.classes)


def _share(own: pd.DataFrame, task: TaskSettings) -> str:
    if task.type == "survival":
        return str(int((own["event"] == 1).sum()))
    if task.type == "continuous":
        return f"{own['label'].median():.4g}"
    return " / ".join(str(int((own["label"] == name).sum())) for name in task.classes)
