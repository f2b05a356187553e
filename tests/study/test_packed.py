"""A run on a packed store: float32 changes no byte, half precision next to nothing, a changed file is noticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from momkd.cli.app import run
from momkd.experiment import Experiment, load_experiment
from momkd.study.crossval import crossval

CohortMaker = Callable[..., Path]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, make_cohort: CohortMaker) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    crossval(load_experiment(make_cohort(folder)), folder / "run", workers=1)
    return folder


def load(home: Path, *overrides: str) -> Experiment:
    return load_experiment(home / "experiment.yaml", list(overrides))


def students(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("fold-*/student/student.*"))]


def test_a_float32_store_gives_the_same_bytes(home: Path, tmp_path: Path) -> None:
    experiment = load(home, f"features.store={tmp_path / 'store'}", "features.store_dtype=float32")
    crossval(experiment, tmp_path / "run", workers=1)
    for name in ("predictions.csv", "slides.csv", "splits.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (home / "run" / name).read_bytes()
    assert students(tmp_path / "run") == students(home / "run")


def test_the_verb_packs_for_a_run(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    assert run(["pack", str(home / "experiment.yaml")]) == 1
    assert "features.store" in capsys.readouterr().err
    arguments = ["pack", str(home / "experiment.yaml"), "--store", str(store)]
    assert run(arguments) == 0
    assert "44 slides packed" in capsys.readouterr().out
    assert run(arguments) == 0
    assert "44 already there" in capsys.readouterr().out
    assert run([*arguments, "--dtype", "bfloat16"]) == 1
    assert "a store of float16" in capsys.readouterr().err
    crossval(load(home, f"features.store={store}"), tmp_path / "run", workers=1)
    half, full = (pd.read_csv(folder / "run" / "predictions.csv") for folder in (tmp_path, home))
    np.testing.assert_allclose(half["prob_positive"], full["prob_positive"], atol=0.02)


def test_a_changed_file_changes_the_run(home: Path, tmp_path: Path, make_cohort: CohortMaker) -> None:
    file = make_cohort(tmp_path / "cohort")
    settings = [f"features.store={tmp_path / 'store'}", "features.store_dtype=float32"]
    crossval(load_experiment(file, settings), tmp_path / "before", workers=1)
    with h5py.File(tmp_path / "cohort" / "features" / "P004-S0.h5", "r+") as slide:
        slide["features"][...] = slide["features"][...] + 1.0
    crossval(load_experiment(file, settings), tmp_path / "after", workers=1)
    crossval(load_experiment(file), tmp_path / "plain", workers=1)
    after = (tmp_path / "after" / "predictions.csv").read_bytes()
    assert after == (tmp_path / "plain" / "predictions.csv").read_bytes()
    assert after != (tmp_path / "before" / "predictions.csv").read_bytes()


def test_patch_budgets_and_samples_in_a_run(home: Path, tmp_path: Path) -> None:
    options = ("train.max_patches_per_step=20", "train.max_patches_per_slide=8", "train.precision=bf16")
    crossval(load(home, *options), tmp_path / "one", workers=1)
    packed = (*options, f"features.store={tmp_path / 'store'}", "features.store_dtype=float32")
    crossval(load(home, *packed), tmp_path / "two", workers=1)
    first, second = ((tmp_path / name / "predictions.csv").read_bytes() for name in ("one", "two"))
    assert first == second
    assert first != (home / "run" / "predictions.csv").read_bytes()
