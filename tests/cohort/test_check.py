"""``check``: everything that is wrong with a cohort, at once, in words that say what mends it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from momkd.cohort.check import CheckReport, check
from momkd.experiment import build_experiment

ROWS = [[f"P{i:02d}", f"P{i:02d}-1", ["negative", "positive"][i % 2]] for i in range(24)]


def said(report: CheckReport, severity: str = "error") -> list[str]:
    return [str(problem) for problem in report.problems if problem.severity == severity]


@pytest.fixture
def healthy(lab):  # type: ignore[no-untyped-def]
    lab.table(ROWS)
    lab.slides(ROWS)
    lab.rna([row[0] for row in ROWS])
    return lab


def test_a_healthy_cohort(healthy) -> None:
    report = check(healthy.experiment(omics={"table": "rna.csv"}, graph={"k": 3}), deep=True)
    assert report.ok
    assert said(report) == []
    assert report.counts == {
        "patients": "24 with HER2: negative 12, positive 12",
        "slides": "24",
        "patches a slide": "5 – 5 – 5 (least, median, most)",
        "patches": "120",
        "features": "4 wide",
        "layout": "momkd",
        "encoder": "toy",
        "patch size (level-0 px)": "256",
        "µm per level-0 px": "0.5",
        "RNA": "24 patients × 3 genes",
    }


def test_groups_are_counted(lab) -> None:
    lab.header.append("site")
    rows = [[*row, f"s{i % 8}"] for i, row in enumerate(ROWS)]
    rows[0][3], rows[1][3] = "s1", "s0"
    lab.table(rows)
    lab.slides(rows)
    report = check(lab.experiment(cohort={"group": "site"}, cv={"folds": 2}))
    assert report.counts["groups"] == "8 (site)"


@pytest.mark.parametrize(
    ("slide", "severity", "message"),
    [
        (
            {"width": 6},
            "error",
            "feature width is 4 in 23 slides, but 6 in 1 slide (P03-1); expected one feature width",
        ),
        ({"encoder": "uni"}, "error", "encoder is toy in 23 slides, but uni in 1 slide (P03-1); expected one encoder"),
        ({"encoder": None}, "note", "1 of 24 slides do not state their encoder: P03-1"),
        ({"mpp": 0.25}, "note", "patch size is 128 µm as a rule, but another in 1 slide: P03-1 64;"),
        ({"mpp": None}, "note", "1 of 24 slides do not state their µm per level-0 px: P03-1"),
        ({"patch_size_level0": 512.0}, "note", "patch size is 128 µm as a rule, but another in 1 slide: P03-1 256;"),
        (
            {"coords": None},
            "error",
            "1 slide with neither coordinates nor edges: P03-1; expected coordinates for graph.k",
        ),
        (
            {"edges": {2: np.array([[0], [1]]), 4: np.array([[0], [1]])}},
            "error",
            "1 slide with several graphs, none of them for graph.k 8: P03-1",
        ),
        (
            {"edges": {2: np.array([[0], [1]])}},
            "note",
            "1 slides bring edge_index_k2, which is used instead of graph.k 8",
        ),
    ],
)
def test_a_slide_unlike_the_others(healthy, slide: dict[str, Any], severity: str, message: str) -> None:
    healthy.slide("P03-1", **slide)
    report = check(healthy.experiment())
    assert report.ok == (severity == "note")
    assert message in "\n".join(said(report, severity))


def test_same_patch_in_um_at_two_scan_resolutions_is_fine(healthy) -> None:
    healthy.slide("P03-1", mpp=0.25, patch_size_level0=512.0)
    report = check(healthy.experiment())
    assert report.problems == ()
    assert report.counts["µm per level-0 px"] == "0.5 (23), 0.25 (1)"


def test_without_graph_no_coordinates_are_needed(healthy) -> None:
    for row in ROWS:
        healthy.slide(row[1], coords=None)
    assert not check(healthy.experiment()).ok
    assert check(healthy.experiment(graph={"k": 0})).ok


def test_slides_as_single_vectors_are_noted(healthy) -> None:
    for row in ROWS:
        healthy.slide(row[1], n=1, coords=None)
    report = check(healthy.experiment())
    assert report.ok
    assert "every slide is a single vector: graph.k 8 has no effect" in said(report, "note")[0]


def break_header(path: Path) -> None:
    path.write_bytes(b"not HDF5")


def break_values(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["features"][2, 1] = np.nan


@pytest.mark.parametrize(("damage", "deep_only"), [(break_header, False), (break_values, True)])
def test_damaged_feature_files(healthy, damage: Callable[[Path], None], deep_only: bool) -> None:
    damage(healthy.folder / "features" / "P05-1.h5")
    assert check(healthy.experiment()).ok == deep_only
    (message,) = said(check(healthy.experiment(), deep=True))
    assert "P05-1.h5" in message


def test_equal_contents_under_two_names(lab) -> None:
    rows = [*ROWS, ["P00", "P00-2", "negative"]]
    lab.table(rows)
    lab.slides(rows)
    lab.slide("P01-1", seed=7)
    lab.slide("P02-1", seed=7)
    lab.slide("P00-1", seed=8)
    lab.slide("P00-2", seed=8)
    report = check(lab.experiment(), deep=True)
    assert "P01-1, P02-1: the same contents in 2 feature files of patients P01, P02" in said(report)[0]
    assert "P00-1, P00-2: the same contents in 2 feature files of patient P00" in said(report, "note")[0]
    assert check(lab.experiment()).ok


def test_partial_rna_is_noted(healthy) -> None:
    healthy.rna([row[0] for row in ROWS[:20]])
    report = check(healthy.experiment(omics={"table": "rna.csv"}))
    assert report.ok
    assert any(
        "4 of 24 patients have no RNA: P20, P21, P22, P23; they train without the RNA losses" in text
        for text in said(report, "note")
    )


def test_too_little_rna(healthy) -> None:
    healthy.rna([row[0] for row in ROWS if row[2] == "positive"][:4])
    found = "\n".join(said(check(healthy.experiment(omics={"table": "rna.csv"}))))
    assert "only 4 patients have RNA; expected 10 or more" in found
    assert "no patient of class negative has RNA; expected RNA of both classes" in found
    assert "no training patient of class negative has RNA in repeat 0 fold 0" in found


def test_rna_of_other_patients_or_none(healthy) -> None:
    healthy.rna([f"Q{i}" for i in range(12)])
    (message,) = said(check(healthy.experiment(omics={"table": "rna.csv"})))
    assert "rna.csv: no patient of the cohort is found in the table" in message
    report = check(healthy.experiment(omics={"table": "none.csv"}))
    assert "none.csv: no such file" in said(report)[0]
    assert report.counts["RNA"] == "not readable"
    assert check(healthy.experiment()).counts["RNA"] == "none: the student is trained alone"


def test_tcga_barcodes_are_noted(lab) -> None:
    rows = [[f"TCGA-A1-{i:04d}", f"s{i}", ["negative", "positive"][i % 2]] for i in range(24)]
    lab.table(rows)
    lab.slides(rows)
    lab.rna([f"{row[0]}-01A" for row in rows])
    report = check(lab.experiment(omics={"table": "rna.csv"}))
    assert report.ok
    assert any("12" in text and "TCGA" in text for text in said(report, "note"))


def test_classes_too_rare_for_the_folds(healthy) -> None:
    (message,) = said(check(healthy.experiment(cv={"folds": 13})))
    assert "folds: too few for 13 folds" in message
    assert "negative has 12 patients; positive has 12 patients" in message


def test_the_users_own_folds_are_checked(healthy) -> None:
    lines = [f"0,0,{['train', 'val', 'test'][i // 8]},{row[0]}" for i, row in enumerate(ROWS[:23])]
    (healthy.folder / "s.csv").write_text("\n".join(["repeat,fold,role,patient_id", *lines, "0,0,train,P09"]))
    report = check(healthy.experiment(cv={"splits": "s.csv"}))
    assert "s.csv, repeat 0 fold 0: patients listed more than once: P09" in said(report)[0]
    assert "1 patients of the cohort are in no fold and left out: P23" in said(report, "note")[0]


def test_everything_at_once(healthy) -> None:
    healthy.table([*ROWS, ["P30", "../x", "positive"], ["P31", "P31-1", "unsure"], ["P32", "P32-1", "positive"]])
    healthy.slide("P01-1", width=9)
    break_header(healthy.folder / "features" / "P02-1.h5")
    healthy.rna(["P00", "P01"])
    found = "\n".join(said(check(healthy.experiment(omics={"table": "rna.csv"}, cv={"folds": 20}))))
    shown = ("lead out", "'unsure' (1)", "P32-1: no feature file", "width", "P02-1.h5", "only 2 patients", "20 folds")
    for text in shown:
        assert text in found


def test_an_unusable_table_is_one_problem(lab) -> None:
    report = check(lab.experiment())
    assert len(said(report)) == 1
    assert report.counts["patients"] == "0 with HER2: negative 0, positive 0"


def test_real_cohort(shared: Path) -> None:
    raw = {
        "cohort": {"table": "cohort.csv", "group": "site"},
        "features": {"dir": "features"},
        "graph": {"k": 3},
        "omics": {"table": "rna.csv.gz"},
        "task": {"label": "HER2", "classes": ["negative", "positive"]},
    }
    report = check(build_experiment(raw, base=shared / "data" / "tcga_brca"))
    assert said(report) == []
    assert report.counts["patients"] == "565 with HER2: negative 461, positive 104"
    assert report.counts["RNA"] == "551 patients × 1558 genes"
    assert any("14 of 565 patients have no RNA" in text for text in said(report, "note"))
