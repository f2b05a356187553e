"""The cohort table: ids as feature files are called, labels, survival, a user's own columns."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from tests.gdc.conftest import RECEPTOR_ROWS, add_clinical, add_slide, biotab
from tests.gdc.server import FakeGdc

from momkd.cohort.table import read_cohort
from momkd.errors import GdcError
from momkd.experiment import load_experiment
from momkd.gdc.ask import make_plan
from momkd.gdc.client import Client
from momkd.gdc.cohort import survival, write_cohort
from momkd.gdc.download import download
from momkd.gdc.expression import merge_expression
from momkd.gdc.plan import Plan, make_settings, write_plan
from momkd.gdc.records import Case


@pytest.fixture
def folder(planned: tuple[Path, Plan], client: Client) -> Path:
    download(planned[0], client, kinds=["clinical", "rna"])
    return planned[0]


def test_one_row_a_slide(folder: Path) -> None:
    report = write_cohort(folder)
    table = pd.read_csv(report.table, keep_default_na=False)
    months = f"{300 / 365.25 * 12:.4f}"
    rows = [
        ("TCGA-A1-AAAA", "TCGA-A1-AAAA-01Z-00-DX1.00000001", "A1", "positive", "negative", "positive"),
        ("TCGA-A1-AAAA", "TCGA-A1-AAAA-01Z-00-DX2.00000002", "A1", "positive", "negative", "positive"),
        ("TCGA-A1-BBBB", "TCGA-A1-BBBB-01Z-00-DX1.00000003", "A1", "negative", "negative", "negative"),
        ("TCGA-B2-CCCC", "TCGA-B2-CCCC-01Z-00-DX1.00000004", "B2", "", "", ""),
        ("TCGA-B2-DDDD", "TCGA-B2-DDDD-01Z-00-DX1.00000005", "B2", "positive", "positive", "positive"),
    ]
    columns = ["patient_id", "slide_id", "site", "HER2", "PR", "ER", "survival_months", "survival_status"]
    expected = pd.DataFrame([(*row, float(months), "alive") for row in rows], columns=columns)
    pd.testing.assert_frame_equal(table, expected)
    assert (report.slides, report.patients, report.columns) == (5, 4, tuple(columns))
    receptors = pd.read_csv(folder / "receptors.csv", keep_default_na=False).set_index("patient_id")
    assert receptors.loc["TCGA-A1-AAAA", ["her2_status_by_ihc", "her2_fish_status", "HER2"]].tolist() == [
        "Equivocal",
        "Positive",
        "positive",
    ]


def test_the_experiment_file_loads_and_finds_the_features(folder: Path) -> None:
    merge_expression(folder)
    report = write_cohort(folder)
    assert report.new_experiment
    experiment = load_experiment(folder / "experiment.yaml")
    assert experiment.omics is not None
    (folder / "features").mkdir()
    for slide in pd.read_csv(report.table)["slide_id"]:
        (folder / "features" / f"{slide}.h5").touch()
    cohort, problems = read_cohort(experiment)
    assert [problem for problem in problems if problem.severity == "error"] == []
    assert cohort.patients["group"].tolist() == ["A1", "A1", "B2"]
    assert cohort.patients["label"].tolist() == [1, 0, 1]


def test_an_experiment_of_the_users_is_left_alone(folder: Path) -> None:
    (folder / "experiment.yaml").write_text("mine")
    assert not write_cohort(folder).new_experiment
    assert (folder / "experiment.yaml").read_text() == "mine"


def test_rna_that_is_missing_or_of_another_plan_is_noted(folder: Path, gdc: FakeGdc, client: Client) -> None:
    def words() -> str:
        return "\n".join(map(str, write_cohort(folder).notes))

    assert "rna.parquet: not there yet → momkd gdc rna" in words()
    merge_expression(folder)
    assert "rna.parquet" not in words()
    write_plan(make_plan(client, make_settings("TCGA-BRCA", limit=1))[0], folder)
    assert "made of other files than the plan's → momkd gdc rna" in words()


def test_the_clinical_supplement_must_be_there(planned: tuple[Path, Plan]) -> None:
    with pytest.raises(
        GdcError, match=r"1 of 1 files .* are missing or old: .*brca.txt → momkd gdc download .* --what clin"
    ):
        write_cohort(planned[0])


def test_a_supplement_that_was_brought_up_to_date_comes_anew(folder: Path, gdc: FakeGdc, client: Client) -> None:
    """It has the same name and the same size."""
    rows = {**RECEPTOR_ROWS, "TCGA-B2-CCCC": ("Indeterminate", "[Not Evaluated]", "Equivocal", "Positive_")}
    assert len(biotab(rows)) == len(biotab())
    gdc.files = [one for one in gdc.files if "clinical_patient" not in one["file_name"]]
    add_clinical(gdc, 43, "nationwidechildrens.org_clinical_patient_brca.txt", biotab(rows).replace(b"_\n", b"\n\n"))
    write_plan(make_plan(client, make_settings("TCGA-BRCA"))[0], folder)
    with pytest.raises(GdcError, match="missing or old"):
        write_cohort(folder)
    assert len(download(folder, client, kinds=["clinical"]).done) == 1
    assert pd.read_csv(write_cohort(folder).table)["HER2"].tolist()[3] == "positive"


def test_a_project_without_receptors_is_about_survival(gdc: FakeGdc, client: Client, tmp_path: Path) -> None:
    gdc.files = [one for one in gdc.files if one["data_type"] != "Clinical Supplement"]
    write_plan(make_plan(client, make_settings("TCGA-BRCA"))[0], tmp_path)
    report = write_cohort(tmp_path)
    assert report.columns == ("patient_id", "slide_id", "site", "survival_months", "survival_status")
    experiment = load_experiment(tmp_path / "experiment.yaml")
    assert (experiment.task.type, experiment.task.event) == ("survival", "survival_status")
    assert not (tmp_path / "receptors.csv").exists()


def test_labels_of_the_users_are_joined_by_patient(folder: Path, tmp_path: Path) -> None:
    odx = tmp_path / "odx.csv"
    odx.write_text('ODX,patient_id,"score, raw"\nH,TCGA-A1-AAAA-01A,30\n\nL,tcga-b2-dddd, 5 \nL,TCGA-ZZ-0000,1\n')
    grade = tmp_path / "grade.tsv"
    grade.write_text("patient_id\tgrade\nTCGA-A1-AAAA\t3\nTCGA-A1-AAAA-01Z\t3\n")
    report = write_cohort(folder, labels=[odx, grade])
    table = pd.read_csv(report.table, dtype=str, keep_default_na=False).set_index("slide_id")
    assert table["ODX"].tolist() == ["H", "H", "", "", "L"]
    assert table["score, raw"].tolist() == ["30", "30", "", "", "5"]
    assert table["grade"].tolist() == ["3", "3", "", "", ""]
    words = [str(note) for note in report.notes]
    assert f"{odx}: 2 patients of the cohort are not in it: TCGA-A1-BBBB, TCGA-B2-CCCC" in words
    assert f"{odx}: 1 patients in it are not in the cohort: TCGA-ZZ-0000" in words


BROKEN = {
    "no column": ("case,ODX\nTCGA-A1-AAAA,H\n", "no column 'patient_id'; it has case, ODX"),
    "clash": ("patient_id,HER2\nTCGA-A1-AAAA,1\n", "the cohort table has HER2 already"),
    "twice": ("patient_id,ODX,ODX\nTCGA-A1-AAAA,1,2\n", "columns without a name of their own: ['ODX']"),
    "no barcode": ("patient_id,ODX\nP1,1\n", "line 2: patient_id 'P1'; expected a TCGA barcode"),
    "two rows": ("patient_id,ODX\nTCGA-A1-AAAA,1\nTCGA-A1-AAAA,2\n", "line 3: another row of TCGA-A1-AAAA"),
    "ragged": ("patient_id,ODX\nTCGA-A1-AAAA\n", "line 2: 1 cells; expected 2"),
    "empty": ("", "an empty table"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_tables_of_labels_that_cannot_be_used(name: str, folder: Path, tmp_path: Path) -> None:
    text, words = BROKEN[name]
    file = tmp_path / "labels.csv"
    file.write_text(text)
    with pytest.raises(GdcError) as caught:
        write_cohort(folder, labels=[file])
    assert words in str(caught.value)
    assert str(file) in str(caught.value)
    assert not (folder / "cohort.csv").exists()


def test_two_tables_with_one_column_clash(folder: Path, tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("patient_id,ODX\nTCGA-A1-AAAA,1\n")
    with pytest.raises(GdcError, match="the cohort table has ODX already"):
        write_cohort(folder, labels=[tmp_path / "a.csv", tmp_path / "b.csv"])


@pytest.mark.parametrize(
    ("status", "death", "seen", "expected"),
    [
        ("Dead", 365.25, 100.0, ("12.0000", "dead")),
        ("Alive", None, 730.5, ("24.0000", "alive")),
        ("Dead", None, 100.0, ("", "")),
        ("Alive", None, None, ("", "")),
        ("Alive", None, -7.0, ("", "")),
        ("Not Reported", 3.0, 3.0, ("", "")),
    ],
)
def test_survival(status: str, death: float | None, seen: float | None, expected: tuple[str, str]) -> None:
    case = Case(
        patient_id="TCGA-A1-AAAA",
        case_id="x",
        site="A1",
        sample_type="01",
        vital_status=status,
        days_to_death=death,
        days_to_last_follow_up=seen,
    )
    assert survival(case) == expected


def test_slides_of_several_sites_keep_their_site(gdc: FakeGdc, client: Client, tmp_path: Path) -> None:
    add_slide(gdc, 12, "TCGA-B2-DDDD-01Z-00-DX2", b"x")
    write_plan(make_plan(client, make_settings("TCGA-BRCA"))[0], tmp_path)
    download(tmp_path, client, kinds=["clinical"])
    table = pd.read_csv(write_cohort(tmp_path).table)
    assert table.groupby("patient_id")["site"].nunique().tolist() == [1] * 4
    assert table["slide_id"].is_unique
