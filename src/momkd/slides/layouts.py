"""The HDF5 layouts that momkd reads: each declares what it recognises and says where things are.

A new layout is one `Layout` in `LAYOUTS`, before the less specific ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from momkd.slides.hdf5 import contents, dataset, number, open_h5, text
from momkd.slides.remote import FeatureFile
from momkd.slides.sheet import GIVE_MPP, Sheet, Stored, defect

FORMAT_ATTRIBUTE = "momkd_bag_format"
FORMAT_VERSION = 1
_EDGES = re.compile(r"edge_index_k([1-9]\d*)")


@dataclass(frozen=True)
class Layout:
    """One way of arranging a feature file.

    ``recognises(file)`` looks at names and attributes only; ``describe(path, file, slide_mpp)`` gives the Sheet.
    """

    name: str
    recognises: Callable[[Any], bool]
    describe: Callable[[FeatureFile, Any, float | None], Sheet]


def describe_h5(path: FeatureFile, file: Any, slide_mpp: float | None) -> Sheet:
    """Describe an open HDF5 file in the first layout that recognises it.

    Raises FeatureFileError naming what an unknown file holds.
    """
    for layout in LAYOUTS:
        if layout.recognises(file):
            return layout.describe(path, file, slide_mpp)
    if set(file) == {"coords"}:
        mend = "run the tool's feature extraction on these patches, and give the folder that it writes"
        raise defect(path, f"patch coordinates only ({contents(file)})", "a dataset features", mend)
    expected = "a dataset features (TRIDENT, CLAM, published MoMKD, momkd) or feats (STAMP)"
    raise defect(
        path, f"an unknown layout: it holds {contents(file)}", expected, "rename the feature dataset to features"
    )


def patch_size_beside(path: Path) -> float | None:
    """Return the level-0 patch size that the patching step wrote beside a feature folder, in pixels, or None.

    CLAM: ``../patches/<slide>.h5`` with patch_size at a pyramid level of some downsample; TRIDENT:
    ``../patches/<slide>_patches.h5`` with patch_size_level0. Raises FeatureFileError where that file is damaged.
    """
    folder = path.parent.parent / "patches"
    for beside in (folder / f"{path.stem}.h5", folder / f"{path.stem}_patches.h5"):
        if beside.is_file():
            with open_h5(beside) as file:
                dataset(beside, file, "coords")
                coords = file["coords"]
                size = number(beside, coords, "patch_size_level0")
                if size is not None:
                    return size
                at_level, downsample = number(beside, coords, "patch_size"), number(beside, coords, "downsample")
                return None if at_level is None or downsample is None else at_level * downsample
    return None


def _edges(path: FeatureFile, file: Any) -> dict[int, Stored]:
    found = {}
    for name in map(str, file):  # h5py gives bytes for names that are not UTF-8
        if not name.startswith("edge_index"):
            continue
        match = _EDGES.fullmatch(name)
        if match is None:
            raise defect(path, f"a dataset {name}", "graphs to be named edge_index_k<k>, such as edge_index_k8")
        found[int(match.group(1))] = dataset(path, file, name)
    return dict(sorted(found.items()))


def _coords(path: FeatureFile, file: Any) -> Stored | None:
    return dataset(path, file, "coords") if "coords" in file else None


def _describe_ours(path: FeatureFile, file: Any, slide_mpp: float | None) -> Sheet:
    version = text(file, FORMAT_ATTRIBUTE)
    if version != str(FORMAT_VERSION):
        found = f"version {version} of momkd's bag format"
        raise defect(path, found, f"version {FORMAT_VERSION}", "update momkd, or run momkd import-features again")
    mpp = number(path, file, "mpp")
    return Sheet(
        path,
        "momkd",
        dataset(path, file, "features"),
        _coords(path, file),
        _edges(path, file),
        patch_size_level0=number(path, file, "patch_size_level0"),
        mpp=slide_mpp if mpp is None else mpp,
        encoder=text(file, "encoder"),
    )


def _describe_stamp(path: FeatureFile, file: Any, slide_mpp: float | None) -> Sheet:
    features, encoder = dataset(path, file, "feats"), text(file, "extractor")
    if text(file, "feat_type") in ("slide", "patient"):
        return Sheet(path, "stamp-slide", features, mpp=slide_mpp, encoder=encoder, is_vector=True)
    coords = _coords(path, file)
    if coords is None:
        return Sheet(path, "stamp", features, mpp=slide_mpp, encoder=encoder)
    unit = text(file, "unit")
    if unit != "um":
        found = f"STAMP coordinates in {'an unnamed unit' if unit is None else repr(unit)}"
        raise defect(path, found, "unit 'um', as STAMP 2 and later write", "extract the features again with STAMP ≥ 2")
    if slide_mpp is None:
        raise defect(path, "STAMP coordinates in µm, and no µm per pixel in the file", "the slide's mpp", GIVE_MPP)
    tile_um = number(path, file, "tile_size_um")
    size = None if tile_um is None else tile_um / slide_mpp
    return Sheet(
        path, "stamp", features, coords, patch_size_level0=size, mpp=slide_mpp, encoder=encoder, um_per_px=slide_mpp
    )


def _describe_trident(path: FeatureFile, file: Any, slide_mpp: float | None) -> Sheet:
    features, coords, edges = dataset(path, file, "features"), _coords(path, file), _edges(path, file)
    return Sheet(
        path,
        "momkd-published" if edges else "trident",
        features,
        coords,
        edges,
        patch_size_level0=None if coords is None else number(path, file["coords"], "patch_size_level0"),
        mpp=slide_mpp,
        encoder=text(file["features"], "encoder"),
    )


def _describe_vector(path: FeatureFile, file: Any, slide_mpp: float | None) -> Sheet:
    """A slide encoder's vector; the coordinates that TRIDENT keeps beside it are those of the patches it came from."""
    encoder = text(file["features"], "encoder")
    return Sheet(path, "trident-slide", dataset(path, file, "features"), mpp=slide_mpp, encoder=encoder, is_vector=True)


def _describe_clam(path: FeatureFile, file: Any, slide_mpp: float | None) -> Sheet:
    features = dataset(path, file, "features")
    size = patch_size_beside(path) if isinstance(path, Path) else None
    return Sheet(path, "clam", features, _coords(path, file), patch_size_level0=size, mpp=slide_mpp)


def _has_vector(file: Any) -> bool:
    return "features" in file and getattr(file["features"], "ndim", None) == 1


def _has_trident_marks(file: Any) -> bool:
    if "features" not in file:
        return False
    marked = {"encoder", "savetodir"} & set(file["features"].attrs)
    sized = "coords" in file and "patch_size_level0" in file["coords"].attrs
    return bool(marked) or sized or any(str(name).startswith("edge_index") for name in file)


# The most specific first; CLAM's files carry no attribute at all, so theirs comes last.
LAYOUTS: tuple[Layout, ...] = (
    Layout("momkd", lambda file: FORMAT_ATTRIBUTE in file.attrs, _describe_ours),
    Layout("stamp", lambda file: "feats" in file, _describe_stamp),
    Layout("trident-slide", _has_vector, _describe_vector),
    Layout("trident", _has_trident_marks, _describe_trident),
    Layout("clam", lambda file: "features" in file, _describe_clam),
)
