"""The patch graph, sorted once per slide: who sends to a node, and whom a node sends to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor


@dataclass(eq=False)  # not frozen: Fabric rebuilds what it moves between devices and precisions
class Graph:
    """A directed graph of N nodes with E edges, exactly one self-loop a node among them, in two orders.

    By target: node i receives from ``senders[receive_ptr[i]:receive_ptr[i + 1]]``; an edge's number is its place in
    ``senders`` (E,). By source: node j sends to ``receivers[send_ptr[j]:send_ptr[j + 1]]``, along the edges
    ``send_edge`` at the same places. All int64; the pointers (N + 1,). Within a node the others ascend, so the order
    of the edges in a file changes nothing.
    """

    receive_ptr: Tensor
    senders: Tensor
    send_ptr: Tensor
    receivers: Tensor
    send_edge: Tensor

    @classmethod
    def from_edges(cls, edge_index: Tensor, n_nodes: int) -> Self:
        """Sort ``edge_index`` (2, E) int64, row 0 the source and row 1 the target.

        Self-loops are replaced by exactly one a node; multi-edges count as often as they occur. Raises ValueError for
        a wrong shape or a node number outside 0 … n_nodes − 1.
        """
        if edge_index.dim() != 2 or len(edge_index) != 2:
            raise ValueError(f"edge_index: expected the shape (2, E), found {tuple(edge_index.shape)}")
        if edge_index.numel() and (int(edge_index.min()) < 0 or int(edge_index.max()) >= n_nodes):
            found = f"{int(edge_index.min())} … {int(edge_index.max())}"
            raise ValueError(f"edge_index: expected node numbers 0 … {n_nodes - 1}, found {found}")
        loops = torch.arange(n_nodes, device=edge_index.device)
        kept = edge_index[:, edge_index[0] != edge_index[1]].to(torch.int64)
        source, target = torch.cat([kept[0], loops]), torch.cat([kept[1], loops])
        by_target = torch.argsort(target * n_nodes + source)
        source, target = source[by_target], target[by_target]
        by_source = torch.argsort(source, stable=True)
        return cls(_pointers(target, n_nodes), source, _pointers(source, n_nodes), target[by_source], by_source)

    @classmethod
    def pack(cls, graphs: Sequence[Graph]) -> Self:
        """Put graphs beside one another, block-diagonal: node and edge numbers are shifted, nothing is sorted."""
        if len(graphs) == 1:
            only = graphs[0]
            return cls(only.receive_ptr, only.senders, only.send_ptr, only.receivers, only.send_edge)
        # One operation for all graphs, not one a graph: a step may hold a hundred of a single node.
        sizes = torch.tensor([[graph.n_nodes, graph.n_edges] for graph in graphs], device=graphs[0].senders.device).T
        starts = sizes.cumsum(1) - sizes
        of_edge = torch.repeat_interleave(starts, sizes[1], dim=1)
        after = torch.repeat_interleave(starts[1], sizes[0])
        receive = torch.cat([graph.receive_ptr[1:] for graph in graphs]) + after
        send = torch.cat([graph.send_ptr[1:] for graph in graphs]) + after
        zero = receive.new_zeros(1)
        return cls(
            torch.cat([zero, receive]),
            torch.cat([graph.senders for graph in graphs]) + of_edge[0],
            torch.cat([zero, send]),
            torch.cat([graph.receivers for graph in graphs]) + of_edge[0],
            torch.cat([graph.send_edge for graph in graphs]) + of_edge[1],
        )

    @property
    def n_nodes(self) -> int:
        """N."""
        return len(self.receive_ptr) - 1

    @property
    def n_edges(self) -> int:
        """E, self-loops included."""
        return len(self.senders)

    @property
    def nbytes(self) -> int:
        """Bytes of the tables."""
        tables = (self.receive_ptr, self.senders, self.send_ptr, self.receivers, self.send_edge)
        return sum(table.nbytes for table in tables)

    def pin_memory(self) -> Graph:
        """Copy to page-locked memory, from which a GPU reads while it computes."""
        tables = (self.receive_ptr, self.senders, self.send_ptr, self.receivers, self.send_edge)
        return Graph(*(table.pin_memory() for table in tables))

    @cached_property
    def targets(self) -> Tensor:
        """The target of every edge, in the order of ``senders``: (E,) int64."""
        nodes = torch.arange(self.n_nodes, device=self.senders.device)
        return torch.repeat_interleave(nodes, self.receive_ptr.diff(), output_size=self.n_edges)

    def blocks(self, *, by_source: bool, most_edges: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All nodes in blocks of one degree d: (nodes (B,), places (B, d)), B · d at most ``most_edges`` if d is.

        ``places`` are indices into ``senders``, or with ``by_source`` into ``receivers`` and ``send_edge``.
        """
        ptr = self.send_ptr if by_source else self.receive_ptr
        for degree, nodes in self._senders_by_degree if by_source else self._receivers_by_degree:
            steps = torch.arange(degree, device=ptr.device)
            for part in torch.split(nodes, max(1, most_edges // degree)):
                yield part, ptr[part].unsqueeze(1) + steps

    @cached_property
    def _receivers_by_degree(self) -> list[tuple[int, Tensor]]:
        return _by_degree(self.receive_ptr)

    @cached_property
    def _senders_by_degree(self) -> list[tuple[int, Tensor]]:
        return _by_degree(self.send_ptr)

    def to(self, device: torch.device) -> Graph:
        """Move to a device."""
        return Graph(
            self.receive_ptr.to(device, non_blocking=True),
            self.senders.to(device, non_blocking=True),
            self.send_ptr.to(device, non_blocking=True),
            self.receivers.to(device, non_blocking=True),
            self.send_edge.to(device, non_blocking=True),
        )


def _pointers(sorted_nodes: Tensor, n_nodes: int) -> Tensor:
    counts = torch.bincount(sorted_nodes, minlength=n_nodes)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _by_degree(ptr: Tensor) -> list[tuple[int, Tensor]]:
    degrees = ptr.diff()
    values, counts = torch.unique(degrees, return_counts=True)
    nodes = torch.split(torch.argsort(degrees, stable=True), counts.tolist())
    return list(zip(values.tolist(), nodes, strict=True))
