"""Ask the GDC for a project and make the plan of a cohort of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from momkd.errors import GdcError, Problem, raise_problems, summarise
from momkd.gdc.choose import choose
from momkd.gdc.client import Answer, Client
from momkd.gdc.hits import read_cases, read_files
from momkd.gdc.plan import Plan, Settings
from momkd.gdc.query import cases, clinical_supplements, diagnostic_slides, star_counts
from momkd.gdc.records import RemoteFile


def make_plan(client: Client, settings: Settings) -> tuple[Plan, list[Problem]]:
    """Ask the GDC what a project has and choose the cohort; returns the plan and notes on it.

    Raises GdcError for an answer that cannot be trusted (every such file is listed) and a project without a usable
    slide.
    """
    release = client.data_release()
    heard = _ask(client, settings.project)
    slides, problems = read_files("slides", heard["slides"].hits)
    rna, more = read_files("rna", heard["rna"].hits)
    clinical, most = read_files("clinical", heard["clinical"].hits)
    raise_problems([*problems, *more, *most], GdcError)
    chosen, owners = choose(
        [file for file in slides if file.patient],
        [file for file in rna if file.patient],
        settings.sample_types,
        only=None if settings.only is None else set(settings.only),
        limit=settings.limit,
    )
    if not owners:
        raise GdcError(_nobody(settings, len(slides)))
    aliquots = {file.patient: file.barcode for file in chosen if file.use and file.kind == "rna"}
    patients, problems = read_cases(heard["cases"].hits, owners, aliquots)
    raise_problems(problems, GdcError)
    lost = sorted((file for file in (*slides, *rna) if not file.patient), key=lambda file: file.file_id)
    plan = Plan(
        server=client.server,
        data_release=release,
        settings=settings,
        cases=tuple(patients),
        files=tuple(_apart([*chosen, *lost, *_of_patients(clinical, owners)])),
    )
    warnings = sorted({text for answer in heard.values() for text in answer.warnings})
    return plan, [*_notes(plan), *(Problem("the GDC warns", text, severity="note") for text in warnings)]


def _ask(client: Client, project: str) -> dict[str, Answer]:
    """All that the GDC lists of a project; of the clinical supplement the one table of patients, else a file each."""
    heard = {"slides": client.search(diagnostic_slides(project)), "rna": client.search(star_counts(project))}
    tables = client.search(clinical_supplements(project, "BCR Biotab"))
    hits = [hit for hit in tables.hits if "_clinical_patient_" in str(hit.get("file_name"))]
    heard["clinical"] = replace(tables, hits=hits) if hits else client.search(clinical_supplements(project, "BCR XML"))
    return {**heard, "cases": client.search(cases(project))}


def _nobody(settings: Settings, n_slides: int) -> str:
    asked = f"sample type {' or '.join(settings.sample_types)}"
    if settings.only is not None:
        asked += f" and one of the {len(settings.only)} patients asked for"
    if settings.limit is not None:
        asked += ", with RNA"
    return f"{settings.project}: {n_slides} diagnostic slides, none of {asked} → correct --project or --sample-types"


def _of_patients(clinical: Sequence[RemoteFile], owners: dict[str, str]) -> list[RemoteFile]:
    """Tables of all patients, or the files named by a patient of the cohort."""
    ordered = sorted(clinical, key=lambda file: (file.name, file.file_id))
    return [file for file in ordered if not file.name.endswith(".xml") or any(part in owners for part in _parts(file))]


def _parts(file: RemoteFile) -> list[str]:
    return file.name.split(".")


def _apart(files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Give files that share a name, also where case is not told apart, a folder each."""
    names = Counter((file.kind, file.name.lower()) for file in files)
    return [file.model_copy(update={"apart": names[file.kind, file.name.lower()] > 1}) for file in files]


def _notes(plan: Plan) -> list[Problem]:
    """What the user should know of the choice."""
    notes = []
    aside = Counter((file.kind, file.why) for file in plan.files if not file.use)
    for (kind, why), count in sorted(aside.items()):
        notes.append(Problem(kind, f"{count} files set aside: {why}", severity="note"))
    known = {case.patient_id for case in plan.cases}
    asked = [] if plan.settings.limit is not None else sorted(set(plan.settings.only or ()) - known)
    if asked:
        found = f"{len(asked)} of the patients asked for have no such slide: {summarise(asked)}"
        notes.append(Problem("patients", found, severity="note"))
    with_rna = {file.patient for file in plan.used("rna")}
    without = [case.patient_id for case in plan.cases if case.patient_id not in with_rna]
    if without:
        notes.append(Problem("rna", f"{len(without)} patients have none: {summarise(without)}", severity="note"))
    fixed = [case.patient_id for case in plan.cases if case.preservation.upper() == "FFPE"]
    if fixed:
        found = f"of {len(fixed)} patients it is from formalin-fixed tissue: {summarise(fixed)}"
        notes.append(Problem("rna", found, severity="note"))
    if not plan.used("clinical"):
        notes.append(Problem("clinical", "the project has no clinical supplement: no HER2, PR, ER", severity="note"))
    closed = [file for file in plan.used() if file.access == "controlled"]
    if closed:
        notes.append(Problem("access", f"{len(closed)} files are controlled", mend="--token FILE", severity="note"))
    return notes
