"""Parity with the authors' published implementation: its tensors, its losses, its gradients, its optimiser steps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from momkd.experiment import ModelSettings
from momkd.models.momkd import Lesson, Losses, MoMKD
from momkd.models.outcome import Nominal
from momkd.models.packed import PackedBags
from momkd.models.published import from_published, to_published_name


@dataclass
class Reference:
    arrays: dict[str, np.ndarray]
    meta: dict[str, int | float]

    def tensor(self, key: str) -> Tensor:
        return torch.from_numpy(np.array(self.arrays[key]))

    def state(self, prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(f"{prefix}/"): self.tensor(k) for k in self.arrays if k.startswith(f"{prefix}/")}

    @property
    def n_slides(self) -> int:
        return len({k.split("/")[0] for k in self.arrays if k.startswith("slide")})

    def bags(self, *slides: int) -> PackedBags:
        return PackedBags.pack(
            [self.tensor(f"slide{i}/features") for i in slides], [self.tensor(f"slide{i}/edge_index") for i in slides]
        )

    def labels(self, *slides: int) -> Tensor:
        return torch.stack([self.tensor(f"slide{i}/label") for i in slides])

    def rna(self, *slides: int) -> Tensor:
        return torch.cat([self.tensor(f"slide{i}/rna") for i in slides])

    def model(self, prefix: str = "init") -> MoMKD:
        published = from_published(self.state(prefix))
        no_dropout = {"dropout": 0.0}
        published.settings["encoder"] |= no_dropout | {"attention_dropout": 0.0}
        published.settings["rna"] |= no_dropout
        published.settings["classifier"] |= no_dropout
        published.settings["memory"]["margin"] = self.meta["margin"]
        settings = ModelSettings.model_validate(published.settings)
        model = MoMKD(published.in_dim, Nominal(published.n_classes), settings, {"rna": published.n_genes or 0})
        model.load_state_dict(published.state)
        return model

    def losses(self, model: MoMKD, slide: int) -> Losses:
        return model(self.bags(slide), Lesson.of_classes(self.labels(slide), self.rna(slide), torch.tensor([True])))


@pytest.fixture(scope="module", params=["public_small", "public_official_dims"])
def reference(shared: Path, request: pytest.FixtureRequest) -> Reference:
    with np.load(shared / "reference" / f"{request.param}.npz") as archive:
        arrays = {key: archive[key] for key in archive.files}
    return Reference(arrays, json.loads(bytes(arrays.pop("meta"))))


def _close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert float((found - expected.reshape(found.shape)).abs().max()) <= tolerance


def test_inference_with_initial_weights(reference: Reference) -> None:
    model = reference.model().eval()
    for i in range(reference.n_slides):
        with torch.no_grad():
            out = model.student(reference.bags(i))
        _close(out.logits, reference.tensor(f"infer0/{i}/logits"), 1e-5)
        _close(out.attention, reference.tensor(f"infer0/{i}/attention"), 1e-5)


def test_packed_inference_equals_one_by_one(reference: Reference) -> None:
    model = reference.model().eval()
    slides = range(reference.n_slides)
    with torch.no_grad():
        out = model.student(reference.bags(*slides))
    _close(out.logits, torch.cat([reference.tensor(f"infer0/{i}/logits") for i in slides]), 1e-5)
    _close(out.attention, torch.cat([reference.tensor(f"infer0/{i}/attention").flatten() for i in slides]), 1e-5)


def test_training_steps(reference: Reference) -> None:
    """Losses, outputs, gradients and, after every AdamW step, inference."""
    model = reference.model().train()
    meta = reference.meta
    optimiser = torch.optim.AdamW(model.parameters(), lr=meta["lr"], weight_decay=meta["weight_decay"])
    names = {"task": "task", "memory": "mem", "rna": "rna", "slide": "wsi", "reconstruction": "recon", "total": "total"}
    for step in range(int(meta["steps"])):
        slide = step % reference.n_slides
        optimiser.zero_grad()
        losses = reference.losses(model, slide)
        losses.total.backward()
        for ours, theirs in names.items():
            expected = float(reference.arrays[f"step{step}/loss_{theirs}"])
            assert losses.values()[ours] == pytest.approx(expected, rel=1e-5), (step, ours)
        if step <= 1:
            _check_gradients(reference, model, step)
        torch.nn.utils.clip_grad_norm_(model.parameters(), float(meta["clip"]))
        optimiser.step()
    model.eval()
    for i in range(reference.n_slides):
        with torch.no_grad():
            out = model.student(reference.bags(i))
        _close(out.logits, reference.tensor(f"infer1/{i}/logits"), 1e-3)
        _close(out.attention, reference.tensor(f"infer1/{i}/attention"), 1e-3)


def _check_gradients(reference: Reference, model: MoMKD, step: int) -> None:
    checked = 0
    for name, parameter in model.named_parameters():
        if name == "student.memory.codes":
            pair = [reference.tensor(f"step{step}/grad/mem_{sign}._codebook.embed") for sign in ("neg", "pos")]
            expected = torch.cat(pair)
        else:
            expected = reference.tensor(f"step{step}/grad/{to_published_name(name)}")
        assert parameter.grad is not None
        scale = float(expected.abs().max())
        _close(parameter.grad, expected, 1e-4 * max(scale, 1e-8))
        checked += 1
    assert checked == len(list(model.parameters()))


def test_final_weights(reference: Reference) -> None:
    model = reference.model("final").eval()
    with torch.no_grad():
        out = model.student(reference.bags(0))
    _close(out.logits, reference.tensor("infer1/0/logits"), 1e-5)
