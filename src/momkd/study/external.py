"""A cohort that was never seen: all students of a run vote, histology alone."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from momkd.cohort.dataset import load_data
from momkd.errors import Problem, RunError, raise_problems, summarise
from momkd.evaluation.verdict import verdict
from momkd.experiment import Experiment, TaskSettings
from momkd.files import write_json, write_text
from momkd.study.crossval import StudyResult
from momkd.study.patients import write_patients
from momkd.study.predict import load_model
from momkd.study.run_folder import RunFolder, environment, write_csv
from momkd.study.tables import observed_table, patient_table, slide_table


def evaluate(
    run_path: Path,
    experiment: Experiment,
    out: Path,
    *,
    allow_overlap: bool = False,
    allow_other_label: bool = False,
    force: bool = False,
) -> StudyResult:
    """Judge a run on another cohort; its omics section is ignored, its feature files are all that is read.

    Leaves predictions.csv, slides.csv and metrics.json (under ``test``) in ``out``. Raises RunError, before the cohort
    is read, when type or classes of the task differ, or the columns ``task.label`` and ``task.event`` (unless
    ``allow_other_label``), or when ``out`` is not empty; then when a patient of the cohort took part in the run, or
    nothing says who did (unless ``allow_overlap``). StudentError: features of another width and, unless ``force``,
    another encoder or patch size.
    """
    out = Path(out)
    if out.is_dir() and any(out.iterdir()):
        raise RunError(f"{out}: exists and is not empty; give another --out")
    run = RunFolder(run_path)
    ensemble = load_model(run_path, force=force)
    _check_same_task(run_path, ensemble.task, experiment.task, allow_other_label=allow_other_label)
    seen = set() if allow_overlap else _patients_of(run)
    # Every file is read once, by several students: packing it first would only cost, and round its values.
    cohort = load_data(experiment.model_copy(update={"omics": None}), packed=False)
    patients = cohort.cohort.patients
    both = sorted(seen & set(patients.index))
    if both:
        raise RunError(
            f"{len(both)} patients of this cohort took part in {run_path}: {summarise(both)}; an external cohort "
            "must not hold them. Leave them out, or give --allow-overlap if that is what you want"
        )
    slides = [(p, s) for p in patients.index for s in cohort.slides_of(p)]
    table = slide_table([p for p, _ in slides], [ensemble.predict(cohort.bag(s)) for _, s in slides], ensemble.task)
    table.insert(0, "repeat", 0)
    table.insert(1, "fold", 0)
    table.insert(2, "role", "test")
    observed = observed_table(experiment.task, [p for p, _ in slides], cohort.labels, cohort.values)
    for place, name in enumerate(observed.columns, start=5):
        table.insert(place, name, observed[name].to_numpy())
    by_patient = patient_table(table, ensemble.classes)
    by_patient.insert(0, "repeat", 0)
    by_patient.insert(1, "fold", 0)
    metrics = verdict(by_patient, {(0, 0): ensemble.threshold}, experiment.task)
    write_text(out / "experiment.yaml", experiment.to_yaml())
    made_by = {
        "run": str(run.path),
        "students": len(ensemble.students),
        "predicts": ensemble.label,
        "method": ensemble.students[0].card.model.name,
        # A fold or a student folder alone does not say which tables taught it.
        "omics": sorted(run.experiment().omics or {}) if run.settings_file.is_file() else None,
    }
    write_json(out / "environment.json", {**environment(), **made_by})
    write_patients(RunFolder(out), cohort, experiment.task)
    write_csv(out / "slides.csv", table)
    write_csv(out / "predictions.csv", by_patient)
    write_json(out / "metrics.json", metrics)
    return StudyResult(out, metrics)


def _patients_of(run: RunFolder) -> set[str]:
    """Everybody who took part in a run."""
    if not run.splits_file.is_file():
        raise RunError(
            f"{run.path}: holds a student but no splits.csv, so nothing says which patients it has seen; give the run "
            "itself, or --allow-overlap if you know that none of them is in this cohort"
        )
    return set(pd.read_csv(run.splits_file, dtype=str, keep_default_na=False)["patient_id"])


def _check_same_task(run_path: Path, made_for: TaskSettings, asked: TaskSettings, *, allow_other_label: bool) -> None:
    """Refuse to judge by something else than what is predicted.

    A column may have another name in another hospital's table. But PR is not HER2, both being negative or positive, so
    the user has to say that the two columns are the same.
    """
    problems = []
    if asked.type != made_for.type:
        found = f"predicts {made_for.label}, a task of type {made_for.type}"
        expected = f"a run for {asked.label}, of type {asked.type}, as the experiment asks for"
        problems.append(Problem(str(run_path), found, expected, f"give task.type: {made_for.type}, or another run"))
    elif asked.classes != made_for.classes:
        found = f"predicts {made_for.label} as {list(made_for.classes)}"
        expected = f"{asked.label} as {list(asked.classes)}, as the experiment asks for"
        mend = "give the run's classes in the run's order (task.classes, task.map)"
        problems.append(Problem(str(run_path), found, expected, mend))
    for name in ("label", "event"):
        ours, theirs = getattr(made_for, name), getattr(asked, name)
        if None not in (ours, theirs) and ours != theirs and not allow_other_label:
            expected = f"{theirs}, as the experiment asks for"
            mend = f"give task.{name}: {ours}, or another run; --allow-other-label if the two are the same"
            problems.append(Problem(str(run_path), f"was trained on task.{name} {ours}", expected, mend))
    raise_problems(problems, RunError)
