"""One fit on several processes, each with a part of every step: data parallel training.

torchrun or Slurm starts the processes; Lightning Fabric finds out from the environment which one this is and joins
them. Every process does the same with the same random numbers, but computes a part of the slides of each step: losses
are divided by counts of the whole step, so that gradients of the parts add up, and are summed once a step. All
processes then make the same optimiser step and validate on all patients. Only the first one writes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from momkd.errors import TrainingError

T = TypeVar("T")
# The first process also judges, while the others wait for its next fit.
_PATIENCE = timedelta(hours=6)


@dataclass(frozen=True)
class Ranks:
    """Which process this is, of how many."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This process's part of ``count`` things in a row; the parts follow one another."""
        return slice(count * self.rank // self.world, count * (self.rank + 1) // self.world)

    def same(self, value: T) -> T:
        """What the first process has, in all of them."""
        if self.world == 1:
            return value
        box: list[Any] = [value]
        distributed.broadcast_object_list(box, src=0)
        found: T = box[0]
        return found

    def add_up(self, parameters: Sequence[nn.Parameter], losses: Tensor) -> Tensor:
        """Sum the gradients over the processes, in place, and return the sum of ``losses`` (n,).

        A parameter that no process has a gradient for keeps none.
        """
        if self.world == 1:
            return losses
        have = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32, device=losses.device)
        flat = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten().float() for p in parameters]
        packed = torch.cat([losses.float(), have, *flat])
        distributed.all_reduce(packed)
        summed, have, *parts = torch.split(packed, [len(losses), len(have), *(p.numel() for p in parameters)])
        for parameter, part, anybody in zip(parameters, parts, have.tolist(), strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype) if anybody else None
        found: Tensor = summed.to(losses.dtype)
        return found

    def check(self, slides_a_step: int) -> None:
        """Raise TrainingError where a step has fewer slides than there are processes."""
        if slides_a_step < self.world:
            raise TrainingError(
                f"{self.world} processes share steps of {slides_a_step} slides; raise train.batch_size, or use fewer"
            )


ALONE = Ranks()


def started_together(environment: Mapping[str, str] = os.environ) -> int:
    """How many processes torchrun (WORLD_SIZE) or Slurm (srun with several tasks) started; 1 without either."""
    if "TORCHELASTIC_RUN_ID" in environment or {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= set(environment):
        return int(environment.get("WORLD_SIZE", "1"))
    if "SLURM_PROCID" in environment and environment.get("SLURM_JOB_NAME") not in (None, "bash", "interactive"):
        return int(environment.get("SLURM_NTASKS", "1"))
    return 1


def join(accelerator: str) -> Ranks:
    """Join the processes that were started together; ``accelerator`` auto, cpu or gpu."""
    if distributed.is_available() and distributed.is_initialized():
        return current()
    world = started_together()
    if world == 1:
        return ALONE
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    local = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or world)
    on = ("gpu" if torch.accelerator.is_available() else "cpu") if accelerator == "auto" else accelerator
    strategy = DDPStrategy(timeout=_PATIENCE, process_group_backend="nccl" if on == "gpu" else "gloo")
    fabric = Fabric(accelerator=on, devices=local, num_nodes=max(1, world // local), strategy=strategy)
    fabric.launch()
    return current()


def current() -> Ranks:
    """The processes that were joined."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return ALONE
    return Ranks(distributed.get_rank(), distributed.get_world_size())
