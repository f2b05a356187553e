"""Files that are either whole or not there: atomic writes, digests, JSON."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from momkd.errors import DamagedFileError

# How a temporary name ends: process, eight hex digits, the suffix of the file that it was to be.
_LEFTOVER = re.compile(r"\.\d+\.[0-9a-f]{8}\.tmp(\.\w+)?$")


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; on success fsync it and rename it to ``target``.

    A crash at any point leaves either the old file or none under the final name. The temporary file is removed when the
    block raises. Parent folders are made. The block writes this file and does nothing else: an OSError of the system
    that names no file, or the temporary one, is raised as one that names ``target``.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept last because some writers choose their format by it.
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.{secrets.token_hex(4)}.tmp{target.suffix}")
    try:
        yield temporary
        publish(temporary, target)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, stem: str) -> None:
    """Remove unfinished files that a killed process left for ``stem``; to be called by who holds its lock."""
    for path in folder.glob(f".{_literal(stem)}.*.tmp.*"):
        if path.name.startswith(f".{stem}.") and _LEFTOVER.fullmatch(path.name.removeprefix(f".{stem}")):
            path.unlink(missing_ok=True)


def remove_all_leftovers(folder: Path) -> None:
    """Remove every unfinished file below a folder; to be called by who alone writes there."""
    for path in folder.rglob(".*.tmp.*"):
        if _LEFTOVER.search(path.name):
            path.unlink(missing_ok=True)


def _literal(text: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", text)


def publish(finished: Path, target: Path) -> None:
    """Give a finished file of the same folder its final name: fsync, rename, and make the rename durable."""
    with finished.open("rb+") as handle:
        os.fsync(handle.fileno())
    finished.replace(target)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; a no-op where folders cannot be opened (Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(target: Path, text: str) -> None:
    """Write UTF-8 text atomically, with Unix line ends on every system."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def write_json(target: Path, value: Any) -> None:
    """Write JSON atomically: two-space indent, keys in the order given, NaN refused."""
    write_text(target, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(source: Path) -> Any:
    """Read a UTF-8 JSON file; raises DamagedFileError, which is a ValueError, where it is none."""
    try:
        return json.loads(Path(source).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(
            f"{source}: is damaged, it is not JSON ({error}) → put back a copy, or delete it and give the command that "
            "made it"
        ) from error


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def md5_file(path: Path) -> str:
    """Hex MD5 of a file's bytes, for comparison with what an archive publishes; no protection against forgery."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
