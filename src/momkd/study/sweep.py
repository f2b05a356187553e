"""Many settings on the same folds: each point an ordinary run, then one table, ranked by validation.

DIR/sweep.csv  sweep.md  sweep.png  splits.csv  log.txt  <point>/ (a run)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from momkd.evaluation.scorers import primary_metric
from momkd.experiment import SearchSpace, SweepPlan, TaskSettings
from momkd.parallel import Place
from momkd.study.crossval import StudyResult
from momkd.study.events import Watcher, ignore
from momkd.study.many import ManyResults, NamedExperiment, try_many
from momkd.study.run_folder import write_csv


@dataclass(frozen=True)
class ChoiceScore:
    """Test score of the whole procedure: in each fold, the point that its own validation patients choose.

    ``mean`` and ``sd`` (n − 1; None for one fold) over the ``folds`` in which both scores are defined.
    """

    mean: float
    sd: float | None
    folds: int


@dataclass(frozen=True)
class Sweep:
    """A finished sweep.

    ``table``: one row a point in the order of the grid; a column for each varied setting (its dotted key), then
    val_<metric>_mean, _sd (over folds, n − 1) and val_n (folds where it is defined), where asked for the same of test,
    ``rank`` by the validation mean (1 = best, ties share a rank, none for a point that failed), and ``run``, its
    folder. ``best``: the name of the first point of rank 1, or None. ``choice``: only with the test columns
    of a grid. ``space``: that of a search (``search.py``), whose table has a column ``state``: what became of each
    trial; those that were stopped have a mean of fewer folds and no rank.
    """

    plan: SweepPlan
    metric: str
    table: pd.DataFrame
    best: str | None
    choice: ChoiceScore | None
    results: ManyResults
    space: SearchSpace | None = None

    @property
    def searched(self) -> bool:
        """Whether its points were proposed one after another."""
        return self.space is not None

    @property
    def task(self) -> TaskSettings:
        """What is predicted, at every point."""
        return self.plan.points[0].experiment.task


def sweep(
    plan: SweepPlan,
    out: Path,
    *,
    workers: int | None = None,
    place: Place | None = None,
    watch: Watcher = ignore,
    show_test: bool = False,
) -> Sweep:
    """Cross-validate every point on identical folds and rank them by validation; goes on where it stopped.

    All (point, repeat, fold) share one pool of ``workers`` processes, or are done at another ``place``. Points that
    fail have no score in the table; ``results.raise_failures()`` raises what they said. Raises CohortError, SplitError
    and RunError before anything is trained. Test scores are left out unless ``show_test``: who chooses by them chooses
    on test patients.
    """
    runs = [NamedExperiment(point.name, point.experiment) for point in plan.points]
    results = try_many(runs, Path(out), workers=workers, place=place, watch=watch, same_splits=True)
    metric = primary_metric(plan.points[0].experiment.task)
    rows = [
        {
            **point.settings,
            **fold_scores(results.done, point.name, "val", metric),
            **(fold_scores(results.done, point.name, "test", metric) if show_test else {}),
        }
        for point in plan.points
    ]
    table = pd.DataFrame(rows)
    names = [point.name for point in plan.points]
    table["rank"], best = rank(table[f"val_{metric}_mean"], names)
    table["run"] = names
    write_csv(Path(out) / "sweep.csv", table)
    return Sweep(plan, metric, table, best, _choose(results, metric) if show_test else None, results)


def rank(means: pd.Series, names: Sequence[str]) -> tuple[pd.Series, str | None]:
    """Ranks by descending mean, 1 the best, ties alike, none where there is no mean; and the first name of rank 1."""
    # Rounded, so that equal scores in another order of folds are a tie.
    mean = means.astype(np.float64).round(12)
    best = None if mean.isna().all() else names[int(np.nanargmax(mean.to_numpy()))]
    return mean.rank(ascending=False, method="min").astype("Int64"), best


def fold_scores(done: Mapping[str, StudyResult], name: str, role: str, metric: str) -> dict[str, Any]:
    """The columns <role>_<metric>_mean, _sd and <role>_n of one of the finished runs; None, None and 0 of another."""
    entry = _entry(done, name, role, metric)
    n = len(entry["values"]) - entry["undefined"] if entry else 0
    return {f"{role}_{metric}_mean": entry.get("mean"), f"{role}_{metric}_sd": entry.get("sd"), f"{role}_n": n}


def _entry(done: Mapping[str, StudyResult], name: str, role: str, metric: str) -> Mapping[str, Any]:
    if name not in done:
        return {}
    found: Mapping[str, Any] = done[name].metrics.get(role, {}).get(metric, {})
    return found


def _choose(results: ManyResults, metric: str) -> ChoiceScore | None:
    """Choose in every fold by its validation patients, who are none of its test patients, and test that choice."""
    if not results.done:
        return None
    val, test = (
        np.array([_entry(results.done, name, role, metric)["values"] for name in results.done], dtype=np.float64)
        for role in ("val", "test")
    )
    usable = ~np.isnan(val).all(axis=0)
    chosen = np.nanargmax(val[:, usable], axis=0)
    scores = test[:, usable][chosen, np.arange(len(chosen))]
    scores = scores[~np.isnan(scores)]
    if not len(scores):
        return None
    return ChoiceScore(float(scores.mean()), float(scores.std(ddof=1)) if len(scores) > 1 else None, len(scores))
