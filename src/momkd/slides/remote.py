"""Feature files behind a URL: s3://, gs://, az://, https:// … through fsspec, each by size and version.

A folder is listed once. Headers are read in ranges, so that checking a cohort does not move it; whole files come
through the bounded cache of ``cache.py``. Only ``.h5`` files, which all tools write, are read from afar.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from momkd.errors import FeatureFileError, summarise
from momkd.slides.sheet import defect

T = TypeVar("T")
SCHEMES = ("s3", "gs", "gcs", "az", "abfs", "https", "http")
SUFFIX = ".h5"
# What the stores call the mark that changes with a file's contents, the surest first.
_MARKS = ("ETag", "etag", "md5Hash", "content_md5", "generation", "Last-Modified", "LastModified", "last_modified")
_TRIES, _PAUSE = 3, 0.5
_AT_ONCE = 16
# Of a header's file so much is read at a time: metadata lie close together, features are what must not be read.
_BLOCK = 1 << 18


@dataclass(frozen=True)
class RemoteFile:
    """A feature file behind a URL: its ``url``, its ``size`` in bytes, and a ``version`` that changes with it."""

    url: str
    size: int
    version: str

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The file name, as in ``Path.name``."""
        return _name_of(self.url)

    @property
    def stem(self) -> str:
        """The slide id, as in ``Path.stem``."""
        return self.name.removesuffix(SUFFIX)

    @property
    def suffix(self) -> str:
        """``.h5``."""
        return SUFFIX

    def open(self) -> Any:
        """Open it for reading in ranges; raises FeatureFileError."""

        def attempt() -> Any:
            system, path = _connect(self.url)
            return system.open(path, "rb", block_size=_BLOCK, cache_type="bytes")

        return _asked(self.url, attempt)

    def download(self, target: Path) -> None:
        """Write the whole file to ``target``; raises FeatureFileError where it cannot be had, or not to its end."""

        def attempt() -> None:
            system, path = _connect(self.url)
            system.get_file(path, str(target))

        _asked(self.url, attempt)
        found = target.stat().st_size
        if found != self.size:
            mend = "it may just be written: run the same command again"
            raise defect(self.url, f"{found} bytes came", f"{self.size}, as listed", mend)


FeatureFile = Path | RemoteFile
"""Where the features of a slide are: here, or behind a URL."""


def is_remote(place: object) -> bool:
    """Whether a place is written as a URL."""
    return isinstance(place, str) and "://" in place


def list_remote(url: str) -> dict[str, str]:
    """List the ``.h5`` files directly in a folder behind a URL: {slide id: URL}, slide ids sorted.

    Raises FeatureFileError where there is no such folder, none can be reached, or it holds no such file.
    """
    folder = url.rstrip("/") + "/"

    def attempt() -> list[Mapping[str, Any]]:
        system, path = _connect(folder)
        found: list[Mapping[str, Any]] = system.ls(path, detail=True)
        return [{**one, "url": system.unstrip_protocol(one["name"])} for one in found]

    names = {_name_of(one["url"]): one["url"] for one in _asked(url, attempt)}
    files = {name.removesuffix(SUFFIX): at for name, at in names.items() if _is_features(name)}
    if not files:
        held = summarise(sorted(name for name in names if name)) or "nothing"
        mend = "give the folder of the files; stores of other kinds: momkd import-features, then upload what it wrote"
        raise defect(url, f"no {SUFFIX} file; it holds {held}", f"files <slide>{SUFFIX}", mend)
    return dict(sorted(files.items()))


def remote_files(urls: Sequence[str]) -> list[RemoteFile | FeatureFileError]:
    """Ask for size and version of each file, several at a time; in the order given, an error in the place of a file."""

    def ask(url: str) -> RemoteFile | FeatureFileError:
        try:
            return remote_file(url)
        except FeatureFileError as error:
            return error

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(ask, urls))


def remote_file(url: str) -> RemoteFile:
    """Ask for one file. Raises FeatureFileError where it is not there, or its size is not told."""
    if not _is_features(_name_of(url)):
        raise defect(url, f"a file that is not {SUFFIX}", f"<slide>{SUFFIX}", "momkd import-features makes such files")

    def attempt() -> Mapping[str, Any]:
        system, path = _connect(url)
        found: Mapping[str, Any] = system.info(path)
        return found

    about = _asked(url, attempt)
    size = about.get("size")
    if not isinstance(size, int) or size < 1:
        raise defect(url, f"a size of {size}", "a server that tells how large its files are")
    mark = next((f"{key} {about[key]}" for key in _MARKS if about.get(key)), "")
    return RemoteFile(url, size, mark)


def _is_features(name: str) -> bool:
    return name.endswith(SUFFIX) and not name.startswith(".") and "/" not in name and "\\" not in name


def _name_of(url: str) -> str:
    return unquote(url.split("?")[0].rstrip("/").rpartition("/")[2])


def _connect(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    import fsspec

    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES or "::" in url or not rest:
        raise defect(url, f"the scheme {scheme}://", f"one of {', '.join(f'{name}://' for name in SCHEMES)}")
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise defect(url, f"cannot be reached: {error}", mend="pip install 'momkd[remote]'") from error
    return system, path


def _asked(url: str, attempt: Callable[[], T]) -> T:
    """Ask a store, again after a pause where the network failed; its own errors become ours."""
    tries = 1
    while True:
        try:
            return attempt()
        except FeatureFileError:
            raise
        except FileNotFoundError as error:
            raise defect(url, "no such file or folder", "a URL that is there") from error
        except PermissionError as error:
            mend = "give this account's credentials as the store's own tools read them"
            raise defect(url, f"refused ({error})", "access", mend) from error
        except Exception as error:  # each store has a library, and that its own errors
            if tries == _TRIES:
                mend = "see whether the address is right and the network there, then run the same command again"
                raise defect(url, f"cannot be reached ({_words(error)})", mend=mend) from error
        time.sleep(_PAUSE * tries)
        tries += 1


def _words(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
