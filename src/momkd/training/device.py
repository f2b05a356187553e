"""Where a fit computes, and in which precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from momkd.experiment import TrainSettings

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def make_fabric(settings: TrainSettings) -> Fabric:
    """Return the Fabric of a fit: the one place where ``train.accelerator`` takes effect."""
    # Imported here: it takes seconds, and whoever only evaluates or predicts needs none of it.
    from lightning_fabric import Fabric

    return Fabric(accelerator=settings.accelerator, devices=1, precision="32-true")


def training_precision(settings: TrainSettings, device: torch.device) -> torch.autocast:
    """The block in which a training step is computed: the one place where ``train.precision`` takes effect.

    ``bf16`` makes the encoder's matrix products from bfloat16, where the device is faster at that; weights, sums,
    losses, optimiser, validation and the student stay in float32. Fabric's own mixed precision is not used because it
    rounds the inputs, RNA among them, to bfloat16.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16")
