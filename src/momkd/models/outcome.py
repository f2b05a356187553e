"""What is predicted: how scores become a loss and a prediction. One class a type of task.

A network gives a slide O scores s. For C classes they are the C − 1 log-odds against the first class; for every other
task there is one score, and the higher it is, the higher the value, or the earlier the event. What turns a score into
probabilities (cut points, baseline hazards) belongs to the outcome, so that network, memory and teachers know scores
only. Targets are (B, 2) float: the class, value or time, and whether the event was seen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from momkd.experiment import TaskSettings


class Outcome(nn.Module, ABC):
    """Base: ``n_outputs`` of the classification head, ``n_scores`` O made of them, ``n_memories`` codebooks."""

    n_outputs: int
    n_scores: int
    n_memories: int
    # Half the largest curvature of the loss in a score: a soft label t costs curvature · (s − t)².
    curvature: float

    def scores(self, outputs: Tensor) -> Tensor:
        """Outputs of the head (B, n_outputs) → scores (B, O)."""
        return outputs

    @abstractmethod
    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Loss of each slide: (B, O), (B, 2) → (B,)."""

    @abstractmethod
    def predict(self, scores: Tensor) -> Tensor:
        """What is reported: (B, O) → (B, columns), the class probabilities, the value, or the risk."""

    def memory_class(self, targets: Tensor) -> Tensor:
        """The codebook that each target belongs to: (N, 2) → (N,) int64, −1 where it is unknown."""
        return targets[:, 0].long()

    @abstractmethod
    def start(self, targets: Tensor) -> Tensor:
        """Learn from the training targets (N, 2) what needs no slide; return the scores (O,) of an average patient."""


class Nominal(Outcome):
    """C classes: softmax over (0, s), cross-entropy. For C = 2 the score is the log-odds of the second class."""

    curvature = 1.0 / 8.0

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.n_outputs = self.n_memories = n_classes
        self.n_scores = n_classes - 1

    def scores(self, outputs: Tensor) -> Tensor:
        """Logits (B, C) → log-odds against the first class (B, C − 1)."""
        return outputs[:, 1:] - outputs[:, :1]

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy."""
        return functional.cross_entropy(_with_reference(scores), targets[:, 0].long(), reduction="none")

    def predict(self, scores: Tensor) -> Tensor:
        """Class probabilities (B, C)."""
        return torch.softmax(_with_reference(scores), dim=-1)

    def start(self, targets: Tensor) -> Tensor:
        """The log-odds of the class frequencies."""
        counts = torch.bincount(targets[:, 0].long(), minlength=self.n_memories).clamp(min=0.5)
        return (counts[1:] / counts[0]).log()


class Ordinal(Outcome):
    """Classes in an order, proportional odds (McCullagh 1980): P(y ≥ k) = σ(s − θ_k), θ_1 < … < θ_{C−1} learnt."""

    n_outputs = n_scores = 1
    curvature = 1.0 / 8.0

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.n_memories = n_classes
        # θ_1, and the logarithms of the distances to the next ones.
        self.cuts = nn.Parameter(torch.zeros(n_classes - 1))

    def cut_points(self) -> Tensor:
        """θ: (C − 1,), rising."""
        return torch.cat([self.cuts[:1], self.cuts[1:].exp()]).cumsum(0)

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """−log P(y), with P(y = k) = σ(s − θ_k) − σ(s − θ_{k+1})."""
        return -self._log_prob(scores).gather(1, targets[:, :1].long()).squeeze(1)

    def predict(self, scores: Tensor) -> Tensor:
        """Class probabilities (B, C)."""
        return self._log_prob(scores).exp()

    def _log_prob(self, scores: Tensor) -> Tensor:
        # With a > b: log(σ(a) − σ(b)) = log σ(a) + log σ(−b) + log(1 − exp(b − a)).
        above = scores - self.cut_points()
        inner = torch.log(-torch.expm1(above[:, 1:] - above[:, :-1]))
        first, last = functional.logsigmoid(-above[:, :1]), functional.logsigmoid(above[:, -1:])
        middle = functional.logsigmoid(above[:, :-1]) + functional.logsigmoid(-above[:, 1:]) + inner
        return torch.cat([first, middle, last], dim=1)

    @torch.no_grad()
    def start(self, targets: Tensor) -> Tensor:
        """Cut points at the log-odds of the cumulative frequencies; the average score is 0."""
        counts = torch.bincount(targets[:, 0].long(), minlength=self.n_memories).clamp(min=0.5)
        at_least = counts.flip(0).cumsum(0).flip(0)[1:] / counts.sum()
        cuts = -torch.logit(at_least)
        self.cuts.copy_(torch.cat([cuts[:1], cuts.diff().clamp(min=1e-3).log()]))
        return cuts.new_zeros(1)


class Continuous(Outcome):
    """A number: squared error of the standardised value. The memory has a codebook a quantile bin."""

    n_outputs = n_scores = 1
    curvature = 0.5
    mean: Tensor
    scale: Tensor
    edges: Tensor

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.n_memories = bins
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("edges", torch.arange(1.0, bins))

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """½ (s − (y − mean) / sd)², mean and sd those of the training patients."""
        return 0.5 * (scores[:, 0] - (targets[:, 0] - self.mean) / self.scale).square()

    def memory_class(self, targets: Tensor) -> Tensor:
        """The quantile bin of the value."""
        return torch.bucketize(targets[:, 0].contiguous(), self.edges)

    def predict(self, scores: Tensor) -> Tensor:
        """The value, in the units of the table: (B, 1)."""
        return scores * self.scale + self.mean

    @torch.no_grad()
    def start(self, targets: Tensor) -> Tensor:
        """Mean and standard deviation of the values; the average score is 0."""
        values = targets[:, 0]
        self.mean.copy_(values.mean())
        self.scale.copy_(values.std(unbiased=False).clamp(min=1e-12))
        self.edges.copy_(quantiles(values, self.n_memories))
        return values.new_zeros(1)


class Survival(Outcome):
    """Time to an event in T intervals: discrete hazards h_j = σ(s + α_j), α learnt (Cox 1972, grouped data).

    The loss is the negative log-likelihood: an event in interval j costs −log h_j − Σ_{i<j} log(1 − h_i), a patient
    censored in interval j only what was survived, −Σ_{i<j} log(1 − h_i). The memory has a codebook an interval.
    """

    n_outputs = n_scores = 1
    curvature = 1.0 / 8.0
    times: Tensor

    def __init__(self, intervals: int) -> None:
        super().__init__()
        self.n_memories = intervals
        self.baseline = nn.Parameter(torch.zeros(intervals))
        self.register_buffer("times", torch.arange(1.0, intervals))

    def interval(self, time: Tensor) -> Tensor:
        """The interval (B,) int64 of each time; an interval holds its upper end."""
        return torch.bucketize(time.contiguous(), self.times)

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Negative log-likelihood of the interval of the event, or of having survived until censoring."""
        log_odds = scores + self.baseline
        interval = self.interval(targets[:, 0]).unsqueeze(1)
        before = torch.arange(self.n_memories, device=scores.device) < interval
        survived = (functional.logsigmoid(-log_odds) * before).sum(1)
        died = functional.logsigmoid(log_odds).gather(1, interval).squeeze(1)
        return -(survived + targets[:, 1] * died)

    def memory_class(self, targets: Tensor) -> Tensor:
        """The interval of the event; of censored patients only those who reached the last interval have one."""
        interval = self.interval(targets[:, 0])
        known = (targets[:, 1] > 0) | (interval == self.n_memories - 1)
        return torch.where(known, interval, -1)

    def predict(self, scores: Tensor) -> Tensor:
        """The risk (B, 1): log-odds of the hazard above the baseline, higher for an earlier event."""
        return scores

    @torch.no_grad()
    def start(self, targets: Tensor) -> Tensor:
        """Interval ends at quantiles of the event times, baseline hazards from the life table; average score 0."""
        time, event = targets[:, 0], targets[:, 1] > 0
        self.times.copy_(quantiles(time[event], self.n_memories))
        interval = self.interval(time)
        events = torch.bincount(interval[event], minlength=self.n_memories)
        at_risk = torch.bincount(interval, minlength=self.n_memories).flip(0).cumsum(0).flip(0)
        self.baseline.copy_(torch.logit((events + 0.5) / (at_risk + 1.0)))
        return time.new_zeros(1)


def make_outcome(task: TaskSettings) -> Outcome:
    """The outcome that the experiment file asks for."""
    if task.type == "classification":
        return Nominal(len(task.classes))
    if task.type == "ordinal":
        return Ordinal(len(task.classes))
    return Continuous(task.bins) if task.type == "continuous" else Survival(task.bins)


def quantiles(values: Tensor, parts: int) -> Tensor:
    """The parts − 1 values that divide ``values`` into parts of equal size."""
    shares = torch.arange(1, parts, dtype=torch.float64, device=values.device) / parts
    return torch.quantile(values.double(), shares).to(values.dtype)


def _with_reference(scores: Tensor) -> Tensor:
    """Scores (B, C − 1) → logits (B, C), the first class's being 0."""
    return functional.pad(scores, (1, 0))
