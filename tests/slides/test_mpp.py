"""µm per pixel: a number for all, or a table by slide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from momkd.errors import FeatureFileError
from momkd.slides.importer import import_features
from momkd.slides.mpp import mpp_of, read_slide_mpp
from momkd.slides.packing import pack_store
from momkd.slides.readers import read_bag
from momkd.slides.store import FeatureStore


def table(folder: Path, text: str) -> Path:
    path = folder / "mpp.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_numbers_and_tables(tmp_path: Path) -> None:
    assert read_slide_mpp(None) is None
    assert read_slide_mpp("0.25") == read_slide_mpp(0.25) == 0.25
    known = read_slide_mpp(table(tmp_path, "slide_id,mpp,scanner\na,0.25,x\nb,,y\nc, 0.5 ,z\na,0.25,x\n"))
    assert [mpp_of(known, slide) for slide in "abcd"] == [0.25, None, 0.5, None]
    assert mpp_of(0.5, "a") == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide,mpp\na,1\n", "columns slide_id and mpp; missing: slide_id"),
        ("", "columns none"),
        ("slide_id,mpp\na,fast\nb,-1\nc,inf\n", r"(?s)row 2: slide 'a', mpp 'fast'.*row 3.*row 4"),
        ("slide_id,mpp\na,0.25\na,0.5\n", "slide a has mpp 0.25 and 0.5"),
    ],
)
def test_unusable_tables_are_refused_whole(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(FeatureFileError, match=message):
        read_slide_mpp(table(tmp_path, text))


def test_absent_tables_and_senseless_numbers(tmp_path: Path) -> None:
    with pytest.raises(FeatureFileError, match="a number, or a CSV"):
        read_slide_mpp(tmp_path / "absent.csv")
    with pytest.raises(FeatureFileError, match="0.0 for slide a"):
        mpp_of(0.0, "a")


def test_each_slide_has_its_own(write_h5: Any, tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float16)
    coords = np.array([[0.0, 0.0], [128.0, 0.0], [0.0, 128.0]], dtype=np.float32)
    attrs = {"": {"unit": "um", "tile_size_um": 128.0, "extractor": "x", "feat_type": "tile"}}
    for name in "ab":
        write_h5(f"stamp/{name}.h5", {"feats": features, "coords": coords}, attrs)
    known = read_slide_mpp(table(tmp_path, "slide_id,mpp\na,0.25\nb,0.5\n"))
    places = {name: tmp_path / "stamp" / f"{name}.h5" for name in "ab"}
    assert [read_bag(path, slide_mpp=known).patch_size_level0 for path in places.values()] == [512.0, 256.0]
    import_features(tmp_path / "stamp", tmp_path / "ours", slide_mpp=known)
    assert read_bag(tmp_path / "ours" / "a.h5").coords[1].tolist() == [512, 0]  # type: ignore[index]
    # Another slide's number changes, and only that slide is written again.
    changed = {**known, "b": 1.0}  # type: ignore[dict-item]
    assert import_features(tmp_path / "stamp", tmp_path / "ours", slide_mpp=changed).written == ("b",)
    pack_store(tmp_path / "store", places, slide_mpp=known)
    assert FeatureStore(tmp_path / "store").index.slides["b"].slide_mpp == 0.5
    assert pack_store(tmp_path / "store", places, slide_mpp=changed).packed == ("b",)
