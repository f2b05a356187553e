"""Why a student says what it says: the share of each patch in the score, and its likeness to each prototype.

A student reads a bag through two weighted means of its patches: V = Σ a_i F_i / Σ a_i, and the mean features
x̄ = Σ x_i / P. Give patch i the weight ω_i in both, a_i → ω_i a_i and 1/P → ω_i / Σ ω. Then at ω = 1

    influence_i = ∂ report / ∂ ω_i = a_i · ∇_V · (F_i − V) + (1 / P) · ∇_x̄ · (x_i − x̄)

tells to first order how much less the report would be without the patch (the infinitesimal jackknife, Jaeckel 1972).
Influences of a bag sum to zero: they say which patches speak for more than the slide's own average, and which against.
What a patch has told its neighbours through the graph stays. The report is the log-odds of a class against all others,
or the value or risk that is predicted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from momkd.models.packed import PackedBags, bag_means
from momkd.models.products import full_precision
from momkd.models.student import Student, StudentOutput

# Features of half precision are widened so many rows at a time.
_ROWS_AT_ONCE = 8192
# The name under which the shared memory stands among the prototypes; omics tables have theirs.
MEMORY = "memory"


@dataclass(frozen=True, eq=False)
class Reasons:
    """What stands behind the scores of B bags with N patches.

    ``influence`` (N, columns): of two classes the second, of more each class, else the value; ``prototypes`` by memory
    (N, C, K): cosine of each patch with each code, of the shared memory (``memory``) and of each programme memory.
    """

    output: StudentOutput
    influence: Tensor
    prototypes: dict[str, Tensor]


@torch.no_grad()
def reasons(student: Student, bags: PackedBags) -> Reasons:
    """Score bags, and say why."""
    encoded = student.encoder(bags)
    out = student.read(bags, encoded)
    mean = bag_means(bags.features, bags.ptr, out.embedding.dtype) if student.reads_means else None
    with full_precision(encoded):
        influence = _influence(student, bags, encoded, out, mean)
        prototypes = _prototypes(student, bags, encoded, out)
    return Reasons(out, influence, prototypes)


def report(student: Student, scores: Tensor) -> Tensor:
    """Scores (B, O) → what is explained (B, columns), float64: log-odds of classes, the value, or the risk."""
    predicted = student.outcome.predict(scores.double())
    if predicted.shape[1] == 1:
        return predicted
    columns = predicted[:, 1:] if predicted.shape[1] == 2 else predicted
    return torch.logit(columns, eps=1e-12)


def _influence(student: Student, bags: PackedBags, encoded: Tensor, out: StudentOutput, mean: Tensor | None) -> Tensor:
    with torch.enable_grad():
        pooled = out.embedding.detach().requires_grad_()
        average = None if mean is None else mean.detach().requires_grad_()
        told = report(student, student.score(average, pooled, through_votes=True).scores)
        inputs = [pooled] if average is None else [pooled, average]
        slopes = [
            torch.autograd.grad(column.sum(), inputs, retain_graph=True, allow_unused=True) for column in told.unbind(1)
        ]
    owner, sizes = bags.bag_of_patch, bags.ptr.diff()
    columns = []
    for slope in slopes:
        column = encoded.new_zeros(len(encoded))
        if slope[0] is not None:
            column = column + out.attention * _beyond(encoded, out.embedding, slope[0], owner)
        if mean is not None and slope[1] is not None:
            column = column + _beyond(bags.features, mean, slope[1], owner) / sizes.index_select(0, owner)
        columns.append(column)
    return torch.stack(columns, dim=1)


def _beyond(rows: Tensor, middle: Tensor, slope: Tensor, owner: Tensor) -> Tensor:
    """slope_b · (row_i − middle_b) of each row (N, W) of a bag b: (N,)."""
    of_bag = (slope * middle).sum(1)
    parts = []
    for part, own in zip(torch.split(rows, _ROWS_AT_ONCE), torch.split(owner, _ROWS_AT_ONCE), strict=True):
        said = (part.to(slope.dtype) * slope.index_select(0, own)).sum(1)
        parts.append(said - of_bag.index_select(0, own))
    return torch.cat(parts)


def _prototypes(student: Student, bags: PackedBags, encoded: Tensor, out: StudentOutput) -> dict[str, Tensor]:
    """Likeness of every patch with every code. A patch's programmes are those of a slide of such patches alone."""
    codes = student.memory.sphere()
    found = {MEMORY: (out.patches @ codes.flatten(0, 1).T).reshape(-1, *codes.shape[:2])}
    for name, memory in student.programme_memories().items():
        parts = zip(torch.split(bags.features, _ROWS_AT_ONCE), torch.split(encoded, _ROWS_AT_ONCE), strict=True)
        programmes = torch.cat([memory.predict(x.to(encoded.dtype), f) for x, f in parts])
        found[name] = memory.affinities(functional.normalize(programmes, dim=1)).reshape(-1, *memory.codes.shape[:2])
    return found
