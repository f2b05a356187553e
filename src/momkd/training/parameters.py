"""The parameter groups of an optimiser: which parameters have a learning rate or a weight decay of their own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from momkd.experiment import TrainSettings
from momkd.models.method import Method, ParameterGroup


def parameter_groups(method: Method, settings: TrainSettings) -> list[dict[str, Any]]:
    """All parameters: the network first, then what the method wants treated otherwise.

    Every group carries its learning-rate factor as ``lr_mult``, which ``set_learning_rate`` respects.
    """
    special = list(method.parameter_groups())
    elsewhere = {id(parameter) for group in special for parameter in group.parameters}
    network = ParameterGroup([parameter for parameter in method.parameters() if id(parameter) not in elsewhere])
    return [
        {
            "params": group.parameters,
            "lr": settings.lr * group.lr_mult,
            "lr_mult": group.lr_mult,
            "weight_decay": settings.weight_decay if group.weight_decay is None else group.weight_decay,
        }
        for group in [network, *special]
        if group.parameters
    ]


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
