"""The parameter groups of an optimiser: which parameters have a learning rate or a weight decay of their own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from momkd.experiment import TrainSettings
from momkd.models.momkd import MoMKD


def parameter_groups(model: MoMKD, settings: TrainSettings) -> list[dict[str, Any]]:
    """All parameters: the network, the codes of the memory, the wide path, programme maps and their read-out.

    Every group carries its learning-rate factor as ``lr_mult``, which ``set_learning_rate`` respects. The read-out of a
    programme memory does not decay: it has few weights, and moves faster.
    """
    student, own = model.student, model.settings
    memories = list(student.programme_memories().values())
    maps = [layer for memory in memories for layer in (memory.from_mean, memory.from_pooled)]
    special: list[tuple[list[nn.Parameter], float, float]] = [
        ([student.memory.codes], settings.weight_decay, student.memory.parameter_options()["lr_mult"]),
        (_of([] if student.wide is None else [student.wide]), own.wide.weight_decay, own.wide.lr_factor),
        (_of(maps), own.programmes.weight_decay, own.programmes.lr_factor),
        (_of(memory.readout for memory in memories), 0.0, own.programmes.read_lr_factor),
    ]
    elsewhere = {id(parameter) for parameters, _, _ in special for parameter in parameters}
    network = [parameter for parameter in model.parameters() if id(parameter) not in elsewhere]
    return [
        {"params": parameters, "lr": settings.lr * factor, "lr_mult": factor, "weight_decay": decay}
        for parameters, decay, factor in [(network, settings.weight_decay, 1.0), *special]
        if parameters
    ]


def _of(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    return [parameter for module in modules for parameter in module.parameters()]


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group to ``lr`` times its factor."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group.get("lr_mult", 1.0)


def clip_gradients(parameters: Iterable[nn.Parameter], most: float) -> None:
    """Scale all gradients so that their joint norm is at most ``most``.

    As torch's ``clip_grad_norm_``, but on a CPU, where looking at the norm costs no waiting, gradients that need no
    scaling are not written again.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    scale = most / (norm + 1e-6)
    if norm.device.type != "cpu":
        torch._foreach_mul_(gradients, scale.clamp(max=1.0))
    elif float(scale) < 1.0:
        torch._foreach_mul_(gradients, float(scale))
