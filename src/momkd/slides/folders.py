"""Finding feature files: in a folder, or one level below it where a tool's root folder is given."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

from momkd.errors import FeatureFileError, Problem, summarise
from momkd.slides.remote import SUFFIX as REMOTE_SUFFIX
from momkd.slides.remote import FeatureFile, RemoteFile, is_remote, list_remote, remote_files
from momkd.slides.sheet import defect, problem_of
from momkd.slides.sources import is_coords

# In order of preference: an .h5 is quickest to read, a .pt has coordinates in another file, if at all.
SUFFIXES = (".h5", ".zarr", ".pt")
# Patch coordinates without features; in CLAM's and TRIDENT's root folders.
_NOT_FEATURES = ("patches",)


def feature_folder(folder: Path) -> Path:
    """Return the folder that holds the feature files: ``folder`` itself, or the only such folder directly below it.

    Below a CLAM root, h5_files is preferred to pt_files. Raises FeatureFileError where there is none, or several.
    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        raise defect(folder, found, "a folder of feature files", "correct features.dir")
    if _has_features(folder):
        return folder
    below = sorted(path for path in folder.iterdir() if path.is_dir() and path.name not in _NOT_FEATURES)
    holding = [path for path in below if not path.name.startswith(".") and _has_features(path)]
    if {path.name for path in holding} == {"h5_files", "pt_files"}:
        holding = [folder / "h5_files"]
    if len(holding) == 1:
        return holding[0]
    if holding:
        names = summarise([path.name for path in holding])
        raise defect(folder, f"several folders of features: {names}", "one encoder's features", "give one of them")
    names = summarise(sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")))
    found = f"no feature file; it holds {names}" if names else "an empty folder"
    raise defect(
        folder,
        found,
        "files <slide>.h5, <slide>.zarr or <slide>.pt",
        "correct features.dir, or run momkd import-features",
    )


def list_features(folder: Path) -> dict[str, dict[str, Path]]:
    """List the feature files directly in a folder: {slide id: {suffix: path}}, slide ids sorted.

    Hidden files (unfinished ones among them) are not listed.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(Path(folder).iterdir()):
        if _is_features(path) and path.exists():
            found.setdefault(path.stem, {})[path.suffix] = path
    return dict(sorted(found.items()))


def choose_file(slide_id: str, files: dict[str, Path]) -> tuple[Path, Problem | None]:
    """Choose a slide's file, .h5 before .pt, with a note where both are there."""
    chosen = files[next(suffix for suffix in SUFFIXES if suffix in files)]
    if len(files) == 1:
        return chosen, None
    names = " and ".join(files[suffix].name for suffix in SUFFIXES if suffix in files)
    return chosen, Problem(slide_id, f"both {names} in {chosen.parent}; {chosen.name} is used", severity="note")


def find_features(folder: Path | str, slide_ids: Sequence[str]) -> tuple[dict[str, FeatureFile], list[Problem]]:
    """Find every slide's file in a folder, here or behind a URL: ``<slide_id>.h5``, else ``.zarr``, else ``.pt``.

    Returns {slide id: path} of those found, and every problem: an error for a missing file (with the nearest name
    that is there), a note where both types exist. Both are sorted by slide id.
    """
    wanted = sorted(set(slide_ids))
    try:
        if is_remote(folder):
            return _find_remote(str(folder), wanted)
        place = feature_folder(Path(folder))
    except FeatureFileError as error:
        return {}, [problem_of(error)]
    listed = list_features(place)
    stems = list(listed)
    found: dict[str, FeatureFile] = {}
    problems: list[Problem] = []
    for slide_id in wanted:
        if slide_id not in listed:
            problems.append(_missing(place, slide_id, stems))
            continue
        found[slide_id], note = choose_file(slide_id, listed[slide_id])
        if note is not None:
            problems.append(note)
    return found, problems


def given_features(source: str | Path) -> tuple[list[FeatureFile], list[Problem]]:
    """Return the feature files that a word of the command line means, sorted by slide id, with notes on choices.

    A file, a folder of files or a tool's root folder, here or behind a URL. Raises FeatureFileError where a folder has
    no features, or a URL cannot be read.
    """
    if is_remote(source):
        url = str(source)
        files = [url] if url.endswith(REMOTE_SUFFIX) else list(list_remote(url).values())
        return [_or_raise(found) for found in remote_files(files)], []
    path = Path(source)
    if path.is_file() or path.suffix == ".zarr" or (not path.is_dir() and path.suffix in SUFFIXES):
        return [path], []
    chosen: list[FeatureFile] = []
    notes = []
    for slide_id, found in list_features(feature_folder(path)).items():
        file, note = choose_file(slide_id, found)
        chosen.append(file)
        notes += [] if note is None else [note]
    return chosen, notes


def _find_remote(url: str, wanted: Sequence[str]) -> tuple[dict[str, FeatureFile], list[Problem]]:
    listed = list_remote(url)
    there = [slide_id for slide_id in wanted if slide_id in listed]
    problems = [_missing(url, slide_id, list(listed)) for slide_id in wanted if slide_id not in listed]
    found: dict[str, FeatureFile] = {}
    for slide_id, file in zip(there, remote_files([listed[slide_id] for slide_id in there]), strict=True):
        if isinstance(file, FeatureFileError):
            problems.append(problem_of(file))
        else:
            found[slide_id] = file
    return found, problems


def _or_raise(found: RemoteFile | FeatureFileError) -> RemoteFile:
    if isinstance(found, FeatureFileError):
        raise found
    return found


def _has_features(folder: Path) -> bool:
    return any(_is_features(path) for path in folder.iterdir())


def _is_features(path: Path) -> bool:
    """By its name; a dangling link counts, so that whoever reads it says so."""
    if path.suffix not in SUFFIXES or path.name.startswith(".") or is_coords(path):
        return False
    return path.is_dir() == (path.suffix == ".zarr") or not path.exists()


def _missing(folder: Path | str, slide_id: str, stems: Sequence[str]) -> Problem:
    near = _near(slide_id, stems)
    mend = f"is {near} meant? Slide ids must be file names without their suffix" if near else ""
    mend = mend or "extract this slide's features, or list it in cohort.exclude"
    return Problem(slide_id, f"no feature file in {folder}", f"{slide_id}.h5 or {slide_id}.pt", mend)


def _near(slide_id: str, stems: Sequence[str]) -> str | None:
    """Return the sorted ``stems`` member that continues ``slide_id``, or that it continues (an id with .svs)."""
    place = bisect_left(stems, slide_id)
    if place < len(stems) and stems[place].startswith(slide_id):
        return stems[place]
    shorter = slide_id
    while "." in shorter:
        shorter = shorter.rpartition(".")[0]
        place = bisect_left(stems, shorter)
        if place < len(stems) and stems[place] == shorter:
            return shorter
    return None
