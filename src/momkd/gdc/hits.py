"""The GDC's answers → records of ours, everything checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from momkd.errors import Problem
from momkd.gdc.barcodes import read_barcode
from momkd.gdc.records import Case, Kind, RemoteFile

_ENTITY = {"slides": "slide", "rna": "aliquot"}
_DAYS_PER_YEAR = 365.25


def read_files(kind: Kind, hits: Iterable[Mapping[str, Any]]) -> tuple[list[RemoteFile], list[Problem]]:
    """Files, and a problem for each that must not be downloaded (a name that leads elsewhere, no digest, no size)."""
    files: list[RemoteFile] = []
    problems: list[Problem] = []
    for hit in hits:
        record = {
            "kind": kind,
            "file_id": hit.get("file_id"),
            "name": hit.get("file_name"),
            "md5": hit.get("md5sum"),
            "size": hit.get("file_size"),
            "access": hit.get("access"),
            "state": hit.get("state") or "",
            **({} if kind == "clinical" else _whose(kind, hit)),
        }
        try:
            files.append(RemoteFile.model_validate(record))
        except ValidationError as error:
            problems += _defects(hit, error)
    return files, problems


def _whose(kind: Kind, hit: Mapping[str, Any]) -> dict[str, Any]:
    """The patient and the barcode of a file's one slide or aliquot; a file of none, or of several, is not used."""
    found = {
        str(entity.get("entity_submitter_id"))
        for entity in _objects(hit.get("associated_entities"))
        if entity.get("entity_type") == _ENTITY[kind]
    }
    if kind == "slides" and not found:
        found = {str(hit.get("file_name")).split(".")[0]}
    barcode = read_barcode(next(iter(found))) if len(found) == 1 else None
    cases = {str(case.get("submitter_id")) for case in _objects(hit.get("cases"))}
    if barcode is None or not barcode.sample_type or cases != {barcode.patient}:
        return {"use": False, "why": f"of no single {_ENTITY[kind]} with a TCGA barcode"}
    return {"patient": barcode.patient, "barcode": barcode.text}


def _defects(hit: Mapping[str, Any], error: ValidationError) -> list[Problem]:
    problems = []
    for fault in error.errors():
        names = ".".join(str(part) for part in fault["loc"])
        expected = str(fault["msg"]).removeprefix("Value error, ")
        problems.append(Problem(f"file {hit.get('file_id')!r}", f"{names} {fault['input']!r}", expected))
    return problems


def read_cases(
    hits: Iterable[Mapping[str, Any]], owners: Mapping[str, str], rna: Mapping[str, str]
) -> tuple[list[Case], list[Problem]]:
    """The patients of the cohort, sorted; ``owners``: their sample type; ``rna``: the aliquot of their RNA."""
    found = {}
    for hit in hits:
        patient = str(hit.get("submitter_id"))
        if patient in owners:
            found[patient] = _case(hit, patient, owners[patient], rna.get(patient, ""))
    problems = [
        Problem(f"patient {patient}", "the GDC lists a slide but not the patient", mend="run the same command again")
        for patient in owners
        if patient not in found
    ]
    return [found[patient] for patient in sorted(found)], problems


def _case(hit: Mapping[str, Any], patient: str, sample_type: str, aliquot: str) -> Case:
    person = _object(hit.get("demographic"))
    diagnoses = _objects(hit.get("diagnoses"))
    # Later tumours are listed too; the first of them is described where none is called primary.
    primary = [one for one in diagnoses if str(one.get("classification_of_tumor")).lower() == "primary"]
    diagnosis = (primary or diagnoses or [{}])[0]
    seen = [_number(one.get("days_to_last_follow_up")) for one in diagnoses]
    seen += [_number(one.get("days_to_follow_up")) for one in _objects(hit.get("follow_ups"))]
    age = _number(diagnosis.get("age_at_diagnosis"))
    samples = {_text(one.get("submitter_id")): one for one in _objects(hit.get("samples"))}
    sample = samples.get("-".join(aliquot.split("-")[:4]), {})
    return Case(
        patient_id=patient,
        case_id=_text(hit.get("case_id")),
        site=patient.split("-")[1],
        site_name=_text(_object(hit.get("tissue_source_site")).get("name")),
        sample_type=sample_type,
        preservation=_text(sample.get("preservation_method")),
        sex=_text(person.get("sex_at_birth")),
        age_years=None if age is None else round(age / _DAYS_PER_YEAR, 2),
        stage=_text(diagnosis.get("ajcc_pathologic_stage")),
        diagnosis=_text(diagnosis.get("primary_diagnosis")),
        vital_status=_text(person.get("vital_status")),
        days_to_death=_number(person.get("days_to_death")),
        days_to_last_follow_up=max((days for days in seen if days is not None), default=None),
    )


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _objects(value: object) -> Sequence[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _text(value: object) -> str:
    """Text without control characters; what is no text is nothing."""
    return "".join(mark for mark in value if mark.isprintable()).strip() if isinstance(value, str) else ""


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
