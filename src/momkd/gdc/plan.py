"""The plan of a cohort: kept in one file, the only thing that the verbs after `momkd gdc plan` go by."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from momkd.errors import GdcError, Problem, raise_problems, summarise
from momkd.files import write_text
from momkd.gdc.barcodes import read_barcode
from momkd.gdc.records import KINDS, Case, Kind, RemoteFile

PLAN = "plan.json"


class Settings(BaseModel):
    """What a plan is made by: ``sample_types`` two digits each, the preferred first; ``only``: these patients."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    project: Annotated[str, StringConstraints(pattern=r"^TCGA-[A-Z0-9]+$")] = "TCGA-BRCA"
    sample_types: tuple[Annotated[str, StringConstraints(pattern=r"^[0-9]{2}$")], ...] = Field(("01",), min_length=1)
    only: tuple[str, ...] | None = None
    limit: int | None = Field(None, ge=1)


class Plan(BaseModel):
    """A cohort at the GDC: every file that was considered, every patient that is used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    server: str
    data_release: Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]{0,100}$")]
    settings: Settings
    cases: tuple[Case, ...]
    files: tuple[RemoteFile, ...]

    @model_validator(mode="after")
    def _one_file_a_place(self) -> Self:
        places = Counter(str(file.path).lower() for file in self.files if file.use)
        twice = [place for place, count in places.items() if count > 1]
        if twice:
            raise ValueError(f"several files for {summarise(twice)}")
        return self

    def used(self, *kinds: Kind) -> list[RemoteFile]:
        """The files of the cohort, of some kinds or of all, in a fixed order."""
        return [file for kind in kinds or KINDS for file in self.files if file.use and file.kind == kind]


def make_settings(
    project: str, sample_types: str = "01", patients: Path | None = None, limit: int | None = None
) -> Settings:
    """Settings from what a user writes: ``sample_types`` separated by commas, ``patients`` a file with an id a line.

    A line may go on after a comma, tab or space, and a line without an id at its start is a header; barcodes of samples
    count for their patient. Raises GdcError listing what is wrong.
    """
    types = tuple(one.strip() for one in sample_types.split(","))
    try:
        return Settings(
            project=project,
            sample_types=types,
            only=None if patients is None else _patients(patients),
            limit=limit,
        )
    except ValidationError as error:
        expected = {"project": "a TCGA project, such as TCGA-BRCA", "sample_types": "two digits each, such as 01,06"}
        problems = [
            Problem(f"--{name.replace('_', '-')}", repr(fault["input"]), expected.get(name, fault["msg"]))
            for fault in error.errors()
            for name in [str(fault["loc"][0])]
        ]
        raise_problems(problems, GdcError)
        raise


def _patients(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise GdcError(f"--patients {path}: not readable as text: {error}") from error
    first = [re.split(r"[,;\t ]", line.strip())[0].strip('"') for line in lines]
    found = {barcode.patient for barcode in map(read_barcode, first) if barcode is not None}
    others = [text for text in first[1:] if text and read_barcode(text) is None]
    if others or not found:
        raise GdcError(
            f"--patients {path}: {len(found)} TCGA barcodes and {len(others)} other lines: {summarise(others)}; "
            "expected a barcode at the start of every line, perhaps a header above them"
        )
    return tuple(sorted(found))


def write_plan(plan: Plan, folder: Path) -> list[Problem]:
    """Write plan.json, last, and beside it files.csv, cases.csv and a gdc-client manifest a kind, to look at.

    Returns notes on what changed since the plan that was there. Raises GdcError where that one is of another project
    or server.
    """
    before = read_plan(folder) if (folder / PLAN).exists() else None
    if before is not None and (before.settings.project, before.server) != (plan.settings.project, plan.server):
        raise GdcError(
            f"{folder}: holds a plan of {before.settings.project} at {before.server}; expected one of "
            f"{plan.settings.project} at {plan.server}, or an empty folder → give another folder"
        )
    write_text(folder / "files.csv", _table([{**file.model_dump(), "path": str(file.path)} for file in plan.files]))
    write_text(folder / "cases.csv", _table([case.model_dump() for case in plan.cases]))
    for kind in KINDS:
        write_text(folder / f"manifest-{kind}.txt", manifest(plan.used(kind)))
    write_text(folder / PLAN, plan.model_dump_json(indent=1) + "\n")
    return [] if before is None else _changes(before, plan)


def manifest(files: Sequence[RemoteFile]) -> str:
    """The text of a manifest for gdc-client."""
    lines = [f"{file.file_id}\t{file.name}\t{file.md5}\t{file.size}\t{file.state}" for file in files]
    return "\n".join(["id\tfilename\tmd5\tsize\tstate", *lines, ""])


def read_plan(folder: Path) -> Plan:
    """Read a folder's plan; raises GdcError where there is none, or it is not as we write it."""
    path = Path(folder) / PLAN
    try:
        return Plan.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise GdcError(f"{path}: no such file → momkd gdc plan --out {folder}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise GdcError(
            f"{path}: no plan of momkd: {where} {str(first['input'])[:80]!r}: {first['msg']} → delete it and run momkd "
            "gdc plan again"
        ) from error


def _table(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _changes(before: Plan, plan: Plan) -> list[Problem]:
    old, new = ({file.file_id for file in one.used()} for one in (before, plan))
    if old == new and before.data_release == plan.data_release:
        return []
    found = f"{before.data_release or 'no release'} → {plan.data_release or 'no release'}: " * (
        before.data_release != plan.data_release
    )
    found += f"{len(new - old)} files are new in the plan, {len(old - new)} are no longer in it"
    return [Problem("plan", found, mend="merge RNA and write the cohort again", severity="note")]
