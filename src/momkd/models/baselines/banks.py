"""Instance memories: one unit row a training slide and side, student and teacher, and the NCE loss against them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from momkd.models.packed import segment_mean

_TEMPERATURE = 0.07
_MOMENTUM = 0.5


class Banks(nn.Module):
    """The memories of the N slides of a fit: ``student`` and ``teacher`` (N, S), ``seen`` (N,) bool, ``classes`` (N,).

    ``normaliser`` (2,), the mean affinity z to the teacher's and to the student's bank, 0 until it is estimated.
    All are buffers of the method, so that a resumed fit has them. During a step they stand still: rows are handed in
    by ``observe`` and written by ``after_step``. A slide that was not seen has no rows and is nobody's negative.
    """

    student: Tensor
    teacher: Tensor
    seen: Tensor
    classes: Tensor
    normaliser: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self._observed: list[tuple[Tensor, Tensor, Tensor]] = []
        self.start(torch.zeros(0, dtype=torch.int64))

    def start(self, classes: Tensor) -> None:
        """Empty banks for slides of these memory classes (N,) int64."""
        zeros = torch.zeros(len(classes), self.width, device=classes.device)
        self.register_buffer("student", zeros)
        self.register_buffer("teacher", zeros.clone())
        self.register_buffer("seen", torch.zeros(len(classes), dtype=torch.bool, device=classes.device))
        self.register_buffer("classes", classes.clone())
        self.register_buffer("normaliser", zeros.new_zeros(2))
        self._observed = []

    def observe(self, index: Tensor, student: Tensor, teacher: Tensor) -> None:
        """Remember unit rows (M, S) of slides ``index`` (M,) for the end of the step; a slide may occur twice."""
        self._observed.append((index, student.detach(), teacher.detach()))

    @torch.no_grad()
    def after_step(self) -> None:
        """row ← normalise(m · row + (1 − m) · mean of the slide's new rows), m = 0.5; a first row is written as is."""
        if not self._observed:
            return
        index, *rows = (torch.cat(parts) for parts in zip(*self._observed, strict=True))
        self._observed = []
        places, owner = torch.unique(index, return_inverse=True)
        momentum = torch.where(self.seen[places], _MOMENTUM, 0.0).unsqueeze(1)
        for bank, new in zip((self.student, self.teacher), rows, strict=True):
            mean = segment_mean(new, owner, len(places))
            bank[places] = functional.normalize(momentum * bank[places] + (1.0 - momentum) * mean, dim=1)
        self.seen[places] = True

    def losses(self, student: Tensor, teacher: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """NCE of student rows against the teacher's bank plus that of teacher rows against the student's: (M,).

        Unit rows (M, S); ``positive`` and ``negative`` (M, N) bool, of seen slides.
        """
        sides = ((student, self.teacher), (teacher, self.student))
        total = student.new_zeros(len(student))
        for side, (rows, bank) in enumerate(sides):
            affinity = (rows @ bank.T / _TEMPERATURE).exp()
            constant = self._normaliser(side, affinity.detach()) * self.seen.sum()
            total = total + nce_loss(affinity / constant, positive, negative, self.seen.sum())
        return total

    @torch.no_grad()
    def _normaliser(self, side: int, affinity: Tensor) -> Tensor:
        """The mean affinity to seen slides, estimated once, when the bank is used first."""
        unset = self.normaliser[side] == 0
        self.normaliser[side] = torch.where(unset, affinity[:, self.seen].mean(), self.normaliser[side])
        return self.normaliser[side].clone()


def nce_loss(probability: Tensor, positive: Tensor, negative: Tensor, n: Tensor) -> Tensor:
    """Noise-contrastive estimation (Gutmann & Hyvärinen 2010; Tian et al. 2020, eq. 10 and 19).

    P = exp(u·v / T) / Z, Z = n · mean affinity, is the probability of a pair, 1/n that of noise. With m negatives:

        L = − mean_{+} log(P / (P + m/n)) − Σ_{−} log((m/n) / (P + m/n))

    ``probability`` (M, N); masks (M, N) bool; ``n`` rows of the bank are in use; → (M,). A row without a positive or
    without a negative costs 0.
    """
    # Without negatives there is no noise: such a row is masked, and must not be 0 / 0 before.
    noise = negative.sum(1, keepdim=True).clamp(min=1) / n
    total = (probability + noise).log()
    own = torch.where(positive, total - probability.clamp(min=1e-30).log(), 0.0).sum(1) / positive.sum(1).clamp(min=1)
    others = torch.where(negative, total - noise.log(), 0.0).sum(1)
    return torch.where(positive.any(1) & negative.any(1), own + others, 0.0)
