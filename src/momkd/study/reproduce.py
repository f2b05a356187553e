"""A run done again from what it says of itself, and compared with itself."""

from __future__ import annotations

import filecmp
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from momkd.cohort.dataset import load_data
from momkd.errors import RunError
from momkd.experiment import TaskSettings
from momkd.files import read_json, write_json
from momkd.parallel import Place
from momkd.study.crossval import crossval, fit_final
from momkd.study.events import Watcher, ignore
from momkd.study.run_folder import RunFolder, environment
from momkd.study.tables import observed_columns

# Between machines, sums of float32 are made in another order: probabilities of the same run may differ by so much.
TOLERANCE = 1e-3
Verdict = Literal["identical", "equal within tolerance", "different"]


@dataclass(frozen=True)
class Reproduction:
    """What became of it.

    ``verdict``: identical (splits, predictions and students are the same bytes), equal within ``tolerance`` (the same
    splits, and no prediction differs by more), or different. ``largest``: the largest difference of a prediction.
    ``students``: how many of the folds' students are the same bytes. ``changed``: what differs between the machines.
    """

    run: Path
    again: Path
    verdict: Verdict
    same_splits: bool
    largest: float
    predictions: int
    students: int
    folds: int
    metrics: Mapping[str, tuple[float | None, float | None]]
    changed: Mapping[str, tuple[str, str]]
    tolerance: float = TOLERANCE


def reproduce(
    path: Path,
    out: Path,
    *,
    workers: int | None = None,
    place: Place | None = None,
    tolerance: float = TOLERANCE,
    watch: Watcher = ignore,
) -> Reproduction:
    """Do a finished run again in ``out``, on the data that its experiment names, and compare; goes on where it stopped.

    Leaves reproduction.json in ``out``. Raises RunError where the run is unfinished, ``out`` is the run, or
    the data are not those that it was made from.
    """
    run, again = RunFolder(path), RunFolder(out)
    experiment = run.experiment()
    folds = run.done_folds()
    if Path(path).resolve() == Path(out).resolve():
        raise RunError(f"{out}: is the run itself; give another --out")
    run.check_data(experiment, load_data(experiment))
    splits = pd.read_csv(run.splits_file, usecols=["role"])
    if "test" in set(splits["role"]):
        crossval(experiment, out, workers=workers, place=place, watch=watch)
    else:
        fit_final(experiment, out, watch=watch)
    same_splits = filecmp.cmp(run.splits_file, again.splits_file, shallow=False)
    largest, count, same_bytes = _predictions(run, again, experiment.task)
    students = sum(_same_student(run.fold(fold), again.fold(fold)) for fold in folds)
    verdict: Verdict = "different"
    if same_splits and same_bytes and students == len(folds):
        verdict = "identical"
    elif same_splits and largest <= tolerance:
        verdict = "equal within tolerance"
    found = Reproduction(
        Path(path),
        Path(out),
        verdict,
        same_splits,
        largest,
        count,
        students,
        len(folds),
        _metrics(run, again),
        _changed(run),
        tolerance,
    )
    write_json(again.path / "reproduction.json", {**asdict(found), "run": str(path), "again": str(out)})
    return found


def _predictions(run: RunFolder, again: RunFolder, task: TaskSettings) -> tuple[float, int, bool]:
    """The largest difference of a prediction, how many there are, and whether the tables are the same bytes."""
    name = "predictions.csv"
    same = filecmp.cmp(run.path / name, again.path / name, shallow=False)
    first, second = run.predictions(task), again.predictions(task)
    keys = ["repeat", "fold", "role", "patient_id"]
    numbers = [column for column in first.columns if column not in {*keys, *observed_columns(task)}]
    both = first.merge(second, on=keys, how="outer", suffixes=("", " again"))
    left = both[numbers].to_numpy(np.float64)
    right = both[[f"{column} again" for column in numbers]].to_numpy(np.float64)
    gap = np.abs(left - right)
    # A patient that only one of them has differs by more than any tolerance.
    largest = float(np.where(np.isnan(gap), np.inf, gap).max(initial=0.0))
    return min(largest, 1e308), len(both), same


def _same_student(fold: Path, again: Path) -> bool:
    names = ("student/student.safetensors", "student/student.json")
    there = [(fold / name).is_file() for name in names]
    if not any(there):
        return not (again / names[0]).is_file()
    return all((again / name).is_file() and filecmp.cmp(fold / name, again / name, shallow=False) for name in names)


def _metrics(run: RunFolder, again: RunFolder) -> dict[str, tuple[float | None, float | None]]:
    """The mean of every test metric (of a final fit: validation), then and now."""
    then, now = (read_json(one.path / "metrics.json") for one in (run, again))
    role = "test" if "test" in then else "val"
    return {
        name: (entry.get("mean"), now[role].get(name, {}).get("mean"))
        for name, entry in then[role].items()
        if isinstance(entry, dict) and "mean" in entry
    }


def _changed(run: RunFolder) -> dict[str, tuple[str, str]]:
    then, now = read_json(run.environment_file), environment()

    def flat(told: Mapping[str, Any]) -> dict[str, str]:
        plain = {name: str(told.get(name)) for name in ("python", "platform", "processor")}
        return {**plain, **{name: str(value) for name, value in told.get("packages", {}).items()}}

    before, after = flat(then), flat(now)
    return {name: (before.get(name, "not noted"), value) for name, value in after.items() if before.get(name) != value}
