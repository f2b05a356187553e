"""Several bags as one tensor, without padding: rows one after another, graphs block-diagonal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from momkd.models import buffers
from momkd.models.graph import Graph

# So many elements are cheap to copy.
_SMALL = 1 << 17
# Rows of half precision are widened so many at a time.
_ROWS_AT_ONCE = 8192


@dataclass(eq=False)  # not frozen: Fabric rebuilds what it moves between devices and precisions
class PackedBags:
    """B bags with N patches in all.

    ``features`` (N, D) floating (float16 is read as it is, in parts); ``ptr`` (B + 1,) int64, bag b holds the rows
    ptr[b]:ptr[b + 1]; ``graphs`` of one bag after another, each of one bag or of several.
    """

    features: Tensor
    ptr: Tensor
    graphs: Sequence[Graph]

    @classmethod
    def pack(cls, features: Sequence[Tensor], graphs: Sequence[Graph | Tensor]) -> Self:
        """Pack bags given as features (P_b, D) and graphs in each bag's own row numbers.

        A graph given as edges (2, E_b) int64, row 0 the source and row 1 the target, is sorted here: whoever packs a
        bag often makes its ``Graph.from_edges`` once.
        """
        sizes = torch.tensor([0, *(len(bag) for bag in features)], dtype=torch.int64)
        ready = [
            graph if isinstance(graph, Graph) else Graph.from_edges(graph, len(bag))
            for bag, graph in zip(features, graphs, strict=True)
        ]
        rows = features[0] if len(features) == 1 else torch.cat(list(features))
        return cls(rows, sizes.cumsum(0), tuple(ready))

    @property
    def n_bags(self) -> int:
        """B."""
        return len(self.ptr) - 1

    @cached_property
    def graph(self) -> Graph:
        """The graph over the packed rows, put together when it is first asked for: most baselines never do."""
        return Graph.pack(self.graphs)

    @property
    def nbytes(self) -> int:
        """Bytes of features and graph."""
        return self.features.nbytes + sum(graph.nbytes for graph in self.graphs)

    @cached_property
    def bag_of_patch(self) -> Tensor:
        """The bag number of every row: (N,) int64."""
        return torch.repeat_interleave(torch.arange(self.n_bags, device=self.ptr.device), self.ptr.diff())

    def to(self, device: torch.device) -> PackedBags:
        """Move to a device; as it is where it is there already."""
        if self.features.device == device:
            return self
        return PackedBags(
            self.features.to(device, non_blocking=True),
            self.ptr.to(device, non_blocking=True),
            (self.graph.to(device),),
        )

    def pin_memory(self) -> PackedBags:
        """Copy to page-locked memory, from which a GPU reads while it computes."""
        return PackedBags(self.features.pin_memory(), self.ptr.pin_memory(), (self.graph.pin_memory(),))


def segment_sum(values: Tensor, segment: Tensor, n_segments: int) -> Tensor:
    """Sum the rows of ``values`` (N, …) by ``segment`` (N,) → (n_segments, …); an empty segment gives 0."""
    out = values.new_zeros((n_segments, *values.shape[1:]))
    return out.index_add(0, segment, values)


def segment_mean(values: Tensor, segment: Tensor, n_segments: int) -> Tensor:
    """Average the rows of ``values`` (N, …) by ``segment`` (N,) → (n_segments, …); an empty segment gives 0."""
    counts = torch.bincount(segment, minlength=n_segments).clamp(min=1).to(values.dtype)
    return segment_sum(values, segment, n_segments) / counts.reshape(-1, *[1] * (values.dim() - 1))


def segment_softmax(scores: Tensor, segment: Tensor, n_segments: int) -> Tensor:
    """Softmax of ``scores`` (N, …) within each segment, (N, …); stable for any finite scores."""
    index = segment.reshape(-1, *[1] * (scores.dim() - 1)).expand_as(scores)
    peak = scores.new_full((n_segments, *scores.shape[1:]), -torch.inf)
    # The peak only keeps exp() in range: the softmax, and so its gradient, does not depend on it.
    peak = peak.scatter_reduce(0, index, scores.detach(), reduce="amax")
    weights = (scores - peak.index_select(0, segment)).exp()
    return weights / segment_sum(weights, segment, n_segments).index_select(0, segment)


def bag_means(features: Tensor, ptr: Tensor, dtype: torch.dtype) -> Tensor:
    """The mean patch of each bag, (N, D) of any floating dtype → (B, D) in ``dtype``; a giant bag is read in parts."""
    sizes = ptr.diff()
    if len(features) == len(sizes):
        return features.to(dtype)
    sums = []
    for bag in torch.split(features, sizes.tolist()):
        sums.append(torch.stack([part.to(dtype).sum(0) for part in torch.split(bag, _ROWS_AT_ONCE)]).sum(0))
    return torch.stack(sums) / sizes.unsqueeze(1).to(dtype)


def weighted_sum(weights: Tensor, rows: Tensor, ptr: Tensor) -> Tensor:
    """Σ_i weights_i · rows_i of each bag: (N,), (N, W), (B + 1,) → (B, W), without a second (N, W) tensor."""
    n_bags = len(ptr) - 1
    if rows.numel() <= _SMALL:
        # Many tiny bags: one operation for all of them costs less than one each.
        owner = torch.repeat_interleave(torch.arange(n_bags, device=ptr.device), ptr.diff())
        return segment_sum(weights.unsqueeze(1) * rows, owner, n_bags)
    result: Tensor = _WeightedSum.apply(weights, rows, ptr)
    return result


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, rows: Tensor, ptr: Tensor) -> Tensor:
        sizes = ptr.diff().tolist()
        ctx.save_for_backward(weights, rows)
        ctx.sizes = sizes
        bags = zip(torch.split(weights, sizes), torch.split(rows, sizes), strict=True)
        return torch.stack([bag_rows.T @ bag_weights.to(rows.dtype) for bag_weights, bag_rows in bags])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        weights, rows = ctx.saved_tensors
        d_weights, d_rows = torch.empty_like(weights), buffers.empty(rows.shape, rows)
        parts = (torch.split(tensor, ctx.sizes) for tensor in (weights, rows, d_weights, d_rows))
        for d_sum, bag_weights, bag_rows, d_bag_weights, d_bag_rows in zip(gradient, *parts, strict=True):
            torch.mv(bag_rows, d_sum, out=d_bag_weights)
            torch.outer(bag_weights, d_sum, out=d_bag_rows)
        return d_weights, d_rows, None
