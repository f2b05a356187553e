"""The shipped experiment files run on a part of the real cohort."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from momkd.experiment import load_experiment
from momkd.study.crossval import crossval

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("tcga_brca_*.yaml"))


RECIPES = sorted((Path(__file__).resolve().parents[1] / "recipes" / "tcga_brca").glob("*.yaml"))


def test_there_are_six() -> None:
    assert len(EXAMPLES) == 6


def test_the_recipe_is_the_published_protocol() -> None:
    assert [path.stem for path in RECIPES] == ["external_her2", "her2", "odx", "pr"]
    for path in RECIPES:
        experiment = load_experiment(path)
        assert experiment.graph.k == 8
        if path.stem == "external_her2":
            assert experiment.omics is None
            continue
        assert experiment.task.label == path.stem.upper()
        assert (experiment.cv.folds, experiment.cohort.group) == (5, "site")
        assert experiment.omics is not None
        (omics,) = experiment.omics.values()
        assert (omics.transform, omics.scale) == ("log2p1", "standard")
        assert (omics.select.method, omics.select.n) == ("xgboost", 768)
        model = experiment.model
        assert (model.encoder.dim, model.memory.dim, model.memory.codes) == (512, 64, 16)
        assert (experiment.train.batch_size, model.teacher.weight) == (1, 0.0)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_runs_on_a_part_of_the_real_cohort(shared: Path, tmp_path: Path, path: Path) -> None:
    label = load_experiment(path).task.label
    cohort = pd.read_csv(shared / "data" / "tcga_brca" / "cohort.csv", dtype=str).dropna(subset=[label])
    part = cohort.sample(n=110, random_state=0)
    part.to_csv(tmp_path / "part.csv", index=False)
    overrides = [
        f"cohort.table={tmp_path / 'part.csv'}",
        "cv.folds=2",
        "train.epochs=1",
        "omics.select.method=variance",
        "omics.select.n=32",
        "model.encoder.dim=16",
    ]
    result = crossval(load_experiment(path, overrides), tmp_path / "run", workers=1)
    predictions = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert sorted(predictions.query("role == 'test'")["patient_id"]) == sorted(part["patient_id"])
    assert 0.0 <= result.metrics["test"]["auc"]["mean"] <= 1.0
