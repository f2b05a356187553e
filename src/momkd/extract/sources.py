"""What the user names → a list of slides: files, folders of them, or a table with a column file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from momkd.errors import ExtractError, Problem, raise_problems, summarise
from momkd.extract.settings import mpp_problem, plausible_mpp

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
# What a folder is searched for; a file that is named itself may have any suffix. DICOM is not here because a slide is
# several .dcm files there: name one of them, in a table or on the command line.
SLIDE_SUFFIXES = frozenset(
    (".svs", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".czi", ".qptiff", ".isyntax")
) | frozenset(IMAGE_SUFFIXES)
_SEPARATORS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class Slide:
    """One slide to extract: its id, its file, and its µm per level-0 pixel where a table gives one."""

    slide_id: str
    path: Path
    mpp: float | None = None


def find_slides(sources: Sequence[Path], *, out: Path | None = None) -> list[Slide]:
    """Return the slides of files, folders (searched with their subfolders) and tables (.csv, .tsv), sorted by id.

    A table has a column file, with paths relative to the table's folder, and may have slide_id and mpp. Otherwise the
    id is the file name without its last suffix. Hidden files, and those below ``out`` (pictures of an earlier run), are
    not slides. Raises ExtractError listing every missing file, bad number, and id that two files share.
    """
    slides: list[Slide] = []
    problems: list[Problem] = []
    for source in map(Path, sources):
        if source.is_dir():
            found = [Slide(path.stem, path) for path in _files_below(source, out)]
            problems += [] if found else [_nothing_in(source)]
            slides += found
        elif not source.exists():
            problems.append(Problem(str(source), "no such file or folder", "a slide, a folder of them, or a table"))
        elif source.suffix.lower() in _SEPARATORS:
            listed, wrong = _from_table(source)
            slides += listed
            problems += wrong
        else:
            slides.append(Slide(source.stem, source))
    unique = list(dict.fromkeys(slides))
    raise_problems([*problems, *_shared_ids(unique)], ExtractError)
    return sorted(unique, key=lambda slide: slide.slide_id)


def _files_below(folder: Path, out: Path | None) -> list[Path]:
    left_out = None if out is None else out.resolve()
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SLIDE_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and (left_out is None or left_out not in path.resolve().parents)
    )


def _nothing_in(folder: Path) -> Problem:
    return Problem(str(folder), "no slide in this folder or below it", f"files {' '.join(sorted(SLIDE_SUFFIXES))}")


def _from_table(table: Path) -> tuple[list[Slide], list[Problem]]:
    import pandas as pd

    separator = _SEPARATORS[table.suffix.lower()]
    try:
        frame = pd.read_csv(table, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        return [], [Problem(str(table), f"not readable as a table: {error}", "CSV or TSV in UTF-8")]
    columns = [str(name).strip() for name in frame.columns]
    if "file" not in columns:
        mend = "name the column of the slides' paths file; slide_id and mpp are optional"
        return [], [Problem(str(table), f"no column file; it has {summarise(columns, 12)}", "a column file", mend)]
    slides: list[Slide] = []
    problems: list[Problem] = []
    for line, values in enumerate(frame.itertuples(index=False), 2):
        row = {name: str(value).strip() for name, value in zip(columns, values, strict=True)}
        slide, wrong = _from_row(table, line, row)
        problems += wrong
        slides += [] if slide is None else [slide]
    if not slides and not problems:
        problems.append(Problem(str(table), "no row", "one row a slide"))
    return slides, problems


def _from_row(table: Path, line: int, row: dict[str, str]) -> tuple[Slide | None, list[Problem]]:
    where = f"{table}, line {line}"
    if not row["file"]:
        return None, [Problem(where, "an empty cell in column file", "the slide's path")]
    path = table.parent / row["file"]
    problems = [] if path.is_file() else [Problem(where, f"no such file: {path}", mend="mend the path in column file")]
    slide_id = row.get("slide_id") or path.stem
    if slide_id != Path(slide_id).name or slide_id.startswith("."):
        problems.append(Problem(where, f"slide_id {slide_id!r} is no file name", "an id without a folder in it"))
    mpp: float | None = None
    if row.get("mpp"):
        try:
            mpp = float(row["mpp"])
        except ValueError:
            problems.append(Problem(where, f"mpp {row['mpp']!r}", "a number, µm per level-0 pixel"))
        else:
            problems += [] if plausible_mpp(mpp) else [mpp_problem(f"{where}, column mpp", mpp)]
    return Slide(slide_id, path, mpp), problems


def _shared_ids(slides: Iterable[Slide]) -> list[Problem]:
    files: dict[str, list[str]] = defaultdict(list)
    for slide in slides:
        files[slide.slide_id].append(str(slide.path))
    mend = "name the files of one of them, or give a table with columns file and slide_id"
    return [
        Problem(f"slide {slide_id}", f"{len(paths)} files: {summarise(sorted(paths))}", "one file", mend)
        for slide_id, paths in sorted(files.items())
        if len(paths) > 1
    ]
