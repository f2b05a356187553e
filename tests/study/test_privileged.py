"""Omics of test patients reach no method that is given omics in training: not one byte depends on them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from momkd.experiment import load_experiment
from momkd.models.registry import METHODS
from momkd.study.crossval import crossval
from momkd.study.predict import predict

CohortMaker = Callable[..., Path]
TAUGHT = sorted(name for name, entry in METHODS.items() if entry.omics == "train")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, make_cohort: CohortMaker) -> Path:
    """A cohort with a split of one fold: sites 0 to 4 teach, 5 and 6 validate, 7 and 8 are tested."""
    folder = tmp_path_factory.mktemp("home")
    make_cohort(folder, patients=27)
    roles = ["train"] * 5 + ["val"] * 2 + ["test"] * 2
    rows = [[0, 0, roles[i % 9], f"P{i:03d}"] for i in range(27)]
    pd.DataFrame(rows, columns=["repeat", "fold", "role", "patient_id"]).to_csv(folder / "splits.csv", index=False)
    return folder


def run_in(home: Path, run: Path, method: str) -> Path:
    """Three epochs; returns the fold's folder."""
    sizes = ["model.baseline.dim=8", "model.baseline.attention=4"]
    train = ["train.members=1", "train.epochs=3", f"cv.splits={home / 'splits.csv'}"]
    # Programme memory and soft labels are what the method momkd has of its own to leak with.
    own = ["model.programmes.dim=3", "model.teacher.weight=0.5"]
    crossval(load_experiment(home / "experiment.yaml", [f"model.name={method}", *sizes, *train, *own]), run, workers=1)
    return run / "fold-0-0"


def changed_copy(home: Path, folder: Path, patients: list[str]) -> Path:
    """A copy of the cohort in which of every three of these patients one has RNA of zero, one noise, and one none."""
    shutil.copytree(home, folder)
    rna, rng = pd.read_csv(folder / "rna.csv", index_col=0), np.random.default_rng(7)
    rna.loc[patients[::3]] = 0.0
    rna.loc[patients[1::3]] = 50.0 * rng.normal(size=(len(patients[1::3]), rna.shape[1]))
    rna.drop(index=patients[2::3]).to_csv(folder / "rna.csv")
    return folder


def left_by(fold: Path) -> dict[str, bytes]:
    names = ["student/student.safetensors", "student/student.json", "predictions.csv", "slides.csv", "genes.csv"]
    return {name: (fold / name).read_bytes() for name in names}


@pytest.mark.parametrize("method", TAUGHT)
def test_omics_of_patients_who_do_not_teach_change_no_byte(method: str, home: Path, tmp_path: Path) -> None:
    """Validation and test patients: their omics zeroed, garbled or absent, or the whole table gone at test."""
    fold = run_in(home, tmp_path / "run", method)
    roles = pd.read_csv(fold / "predictions.csv")
    others = sorted(set(roles["patient_id"]))
    assert set(roles["role"]) == {"val", "test"}
    expected = left_by(fold)
    bare = changed_copy(home, tmp_path / "changed", others)
    assert left_by(run_in(bare, tmp_path / "run-changed", method)) == expected

    slides = pd.read_csv(fold / "slides.csv").query("role == 'test'").set_index("slide_id")["prob_positive"]
    (bare / "rna.csv").unlink()
    alone, _ = predict(fold / "student", [bare / "features"])
    alone = alone.set_index("slide_id")["prob_positive"].loc[slides.index]
    np.testing.assert_array_equal(alone.to_numpy(), slides.to_numpy())


def test_omics_of_patients_who_teach_do_change_the_student(home: Path, tmp_path: Path) -> None:
    """Or the test above could not fail."""
    fold = run_in(home, tmp_path / "run", "soft-labels-linear")
    teaching = sorted(set(pd.read_csv(home / "cohort.csv")["patient_id"]) - set(_patients(fold)))
    changed = changed_copy(home, tmp_path / "changed", teaching)
    other = run_in(changed, tmp_path / "run-changed", "soft-labels-linear")
    assert left_by(other)["student/student.safetensors"] != left_by(fold)["student/student.safetensors"]


def _patients(fold: Path) -> list[str]:
    return pd.read_csv(fold / "predictions.csv")["patient_id"].tolist()
