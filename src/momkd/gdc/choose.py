"""Which of a project's files make the cohort: whose slides, and which one RNA sample a patient.

The rules, also in docs/gdc.md:

1. A patient belongs to the cohort by a diagnostic slide of a wanted sample type (01, the primary solid tumour).
2. Of several wanted types, the first that a patient has a slide of counts; files of other types are set aside.
3. All slides of that type are used, and one RNA file of that type: the lowest aliquot barcode, that is the lowest
   vial, then portion, then plate; of two files of one aliquot the lowest file id.
4. RNA of patients without such a slide is set aside; a patient without RNA stays.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from momkd.gdc.barcodes import Barcode, read_barcode
from momkd.gdc.records import RemoteFile


def choose(
    slides: Iterable[RemoteFile],
    rna: Iterable[RemoteFile],
    sample_types: Sequence[str],
    *,
    only: Collection[str] | None = None,
    limit: int | None = None,
) -> tuple[list[RemoteFile], dict[str, str]]:
    """Mark the files that are used, and why the others are not.

    ``sample_types``: two digits each, the preferred first. ``only``: these patients. ``limit``: the first so many of
    the patients with both slides and RNA, by barcode. Returns all files sorted by kind, barcode and id, and the sample
    type of every patient of the cohort.
    """
    slides, rna = sorted(slides, key=_order), sorted(rna, key=_order)
    owners = _owners(slides, sample_types, only)
    chosen = _one_each(rna, owners)
    if limit is not None:
        kept = sorted(owners.keys() & chosen.keys())[:limit]
        owners = {patient: owners[patient] for patient in kept}
    files = [_judged(file, owners, sample_types, only, chosen) for file in (*slides, *rna)]
    return files, owners


def _order(file: RemoteFile) -> tuple[str, str]:
    return (file.barcode, file.file_id)


def _type(file: RemoteFile) -> str:
    barcode = read_barcode(file.barcode) or Barcode("", "", "", "")
    return barcode.sample_type


def _owners(slides: Sequence[RemoteFile], sample_types: Sequence[str], only: Collection[str] | None) -> dict[str, str]:
    """The patients with a slide of a wanted sample type, and which type that is."""
    types: dict[str, set[str]] = defaultdict(set)
    for file in slides:
        if only is None or file.patient in only:
            types[file.patient].add(_type(file))
    first = {patient: next((one for one in sample_types if one in found), "") for patient, found in types.items()}
    return {patient: one for patient, one in sorted(first.items()) if one}


def _one_each(rna: Sequence[RemoteFile], owners: dict[str, str]) -> dict[str, RemoteFile]:
    """One RNA file of every patient who has any of the right type; ``rna`` is sorted by barcode."""
    chosen: dict[str, RemoteFile] = {}
    for file in rna:
        if owners.get(file.patient) == _type(file):
            chosen.setdefault(file.patient, file)
    return chosen


def _judged(
    file: RemoteFile,
    owners: dict[str, str],
    sample_types: Sequence[str],
    only: Collection[str] | None,
    chosen: dict[str, RemoteFile],
) -> RemoteFile:
    mine, wanted = _type(file), owners.get(file.patient)
    if only is not None and file.patient not in only:
        why = "not one of the patients asked for"
    elif mine not in sample_types:
        why = f"sample type {mine}"
    elif wanted is None:
        why = "no diagnostic slide of the patient, or beyond the limit"
    elif mine != wanted:
        why = f"sample type {mine}; the patient's slides are of {wanted}"
    elif file.kind == "rna" and chosen[file.patient] is not file:
        why = "another aliquot of the patient comes first"
    else:
        return file
    return file.model_copy(update={"use": False, "why": why})
