"""Every method goes through the loop: a tiny fit learns, is reproducible, and knows its validation patients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from momkd.experiment import ModelSettings, TaskSettings, TrainSettings
from momkd.models.graph import Graph
from momkd.models.registry import METHODS
from momkd.training.fit import FitResult, fit
from momkd.training.samples import BagCache, FitData, OmicsRows, PreparedBag, Rows, Sample
from momkd.training.seeds import derive_seed

SIZES = {"baseline": {"dim": 16, "attention": 8}, "rna": {"hidden": 8, "dim": 6}}
TRAIN = TrainSettings(epochs=12, patience=12, lr=1e-2, batch_size=8, seed=3, threads=1, accelerator="cpu")
HERE = sorted(name for name, entry in METHODS.items() if entry.omics != "train")


def bag_of(slide_id: str, label: int) -> PreparedBag:
    """One or three patches that all say, with noise, what the label is."""
    rng = np.random.default_rng(derive_seed(0, slide_id) % 2**32)
    features = rng.normal(size=(1 + 2 * int(rng.integers(2)), 5)).astype(np.float32)
    features[:, 0] += 3.0 * label
    nodes = torch.arange(len(features))
    return PreparedBag(torch.from_numpy(features), Graph.from_edges(torch.stack([nodes, nodes.roll(1)]), len(features)))


def data_of(name: str) -> FitData:
    train = [Sample(f"t{i:02d}", f"t{i:02d}-0", i % 2) for i in range(40)]
    val = [Sample(f"v{i:02d}", f"v{i:02d}-0", i % 2) for i in range(20)]
    label = {sample.slide_id: sample.label for sample in train + val}
    rng = np.random.default_rng(0)
    omics = {s.patient_id: (rng.normal(size=6) + 2.0 * s.label).astype(np.float32) for s in (train + val)[3:]}
    at_test = METHODS[name].omics == "test"
    return FitData(
        train,
        val,
        BagCache(lambda slide_id: bag_of(slide_id, label[slide_id])),
        TaskSettings(label="status", classes=("negative", "positive")),
        5,
        {"rna": OmicsRows(tuple("abcdef"), Rows.of(omics))} if at_test else {},
        inner_part={sample.patient_id: i // 2 % 5 for i, sample in enumerate(train)},
        omics_at_test=at_test,
    )


def run(name: str) -> FitResult:
    return fit(data_of(name), ModelSettings.model_validate({"name": name, **SIZES}), TRAIN)


@pytest.mark.parametrize("name", HERE)
def test_a_tiny_fit_learns_and_is_reproducible(name: str) -> None:
    first, second = run(name), run(name)
    assert max(row["val_auc"] for row in first.history) > 0.85
    assert len(first.history) == (1 if METHODS[name].solved else TRAIN.epochs)
    left, right = first.model.state_dict(), second.model.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)
