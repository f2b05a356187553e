"""Several omics tables and shares of them, as a check sees them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from momkd.cohort.check import CheckReport, check
from momkd.cohort.dataset import load_data
from momkd.errors import CohortError

ROWS = [[f"P{i:02d}", f"P{i:02d}-1", ["negative", "positive"][i % 2]] for i in range(40)]
PATIENTS = [row[0] for row in ROWS]
SEVERAL = {"rna": {"table": "rna.csv"}, "cnv": {"table": "cnv.csv"}}


def said(report: CheckReport, severity: str = "error") -> list[str]:
    return [str(problem) for problem in report.problems if problem.severity == severity]


@pytest.fixture
def healthy(lab):  # type: ignore[no-untyped-def]
    lab.table(ROWS)
    lab.slides(ROWS)
    lab.rna(PATIENTS[:36])
    cnv(lab, PATIENTS[6:])
    return lab


def cnv(lab, patients: Sequence[str]) -> None:  # type: ignore[no-untyped-def]
    """Genes × patients: every table has an orientation of its own."""
    values = np.random.default_rng(1).normal(size=(5, len(patients))).round(3)
    genes = pd.Index([f"C{g}" for g in range(5)], name="gene")
    pd.DataFrame(values, index=genes, columns=list(patients)).to_csv(lab.folder / "cnv.csv")


def test_counts_of_each_table_and_over_tables(healthy) -> None:
    report = check(healthy.experiment(omics=SEVERAL))
    assert report.ok
    assert report.counts["RNA"] == "36 patients × 3 genes"
    assert report.counts["cnv"] == "34 patients × 5 genes"
    assert report.counts["paired"] == "30 patients in all 2 tables, 10 in some, 0 in none"
    notes = "\n".join(said(report, "note"))
    assert "rna.csv: 4 of 40 patients have no RNA: P36, P37, P38, P39; they train without the RNA losses" in notes
    assert "cnv.csv: 6 of 40 patients have no cnv" in notes


def test_a_patient_in_one_table_only_is_in_the_data(healthy) -> None:
    data = load_data(healthy.experiment(omics=SEVERAL))
    assert list(data.omics) == ["cnv", "rna"]
    assert "P00" in data.omics["rna"].values.index
    assert "P00" not in data.omics["cnv"].values.index
    assert "P39" in data.omics["cnv"].values.index


def test_a_share_is_counted_nested_and_common_to_the_tables(healthy) -> None:
    half = {name: {**table, "share": 0.5} for name, table in SEVERAL.items()}
    report = check(healthy.experiment(omics=half))
    assert report.counts["RNA"] == "18 of 36 patients × 3 genes (share 0.5)"
    assert report.counts["cnv"] == "17 of 34 patients × 5 genes (share 0.5)"
    assert any("omics.cnv.share 0.5: cnv of 17 of 34 patients is used" in text for text in said(report, "note"))
    found = {
        share: load_data(healthy.experiment(omics={"table": "rna.csv", "share": share})) for share in (1.0, 0.5, 0.3)
    }
    inside = [set(found[share].omics["rna"].values.index) for share in (0.3, 0.5, 1.0)]
    assert inside[0] < inside[1] < inside[2]
    both = load_data(healthy.experiment(omics=half)).omics
    # Of the patients in both tables those kept in one and not in the other lie near the limit only.
    common = set(PATIENTS[6:36])
    apart = (set(both["rna"].values.index) ^ set(both["cnv"].values.index)) & common
    assert len(apart) <= 4
    other = load_data(healthy.experiment(omics={"table": "rna.csv", "share": 0.5}, cv={"seed": 1}))
    assert set(other.omics["rna"].values.index) != inside[1]


def test_problems_name_their_table(healthy) -> None:
    cnv(healthy, PATIENTS[:4])
    (few,) = said(check(healthy.experiment(omics=SEVERAL, cv={"folds": 2})))[:1]
    assert (
        "cnv.csv: only 4 patients have cnv; expected 10 or more → check the patient ids, or leave omics.cnv out" in few
    )
    missing = {**SEVERAL, "cnv": {"table": "none.csv"}}
    (message,) = said(check(healthy.experiment(omics=missing)))
    assert (
        "none.csv: no such file; expected an omics table → correct omics.cnv.table, or leave omics.cnv out" in message
    )
    report = check(healthy.experiment(omics=missing))
    assert (report.counts["RNA"], report.counts["cnv"]) == ("36 patients × 3 genes", "not readable")


def test_a_share_too_small_says_so(healthy) -> None:
    found = said(check(healthy.experiment(omics={"table": "rna.csv", "share": 0.1})))
    assert "only 4 patients have RNA; expected 10 or more → raise omics.share, check the patient ids" in found[0]


def test_a_fold_whose_training_patients_are_in_one_table_only(healthy) -> None:
    """Nobody of a fold's training part has CNV, though enough patients of the cohort have."""
    cnv(healthy, PATIENTS[:12])
    roles = [("test" if i < 12 else "val" if i < 20 else "train") for i in range(40)]
    lines = [f"0,0,{role},{patient}" for role, patient in zip(roles, PATIENTS, strict=True)]
    lines += [
        f"0,1,{'train' if role == 'test' else 'test' if role == 'train' else role},{patient}"
        for role, patient in zip(roles, PATIENTS, strict=True)
    ]
    (healthy.folder / "s.csv").write_text("\n".join(["repeat,fold,role,patient_id", *lines]))
    found = said(check(healthy.experiment(omics=SEVERAL, cv={"splits": "s.csv"})))
    assert len(found) == 2
    assert "cnv.csv: no training patient of class negative has cnv in repeat 0 fold 0" in found[0]
    healthy.rna(PATIENTS[:4])
    with pytest.raises(CohortError, match="rna.csv: only 4 patients have RNA"):
        load_data(healthy.experiment(omics=SEVERAL))
