"""Cross-validation and the final fit: folds trained, their predictions gathered, one verdict."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from momkd.cohort.dataset import CohortData, load_data
from momkd.cohort.splits import fit_split, load_splits, read_splits, write_splits
from momkd.errors import RunError, SplitError, raise_problems
from momkd.evaluation.verdict import verdict
from momkd.experiment import Experiment, TaskSettings
from momkd.files import read_json, write_json
from momkd.parallel import Place, given, run_tasks
from momkd.study.events import Event, Watcher, ignore
from momkd.study.fold import run_fold
from momkd.study.patients import write_patients
from momkd.study.run_folder import FoldId, RunFolder, folds_of, write_csv
from momkd.study.tables import observed_columns
from momkd.training.prepare import Roles
from momkd.training.ranks import Ranks, join
from momkd.training.resolve import resolve

# Each worker holds the tables of the cohort and some bags: more than this by default could exhaust the memory.
_MOST_WORKERS = 8


@dataclass(frozen=True)
class StudyResult:
    """A finished run and its metrics.json."""

    run: Path
    metrics: dict[str, Any]


def crossval(
    experiment: Experiment,
    out: Path,
    *,
    workers: int | None = None,
    place: Place | None = None,
    watch: Watcher = ignore,
) -> StudyResult:
    """Leak-free cross-validation; goes on where an earlier call of the same experiment stopped.

    ``workers`` processes share the folds (default: as many as the processor has cores for), or they are done at another
    ``place``. Raises CohortError listing every problem of the cohort, SplitError, RunError when ``out`` belongs to
    another experiment or another process works on it, ClusterError. Under torchrun or srun the processes share every
    step of a fold; all but the first return without metrics.
    """
    return _study(experiment, out, workers, place, watch, final=False)


def fit_final(experiment: Experiment, out: Path, *, watch: Watcher = ignore) -> StudyResult:
    """Train the model to deploy on all patients but the validation share; there is no test fold, so no test metric."""
    return _study(experiment, out, 1, None, watch, final=True)


def _study(
    experiment: Experiment, out: Path, workers: int | None, place: Place | None, watch: Watcher, *, final: bool
) -> StudyResult:
    run = RunFolder(out)
    ranks = join(experiment.train.accelerator)
    cohort = load_data(experiment)
    if not ranks.first:
        return _follow(ranks, run, cohort, experiment)
    with run.held():
        run.prepare(experiment, cohort)
        return _held_study(ranks, run, cohort, experiment, workers, place, watch, final=final)


class _Lead(NamedTuple):
    """What the first of several processes tells the others."""

    todo: list[FoldId]
    splits: pd.DataFrame
    experiment: Experiment


def _follow(ranks: Ranks, run: RunFolder, cohort: CohortData, experiment: Experiment) -> StudyResult:
    """Take part in the folds of a study that another process leads; nothing is written or known at the end."""
    todo, splits, experiment = ranks.same(_Lead([], pd.DataFrame(), experiment))
    context = FoldContext(cohort, experiment, run, splits)
    for fold in todo:
        run_one_fold(context, fold, ignore)
    return StudyResult(run.path, {})


def _held_study(
    ranks: Ranks,
    run: RunFolder,
    cohort: CohortData,
    experiment: Experiment,
    workers: int | None,
    place: Place | None,
    watch: Watcher,
    *,
    final: bool,
) -> StudyResult:
    with run.logging():
        plan = plan_run(run, cohort, experiment, final=final)
        for fold in plan.done:
            watch(Event("skipped", fold.repeat, fold.fold))
        count = workers if workers is not None else usual_workers(plan.context.experiment)
        at = place_for(place, workers, plan.context.experiment)
        if ranks.world > 1:
            ranks.same(_Lead(plan.todo, plan.context.splits, plan.context.experiment))
            at, count = Place(), 1
        run_tasks(plan.todo, given(plan.context), run_one_fold, place=at, workers=count, watch=watch)
        return gather(run, plan.folds, experiment.task)


@dataclass(frozen=True, eq=False)
class FoldContext:
    """What a process needs to do any fold of a run."""

    cohort: CohortData
    experiment: Experiment
    run: RunFolder
    splits: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Plan:
    """The folds of a run, complete ones and those to do, and what it takes to do one."""

    context: FoldContext
    folds: list[FoldId]
    todo: list[FoldId]

    @property
    def done(self) -> list[FoldId]:
        """The folds that are complete."""
        return sorted(set(self.folds) - set(self.todo))


def plan_run(run: RunFolder, cohort: CohortData, experiment: Experiment, *, final: bool = False) -> Plan:
    """Write patients.csv, write or read the splits of a prepared run, and say what is left to do.

    Raises SplitError, RunError.
    """
    write_patients(run, cohort, experiment.task)
    splits = splits_of(run, cohort, experiment, final=final)
    folds = folds_of(splits)
    resolved = experiment.model_copy(update={"train": resolve(experiment.train, cohort, len(folds))})
    return Plan(FoldContext(cohort, resolved, run, splits), folds, [fold for fold in folds if not run.is_done(fold)])


def usual_workers(experiment: Experiment) -> int:
    """As many processes as the processor has cores for, at ``train.threads`` threads each."""
    threads = experiment.train.threads
    return min(_MOST_WORKERS, max(1, (os.cpu_count() or 1) // (1 if threads == "auto" else threads)))


def place_for(place: Place | None, workers: int | None, experiment: Experiment) -> Place:
    """The place of a study, where a fold has the cores that its threads need."""
    threads = experiment.train.threads
    return replace(place or Place(), workers=workers, cpus=1.0 if threads == "auto" else float(threads))


def run_one_fold(context: FoldContext, fold: FoldId, watch: Watcher) -> None:
    """Train one fold of a run and leave its folder complete."""
    roles = roles_of(context.splits, fold)
    run_fold(context.cohort, context.experiment, context.run, fold, roles, watch)


def splits_of(run: RunFolder, cohort: CohortData, experiment: Experiment, *, final: bool = False) -> pd.DataFrame:
    """The splits of a run: its own if it has them, else the user's or new ones; written before anything is trained.

    A final fit has no test part, so it makes its own division and does not use ``cv.splits``.
    Raises SplitError, RunError.
    """
    patients, cv = cohort.cohort.patients, experiment.cv
    classes, required = cohort.cohort.strata, cohort.cohort.required
    if run.splits_file.is_file():
        splits, problems = read_splits(run.splits_file, patients, test=not final, classes=classes, required=required)
        if final and "test" in set(splits["role"]):
            raise RunError(f"{run.path}: holds the splits of `momkd crossval`; give another --out")
        raise_problems(problems, SplitError)
        return splits
    divide = fit_split if final else load_splits
    splits = divide(patients, cv, classes=classes, required=required)
    write_splits(splits, run.splits_file)
    return splits


def roles_of(splits: pd.DataFrame, fold: FoldId) -> Roles:
    """The patients of one fold by role, sorted."""
    own = splits[(splits["repeat"] == fold.repeat) & (splits["fold"] == fold.fold)]

    def patients(role: str) -> tuple[str, ...]:
        return tuple(sorted(own.loc[own["role"] == role, "patient_id"]))

    return Roles(patients("train"), patients("val"), patients("test"))


def gather(run: RunFolder, folds: list[FoldId], task: TaskSettings) -> StudyResult:
    """Put the folds' predictions together and judge them."""
    tables, metrics = judge(run, folds, task)
    for name, table in tables.items():
        write_csv(run.path / name, table)
    write_json(run.path / "metrics.json", metrics)
    return StudyResult(run.path, metrics)


def judge(
    run: RunFolder, folds: Sequence[FoldId], task: TaskSettings
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """The tables and metrics of some complete folds of a run; nothing is written."""
    # What was observed stays text, so that it is written as it was read.
    text = dict.fromkeys(("patient_id", "slide_id", *observed_columns(task)), str)
    tables = {}
    for name in ("predictions.csv", "slides.csv"):
        parts = [pd.read_csv(run.fold(fold) / name, dtype=text, keep_default_na=False) for fold in folds]
        tables[name] = pd.concat(parts, ignore_index=True)
    summaries = [read_json(run.fold(fold) / "fold.json") for fold in folds]
    thresholds = {(s["repeat"], s["fold"]): s["threshold"] for s in summaries if task.binary}
    metrics = verdict(tables["predictions.csv"], thresholds, task)
    metrics["seconds"] = round(sum(s["seconds"] for s in summaries), 3)
    return tables, metrics
