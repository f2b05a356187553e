"""One layer of the slide encoder as a single operation, forward and backward:

    h = dropout(activation(LN(GATv2(x, graph)))) + residual(x)

Nothing of the size of edges × width is ever stored. On a CPU with numba the rows of a node are worked on in cache
(``kernels.py``); elsewhere the attention goes block by block in torch (``blocks.py``). Both give the same values and
draw the same dropout masks. The products with the weights of source, target and residual are one matrix product.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from momkd.models import buffers
from momkd.models.blocks import attend_in_blocks
from momkd.models.graph import Graph
from momkd.models.masks import keep_mask, threshold
from momkd.models.parallel import run_in_threads
from momkd.models.products import multiply, multiply_transposed, product_dtype

_LOG = logging.getLogger(__name__)
# Without gradients, products of target and residual exist for so many nodes at a time.
_CHUNK = 16384


@dataclass(frozen=True)
class Recipe:
    """What a layer does besides its weights.

    ``residual``: none, identity (x itself, of the layer's width) or linear. ``seeds``: of the attention dropout and
    of the dropout; the rates are 0 outside training.
    """

    heads: int
    slope: float = 0.2
    attention_dropout: float = 0.0
    dropout: float = 0.0
    activation: Literal["none", "elu", "relu"] = "none"
    norm: bool = False
    epsilon: float = 1e-5
    residual: Literal["none", "identity", "linear"] = "none"
    seeds: tuple[int, int] = (0, 0)


def graph_layer(x: Tensor, weights: Sequence[Tensor], vectors: Tensor, graph: Graph, recipe: Recipe) -> Tensor:
    """Compute h (N, W) from x (N, D) of any floating dtype, in the dtype of the weights.

    ``weights``: of source, target and, for a linear residual, residual, each (W, D); ``vectors`` (7, W): source bias,
    target bias, attention, bias, norm weight, norm bias, residual bias. Under autocast to bfloat16 the products are
    made from bfloat16, everything else in the dtype of the weights. Without gradients the memory beyond x is
    three tensors (N, W). Raises ValueError where x and the graph differ in their number of nodes.
    """
    if len(x) != graph.n_nodes:
        raise ValueError(f"{len(x)} rows of features for a graph of {graph.n_nodes} nodes")
    if recipe.residual == "identity":
        x = x.to(vectors.dtype)
    kernels = compiled_kernels() if x.device.type == "cpu" else None
    if kernels is None or vectors.dtype not in (torch.float32, torch.float64):
        return _layer_in_torch(x, weights, vectors, graph, recipe)
    if not torch.is_grad_enabled():
        return _without_gradients(x, weights, vectors, graph, recipe, kernels)
    result: Tensor = _CompiledLayer.apply(x, vectors, graph, recipe, kernels, *weights)
    return result


@cache
def compiled_kernels() -> ModuleType | None:
    """The module of compiled kernels, or None, which is logged, where numba does not work."""
    try:
        from momkd.models import kernels, kernels_backward  # noqa: F401 - both or none
    except (ImportError, RuntimeError) as error:
        # RuntimeError: numba finds no folder in which to keep what it compiled.
        _LOG.warning("numba is not usable (%s): graph attention runs in torch, with equal results, slower", error)
        return None
    return kernels


class _CompiledLayer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, vectors: Tensor, graph: Graph, recipe: Recipe, kernels: ModuleType, *weights: Tensor
    ) -> Tensor:
        width = vectors.shape[1]
        weight = torch.cat(weights, out=buffers.empty((len(weights) * width, x.shape[1]), vectors))
        dtype = product_dtype(vectors)
        products = multiply(x, weight, dtype)
        out = buffers.empty((len(x), width), vectors)
        alpha = vectors.new_empty(graph.n_edges, recipe.heads)
        kept = torch.empty_like(alpha)
        layer = _for_kernels(kernels, x, products, vectors, recipe)
        run_in_threads(kernels.forward, len(x), layer, _edges(kernels, graph), *_arrays(out, alpha, kept))
        ctx.save_for_backward(x, vectors, products, alpha, kept, weight if ctx.needs_input_grad[0] else None)
        ctx.graph, ctx.recipe, ctx.kernels, ctx.dtype = graph, recipe, kernels, dtype
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, vectors, products, alpha, kept, weight = ctx.saved_tensors
        from momkd.models import kernels_backward

        recipe, kernels = ctx.recipe, ctx.kernels
        gradient = gradient.contiguous()
        n_blocks = -(-len(gradient) // kernels_backward.BLOCK)
        attended, score = buffers.empty(gradient.shape, gradient), torch.empty_like(alpha)
        d_products, sums = buffers.empty(products.shape, products), vectors.new_zeros(n_blocks, *vectors.shape)
        layer, edges = _for_kernels(kernels, x, products, vectors, recipe), _edges(kernels, ctx.graph)
        results = _arrays(attended, kept, score, d_products.reshape(len(x), -1, vectors.shape[1]), sums)
        given = _arrays(gradient, alpha, kept)
        run_in_threads(kernels_backward.by_target, n_blocks, layer, edges, *given, results[0], *results[2:])
        run_in_threads(kernels_backward.by_source, n_blocks, layer, edges, *results)
        d_weights = torch.split(multiply_transposed(d_products, x, ctx.dtype), vectors.shape[1])
        d_x = None
        if weight is not None:
            start = gradient if recipe.residual == "identity" else None
            d_x = multiply(d_products, weight.T, ctx.dtype, start=start)
        return d_x, sums.sum(0), None, None, None, *d_weights


def _without_gradients(
    x: Tensor, weights: Sequence[Tensor], vectors: Tensor, graph: Graph, recipe: Recipe, kernels: ModuleType
) -> Tensor:
    """The forward pass alone: the source product of all nodes, the others for some nodes at a time."""
    edges, dtype = _edges(kernels, graph), product_dtype(vectors)
    out = buffers.empty((len(x), vectors.shape[1]), vectors)
    alpha = vectors.new_empty(graph.n_edges, recipe.heads)
    arrays = _arrays(out, alpha, alpha)
    if len(x) <= _CHUNK:
        layer = _for_kernels(kernels, x, multiply(x, torch.cat(list(weights)), dtype), vectors, recipe)
        run_in_threads(kernels.forward, len(x), layer, edges, *arrays)
        return out
    source, others = multiply(x, weights[0], dtype), torch.cat(list(weights[1:]))
    for offset in range(0, len(x), _CHUNK):
        rows = x[offset : offset + _CHUNK]
        layer = _for_kernels(kernels, rows, multiply(rows, others, dtype), vectors, recipe, source, offset)
        run_in_threads(kernels.forward, len(rows), layer, edges, *arrays)
    return out


def _for_kernels(
    kernels: ModuleType,
    x: Tensor,
    products: Tensor,
    vectors: Tensor,
    recipe: Recipe,
    source: Tensor | None = None,
    offset: int = 0,
) -> Any:
    """The kernels' description of a layer; with ``source``, ``x`` and ``products`` are of the nodes from ``offset``."""
    heads, width = recipe.heads, vectors.shape[1]
    shape = (-1, heads, width // heads)
    shaped = products.detach().reshape(len(products), *shape).numpy()
    scalars = (0.0, recipe.slope, 1 / (1 - recipe.attention_dropout), 1 / (1 - recipe.dropout), recipe.epsilon)
    target_part = 1 if source is None else 0
    identity = recipe.residual == "identity"
    return kernels.Layer(
        sources=shaped if source is None else source.detach().reshape(len(source), *shape).numpy(),
        targets=shaped,
        residual=(x if identity else products).detach().reshape(len(products), -1, width).numpy(),
        vectors=vectors.detach().reshape(7, heads, -1).numpy(),
        scalars=np.array(scalars, dtype=shaped.dtype),
        seeds=np.array(recipe.seeds, dtype=np.uint32),
        drops=np.array([threshold(recipe.attention_dropout), threshold(recipe.dropout)], dtype=np.uint32),
        target_part=target_part,
        residual_part={"none": -1, "identity": 0, "linear": target_part + 1}[recipe.residual],
        offset=offset,
        norm=recipe.norm,
        activation={"none": kernels.NO_ACTIVATION, "elu": kernels.ELU, "relu": kernels.RELU}[recipe.activation],
    )


def _edges(kernels: ModuleType, graph: Graph) -> Any:
    tables = (graph.receive_ptr, graph.senders, graph.send_ptr, graph.receivers, graph.send_edge)
    return kernels.Edges(*_arrays(*tables))


def _arrays(*tensors: Tensor) -> list[Any]:
    return [tensor.detach().numpy() for tensor in tensors]


def _layer_in_torch(x: Tensor, weights: Sequence[Tensor], vectors: Tensor, graph: Graph, recipe: Recipe) -> Tensor:
    """The same layer in torch operations."""
    width, heads = vectors.shape[1], recipe.heads
    source_bias, target_bias, attention, bias, gain, shift, residual_bias = vectors
    if torch.is_grad_enabled():
        products = torch.split(functional.linear(x.to(vectors.dtype), torch.cat(list(weights))), width, dim=1)
    else:
        products = tuple(multiply(x, weight, product_dtype(vectors)) for weight in weights)
    kept = vectors.new_ones(graph.n_edges, heads)
    if recipe.attention_dropout > 0:
        numbers = torch.arange(graph.n_edges, device=x.device)
        mask = keep_mask(recipe.seeds[0], numbers, heads, recipe.attention_dropout)
        kept = mask / vectors.new_tensor(1 - recipe.attention_dropout)
    shape = (len(x), heads, width // heads)
    with torch.autocast(x.device.type, enabled=False):
        source, target = (_plus(products[part], b).reshape(shape) for part, b in ((0, source_bias), (1, target_bias)))
        h: Tensor = attend_in_blocks(source, target, attention.reshape(shape[1:]), kept, graph, recipe.slope)
        h = _plus(h.reshape(len(x), width), bias)
        if recipe.norm:
            h = functional.layer_norm(h, (width,), gain, shift, recipe.epsilon)
        if recipe.activation != "none":
            h = functional.elu(h) if recipe.activation == "elu" else h.relu()
        if recipe.dropout > 0:
            numbers = torch.arange(len(x), device=x.device)
            h = h * keep_mask(recipe.seeds[1], numbers, width, recipe.dropout) / (1 - recipe.dropout)
        if recipe.residual != "none":
            h = h + (x if recipe.residual == "identity" else products[2] + residual_bias)
    return h


def _plus(rows: Tensor, bias: Tensor) -> Tensor:
    """rows + bias, in place where no gradient needs the rows."""
    return rows + bias if torch.is_grad_enabled() else rows.add_(bias)
