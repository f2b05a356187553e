"""A search: settings proposed one after another, poor ones stopped after a few folds, the rest ranked by validation.

    DIR/search.json  sweep.csv  sweep.md  sweep.png  splits.csv  log.txt  trial-000/ (a run, and proposal.json)

Proposals come from the tree-structured Parzen estimator (Bergstra et al. 2011; Optuna). Who goes on is decided by
asynchronous successive halving (Li et al. 2020, ASHA) over folds, which all trials do in the same order: at each rung
the better half by mean validation score. All that is known is in the files of the trials, so tasks on many machines
take part, and a search that was killed goes on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from momkd.cohort.dataset import CohortData, load_data
from momkd.cohort.splits import write_splits
from momkd.errors import MomkdError, RunError, summarise
from momkd.evaluation.scorers import primary_metric
from momkd.experiment import Experiment, Point, SearchSpace, SweepPlan
from momkd.files import read_json, write_json
from momkd.locks import claim
from momkd.parallel import Place, given, run_tasks
from momkd.study.crossval import (
    StudyResult,
    gather,
    judge,
    place_for,
    plan_run,
    run_one_fold,
    splits_of,
    usual_workers,
)
from momkd.study.events import Event, Watcher, ignore
from momkd.study.many import ManyResults, data_key
from momkd.study.proposals import propose
from momkd.study.run_folder import FoldId, RunFolder, folds_of, write_csv
from momkd.study.sweep import Sweep, fold_scores, rank
from momkd.study.trials import PROPOSAL, Trial, goes_on, read_trials, rungs, write_trial

logger = logging.getLogger(__name__)

_ABOUT, _LOCK = "search.json", ".proposing.lock"


def search(
    space: SearchSpace,
    out: Path,
    *,
    trials: int,
    halving: bool = True,
    workers: int | None = None,
    place: Place | None = None,
    watch: Watcher = ignore,
    show_test: bool = False,
) -> Sweep:
    """Try so many points of a space on identical folds, and rank those that did all of them by validation.

    Goes on where it stopped; more ``trials`` add to those that are there. ``halving``: stop poor trials early. One
    process searches in the same way each time; several tell each other what they found as they find it, so theirs
    depends on which was first. A trial that fails is tried again by the next call. Raises CohortError, SplitError, and
    RunError where Optuna is missing, the space has no more points than ``trials``, or ``out`` is of another search.
    """
    if find_spec("optuna") is None:
        raise RunError("--search needs Optuna: pip install 'momkd[search]'")
    if space.size <= trials:
        raise RunError(f"the space has {space.size:.0f} points, and --search {trials} would do them all: leave it out")
    folder, task = RunFolder(out), space.base.task
    with folder.held(), folder.logging():
        cohort = load_data(space.base)
        _agree(out / _ABOUT, space, halving=halving)
        splits = splits_of(folder, cohort, space.base)
        if not folder.splits_file.is_file():
            write_splits(splits, folder.splits_file)
        context = _Context(space, out, cohort, splits, primary_metric(task), halving)
        numbers = list(range(trials))
        known = {trial.number: trial for trial in read_trials(out)}
        todo = [n for n in numbers if n not in known or known[n].state not in ("complete", "stopped")]
        for n in sorted(set(numbers) - set(todo)):
            _tell_all(known[n], context.folds, watch)
        count = workers if workers is not None else usual_workers(space.base)
        at = place_for(place, workers, space.base)
        run_tasks(todo, given(context), _work, place=at, workers=count, watch=watch)
        return _gathered(space, out, trials, context, show_test=show_test)


@dataclass(frozen=True, eq=False)
class _Context:
    """What a process needs to do any trial."""

    space: SearchSpace
    out: Path
    cohort: CohortData
    splits: pd.DataFrame
    metric: str
    halving: bool
    others: dict[str, CohortData] = field(default_factory=dict)

    @property
    def folds(self) -> list[FoldId]:
        return folds_of(self.splits)

    def data(self, experiment: Experiment) -> CohortData:
        """The cohort as the experiment sees it; the last other one than the base's is kept."""
        key = data_key(experiment)
        if key == data_key(self.space.base):
            return self.cohort
        if key not in self.others:
            self.others.clear()
            self.others[key] = load_data(experiment)
        return self.others[key]


def _work(context: _Context, number: int, watch: Watcher) -> None:
    """Propose a trial, or take up the one of this number, and do it to its end."""
    trial = _taken(context, number)

    def named(event: Event) -> None:
        watch(replace(event, run=trial.name))

    def failed(words: str) -> None:
        done = next(one for one in read_trials(context.out) if one.number == number)
        write_trial(context.out, replace(done, state="failed", note=words))
        missing = context.folds[len(done.scores) :]
        for fold in missing[:1]:
            named(Event("failed", fold.repeat, fold.fold, note=words))
        for fold in missing[1:]:
            named(Event("stopped", fold.repeat, fold.fold))

    try:
        _do(context, trial, named)
    except MomkdError as error:
        failed(str(error))
    except Exception as error:
        # Memory that one setting exhausts, or a defect that it meets, must not end the search.
        logger.exception("%s failed", trial.name)
        failed(f"{error!r} (where: log.txt)")


def _taken(context: _Context, number: int) -> Trial:
    """The trial of a number: proposed now, one process at a time, or as it was left."""
    with claim(context.out / _LOCK, wait=True):
        known = read_trials(context.out)
        trial = next((one for one in known if one.number == number), None)
        if trial is None:
            trial = Trial(number, propose(context.space, known, number))
        trial = replace(trial, state="running", note="")
        write_trial(context.out, trial)
    return trial


def _do(context: _Context, trial: Trial, watch: Watcher) -> None:
    run = RunFolder(context.out / trial.name)
    point = context.space.point(trial.name, trial.settings)
    with run.held():
        cohort = context.data(point.experiment)
        run.prepare(point.experiment, cohort, beside=(PROPOSAL,))
        if not run.splits_file.is_file():
            write_splits(context.splits, run.splits_file)
        plan = plan_run(run, cohort, point.experiment)
        trial = replace(trial, scores=())
        for count, fold in enumerate(plan.folds, 1):
            if run.is_done(fold):
                watch(Event("skipped", fold.repeat, fold.fold))
            else:
                run_one_fold(plan.context, fold, watch)
            trial = replace(trial, scores=(*trial.scores, _score(run, fold, point, context.metric)))
            write_trial(context.out, trial)
            is_rung = context.halving and count in rungs(len(plan.folds))
            if is_rung and not goes_on(trial, read_trials(context.out), count):
                note = f"below the better half after {count} folds"
                write_trial(context.out, replace(trial, state="stopped", note=note))
                for rest in plan.folds[count:]:
                    watch(Event("stopped", rest.repeat, rest.fold))
                return
        gather(run, plan.folds, point.experiment.task)
        write_trial(context.out, replace(trial, state="complete"))


def _score(run: RunFolder, fold: FoldId, point: Point, metric: str) -> float | None:
    _, metrics = judge(run, [fold], point.experiment.task)
    value = metrics.get("val", {}).get(metric, {}).get("mean")
    return None if value is None or math.isnan(value) else float(value)


def _agree(about: Path, space: SearchSpace, *, halving: bool) -> None:
    """Make the search, or see that it is the one that is there."""
    now = {"space": space.digest, "halving": halving}
    if not about.is_file():
        if any(path.name not in (".lock", "log.txt") for path in about.parent.iterdir()):
            raise RunError(f"{about.parent}: exists, is not empty and is not a search; give another --out")
        write_json(about, now)
    elif read_json(about) != now:
        raise RunError(
            f"{about.parent}: was made with another space, other settings or another rule of stopping; give another "
            "--out, or go back to them"
        )


def _tell_all(trial: Trial, folds: Sequence[FoldId], watch: Watcher) -> None:
    for count, fold in enumerate(folds, 1):
        kind: Literal["skipped", "stopped"] = "skipped" if count <= len(trial.scores) else "stopped"
        watch(Event(kind, fold.repeat, fold.fold, run=trial.name))


def _gathered(space: SearchSpace, out: Path, trials: int, context: _Context, *, show_test: bool) -> Sweep:
    """One row a trial; those that were stopped have a mean of fewer folds, and no rank."""
    metric, points, rows = context.metric, [], []
    done: dict[str, StudyResult] = {}
    failures = {}
    for trial in read_trials(out)[:trials]:
        try:
            point = space.point(trial.name, trial.settings)
        except MomkdError:
            point = Point(trial.name, trial.settings, space.base)
        points.append(point)
        known = [score for score in trial.scores if score is not None]
        row = {
            **point.settings,
            f"val_{metric}_mean": trial.mean(),
            f"val_{metric}_sd": float(np.std(known, ddof=1)) if len(known) > 1 else None,
            "val_n": len(known),
        }
        if trial.state == "complete":
            done[trial.name] = StudyResult(out / trial.name, read_json(out / trial.name / "metrics.json"))
        elif trial.state == "failed":
            failures[trial.name] = summarise([trial.note], shown=1)
        if show_test:
            row |= fold_scores(done, trial.name, "test", metric)
        rows.append({**row, "state": trial.state})
    table = pd.DataFrame(rows)
    complete = table[f"val_{metric}_mean"].where(table["state"] == "complete")
    table["rank"], best = rank(complete, [point.name for point in points])
    table["run"] = [point.name for point in points]
    write_csv(out / "sweep.csv", table)
    plan = SweepPlan(space.keys, tuple(points))
    return Sweep(plan, metric, table, best, None, ManyResults(out, done, failures), space)
