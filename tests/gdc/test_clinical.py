"""Receptor status from the clinical supplement: the rule, both kinds of file, and broken ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.gdc.conftest import RECEPTOR_ROWS, biotab

from momkd.errors import GdcError
from momkd.gdc.clinical import Receptors, notes_on, read_receptors

XML = """<?xml version="1.0" encoding="UTF-8"?>
<brca:tcga_bcr xmlns:brca="http://tcga.nci/bcr/xml/clinical/brca/2.7" xmlns:shared="http://tcga.nci/bcr/xml/shared/2.7"
  xmlns:brca_shared="http://tcga.nci/bcr/xml/clinical/brca/shared/2.7">
  <admin:admin xmlns:admin="http://tcga.nci/bcr/xml/administration/2.7"/>
  <brca:patient>
    <shared:bcr_patient_barcode cde="2003301">{patient}</shared:bcr_patient_barcode>
    <brca_shared:breast_carcinoma_estrogen_receptor_status>{er}</brca_shared:breast_carcinoma_estrogen_receptor_status>
    <brca_shared:breast_carcinoma_progesterone_receptor_status>{pr}</brca_shared:breast_carcinoma_progesterone_receptor_status>
    <brca_shared:lab_proc_her2_neu_immunohistochemistry_receptor_status>{ihc}</brca_shared:lab_proc_her2_neu_immunohistochemistry_receptor_status>
    <brca_shared:lab_procedure_her2_neu_in_situ_hybrid_outcome_type procurement_status="Not Available"/>
    <brca:follow_ups><brca:follow_up>
      <brca_shared:breast_carcinoma_estrogen_receptor_status>Negative</brca_shared:breast_carcinoma_estrogen_receptor_status>
    </brca:follow_up></brca:follow_ups>
  </brca:patient>
</brca:tcga_bcr>
"""


@pytest.mark.parametrize(
    ("ihc", "fish", "her2"),
    [
        ("Positive", "[Not Available]", "positive"),
        ("Negative", "[Not Evaluated]", "negative"),
        ("Positive", "Negative", "positive"),
        ("Negative", "Positive", "negative"),
        ("Equivocal", "Positive", "positive"),
        ("Equivocal", "Negative", "negative"),
        ("Equivocal", "Equivocal", ""),
        ("Equivocal", "[Not Available]", ""),
        ("Indeterminate", "Positive", ""),
        ("[Not Available]", "Positive", ""),
        ("", "", ""),
    ],
)
def test_her2(ihc: str, fish: str, her2: str) -> None:
    assert Receptors("", "", ihc, fish).her2 == her2
    assert Receptors("", "", ihc.upper(), fish.lower()).her2 == her2


@pytest.mark.parametrize(
    ("status", "label"), [("Positive", "positive"), ("Negative", "negative"), ("Indeterminate", "")]
)
def test_er_and_pr(status: str, label: str) -> None:
    assert Receptors(status, "", "", "").er == label
    assert Receptors("", status, "", "").pr == label


def test_table_of_all_patients(tmp_path: Path) -> None:
    file = tmp_path / "nationwidechildrens.org_clinical_patient_brca.txt"
    file.write_bytes(biotab())
    found = read_receptors([file])
    assert found is not None
    assert {patient: tuple(one.labels.values()) for patient, one in found.items()} == {
        "TCGA-A1-AAAA": ("positive", "negative", "positive"),
        "TCGA-A1-BBBB": ("negative", "negative", "negative"),
        "TCGA-B2-CCCC": ("", "", ""),
        "TCGA-B2-DDDD": ("positive", "positive", "positive"),
    }
    words = [str(note) for note in notes_on(found, [*RECEPTOR_ROWS, "TCGA-ZZ-0000"])]
    assert words == [
        "clinical: 1 patients are not in it: TCGA-ZZ-0000",
        "HER2: 1 equivocal by IHC decided by FISH; 0 with FISH but no IHC left empty",
        "HER2: 1 patients whose FISH says otherwise keep their IHC: TCGA-B2-DDDD",
        "HER2: 1 negative, 2 positive, 1 empty",
        "PR: 2 negative, 1 positive, 1 empty",
        "ER: 1 negative, 2 positive, 1 empty",
    ]


def test_a_file_a_patient(tmp_path: Path) -> None:
    """The patient's own status, not that of a follow-up; nothing at all is empty."""
    files = []
    for patient, ihc in (("TCGA-A1-AAAA", "Positive"), ("TCGA-A1-BBBB", "Equivocal")):
        files.append(tmp_path / f"nationwidechildrens.org_clinical.{patient}.xml")
        files[-1].write_text(XML.format(patient=patient, er="Positive", pr="", ihc=ihc))
    found = read_receptors(files)
    assert found is not None
    assert found["TCGA-A1-AAAA"] == Receptors("Positive", "", "Positive", "")
    assert found["TCGA-A1-BBBB"].labels == {"HER2": "", "PR": "", "ER": "positive"}


def test_a_supplement_without_receptors_is_none(tmp_path: Path) -> None:
    file = tmp_path / "nationwidechildrens.org_clinical_patient_luad.txt"
    file.write_bytes(biotab().replace(b"her2_status_by_ihc", b"something_else"))
    assert read_receptors([file]) is None
    assert read_receptors([]) is None


BOMB = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><x>&b;</x>'
BROKEN = {
    "no column": ("x.txt", b"a\tb\n1\t2\n", "no column bcr_patient_barcode"),
    "empty": ("x.txt", b"", "no column bcr_patient_barcode"),
    "header only": ("x.txt", b"\n".join(biotab().splitlines()[:3]), "no row with a TCGA barcode"),
    "ragged": ("x.txt", biotab() + b"uuid\tTCGA-A1-ZZZZ\n", "lines have not the 7 cells of the header: uuid"),
    "no barcode": ("x.txt", biotab() + b"u\tsomebody" + b"\t" * 5, "'somebody' is no TCGA barcode"),
    "two entries": (
        "x.txt",
        biotab() + b"u\tTCGA-A1-AAAA" + b"\tNegative" * 5,
        "patient TCGA-A1-AAAA has two different entries",
    ),
    "not text": ("x.txt", b"\xff\xfe\x00", "not UTF-8 text"),
    "not XML": ("x.xml", b"<a><b></a>", "not readable as XML"),
    "entities": ("x.xml", BOMB.encode(), "DOCTYPE or defines entities"),
    "no patient": ("x.xml", b"<a/>", "0 elements patient"),
    "nobody": ("x.xml", b"<a><patient/></a>", "is no TCGA barcode"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named(name: str, tmp_path: Path) -> None:
    file, body, words = BROKEN[name]
    (tmp_path / file).write_bytes(body)
    with pytest.raises(GdcError, match="1 problem:") as caught:
        read_receptors([tmp_path / file])
    assert words in str(caught.value)
    assert str(tmp_path / file) in str(caught.value)
