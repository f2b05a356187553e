"""Local copies of remote feature files: no more bytes than were allowed, the least recently used going first.

    CACHE/<32 hex digits of URL, version and size>.h5

Any number of processes share one cache. A file is fetched once, whole or not at all, and stays while it is read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from momkd.errors import FeatureFileError
from momkd.files import atomic_path, remove_leftovers
from momkd.locks import claim
from momkd.slides.remote import SUFFIX, FeatureFile, RemoteFile
from momkd.slides.sheet import defect, problem_of
from momkd.slides.sources import source_sha256

FOLDER, LIMIT = "MOMKD_CACHE", "MOMKD_CACHE_GB"
_USUAL_GB = 20.0


@dataclass(frozen=True)
class Cache:
    """A folder of local copies, ``limit`` bytes at most."""

    folder: Path
    limit: int

    @classmethod
    def usual(cls) -> Self:
        """The cache of this account: ``MOMKD_CACHE`` (else ~/.cache/momkd/features), ``MOMKD_CACHE_GB`` (else 20).

        Raises FeatureFileError where the second is no size.
        """
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        given = os.environ.get(LIMIT, str(_USUAL_GB))
        try:
            limit = int(float(given) * 1e9)
        except (ValueError, OverflowError):
            limit = 0
        if limit <= 0:
            raise defect(LIMIT, repr(given), "gigabytes, such as 20")
        return cls(Path(os.environ.get(FOLDER) or home / "momkd" / "features"), limit)

    @contextmanager
    def copy(self, file: RemoteFile) -> Iterator[Path]:
        """Yield a local copy, fetched if it is not there; it stays until the block ends. Raises FeatureFileError."""
        if file.size > self.limit:
            found = f"{file.size / 1e9:.3g} GB, more than the cache may hold"
            raise defect(file.url, found, f"{self.limit / 1e9:.3g} GB or less", f"set {LIMIT}")
        key = hashlib.sha256(f"{file.url}\n{file.version}\n{file.size}".encode()).hexdigest()[:32]
        target = self.folder / f"{key}{SUFFIX}"
        with claim(_lock_of(target), wait=True):
            if not target.is_file() or target.stat().st_size != file.size:
                remove_leftovers(self.folder, key)
                self._make_room(file.size)
                with atomic_path(target) as temporary:
                    file.download(temporary)
            os.utime(target)
            yield target

    def _make_room(self, size: int) -> None:
        """Remove copies that nobody reads, the longest unused first, until ``size`` more bytes fit.

        What others fetch just now counts as far as it has come, so several processes can be over the limit by the
        files that they are fetching.
        """
        found = [(path, state) for path in self.folder.glob(f"*{SUFFIX}") if (state := _state_of(path)) is not None]
        left = self.limit - size - sum(state.st_size for _, state in found)
        for path, state in sorted(found, key=lambda one: (one[1].st_mtime_ns, one[0])):
            if left >= 0:
                return
            # An unfinished file has the lock of its target: .<key>.<process>.<digits>.tmp.h5
            own = path.with_name(f"{path.name.removeprefix('.').partition('.')[0]}{SUFFIX}")
            with claim(_lock_of(own)) as holder:
                if holder is None:
                    path.unlink(missing_ok=True)
                    left += state.st_size


def file_sha256(file: FeatureFile) -> str:
    """Hex SHA-256 of a source as ``source_sha256`` has it, wherever it is. Raises FeatureFileError."""
    with local_copy(file) as path:
        return source_sha256(path)


def _lock_of(target: Path) -> Path:
    return target.with_suffix(".lock")


def _state_of(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:  # another process made room
        return None


@contextmanager
def local_copy(file: FeatureFile) -> Iterator[Path]:
    """Yield a path that can be read: the file itself, or its copy in the usual cache.

    FeatureFileErrors from within the block name the URL instead of the copy.
    """
    if isinstance(file, Path):
        yield file
        return
    with Cache.usual().copy(file) as path:
        try:
            yield path
        except FeatureFileError as error:
            problem = problem_of(error)
            if problem.subject != str(path):
                raise
            raise defect(file.url, problem.found, problem.expected, problem.mend) from error
