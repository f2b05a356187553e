"""Many runs, one pool of processes: what comparisons and sweeps are made of.

Each run is an ordinary run folder, so whatever works on a run works on each of them. All their folds wait in one queue:
no process is idle while another run has work.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from momkd.cohort.dataset import CACHE_BYTES, CohortData, load_data
from momkd.cohort.splits import write_splits
from momkd.errors import MomkdError, RunError, summarise
from momkd.experiment import Experiment
from momkd.parallel import Place, given, run_tasks
from momkd.study.crossval import (
    FoldContext,
    Plan,
    StudyResult,
    gather,
    place_for,
    plan_run,
    run_one_fold,
    usual_workers,
)
from momkd.study.events import Event, Watcher, ignore
from momkd.study.run_folder import FoldId, RunFolder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NamedExperiment:
    """An experiment and the name of its run folder."""

    name: str
    experiment: Experiment


@dataclass(frozen=True)
class ManyResults:
    """What became of many runs: the finished ones, and why others are not, both by name."""

    path: Path
    done: Mapping[str, StudyResult]
    failures: Mapping[str, str]

    def raise_failures(self) -> None:
        """Raise RunError naming every run that has a fold that failed; return quietly if there is none."""
        if self.failures:
            count = len(self.failures) + len(self.done)
            lines = "\n".join(f"  - {name}: {words}" for name, words in sorted(self.failures.items()))
            raise RunError(f"{self.path}: {len(self.failures)} of {count} runs have a fold that failed:\n{lines}")


def try_many(
    runs: Sequence[NamedExperiment],
    out: Path,
    *,
    workers: int | None = None,
    place: Place | None = None,
    watch: Watcher = ignore,
    same_splits: bool = False,
) -> ManyResults:
    """Cross-validate every run in ``out``/<name>, going on where an earlier call stopped.

    Events carry the name of their run. A cohort that several runs share is loaded once. A fold that fails, for
    whatever reason, does not stop the others and is done again by the next call. With ``same_splits`` all runs divide
    the patients as the first one does: ``out``/splits.csv, written once. ``place``: where folds are done. Raises
    CohortError, SplitError and RunError before anything is trained.
    """
    folders = {run.name: RunFolder(out / run.name) for run in runs}
    with ExitStack() as held:
        for folder in (RunFolder(out), *folders.values()):
            held.enter_context(folder.held())
        return _try_many(runs, folders, out, workers, place, watch, same_splits=same_splits)


def _try_many(
    runs: Sequence[NamedExperiment],
    folders: Mapping[str, RunFolder],
    out: Path,
    workers: int | None,
    place: Place | None,
    watch: Watcher,
    *,
    same_splits: bool,
) -> ManyResults:
    plans = _plan(runs, folders, out / "splits.csv" if same_splits else None)
    failures: dict[str, list[str]] = {}

    def follow(event: Event) -> None:
        if event.kind == "failed":
            failures.setdefault(event.run, []).append(event.note)
        watch(event)

    for name, plan in plans.items():
        for fold in plan.done:
            watch(Event("skipped", fold.repeat, fold.fold, run=name))
    todo = [(name, fold) for name, plan in plans.items() for fold in plan.todo]
    contexts = {name: plan.context for name, plan in plans.items()}
    count = workers if workers is not None else min(usual_workers(plan.context.experiment) for plan in plans.values())
    done: dict[str, StudyResult] = {}
    with RunFolder(out).logging():
        first = next(iter(plans.values())).context.experiment
        at = place_for(place, workers, first)
        run_tasks(todo, given(contexts), _work, place=at, workers=count, watch=follow)
        for run in runs:
            if run.name not in failures:
                try:
                    done[run.name] = gather(folders[run.name], plans[run.name].folds, run.experiment.task)
                except MomkdError as error:
                    failures[run.name] = [str(error)]
    return ManyResults(out, done, {name: summarise(sorted(notes), shown=1) for name, notes in failures.items()})


def _plan(
    runs: Sequence[NamedExperiment], folders: Mapping[str, RunFolder], splits_file: Path | None
) -> dict[str, Plan]:
    """Load each cohort once, prepare every run folder, and say what is left to do in it."""
    keys = {run.name: data_key(run.experiment) for run in runs}
    # A process may come to hold bags of every cohort: together no more than of one.
    cache_bytes = CACHE_BYTES // max(1, len(set(keys.values())))
    cohorts: dict[str, CohortData] = {}
    plans: dict[str, Plan] = {}
    shared: pd.DataFrame | None = None
    for run in runs:
        folder, key = folders[run.name], keys[run.name]
        if key not in cohorts:
            cohorts[key] = load_data(run.experiment, cache_bytes=cache_bytes)
        folder.prepare(run.experiment, cohorts[key])
        if shared is not None and not folder.splits_file.is_file():
            write_splits(shared, folder.splits_file)
        plans[run.name] = plan_run(folder, cohorts[key], run.experiment)
        if splits_file is not None:
            shared = plans[run.name].context.splits if shared is None else shared
            if not splits_file.is_file():
                write_splits(shared, splits_file)
            _check_same_splits(folder, splits_file)
    return plans


def _check_same_splits(folder: RunFolder, splits_file: Path) -> None:
    if folder.splits_file.read_bytes() != splits_file.read_bytes():
        raise RunError(
            f"{folder.splits_file}: divides the patients otherwise than {splits_file}, so their scores cannot be "
            "compared; give another --out"
        )


def _work(contexts: Mapping[str, FoldContext], task: tuple[str, FoldId], watch: Watcher) -> None:
    name, fold = task

    def named(event: Event) -> None:
        watch(replace(event, run=name))

    def failed(words: str) -> None:
        watch(Event("failed", fold.repeat, fold.fold, run=name, note=f"{fold.name}: {words}"))

    try:
        run_one_fold(contexts[name], fold, named)
    except MomkdError as error:
        failed(str(error))
    except Exception as error:
        # Memory that one setting exhausts, or a defect that it meets, must not cost the other runs their results.
        logger.exception("%s %s failed", name, fold.name)
        failed(f"{error!r} (where: log.txt)")


def data_key(experiment: Experiment) -> str:
    """What decides what ``load_data`` returns: equal keys, equal data."""
    whole = dict.fromkeys(("cohort", "features", "graph", "omics", "task"), True)
    # omics.share draws patients by the seed.
    return experiment.model_dump_json(include={**whole, "cv": {"seed"}})
