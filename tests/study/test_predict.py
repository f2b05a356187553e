"""What `momkd predict` refuses: models that need omics, and tables that do not say whose a slide is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from momkd.cli.app import run as momkd
from momkd.errors import RunError, StudentError
from momkd.experiment import load_experiment
from momkd.study.crossval import crossval
from momkd.study.external import evaluate
from momkd.study.predict import predict

CohortMaker = Callable[..., Path]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, make_cohort: CohortMaker) -> Path:
    """A cohort with two runs: ``slides`` predicts from histology, ``rna`` from RNA."""
    folder = tmp_path_factory.mktemp("predict")
    file = make_cohort(folder, patients=24)
    for name, method in (("slides", "linear"), ("rna", "rna-linear")):
        overrides = [f"model.name={method}", "train.members=1", "cv.folds=2", "cohort.group=null"]
        crossval(load_experiment(file, overrides), folder / name, workers=1)
    return folder


def test_a_method_that_needs_omics_cannot_predict(home: Path, tmp_path: Path) -> None:
    words = r"rna: its folds hold no student, because rna-linear \(model.name\) is shown the omics"
    with pytest.raises(StudentError, match=words):
        predict(home / "rna", [home / "features"])
    with pytest.raises(StudentError, match=words):
        evaluate(home / "rna", load_experiment(home / "experiment.yaml"), tmp_path / "out", allow_overlap=True)


def test_an_unfinished_run_does_not_vote(home: Path, tmp_path: Path) -> None:
    """Nor is it taken for one of the methods above."""
    for name in ("experiment.yaml", "splits.csv"):
        (tmp_path / name).write_bytes((home / "slides" / name).read_bytes())
    with pytest.raises(RunError, match=r"unfinished, 2 of 2 folds are missing \(fold-0-0, fold-0-1\)"):
        predict(tmp_path, [home / "features"])


def test_a_slide_belongs_to_one_patient(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.read_csv(home / "cohort.csv", dtype=str)
    table = pd.concat([table, table.iloc[:3]])  # a repeated row says nothing new
    table.to_csv(tmp_path / "good.csv", index=False)
    other = table.iloc[[0]].assign(patient_id="P999")
    pd.concat([table.assign(patient_id=table["patient_id"].replace("P003", " ")), other]).to_csv(
        tmp_path / "bad.csv", index=False
    )

    def run(name: str) -> int:
        tables = ["--table", str(tmp_path / name), "--out", str(tmp_path / "scores.csv")]
        return momkd(["predict", str(home / "slides"), str(home / "features"), *tables])

    assert run("bad.csv") == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "1 slides given to several patients: P000-S0; expected one patient a slide" in said
    assert "1 slides without a patient_id: P003-S0" in said
    assert not (tmp_path / "scores.csv").exists()
    assert run("good.csv") == 0
    assert len(pd.read_csv(tmp_path / "scores.patients.csv")) == 24
