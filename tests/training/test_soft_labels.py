"""Soft labels of a fold: nothing of a patient's own site, neither outcome nor choice of genes, is in its score."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from momkd.cohort.dataset import load_data
from momkd.experiment import load_experiment
from momkd.training.prepare import Roles, fit_normalizer, prepare_bags, prepare_fit

CohortMaker = Callable[..., Path]
SELECT = ("none", "variance", "xgboost")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, make_cohort: CohortMaker) -> Path:
    """72 patients of nine sites; 400 genes that know nothing."""
    folder = tmp_path_factory.mktemp("soft")
    make_cohort(folder, patients=72)
    noise = np.random.default_rng(1).normal(size=(72, 400)).round(4)
    table = pd.DataFrame(noise, [f"P{i:03d}" for i in range(72)], [f"N{g:03d}" for g in range(400)])
    table.rename_axis("patient_id").to_csv(folder / "rna.csv")
    return folder


def soft_labels(folder: Path, select: str) -> pd.Series:
    """The soft label of each of 64 training patients, those of eight whole sites."""
    select_genes = f"omics.select={{method: {select}, n: 12}}"
    experiment = load_experiment(folder / "experiment.yaml", [select_genes, "model.teacher.folds=4"])
    data = load_data(experiment)
    sites = pd.read_csv(folder / "cohort.csv").drop_duplicates("patient_id").set_index("patient_id")["site"]
    train, val = (tuple(sites.index[(sites == "site-8") == last]) for last in (False, True))
    bags = prepare_bags(data, fit_normalizer(data, train, experiment), experiment)
    fold, _ = prepare_fit(data, Roles(train, val), experiment, bags, 0)
    assert fold.soft is not None
    return pd.Series({patient: float(fold.soft.values[row, 0]) for patient, row in fold.soft.row.items()})


@pytest.mark.parametrize("select", SELECT)
def test_a_patient_s_own_label_is_not_in_its_soft_label(home: Path, tmp_path: Path, select: str) -> None:
    """Two patients of a site exchange their labels: the scores of that site keep all but their common unit."""
    (tmp_path / "features").symlink_to(home / "features")
    for name in ("rna.csv", "experiment.yaml"):
        (tmp_path / name).write_bytes((home / name).read_bytes())
    table = pd.read_csv(home / "cohort.csv")
    names = table["patient_id"].isin(["P004", "P013"])
    assert set(table.loc[names, "site"]) == {"site-4"}
    table.loc[names, "status"] = table.loc[names, "status"].map({"negative": "positive", "positive": "negative"})
    table.to_csv(tmp_path / "cohort.csv", index=False)
    before, after = soft_labels(home, select), soft_labels(tmp_path, select)
    own = [f"P{i:03d}" for i in range(4, 72, 9)]
    others = before.index.difference(own)
    assert len(own) == 8

    def shape(scores: pd.Series, patients: list[str]) -> pd.Series:
        part = scores[patients]
        return (part - part.mean()) / part.std()

    np.testing.assert_allclose(shape(after, own), shape(before, own), atol=1e-4)
    assert np.abs(shape(after, list(others)) - shape(before, list(others))).max() > 0.01


@pytest.mark.parametrize("select", SELECT)
def test_noise_teaches_nothing(home: Path, select: str) -> None:
    """Genes chosen by all labels of a fold would know the labels of its own patients."""
    scores = soft_labels(home, select)
    label = pd.read_csv(home / "cohort.csv").drop_duplicates("patient_id").set_index("patient_id")["status"]
    known = (label.loc[scores.index] == "positive").to_numpy(dtype=float)
    assert abs(float(np.corrcoef(scores, known)[0, 1])) < 0.3
