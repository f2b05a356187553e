"""Sweeps: every point an ordinary run, ranked by validation, resumed where they stopped, test scores on request."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from momkd.errors import RunError, TrainingError
from momkd.experiment import SweepPlan, load_sweep
from momkd.study import many
from momkd.study.crossval import StudyResult, crossval
from momkd.study.events import Event
from momkd.study.many import ManyResults
from momkd.study.sweep import sweep

GRID = ("model.memory.codes=2,3", "train.lr=0.005,0.05")
SMALL = ("train.members=1", "train.epochs=2", "cv.folds=2")
NAMES = [f"codes={codes},lr={lr}" for codes in (2, 3) for lr in ("0.005", "0.05")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, make_cohort: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    make_cohort(folder)
    sweep(plan(folder), folder / "out", workers=1)
    return folder


def plan(home: Path, *grid: str) -> SweepPlan:
    return load_sweep(home / "experiment.yaml", grid or GRID, SMALL)


def contents(out: Path) -> dict[str, bytes]:
    """All that a sweep leaves but what tells of time and machine."""
    told = {"log.txt", "environment.json", "metrics.json", "fold.json", "history.csv"}
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.name not in told)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def test_the_table_says_what_the_runs_say_and_ranks_by_validation(home: Path) -> None:
    table = pd.read_csv(home / "out" / "sweep.csv")
    scores = ["val_auc_mean", "val_auc_sd", "val_n"]
    assert list(table.columns) == ["model.memory.codes", "train.lr", *scores, "rank", "run"]
    assert list(table["run"]) == NAMES
    assert list(table["model.memory.codes"]) == [2, 2, 3, 3]
    for row in table.itertuples():
        auc = json.loads((home / "out" / str(row.run) / "metrics.json").read_text())["val"]["auc"]
        assert row.val_auc_mean == pytest.approx(auc["mean"])
        assert row.val_auc_sd == pytest.approx(auc["sd"])
        assert row.val_n == 2
    best_first = table.sort_values("rank", kind="stable")["val_auc_mean"]
    assert best_first.is_monotonic_decreasing


def test_a_point_is_the_run_that_crossval_makes_and_all_divide_alike(home: Path, tmp_path: Path) -> None:
    point = plan(home).points[3]
    crossval(point.experiment, tmp_path / "alone", workers=1)
    for name in ("predictions.csv", "splits.csv", "experiment.yaml"):
        assert (tmp_path / "alone" / name).read_bytes() == (home / "out" / NAMES[3] / name).read_bytes()
    shared = (home / "out" / "splits.csv").read_bytes()
    assert all((home / "out" / name / "splits.csv").read_bytes() == shared for name in NAMES)


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_ends_in_the_same_bytes_with_two_workers(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["sweep", str(home / "experiment.yaml"), "--out", str(out), "--workers", "1"]
    words += [word for grid in GRID for word in ("--grid", grid)] + [word for s in SMALL for word in ("--set", s)]
    process = subprocess.Popen(
        [sys.executable, "-m", "momkd", *words],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    limit = time.monotonic() + 120
    while len(list(out.glob("*/fold-*/fold.json"))) < 2 and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.01)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    finished = len(list(out.glob("*/fold-*/fold.json")))
    assert 2 <= finished < 8
    assert not (out / "sweep.csv").exists()
    seen: list[Event] = []
    sweep(plan(home), out, workers=2, watch=seen.append)
    kinds = [event.kind for event in seen]
    assert (kinds.count("skipped"), kinds.count("done")) == (finished, 8 - finished)
    assert contents(out) == contents(home / "out")


def test_a_larger_grid_adds_to_the_sweep(home: Path) -> None:
    before = contents(home / "out")
    seen: list[Event] = []
    found = sweep(
        plan(home, "model.memory.codes=2,3", "train.lr=0.005,0.01"), home / "out", workers=1, watch=seen.append
    )
    assert {event.run for event in seen if event.kind == "done"} == {"codes=2,lr=0.01", "codes=3,lr=0.01"}
    assert list(found.table["train.lr"]) == [0.005, 0.01, 0.005, 0.01]
    sweep(plan(home), home / "out", workers=1)
    assert {name: contents(home / "out")[name] for name in before} == before


def test_a_point_that_fails_costs_only_itself(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = many.run_one_fold

    def broken(context, fold, watch):  # type: ignore[no-untyped-def]
        if context.experiment.train.lr == 0.05 and context.experiment.model.memory.codes == 2:
            raise TrainingError("epoch 1: the loss became nan")
        real(context, fold, watch)

    monkeypatch.setattr(many, "run_one_fold", broken)
    found = sweep(plan(home), tmp_path, workers=1, show_test=True)
    assert list(found.table["val_n"]) == [2, 0, 2, 2]
    assert list(found.table["rank"].isna()) == [False, True, False, False]
    assert found.best in set(NAMES) - {NAMES[1]}
    with pytest.raises(RunError, match=r"1 of 4 runs have a fold that failed:\n  - codes=2,lr=0.05: fold-0-0: epoch 1"):
        found.results.raise_failures()
    monkeypatch.setattr(many, "run_one_fold", lambda *_: (_ for _ in ()).throw(TrainingError("no")))
    nothing = sweep(plan(home), tmp_path / "none", workers=1, show_test=True)
    assert (nothing.best, nothing.choice) == (None, None)
    assert nothing.table["val_auc_mean"].isna().all()


def test_other_settings_in_the_same_folder_are_refused(home: Path) -> None:
    with pytest.raises(RunError, match=r"other settings(.|\n)*train.epochs: 2 then, 1 now"):
        sweep(load_sweep(home / "experiment.yaml", GRID, [*SMALL, "train.epochs=1"]), home / "out", workers=1)


def scores(val: list[float | None], test: list[float | None]) -> dict[str, Any]:
    def entry(values: list[float | None]) -> dict[str, Any]:
        defined = [value for value in values if value is not None]
        return {
            "mean": float(np.mean(defined)) if defined else None,
            "sd": float(np.std(defined, ddof=1)) if len(defined) > 1 else None,
            "values": values,
            "undefined": len(values) - len(defined),
        }

    return {"val": {"auc": entry(val)}, "test": {"auc": entry(test)}}


def fake(monkeypatch: pytest.MonkeyPatch, *metrics: dict[str, Any]) -> None:
    def results(runs, out, **_):  # type: ignore[no-untyped-def]
        made = zip(runs, metrics, strict=True)
        return ManyResults(out, {run.name: StudyResult(out / run.name, one) for run, one in made}, {})

    monkeypatch.setattr("momkd.study.sweep.try_many", results)


def test_the_best_is_best_on_validation_whatever_the_test_says(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(
        monkeypatch,
        scores([0.6, 0.8], [0.9, 0.9]),
        scores([0.9, 0.7], [0.5, 0.6]),
        scores([0.7, 0.9], [0.7, 0.8]),
        scores([None, None], [0.9, 0.9]),
    )
    hidden = sweep(plan(home), tmp_path)
    assert hidden.best == NAMES[1]
    assert hidden.table["rank"].tolist()[:3] == [3, 1, 1]
    assert hidden.table["val_n"].tolist() == [2, 2, 2, 0]
    assert hidden.choice is None
    assert not any("test" in name for name in hidden.table.columns)
    assert "test" not in (tmp_path / "sweep.csv").read_text()
    shown = sweep(plan(home), tmp_path, show_test=True)
    assert (shown.best, shown.table["rank"].tolist()[:3]) == (NAMES[1], [3, 1, 1])
    assert shown.table["test_auc_mean"].tolist() == pytest.approx([0.9, 0.55, 0.75, 0.9])


def test_the_choice_is_made_in_each_fold_and_tested_there(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = scores([None] * 4, [0.0] * 4)
    fake(
        monkeypatch,
        scores([0.6, 0.8, None, 0.5], [0.1, 0.2, 0.3, 0.4]),
        scores([0.7, 0.7, None, 0.6], [0.5, 0.6, 0.7, None]),
        nothing,
        nothing,
    )
    choice = sweep(plan(home), tmp_path, show_test=True).choice
    assert choice is not None
    assert (choice.mean, choice.folds) == (pytest.approx((0.5 + 0.2) / 2), 2)
    assert choice.sd == pytest.approx(np.std([0.5, 0.2], ddof=1))


@pytest.mark.parametrize(
    ("task", "metric"),
    [
        ("{label: type, classes: [a, b, c]}", "macro_auc"),
        ("{type: ordinal, label: type, classes: [a, b, c]}", "kappa"),
        ("{type: continuous, label: score}", "spearman"),
        ("{type: survival, label: days, event: died}", "c_index"),
    ],
)
def test_every_type_of_task_has_its_score(home: Path, tmp_path: Path, task: str, metric: str) -> None:
    cohort = pd.read_csv(home / "cohort.csv")
    number = cohort["patient_id"].str[1:].astype(int)
    cohort["type"], cohort["score"] = number.map(lambda i: "abc"[i % 3]), (number * 7) % 11
    cohort["days"], cohort["died"] = 100 + (number * 31) % 57, number % 2
    cohort.to_csv(tmp_path / "cohort.csv", index=False)
    here = [f"cohort={{table: {tmp_path / 'cohort.csv'}}}", f"task={task}", *SMALL]
    found = sweep(load_sweep(home / "experiment.yaml", ["train.lr=0.01,0.1"], here), tmp_path / "out", workers=1)
    assert found.metric == metric
    assert found.table[f"val_{metric}_mean"].notna().all()
    assert found.table["rank"].min() == 1
