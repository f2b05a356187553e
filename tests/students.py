"""Fixtures: a student with random weights, and feature files for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from momkd.experiment import ModelSettings, TaskSettings
from momkd.slides.bag import Bag
from momkd.slides.normalize import make_normalizer
from momkd.slides.writer import write_bag
from momkd.student import FeatureGeometry, StudentCard, StudentPredictor, save_student

WIDTH = 5
MakeStudent = Callable[..., Path]
MakeFeatures = Callable[..., Path]


@pytest.fixture(scope="session")
def make_student() -> MakeStudent:
    """make_student(folder, name="momkd", task=None, shared_memory=True, graph_k=3, features=None): two members."""

    def make(
        folder: Path,
        name: str = "momkd",
        task: TaskSettings | None = None,
        shared_memory: bool = True,
        graph_k: int = 3,
        features: FeatureGeometry | None = None,
    ) -> Path:
        torch.manual_seed(0)
        settings = ModelSettings.model_validate(
            {
                "name": name,
                "encoder": {"dim": 8},
                "memory": {"codes": 2, "dim": 4},
                "classifier": {"hidden": 6},
                "wide": {"enabled": True},
                "programmes": {"dim": 3, "codes": 2},
                "baseline": {"dim": 8, "attention": 6},
            }
        )
        card = StudentCard(
            task=task or TaskSettings(label="HER2", classes=("low", "high")),
            features=features or FeatureGeometry(WIDTH, "lite", 64.0, 0.5, 32.0),
            graph_k=graph_k,
            normalize="none",
            model=settings,
            threshold=0.4,
            members=2,
            programmes=("rna",) if name == "momkd" else (),
            shared_memory=shared_memory,
            source="fold-0-0",
        )
        members = [card.network() for _ in range(2)]
        with torch.no_grad():
            for member in members:
                for parameter in member.parameters():
                    parameter.copy_(0.3 * torch.randn_like(parameter))
        save_student(StudentPredictor(members, make_normalizer("none"), card), folder)
        return folder

    return make


@pytest.fixture(scope="session")
def make_features() -> MakeFeatures:
    """make_features(folder, slide_id, columns=6, rows=4, side=64, …): one feature file of patches on a grid."""

    def make(
        folder: Path,
        slide_id: str,
        *,
        columns: int = 6,
        rows: int = 4,
        side: float | None = 64.0,
        mpp: float | None = 0.5,
        coords: bool = True,
        width: int = WIDTH,
        seed: int = 0,
    ) -> Path:
        rng = np.random.default_rng(seed)
        n = columns * rows
        corners = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2) * int(side or 64)
        bag = Bag(
            slide_id,
            rng.normal(size=(n, width)).astype(np.float32),
            corners if coords else None,
            side,
            mpp,
            "lite",
        )
        target = folder / f"{slide_id}.h5"
        folder.mkdir(parents=True, exist_ok=True)
        write_bag(bag, target, dtype="float32", producer="tests")
        return target

    return make
