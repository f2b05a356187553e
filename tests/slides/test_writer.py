"""momkd's own file: what is written is what is read, whole, and byte for byte the same every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from momkd.errors import FeatureFileError
from momkd.files import sha256_file
from momkd.slides.bag import Bag
from momkd.slides.graph import knn_edges
from momkd.slides.readers import bag_digest, inspect_bag, read_bag
from momkd.slides.writer import SourceNote, precision_note, read_notes, write_bag, write_graph

NOTE = SourceNote("slide-1.svs", "ab" * 32, "trident", '{"dtype": "float16"}')


@st.composite
def bags(draw: st.DrawFn) -> Bag:
    n, d = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    dtype = draw(st.sampled_from([np.float16, np.float32]))
    width = 16 if dtype is np.float16 else 32
    finite = st.floats(allow_nan=False, allow_infinity=False, width=width)
    features = draw(arrays(dtype, (n, d), elements=finite).filter(np.any))
    coords = draw(st.none() | arrays(np.int64, (n, 2), elements=st.integers(0, 2**31 - 1)))
    edge = st.integers(0, n - 1)
    edges = {
        k: draw(arrays(np.int64, (2, draw(st.integers(0, 9))), elements=edge))
        for k in draw(st.sets(st.integers(1, 9), max_size=2))
    }
    number = st.none() | st.floats(1e-3, 1e4)
    name = st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(
        lambda t: t != "None"
    )
    return Bag("s", features, coords, draw(number), draw(number), draw(name), edges)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("written")


@given(bag=bags())
@settings(max_examples=50, deadline=None)
def test_what_is_written_is_read(folder: Path, bag: Bag) -> None:
    target = folder / "s.h5"
    write_bag(bag, target, dtype=bag.features.dtype.name, producer="a test")
    read = read_bag(target)
    assert read.features.tobytes() == bag.features.tobytes()
    assert read.features.dtype == bag.features.dtype
    assert bag_digest(read) == bag_digest(bag) == read_notes(target)["content_sha256"]
    assert (read.patch_size_level0, read.mpp, read.encoder) == (bag.patch_size_level0, bag.mpp, bag.encoder)
    assert (read.layout, read.source, tuple(read.edges)) == ("momkd", target, tuple(sorted(bag.edges)))
    info = inspect_bag(target)
    assert (info.n_patches, info.width, info.edge_ks) == (bag.n_patches, bag.width, tuple(sorted(bag.edges)))


def test_file_is_contiguous_small_and_says_where_it_came_from(make_bag: Any, tmp_path: Path) -> None:
    bag = make_bag(edges={3: np.array([[0, 1], [1, 0]])})
    write_bag(bag, tmp_path / "slide-1.h5", producer="momkd 0 test", source_note=NOTE)
    with h5py.File(tmp_path / "slide-1.h5") as file:
        types = {name: (file[name].dtype.name, file[name].chunks, file[name].compression) for name in file}
        attributes = dict(file.attrs)
    assert types == {
        "features": ("float16", None, None),
        "coords": ("int32", None, None),
        "edge_index_k3": ("int32", None, None),
    }
    assert attributes.pop("content_sha256")
    assert attributes == {
        "momkd_bag_format": 1,
        "producer": "momkd 0 test",
        "encoder": "an-encoder",
        "patch_size_level0": 256.0,
        "mpp": 0.5,
        "source_file": NOTE.file,
        "source_sha256": NOTE.sha256,
        "source_layout": NOTE.layout,
        "settings": NOTE.settings,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["slide-1.h5"]


def test_equal_bags_give_equal_bytes(make_bag: Any, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_bag(make_bag(), tmp_path / folder / "slide-1.h5", producer="p", source_note=NOTE)
    assert sha256_file(tmp_path / "a/slide-1.h5") == sha256_file(tmp_path / "b/slide-1.h5")


def test_float16_rounds_to_eleven_bits(make_bag: Any, tmp_path: Path) -> None:
    bag = make_bag()
    write_bag(bag, tmp_path / "slide-1.h5", producer="p")
    np.testing.assert_allclose(
        read_bag(tmp_path / "slide-1.h5").features.astype(np.float32), bag.features, rtol=2**-11, atol=1e-7
    )


@pytest.mark.parametrize("largest", [65505.0, 7e4, -1e6])
def test_float16_overflow_is_an_error_that_offers_float32(make_bag: Any, tmp_path: Path, largest: float) -> None:
    bag = make_bag(2, 1, features=np.array([[1], [largest]], np.float32))
    with pytest.raises(FeatureFileError, match=r"slide slide-1: features reach .*expected values up to 65504.*float32"):
        write_bag(bag, tmp_path / "slide-1.h5", producer="p")
    assert not list(tmp_path.iterdir())
    write_bag(bag, tmp_path / "slide-1.h5", dtype="float32", producer="p")
    assert read_bag(tmp_path / "slide-1.h5").features[1, 0] == np.float32(largest)


def test_largest_float16_is_kept(make_bag: Any, tmp_path: Path) -> None:
    write_bag(make_bag(1, 1, features=np.array([[65504]], np.float32)), tmp_path / "slide-1.h5", producer="p")
    assert read_bag(tmp_path / "slide-1.h5").features[0, 0] == 65504


def test_small_features_are_noted_and_vanishing_ones_refused(make_bag: Any, tmp_path: Path) -> None:
    features = np.array([[1, 1e-5, 0], [2, 3e-5, 0]], np.float32)
    note = precision_note(make_bag(2, features=features))
    assert note is not None
    assert "1 of 3 features stay below 6.1e-05" in str(note)
    assert note.severity == "note"
    assert precision_note(make_bag(2, features=features[:, :1])) is None
    assert precision_note(make_bag(2, features=features.astype(np.float16))) is None
    with pytest.raises(FeatureFileError, match=r"every feature is 0 in float16.*float32"):
        write_bag(make_bag(2, features=features * np.float32(1e-10)), tmp_path / "slide-1.h5", producer="p")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"features": np.full((30, 2), np.nan, np.float32)}, "NaN or infinite features in 30 of 30"),
        ({"features": np.zeros((30, 2), np.float32)}, "every feature is 0"),
        ({"features": np.ones((30, 2), int)}, "is not floating point"),
        ({"coords": np.zeros((29, 2), int)}, "30 rows of features but 29 of coords"),
        ({"coords": np.full((30, 2), -1)}, "negative"),
        ({"coords": np.full((30, 2), 2**31)}, "coords reach 2147483648; expected level-0 pixels up to 2147483647"),
        ({"edges": {2: np.array([[0], [30]])}}, "edge_index_k2 points to patches 0 … 30"),
        ({"slide_id": "other"}, r"the target of slide other; expected a file named other\.h5"),
    ],
)
def test_a_bad_bag_is_refused_and_nothing_is_written(
    make_bag: Any, tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(FeatureFileError, match=message):
        write_bag(make_bag(30, 2, **fields), tmp_path / "slide-1.h5", producer="p")
    assert not list(tmp_path.iterdir())


def test_unknown_dtype_is_refused(make_bag: Any, tmp_path: Path) -> None:
    with pytest.raises(FeatureFileError, match="dtype 'int8'; expected float16 or float32"):
        write_bag(make_bag(), tmp_path / "slide-1.h5", dtype="int8", producer="p")


# --- write_graph ------------------------------------------------------------------------------------------------------


def test_graph_is_added_and_everything_else_stays(make_bag: Any, tmp_path: Path) -> None:
    target = tmp_path / "slide-1.h5"
    write_bag(make_bag(), target, dtype="float32", producer="p", source_note=NOTE)
    before, notes = read_bag(target), read_notes(target)
    assert write_graph(target, 4)
    assert write_graph(target, 8)
    after = read_bag(target)
    assert after.features.tobytes() == before.features.tobytes()
    assert (after.encoder, after.mpp, after.patch_size_level0) == (before.encoder, before.mpp, before.patch_size_level0)
    for k in (4, 8):
        np.testing.assert_array_equal(after.edges[k], knn_edges(before.coords, k))  # type: ignore[arg-type]
    assert read_notes(target) == notes | {"content_sha256": bag_digest(after)}
    bytes_now = target.read_bytes()
    assert not write_graph(target, 8)
    assert target.read_bytes() == bytes_now
    assert [path.name for path in tmp_path.iterdir()] == ["slide-1.h5"]


def test_graph_without_source_note_or_neighbours(make_bag: Any, tmp_path: Path) -> None:
    target = tmp_path / "slide-1.h5"
    write_bag(make_bag(1, coords=None), target, producer="p")
    assert write_graph(target, 8)
    assert read_bag(target).edges[8].shape == (2, 0)
    assert read_notes(target)["producer"] == "p"


def test_graph_needs_coordinates(make_bag: Any, tmp_path: Path) -> None:
    target = tmp_path / "slide-1.h5"
    write_bag(make_bag(coords=None), target, producer="p")
    with pytest.raises(FeatureFileError, match=r"slide-1\.h5: no coords, so no graph of k 8.*graph\.k: 0"):
        write_graph(target, 8)


def test_files_of_other_tools_are_never_changed(write_h5: Any) -> None:
    path = write_h5("s.h5", {"features": np.ones((3, 2), np.float32), "coords": np.arange(6).reshape(3, 2)})
    before = path.read_bytes()
    with pytest.raises(
        FeatureFileError, match=r"a file of layout clam, which momkd does not change.*import-features .*--k 8"
    ):
        write_graph(path, 8)
    assert path.read_bytes() == before


def test_senseless_k(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="k is 0; expected 1 or more"):
        write_graph(tmp_path / "s.h5", 0)
