"""Files written by the tools themselves must read as their expected.json says; damaged ones must say what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from momkd.errors import FeatureFileError
from momkd.slides.bag import Bag
from momkd.slides.graph import bag_edges, knn_edges
from momkd.slides.importer import import_features
from momkd.slides.readers import inspect_bag, read_bag

SLIDE = "tcga-cr-7395-01a-01-ts1"


def expected(shared: Path, tool: str) -> dict[str, dict[str, Any]]:
    slides: dict[str, dict[str, Any]] = json.loads((shared / "data/layouts" / tool / "expected.json").read_text())[
        "slides"
    ]
    return slides


def assert_reads_as(bag: Bag, slide: dict[str, Any]) -> None:
    assert bag.slide_id == SLIDE
    assert bag.features.shape == (slide["N"], slide["D"])
    assert bag.features.dtype == slide["dtype"]
    assert bag.features.flags.c_contiguous
    assert bag.features.mean(dtype=np.float64) == pytest.approx(slide["features_mean_float64"], rel=1e-9)
    np.testing.assert_array_equal(bag.features[0, :4], np.array(slide["features_row0_first4"], dtype=slide["dtype"]))
    assert bag.patch_size_level0 == slide["patch_size_level0_px"]
    assert bag.coords is not None
    assert bag.coords.dtype == np.int64
    np.testing.assert_array_equal(bag.coords[:3], slide["first3_level0_topleft_px"])
    np.testing.assert_array_equal(bag.coords.min(axis=0), slide["level0_topleft_px_min"])
    np.testing.assert_array_equal(bag.coords.max(axis=0), slide["level0_topleft_px_max"])
    np.testing.assert_array_equal(bag.coords.sum(axis=0), slide["level0_topleft_px_sum"])


def assert_inspects_as(path: Path, bag: Bag, slide_mpp: float | None = None) -> None:
    info = inspect_bag(path, slide_mpp=slide_mpp)
    assert (info.slide_id, info.n_patches, info.width) == (bag.slide_id, bag.n_patches, bag.width)
    assert info.dtype == bag.features.dtype
    assert info.has_coords == (bag.coords is not None)
    assert info.edge_ks == tuple(bag.edges)
    assert (info.patch_size_level0, info.mpp, info.encoder) == (bag.patch_size_level0, bag.mpp, bag.encoder)
    assert (info.layout, info.source) == (bag.layout, bag.source) == (bag.layout, path)


@pytest.mark.parametrize("level", ["5x", "10x", "20x"])
def test_trident(shared: Path, level: str) -> None:
    slide = expected(shared, "trident")[f"{level}/{SLIDE}"]
    path = shared / "data/layouts" / slide["file"]
    bag = read_bag(path)
    assert_reads_as(bag, slide)
    assert (bag.layout, bag.encoder, bag.mpp, bag.edges) == ("trident", "efficientnet_lite0", None, {})
    assert_inspects_as(path, bag)


def test_clam_h5_finds_the_patch_size_beside_it(shared: Path) -> None:
    slide = expected(shared, "clam")[SLIDE]
    path = shared / "data/layouts" / slide["file"]
    bag = read_bag(path)
    assert_reads_as(bag, slide)
    assert (bag.layout, bag.encoder) == ("clam", None)
    assert_inspects_as(path, bag)


def test_clam_pt_equals_its_h5_and_has_no_coordinates(shared: Path) -> None:
    slide = expected(shared, "clam")[SLIDE]
    path = shared / "data/layouts" / slide["pt_file"]
    bag = read_bag(path)
    np.testing.assert_array_equal(bag.features, read_bag(shared / "data/layouts" / slide["file"]).features)
    assert bag.coords is None
    assert bag.patch_size_level0 == 256
    assert_inspects_as(path, bag)
    with pytest.raises(FeatureFileError, match=r"no coords and no graph for 169 patches.*graph\.k: 0.*h5_files"):
        bag_edges(bag, 8)


def test_stamp_micrometres_become_pixels(shared: Path) -> None:
    slide = expected(shared, "stamp")[SLIDE]
    path = shared / "data/layouts" / slide["file"]
    bag = read_bag(path, slide_mpp=0.5)
    assert_reads_as(bag, slide)
    assert (bag.layout, bag.encoder, bag.mpp) == ("stamp", "efficientnet-lite0", 0.5)
    assert_inspects_as(path, bag, slide_mpp=0.5)


@pytest.mark.parametrize("read", [read_bag, inspect_bag])
def test_stamp_without_mpp_names_the_option(shared: Path, read: Any) -> None:
    path = shared / "data/layouts" / expected(shared, "stamp")[SLIDE]["file"]
    with pytest.raises(FeatureFileError, match=r"in µm, and no µm per pixel.*features\.slide_mpp") as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("level", ["5x", "10x", "20x"])
def test_published_momkd_brings_its_graph(shared: Path, level: str) -> None:
    slide = expected(shared, "momkd")[f"{level}/{SLIDE}"]
    path = shared / "data/layouts" / slide["file"]
    bag = read_bag(path)
    assert_reads_as(bag, slide)
    assert bag.layout == "momkd-published"
    assert_inspects_as(path, bag)
    edges, theirs = bag_edges(bag, 8), slide["edge_index_k8"]
    assert edges.shape == tuple(theirs["shape"])
    assert edges.dtype == np.int64
    np.testing.assert_array_equal(edges[:, :9], theirs["first9"])
    np.testing.assert_array_equal(edges.sum(axis=1), theirs["sum"])
    # Ours may choose others among equally far neighbours, never farther ones.
    assert bag.coords is not None
    np.testing.assert_array_equal(
        sorted_distances(bag.coords, knn_edges(bag.coords, 8)), sorted_distances(bag.coords, edges)
    )


def sorted_distances(coords: np.ndarray, edges: np.ndarray) -> np.ndarray:
    squared = ((coords[edges[0]] - coords[edges[1]]) ** 2).sum(axis=1)
    return np.sort(squared.reshape(len(coords), -1), axis=1)


BROKEN = {
    "coords_negative": r"coords row 0 is \(-256, \d+\), negative; expected top-left corners in level-0 pixels",
    "coords_transposed_2xN": r"coords \(2, 27\) int64 is transposed; expected coords \(27, 2\).*save coords\.T",
    "features_3d_1xNxD": r"features \(1, 27, 1280\) float32 has an extra first axis.*save features\[0\]",
    "features_is_group": r"features is a group \(holding features/data\); expected features to be a dataset",
    "features_nan": r"NaN or infinite features in 2 of 27 patches \(rows 5, 11, counted from 0\)",
    "length_mismatch": r"27 rows of features but 26 of coords; expected coords \(27, 2\)",
    "truncated_file": r"cannot be opened \(.*truncated.*copy or write the file again",
    "wrong_dataset_name": r"an unknown layout: it holds coords \(27, 2\) int64, embeddings \(27, 1280\) float32;",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_file_is_an_error_that_names_file_and_defect(shared: Path, name: str) -> None:
    path = shared / "data/layouts/broken" / f"{name}.h5"
    with pytest.raises(FeatureFileError, match=BROKEN[name]) as caught:
        read_bag(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", sorted(set(BROKEN) - {"coords_negative", "features_nan"}))
def test_broken_header_is_found_without_reading_values(shared: Path, name: str) -> None:
    with pytest.raises(FeatureFileError, match=BROKEN[name]):
        inspect_bag(shared / "data/layouts/broken" / f"{name}.h5")


def test_every_broken_file_is_decided(shared: Path) -> None:
    cases = json.loads((shared / "data/layouts/broken/expected.json").read_text())["cases"]
    accepted = {"features_float64", "coords_attrs_missing", "coords_missing"}
    assert set(cases) == set(BROKEN) | accepted


def test_float64_features_are_read_as_float32(shared: Path) -> None:
    path = shared / "data/layouts/broken/features_float64.h5"
    bag = read_bag(path)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(bag.features, file["features"][()])
    assert bag.features.dtype == np.float32
    assert inspect_bag(path).dtype == "float64"


def test_missing_coordinate_attributes_leave_the_patch_size_unknown(shared: Path) -> None:
    bag = read_bag(shared / "data/layouts/broken/coords_attrs_missing.h5")
    assert bag.patch_size_level0 is None
    assert bag.coords is not None


def test_missing_coordinates_are_not_invented_and_matter_for_the_graph_only(shared: Path) -> None:
    bag = read_bag(shared / "data/layouts/broken/coords_missing.h5")
    assert bag.coords is None
    assert bag_edges(bag, 0).shape == (2, 0)
    with pytest.raises(
        FeatureFileError, match=r"no coords and no graph for 27 patches; expected coords for graph\.k 8"
    ):
        bag_edges(bag, 8)


def test_patch_files_without_features_name_the_missing_stage(shared: Path) -> None:
    path = shared / f"data/layouts/trident/20x_256px_0px_overlap/patches/{SLIDE}_patches.h5"
    with pytest.raises(FeatureFileError, match=r"patch coordinates only .*run the tool's feature extraction"):
        read_bag(path)


def test_lazyslide(shared: Path) -> None:
    slide = expected(shared, "lazyslide")[SLIDE]
    path = shared / "data/layouts" / slide["file"]
    bag = read_bag(path)
    assert_reads_as(bag, slide)
    assert (bag.layout, bag.encoder, bag.mpp, bag.edges) == ("lazyslide", "efficientnet_lite0", None, {})
    assert_inspects_as(path, bag)
    assert read_bag(path, slide_mpp=0.5).mpp == 0.5
    with pytest.raises(FeatureFileError, match=r"no features 'uni_tiles'; it holds efficientnet_lite0_tiles"):
        read_bag(path, table="uni_tiles")


def test_slideflow_centres_become_corners(shared: Path) -> None:
    slide = expected(shared, "slideflow")[SLIDE]
    path = shared / "data/layouts" / slide["file"]
    bag = read_bag(path, slide_mpp=0.5)
    assert_reads_as(bag, slide)
    assert (bag.layout, bag.encoder, bag.mpp, bag.edges) == ("slideflow", "EffLite0Features", 0.5, {})
    assert_inspects_as(path, bag, 0.5)
    for read in (read_bag, inspect_bag):
        with pytest.raises(FeatureFileError, match=r"slideflow's tile centres.*--slide-mpp"):
            read(path)


@pytest.mark.parametrize("tool", ["lazyslide", "slideflow", "stamp"])
def test_every_tool_s_folder_is_imported_and_resumes(shared: Path, tool: str, tmp_path: Path) -> None:
    source = shared / "data/layouts" / tool
    first = import_features(source, tmp_path / "ours", slide_mpp=0.5, graph_k=4, dtype="float32")
    assert (first.written, first.failed) == ((SLIDE,), ())
    again = import_features(source, tmp_path / "ours", slide_mpp=0.5, graph_k=4, dtype="float32")
    assert (again.written, again.unchanged) == ((), (SLIDE,))
    slide = next(iter(expected(shared, tool).values()))
    ours = read_bag(tmp_path / "ours" / f"{SLIDE}.h5")
    np.testing.assert_array_equal(ours.coords[:3], slide["first3_level0_topleft_px"])  # type: ignore[index]
    assert set(ours.edges) == {4}


def test_tcga_compartments_bring_a_complete_graph_and_no_coordinates(shared: Path) -> None:
    paths = sorted((shared / "data/tcga_brca/features").glob("*.h5"))
    assert len(paths) == 684
    for path in paths[::40]:
        bag = read_bag(path)
        assert bag.features.shape == (4, 109)
        assert (bag.coords, bag.encoder, tuple(bag.edges)) == (None, "hif-compartments", (3,))
        edges = bag_edges(bag, 8)  # the only graph of the file wins over k 8
        assert edges.shape == (2, 12)
        assert set(zip(*edges.tolist(), strict=True)) == {(i, j) for i in range(4) for j in range(4) if i != j}


def test_tcga_slide_vectors_are_bags_of_one(shared: Path) -> None:
    paths = sorted((shared / "data/tcga_brca/features_slide").glob("*.h5"))
    assert len(paths) == 684
    bag = read_bag(paths[0])
    assert bag.features.shape == (1, 607)
    assert bag_edges(bag, 0).shape == bag_edges(bag, 8).shape == (2, 0)
