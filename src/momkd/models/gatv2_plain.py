"""The plain GATv2 with whole-graph tensors of edges × width: a dozen lines to check the fast one against."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from momkd.models.gatv2 import GATv2
from momkd.models.graph import Graph
from momkd.models.masks import keep_mask
from momkd.models.packed import segment_softmax, segment_sum


def plain_gatv2(layer: GATv2, x: Tensor, graph: Graph, *, seed: int | None = None) -> Tensor:
    """What ``layer(x, graph)`` computes, (N, D) → (N, W); with ``seed``, under the attention dropout of that seed."""
    n_nodes, heads, source, target = len(x), layer.heads, graph.senders, graph.targets
    x_source = layer.source(x).reshape(n_nodes, heads, layer.head_dim)
    x_target = layer.target(x).reshape(n_nodes, heads, layer.head_dim)
    sent = x_source.index_select(0, source)
    pair = functional.leaky_relu(sent + x_target.index_select(0, target), layer.slope)
    alpha = segment_softmax((pair * layer.attention).sum(-1), target, n_nodes)
    if seed is not None:
        mask = keep_mask(seed, source.new_tensor(range(graph.n_edges)), heads, layer.dropout)
        alpha = alpha * mask / (1 - layer.dropout)
    out = segment_sum(sent * alpha.unsqueeze(-1), target, n_nodes)
    return out.reshape(n_nodes, heads * layer.head_dim) + layer.bias
