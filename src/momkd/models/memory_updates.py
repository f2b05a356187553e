"""What moves the codes besides the optimiser, and what an epoch tells of the memory. Training only.

Five rules (``model.memory.update``), of which ``gradient`` and ``fixed`` need nothing from here:

    ema, hybrid   S ← m·S + (1 − m)·Σ of the queries assigned to c,  c = S/|S|      after every step
    queue         the codebook of a class holds its K most recent queries, first in, first out

A query is a unit vector on the sphere: the RNA projection r of a paired patient or the slide projection w of a bag,
assigned to the nearest code of its own class. The usual moving count N (c = normalise(S/N)) cancels. All of it lies
outside the student, whose file holds codes only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from momkd.models.memory import UNKNOWN, Memory
from momkd.models.packed import segment_sum
from momkd.models.processes import gather_rows, sum_over_processes


@dataclass(eq=False)
class Queries:
    """Detached unit rows in the order seen: ``rows`` of (n, S), ``labels`` of (n,), UNKNOWN among them."""

    rows: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)

    def add(self, rows: Tensor, labels: Tensor) -> None:
        """Append some."""
        self.rows.append(rows)
        self.labels.append(labels)

    def known(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """(n, S), (n,): those whose class is known, of all processes; ``like`` gives width and device if none is."""
        rows = torch.cat([like.new_zeros((0, like.shape[-1])), *self.rows])
        labels = torch.cat([torch.zeros(0, dtype=torch.int64, device=like.device), *self.labels])
        rows, labels = gather_rows(rows), gather_rows(labels)
        return rows[labels != UNKNOWN], labels[labels != UNKNOWN]


@dataclass(eq=False)
class EpochRecord:
    """The queries of an epoch by their origin, and the normalised attention entropy of its bags, each (B,)."""

    rna: Queries = field(default_factory=Queries)
    slides: Queries = field(default_factory=Queries)
    entropy: list[Tensor] = field(default_factory=list)


class MemoryUpdates(nn.Module):
    """The update rule of a memory in training.

    ``begin_epoch``, then ``observe`` in every forward pass and ``after_step`` after every optimiser step, then
    ``end_epoch``. The batches of one step count together. ``rna`` and ``slide``, from 0 to 1, are the shares with which
    the projections of each origin move codes: 0 where no loss teaches them. The state between epochs is three buffers:
    ``initial`` (C, K, S), the codes as they were placed; ``mass`` (C, K), |S| of each code, from 1; ``idle`` (C, K),
    the epochs since a code won a query. With torch.distributed initialised, every process makes the move of the joint
    batch.
    """

    initial: Tensor
    mass: Tensor
    idle: Tensor

    def __init__(self, memory: Memory, *, rna: float = 1.0, slide: float = 1.0) -> None:
        super().__init__()
        self.settings = memory.settings
        self.rna, self.slide = rna, slide
        self.register_buffer("initial", memory.codes.detach().clone())
        self.register_buffer("mass", memory.codes.new_ones(memory.codes.shape[:2]))
        self.register_buffer("idle", torch.zeros(memory.codes.shape[:2], dtype=torch.int64))
        self.warming = False
        self.record: EpochRecord | None = None
        self._step = EpochRecord()

    @torch.no_grad()
    def start_from(self, memory: Memory) -> None:
        """Remember the codes as the initial ones; every code is as heavy as one query, and counts as busy."""
        self.initial.copy_(memory.codes)
        self.mass.fill_(1.0)
        self.idle.zero_()

    def begin_epoch(self, warming: bool) -> None:
        """Start a new record; ``warming``: the memory does not move and its losses are off in this epoch."""
        self.warming, self.record, self._step = warming, EpochRecord(), EpochRecord()

    @torch.no_grad()
    def observe(self, slides: Tensor, labels: Tensor, omics: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Take the queries of a batch: ``slides`` w (B, S), ``labels`` (B,), and for each omics table its projections
        r (paired bags, S) and which bags are paired, (B,) bool.
        """
        slides = slides.detach()
        tables = [(rows.detach(), paired) for rows, paired in omics]
        records = [] if self.record is None else [self.record]
        if self.settings.update in ("ema", "hybrid"):
            records.append(self._step)
        for record in records:
            record.slides.add(slides, labels)
            for rows, paired in tables:
                record.rna.add(rows, labels[paired])
        if self.settings.update == "queue":
            self._step.slides.add(*self._one_a_patient(slides, labels, tables))

    def _one_a_patient(
        self, slides: Tensor, labels: Tensor, tables: Sequence[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """The RNA projection of a paired bag, of the first table that has it, else its slide projection."""
        best, held = slides.clone(), torch.full_like(labels, self.slide > 0, dtype=torch.bool)
        for rows, paired in reversed(tables if self.rna > 0 else []):
            best[paired] = rows
            held |= paired
        return best[held], labels[held]

    @torch.no_grad()
    def observe_attention(self, attention: Tensor, ptr: Tensor, bag_of_patch: Tensor) -> None:
        """Record the attention of a batch: (N,), (B + 1,), (N,)."""
        if self.record is not None:
            self.record.entropy.append(attention_entropy(attention.detach(), ptr, bag_of_patch))

    @torch.no_grad()
    def after_step(self, memory: Memory) -> None:
        """Move the codes by the queries of the step that the optimiser has just made."""
        step, self._step = self._step, EpochRecord()
        if self.warming:
            return
        if self.settings.update in ("ema", "hybrid"):
            self._move_to_queries(memory, step)
        elif self.settings.update == "queue":
            _push(memory, *step.slides.known(memory.codes))

    @torch.no_grad()
    def end_epoch(self, memory: Memory) -> None:
        """Revive codes that have won no query of ``settings.revive`` epochs in a row; drop the record."""
        record, self.record = self.record, None
        if record is None or self.settings.revive == 0 or self.rna == self.slide == 0:
            return
        joint = Queries()
        for part, share in ((record.rna, self.rna), (record.slides, self.slide)):
            if share > 0:
                joint.add(*part.known(memory.codes))
        queries, labels = torch.cat(joint.rows), torch.cat(joint.labels)
        for label in range(len(memory.codes)):
            own = queries[labels == label]
            # A class of which nothing was seen says nothing about its codes.
            if len(own):
                self._revive(memory, label, own)

    def _revive(self, memory: Memory, label: int, own: Tensor) -> None:
        similarity = own @ memory.sphere()[label].T
        served, winner = similarity.max(1)
        won = torch.bincount(winner, minlength=similarity.shape[1]) > 0
        self.idle[label] = torch.where(won, 0, self.idle[label] + 1)
        for code in (self.idle[label] >= self.settings.revive).nonzero().flatten().tolist():
            worst = int(served.argmin())
            memory.codes[label, code] = own[worst]
            self.mass[label, code] = 1.0
            self.idle[label, code] = 0
            # The next code goes to what is served worst now that this one has moved.
            served = torch.maximum(served, own @ own[worst])

    def _move_to_queries(self, memory: Memory, step: EpochRecord) -> None:
        """S ← m·S + (1 − m)·Σ queries, S having the direction of its code; a code without queries only gets lighter."""
        codes, momentum = memory.sphere(), self.settings.momentum
        n_classes, k, width = codes.shape
        sums = codes.new_zeros((n_classes * k, width + 1))
        for part, share in ((step.rna, self.rna), (step.slides, self.slide)):
            for queries, labels in zip(part.rows, part.labels, strict=True):
                weight, own_class = (labels != UNKNOWN).to(codes.dtype).unsqueeze(1) * share, labels.clamp(min=0)
                similarity = torch.bmm(codes.index_select(0, own_class), queries.unsqueeze(2)).squeeze(2)
                slot = own_class * k + similarity.argmax(1)
                sums.index_add_(0, slot, torch.cat([queries, torch.ones_like(weight)], dim=1) * weight)
        sums = sum_over_processes(sums).reshape(n_classes, k, width + 1)
        moved = momentum * self.mass.unsqueeze(2) * codes + (1.0 - momentum) * sums[..., :width]
        norm = moved.norm(dim=-1)
        # The last column weighs the queries. A sum that cancels out has no direction: its code stays.
        won = (sums[..., width] > 0) & (norm > 1e-6)
        memory.codes.copy_(torch.where(won.unsqueeze(2), functional.normalize(moved, dim=-1), memory.codes))
        self.mass.copy_(torch.where(won, norm, momentum * self.mass))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Published checkpoints know nothing of training state: they load, and training would start it anew.
        for name, buffer in self.named_buffers(recurse=False):
            state_dict.setdefault(prefix + name, buffer)
        super()._load_from_state_dict(state_dict, prefix, *args)


def attention_entropy(attention: Tensor, ptr: Tensor, bag_of_patch: Tensor) -> Tensor:
    """−Σ_i a_i ln a_i / ln P of each bag, from 0 (one patch has it all) to 1 (uniform; a bag of one patch): (B,)."""
    entropy = -segment_sum(torch.xlogy(attention, attention), bag_of_patch, len(ptr) - 1)
    size = ptr.diff()
    return torch.where(size > 1, entropy / size.clamp(min=2).to(entropy.dtype).log(), 1.0)


def _push(memory: Memory, queries: Tensor, labels: Tensor) -> None:
    """Let the queries (n, S) into the codebooks of their classes (n,); the oldest codes, in front, leave."""
    k = memory.codes.shape[1]
    for label in range(len(memory.codes)):
        memory.set_codes(label, torch.cat([memory.codes[label], queries[labels == label]])[-k:])
