"""Reading: every layout made by hand, every defect, and files that are closed afterwards."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from momkd.errors import FeatureFileError
from momkd.slides.readers import bag_digest, inspect_bag, read_bag

FEATURES = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
COORDS = np.array([[0, 0], [256, 0], [0, 256], [256, 256]])


def test_trident_slide_vector_is_a_bag_of_one_whatever_coordinates_lie_beside_it(write_h5: Any) -> None:
    path = write_h5("s.h5", {"features": FEATURES[0], "coords": COORDS}, {"coords": {"patch_size_level0": 256.0}})
    bag = read_bag(path)
    assert bag.features.shape == (1, 3)
    assert (bag.coords, bag.patch_size_level0, bag.layout) == (None, None, "trident-slide")
    assert inspect_bag(path).n_patches == 1


def test_trident_none_text_is_no_value(write_h5: Any) -> None:
    attrs = {"features": {"encoder": "None"}, "coords": {"patch_size_level0": "None"}}
    bag = read_bag(write_h5("s.h5", {"features": FEATURES, "coords": COORDS}, attrs))
    assert (bag.encoder, bag.patch_size_level0) == (None, None)


@pytest.mark.parametrize("value", ["large", -256.0, 0, np.inf, np.nan])
def test_senseless_patch_size_is_an_error(write_h5: Any, value: object) -> None:
    attrs = {"coords": {"patch_size_level0": value}}
    path = write_h5("s.h5", {"features": FEATURES, "coords": COORDS}, attrs)
    with pytest.raises(FeatureFileError, match=r"attribute patch_size_level0 is .*expected a number above 0"):
        inspect_bag(path)


def test_attributes_of_odd_types_are_understood(write_h5: Any) -> None:
    attrs = {
        "features": {"encoder": np.bytes_("uni")},
        "coords": {"patch_size_level0": np.array([512]), "name": h5py.Empty("f4")},
    }
    bag = read_bag(write_h5("s.h5", {"features": FEATURES, "coords": COORDS}, attrs))
    assert (bag.encoder, bag.patch_size_level0) == ("uni", 512)
    empty = {"features": {"encoder": h5py.Empty("f4")}, "coords": {"patch_size_level0": np.empty(0)}}
    bag = read_bag(write_h5("e.h5", {"features": FEATURES, "coords": COORDS}, empty))
    assert (bag.encoder, bag.patch_size_level0) == (None, None)


def test_clam_patch_size_is_taken_at_its_pyramid_level(write_h5: Any) -> None:
    path = write_h5("clam/h5_files/s.h5", {"features": FEATURES, "coords": COORDS})
    assert read_bag(path).patch_size_level0 is None
    attrs = {"coords": {"patch_size": 256, "patch_level": 1, "downsample": np.array([4.0, 4.0])}}
    write_h5("clam/patches/s.h5", {"coords": COORDS}, attrs)
    assert read_bag(path).patch_size_level0 == 1024
    (path.parents[1] / "patches/s.h5").write_bytes(b"nothing")
    with pytest.raises(FeatureFileError, match=r"patches/s\.h5: cannot be opened"):
        read_bag(path)


def test_trident_tensor_finds_its_patch_size(write_h5: Any, tmp_path: Path) -> None:
    write_h5("t/patches/s_patches.h5", {"coords": COORDS}, {"coords": {"patch_size": 256, "patch_size_level0": 512.0}})
    path = tmp_path / "t/features_x/s.pt"
    path.parent.mkdir()
    torch.save(torch.from_numpy(FEATURES), path)
    assert read_bag(path).patch_size_level0 == 512


STAMP = {"unit": "um", "tile_size_um": 128.0, "extractor": "uni", "feat_type": "tile"}


def test_stamp_coordinates_are_rounded_to_whole_pixels(write_h5: Any) -> None:
    um = (COORDS * 0.499).astype(np.float32)
    path = write_h5("s.h5", {"feats": FEATURES.astype(np.float16), "coords": um}, {"": STAMP})
    bag = read_bag(path, slide_mpp=0.499)
    np.testing.assert_array_equal(bag.coords, COORDS)
    assert bag.patch_size_level0 == pytest.approx(128 / 0.499)
    assert bag.features.dtype == np.float16


@pytest.mark.parametrize("kind", ["slide", "patient"])
@pytest.mark.parametrize("shape", [(3,), (1, 3)])
def test_stamp_slide_vectors_need_no_mpp(write_h5: Any, kind: str, shape: tuple[int, ...]) -> None:
    path = write_h5("s.h5", {"feats": FEATURES[0].reshape(shape)}, {"": {"feat_type": kind, "extractor": "titan"}})
    bag = read_bag(path)
    assert bag.features.shape == (1, 3)
    assert (bag.encoder, bag.layout) == ("titan", "stamp-slide")


@pytest.mark.parametrize(("attrs", "found"), [({}, "an unnamed unit"), ({"unit": "px"}, "'px'")])
def test_stamp_in_another_unit_is_an_error(write_h5: Any, attrs: dict[str, str], found: str) -> None:
    path = write_h5("s.h5", {"feats": FEATURES, "coords": COORDS}, {"": attrs})
    with pytest.raises(FeatureFileError, match=rf"STAMP coordinates in {found}; expected unit 'um'.*STAMP ≥ 2"):
        read_bag(path, slide_mpp=0.5)


@pytest.mark.parametrize("mpp", [0.0, -1.0, float("nan"), float("inf")])
def test_senseless_slide_mpp_is_an_error(write_h5: Any, mpp: float) -> None:
    path = write_h5("s.h5", {"features": FEATURES})
    with pytest.raises(FeatureFileError, match=r"features\.slide_mpp: .*above 0"):
        read_bag(path, slide_mpp=mpp)


def test_slide_mpp_fills_only_what_the_file_does_not_say(write_h5: Any) -> None:
    assert read_bag(write_h5("a.h5", {"features": FEATURES}), slide_mpp=0.25).mpp == 0.25
    ours = write_h5("b.h5", {"features": FEATURES}, {"": {"momkd_bag_format": 1, "mpp": 0.5}})
    assert read_bag(ours, slide_mpp=0.25).mpp == 0.5


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        (
            {"features": np.empty((0, 3), np.float32)},
            r"features \(0, 3\) float32 holds no patch; expected at least one",
        ),
        ({"features": np.empty((3, 0), np.float32)}, r"features \(3, 0\) float32 holds no feature"),
        ({"features": np.float32(3)}, r"features \(\) float32 has 0 axes"),
        ({"features": FEATURES.reshape(2, 2, 3)}, r"features \(2, 2, 3\) float32 has 3 axes"),
        ({"features": FEATURES.astype(np.int32)}, r"features \(4, 3\) int32 is not floating point"),
        ({"features": np.array([[b"a"]])}, r"features \(1, 1\) .*is not floating point"),
        ({"features": np.zeros((4, 3), np.float16)}, r"every feature is 0; .*created but not filled"),
        ({"features": FEATURES * np.inf}, r"NaN or infinite features in 4 of 4 patches \(rows 0, 1, 2, 3,"),
        ({"features": FEATURES.astype(np.float64) * 1e38}, r"features reach 1\.2e\+39; expected values within float32"),
        (
            {"features": FEATURES, "coords": COORDS[:, 0]},
            r"coords \(4,\) int64 has the wrong shape; expected coords \(4, 2\)",
        ),
        ({"features": FEATURES, "coords": np.full((4, 2), b"x")}, r"coords .* is not numeric"),
        ({"features": FEATURES, "coords": COORDS * np.nan}, r"coords row 0 is \(nan, nan\); expected finite"),
        ({"features": FEATURES, "coords": COORDS * 1e30}, r"coords row 1 is .*expected finite level-0 pixels"),
        ({"features": FEATURES, "coords": COORDS / 1024}, r"coords are fractions of a pixel"),
        ({"features": FEATURES, "coords": COORDS.astype(np.uint64) + 2**63}, r"coords reach 92\d+; expected level-0"),
        ({"features": FEATURES, "coords": COORDS - 1}, r"coords row 0 is \(-1, -1\), negative \(and 2 more\)"),
        ({"features": FEATURES, "edge_index_k3": np.zeros((2, 1))}, r"edge_index_k3 \(2, 1\) float64 is not integer"),
        ({"features": FEATURES, "edge_index_k3": np.zeros((5, 2), int)}, r"edge_index_k3 \(5, 2\) int64 is transposed"),
        ({"features": FEATURES, "edge_index_k3": np.zeros(4, int)}, r"edge_index_k3 \(4,\) int64 has the wrong shape"),
        (
            {"features": FEATURES, "edge_index_k3": np.array([[0], [4]])},
            r"points to patches 0 … 4; expected indices 0 … 3",
        ),
        ({"features": FEATURES, "edge_index_k3": np.array([[-1], [0]])}, r"edge_index_k3 points to patches -1 … 0"),
        (
            {"features": FEATURES, "edge_index": np.array([[1], [0]])},
            r"a dataset edge_index; expected .*edge_index_k<k>",
        ),
        ({}, r"an unknown layout: it holds nothing; expected a dataset features .*or feats"),
    ],
)
def test_defects_are_named(write_h5: Any, datasets: dict[str, Any], message: str) -> None:
    path = write_h5("slide-7.h5", datasets)
    with pytest.raises(FeatureFileError, match=message) as caught:
        read_bag(path)
    assert str(path) in str(caught.value)


def test_fractions_of_pixels_are_rounded_where_no_patch_is_lost(write_h5: Any) -> None:
    bag = read_bag(write_h5("s.h5", {"features": FEATURES, "coords": COORDS + 0.4}))
    np.testing.assert_array_equal(bag.coords, COORDS)


def test_duplicate_coordinates_are_read(write_h5: Any) -> None:
    assert read_bag(write_h5("s.h5", {"features": FEATURES, "coords": COORDS * 0})).n_patches == 4


def test_big_endian_files_are_read_natively(write_h5: Any) -> None:
    bag = read_bag(write_h5("s.h5", {"features": FEATURES.astype(">f4"), "coords": COORDS.astype(">i8")}))
    assert bag.features.dtype.isnative
    np.testing.assert_array_equal(bag.features, FEATURES)
    np.testing.assert_array_equal(bag.coords, COORDS)


def test_newer_format_of_ours_is_refused(write_h5: Any) -> None:
    path = write_h5("s.h5", {"features": FEATURES}, {"": {"momkd_bag_format": 2}})
    with pytest.raises(FeatureFileError, match=r"version 2 of momkd's bag format; expected version 1 → update momkd"):
        inspect_bag(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.h5", "no such file"),
        ("absent.pt", "no such file"),
        ("s.csv", r"a file of type \.csv, which this version"),
    ],
)
def test_wrong_paths(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(FeatureFileError, match=message):
        read_bag(tmp_path / name)


def test_a_folder_named_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "s.h5").mkdir()
    with pytest.raises(FeatureFileError, match="a folder; expected an HDF5 feature file"):
        read_bag(tmp_path / "s.h5")


def test_text_file_named_h5(tmp_path: Path) -> None:
    (tmp_path / "s.h5").write_text("not HDF5")
    with pytest.raises(FeatureFileError, match=r"cannot be opened .*incomplete or not HDF5"):
        read_bag(tmp_path / "s.h5")


def test_dangling_link_is_named(write_h5: Any) -> None:
    path = write_h5("s.h5", {"other": FEATURES})
    with h5py.File(path, "a") as file:
        file["features"] = h5py.SoftLink("/nowhere")
    with pytest.raises(FeatureFileError, match=r"s\.h5"):
        read_bag(path)


def test_named_type_in_the_place_of_features(write_h5: Any) -> None:
    path = write_h5("s.h5", {"coords": COORDS})
    with h5py.File(path, "a") as file:
        file["features"] = np.dtype(np.float32)
    with pytest.raises(FeatureFileError, match="features is a named type; expected features to be a dataset"):
        read_bag(path)


def test_a_file_cut_anywhere_is_an_error_never_a_bag(write_h5: Any, tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    path = write_h5(
        "whole.h5", {"features": features, "coords": np.zeros((40, 2), int)}, {"features": {"encoder": "x"}}
    )
    whole = path.read_bytes()
    for size in range(0, len(whole), 97):
        cut = tmp_path / "cut.h5"
        cut.write_bytes(whole[:size])
        with pytest.raises(FeatureFileError):
            read_bag(cut)


@pytest.mark.parametrize("read", [read_bag, inspect_bag])
def test_files_are_closed_after_success_and_failure(write_h5: Any, read: Callable[[Path], object]) -> None:
    good = write_h5("good.h5", {"features": FEATURES, "coords": COORDS})
    bad = write_h5("bad.h5", {"features": FEATURES, "coords": COORDS[:2]})
    read(good)
    with pytest.raises(FeatureFileError):
        read(bad)
    for path in (good, bad):
        with h5py.File(path, "r+"):  # fails while any handle is open for reading
            pass


def test_reading_needs_neither_torch_nor_tables() -> None:
    modules = "readers, graph, normalize, writer, importer"
    heavy = "{'torch', 'pandas', 'sklearn', 'xgboost', 'matplotlib'}"
    code = f"from momkd.slides import {modules}; import sys; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- .pt ------------------------------------------------------------------------------------------------------------


def save(path: Path, value: object) -> Path:
    torch.save(value, path)
    return path


@pytest.mark.parametrize(
    ("dtype", "read_as"),
    [(torch.float16, "float16"), (torch.float32, "float32"), (torch.float64, "float32"), (torch.bfloat16, "float32")],
)
def test_tensors_of_every_float_type(tmp_path: Path, dtype: torch.dtype, read_as: str) -> None:
    path = save(tmp_path / "s.pt", torch.from_numpy(FEATURES).to(dtype).requires_grad_())
    bag = read_bag(path)
    assert bag.features.dtype == read_as
    np.testing.assert_array_equal(bag.features, FEATURES)
    assert (bag.layout, bag.coords, inspect_bag(path).n_patches) == ("tensor", None, 4)


def test_tensor_vector_and_old_format(tmp_path: Path) -> None:
    bag = read_bag(save(tmp_path / "s.pt", torch.from_numpy(FEATURES[0])))
    assert (bag.features.shape, bag.layout) == ((1, 3), "tensor-slide")
    torch.save(torch.from_numpy(FEATURES), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    np.testing.assert_array_equal(read_bag(tmp_path / "old.pt").features, FEATURES)


def test_a_read_tensor_does_not_hang_on_its_file(tmp_path: Path) -> None:
    path = save(tmp_path / "s.pt", torch.from_numpy(FEATURES))
    bag = read_bag(path)
    path.write_bytes(b"\0" * path.stat().st_size)
    np.testing.assert_array_equal(bag.features, FEATURES)
    bag.features[0, 0] = 7  # and can be written to


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('pickle was executed')",))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Evil(), r"not a plain tensor .*momkd unpickles no objects"),
        (np.ones(3), r"not a plain tensor"),
        (
            {"features": torch.ones(2, 2), "coords": 1},
            r"a dict with keys features, coords; expected one \(patches, feat",
        ),
        ([torch.ones(2, 2)], r"a list; expected one"),
        (torch.ones(2, 2, dtype=torch.int64), r"tensor \(2, 2\) int64 is not floating point"),
        (torch.ones(1, 2, 2), r"tensor \(1, 2, 2\) float32 has an extra first axis"),
        (torch.eye(3).to_sparse(), r"a tensor of layout torch\.sparse_coo; expected a dense tensor"),
        (torch.full((2, 2), torch.nan), r"NaN or infinite features in 2 of 2"),
        (torch.empty(0, 5), r"tensor \(0, 5\) float32 holds no patch"),
    ],
)
def test_pt_defects_are_named(tmp_path: Path, value: object, message: str) -> None:
    path = save(tmp_path / "s.pt", value)
    with pytest.raises(FeatureFileError, match=message) as caught:
        read_bag(path)
    assert str(path) in str(caught.value)


def test_plain_pickle_is_not_executed(tmp_path: Path) -> None:
    (tmp_path / "s.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(FeatureFileError, match="not a plain tensor"):
        read_bag(tmp_path / "s.pt")


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_truncated_pt_is_an_error(tmp_path: Path, keep: float) -> None:
    path = save(tmp_path / "s.pt", torch.ones(100, 100))
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(FeatureFileError, match=r"s\.pt"):
        read_bag(path)


# --- digest ---------------------------------------------------------------------------------------------------------


def test_digest_depends_on_contents_only(make_bag: Any) -> None:
    base = make_bag()
    digest = bag_digest(base)
    assert len(digest) == 64
    same = make_bag(slide_id="another", source=Path("elsewhere"), encoder=None, mpp=None)
    assert bag_digest(same) == digest
    edges = {3: np.array([[0], [1]])}
    others = [
        make_bag(seed=1),
        make_bag(coords=None),
        make_bag(coords=base.coords + 1),
        make_bag(features=base.features.astype(np.float16)),
        make_bag(features=base.features.reshape(15, 10), coords=None),
        make_bag(edges=edges),
        make_bag(edges={4: edges[3]}),
    ]
    assert len({digest, *map(bag_digest, others)}) == 1 + len(others)
    assert bag_digest(make_bag(coords=base.coords.astype(np.float64))) == digest
    assert bag_digest(make_bag(features=np.asfortranarray(base.features))) == digest
