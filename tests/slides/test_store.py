"""The packed store: what is read is what was packed, and what changed is never read as it was."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from momkd.errors import FeatureFileError
from momkd.slides import packing
from momkd.slides.bag import Bag
from momkd.slides.graph import bag_edges, knn_edges
from momkd.slides.packing import PackReport, pack_store
from momkd.slides.readers import bag_digest, inspect_bag, read_bag
from momkd.slides.store import DATA_FILES, FEATURES, INDEX, FeatureStore, float32_as_bfloat16
from momkd.slides.writer import write_bag

MakeBag = Callable[..., Bag]


@pytest.fixture
def sources(tmp_path: Path, make_bag: MakeBag) -> dict[str, Path]:
    """Three slides: with coordinates, with a graph of its own, with one patch and nothing else."""
    own = np.array([[3, 0, 3], [0, 3, 1]])
    bags = [
        make_bag(30, slide_id="a", seed=1),
        make_bag(12, slide_id="b", seed=2, edges={4: own}),
        make_bag(1, slide_id="c", seed=3, coords=None),
    ]
    files = {}
    for bag in bags:
        files[bag.slide_id] = tmp_path / "features" / f"{bag.slide_id}.h5"
        write_bag(bag, files[bag.slide_id], dtype="float32", producer="tests")
    return files


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "store"


def pack(place: Path, sources: dict[str, Path], dtype: str = "float32", k: int = 4) -> PackReport:
    return pack_store(place, sources, dtype=dtype, graph_k=k)  # type: ignore[arg-type]


def change(source: Path, value: float) -> None:
    with h5py.File(source, "r+") as file:
        file["features"][0, 0] = value


def test_float32_gives_the_bag_as_read(place: Path, sources: dict[str, Path]) -> None:
    assert pack(place, sources).packed == ("a", "b", "c")
    store = FeatureStore(place)
    for slide_id, source in sources.items():
        direct, stored = read_bag(source), store.bag(inspect_bag(source))
        assert bag_digest(stored) == bag_digest(direct) == store.digest(slide_id)
        for name in ("slide_id", "patch_size_level0", "mpp", "encoder", "layout", "source"):
            assert getattr(stored, name) == getattr(direct, name)
        assert torch.equal(store.tensor(slide_id), torch.from_numpy(direct.features))
    graph = store.graph("a", 4)
    assert graph is not None
    np.testing.assert_array_equal(graph, bag_edges(read_bag(sources["a"]), 4))
    assert store.graph("b", 4) is None, "a file's own graph wins"
    assert store.graph("c", 4) is None


@pytest.mark.parametrize(("dtype", "tensor_type"), [("float16", torch.float16), ("bfloat16", torch.bfloat16)])
def test_half_precision_is_the_nearest_value(
    place: Path, sources: dict[str, Path], dtype: str, tensor_type: torch.dtype
) -> None:
    pack(place, sources, dtype)
    store = FeatureStore(place)
    for slide_id, source in sources.items():
        direct = read_bag(source)
        expected = torch.from_numpy(direct.features).to(tensor_type)
        assert store.tensor(slide_id).dtype == tensor_type
        assert torch.equal(store.tensor(slide_id), expected)
        np.testing.assert_array_equal(store.bag(inspect_bag(source)).features.astype(np.float32), expected.float())
        assert store.digest(slide_id) == bag_digest(direct), "the digest is that of the source"


def test_bfloat16_rounds_as_torch_does() -> None:
    values = np.random.default_rng(0).normal(size=4000).astype(np.float32) ** 9
    ties = np.array([1.00390625, 1.01171875, -1.00390625, 0.0, -0.0], dtype=np.float32)
    both = np.concatenate([values, ties])
    expected = torch.from_numpy(both).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(float32_as_bfloat16(both), expected)


def test_nothing_is_written_where_nothing_changed(place: Path, sources: dict[str, Path]) -> None:
    pack(place, sources)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in place.iterdir()}
    again = pack(place, sources)
    assert (again.packed, again.refreshed, again.unchanged) == ((), (), ("a", "b", "c"))
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in place.iterdir()} == before


def test_a_touched_file_is_read_but_not_packed_again(place: Path, sources: dict[str, Path]) -> None:
    pack(place, sources)
    size = (place / FEATURES).stat().st_size
    os.utime(sources["a"], ns=(1, 1))
    assert pack(place, sources).refreshed == ("a",)
    assert (place / FEATURES).stat().st_size == size
    assert pack(place, sources).unchanged == ("a", "b", "c")


def test_changed_contents_are_packed_again_even_under_the_old_time(place: Path, sources: dict[str, Path]) -> None:
    pack(place, sources)
    opened = FeatureStore(place)
    old = opened.bag(inspect_bag(sources["a"])).features.copy()
    before = sources["a"].stat()
    change(sources["a"], 7.0)
    os.utime(sources["a"], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert sources["a"].stat().st_size == before.st_size
    assert pack(place, sources).packed == ("a",)
    assert FeatureStore(place).bag(inspect_bag(sources["a"])).features[0, 0] == 7.0
    np.testing.assert_array_equal(opened.bag(inspect_bag(sources["a"])).features, old)


def test_new_slides_and_graphs_are_added(place: Path, sources: dict[str, Path]) -> None:
    pack(place, {"b": sources["b"]}, k=0)
    assert pack(place, sources, k=0).packed == ("a", "c")
    assert FeatureStore(place).graph("a", 3) is None
    assert pack(place, {"a": sources["a"]}, k=3).packed == ()
    store = FeatureStore(place)
    graph = store.graph("a", 3)
    assert graph is not None
    np.testing.assert_array_equal(graph, knn_edges(read_bag(sources["a"]).coords, 3))  # type: ignore[arg-type]
    assert set(store.index.slides) == set(sources)


def test_other_micrometres_are_other_coordinates(shared: Path, place: Path) -> None:
    stamp = sorted((shared / "data" / "layouts" / "stamp").rglob("*.h5"))[0]
    pack_store(place, {stamp.stem: stamp}, slide_mpp=0.5)
    report = pack_store(place, {stamp.stem: stamp}, slide_mpp=0.25)
    assert report.unchanged == ()
    stored, direct = FeatureStore(place).bag(inspect_bag(stamp, slide_mpp=0.25)), read_bag(stamp, slide_mpp=0.25)
    np.testing.assert_array_equal(stored.coords, direct.coords)


@pytest.mark.parametrize("name", DATA_FILES)
def test_a_truncated_store_is_refused_and_packed_anew(place: Path, sources: dict[str, Path], name: str) -> None:
    pack(place, sources)
    with (place / name).open("rb+") as file:
        file.truncate((place / name).stat().st_size - 1)
    with pytest.raises(FeatureFileError, match=rf"{name}: truncated.*momkd pack"):
        FeatureStore(place)
    assert pack(place, sources).packed == ("a", "b", "c")
    assert bag_digest(FeatureStore(place).bag(inspect_bag(sources["a"]))) == bag_digest(read_bag(sources["a"]))


def test_a_changed_index_is_noticed(place: Path, sources: dict[str, Path]) -> None:
    pack(place, sources)
    text = (place / INDEX).read_text()
    (place / INDEX).write_text(text.replace('"n_patches": 30', '"n_patches": 20'))
    with pytest.raises(FeatureFileError, match="do not match their digest"):
        FeatureStore(place)
    (place / INDEX).write_text(text[:-40])
    with pytest.raises(FeatureFileError, match="not an index"):
        FeatureStore(place)
    assert pack(place, sources).packed == ("a", "b", "c")


def test_a_file_of_another_store_is_noticed(place: Path, sources: dict[str, Path], tmp_path: Path) -> None:
    pack(place, sources)
    pack(tmp_path / "other", sources)
    (tmp_path / "other" / FEATURES).replace(place / FEATURES)
    with pytest.raises(FeatureFileError, match="belongs to another store"):
        FeatureStore(place)


def test_interrupted_packing_goes_on(place: Path, sources: dict[str, Path]) -> None:
    def stop(done: int, _: int, __: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_store(place, sources, dtype="float32", graph_k=4, progress=stop)
    with (place / FEATURES).open("ab") as file:
        file.write(b"left of a pack that was killed")
    report = pack(place, sources)
    assert (report.packed, report.unchanged) == (("c",), ("a", "b"))
    for source in sources.values():
        assert bag_digest(FeatureStore(place).bag(inspect_bag(source))) == bag_digest(read_bag(source))


def test_values_beyond_float16_offer_float32_and_all_are_named(
    place: Path, sources: dict[str, Path], make_bag: MakeBag, tmp_path: Path
) -> None:
    for slide_id in ("x", "y"):
        big = make_bag(5, slide_id=slide_id)
        big.features[2, 2] = 70_000
        sources[slide_id] = tmp_path / "features" / f"{slide_id}.h5"
        write_bag(big, sources[slide_id], dtype="float32", producer="tests")
    with pytest.raises(FeatureFileError, match=r"(?s)2 problems.*x\.h5.*70000.*65504.*--dtype float32.*y\.h5"):
        pack(place, sources, "float16")
    good = {name: sources[name] for name in "abc"}
    assert pack(place, good, "float16").unchanged == ("a", "b", "c"), "the others are packed already"
    assert pack(tmp_path / "wide", sources, "float32").packed == ("a", "b", "c", "x", "y")


def test_another_type_and_a_foreign_folder_are_refused(place: Path, sources: dict[str, Path], tmp_path: Path) -> None:
    pack(place, sources)
    with pytest.raises(FeatureFileError, match=r"a store of float32.*one of float16.*store_dtype: float32"):
        pack(place, sources, "float16")
    with pytest.raises(FeatureFileError, match=r"holds a\.h5.*another features\.store"):
        pack(tmp_path / "features", sources)
    with pytest.raises(FeatureFileError, match="no such folder"):
        FeatureStore(tmp_path / "none")


def test_a_file_that_changes_while_it_is_packed(
    place: Path, sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def writing(path: Path, **options: float | None) -> Bag:
        bag = read_bag(path, **options)
        change(path, 3.0)
        return bag

    monkeypatch.setattr(packing, "read_bag", writing)
    with pytest.raises(FeatureFileError, match="changed while it was being packed"):
        pack(place, {"a": sources["a"]})


def test_a_store_crosses_processes_as_its_path(place: Path, sources: dict[str, Path]) -> None:
    pack(place, sources)
    sent = pickle.dumps(FeatureStore(place))
    assert len(sent) < 1000
    assert "a" in pickle.loads(sent)  # noqa: S301 - our own bytes


def test_writing_to_an_array_changes_no_file(place: Path, sources: dict[str, Path]) -> None:
    pack(place, sources)
    before = (place / FEATURES).read_bytes()
    FeatureStore(place).tensor("a").zero_()
    assert (place / FEATURES).read_bytes() == before
