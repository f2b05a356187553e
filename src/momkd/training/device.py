"""Where a fit computes, and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from momkd.experiment import TrainSettings
from momkd.training.ranks import current


class Engine(Protocol):
    """What the loop needs of Lightning Fabric: where to compute, and how gradients come about."""

    @property
    def device(self) -> torch.device:
        """Where the model lives."""

    def setup(self, module: nn.Module, *optimizers: torch.optim.Optimizer) -> Any:
        """Return what to call and to step instead of the module and its optimiser."""

    def no_backward_sync(self, module: Any, enabled: bool = True) -> AbstractContextManager[None]:
        """A block in which ranks do not exchange gradients."""

    def backward(self, tensor: Tensor) -> None:
        """Add up gradients."""


class _OneCpu:
    """One process on a CPU, which has nothing to set up: importing Fabric takes longer than many a fit."""

    device = torch.device("cpu")

    def setup(self, module: nn.Module, *optimizers: torch.optim.Optimizer) -> Any:
        return module, *optimizers

    def no_backward_sync(self, module: Any, enabled: bool = True) -> AbstractContextManager[None]:  # noqa: ARG002
        return nullcontext()

    def backward(self, tensor: Tensor) -> None:
        torch.autograd.backward(tensor)


class _OneOfSeveral(_OneCpu):
    """A process of several that share a fit; ``Ranks.add_up`` exchanges the gradients."""

    def __init__(self) -> None:
        on_gpu = torch.distributed.get_backend() == "nccl"
        self.device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


def make_engine(settings: TrainSettings) -> Engine:
    """Return the engine of a fit, the one place where ``train.accelerator`` takes effect: Fabric, or a plain CPU.

    Where several processes share a fit (``ranks.join``), each has a device of its own.
    """
    if current().world > 1:
        return _OneOfSeveral()
    if settings.accelerator == "cpu" or (settings.accelerator == "auto" and not torch.accelerator.is_available()):
        return _OneCpu()
    from lightning_fabric import Fabric

    return Fabric(accelerator=settings.accelerator, devices=1, precision="32-true")


def training_precision(settings: TrainSettings, device: torch.device) -> torch.autocast:
    """The block in which a training step is computed: the one place where ``train.precision`` takes effect.

    ``bf16`` makes the encoder's matrix products from bfloat16, where the device is faster at that; weights, sums,
    losses, optimiser, validation and the student stay in float32. Fabric's own mixed precision is not used because it
    rounds the inputs, RNA among them, to bfloat16.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16")
