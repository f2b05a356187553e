"""A small TCGA-BRCA at a local server: four patients with slides, decoys beside them, clinical fields."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.gdc.server import FakeGdc

from momkd.gdc.ask import make_plan
from momkd.gdc.client import Client
from momkd.gdc.plan import Plan, make_settings, write_plan

RECEPTOR_ROWS = {
    "TCGA-A1-AAAA": ("Positive", "Negative", "Equivocal", "Positive"),
    "TCGA-A1-BBBB": ("Negative", "Negative", "Negative", "[Not Available]"),
    "TCGA-B2-CCCC": ("Indeterminate", "[Not Evaluated]", "Equivocal", "Equivocal"),
    "TCGA-B2-DDDD": ("positive", "Positive", "Positive", "Negative"),
}
GENES = [
    ("ENSG01.1", "TP53", "protein_coding"),
    ("ENSG02.1", "ESR1", "protein_coding"),
    ("ENSG03.1", "PINX1", "protein_coding"),
    ("ENSG04.2", "PINX1", "protein_coding"),
    ("ENSG05.1", "XIST", "lncRNA"),
    ("ENSG06.1", "", "protein_coding"),
]


def star_counts(counts: list[int], genes: list[tuple[str, str, str]] = GENES) -> bytes:
    """A STAR-count file: TPM are the counts / 2, FPKM the counts / 4."""
    lines = ["# gene-model: GENCODE v36"]
    names = "gene_id gene_name gene_type unstranded stranded_first stranded_second tpm_unstranded fpkm_unstranded"
    lines.append("\t".join([*names.split(), "fpkm_uq_unstranded"]))
    lines += [f"N_{name}\t\t\t9{number}\t9\t9\t\t\t" for number, name in enumerate(("unmapped", "multimapping"))]
    lines += [f"N_{name}\t\t\t9{number}\t9\t9\t\t\t" for number, name in enumerate(("noFeature", "ambiguous"))]
    for (gene, name, kind), count in zip(genes, counts, strict=True):
        lines.append(f"{gene}\t{name}\t{kind}\t{count}\t1\t1\t{count / 2:.4f}\t{count / 4:.4f}\t1.0")
    return "\n".join([*lines, ""]).encode()


def biotab(rows: dict[str, tuple[str, ...]] = RECEPTOR_ROWS) -> bytes:
    """The supplement's table of patients, with its three header lines."""
    names = ["bcr_patient_uuid", "bcr_patient_barcode", "er_status_by_ihc", "pr_status_by_ihc", "gender"]
    names += ["her2_status_by_ihc", "her2_fish_status"]
    lines = ["\t".join(names), "\t".join(["x", "bcr_patient_barcode", *["long name"] * 5])]
    lines.append("\t".join(f"CDE_ID:{number}" for number in range(7)))
    for patient, (er, pr, ihc, fish) in rows.items():
        lines.append("\t".join(["uuid", patient, er, pr, "FEMALE", ihc, fish]))
    return "\n".join([*lines, ""]).encode()


def add_slide(gdc: FakeGdc, number: int, barcode: str, body: bytes, **fields: Any) -> None:
    record = {
        "data_type": "Slide Image",
        "experimental_strategy": "Diagnostic Slide",
        "data_format": "SVS",
        "cases": [{"submitter_id": barcode[:12], "project": {"project_id": "TCGA-BRCA"}}],
        "associated_entities": [{"entity_submitter_id": barcode, "entity_type": "slide"}],
    }
    gdc.add_file(number, f"{barcode}.{number:08X}.svs", body, **{**record, **fields})


def add_rna(gdc: FakeGdc, number: int, barcode: str, counts: list[int], **fields: Any) -> None:
    record = {
        "data_type": "Gene Expression Quantification",
        "experimental_strategy": "RNA-Seq",
        "data_format": "TSV",
        "analysis": {"workflow_type": "STAR - Counts"},
        "cases": [{"submitter_id": barcode[:12], "project": {"project_id": "TCGA-BRCA"}}],
        "associated_entities": [{"entity_submitter_id": barcode, "entity_type": "aliquot"}],
    }
    body = fields.pop("body", None) or star_counts(counts)
    gdc.add_file(number, f"{number:08x}.rna_seq.augmented_star_gene_counts.tsv", body, **{**record, **fields})


def add_clinical(gdc: FakeGdc, number: int, name: str, body: bytes, data_format: str = "BCR Biotab") -> None:
    cases = [{"submitter_id": patient, "project": {"project_id": "TCGA-BRCA"}} for patient in RECEPTOR_ROWS]
    gdc.add_file(number, name, body, data_type="Clinical Supplement", data_format=data_format, cases=cases)


def add_case(gdc: FakeGdc, patient: str, **fields: Any) -> None:
    record = {
        "case_id": f"case-of-{patient}",
        "submitter_id": patient,
        "project": {"project_id": "TCGA-BRCA"},
        "tissue_source_site": {"name": "Somewhere"},
        "demographic": {"sex_at_birth": "female", "vital_status": "Alive"},
        "diagnoses": [{"age_at_diagnosis": 18262, "days_to_last_follow_up": 300, "ajcc_pathologic_stage": "Stage IIA"}],
        "samples": [{"submitter_id": f"{patient}-01A", "preservation_method": "Frozen"}],
    }
    gdc.cases.append({**record, **fields})


def fill(gdc: FakeGdc) -> None:
    """Four patients with slides of the primary tumour, one of them without RNA, and what must not be taken."""
    add_slide(gdc, 1, "TCGA-A1-AAAA-01Z-00-DX1", b"slide one" * 9000)
    add_slide(gdc, 2, "TCGA-A1-AAAA-01Z-00-DX2", b"slide two" * 500)
    add_slide(gdc, 3, "TCGA-A1-BBBB-01Z-00-DX1", b"slide three" * 700)
    add_slide(gdc, 4, "TCGA-B2-CCCC-01Z-00-DX1", b"slide four" * 300)
    add_slide(gdc, 5, "TCGA-B2-DDDD-01Z-00-DX1", b"slide five" * 30_000)
    add_slide(gdc, 6, "TCGA-B2-EEEE-06Z-00-DX1", b"a metastasis")
    add_slide(gdc, 7, "TCGA-A1-BBBB-01A-01-TS1", b"frozen", experimental_strategy="Tissue Slide")
    elsewhere = [{"submitter_id": "TCGA-05-FFFF", "project": {"project_id": "TCGA-LUAD"}}]
    add_slide(gdc, 8, "TCGA-05-FFFF-01Z-00-DX1", b"a lung", cases=elsewhere)
    add_rna(gdc, 21, "TCGA-A1-AAAA-01A-12R-A00Z-07", [1, 2, 3, 4, 5, 6])
    add_rna(gdc, 22, "TCGA-A1-AAAA-01A-11R-A00Z-07", [10, 20, 30, 40, 50, 60])
    add_rna(gdc, 23, "TCGA-A1-AAAA-11A-11R-A00Z-07", [7, 7, 7, 7, 7, 7])
    add_rna(gdc, 24, "TCGA-A1-BBBB-01B-11R-A00Z-07", [2, 4, 6, 8, 10, 12])
    add_rna(gdc, 25, "TCGA-B2-DDDD-01A-11R-A00Z-07", [0, 1, 0, 1, 0, 1])
    add_rna(gdc, 26, "TCGA-B2-GGGG-01A-11R-A00Z-07", [1, 1, 1, 1, 1, 1])
    add_rna(gdc, 27, "TCGA-B2-CCCC-01A-11R-A00Z-07", [9] * 6, analysis={"workflow_type": "HTSeq - Counts"})
    add_clinical(gdc, 41, "nationwidechildrens.org_clinical_patient_brca.txt", biotab())
    add_clinical(gdc, 42, "nationwidechildrens.org_clinical_drug_brca.txt", b"another table")
    for patient in ("TCGA-A1-AAAA", "TCGA-A1-BBBB", "TCGA-B2-CCCC", "TCGA-B2-DDDD", "TCGA-B2-EEEE", "TCGA-B2-GGGG"):
        add_case(gdc, patient)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture(autouse=True)
def _small_disk_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("momkd.gdc.download._SPARE_BYTES", 0)


@pytest.fixture
def gdc() -> Iterator[FakeGdc]:
    with FakeGdc() as server:
        fill(server)
        yield server


@pytest.fixture
def client(gdc: FakeGdc) -> Client:
    return Client(gdc.url, timeout=0.5, retries=3, backoff=0.001)


@pytest.fixture
def planned(client: Client, tmp_path: Path) -> tuple[Path, Plan]:
    """A folder with a plan of all that the server has."""
    plan, _ = make_plan(client, make_settings("TCGA-BRCA"))
    write_plan(plan, tmp_path / "brca")
    return tmp_path / "brca", plan
