"""One layer of the slide encoder as a single operation, forward and backward:

    h = dropout(activation(LN(GATv2(x, graph)))) + residual(x)

Nothing of the size of edges × width is ever stored. On a CPU with numba the rows of a node are worked on in cache
(``kernels.py``); elsewhere the attention goes block by block in torch (``blocks.py``). Both give the same values and
draw the same dropout masks. The products with the weights of source, target and residual are one matrix product.
"""

from __future__ import annotations

import logging
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

_LOG = logging.getLogger(__name__)
# Rows of features of another dtype are converted so many at a time.
_CHUNK = 2048


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


def graph_layer(x: Tensor, weights: list[Tensor], vectors: Tensor, graph: Graph, recipe: Recipe) -> Tensor:
    """Compute h (N, W) from x (N, D) of any floating dtype.

    ``weights``: of source, target and, for a linear residual, residual, each (W, D); ``vectors`` (7, W): their three
    biases and GATv2's parameters in the order source bias, target bias, attention, bias, norm weight, norm bias,
    residual bias. Raises ValueError where x and the graph differ in their number of nodes.
    """
    if len(x) != graph.n_nodes:
        raise ValueError(f"{len(x)} rows of features for a graph of {graph.n_nodes} nodes")
    kernels = compiled_kernels() if x.device.type == "cpu" else None
    if kernels is None or vectors.dtype not in (torch.float32, torch.float64):
        return _layer_in_torch(x, weights, vectors, graph, recipe)
    result: Tensor = _CompiledLayer.apply(x, vectors, graph, recipe, kernels, *weights)
    return result


@cache
def compiled_kernels() -> ModuleType | None:
    """The module of compiled kernels, or None, which is logged, where numba does not work."""
    try:
        from momkd.models import kernels
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
        products = _multiply(x, weight)
        out = buffers.empty((len(x), width), vectors)
        alpha = vectors.new_empty(graph.n_edges, recipe.heads)
        kept = torch.empty_like(alpha)
        tables, options = _for_kernels(kernels, products, vectors, recipe)
        residual = (x if recipe.residual == "identity" else products).detach().reshape(len(x), -1, width)
        run_in_threads(
            kernels.forward,
            len(x),
            tables[0],
            residual.numpy(),
            *tables[1:],
            *options,
            *_arrays(graph.receive_ptr, graph.senders, out, alpha, kept),
        )
        ctx.save_for_backward(x, vectors, products, alpha, kept, weight if ctx.needs_input_grad[0] else None)
        ctx.graph, ctx.recipe, ctx.kernels = graph, recipe, kernels
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, vectors, products, alpha, kept, weight = ctx.saved_tensors
        graph, recipe, kernels = ctx.graph, ctx.recipe, ctx.kernels
        gradient = gradient.contiguous()
        width = vectors.shape[1]
        n_blocks = -(-len(gradient) // kernels.BLOCK)
        attended, score = buffers.empty(gradient.shape, gradient), torch.empty_like(alpha)
        d_products, sums = buffers.empty(products.shape, products), vectors.new_zeros(n_blocks, *vectors.shape)
        tables, options = _for_kernels(kernels, products, vectors, recipe)
        results = _arrays(attended, score, d_products.reshape(len(x), -1, width), sums)
        given = _arrays(graph.receive_ptr, graph.senders, gradient, alpha, kept)
        run_in_threads(kernels.by_target, n_blocks, *tables, *options, *given, *results)
        sending = _arrays(graph.send_ptr, graph.receivers, graph.send_edge, attended, kept)
        run_in_threads(kernels.by_source, n_blocks, *tables[:2], tables[2][1], *sending, *results[1:])
        d_weight = _multiply_transposed(d_products, x)
        d_x = None
        if weight is not None:
            identity = recipe.residual == "identity"
            out = buffers.empty(x.shape, gradient)
            d_x = torch.addmm(gradient, d_products, weight, out=out) if identity else d_products @ weight
        return d_x, sums.sum(0), None, None, None, *d_weight.split(width)


def _for_kernels(
    kernels: ModuleType, products: Tensor, vectors: Tensor, recipe: Recipe
) -> tuple[list[Any], tuple[int, bool, int]]:
    """The tables and options with which the kernels begin."""
    heads, width = recipe.heads, vectors.shape[1]
    shaped = products.detach().reshape(len(products), -1, heads, width // heads).numpy()
    scalars = (0.0, recipe.slope, 1 / (1 - recipe.attention_dropout), 1 / (1 - recipe.dropout), recipe.epsilon)
    tables = [
        shaped,
        vectors.detach().reshape(7, heads, -1).numpy(),
        np.array(scalars, dtype=shaped.dtype),
        np.array(recipe.seeds, dtype=np.uint32),
        np.array([threshold(recipe.attention_dropout), threshold(recipe.dropout)], dtype=np.uint32),
    ]
    activation = {"none": kernels.NO_ACTIVATION, "elu": kernels.ELU, "relu": kernels.RELU}[recipe.activation]
    return tables, ({"none": -1, "identity": 0, "linear": 2}[recipe.residual], recipe.norm, activation)


def _arrays(*tensors: Tensor) -> list[Any]:
    return [tensor.detach().numpy() for tensor in tensors]


def _multiply(x: Tensor, weight: Tensor) -> Tensor:
    """x (N, D) times weightᵀ; an x of another dtype is never converted as a whole."""
    out = buffers.empty((len(x), len(weight)), weight)
    if x.dtype == weight.dtype:
        return torch.mm(x, weight.T, out=out)
    for part, rows in zip(out.split(_CHUNK), x.split(_CHUNK), strict=True):
        torch.mm(rows.to(weight.dtype), weight.T, out=part)
    return out


def _multiply_transposed(gradient: Tensor, x: Tensor) -> Tensor:
    """gradientᵀ times x, in chunks as above."""
    out = buffers.empty((gradient.shape[1], x.shape[1]), gradient)
    if x.dtype == gradient.dtype:
        return torch.mm(gradient.T, x, out=out)
    out.zero_()
    for part, rows in zip(gradient.split(_CHUNK), x.split(_CHUNK), strict=True):
        out.addmm_(part.T, rows.to(gradient.dtype))
    return out


def _layer_in_torch(x: Tensor, weights: list[Tensor], vectors: Tensor, graph: Graph, recipe: Recipe) -> Tensor:
    """The same layer in torch operations."""
    width, heads = vectors.shape[1], recipe.heads
    source_bias, target_bias, attention, bias, gain, shift, residual_bias = vectors
    x = x.to(vectors.dtype) if torch.is_grad_enabled() else x
    if x.dtype == vectors.dtype:
        products = functional.linear(x, torch.cat(weights))
    else:
        products = _multiply(x, torch.cat(weights))
    shape = (len(x), heads, width // heads)
    source, target = products[:, :width] + source_bias, products[:, width : 2 * width] + target_bias
    kept = vectors.new_ones(graph.n_edges, heads)
    if recipe.attention_dropout > 0:
        numbers = torch.arange(graph.n_edges, device=x.device)
        mask = keep_mask(recipe.seeds[0], numbers, heads, recipe.attention_dropout)
        kept = mask / vectors.new_tensor(1 - recipe.attention_dropout)
    h = attend_in_blocks(
        source.reshape(shape), target.reshape(shape), attention.reshape(heads, -1), kept, graph, recipe.slope
    )
    h = h.reshape(len(x), width) + bias
    if recipe.norm:
        h = functional.layer_norm(h, (width,), gain, shift, recipe.epsilon)
    if recipe.activation != "none":
        h = functional.elu(h) if recipe.activation == "elu" else h.relu()
    if recipe.dropout > 0:
        numbers = torch.arange(len(x), device=x.device)
        h = h * keep_mask(recipe.seeds[1], numbers, width, recipe.dropout) / (1 - recipe.dropout)
    if recipe.residual == "linear":
        return h + products[:, 2 * width :] + residual_bias
    return h + x if recipe.residual == "identity" else h
