"""The gene report."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from momkd.errors import OmicsError
from momkd.experiment import OmicsSettings
from momkd.omics.genes import gene_report

SETTINGS = OmicsSettings.model_validate({"table": "x", "select": {"method": "variance", "n": 8}})
N = 90


def cohort(signal: float = 2.0, n_genes: int = 30) -> tuple[pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(0)
    labels = (np.arange(N) % 3 == 0).astype(np.int64)
    values = rng.normal(size=(N, n_genes)).astype(np.float32)
    values[:, :3] += signal * labels[:, None]
    patients = [f"P{i:02d}" for i in range(N)]
    frame = pd.DataFrame(values, index=patients, columns=[f"G{j:03d}" for j in range(n_genes)])
    return frame, pd.Series(labels, index=patients)


def test_signal_is_found_and_reported_by_fold() -> None:
    X, y = cohort()
    report = gene_report(X, y, None, SETTINGS, 0, 3)
    assert report.ranking.columns.tolist() == ["rank", "gene", "score", "share"]
    assert len(report.ranking) == 8
    assert report.folds[["repeat", "fold", "train", "test", "positive", "genes"]].to_numpy().tolist() == [
        [0, 0, 60, 30, 10, 8],
        [0, 1, 60, 30, 10, 8],
        [0, 2, 60, 30, 10, 8],
    ]
    assert report.auc_mean is not None
    assert report.auc_mean > 0.9
    assert report.auc_sd is not None
    top = report.stability.iloc[0]
    assert top["share"] == 1.0
    assert report.stability["folds"].sum() == 3 * 8
    assert report.stability["share"].is_monotonic_decreasing


def test_selection_inside_the_fold_knows_nothing_of_noise() -> None:
    """Genes chosen with the test labels would reach an AUC near 1 here; chosen inside the fold they know nothing."""
    rng = np.random.default_rng(1)
    X, y = cohort(0.0, 600)
    noise = pd.DataFrame(rng.normal(size=X.shape), index=X.index, columns=X.columns)
    settings = OmicsSettings.model_validate({"table": "x", "select": {"method": "xgboost", "n": 20}})
    report = gene_report(noise, y, None, settings, 0, 3)
    assert report.auc_mean is not None
    assert 0.3 < report.auc_mean < 0.7


def test_order_of_patients_and_genes_changes_nothing() -> None:
    X, y = cohort()
    rng = np.random.default_rng(2)
    shuffled = X.iloc[rng.permutation(N), rng.permutation(X.shape[1])]
    groups = pd.Series([f"s{i % 9}" for i in range(N)], index=X.index)
    first = gene_report(X, y, groups, SETTINGS, 5, 3)
    second = gene_report(shuffled, y.iloc[::-1], groups.iloc[::-1], SETTINGS, 5, 3)
    for name in ("ranking", "folds", "stability"):
        pd.testing.assert_frame_equal(getattr(first, name), getattr(second, name))


def test_patients_without_rna_or_label_are_counted() -> None:
    X, y = cohort()
    report = gene_report(X.drop(index="P00"), y.drop("P01"), None, SETTINGS, 0, 3)
    assert any("1 patients with RNA have no label and were left out: P01" in note for note in report.notes)
    assert any("1 patients with a label have no RNA and were left out: P00" in note for note in report.notes)


def test_given_splits_are_used_as_they_are() -> None:
    X, y = cohort()
    rows = [
        (0, fold, "test" if i % 2 == fold else "val" if i % 10 == 1 - fold else "train", f"P{i:02d}")
        for fold in (0, 1)
        for i in range(N)
    ]
    splits = pd.DataFrame(rows, columns=["repeat", "fold", "role", "patient_id"])
    report = gene_report(X, y, None, SETTINGS, 0, splits)
    assert report.folds[["fold", "train", "test"]].to_numpy().tolist() == [[0, 36, 45], [1, 36, 45]]
    one_class = splits[(splits["role"] != "test") | splits["patient_id"].map(y.get).eq(0)]
    undefined = gene_report(X, y, None, SETTINGS, 0, one_class)
    assert undefined.auc_mean is None
    assert any("2 of 2 test folds hold one class only" in note for note in undefined.notes)
    with pytest.raises(OmicsError, match="fold 0 has 36 train and 0 test patients"):
        gene_report(X, y, None, SETTINGS, 0, splits[splits["role"] != "test"])


def test_three_classes() -> None:
    X, _ = cohort()
    y = pd.Series(np.digitize(X["G005"], [-0.4, 0.4]), index=X.index)
    settings = OmicsSettings.model_validate({"table": "x", "select": {"method": "list", "genes": ["G005"]}})
    report = gene_report(X, y, None, settings, 0, 3)
    assert report.auc_mean is not None
    assert report.auc_mean > 0.8


def test_too_few_patients_or_groups_are_refused() -> None:
    X, y = cohort()
    with pytest.raises(OmicsError, match="40 folds and 30 patients with RNA in the smallest class"):
        gene_report(X, y, None, SETTINGS, 0, 40)
    with pytest.raises(OmicsError, match="found 2 groups; expected at least 3"):
        gene_report(X, y, pd.Series([f"s{i % 2}" for i in range(N)], index=X.index), SETTINGS, 0, 3)
    with pytest.raises(OmicsError, match="found 1 class among 90 patients"):
        gene_report(X, y * 0, None, SETTINGS, 0, 3)
