"""Where a fit computes, and in which precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from momkd.experiment import TrainSettings

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_FABRIC_PRECISION: dict[str, Literal["32-true", "bf16-mixed"]] = {"32": "32-true", "bf16": "bf16-mixed"}


def make_fabric(settings: TrainSettings) -> Fabric:
    """Return the Fabric of a fit: the one place where ``train.accelerator`` and ``train.precision`` take effect.

    ``bf16`` computes the training step in bfloat16 where that is safe; weights, optimiser, validation and the student
    stay in float32, so a run's files and numbers mean the same in both.
    """
    # Imported here: it takes seconds, and whoever only evaluates or predicts needs none of it.
    from lightning_fabric import Fabric

    return Fabric(accelerator=settings.accelerator, devices=1, precision=_FABRIC_PRECISION[settings.precision])
