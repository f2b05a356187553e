"""How the learning rate moves, when a fit ends, and which weights it keeps.

``plateau`` is the published way: every epoch is judged on the validation patients, the rate falls when they do not get
better, and the best epoch is kept. ``cosine`` chooses nothing: with a few hundred patients the validation AUC of an
epoch is mostly chance, so a fixed number of steps is made and an average of the weights is kept.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from momkd.experiment import TrainSettings


def epochs_of(settings: TrainSettings, n_slides: int) -> int:
    """The most epochs that there can be: as set, or as many as ``least_steps`` needs under ``cosine``."""
    if settings.schedule == "plateau":
        return settings.epochs
    steps_an_epoch = -(-n_slides // settings.slides_a_step)
    return max(settings.epochs, -(-settings.least_steps // steps_an_epoch))


def cosine_factor(step: int, total: int, warm_up: int) -> float:
    """Share of the learning rate at ``step`` of ``total``, from 0: a linear rise, times half a cosine down to zero."""
    rise = min(1.0, (step + 1) / warm_up) if warm_up else 1.0
    return rise * 0.5 * (1.0 + math.cos(math.pi * step / total))


class WeightAverage:
    """θ̄ ← d·θ̄ + (1 − d)·θ with d = min(decay, (1 + n) / (10 + n)) after step n: early weights are soon forgotten.

    ``weights`` are copies of everything in the state dict; what is not a float is taken over as it is. With decay 0
    they are the weights themselves.
    """

    def __init__(self, model: nn.Module, decay: float, weights: dict[str, Tensor] | None = None) -> None:
        self.decay = decay
        own = model.state_dict()
        self.weights = weights or {name: value.detach().clone() for name, value in own.items()}
        names = [name for name, value in own.items() if value.is_floating_point()]
        # The state dict's tensors are the model's own: they stay the same objects while it is trained.
        self._averages, self._own = [self.weights[n] for n in names], [own[n] for n in names]
        self._others = [(self.weights[n], value) for n, value in own.items() if not value.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimiser step ``step``, from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averages, self._own, 1.0 - decay)
        for average, value in self._others:
            average.copy_(value)
