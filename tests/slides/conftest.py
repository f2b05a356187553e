"""Bags and feature files for the tests of this floor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from momkd.slides.bag import Bag

WriteH5 = Callable[..., Path]


@pytest.fixture
def write_h5(tmp_path: Path) -> WriteH5:
    """write_h5(name, {dataset: array}, attrs={owner: {name: value}}) → path; owner "" is the file."""

    def write(name: str, datasets: dict[str, Any], attrs: dict[str, dict[str, Any]] | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            for key, values in datasets.items():
                file.create_dataset(key, data=values)
            for owner, pairs in (attrs or {}).items():
                target = file[owner] if owner else file
                for key, value in pairs.items():
                    target.attrs[key] = value
        return path

    return write


@pytest.fixture
def make_bag() -> Callable[..., Bag]:
    """make_bag(n_patches, width, seed=, **fields) → a bag on a 256-px grid, float32."""

    def make(n_patches: int = 30, width: int = 5, seed: int = 0, **fields: Any) -> Bag:
        rng = np.random.default_rng(seed)
        side = int(np.ceil(np.sqrt(n_patches)))
        grid = np.stack(np.divmod(np.arange(n_patches), side), axis=1).astype(np.int64) * 256
        content: dict[str, Any] = {
            "slide_id": "slide-1",
            "features": rng.normal(size=(n_patches, width)).astype(np.float32),
            "coords": grid,
            "patch_size_level0": 256.0,
            "mpp": 0.5,
            "encoder": "an-encoder",
        }
        return Bag(**(content | fields))

    return make
