"""What is asked of the GDC for a project, in its own words (docs.gdc.cancer.gov, Search and Retrieval)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from momkd.gdc.client import Query

_FILE = ("file_id", "file_name", "md5sum", "file_size", "access", "state")
_WHOSE = ("cases.submitter_id", "associated_entities.entity_submitter_id", "associated_entities.entity_type")
_CASE = (
    "case_id",
    "submitter_id",
    "tissue_source_site.name",
    "demographic.sex_at_birth",
    "demographic.vital_status",
    "demographic.days_to_death",
    "diagnoses.age_at_diagnosis",
    "diagnoses.ajcc_pathologic_stage",
    "diagnoses.classification_of_tumor",
    "diagnoses.days_to_last_follow_up",
    "diagnoses.primary_diagnosis",
    "follow_ups.days_to_follow_up",
    "samples.submitter_id",
    "samples.preservation_method",
)


def diagnostic_slides(project: str) -> Query:
    """Diagnostic slides: formalin-fixed tissue, not the frozen sections beside the sequenced sample."""
    wanted = {
        "data_type": "Slide Image",
        "experimental_strategy": "Diagnostic Slide",
        "data_format": "SVS",
    }
    return _files(project, wanted, (*_FILE, *_WHOSE))


def star_counts(project: str) -> Query:
    """Gene expression of the workflow STAR - Counts: one table a sequenced aliquot."""
    wanted = {
        "data_type": "Gene Expression Quantification",
        "experimental_strategy": "RNA-Seq",
        "analysis.workflow_type": "STAR - Counts",
    }
    return _files(project, wanted, (*_FILE, *_WHOSE))


def clinical_supplements(project: str, data_format: str) -> Query:
    """The clinical supplement as "BCR Biotab" (tables of all patients) or "BCR XML" (a file a patient)."""
    # No fields of cases: a table of all patients would list every one of them.
    return _files(project, {"data_type": "Clinical Supplement", "data_format": data_format}, _FILE)


def cases(project: str) -> Query:
    """Clinical and biospecimen fields of every patient."""
    return Query("cases", _all_of({"project.project_id": project}), _CASE, "case_id")


def _files(project: str, wanted: Mapping[str, str], fields: tuple[str, ...]) -> Query:
    return Query("files", _all_of({"cases.project.project_id": project, **wanted}), fields, "file_id")


def _all_of(wanted: Mapping[str, str]) -> dict[str, Any]:
    content = [{"op": "in", "content": {"field": field, "value": [value]}} for field, value in wanted.items()]
    return {"op": "and", "content": content}
