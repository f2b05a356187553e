"""TCGA barcodes: what the parts of TCGA-A7-A0DB-01A-11R-A00Z-07 say."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Project, tissue source site, participant; then sample type and vial, portion and analyte, plate, centre.
_SHAPE = re.compile(r"(TCGA-([A-Z0-9]{2})-[A-Z0-9]{4})(?:-(\d{2})([A-Z])(?:-[A-Z0-9]+)*)?")


@dataclass(frozen=True, order=True)
class Barcode:
    """A TCGA barcode of any length; barcodes of one patient and sample type sort by vial, portion, plate, centre.

    ``sample_type``: two digits (01 primary solid tumour, 06 metastasis, 11 normal tissue); "" for a patient's own.
    """

    text: str
    patient: str
    site: str
    sample_type: str


def read_barcode(text: str) -> Barcode | None:
    """Take a barcode apart, or return None if it is none; case matters, as the GDC writes capitals."""
    found = _SHAPE.fullmatch(text)
    return None if found is None else Barcode(text, found[1], found[2], found[3] or "")
