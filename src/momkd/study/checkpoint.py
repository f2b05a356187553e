"""A published MoMKD checkpoint → a student folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from momkd.errors import CheckpointError
from momkd.experiment import ModelSettings, TaskSettings
from momkd.models.outcome import make_outcome
from momkd.models.published import PublishedModel, from_published
from momkd.models.student import Student
from momkd.slides.normalize import make_normalizer
from momkd.student import FeatureGeometry, StudentCard, StudentPredictor, save_student

_WRAPPERS = ("state_dict", "model_state_dict", "model")


def import_checkpoint(
    source: Path,
    out: Path,
    *,
    label: str = "label",
    classes: Sequence[str] = ("negative", "positive"),
    graph_k: int = 8,
    threshold: float = 0.5,
    encoder: str | None = None,
    patch_size_level0: float | None = None,
    mpp: float | None = None,
) -> StudentPredictor:
    """Write the histology-only half of a published state dict as a student; sizes and heads come from the tensors.

    Raises CheckpointError when the file would need pickle to run code, lacks tensors or has tensors of other shapes.
    """
    published = _read(Path(source))
    if len(classes) != published.n_classes:
        raise CheckpointError(
            f"{source}: its classifier has {published.n_classes} classes, {len(classes)} names were given: "
            f"{list(classes)}"
        )
    task = TaskSettings(label=label, classes=tuple(classes))
    try:
        settings = ModelSettings.model_validate(published.settings)
        with torch.device("meta"):
            network = Student(published.in_dim, make_outcome(task), settings)
        weights = {
            n.removeprefix("student."): v.float() for n, v in published.state.items() if n.startswith("student.")
        }
        network.load_state_dict(weights, assign=True)
    except (RuntimeError, ValueError, ValidationError) as error:
        raise CheckpointError(f"{source}: not a MoMKD checkpoint: {error}") from error
    card = StudentCard(
        task=task,
        features=FeatureGeometry(published.in_dim, encoder, patch_size_level0, mpp),
        graph_k=graph_k,
        normalize="none",
        model=settings,
        threshold=threshold,
        shared_memory=True,
        source=f"published checkpoint {Path(source).name}",
    )
    predictor = StudentPredictor([network], make_normalizer("none"), card)
    save_student(predictor, Path(out))
    return predictor


def _read(source: Path) -> PublishedModel:
    try:
        raw = torch.load(source, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{source}: no such file") from None
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{source}: not a plain state dict ({first}); save it with torch.save(model.state_dict(), ...)"
        ) from error
    for key in _WRAPPERS:
        if isinstance(raw, dict) and isinstance(raw.get(key), dict):
            raw = raw[key]
    if not isinstance(raw, dict) or not all(isinstance(value, Tensor) for value in raw.values()):
        raise CheckpointError(f"{source}: found {type(raw).__name__}, expected a state dict of tensors")
    state = {str(name).removeprefix("module."): tensor for name, tensor in raw.items()}
    try:
        return from_published(state)
    except KeyError as error:
        raise CheckpointError(f"{source}: not a MoMKD checkpoint; tensors are missing: {error.args[0]}") from None
    except ValueError as error:
        raise CheckpointError(f"{source}: not a MoMKD checkpoint: {error}") from error
