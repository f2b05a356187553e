"""Feature files behind a URL, from a web server of this machine: the same bags, few bytes for a header, own errors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from momkd.errors import FeatureFileError
from momkd.slides.folders import find_features, given_features
from momkd.slides.importer import import_features
from momkd.slides.packing import pack_store
from momkd.slides.readers import bag_digest, inspect_bag, read_bag
from momkd.slides.remote import RemoteFile, remote_file
from momkd.slides.store import FeatureStore
from momkd.slides.writer import write_bag


@pytest.fixture
def slides(store: Any, make_bag: Any) -> list[str]:
    """Three slides in the store."""
    for seed, name in enumerate("abc"):
        write_bag(make_bag(seed=seed, slide_id=name), store.folder / f"{name}.h5", producer="tests")
    return list("abc")


def _files(url: str, slides: list[str]) -> dict[str, RemoteFile]:
    found, problems = find_features(url, slides)
    assert problems == []
    return {slide: file for slide, file in found.items() if isinstance(file, RemoteFile)}


def test_a_remote_bag_is_the_local_one(store: Any, slides: list[str]) -> None:
    for slide, file in _files(store.url, slides).items():
        here, there = read_bag(store.folder / f"{slide}.h5"), read_bag(file)
        assert bag_digest(here) == bag_digest(there)
        assert (there.slide_id, there.mpp, there.encoder) == (slide, here.mpp, here.encoder)
        assert str(there.source) == f"{store.url}/{slide}.h5"


def test_a_header_is_read_without_the_file(store: Any, make_bag: Any) -> None:
    write_bag(make_bag(4000, 256, slide_id="large"), store.folder / "large.h5", dtype="float32", producer="tests")
    (file,) = _files(store.url, ["large"]).values()
    here, there = inspect_bag(store.folder / "large.h5"), inspect_bag(file)
    assert (there.n_patches, there.width, there.mpp, there.layout) == (here.n_patches, here.width, here.mpp, "momkd")
    assert store.fetched("large.h5") == 0
    assert 0 < store.sent < 600_000 < file.size
    assert not list(Path(os.environ["MOMKD_CACHE"]).glob("*.h5"))


def test_what_is_missing_is_told_with_the_nearest_name(store: Any, slides: list[str]) -> None:
    found, problems = find_features(store.url, ["a", "a.svs", "nobody"])
    assert list(found) == ["a"]
    assert [problem.subject for problem in problems] == ["a.svs", "nobody"]
    assert "is a meant?" in str(problems[0])
    assert store.url in str(problems[1])


def test_hidden_files_and_others_are_no_features(store: Any, slides: list[str]) -> None:
    for name in (".a.12.0123abcd.tmp.h5", "notes.txt"):
        (store.folder / name).write_bytes(b"x")
    (store.folder / "deeper").mkdir()
    assert [file.stem for file in given_features(store.url)[0]] == slides


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/features", "the scheme ftp://"),
        ("file:///etc", "the scheme file://"),
        ("zip://x.h5::https://host/a.zip", "the scheme zip://"),
        ("https://host::x/features", "the scheme"),
    ],
)
def test_other_schemes_and_chains_are_refused(url: str, words: str) -> None:
    with pytest.raises(FeatureFileError, match=words):
        given_features(url)


def test_a_store_whose_library_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(FeatureFileError, match=r"momkd\[remote\]"):
        given_features("s3://bucket/features")


def test_a_network_that_fails_twice_is_asked_again(store: Any, slides: list[str]) -> None:
    file = _files(store.url, ["a"])["a"]
    store.fails = 2
    assert read_bag(file).n_patches == 30


def test_a_network_that_is_gone_is_an_error_of_ours(store: Any, slides: list[str]) -> None:
    file = _files(store.url, ["a"])["a"]
    store.fails = 1000
    with pytest.raises(FeatureFileError, match="run the same command again") as caught:
        read_bag(file)
    assert file.url in str(caught.value)


def test_a_transfer_that_ends_early_leaves_nothing(store: Any, slides: list[str]) -> None:
    file = _files(store.url, ["a"])["a"]
    store.cuts = True
    with pytest.raises(FeatureFileError, match="a.h5"):
        read_bag(file)
    assert [path.suffix for path in Path(os.environ["MOMKD_CACHE"]).iterdir()] == []
    store.cuts = False
    assert read_bag(file).n_patches == 30


def test_who_may_not_read_is_told_so(store: Any, slides: list[str]) -> None:
    store.secret = "somebody"
    with pytest.raises(FeatureFileError, match=store.url):
        given_features(store.url)


def test_an_empty_folder_says_what_it_holds(store: Any) -> None:
    (store.folder / "slide.svs").write_bytes(b"x")
    with pytest.raises(FeatureFileError, match=r"it holds slide\.svs"):
        given_features(store.url)


def test_a_damaged_file_is_named_by_its_url(store: Any, slides: list[str]) -> None:
    file = store.folder / "a.h5"
    file.write_bytes(file.read_bytes()[:-2000])
    there = remote_file(f"{store.url}/a.h5")
    for read in (read_bag, inspect_bag):
        with pytest.raises(FeatureFileError) as caught:
            read(there)
        assert str(caught.value).startswith(there.url)


def test_a_file_that_changed_is_fetched_anew(store: Any, slides: list[str], make_bag: Any) -> None:
    before = read_bag(_files(store.url, ["a"])["a"])
    write_bag(make_bag(seed=9, slide_id="a"), store.folder / "a.h5", producer="tests")
    os.utime(store.folder / "a.h5", (2e9, 2e9))
    after = read_bag(_files(store.url, ["a"])["a"])
    assert not np.array_equal(before.features, after.features)


def test_an_import_fetches_every_file_once_and_equals_a_local_one(
    store: Any, slides: list[str], tmp_path: Path
) -> None:
    import_features(store.folder, tmp_path / "here")
    report = import_features(store.url, tmp_path / "there")
    assert list(report.written) == slides
    for slide in slides:
        here, there = (read_bag(tmp_path / place / f"{slide}.h5") for place in ("here", "there"))
        assert bag_digest(here) == bag_digest(there)
        assert store.fetched(f"{slide}.h5") == 1
    for copy in Path(os.environ["MOMKD_CACHE"]).glob("*.h5"):
        copy.unlink()
    again = import_features(store.url, tmp_path / "there")
    assert list(again.unchanged) == slides
    assert all(store.fetched(f"{slide}.h5") == 1 for slide in slides)


def test_an_import_sees_that_a_remote_file_changed(
    store: Any, slides: list[str], make_bag: Any, tmp_path: Path
) -> None:
    import_features(store.url, tmp_path / "out")
    write_bag(make_bag(seed=9, slide_id="b"), store.folder / "b.h5", producer="tests")
    os.utime(store.folder / "b.h5", (2e9, 2e9))
    report = import_features(store.url, tmp_path / "out")
    assert (report.written, report.unchanged) == (("b",), ("a", "c"))


def test_a_store_of_ours_is_packed_from_urls_and_knows_them_again(
    store: Any, slides: list[str], tmp_path: Path
) -> None:
    files = _files(store.url, slides)
    assert pack_store(tmp_path / "packed", files, graph_k=2).packed == tuple(slides)
    fetched = len(store.asked)
    assert pack_store(tmp_path / "packed", files, graph_k=2).unchanged == tuple(slides)
    assert len(store.asked) == fetched
    packed = FeatureStore(tmp_path / "packed")
    bag = packed.bag(inspect_bag(files["a"]))
    assert np.array_equal(bag.features, read_bag(store.folder / "a.h5").features.astype(np.float16))
