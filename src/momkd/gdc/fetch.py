"""One file: what is there already, the rest from the server, the digest, and only then the final name."""

from __future__ import annotations

import hashlib
import http.client
import re
from collections.abc import Callable
from pathlib import Path

from momkd.errors import GdcError
from momkd.files import publish
from momkd.gdc.client import Client, Stopped
from momkd.gdc.records import PART, RemoteFile
from momkd.gdc.transport import PassingError, RangeError

_BLOCK = 1 << 20
# An attempt that brought so many bytes more than any before it counts as none of the failed ones.
_PROGRESS = 1 << 20


def fetch(client: Client, file: RemoteFile, target: Path, *, advance: Callable[[int], None] | None = None) -> None:
    """Bring a file to ``target``; what is not complete lies beside it as <name>.part, and is gone on with.

    ``advance`` is told of bytes that are there, that come, and that are thrown away (a negative number). Raises
    GdcError when the server gives something else than the plan says, or nothing after all retries; Stopped when the
    client stops.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _Part(target.with_name(target.name + PART), file.size, advance or (lambda _: None))
    failed, most, spoilt = 0, part.size, False
    while True:
        if part.size == file.size:
            if part.md5() == file.md5:
                publish(part.path, target)
                return
            found = part.md5()
            part.clear()
            if spoilt:
                raise GdcError(_wrong_digest(file, found))
            # What was there before may have been spoilt by a crash; what came in one piece was not.
            spoilt, most = True, 0
        try:
            _read_rest(client, file, part)
        except PassingError as error:
            if isinstance(error, RangeError):
                part.clear()
            failed = 1 if part.size >= most + _PROGRESS else failed + 1
            most = max(most, part.size)
            client.pause(file.name, failed, error)


class _Part:
    """The bytes of an unfinished file and the digest of them, kept together."""

    def __init__(self, path: Path, whole: int, advance: Callable[[int], None]) -> None:
        self.path = path
        self.size = 0
        self._digest = hashlib.md5(usedforsecurity=False)
        self._advance = advance
        if path.exists() and path.stat().st_size > whole:
            path.unlink()
        if path.exists():
            with path.open("rb") as handle:
                while block := handle.read(_BLOCK):
                    self._count(block)

    def append(self, blocks: Callable[[], bytes], limit: int) -> None:
        """Write blocks until there are none; raises GdcError before going beyond ``limit`` bytes in all."""
        with self.path.open("r+b" if self.path.exists() else "xb") as handle:
            handle.seek(self.size)
            handle.truncate()
            while block := blocks():
                if self.size + len(block) > limit:
                    raise GdcError(f"more bytes than the {limit} that were announced")
                handle.write(block)
                self._count(block)

    def clear(self) -> None:
        """Throw away what is there."""
        self.path.unlink(missing_ok=True)
        self._advance(-self.size)
        self.size = 0
        self._digest = hashlib.md5(usedforsecurity=False)

    def md5(self) -> str:
        """The digest of the bytes so far."""
        return self._digest.hexdigest()

    def _count(self, block: bytes) -> None:
        self._digest.update(block)
        self.size += len(block)
        self._advance(len(block))


def _read_rest(client: Client, file: RemoteFile, part: _Part) -> None:
    """One attempt to read what is missing; raises PassingError where the body ends early."""
    with client.open_file(file.file_id, part.size) as response:
        if response.status != 206 and part.size:
            part.clear()
        _check_headers(file, response, part.size)

        def block() -> bytes:
            if client.stop.is_set():
                raise Stopped
            return response.read1(_BLOCK)

        try:
            part.append(block, file.size)
        except GdcError as error:
            part.clear()
            raise GdcError(f"{file.name} ({file.file_id}): {error} → run momkd gdc plan again") from error
    if part.size < file.size:
        raise PassingError(f"the body ended after {part.size} of {file.size} bytes")


def _check_headers(file: RemoteFile, response: http.client.HTTPResponse, start: int) -> None:
    """Refuse an answer that is not the bytes from ``start`` of a file of the planned size."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise GdcError(f"{file.name} ({file.file_id}): sent as {encoding!r}; expected the file as it is")
    total = response.headers.get("Content-Length")
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != start:
            raise RangeError("the server gives another part of the file than the one asked for")
        total = None if found[2] == "*" else found[2]
    if total is not None and total != str(file.size):
        raise GdcError(
            f"{file.name} ({file.file_id}): the server has {total} bytes; expected the {file.size} that it announced → "
            "run momkd gdc plan again"
        )


def _wrong_digest(file: RemoteFile, found: str) -> str:
    return (
        f"{file.name} ({file.file_id}): MD5 {found} twice; expected {file.md5} → run momkd gdc plan again; if that "
        "changes nothing, the GDC's help desk should know"
    )
