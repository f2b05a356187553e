"""Damage that the HDF5 library would read for ever: a global heap whose free space has no size.

Texts of varying length, such as the attributes of a feature file, lie in global heaps (HDF5 file format, III.E: "GCOL",
version, size, then objects one after another, object 0 being the free space). The library goes from object to object by
their sizes, and does not end where one of them takes it no further, such as a free space that claims to be 0 bytes
long. Nothing can stop it then, so heaps are looked at before anything is read from them. Numbers are left out: only
what lies between the datasets is searched.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import h5py

from momkd.slides.remote import FeatureFile
from momkd.slides.sheet import defect

_SIGNATURE, _HEADER, _WRAP = b"GCOL", 16, 1 << 64
# Of what is not data; more would take longer than a header may, and only files that were rewritten often have it.
_MOST_BYTES = 64 << 20


def check_heaps(path: FeatureFile, file: Any, raw: BinaryIO) -> None:
    """Raise FeatureFileError for an open file, whose bytes are ``raw``, with a global heap that has no end."""
    gaps = list(_gaps(raw.seek(0, os.SEEK_END), sorted(_extents(file))))
    if sum(end - start for start, end in gaps) > _MOST_BYTES:
        return
    for start, end in gaps:
        raw.seek(start)
        if _endless(raw.read(end - start)):
            mend = "copy or write the file again"
            raise defect(path, "is damaged (a global heap that has no end)", "a complete HDF5 file", mend)


def _endless(part: bytes) -> bool:
    at = part.find(_SIGNATURE)
    while at >= 0:
        if _heap_is_endless(part, at):
            return True
        at = part.find(_SIGNATURE, at + 1)
    return False


def _heap_is_endless(part: bytes, at: int) -> bool:
    if at + _HEADER > len(part):
        return False
    (size,) = struct.unpack_from("<Q", part, at + 8)
    place, end = at + _HEADER, min(at + size, len(part))
    while place + _HEADER <= end:
        number, _, length = struct.unpack_from("<HH4xQ", part, place)
        # As the library goes on: in 64 bits, where a size near their limit means a step back.
        step = (length if number == 0 else _HEADER + (length + 7) // 8 * 8) % _WRAP
        if step == 0 or step >= _WRAP // 2:
            return True
        place += step
    return False


def _gaps(size: int, extents: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """What of a file of ``size`` bytes is in none of the ``extents`` (start, end), which are sorted."""
    done = 0
    for start, end in extents:
        if start > done:
            yield done, min(start, size)
        done = max(done, end)
    if done < size:
        yield done, size


def _extents(file: Any) -> Iterator[tuple[int, int]]:
    """Where the numbers of the datasets at the top and one group below lie."""
    for member in _members(file):
        layout = member.id.get_create_plist().get_layout()
        if layout == h5py.h5d.CONTIGUOUS:
            start = member.id.get_offset()
            if start is not None:
                yield start, start + member.id.get_storage_size()
        elif layout == h5py.h5d.CHUNKED:
            chunks: list[tuple[int, int]] = []
            member.id.chunk_iter(lambda chunk, chunks=chunks: chunks.append((chunk.byte_offset, chunk.size)))
            yield from ((start, start + length) for start, length in chunks)


def _members(file: Any) -> Iterator[Any]:
    for name in file:
        one = file.get(name)
        if isinstance(one, h5py.Dataset):
            yield one
        elif isinstance(one, h5py.Group):
            yield from (inner for key in one if isinstance(inner := one.get(key), h5py.Dataset))
