"""Fixtures that every test may use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from momkd.experiment import TaskSettings
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
    "train": {
        "epochs": 3,
        "patience": 3,
        "lr": 5e-3,
        "batch_size": 8,
        "members": 2,
        "threads": 1,
        "accelerator": "cpu",
    },
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


@pytest.fixture(scope="session")
def add_cnv() -> Callable[[Path], list[str]]:
    """A function (experiment file) that puts a second omics table beside the first, and returns the overrides for both.

    The first six patients are in rna only, the last six in cnv only; the file of the first table is cut to that.
    """

    def add(file: Path) -> list[str]:
        rna = pd.read_csv(file.parent / "rna.csv", index_col="patient_id")
        cnv = (0.5 * rna.iloc[6:, :7] + np.random.default_rng(1).normal(size=(len(rna) - 6, 7))).round(4)
        cnv.set_axis([f"C{g}" for g in range(7)], axis=1).T.rename_axis("segment").to_csv(file.parent / "cnv.csv")
        rna.iloc[:-6].to_csv(file.parent / "rna.csv")
        return [
            "omics={rna: {table: rna.csv, select: {method: variance, n: 8}}, cnv: {table: cnv.csv, scale: standard}}",
        ]

    return add


def _write_slide(target: Path, slide: str, rng: np.random.Generator, shift: float) -> None:
    n = int(rng.integers(9, 16))
    features = rng.normal(size=(n, 6)).astype(np.float32)
    features[: n // 4, 0] += 2.0 * shift
    grid = np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(-1, 2)[:n] * 512
    bag = Bag(slide, features, grid, 512.0, 0.25, "toy", {}, "momkd", target)
    write_bag(bag, target, dtype="float32", producer="tests")


GRADES = ("low", "medium", "high")
TASKS = {
    "classification": TaskSettings(label="type", classes=GRADES),
    "ordinal": TaskSettings(type="ordinal", label="grade", classes=GRADES),
    "continuous": TaskSettings(type="continuous", label="score"),
    "survival": TaskSettings(type="survival", label="days", event="died"),
}


@pytest.fixture(scope="session")
def predicted() -> Callable[..., tuple[TaskSettings, pd.DataFrame]]:
    """A function (kind, n=60, repeats=2, folds=3) that returns a task and what a cross-validation of it predicts."""

    def make(kind: str, n: int = 60, repeats: int = 2, folds: int = 3) -> tuple[TaskSettings, pd.DataFrame]:
        rng = np.random.default_rng(0)
        hidden = rng.normal(size=n)
        died = (rng.random(n) < 0.6).astype(int)
        parts = []
        for repeat in range(repeats):
            fold = rng.permutation(n) % folds
            for role, numbers in (("test", fold), ("val", (fold + 1) % folds)):
                seen = hidden + rng.normal(size=n)
                frame = pd.DataFrame(
                    {"repeat": repeat, "fold": numbers, "role": role, "patient_id": [f"P{i:03d}" for i in range(n)]}
                )
                if kind == "continuous":
                    frame["label"], frame["predicted"] = hidden, 0.5 * seen
                elif kind == "survival":
                    frame["time"], frame["event"], frame["risk"] = np.exp(-hidden), died, seen
                else:
                    odds = np.exp(-((seen[:, None] - np.array([-1.1, 0.0, 1.1])) ** 2))
                    frame["label"] = np.array(GRADES)[np.argsort(np.argsort(hidden)) * 3 // n]
                    frame[[f"prob_{name}" for name in GRADES]] = odds / odds.sum(axis=1, keepdims=True)
                parts.append(frame)
        table = pd.concat(parts, ignore_index=True)
        keep = (table["role"] == "test") | (table["patient_id"].str[-1].astype(int) < 5)
        return TASKS[kind], table[keep].reset_index(drop=True)

    return make
