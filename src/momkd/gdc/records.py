"""What a plan says of a file and of a patient; nothing that a server sends is believed before it is checked here."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from momkd.files import md5_file

Kind = Literal["clinical", "rna", "slides"]
# The small ones first.
KINDS: tuple[Kind, ...] = ("clinical", "rna", "slides")
PART = ".part"
"""Suffix of a file that is not complete."""

# Letters, digits and a few marks, and no first or last character that a system or a shell would take amiss.
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+=@(),-]{0,198}[A-Za-z0-9)]")
# Names that Windows keeps for devices, with any suffix.
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)


def check_name(name: str) -> str:
    """Return a file name that can lie in a folder of ours, or raise ValueError saying what it should be."""
    if not _SAFE_NAME.fullmatch(name) or _DEVICES.fullmatch(name) or name.lower().endswith(PART):
        raise ValueError(
            "a file name of 2 to 200 letters, digits and ._+=@(),- that stays in its folder and is not kept for "
            f"devices or unfinished files ({PART})"
        )
    return name


FileName = Annotated[str, AfterValidator(check_name)]
FileId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
Md5 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
PatientId = Annotated[str, StringConstraints(pattern=r"^TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RemoteFile(_Record):
    """A file of the GDC: ``size`` in bytes; ``patient`` and ``barcode`` "" where it is of no single one.

    ``use``: whether it belongs to the cohort; ``why`` says why not. ``apart``: its name is not the only one of its
    kind, so it lies in a folder named by its id.
    """

    kind: Kind
    file_id: FileId
    name: FileName
    md5: Md5
    size: int = Field(gt=0)
    access: Literal["open", "controlled"]
    state: Annotated[str, StringConstraints(pattern=r"^[a-z_]*$")] = ""
    patient: PatientId | Literal[""] = ""
    barcode: Annotated[str, StringConstraints(pattern=r"^[A-Z0-9-]*$")] = ""
    use: bool = True
    why: str = ""
    apart: bool = False

    @property
    def path(self) -> PurePosixPath:
        """Where it is downloaded to, relative to the plan's folder."""
        return PurePosixPath(self.kind, self.file_id, self.name) if self.apart else PurePosixPath(self.kind, self.name)

    def places(self, folder: Path) -> tuple[Path, Path]:
        """Where the whole file may lie: where we put it, and where gdc-client does."""
        return folder / self.path, folder / self.kind / self.file_id / self.name

    def find(self, folder: Path) -> Path | None:
        """Return the complete file, or None; complete is what has the announced size, or a clinical file the MD5.

        Names of slides and expression files hold a UUID of their own; the clinical supplement keeps its name when the
        GDC brings it up to date.
        """
        for place in self.places(folder):
            if place.is_file() and place.stat().st_size == self.size:
                return place if self.kind != "clinical" or md5_file(place) == self.md5 else None
        return None


class Case(_Record):
    """A patient of the cohort: what the GDC knows; "" or None where it knows nothing.

    ``sample_type``: the type of sample that slides and RNA are of. ``preservation``: of the sample whose RNA is used.
    """

    patient_id: PatientId
    case_id: str
    site: str
    site_name: str = ""
    sample_type: str
    preservation: str = ""
    sex: str = ""
    age_years: float | None = None
    stage: str = ""
    diagnosis: str = ""
    vital_status: str = ""
    days_to_death: float | None = None
    days_to_last_follow_up: float | None = None
