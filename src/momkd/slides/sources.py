"""The files that a slide's features are read from: mostly one, for some layouts a folder or several side by side."""

from __future__ import annotations

import hashlib
from pathlib import Path

from momkd.files import sha256_file

# What lies beside <slide>.pt and belongs to it.
SLIDEFLOW_INDEX, SLIDEFLOW_CONFIG = ".index.npz", "bags_config.json"
COORDS_ENDS = (".coords.npy", "_coords.npy", ".coords.pt", "_coords.pt")


def coords_beside(path: Path) -> Path | None:
    """The file of coordinates beside ``<slide>.pt``, such as ``<slide>_coords.npy``; None where there is none."""
    found = [path.with_name(path.stem + end) for end in COORDS_ENDS]
    return next((file for file in found if file.is_file()), None)


def is_coords(path: Path) -> bool:
    """Whether a ``.pt`` holds the coordinates of the ``.pt`` beside it."""
    for end in COORDS_ENDS:
        if path.name.endswith(end) and path.suffix == ".pt":
            return path.with_name(f"{path.name.removesuffix(end)}.pt").is_file()
    return False


def slideflow_index(path: Path) -> Path | None:
    """The index of a slideflow bag, which makes a ``.pt`` one; None where there is none."""
    index = path.with_name(f"{path.stem}{SLIDEFLOW_INDEX}")
    return index if index.is_file() else None


def source_files(path: Path) -> list[Path]:
    """Every file that ``read_bag(path)`` may read, sorted; ``path`` itself first where it is a file."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    if path.suffix != ".pt":
        return [path]
    index, coords = slideflow_index(path), coords_beside(path)
    beside = [] if index is None else [index, path.with_name(SLIDEFLOW_CONFIG)]
    beside += [] if coords is None else [coords]
    return [path, *(file for file in beside if file.is_file())]


def source_sha256(path: Path) -> str:
    """Hex SHA-256 of a source: of its bytes, or where it is several files of their names and digests."""
    files = source_files(path)
    if files == [path]:
        return sha256_file(path)
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(path.parent)}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()
