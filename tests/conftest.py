"""Fixtures that every test may use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from momkd.slides.bag import Bag
from momkd.slides.writer import write_bag


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real cohorts, tool-made feature files and reference tensors beside the project."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder ../shared (real cohorts and reference tensors), which is not part of the project")
    return folder


TINY: dict[str, Any] = {
    "cohort": {"table": "cohort.csv", "group": "site"},
    "features": {"dir": "features"},
    "graph": {"k": 4},
    "omics": {"table": "rna.csv", "select": {"method": "variance", "n": 8}},
    "task": {"label": "status", "classes": ["negative", "positive"]},
    "model": {
        "encoder": {"dim": 8},
        "rna": {"hidden": 8, "dim": 6},
        "memory": {"codes": 2, "dim": 4},
        "classifier": {"hidden": 6},
    },
    "train": {"epochs": 3, "patience": 3, "lr": 5e-3, "batch_size": 8, "threads": 1, "accelerator": "cpu"},
    "cv": {"folds": 3, "validation": 0.25},
}

CohortMaker = Callable[..., Path]


@pytest.fixture(scope="session")
def make_cohort() -> CohortMaker:
    """A function (folder, patients=36, seed=0, prefix="P", signal=1.5) that writes a tiny paired cohort.

    It returns the experiment file. Some patients have two slides; class, RNA and one patch in four go together.
    """

    def make(folder: Path, patients: int = 36, seed: int = 0, prefix: str = "P", signal: float = 1.5) -> Path:
        rng = np.random.default_rng(seed)
        rows, rna = [], {}
        for i in range(patients):
            patient, label = f"{prefix}{i:03d}", i % 2
            rna[patient] = rng.normal(size=12).round(4) + label * (np.arange(12) < 4) * signal
            for j in range(1 + (i % 5 == 0)):
                slide = f"{patient}-S{j}"
                _write_slide(folder / "features" / f"{slide}.h5", slide, rng, label * signal)
                rows.append([patient, slide, f"site-{i % 9}", ["negative", "positive"][label]])
        pd.DataFrame(rows, columns=["patient_id", "slide_id", "site", "status"]).to_csv(
            folder / "cohort.csv", index=False
        )
        table = pd.DataFrame.from_dict(rna, orient="index", columns=[f"G{g:02d}" for g in range(12)])
        table.rename_axis("patient_id").to_csv(folder / "rna.csv")
        (folder / "experiment.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
        return folder / "experiment.yaml"

    return make


def _write_slide(target: Path, slide: str, rng: np.random.Generator, shift: float) -> None:
    n = int(rng.integers(9, 16))
    features = rng.normal(size=(n, 6)).astype(np.float32)
    features[: n // 4, 0] += 2.0 * shift
    grid = np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(-1, 2)[:n] * 512
    bag = Bag(slide, features, grid, 512.0, 0.25, "toy", {}, "momkd", target)
    write_bag(bag, target, dtype="float32", producer="tests")
