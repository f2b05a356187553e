"""Many runs in one pool: ordinary runs, one cohort, one division of the patients, failures that stay where they are."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from momkd.errors import RunError, TrainingError
from momkd.experiment import load_experiment
from momkd.study import many
from momkd.study.crossval import crossval
from momkd.study.events import Event
from momkd.study.many import NamedExperiment, try_many

CODES = (2, 3)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, make_cohort: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("many")
    make_cohort(folder)
    try_many(runs(folder), folder / "out", workers=1, same_splits=True)
    return folder


def runs(home: Path, *overrides: str) -> list[NamedExperiment]:
    return [
        NamedExperiment(
            f"codes={codes}",
            load_experiment(home / "experiment.yaml", [f"model.memory.codes={codes}", "train.members=1", *overrides]),
        )
        for codes in CODES
    ]


def contents(out: Path, *names: str) -> list[bytes]:
    return [(out / f"codes={codes}" / name).read_bytes() for codes in CODES for name in names]


def test_each_run_is_the_run_that_crossval_makes(home: Path, tmp_path: Path) -> None:
    for run in runs(home):
        crossval(run.experiment, tmp_path / run.name, workers=1)
    names = ("predictions.csv", "splits.csv", "experiment.yaml")
    assert contents(home / "out", *names) == contents(tmp_path, *names)


def test_one_cohort_is_loaded_once_and_another_one_too(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int] = []
    real = many.load_data

    def counted(experiment, *, cache_bytes):  # type: ignore[no-untyped-def]
        loaded.append(cache_bytes)
        return real(experiment, cache_bytes=cache_bytes)

    monkeypatch.setattr(many, "load_data", counted)
    try_many(runs(home), home / "out", workers=1, same_splits=True)
    assert len(loaded) == 1
    without = NamedExperiment("without", load_experiment(home / "experiment.yaml", ["omics=null", "train.epochs=1"]))
    found = try_many([*runs(home), without], home / "out", workers=1, same_splits=True)
    assert loaded == [loaded[0], loaded[0] // 2, loaded[0] // 2]
    assert set(found.done) == {"codes=2", "codes=3", "without"}
    assert (home / "out" / "without" / "splits.csv").read_bytes() == (home / "out" / "splits.csv").read_bytes()


def test_folds_of_all_runs_share_two_workers_and_give_the_same_bytes(home: Path, tmp_path: Path) -> None:
    seen: list[Event] = []
    try_many(runs(home), tmp_path, workers=2, watch=seen.append, same_splits=True)
    done = [(event.run, event.fold) for event in seen if event.kind == "done"]
    assert sorted(done) == [(f"codes={codes}", fold) for codes in CODES for fold in range(3)]
    names = ("predictions.csv", "slides.csv", "splits.csv", "fold-0-1/student/student.safetensors")
    assert contents(tmp_path, *names) == contents(home / "out", *names)


def test_another_division_of_the_patients_is_refused(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(home / "out", out)
    first = runs(home)[0]
    other = NamedExperiment("codes=3", runs(home, "cv.seed=1")[1].experiment)
    shutil.rmtree(out / "codes=3")
    crossval(other.experiment, out / "codes=3", workers=1)
    with pytest.raises(RunError, match="codes=3/splits.csv: divides the patients otherwise than"):
        try_many([first, other], out, workers=1, same_splits=True)
    try_many([first, other], out, workers=1)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TrainingError("epoch 2: the loss became nan"), r"codes=3: fold-0-1: epoch 2: the loss became nan$"),
        (ZeroDivisionError("a defect"), r"codes=3: fold-0-1: ZeroDivisionError\('a defect'\) \(where: log.txt\)$"),
    ],
)
def test_whatever_fails_costs_only_its_own_fold(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    real = many.run_one_fold

    def broken(context, fold, watch):  # type: ignore[no-untyped-def]
        if context.run.path.name == "codes=3" and fold.fold == 1:
            raise error
        real(context, fold, watch)

    monkeypatch.setattr(many, "run_one_fold", broken)
    seen: list[Event] = []
    with pytest.raises(RunError, match="1 of 2 runs(.|\n)*" + words):
        try_many(runs(home), tmp_path, workers=1, watch=seen.append).raise_failures()
    assert [event.kind for event in seen].count("done") == 5
    assert (tmp_path / "codes=2" / "metrics.json").is_file()
    assert ("Traceback" in (tmp_path / "log.txt").read_text()) == isinstance(error, ZeroDivisionError)
    monkeypatch.undo()
    seen.clear()
    assert set(try_many(runs(home), tmp_path, workers=1, watch=seen.append).done) == {"codes=2", "codes=3"}
    assert [(event.run, event.fold) for event in seen if event.kind == "done"] == [("codes=3", 1)]
