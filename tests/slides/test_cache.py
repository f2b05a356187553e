"""The cache of remote files: bounded, shared, and never a half file."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from momkd.errors import FeatureFileError
from momkd.slides.cache import Cache
from momkd.slides.remote import RemoteFile, remote_file


@pytest.fixture
def files(store: Any) -> list[RemoteFile]:
    """Four files of 1000 bytes."""
    for name in "abcd":
        (store.folder / f"{name}.h5").write_bytes(name.encode() * 1000)
    return [remote_file(f"{store.url}/{name}.h5") for name in "abcd"]


def _content(cache: Cache, file: RemoteFile) -> bytes:
    with cache.copy(file) as path:
        return path.read_bytes()


def _held(cache: Cache) -> set[bytes]:
    return {path.read_bytes()[:1] for path in cache.folder.glob("*.h5")}


def test_a_copy_is_made_once(store: Any, files: list[RemoteFile], tmp_path: Path) -> None:
    cache = Cache(tmp_path / "copies", 10_000)
    assert _content(cache, files[0]) == _content(cache, files[0]) == b"a" * 1000
    assert store.fetched("a.h5") == 1


def test_the_longest_unused_goes_first(files: list[RemoteFile], tmp_path: Path) -> None:
    cache = Cache(tmp_path / "copies", 3000)
    for number, file in enumerate(files[:3]):
        with cache.copy(file) as path:
            pass
        os.utime(path, (number, number))
    _content(cache, files[0])  # used again
    _content(cache, files[3])
    assert _held(cache) == {b"a", b"c", b"d"}
    assert sum(path.stat().st_size for path in cache.folder.iterdir()) <= cache.limit


def test_a_copy_that_is_read_stays(files: list[RemoteFile], tmp_path: Path) -> None:
    cache = Cache(tmp_path / "copies", 1000)
    with cache.copy(files[0]) as path:
        assert _content(cache, files[1]) == b"b" * 1000
        assert path.read_bytes() == b"a" * 1000


def test_a_file_larger_than_the_cache_is_refused(files: list[RemoteFile], tmp_path: Path) -> None:
    with pytest.raises(FeatureFileError, match="MOMKD_CACHE_GB"):
        _content(Cache(tmp_path / "copies", 999), files[0])


def test_what_a_killed_process_left_is_removed(files: list[RemoteFile], tmp_path: Path) -> None:
    cache = Cache(tmp_path / "copies", 10_000)
    with cache.copy(files[0]) as path:
        pass
    path.unlink()
    leftover = path.with_name(f".{path.stem}.123.0123abcd.tmp.h5")
    leftover.write_bytes(b"half")
    assert _content(cache, files[0]) == b"a" * 1000
    assert not leftover.exists()


def test_leftovers_of_other_files_count_and_make_room(files: list[RemoteFile], tmp_path: Path) -> None:
    cache = Cache(tmp_path / "copies", 1500)
    cache.folder.mkdir()
    leftover = cache.folder / f".{'0' * 32}.123.0123abcd.tmp.h5"
    leftover.write_bytes(b"x" * 1400)
    _content(cache, files[0])
    assert not leftover.exists()


def test_a_truncated_copy_is_fetched_again(store: Any, files: list[RemoteFile], tmp_path: Path) -> None:
    cache = Cache(tmp_path / "copies", 10_000)
    with cache.copy(files[0]) as path:
        pass
    path.write_bytes(b"a")
    assert _content(cache, files[0]) == b"a" * 1000
    assert store.fetched("a.h5") == 2


@pytest.mark.parametrize("words", ["none", "0", "-1", "nan", "inf"])
def test_a_size_that_is_none_is_refused(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOMKD_CACHE_GB", words)
    with pytest.raises(FeatureFileError, match="MOMKD_CACHE_GB"):
        Cache.usual()


def test_the_usual_cache_is_the_accounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MOMKD_CACHE", "MOMKD_CACHE_GB"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Cache.usual() == Cache(tmp_path / "momkd" / "features", 20_000_000_000)


def _read_all(cache: Cache, files: list[RemoteFile], seed: int) -> None:
    for number in range(40):
        file = files[(number * (seed + 1) + seed) % len(files)]
        if _content(cache, file) != file.stem.encode() * 1000:
            raise SystemExit(3)


def test_processes_share_a_small_cache(files: list[RemoteFile], tmp_path: Path) -> None:
    cache = Cache(tmp_path / "copies", 2000)
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_read_all, args=(cache, files, seed)) for seed in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert sum(path.stat().st_size for path in cache.folder.glob("*.h5")) <= 4000
