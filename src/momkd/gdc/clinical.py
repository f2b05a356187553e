"""The clinical supplement → receptor status: HER2, PR and ER as negative, positive or empty.

ER and PR: the status by immunohistochemistry (IHC), positive or negative. HER2: the status by IHC where it is positive
or negative; where it is equivocal, the status by FISH. Everything else (indeterminate, not evaluated, not available,
equivocal without a clear FISH, FISH without IHC) is empty.
"""

from __future__ import annotations

import csv
import io
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from momkd.errors import GdcError, Problem, raise_problems, summarise
from momkd.gdc.barcodes import read_barcode

_PATIENT = "bcr_patient_barcode"
# Names of the supplement's tables (biotab), and of the same fields in its XML files.
_FIELDS = {
    "er_status_by_ihc": "breast_carcinoma_estrogen_receptor_status",
    "pr_status_by_ihc": "breast_carcinoma_progesterone_receptor_status",
    "her2_status_by_ihc": "lab_proc_her2_neu_immunohistochemistry_receptor_status",
    "her2_fish_status": "lab_procedure_her2_neu_in_situ_hybrid_outcome_type",
}
LABELS = ("HER2", "PR", "ER")


@dataclass(frozen=True)
class Receptors:
    """A patient's fields as they stand in the supplement."""

    er_status_by_ihc: str
    pr_status_by_ihc: str
    her2_status_by_ihc: str
    her2_fish_status: str

    @property
    def er(self) -> str:
        """Negative, positive or ""."""
        return _clear(self.er_status_by_ihc)

    @property
    def pr(self) -> str:
        """Negative, positive or ""."""
        return _clear(self.pr_status_by_ihc)

    @property
    def her2(self) -> str:
        """Negative, positive or ""; see the rule above."""
        if self.her2_status_by_ihc.lower() == "equivocal":
            return _clear(self.her2_fish_status)
        return _clear(self.her2_status_by_ihc)

    @property
    def labels(self) -> dict[str, str]:
        """The labels by name, in the order of LABELS."""
        return {"HER2": self.her2, "PR": self.pr, "ER": self.er}


def _clear(status: str) -> str:
    return status.lower() if status.lower() in ("negative", "positive") else ""


def read_receptors(files: Iterable[Path]) -> dict[str, Receptors] | None:
    """Read the supplement's files: a biotab table of all patients, or XML files of a patient each.

    Returns {patient: fields}, or None where the project's supplement has no receptor fields. Raises GdcError listing
    every file that is not as the GDC writes them, and patients with two different entries.
    """
    found: dict[str, Receptors] = {}
    problems: list[Problem] = []
    has_fields = False
    for path in files:
        try:
            rows = _read_xml(path) if path.suffix == ".xml" else _read_biotab(path)
        except GdcError as error:
            problems.append(Problem(str(path), str(error), mend="momkd gdc download DIR --what clinical --verify"))
            continue
        for patient, values in rows:
            has_fields = has_fields or values is not None
            if values is not None and found.setdefault(patient, values) != values:
                problems.append(Problem(str(path), f"patient {patient} has two different entries", "one a patient"))
    raise_problems(problems, GdcError)
    return found if has_fields else None


def notes_on(receptors: Mapping[str, Receptors], patients: Sequence[str]) -> list[Problem]:
    """What the rules decided that a reader should know, counted over the patients of the cohort."""
    own = {patient: receptors[patient] for patient in patients if patient in receptors}
    notes = []
    absent = [patient for patient in patients if patient not in receptors]
    if absent:
        notes.append(Problem("clinical", f"{len(absent)} patients are not in it: {summarise(absent)}", severity="note"))
    resolved = sum(one.her2_status_by_ihc.lower() == "equivocal" and bool(one.her2) for one in own.values())
    against = [p for p, one in own.items() if {one.her2, _clear(one.her2_fish_status)} == {"negative", "positive"}]
    alone = sum(not one.her2 and bool(_clear(one.her2_fish_status)) for one in own.values())
    if own:
        found = f"{resolved} equivocal by IHC decided by FISH; {alone} with FISH but no IHC left empty"
        notes.append(Problem("HER2", found, severity="note"))
    if against:
        found = f"{len(against)} patients whose FISH says otherwise keep their IHC: {summarise(sorted(against))}"
        notes.append(Problem("HER2", found, severity="note"))
    for name in LABELS:
        counts = Counter(one.labels[name] for one in own.values())
        found = f"{counts['negative']} negative, {counts['positive']} positive, {counts['']} empty"
        notes.append(Problem(name, found, severity="note"))
    return notes


def receptor_table(receptors: Mapping[str, Receptors]) -> str:
    """The fields as they are and the labels made of them, as CSV, one row a patient."""
    text = io.StringIO()
    names = [field.name for field in fields(Receptors)]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["patient_id", *names, *LABELS])
    for patient, one in sorted(receptors.items()):
        writer.writerow([patient, *(getattr(one, name) for name in names), *one.labels.values()])
    return text.getvalue()


Rows = list[tuple[str, Receptors | None]]


def _read_biotab(path: Path) -> Rows:
    """Read a table with three header lines: names, long names, CDE ids; a row a patient."""
    reader = csv.reader(io.StringIO(_text(path)), delimiter="\t", quoting=csv.QUOTE_NONE)
    lines = [line for line in reader if line]
    header = lines[0] if lines else []
    if _PATIENT not in header:
        raise GdcError(
            f"no table of patients: no column {_PATIENT}; expected nationwidechildrens.org_clinical_patient_*.txt"
        )
    at = {name: header.index(name) for name in (_PATIENT, *_FIELDS) if name in header}
    ragged = [line[0] for line in lines if len(line) != len(header)]
    if ragged:
        raise GdcError(f"{len(ragged)} lines have not the {len(header)} cells of the header: {summarise(ragged)}")
    rows: Rows = []
    for line in lines[1:]:
        patient = line[at[_PATIENT]].strip()
        if read_barcode(patient) is None:
            if rows:
                raise GdcError(f"{_PATIENT} {patient!r} is no TCGA barcode")
            continue  # the other two header lines
        has = all(name in at for name in _FIELDS)
        rows.append((patient, Receptors(*(line[at[name]].strip() for name in _FIELDS)) if has else None))
    if not rows:
        raise GdcError("no row with a TCGA barcode")
    return rows


def _read_xml(path: Path) -> Rows:
    text = _text(path)
    # Entities could make a small file fill the memory; the GDC's files define none.
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise GdcError("it has a DOCTYPE or defines entities; expected a clinical XML file of the GDC")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - no entities, see above
    except (ElementTree.ParseError, ValueError) as error:
        raise GdcError(f"not readable as XML: {error}") from error
    patients = [one for one in root if _local(one.tag) == "patient"]
    if len(patients) != 1:
        raise GdcError(f"{len(patients)} elements patient; expected one")
    # Only what stands directly below the patient: follow-ups repeat some names for later tumours.
    own = {_local(one.tag): (one.text or "").strip() for one in patients[0]}
    barcode = read_barcode(own.get(_PATIENT, ""))
    if barcode is None:
        raise GdcError(f"{_PATIENT} {own.get(_PATIENT, '')!r} is no TCGA barcode")
    has = all(name in own for name in _FIELDS.values())
    return [(barcode.patient, Receptors(*(own[name] for name in _FIELDS.values())) if has else None)]


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise GdcError(f"not UTF-8 text: {error}") from error
