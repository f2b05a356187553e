"""Any known layout → momkd's own feature files; resumable, and one broken file never stops the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from momkd.errors import FeatureFileError, Problem, summarise
from momkd.files import remove_leftovers
from momkd.locks import claim
from momkd.parallel import Place, chunks, given, run_tasks
from momkd.slides.bag import Bag
from momkd.slides.cache import file_sha256
from momkd.slides.folders import given_features
from momkd.slides.mpp import SlideMpp, mpp_of
from momkd.slides.readers import bag_digest, inspect_bag, read_bag
from momkd.slides.remote import FeatureFile, RemoteFile
from momkd.slides.sheet import defect, problem_of
from momkd.slides.writer import SourceNote, precision_note, read_notes, with_graph, write_bag, write_graph

Progress = Callable[[int, int, str], None]
"""Called after every slide with (done, total, slide id)."""
# Into so many tasks the files are divided for a cluster.
_SHARDS = 256


@dataclass(frozen=True)
class ImportReport:
    """What became of every slide: ids newly written, ids left as they were, problems (errors: nothing was written)."""

    out: Path
    written: tuple[str, ...]
    unchanged: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def failed(self) -> tuple[Problem, ...]:
        """The problems of severity "error"."""
        return tuple(problem for problem in self.problems if problem.severity == "error")


def import_features(
    source: Path | str,
    out: Path,
    *,
    dtype: str = "float16",
    slide_mpp: SlideMpp = None,
    graph_k: int | None = None,
    table: str | None = None,
    place: Place | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Write momkd's own ``<slide>.h5`` in ``out`` for one feature file, or every one of a folder, in any known layout.

    ``source``: a file, a folder of files, or a tool's root folder with one folder of features below it; or the URL of
    ``.h5`` files (``remote.py``): those that were imported at the same version are not fetched again. ``dtype``
    float16 or float32; ``slide_mpp`` µm per level-0 pixel where the files lack it; ``graph_k``: also store
    edge_index_k<k>; ``table``: the features of LazySlide stores that hold several; ``place``: where files are imported
    (default: this process).

    Resumes by validation: a target is left alone if it opens, has the contents that its digest promises, and was made
    from a source of the same SHA-256 with the same settings; otherwise it is written again, and a note says why. A
    bad source file becomes a problem in the report and the others go on. Raises FeatureFileError where ``source`` has
    no features, where ``out`` is the source folder, or for a setting that no file could satisfy.
    """
    out = Path(out)
    if dtype not in ("float16", "float32"):
        raise defect("--dtype", repr(dtype), "float16 or float32")
    if graph_k is not None and graph_k < 1:
        raise defect("--k", f"{graph_k}", "1 or more neighbours, or no graph")
    files, problems = given_features(source)
    if any(isinstance(path, Path) and path.parent.resolve() == out.resolve() for path in files):
        raise defect(out, "the folder of the source files", "another folder for --out")
    job = _Job(out, dtype, slide_mpp, graph_k, table)
    found: list[_Imported] = []

    def take(one: _Imported) -> None:
        found.append(one)
        if progress is not None:
            progress(len(found), len(files), one.slide_id)

    if place is None or not place.ray:
        _import_some(job, files, take)
    else:
        run_tasks(chunks(files, _SHARDS), given(job), _import_some, place=place, workers=1, watch=take)
    found.sort(key=lambda one: one.slide_id)
    problems += [problem for one in found for problem in one.problems]
    problems += _leftovers(out)
    return ImportReport(
        out,
        tuple(one.slide_id for one in found if one.state == "written"),
        tuple(one.slide_id for one in found if one.state == "unchanged"),
        (*problems, *_combined([note for one in found for note in one.blurred])),
    )


@dataclass(frozen=True)
class _Job:
    """What every file is imported with."""

    out: Path
    dtype: str
    slide_mpp: SlideMpp
    graph_k: int | None
    table: str | None

    @property
    def settings(self) -> dict[str, str | int | float | None]:
        named = {} if self.table is None else {"table": self.table}
        return {"dtype": self.dtype, "graph_k": self.graph_k, **named}


@dataclass(frozen=True)
class _Imported:
    """What became of one file; ``blurred``: notes on precision, which are joined for a cohort."""

    slide_id: str
    state: Literal["written", "unchanged", "failed"]
    problems: tuple[Problem, ...] = ()
    blurred: tuple[Problem, ...] = ()


def _import_some(job: _Job, files: Sequence[FeatureFile], tell: Callable[[Any], None]) -> None:
    for path in files:
        try:
            tell(_import_one(job, path))
        except FeatureFileError as error:
            tell(_Imported(path.stem, "failed", (problem_of(error),)))


def _import_one(job: _Job, path: FeatureFile) -> _Imported:
    target = job.out / f"{path.stem}.h5"
    settings = {**job.settings, "slide_mpp": mpp_of(job.slide_mpp, path.stem)}
    if isinstance(path, RemoteFile):
        settings |= {"url": path.url, "version": path.version, "size": path.size}
        if _is_made_from(target, settings):
            return _Imported(path.stem, "unchanged")
    note = _source_note(path, settings)
    with claim(job.out / f".{path.stem}.lock", wait=True):
        remove_leftovers(job.out, path.stem)
        state = _state(target, note)
        if state == "current":
            return _Imported(path.stem, "unchanged")
        bag = read_bag(path, slide_mpp=job.slide_mpp, table=job.table)
        blurred = _write_one(bag, target, note, job.dtype, job.graph_k)
    return _Imported(path.stem, "written", tuple(_replaced(target, state)), tuple(blurred))


def add_graphs(folder: Path, k: int, *, progress: Progress | None = None) -> ImportReport:
    """Add edge_index_k<k> to every feature file of ours in a folder, each atomically (``momkd graph DIR``).

    A file that has it is unchanged; a file of another layout, or without coordinates, becomes a problem in the report.
    Raises FeatureFileError where the folder has no feature files or k is below 1.
    """
    if k < 1:
        raise defect("--k", f"{k}", "1 or more neighbours")
    found, problems = given_features(Path(folder))
    files = [file for file in found if isinstance(file, Path)]
    written: list[str] = []
    unchanged: list[str] = []
    for done, path in enumerate(files, 1):
        try:
            (written if write_graph(path, k) else unchanged).append(path.stem)
        except FeatureFileError as error:
            problems.append(problem_of(error))
        if progress is not None:
            progress(done, len(files), path.stem)
    return ImportReport(Path(folder), tuple(written), tuple(unchanged), tuple(problems))


def _source_note(path: FeatureFile, settings: Mapping[str, str | int | float | None]) -> SourceNote:
    """Say what a target must have been made from; the patch size too, since CLAM keeps it in another file."""
    # The header first: it names a missing or truncated file better than the digest would.
    table = settings.get("table")
    info = inspect_bag(path, slide_mpp=_as_float(settings["slide_mpp"]), table=None if table is None else str(table))
    full = {**settings, "patch_size_level0": info.patch_size_level0}
    return SourceNote(path.name, file_sha256(path), info.layout, json.dumps(full, sort_keys=True))


def _as_float(value: str | float | None) -> float | None:
    return None if value is None else float(value)


def _is_made_from(target: Path, settings: Mapping[str, str | int | float | None]) -> bool:
    """Whether a whole target was made from this very version of a remote file, which need not be fetched to know it."""
    notes = _notes_of_whole(target)
    try:
        made = json.loads("{}" if notes is None else notes.get("settings", "{}"))
        made.pop("patch_size_level0", None)
    except (ValueError, AttributeError):
        return False
    return bool(made == settings)


def _notes_of_whole(target: Path) -> Mapping[str, str] | None:
    """The notes of a target whose contents are what its digest promises; None of another, or where there is none."""
    try:
        notes = read_notes(target)
        return notes if notes.get("content_sha256") == bag_digest(read_bag(target)) else None
    except FeatureFileError:
        return None


State = Literal["absent", "current", "damaged", "other"]


def _state(target: Path, note: SourceNote) -> State:
    """Say whether a target is there, whole, and what ``note`` would make."""
    if not target.exists():
        return "absent"
    notes = _notes_of_whole(target)
    if notes is None:
        return "damaged"
    made_from = (notes.get("source_file"), notes.get("source_sha256"), notes.get("settings"))
    return "current" if made_from == (note.file, note.sha256, note.settings) else "other"


def _write_one(bag: Bag, target: Path, note: SourceNote, dtype: str, graph_k: int | None) -> list[Problem]:
    """Write one target and return the notes on it."""
    if graph_k is not None:
        bag = with_graph(bag, graph_k)
    write_bag(bag, target, dtype=dtype, producer=f"momkd {version('momkd')} import-features", source_note=note)
    blurred = precision_note(bag) if dtype == "float16" else None
    return [] if blurred is None else [blurred]


def _replaced(target: Path, state: State) -> list[Problem]:
    if state == "absent":
        return []
    why = "was incomplete or damaged" if state == "damaged" else "was made from another source or with other settings"
    return [Problem(str(target), f"{why}; it has been written again", severity="note")]


def _leftovers(out: Path) -> list[Problem]:
    """Note unfinished files of slides that this import was not about; no reader takes them for features."""
    if not out.is_dir():
        return []
    names = sorted(path.name for path in out.glob(".*.tmp.h5"))
    if not names:
        return []
    found = f"{len(names)} unfinished files of an interrupted import: {summarise(names)}"
    return [Problem(str(out), found, mend="delete them, unless another import is running", severity="note")]


def _combined(notes: Iterable[Problem]) -> list[Problem]:
    """Join the notes on float16 precision: one says enough for a cohort."""
    listed = list(notes)
    if len(listed) < 2:
        return listed
    slides = summarise([note.subject.removeprefix("slide ") for note in listed])
    first = listed[0]
    return [Problem(f"{len(listed)} slides", f"in {slides}: {first.found}", mend=first.mend, severity="note")]
