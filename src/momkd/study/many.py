"""Many runs, one pool of processes: what comparisons and sweeps are made of.

Each run is an ordinary run folder, so whatever works on a run works on each of them. All their folds wait in one queue:
no process is idle while another run has work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from momkd.cohort.dataset import CohortData, load_data
from momkd.errors import MomkdError, RunError
from momkd.experiment import Experiment
from momkd.study.crossval import FoldContext, Plan, StudyResult, gather, plan_run, run_one_fold, usual_workers
from momkd.study.events import Event, Watcher, ignore
from momkd.study.run_folder import FoldId, RunFolder
from momkd.study.workers import run_tasks


@dataclass(frozen=True)
class NamedExperiment:
    """An experiment and the name of its run folder."""

    name: str
    experiment: Experiment


def run_many(
    runs: Sequence[NamedExperiment], out: Path, *, workers: int | None = None, watch: Watcher = ignore
) -> dict[str, StudyResult]:
    """Cross-validate every run in ``out``/<name>, going on where an earlier call stopped; results by name.

    Events carry the name of their run. A cohort that several runs share is loaded once. A fold that fails does not
    stop the others: raises RunError at the end, naming every run that has one. Raises CohortError, SplitError and
    RunError before anything is trained.
    """
    folders = {run.name: RunFolder(out / run.name) for run in runs}
    cohorts: dict[str, CohortData] = {}
    plans: dict[str, Plan] = {}
    for run in runs:
        key = _data_key(run.experiment)
        if key not in cohorts:
            cohorts[key] = load_data(run.experiment)
        folders[run.name].prepare(run.experiment)
        plans[run.name] = plan_run(folders[run.name], cohorts[key], run.experiment)
    failures: dict[str, str] = {}

    def follow(event: Event) -> None:
        if event.kind == "failed":
            failures.setdefault(event.run, event.note)
        watch(event)

    for name, plan in plans.items():
        for fold in plan.done:
            watch(Event("skipped", fold.repeat, fold.fold, run=name))
    todo = [(name, fold) for name, plan in plans.items() for fold in plan.todo]
    contexts = {name: plan.context for name, plan in plans.items()}
    count = workers if workers is not None else min(usual_workers(plan.context.experiment) for plan in plans.values())
    with RunFolder(out).logging():
        run_tasks(todo, partial(_themselves, contexts), _work, workers=count, watch=follow)
        done = {
            run.name: gather(folders[run.name], plans[run.name].folds, run.experiment.task)
            for run in runs
            if run.name not in failures
        }
    if failures:
        lines = "\n".join(f"  - {name}: {words}" for name, words in sorted(failures.items()))
        raise RunError(f"{out}: {len(failures)} of {len(runs)} runs have a fold that failed:\n{lines}")
    return done


def _work(contexts: Mapping[str, FoldContext], task: tuple[str, FoldId], watch: Watcher) -> None:
    name, fold = task

    def named(event: Event) -> None:
        watch(replace(event, run=name))

    try:
        run_one_fold(contexts[name], fold, named)
    except MomkdError as error:
        watch(Event("failed", fold.repeat, fold.fold, run=name, note=f"{fold.name}: {error}"))


def _themselves(contexts: dict[str, FoldContext]) -> dict[str, FoldContext]:
    return contexts


def _data_key(experiment: Experiment) -> str:
    """What decides what ``load_data`` returns."""
    whole = dict.fromkeys(("cohort", "features", "graph", "omics", "task"), True)
    # omics.share draws patients by the seed.
    return experiment.model_dump_json(include={**whole, "cv": {"seed"}})
