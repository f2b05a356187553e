"""Comparisons: many runs in one pool, identical folds, resumed where they stopped, one table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from momkd.errors import ExperimentError, RunError, TrainingError
from momkd.experiment import Experiment, load_experiment
from momkd.models.registry import METHODS
from momkd.study.compare import choose_methods, compare, experiment_of, method_names
from momkd.study.crossval import crossval
from momkd.study.events import Event
from momkd.study.many import NamedExperiment, try_many

NAMES = ("momkd", "momkd-norna")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, make_cohort: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    experiment = load_experiment(make_cohort(folder))
    compare(experiment, NAMES, folder / "comparison", workers=1)
    return folder


@pytest.fixture
def experiment(home: Path) -> Experiment:
    return load_experiment(home / "experiment.yaml")


def test_every_name_of_the_experiment_file_is_a_method_and_the_other_way_round() -> None:
    from typing import get_args

    from momkd.experiment.model import MethodName

    assert set(METHODS) <= set(get_args(MethodName))
    assert method_names()[:2] == NAMES


def test_a_run_of_a_comparison_is_the_run_that_crossval_makes(home: Path, experiment: Experiment) -> None:
    for name in NAMES:
        alone = home / f"alone-{name}"
        crossval(experiment_of(name, experiment), alone, workers=1)
        for file in ("predictions.csv", "splits.csv"):
            assert (home / "comparison" / name / file).read_bytes() == (alone / file).read_bytes()
    splits = [(home / "comparison" / name / "splits.csv").read_bytes() for name in NAMES]
    assert splits[0] == splits[1]


def test_the_table_says_what_the_runs_say(home: Path) -> None:
    table = pd.read_csv(home / "comparison" / "table.csv")
    assert list(table["method"]) == list(NAMES)
    assert list(table["omics"]) == ["training", "none"]
    values = []
    for name, row in zip(NAMES, table.itertuples(), strict=True):
        auc = json.loads((home / "comparison" / name / "metrics.json").read_text())["test"]["auc"]
        assert row.auc_mean == pytest.approx(auc["mean"])
        assert row.auc_sd == pytest.approx(auc["sd"])
        assert row.auc_ci_low <= row.auc_mean <= row.auc_ci_high
        values.append(np.array(auc["values"]))
    assert np.isnan(table["difference"][0])
    assert table["difference"][1] == pytest.approx(float((values[1] - values[0]).mean()))
    assert (table[["parameters", "seconds_per_epoch", "inference_ms"]] > 0).all(axis=None)


def test_a_rerun_trains_nothing_and_changes_no_result(home: Path, experiment: Experiment) -> None:
    seen: list[Event] = []
    before = (home / "comparison" / "table.csv").read_bytes()
    compare(experiment, NAMES, home / "comparison", workers=1, watch=seen.append)
    assert {event.kind for event in seen} == {"skipped"}
    assert len(seen) == 6
    assert (home / "comparison" / "table.csv").read_bytes() == before


def test_a_lost_fold_is_made_again_with_the_same_bytes_by_two_workers(home: Path, experiment: Experiment) -> None:
    out = home / "comparison"
    before = {name: (out / name / "predictions.csv").read_bytes() for name in NAMES}
    shutil.rmtree(out / "momkd" / "fold-0-1")
    shutil.rmtree(out / "momkd-norna" / "fold-0-2")
    seen: list[Event] = []
    compare(experiment, NAMES, out, workers=2, watch=seen.append)
    assert {(event.run, event.fold) for event in seen if event.kind == "done"} == {("momkd", 1), ("momkd-norna", 2)}
    assert {name: (out / name / "predictions.csv").read_bytes() for name in NAMES} == before


def test_a_fold_that_fails_does_not_stop_the_others(
    home: Path, experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from momkd.study import many

    real = many.run_one_fold

    def broken(context, fold, watch):  # type: ignore[no-untyped-def]
        if fold.fold == 1 and context.experiment.omics is None:
            raise TrainingError("epoch 2: the loss became nan")
        real(context, fold, watch)

    monkeypatch.setattr(many, "run_one_fold", broken)
    with pytest.raises(RunError, match=r"1 of 2 runs(.|\n)*momkd-norna: fold-0-1: epoch 2"):
        compare(experiment, NAMES, tmp_path / "out", workers=1)
    assert (tmp_path / "out" / "momkd" / "metrics.json").is_file()
    assert not (tmp_path / "out" / "momkd-norna" / "metrics.json").exists()
    monkeypatch.undo()
    compare(experiment, NAMES, tmp_path / "out", workers=1)
    assert (tmp_path / "out" / "table.csv").is_file()


def test_other_settings_are_refused(home: Path, experiment: Experiment) -> None:
    other = load_experiment(home / "experiment.yaml", ["train.lr=0.1"])
    with pytest.raises(RunError, match="other settings"):
        try_many([NamedExperiment("momkd", other)], home / "comparison", workers=1)


def test_names_are_checked_all_at_once() -> None:
    with pytest.raises(ExperimentError, match=r"no method 'momdk'; did you mean momkd\?\nno method 'x'; known: momkd,"):
        choose_methods(["momdk", "momkd", "x"], omics=True)
    with pytest.raises(ExperimentError, match="method momkd needs omics"):
        choose_methods(["momkd"], omics=False)
    assert choose_methods(["momkd", "momkd"], omics=True) == ("momkd",)
    everything = choose_methods(["momkd-norna", "all"], omics=True)
    assert everything[0] == "momkd-norna"
    assert set(everything) == set(method_names())
    assert "momkd" not in choose_methods(["all"], omics=False)
