"""What a plan takes, what it leaves and says so, and what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gdc.conftest import add_case, add_clinical, add_rna, add_slide
from tests.gdc.server import FakeGdc

from momkd.errors import GdcError
from momkd.gdc.ask import make_plan
from momkd.gdc.barcodes import read_barcode
from momkd.gdc.choose import choose
from momkd.gdc.client import Client
from momkd.gdc.plan import Plan, make_settings, read_plan, write_plan
from momkd.gdc.records import RemoteFile, check_name


def numbers(plan: Plan, kind: str) -> list[int]:
    return [int(file.file_id[:8], 16) for file in plan.used(kind)]  # type: ignore[arg-type]


def test_slides_of_primary_tumours_and_one_aliquot_a_patient(client: Client) -> None:
    plan, notes = make_plan(client, make_settings("TCGA-BRCA"))
    assert numbers(plan, "slides") == [1, 2, 3, 4, 5]
    assert numbers(plan, "rna") == [22, 24, 25]
    assert numbers(plan, "clinical") == [41]
    assert [case.patient_id for case in plan.cases] == [
        f"TCGA-{x}" for x in ("A1-AAAA", "A1-BBBB", "B2-CCCC", "B2-DDDD")
    ]
    assert [case.site for case in plan.cases] == ["A1", "A1", "B2", "B2"]
    assert plan.data_release == "Data Release 45.0 - December 04, 2025"
    aside = {int(file.file_id[:8], 16): file.why for file in plan.files if not file.use}
    assert aside == {
        6: "sample type 06",
        21: "another aliquot of the patient comes first",
        23: "sample type 11",
        26: "no diagnostic slide of the patient, or beyond the limit",
    }
    words = [str(note) for note in notes]
    assert "slides: 1 files set aside: sample type 06" in words
    assert "rna: 1 patients have none: TCGA-B2-CCCC" in words


def test_clinical_and_biospecimen_fields(gdc: FakeGdc, client: Client) -> None:
    case = next(one for one in gdc.cases if one["submitter_id"] == "TCGA-A1-BBBB")
    case["demographic"] = {"sex_at_birth": "male", "vital_status": "Dead", "days_to_death": 1000}
    case["diagnoses"] = [
        {"classification_of_tumor": "metastasis", "age_at_diagnosis": 1, "days_to_last_follow_up": 900},
        {"classification_of_tumor": "primary", "age_at_diagnosis": 3652.5, "ajcc_pathologic_stage": "Stage I"},
    ]
    case["follow_ups"] = [{"days_to_follow_up": 950}, {"days_to_follow_up": None}]
    case["samples"] = [
        {"submitter_id": "TCGA-A1-BBBB-01A", "preservation_method": "Frozen"},
        {"submitter_id": "TCGA-A1-BBBB-01B", "preservation_method": "FFPE"},
    ]
    plan, notes = make_plan(client, make_settings("TCGA-BRCA"))
    found = plan.cases[1]
    assert (found.sex, found.age_years, found.stage, found.site_name) == ("male", 10.0, "Stage I", "Somewhere")
    assert (found.vital_status, found.days_to_death, found.days_to_last_follow_up) == ("Dead", 1000, 950)
    assert found.preservation == "FFPE"
    assert "rna: of 1 patients it is from formalin-fixed tissue: TCGA-A1-BBBB" in [str(note) for note in notes]


def test_sample_types_in_order_of_preference(gdc: FakeGdc, client: Client) -> None:
    """A patient's slides and RNA are of one type: the first that there is a slide of."""
    add_slide(gdc, 9, "TCGA-A1-AAAA-06Z-00-DX1", b"a metastasis of a patient with a primary tumour")
    add_rna(gdc, 28, "TCGA-B2-EEEE-01A-11R-A00Z-07", [1] * 6)
    plan, _ = make_plan(client, make_settings("TCGA-BRCA", "01,06"))
    assert numbers(plan, "slides") == [1, 2, 3, 4, 5, 6]
    assert numbers(plan, "rna") == [22, 24, 25]
    aside = {int(file.file_id[:8], 16): file.why for file in plan.files if not file.use}
    assert aside[9] == "sample type 06; the patient's slides are of 01"
    assert aside[28] == "sample type 01; the patient's slides are of 06"
    assert {case.patient_id: case.sample_type for case in plan.cases}["TCGA-B2-EEEE"] == "06"
    plan, _ = make_plan(client, make_settings("TCGA-BRCA", "06,01"))
    assert numbers(plan, "slides") == [9, 3, 4, 5, 6]


def test_limit_and_patients(client: Client, tmp_path: Path) -> None:
    plan, _ = make_plan(client, make_settings("TCGA-BRCA", limit=2))
    assert [case.patient_id for case in plan.cases] == ["TCGA-A1-AAAA", "TCGA-A1-BBBB"]
    assert (numbers(plan, "slides"), numbers(plan, "rna")) == ([1, 2, 3], [22, 24])
    asked = tmp_path / "odx.csv"
    asked.write_text("patient,ODX\nTCGA-B2-DDDD-01A,H\nTCGA-B2-CCCC,L\nTCGA-ZZ-9999,L\n")
    plan, notes = make_plan(client, make_settings("TCGA-BRCA", patients=asked))
    assert [case.patient_id for case in plan.cases] == ["TCGA-B2-CCCC", "TCGA-B2-DDDD"]
    assert "patients: 1 of the patients asked for have no such slide: TCGA-ZZ-9999" in [str(note) for note in notes]


barcode = st.builds(
    "TCGA-{}-{}-{}{}-{}{}R-{}-07".format,
    st.sampled_from(["A1"]),
    st.sampled_from(["AAAA", "BBBB"]),
    st.sampled_from(["01", "06", "11"]),
    st.sampled_from("AB"),
    st.sampled_from("12"),
    st.sampled_from("12"),
    st.sampled_from(["A00Z", "A12B"]),
)


@given(st.lists(barcode, max_size=8), st.randoms())
def test_the_choice_of_rna_follows_the_barcode_and_nothing_else(barcodes: list[str], random: object) -> None:
    def file(kind: str, number: int, text: str) -> RemoteFile:
        found = read_barcode(text)
        assert found is not None
        return RemoteFile(
            kind=kind,
            file_id=f"{number:08x}-0000-4000-8000-{number:012x}",
            name=f"{kind}{number}.x",
            md5="0" * 32,
            size=1,
            access="open",
            patient=found.patient,
            barcode=text,
        )

    slides = [file("slides", 100, "TCGA-A1-AAAA-01Z-00-DX1"), file("slides", 101, "TCGA-A1-BBBB-01Z-00-DX1")]
    rna = [file("rna", number, text) for number, text in enumerate(barcodes)]
    files, _ = choose(slides, rna, ["01"])
    shuffled = list(rna)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert choose(slides[::-1], shuffled, ["01"])[0] == files
    used = {file.patient: file.barcode for file in files if file.use and file.kind == "rna"}
    for patient in ("TCGA-A1-AAAA", "TCGA-A1-BBBB"):
        own = [text for text in barcodes if text.startswith(f"{patient}-01")]
        assert used.get(patient) == (min(own) if own else None)
    assert len(files) == len(barcodes) + 2


def test_xml_files_where_there_is_no_table(gdc: FakeGdc, client: Client) -> None:
    gdc.files = [one for one in gdc.files if not str(one["file_name"]).startswith("nationwide")]
    for number, patient in enumerate(("TCGA-A1-AAAA", "TCGA-B2-GGGG"), 51):
        add_clinical(gdc, number, f"nationwidechildrens.org_clinical.{patient}.xml", b"<x/>", "BCR XML")
    plan, _ = make_plan(client, make_settings("TCGA-BRCA"))
    assert [file.name for file in plan.used("clinical")] == ["nationwidechildrens.org_clinical.TCGA-A1-AAAA.xml"]
    gdc.files = [one for one in gdc.files if one["data_type"] != "Clinical Supplement"]
    _, notes = make_plan(client, make_settings("TCGA-BRCA"))
    assert any("no clinical supplement" in str(note) for note in notes)


HOSTILE = [
    "../../.ssh/authorized_keys",
    "/etc/passwd",
    "a/b.svs",
    "a\\b.svs",
    "..",
    ".hidden.svs",
    "C:evil.svs",
    "x\0.svs",
    "x\n.svs",
    "\x1b[2Jx.svs",
    "nul.svs",
    "COM1.svs",
    "x.svs.part",
    "x.svs.PART",
    "-rf",
    "x.svs.",
    "x.svs ",
    "",
    "é.svs",
    "x" * 300,
    "~root",
    "x;rm.svs",
    "$(x).svs",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a file name of 2 to 200"):
        check_name(name)


@pytest.mark.parametrize("name", ["TCGA-3C-AALI-01Z-00-DX1.F6E9A5DF-D8FB.svs", "a.b_c+d=(1), 2@x.tsv"])
def test_ordinary_names_are_taken(name: str) -> None:
    assert check_name(name) == name


@given(st.text(max_size=40))
def test_no_name_leaves_its_folder(name: str) -> None:
    try:
        check_name(name)
    except ValueError:
        return
    assert (Path("/base/slides") / name).resolve().parent == Path("/base/slides")
    assert name.isprintable()


def test_every_bad_record_is_listed_and_nothing_is_written(gdc: FakeGdc, client: Client) -> None:
    gdc.files[0]["file_name"] = "../../evil"
    gdc.files[1]["md5sum"] = None
    gdc.files[2]["file_size"] = -1
    gdc.files[10]["file_id"] = gdc.files[10]["id"] = "../data"
    with pytest.raises(GdcError) as caught:
        make_plan(client, make_settings("TCGA-BRCA"))
    text = str(caught.value)
    assert text.startswith("4 problems:")
    for part in ("name '../../evil'", "md5 None", "size -1", "file_id '../data'"):
        assert part in text


@pytest.mark.parametrize(
    "change",
    [
        {"cases": [{"submitter_id": "TCGA-B2-DDDD", "project": {"project_id": "TCGA-BRCA"}}]},
        {"associated_entities": [{"entity_submitter_id": "odd", "entity_type": "slide"}]},
        {"associated_entities": []},
    ],
    ids=["another patient", "no barcode", "from the name"],
)
def test_a_slide_of_nobody_is_set_aside(gdc: FakeGdc, client: Client, change: dict) -> None:
    gdc.files[0].update(change)
    plan, _ = make_plan(client, make_settings("TCGA-BRCA"))
    if change == {"associated_entities": []}:
        assert numbers(plan, "slides") == [1, 2, 3, 4, 5]
    else:
        assert numbers(plan, "slides") == [2, 3, 4, 5]
        assert "of no single slide with a TCGA barcode" in {file.why for file in plan.files}


def test_files_of_one_name_lie_apart(gdc: FakeGdc, client: Client) -> None:
    gdc.files[1]["file_name"] = gdc.files[0]["file_name"].lower().replace("tcga", "TCGA")
    plan, _ = make_plan(client, make_settings("TCGA-BRCA"))
    first, second, third, *_ = plan.used("slides")
    assert str(first.path) == f"slides/{first.file_id}/{first.name}"
    assert str(second.path) == f"slides/{second.file_id}/{second.name}"
    assert str(third.path) == f"slides/{third.name}"


def test_nobody_is_an_error_that_names_what_was_asked(client: Client) -> None:
    with pytest.raises(GdcError, match="6 diagnostic slides, none of sample type 03"):
        make_plan(client, make_settings("TCGA-BRCA", "03"))
    with pytest.raises(GdcError, match="TCGA-OV: 0 diagnostic slides"):
        make_plan(client, make_settings("TCGA-OV"))


@pytest.mark.parametrize(
    ("project", "types", "words"),
    [("CPTAC-3", "01", "a TCGA project"), ("TCGA-BRCA", "1", "two digits"), ("TCGA-BRCA", "", "two digits")],
)
def test_settings_that_cannot_be(project: str, types: str, words: str) -> None:
    with pytest.raises(GdcError, match=words):
        make_settings(project, types)


def test_patients_files_that_are_none(tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_text("TCGA-A1-AAAA\nsomebody\n")
    with pytest.raises(GdcError, match="1 TCGA barcodes and 1 other lines: somebody"):
        make_settings("TCGA-BRCA", patients=file)


def test_the_lists_beside_the_plan(planned: tuple[Path, Plan]) -> None:
    folder, plan = planned
    assert read_plan(folder) == plan
    assert {path.name for path in folder.iterdir()} == {
        "plan.json",
        "files.csv",
        "cases.csv",
        *(f"manifest-{kind}.txt" for kind in ("slides", "rna", "clinical")),
    }
    lines = (folder / "manifest-slides.txt").read_text().splitlines()
    assert lines[0] == "id\tfilename\tmd5\tsize\tstate"
    first = plan.used("slides")[0]
    assert lines[1] == f"{first.file_id}\t{first.name}\t{first.md5}\t{first.size}\treleased"
    assert len(lines) == 6
    with (folder / "files.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == len(plan.files) == 13
    assert rows[0]["path"] == str(first.path)
    with (folder / "cases.csv").open() as handle:
        assert [row["site_name"] for row in csv.DictReader(handle)] == ["Somewhere"] * 4


def test_planning_again_says_what_changed_and_keeps_the_project(
    planned: tuple[Path, Plan], gdc: FakeGdc, client: Client
) -> None:
    folder, plan = planned
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert write_plan(make_plan(client, make_settings("TCGA-BRCA"))[0], folder) == []
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    add_slide(gdc, 10, "TCGA-A1-BBBB-01Z-00-DX2", b"new")
    (note,) = write_plan(make_plan(client, make_settings("TCGA-BRCA"))[0], folder)
    assert "1 files are new in the plan, 0 are no longer in it" in str(note)
    other = plan.model_copy(update={"settings": make_settings("TCGA-LUAD")})
    with pytest.raises(GdcError, match="holds a plan of TCGA-BRCA"):
        write_plan(other, folder)


def test_order_of_the_answers_changes_nothing(gdc: FakeGdc, client: Client, planned: tuple[Path, Plan]) -> None:
    search = gdc.search

    def descending(records: list, body: dict) -> dict:
        return search(records, {**body, "sort": body["sort"].replace("asc", "desc")})

    gdc.search = descending  # type: ignore[method-assign]
    assert make_plan(client, make_settings("TCGA-BRCA"))[0] == planned[1]


@pytest.mark.parametrize(
    "tamper",
    [
        lambda plan: plan["files"][0].update(name="../../../evil"),
        lambda plan: plan["files"][0].update(kind="../slides"),
        lambda plan: plan["files"][0].update(file_id="../x"),
        lambda plan: plan["files"].append(plan["files"][0]),
        lambda plan: plan.update(data_release="x\ncohort: evil"),
        lambda plan: plan.update(format_version=2),
        lambda plan: plan.clear(),
    ],
)
def test_a_plan_that_was_tampered_with_is_refused(planned: tuple[Path, Plan], tamper: object) -> None:
    folder, _ = planned
    value = json.loads((folder / "plan.json").read_text())
    tamper(value)  # type: ignore[operator]
    (folder / "plan.json").write_text(json.dumps(value))
    with pytest.raises(GdcError, match="no plan of momkd"):
        read_plan(folder)


def test_no_plan_names_the_verb(tmp_path: Path) -> None:
    with pytest.raises(GdcError, match="no such file → momkd gdc plan --out"):
        read_plan(tmp_path)


def test_a_patient_without_a_record_is_an_error(gdc: FakeGdc, client: Client) -> None:
    add_slide(gdc, 11, "TCGA-A1-HHHH-01Z-00-DX1", b"x")
    with pytest.raises(GdcError, match="patient TCGA-A1-HHHH: the GDC lists a slide but not the patient"):
        make_plan(client, make_settings("TCGA-BRCA"))
    add_case(gdc, "TCGA-A1-HHHH", demographic=None, diagnoses=None, samples=None, tissue_source_site=None)
    plan, _ = make_plan(client, make_settings("TCGA-BRCA"))
    assert plan.cases[2].age_years is None
