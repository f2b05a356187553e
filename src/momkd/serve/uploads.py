"""Files that people send: checked by name, size and first bytes before a byte is written, gone if anything is wrong."""

from __future__ import annotations

import errno
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from momkd.serve.answers import Refusal, refuse

_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
# What a file of a suffix begins with. Formats of several files (.mrxs, .vms, DICOM) cannot be sent as one; .pt files
# are pickles, and no pickle is accepted from outside.
_BEGINNINGS: dict[str, tuple[bytes, ...]] = {
    ".h5": (b"\x89HDF\r\n\x1a\n",),
    **dict.fromkeys((".svs", ".ndpi", ".scn", ".bif", ".qptiff", ".svslide", ".tif", ".tiff"), _TIFF),
    ".czi": (b"ZISRAWFILE",),
    ".png": (b"\x89PNG\r\n\x1a\n",),
    **dict.fromkeys((".jpg", ".jpeg"), (b"\xff\xd8\xff",)),
}
_LONGEST_NAME = 150
# What results of jobs still need when a file has come.
_SPARE_BYTES = 256 << 20
_HEAD = max(len(beginning) for every in _BEGINNINGS.values() for beginning in every)


@dataclass
class Upload:
    """A file that was sent, under ``path``; ``kind`` is what it was found to be."""

    name: str
    path: Path
    size: int
    kind: Literal["features", "slide"] = "features"
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    touched: float = field(default_factory=time.monotonic)

    @property
    def slide_id(self) -> str:
        """The name without its suffix."""
        return Path(self.name).stem

    def remove(self) -> None:
        """Remove the file with its folder."""
        shutil.rmtree(self.path.parent, ignore_errors=True)


def check_name(name: str, *, features_only: bool = False) -> str:
    """The suffix of a plain file name that may be sent; raises 400 for another name and 415 for another type."""
    plain = name == Path(name).name and not set(name) & set('/\\:*?"<>|') and name.isprintable()
    if not plain or not name or name.startswith(".") or len(name.encode()) > _LONGEST_NAME:
        raise refuse(400, f"name {name[:80]!r}: expected a plain file name of at most {_LONGEST_NAME} bytes")
    suffix = Path(name).suffix.lower()
    if suffix == ".pt":
        raise refuse(415, f"{name}: .pt files are pickles, which are not accepted; send .h5 (momkd import-features)")
    known = [".h5"] if features_only else list(_BEGINNINGS)
    if suffix not in known:
        raise refuse(415, f"{name}: a file of type {suffix or 'none'}; expected one of {' '.join(known)}")
    return suffix


def check_size(declared: str | None, most: int, folder: Path) -> None:
    """Raise 413 where the request says that it is too large, 400 where it says nonsense, 507 without room for it."""
    if declared is None:
        return
    if not declared.isdecimal():
        raise refuse(400, f"content-length {declared[:40]!r} is no number")
    if int(declared) > most:
        raise _too_large(most)
    if shutil.disk_usage(folder).free < int(declared) + _SPARE_BYTES:
        raise refuse(507, "the disk of the service has no room for the file")


async def receive(body: AsyncIterator[bytes], name: str, suffix: str, folder: Path, most: int) -> Upload:
    """Write a request's body to a new folder below ``folder``, under its own name with a small suffix.

    Raises 413 beyond ``most`` bytes, 415 where the file does not begin as its suffix says, 422 for an empty one and 507
    where the disk is full; whatever was written is then removed, as it is when the sender goes away.
    """
    head = b""
    async for chunk in body:
        head += chunk
        if len(head) >= _HEAD:
            break
    if not head:
        raise refuse(422, f"{name}: the file is empty")
    if not head.startswith(_BEGINNINGS[suffix]):
        raise refuse(415, f"{name}: its first bytes are not those of a {suffix} file")
    upload = Upload(name, folder / secrets.token_urlsafe(12) / f"{Path(name).stem}{suffix}", len(head))
    try:
        upload.path.parent.mkdir(parents=True)
        await _write(upload, head, body, most)
    except BaseException as error:
        upload.remove()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise refuse(507, f"{name}: the disk of the service is full") from error
        raise
    return upload


async def _write(upload: Upload, head: bytes, rest: AsyncIterator[bytes], most: int) -> None:
    with upload.path.open("xb") as file:
        if upload.size > most:
            raise _too_large(most)
        file.write(head)
        async for chunk in rest:
            upload.size += len(chunk)
            if upload.size > most:
                raise _too_large(most)
            file.write(chunk)


def _too_large(most: int) -> Refusal:
    return refuse(413, f"the file is larger than {most / 1e6:g} MB (--max-upload)")
