"""What ``momkd inspect`` says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from momkd.cli.app import run as momkd
from momkd.slides.folders import given_features
from momkd.slides.inspection import LAYOUTS, inspect_file
from momkd.slides.layouts import LAYOUTS as HDF5_LAYOUTS


def test_a_good_file(write_h5: Any) -> None:
    features = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    coords = np.array([[0, 0], [256, 0], [0, 256], [0, 256]])
    path = write_h5("s.h5", {"features": features, "coords": coords}, {"coords": {"patch_size_level0": 256}})
    found = inspect_file(path, slide_mpp=0.5)
    assert found.ok
    assert found.facts["layout"] == "TRIDENT"
    assert found.facts["patches"] == "4"
    assert found.facts["features"].startswith("3 wide, float32")
    assert found.facts["patch size (µm)"] == "128"
    assert found.facts["coordinates"].startswith("x 0 – 256, y 0 – 256")
    notes = [problem.found for problem in found.problems]
    assert notes == ["1 patches at the place of another one", "no encoder's name"]


def test_every_hdf5_layout_has_a_name() -> None:
    assert {layout.name for layout in HDF5_LAYOUTS} <= set(LAYOUTS)


def test_a_bad_file_is_an_error_and_the_exit_code(write_h5: Any, tmp_path: Path, capsys: Any) -> None:
    path = write_h5("s.h5", {"features": np.full((2, 3), np.nan, dtype=np.float32)})
    assert not inspect_file(path).ok
    assert momkd(["inspect", str(path)]) == 1
    assert "NaN" in capsys.readouterr().out
    assert momkd(["inspect", str(path), "--json"]) == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["ok"], row["file"]) == (False, str(path))
    assert "NaN" in row["problems"][0]


def test_a_folder_lists_its_files(write_h5: Any, tmp_path: Path, capsys: Any) -> None:
    features = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    folder = write_h5("a.h5", {"features": features}).parent
    write_h5("b.h5", {"features": features})
    assert given_features(folder)[0]
    assert momkd(["inspect", str(folder)]) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("name", ["absent.h5", "x.csv"])
def test_what_is_no_feature_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.csv").write_text("a,b\n")
    assert momkd(["inspect", str(tmp_path / name)]) == 1
