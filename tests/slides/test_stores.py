"""Layouts of several files: LazySlide stores, slideflow bags, tensors with coordinates beside them; made here."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import zarr

from momkd.errors import FeatureFileError
from momkd.slides.folders import find_features, list_features
from momkd.slides.importer import import_features
from momkd.slides.readers import inspect_bag, read_bag
from momkd.slides.store import Fingerprint

FEATURES = np.arange(12, dtype=np.float32).reshape(4, 3)
# By tile id; the table of features has another order.
CORNERS = {10: (0, 0), 11: (256, 0), 12: (0, 256), 13: (512, 768)}
ORDER = [12, 10, 13, 11]


def square(x: float, y: float, size: float = 256.0) -> bytes:
    ring = [(x + size, y), (x + size, y + size), (x, y + size), (x, y), (x + size, y)]
    return struct.pack("<BIII", 1, 3, 1, 5) + np.array(ring, dtype="<f8").tobytes()


def make_store(
    path: Path, *, polygons: dict[int, bytes] | None = None, mpp: float | None = 0.25, tables: int = 1
) -> Path:
    root = zarr.create_group(str(path))
    root.attrs["slide_properties"] = {"mpp": 0.25}
    root.create_group("tables")
    for number in range(tables):
        table = root.create_group(f"tables/encoder{number}_tiles")
        table.attrs.update({"region": "tiles", "instance_key": "tile_id"})
        table["X"] = FEATURES + number
        table.create_group("obs")["tile_id"] = np.array(ORDER)
    root.create_group("tables/tiles_graph")
    shapes = path / "shapes" / "tiles"
    shapes.mkdir(parents=True)
    known = {tile: square(x, y) for tile, (x, y) in CORNERS.items()} if polygons is None else polygons
    columns = {"tile_id": list(known), "geometry": pa.array(list(known.values()), pa.binary())}
    pq.write_table(pa.table(columns), shapes / "shapes.parquet")
    return path


def make_bag(folder: Path, *, tile_um: Any = 128, centres: np.ndarray | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(torch.from_numpy(FEATURES), folder / "s.pt")
    places = np.array([[128, 128], [384, 128], [128, 384], [640, 896]]) if centres is None else centres
    np.savez(folder / "s.index.npz", places)
    config = {"extractor": {"class": "pkg.uni.UNI"}, "tile_um": tile_um}
    (folder / "bags_config.json").write_text(json.dumps(config))
    return folder / "s.pt"


def test_a_store_is_joined_by_tile_id(tmp_path: Path) -> None:
    bag = read_bag(make_store(tmp_path / "slide.1.zarr"))
    np.testing.assert_array_equal(bag.features, FEATURES)
    np.testing.assert_array_equal(bag.coords, [CORNERS[tile] for tile in ORDER])
    assert (bag.slide_id, bag.layout, bag.encoder) == ("slide.1", "lazyslide", "encoder0")
    assert (bag.patch_size_level0, bag.mpp) == (256.0, 0.25)
    assert read_bag(tmp_path / "slide.1.zarr", slide_mpp=0.5).mpp == 0.25


def test_a_store_of_several_encoders_asks_which(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", tables=2)
    with pytest.raises(FeatureFileError, match=r"several encoders: encoder0_tiles, encoder1_tiles.*--table"):
        inspect_bag(store)
    assert read_bag(store, table="encoder1_tiles").features[0, 0] == 1.0
    report = import_features(tmp_path, tmp_path / "ours", table="encoder1_tiles")
    assert report.written == ("s",)
    assert read_bag(tmp_path / "ours" / "s.h5").encoder == "encoder1"
    other = import_features(tmp_path, tmp_path / "ours", table="encoder0_tiles")
    assert other.written == ("s",)
    assert read_bag(tmp_path / "ours" / "s.h5").features[0, 0] == 0.0


@pytest.mark.parametrize(
    ("polygons", "message"),
    [
        ({10: square(0, 0), 11: square(1, 1), 12: square(2, 2)}, "1 rows of features without a polygon"),
        ({tile: square(0, 0)[:40] for tile in ORDER}, "no polygon of one ring"),
        ({tile: struct.pack("<BIdd", 1, 1, 0, 0) for tile in ORDER}, "no polygon of one ring"),
        (dict.fromkeys(ORDER, b""), "no polygon"),
    ],
)
def test_damaged_polygons_are_named(tmp_path: Path, polygons: dict[int, bytes], message: str) -> None:
    with pytest.raises(FeatureFileError, match=message):
        read_bag(make_store(tmp_path / "s.zarr", polygons=polygons))


@pytest.mark.parametrize("missing", ["shapes/tiles/shapes.parquet", "tables/encoder0_tiles/X/zarr.json", "zarr.json"])
def test_a_store_without_one_of_its_parts_is_an_error(tmp_path: Path, missing: str) -> None:
    store = make_store(tmp_path / "s.zarr")
    (store / missing).unlink()
    with pytest.raises(FeatureFileError, match=r"s\.zarr"):
        read_bag(store)


def test_a_file_named_zarr_and_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").write_text("x")
    (tmp_path / "b.zarr").mkdir()
    for name, message in (("a", "a file"), ("b", "cannot be read"), ("c", "no such folder")):
        with pytest.raises(FeatureFileError, match=message):
            read_bag(tmp_path / f"{name}.zarr")


def test_slideflow_centres_become_corners(tmp_path: Path) -> None:
    bag = read_bag(make_bag(tmp_path / "bags"), slide_mpp=0.5)
    np.testing.assert_array_equal(bag.coords, [[0, 0], [256, 0], [0, 256], [512, 768]])
    assert (bag.layout, bag.encoder, bag.patch_size_level0, bag.mpp) == ("slideflow", "UNI", 256.0, 0.5)
    # An odd size: 128 µm / 0.499 are 256.5 pixels, of which slideflow reads 256.
    assert read_bag(tmp_path / "bags" / "s.pt", slide_mpp=0.499).patch_size_level0 == 256.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "bags_config.json").unlink(), r"bags_config.json: no such file"),
        (lambda folder: (folder / "bags_config.json").write_text("{"), r"bags_config.json: cannot be read"),
        (lambda folder: (folder / "bags_config.json").write_text('{"tile_um": "20x"}'), r"tile_um '20x'.*µm"),
        (lambda folder: (folder / "s.index.npz").write_bytes(b"PK"), r"index.npz: cannot be read"),
        (lambda folder: np.savez(folder / "s.index.npz", places=np.zeros((4, 2))), r"arrays places; expected arr_0"),
        (lambda folder: np.savez(folder / "s.index.npz", np.zeros((3, 2))), r"4 rows of features but 3 of arr_0"),
        (lambda folder: np.savez(folder / "s.index.npz", np.array([None, 1])), r"index.npz: cannot be read"),
    ],
)
def test_damaged_slideflow_bags_are_named(tmp_path: Path, change: Callable[[Path], None], message: str) -> None:
    path = make_bag(tmp_path / "bags")
    change(path.parent)
    with pytest.raises(FeatureFileError, match=message):
        read_bag(path, slide_mpp=0.5)


@pytest.mark.parametrize("end", [".coords.npy", "_coords.npy", ".coords.pt", "_coords.pt"])
def test_a_tensor_with_its_coordinates_beside_it(tmp_path: Path, end: str) -> None:
    torch.save(torch.from_numpy(FEATURES), tmp_path / "s.pt")
    places = np.array([[0, 0], [256, 0], [0, 256], [512, 768]])
    if end.endswith(".npy"):
        np.save(tmp_path / f"s{end}", places)
    else:
        torch.save(torch.from_numpy(places), tmp_path / f"s{end}")
    np.testing.assert_array_equal(read_bag(tmp_path / "s.pt").coords, places)
    # The coordinates are not a slide of their own.
    assert list(list_features(tmp_path)) == ["s"]


def test_coordinates_that_do_not_fit_are_an_error_never_ignored(tmp_path: Path) -> None:
    torch.save(torch.from_numpy(FEATURES), tmp_path / "s.pt")
    np.save(tmp_path / "s_coords.npy", np.zeros((3, 2), dtype=np.int64))
    with pytest.raises(FeatureFileError, match="4 rows of features but 3 of s_coords.npy"):
        read_bag(tmp_path / "s.pt")
    (tmp_path / "s_coords.npy").write_bytes(b"not an array")
    with pytest.raises(FeatureFileError, match=r"s_coords.npy: cannot be read"):
        read_bag(tmp_path / "s.pt")


def test_a_slide_named_like_coordinates_is_a_slide(tmp_path: Path) -> None:
    torch.save(torch.from_numpy(FEATURES), tmp_path / "a_coords.pt")
    assert list(list_features(tmp_path)) == ["a_coords"]


def test_folders_of_stores_are_found(tmp_path: Path) -> None:
    make_store(tmp_path / "s.zarr")
    found, problems = find_features(tmp_path, ["s"])
    assert (found, problems) == ({"s": tmp_path / "s.zarr"}, [])


def test_a_change_beside_or_inside_a_source_is_seen(tmp_path: Path) -> None:
    store, bag = make_store(tmp_path / "s.zarr"), make_bag(tmp_path / "bags")
    before = [Fingerprint.of(store), Fingerprint.of(bag)]
    assert before == [Fingerprint.of(store), Fingerprint.of(bag)]
    chunk = next(
        path for path in (store / "tables" / "encoder0_tiles" / "X").rglob("*") if path.is_file() and path.name == "0"
    )
    chunk.write_bytes(chunk.read_bytes() + b"\0")
    np.savez(bag.parent / "s.index.npz", np.zeros((4, 2)))
    assert Fingerprint.of(store) != before[0]
    assert Fingerprint.of(bag) != before[1]


def test_an_import_sees_a_change_of_the_coordinates_alone(tmp_path: Path) -> None:
    make_bag(tmp_path / "bags")
    import_features(tmp_path / "bags", tmp_path / "ours", slide_mpp=0.5)
    make_bag(tmp_path / "bags", centres=np.array([[128, 128], [384, 128], [128, 384], [640, 640]]))
    again = import_features(tmp_path / "bags", tmp_path / "ours", slide_mpp=0.5)
    assert again.written == ("s",)
    assert read_bag(tmp_path / "ours" / "s.h5").coords[-1].tolist() == [512, 512]  # type: ignore[index]
