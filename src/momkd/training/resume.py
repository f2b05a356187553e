"""The resume point of a fit: one safetensors file, written whole or not at all. No pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as dump_tensors
from torch import Tensor

from momkd.errors import RunError
from momkd.files import atomic_path
from momkd.training.parameters import set_learning_rate


@dataclass
class Progress:
    """Where a fit stands after ``epoch`` epochs; everything that is not a tensor."""

    epoch: int = 0
    lr: float = 0.0
    best_epoch: int = 0
    best_auc: float = -1.0
    best_loss: float = float("inf")
    plateau_best: float = -1.0
    plateau_bad_epochs: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def save_point(
    path: Path,
    progress: Progress,
    model: Mapping[str, Tensor],
    best: Mapping[str, Tensor],
    optimiser: torch.optim.Optimizer,
) -> None:
    """Write the state of a fit atomically."""
    tensors = {f"model.{name}": value for name, value in model.items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(dump_tensors(tensors, metadata={"progress": json.dumps(asdict(progress))}))


def load_point(path: Path, optimiser: torch.optim.Optimizer) -> tuple[Progress, dict[str, Tensor], dict[str, Tensor]]:
    """Read (progress, model, best) and put the optimiser back into its state.

    Raises RunError when the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            progress = Progress(**json.loads(file.metadata()["progress"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: not a resume point: {error}; delete it to start this fold again") from error
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimiser": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in parts["optimiser"].items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
    set_learning_rate(optimiser, progress.lr)
    return progress, parts["model"], parts["best"]
