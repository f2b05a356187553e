"""Opening HDF5 feature files and reading their members, every failure named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from momkd.slides.heaps import check_heaps
from momkd.slides.remote import FeatureFile
from momkd.slides.sheet import Stored, defect

_DAMAGED = "copy or write the file again; it is incomplete or not HDF5"


@contextmanager
def open_h5(path: FeatureFile) -> Iterator[Any]:
    """Yield the open ``h5py.File`` and close it whatever happens; one behind a URL is read in ranges.

    Raises FeatureFileError where the file is missing, truncated or not HDF5.
    """
    if isinstance(path, Path) and not path.is_file():
        raise defect(path, "a folder" if path.is_dir() else "no such file", "an HDF5 feature file")
    with ExitStack() as opened:
        try:
            raw = opened.enter_context(path.open("rb") if isinstance(path, Path) else path.open())
            file = opened.enter_context(h5py.File(path if isinstance(path, Path) else raw, "r"))
        except OSError as error:
            raise defect(path, f"cannot be opened ({error})", "a complete HDF5 file", _DAMAGED) from error
        with _named(path):
            check_heaps(path, file, raw)
            yield file


@contextmanager
def _named(path: FeatureFile) -> Iterator[None]:
    """Errors of h5py where a file is damaged further in, as ours."""
    try:
        yield
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise defect(path, f"is damaged ({error})", "a complete HDF5 file", _DAMAGED) from error


def dataset(path: FeatureFile, file: Any, name: str) -> Stored:
    """Return a dataset of an open file, unread.

    Raises FeatureFileError where the member is missing, a group, or has a type without a NumPy equivalent.
    """
    try:
        member = file[name]
    except KeyError as error:
        raise defect(path, f"no dataset {name}: it holds {contents(file)}", f"a dataset {name}") from error
    if not isinstance(member, h5py.Dataset):
        is_group = isinstance(member, h5py.Group)
        inside = ", ".join(f"{name}/{key}" for key in member) if is_group else ""
        kind = f"a group (holding {inside or 'nothing'})" if is_group else "a named type"
        raise defect(path, f"{name} is {kind}", f"{name} to be a dataset")
    try:
        dtype = np.dtype(member.dtype)
    except (TypeError, ValueError) as error:
        raise defect(path, f"{name} has a type that NumPy does not know ({error})", "numbers") from error
    return Stored(name, tuple(member.shape or ()), dtype, lambda: _read_whole(path, name, member))


def _read_whole(path: FeatureFile, name: str, member: Any) -> np.ndarray:
    """Read a dataset in one call: many small reads of (1, D) chunks cost tens of times more."""
    try:
        values = np.asarray(member[()])
    except (OSError, RuntimeError) as error:
        raise defect(path, f"{name} cannot be read ({error})", "a complete HDF5 file", _DAMAGED) from error
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def text(owner: Any, name: str) -> str | None:
    """Return an attribute as text; None where it is absent, empty or the text "None" (TRIDENT's way)."""
    value = _scalar(owner, name)
    if value is None:
        return None
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return None if value in ("", "None") else value


def number(path: FeatureFile, owner: Any, name: str) -> float | None:
    """Return an attribute as a number above 0; None where it is absent or the text "None".

    Raises FeatureFileError where it is anything else.
    """
    value = text(owner, name)
    if value is None:
        return None
    try:
        result = float(value)
    except ValueError:
        result = float("nan")
    if not 0 < result < float("inf"):
        raise defect(path, f"attribute {name} is {value!r}", "a number above 0, or no such attribute")
    return result


def _scalar(owner: Any, name: str) -> Any:
    if name not in owner.attrs:
        return None
    value = owner.attrs[name]
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, np.ndarray):
        return value.flat[0] if value.size else None
    return value


def contents(file: Any) -> str:
    """List a file's members with shape and type, for messages."""
    parts = []
    for key in file:
        member = file.get(key)
        is_array = isinstance(member, h5py.Dataset)
        parts.append(f"{key} {member.shape} {member.dtype}" if is_array else f"{key} (group)")
    return ", ".join(parts) or "nothing"
