"""A student on disk: ``student.safetensors`` (tensors) and ``student.json`` (everything else). No pickle."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from momkd.errors import StudentError
from momkd.experiment import ModelSettings, TaskSettings
from momkd.files import atomic_path, read_json, sha256_file, write_json
from momkd.slides.normalize import Kind, load_normalizer
from momkd.student.predictor import FeatureGeometry, StudentCard, StudentPredictor

FORMAT_VERSION = 3
_TENSORS, _CARD = "student.safetensors", "student.json"
# The student's network has no RNA branch and its card says nothing about training.
_MODEL_FIELDS = {"name", "encoder", "memory", "classifier", "wide", "programmes", "baseline"}


def save_student(predictor: StudentPredictor, folder: Path) -> None:
    """Write a student folder; the card is written last, so a folder with a card is whole."""
    folder = Path(folder)
    tensors = {
        f"member.{number}.{name}": value.contiguous().cpu()
        for number, member in enumerate(predictor.members)
        for name, value in member.state_dict().items()
    }
    for name, array in predictor.normalizer.arrays().items():
        tensors[f"normalizer.{name}"] = torch.from_numpy(np.ascontiguousarray(array))
    with atomic_path(folder / _TENSORS) as temporary:
        temporary.write_bytes(dump_tensors(dict(sorted(tensors.items()))))
    card = predictor.card
    write_json(
        folder / _CARD,
        {
            "format_version": FORMAT_VERSION,
            "task": card.task.model_dump(mode="json", exclude={"map"}),
            "members": len(predictor.members),
            "programmes": list(card.programmes),
            "shared_memory": card.shared_memory,
            "threshold": card.threshold,
            "features": asdict(card.features),
            "graph_k": card.graph_k,
            "normalize": card.normalize,
            "model": card.model.model_dump(mode="json", include=_MODEL_FIELDS, exclude={"memory": {"decoupling"}}),
            "cohort": card.cohort,
            "validation": card.validation,
            "intended_use": card.intended_use,
            "source": card.source,
            "sha256": sha256_file(folder / _TENSORS),
        },
    )


def load_student(folder: Path | str, device: str | torch.device = "cpu", *, force: bool = False) -> StudentPredictor:
    """Load a student folder; ``force``: to score features of another encoder or patch size as well.

    Raises StudentError when a file is missing or damaged, of a newer format, or does not hold what its card says.
    """
    folder = Path(folder)
    card_path, tensors_path = folder / _CARD, folder / _TENSORS
    for path in (card_path, tensors_path):
        if not path.is_file():
            raise StudentError(f"{path}: no such file; a student folder holds {_CARD} and {_TENSORS}")
    try:
        raw = read_json(card_path)
        found = raw.get("format_version") if isinstance(raw, dict) else None
        if found != FORMAT_VERSION:
            mend = "upgrade momkd" if isinstance(found, int) and found > FORMAT_VERSION else "train it again"
            raise StudentError(f"{card_path}: format version {found!r}, this momkd reads {FORMAT_VERSION}; {mend}")
        card = _read_card(raw)
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise StudentError(f"{card_path}: not a student card: {error}") from error
    digest = sha256_file(tensors_path)
    if digest != raw.get("sha256"):
        raise StudentError(
            f"{tensors_path}: its SHA-256 is {digest}, {card_path.name} says {raw.get('sha256')}; "
            "the file was damaged or exchanged, copy the student folder again"
        )
    return _build(card, tensors_path, torch.device(device), force=force)


def _read_card(raw: dict[str, Any]) -> StudentCard:
    return StudentCard(
        task=TaskSettings.model_validate(raw["task"]),
        members=int(raw["members"]),
        programmes=tuple(str(name) for name in raw["programmes"]),
        shared_memory=bool(raw["shared_memory"]),
        cohort=dict(raw["cohort"]),
        features=FeatureGeometry(**raw["features"]),
        graph_k=int(raw["graph_k"]),
        normalize=_kind(raw["normalize"]),
        model=ModelSettings.model_validate(raw["model"]),
        threshold=float(raw["threshold"]),
        validation=dict(raw["validation"]),
        source=str(raw["source"]),
    )


def _kind(value: object) -> Kind:
    if value not in get_args(Kind):
        raise ValueError(f"normalize is {value!r}, expected one of {', '.join(get_args(Kind))}")
    return cast("Kind", value)


def _build(card: StudentCard, tensors_path: Path, device: torch.device, *, force: bool) -> StudentPredictor:
    try:
        tensors = load_tensors(tensors_path.read_bytes())
        normalizer = load_normalizer(card.normalize, {k: v.numpy() for k, v in _under(tensors, "normalizer.").items()})
        # Built without memory or random numbers: a wrong card cannot ask for more than its tensor file holds.
        with torch.device("meta"):
            members = [card.network() for _ in range(card.members)]
        for number, member in enumerate(members):
            weights = {name: value.float() for name, value in _under(tensors, f"member.{number}.").items()}
            member.load_state_dict(weights, assign=True)
    except (SafetensorError, RuntimeError, KeyError, ValueError) as error:
        raise StudentError(f"{tensors_path}: does not hold the network of its card: {error}") from error
    return StudentPredictor([member.to(device) for member in members], normalizer, card, force=force)


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
