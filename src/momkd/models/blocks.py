"""GATv2 attention in plain torch, block by block: no compiler, any device, no tensor of edges × width.

A block holds nodes of one degree, so its neighbours are a dense (B, d) table: no padding, no scatter, no atomics. The
backward pass makes the block again, once by target and once by source.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from momkd.models.graph import Graph

# Elements of a block's (B, d, H, C): as large as a core's second-level cache, or enough to fill a GPU.
_CPU_BLOCK, _GPU_BLOCK = 2**18, 2**24


def attend_in_blocks(
    source: Tensor, target: Tensor, attention: Tensor, kept: Tensor, graph: Graph, slope: float
) -> Tensor:
    """GATv2's weighted sum (eq. 7 there, without the bias).

    ``source``, ``target`` (N, H, C): W_s x and W_t x with their biases; ``attention`` (H, C); ``kept`` (E, H): what the
    attention dropout multiplies each edge with, in the order of ``graph.senders``. Returns (N, H, C) in the
    dtype of ``attention``, in which everything but the reading is done.
    """
    result: Tensor = _BlockAttention.apply(source, target, attention, kept, graph, slope)
    return result


class _BlockAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, source: Tensor, target: Tensor, attention: Tensor, kept: Tensor, graph: Graph, slope: float
    ) -> Tensor:
        out = attention.new_empty(source.shape)
        alpha = attention.new_empty(graph.n_edges, source.shape[1])
        for nodes, places in graph.blocks(by_source=False, most_edges=_most_edges(source)):
            sent = _gather(source, graph.senders[places], attention)
            pair = _gather(target, nodes, attention).unsqueeze(1) + sent
            score = (torch.where(pair > 0, pair, slope * pair) * attention).sum(-1)
            alpha[places] = score.softmax(1)
            out[nodes] = ((alpha[places] * kept[places]).unsqueeze(-1) * sent).sum(1)
        ctx.save_for_backward(source, target, attention, kept, alpha)
        ctx.graph, ctx.slope = graph, slope
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        source, target, attention, kept, alpha = ctx.saved_tensors
        graph, slope = ctx.graph, ctx.slope
        d_source, d_target = gradient.new_empty(source.shape), gradient.new_empty(source.shape)
        d_attention, d_score = torch.zeros_like(attention), torch.empty_like(alpha)
        for nodes, places in graph.blocks(by_source=False, most_edges=_most_edges(source)):
            sent = _gather(source, graph.senders[places], attention)
            pair = _gather(target, nodes, attention).unsqueeze(1) + sent
            d_alpha = (gradient[nodes].unsqueeze(1) * sent).sum(-1) * kept[places]
            weighted = alpha[places] * d_alpha
            d_score[places] = weighted - alpha[places] * weighted.sum(1, keepdim=True)
            d_pair = _through_leaky(d_score[places], pair, slope)
            d_attention += (d_pair * pair).sum((0, 1))
            d_target[nodes] = attention * d_pair.sum(1)
        weights = alpha * kept
        for nodes, places in graph.blocks(by_source=True, most_edges=_most_edges(source)):
            receivers, edge = graph.receivers[places], graph.send_edge[places]
            pair = _gather(target, receivers, attention) + _gather(source, nodes, attention).unsqueeze(1)
            averaged = (weights[edge].unsqueeze(-1) * gradient[receivers]).sum(1)
            d_source[nodes] = averaged + attention * _through_leaky(d_score[edge], pair, slope).sum(1)
        return d_source.to(source.dtype), d_target.to(target.dtype), d_attention, None, None, None


def _through_leaky(d_score: Tensor, pair: Tensor, slope: float) -> Tensor:
    """The gradient of the scores (B, d, H) times the derivative of LeakyReLU at ``pair`` (B, d, H, C)."""
    d_score = d_score.unsqueeze(-1)
    return torch.where(pair > 0, d_score, slope * d_score)


def _gather(rows: Tensor, index: Tensor, like: Tensor) -> Tensor:
    return rows.index_select(0, index.flatten()).reshape(*index.shape, *rows.shape[1:]).to(like.dtype)


def _most_edges(source: Tensor) -> int:
    elements = _CPU_BLOCK if source.device.type == "cpu" else _GPU_BLOCK
    return max(1, elements // source[0].numel())
