"""MoMKD: momentum memory for knowledge distillation (arXiv 2602.21395), read from top to bottom like the paper.

A slide is a bag of P patches with D features and a graph. In training an RNA profile of the same patient is at hand.
Knowledge passes from RNA to slide only through memories: the class-conditional memory of the paper on a unit sphere
(``memory.py``), towards whose codes both branches are pulled while the classifier reads the codes and cannot move
them; and the programme memory (``programmes.py``), whose codes RNA alone makes. Afterwards ``Student`` alone predicts,
from histology.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional

from momkd.experiment import LossSettings, ModelSettings, RnaSettings, teaches
from momkd.models.lesson import Counts, Lesson
from momkd.models.memory_updates import MemoryUpdates
from momkd.models.method import Method, ParameterGroup, TrainingSet, counts_of
from momkd.models.outcome import Outcome
from momkd.models.packed import PackedBags
from momkd.models.products import full_precision
from momkd.models.student import Student, StudentOutput


class RnaBranch(nn.Module):
    """The branch of an omics table: encoder e (B, R), decoder, and projector r on the shared sphere. Training only."""

    def __init__(self, n_genes: int, sphere_dim: int, settings: RnaSettings) -> None:
        super().__init__()

        def mirror(first: int, last: int) -> nn.Sequential:
            hidden = settings.hidden
            return nn.Sequential(
                nn.Linear(first, hidden),
                nn.LayerNorm(hidden),
                nn.ReLU(),
                nn.Dropout(settings.dropout),
                nn.Linear(hidden, last),
            )

        self.encoder = mirror(n_genes, settings.dim)
        self.decoder = mirror(settings.dim, n_genes)
        self.projector = nn.Linear(settings.dim, sphere_dim)

    def forward(self, rna: Tensor) -> tuple[Tensor, Tensor]:
        """RNA (B, G) → unit projections r (B, S) and reconstructions (B, G)."""
        embedding = self.encoder(rna)
        return functional.normalize(self.projector(embedding), dim=-1), self.decoder(embedding)


@dataclass(eq=False)  # not frozen: Fabric rebuilds what a forward returns
class Losses:
    """The losses and their weighted sum.

    The published five are means over the bags that have them; with soft labels ``task`` is
    (1 − λ)·loss(y, s_hist) + λ·curvature·(s_hist − t)². ``programme`` (L_prog, 0 for a bag without omics) and ``vote``
    (task loss of the votes) are means over all bags. Of several omics tables each loss is the mean.
    """

    task: Tensor
    memory: Tensor
    rna: Tensor
    slide: Tensor
    reconstruction: Tensor
    programme: Tensor
    vote: Tensor
    total: Tensor

    def named(self) -> dict[str, Tensor]:
        """The losses by name, the total last."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def values(self) -> dict[str, float]:
        """Plain numbers by name."""
        return {name: float(value.detach()) for name, value in self.named().items()}


class MoMKD(Method):
    """The student with its privileged teachers.

    ``genes``: the number of columns G of each omics table. Empty: the same student, trained with the task loss only.
    A part that no loss would teach does not exist.
    """

    student: Student

    def __init__(self, in_dim: int, outcome: Outcome, settings: ModelSettings, genes: Mapping[str, int]) -> None:
        super().__init__()
        self.settings, weights = settings, settings.loss
        self.student = Student(in_dim, outcome, settings, tuple(genes) if settings.programmes.dim else ())
        taught = weights.rna > 0 or weights.reconstruction > 0
        self.branches = nn.ModuleDict(
            {name: RnaBranch(n, settings.memory.dim, settings.rna) for name, n in genes.items() if taught}
        )
        self.with_omics, stopped = bool(genes), settings.memory.decoupling
        # A projection that no loss teaches is noise: it moves no code.
        rna = 1.0 - stopped.rna if weights.rna > 0 else 0.0
        slide = 1.0 - stopped.slide if weights.slide > 0 else 0.0
        used = self.with_omics and teaches(weights)
        self.updates = MemoryUpdates(self.student.memory, rna=rna, slide=slide) if used else None

    def start(self, training: TrainingSet) -> None:
        """Begin at the averages; the prototypes of the programme memories come from the training profiles."""
        self.student.start(training.targets)
        for name, memory in self.student.programme_memories().items():
            table = training.tables[name]
            if table.profiles is not None:
                memory.fill(table.profiles, table.memory_class, training.stream("prototypes", name))

    def parameter_groups(self) -> Iterator[ParameterGroup]:
        """The codes of the memory, the wide path, the programme maps and their read-out.

        The read-out of a programme memory does not decay: it has few weights, and moves faster.
        """
        student, settings = self.student, self.settings
        yield ParameterGroup([student.memory.codes], student.memory.parameter_options()["lr_mult"])
        if student.wide is not None:
            wide = settings.wide
            yield ParameterGroup(list(student.wide.parameters()), wide.lr_factor, wide.weight_decay)
        memories, programmes = list(student.programme_memories().values()), settings.programmes
        if memories:
            maps = [layer for memory in memories for layer in (memory.from_mean, memory.from_pooled)]
            readouts = [memory.readout for memory in memories]
            yield ParameterGroup(_of(maps), programmes.lr_factor, programmes.weight_decay)
            yield ParameterGroup(_of(readouts), programmes.read_lr_factor, 0.0)

    def preparation(self, epochs: int) -> int:  # noqa: ARG002
        """The epochs before the memory is placed: a student of them has none."""
        memory = self.settings.memory
        return memory.warmup_epochs if memory.init == "warmup" else 0

    def begin_memory(self, warming: bool) -> None:
        """Before an epoch; ``warming``: the memory stands still and its losses are off."""
        if self.updates is not None:
            self.updates.begin_epoch(warming)

    def after_step(self) -> None:
        """After every optimiser step: move the codes by the update rule of the memory."""
        if self.updates is not None:
            self.updates.after_step(self.student.memory)

    def end_epoch(self) -> None:
        """After an epoch and its validation: move codes that win nothing, where that is asked for."""
        if self.updates is not None:
            self.updates.end_epoch(self.student.memory)

    def forward(self, bags: PackedBags, lesson: Lesson) -> Losses:
        """All losses of B bags. A patient without omics takes part in everything but the omics losses.

        In training, the update rule of the memory sees the projections.
        """
        out = self.student(bags)
        counts = counts_of(lesson)
        with full_precision(out.logits):
            zero = out.logits.new_zeros(())
            losses = Losses(self._task(out, lesson).sum() / counts.slides, zero, zero, zero, zero, zero, zero, zero)
            if lesson.tables:
                projected = self._branches(losses, lesson, counts)
                if self.updates is not None and not self.updates.warming:
                    self._memory(losses, out, bags, lesson, projected, counts)
                self._programmes(losses, out, lesson, counts)
            losses.total = weighted(self.settings.loss, losses)
            return losses

    def _task(self, out: StudentOutput, lesson: Lesson) -> Tensor:
        """The task loss of each slide (B,), soft labels in it."""
        outcome, share = self.student.outcome, self.settings.teacher.weight
        hard = outcome.loss(out.histology, lesson.targets)
        if lesson.soft is None or lesson.has_soft is None or share == 0.0:
            return hard
        soft = outcome.curvature * (out.histology - lesson.soft).square().sum(1)
        return torch.where(lesson.has_soft, (1.0 - share) * hard + share * soft, hard)

    def _branches(self, losses: Losses, lesson: Lesson, counts: Counts) -> dict[str, Tensor]:
        """L_rec, and the projections r (paired bags, S) of each table that has any."""
        projected: dict[str, Tensor] = {}
        for name, branch in self.branches.items():
            table = lesson.tables[name]
            if table.paired.any():
                profiles = table.values[table.paired]
                projected[name], rebuilt = branch(profiles)
                error = functional.mse_loss(rebuilt, profiles) * (len(profiles) / counts.paired[name])
                losses.reconstruction = losses.reconstruction + error / len(self.branches)
        return projected

    def _memory(
        self,
        losses: Losses,
        out: StudentOutput,
        bags: PackedBags,
        lesson: Lesson,
        projected: dict[str, Tensor],
        counts: Counts,
    ) -> None:
        """The paper's L_mem, L_wsi and L_rna, each over the bags whose memory class is known."""
        weights, memory, labels = self.settings.loss, self.student.memory, lesson.memory_class
        decoupling, known = self.settings.memory.decoupling, max(1, counts.known)
        if weights.memory > 0:
            commitment = memory.commitment_loss(out.patches, bags.bag_of_patch, labels)
            spread = weights.orthogonality * memory.orthogonality_loss(labels)
            losses.memory = (commitment + spread).sum() / known
        if weights.slide > 0:
            losses.slide = memory.alignment_loss(out.slides, labels, decoupling.slide).sum() / known
        for name, queries in projected.items():
            own = labels[lesson.tables[name].paired]
            alignment = memory.alignment_loss(queries, own, decoupling.rna).sum() / max(1, counts.paired_known[name])
            losses.rna = losses.rna + alignment / len(self.branches)
        if self.updates is not None and self.training:
            omics = [(queries, lesson.tables[name].paired) for name, queries in projected.items()]
            self.updates.observe(out.slides, labels, omics)
            self.updates.observe_attention(out.attention, bags.ptr, bags.bag_of_patch)

    def _programmes(self, losses: Losses, out: StudentOutput, lesson: Lesson, counts: Counts) -> None:
        """L_prog and the votes' task loss."""
        outcome, student = self.student.outcome, self.student
        share = 1.0 / (counts.slides * max(1, len(student.programmes)))
        for name, memory in student.programme_memories().items():
            table = lesson.tables[name]
            if table.profiles is not None:
                affinities = memory.loss(out.programmes[name], table.profiles)
                losses.programme = losses.programme + share * (affinities * table.paired).sum()
            losses.vote = losses.vote + share * outcome.loss(out.votes[name], lesson.targets).sum()


def _of(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    return [parameter for module in modules for parameter in module.parameters()]


def weighted(weights: LossSettings, losses: Losses) -> Tensor:
    """L = .5·L_task + .1·L_mem + .05·L_rna + .2·L_wsi + .05·L_rec with the published weights, + L_prog + L_vote."""
    return (
        weights.task * losses.task
        + weights.memory * losses.memory
        + weights.rna * losses.rna
        + weights.slide * losses.slide
        + weights.reconstruction * losses.reconstruction
        + weights.programme * losses.programme
        + weights.vote * losses.vote
    )
