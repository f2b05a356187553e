"""One graph layer, node by node, compiled by numba: every row that a node needs stays in the first-level cache.

The layer is the one of ``layer.py``. Everything here works on numpy arrays over ranges of nodes, without the GIL, and
a node's result depends on nothing but its own neighbourhood: any division of the nodes among threads gives the
same bytes. Sums over nodes (gradients of vectors) are kept for every ``BLOCK`` nodes apart and added by the caller.

Of the forward pass nothing but alpha is kept: the gradient makes every row again, in two passes. ``by_target`` walks
the receiving edges of each node, ``by_source`` the sending ones; no two nodes write to the same place.

Shapes: ``products`` (N, parts, H, C): source, target and, with a projected residual, residual products without
their biases; ``vectors`` (7, H, C) in the order of the constants below; ``alpha`` (E, H) attention before dropout.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np

from momkd.models.masks import COLUMN_STEP, MULTIPLIER_1, MULTIPLIER_2, ROW_STEP

BLOCK = 256
SOURCE_BIAS, TARGET_BIAS, ATTENTION, BIAS, GAIN, SHIFT, RESIDUAL_BIAS = range(7)
NO_ACTIVATION, ELU, RELU = range(3)

Array = np.ndarray[Any, Any]
_Function = TypeVar("_Function")


def _compiled(function: _Function) -> _Function:
    result: _Function = numba.njit(nogil=True, fastmath=True, cache=True, error_model="numpy")(function)
    return result


_M1, _M2 = np.uint32(MULTIPLIER_1), np.uint32(MULTIPLIER_2)
_COLUMN, _ROW = np.uint32(COLUMN_STEP), np.uint64(ROW_STEP)
_15, _16 = np.uint32(15), np.uint32(16)


@_compiled
def _mix(x: Any) -> Any:
    x = np.uint32(x ^ (x >> _16))
    x = np.uint32(x * _M1)
    x = np.uint32(x ^ (x >> _15))
    x = np.uint32(x * _M2)
    return np.uint32(x ^ (x >> _16))


@_compiled
def _row_keys(seed: Any, row: Any) -> Any:
    first = _mix(np.uint32(np.uint32(np.uint64(row) * _ROW) ^ seed))
    return first, _mix(np.uint32(first ^ _M1))


@_compiled
def _bits(first: Any, second: Any, column: Any) -> Any:
    """``masks.keep_mask`` for one element; dropped where the value is below the threshold."""
    x = np.uint32(np.uint32(np.uint32(column) * _COLUMN) ^ first)
    x = np.uint32(x ^ (x >> _16))
    x = np.uint32(np.uint32(x * _M1) ^ second)
    x = np.uint32(x ^ (x >> _15))
    x = np.uint32(x * _M2)
    return np.uint32(x ^ (x >> _16))


@_compiled
def _exp(z: Any) -> Any:
    """exp(z) for z ≤ 0 in float32, within 7e-8, without a call, so that a loop over it becomes vector code."""
    z = max(z, np.float32(-87.0))
    n = np.float32(np.rint(z * np.float32(1.4426950408889634)))
    r = np.float32(z - n * np.float32(0.693359375))
    r = np.float32(r - n * np.float32(-2.12194440e-4))
    p = np.float32(1.9875691500e-4)
    p = np.float32(p * r + np.float32(1.3981999507e-3))
    p = np.float32(p * r + np.float32(8.3334519073e-3))
    p = np.float32(p * r + np.float32(4.1665795894e-2))
    p = np.float32(p * r + np.float32(1.6666665459e-1))
    p = np.float32(p * r + np.float32(5.0000001201e-1))
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return np.float32(np.float32(p * r * r + r + np.float32(1.0)) * power)


@_compiled
def _exp_row(row: Array) -> None:
    """row ← exp(min(row, 0))."""
    zero = row.dtype.type(0)
    if row.itemsize == 4:
        for c in range(row.size):
            row[c] = _exp(np.float32(min(row[c], zero)))
    else:
        for c in range(row.size):
            row[c] = math.exp(min(row[c], zero))


class Edges(NamedTuple):
    """The arrays of ``graph.Graph``."""

    receive_ptr: Array
    senders: Array
    send_ptr: Array
    receivers: Array
    send_edge: Array


class Inputs(NamedTuple):
    """What one layer reads; ``residual`` (N, parts, H, C) is read at part ``residual_part``, none if that is < 0.

    ``scalars`` in the dtype of the products: 0, LeakyReLU slope, scale of kept attention, scale of kept features,
    epsilon of the norm. ``seeds`` and ``drops`` (2,) uint32: of the attention and of the features.
    """

    products: Array
    residual: Array
    vectors: Array
    scalars: Array
    seeds: Array
    drops: Array
    residual_part: int
    norm: bool
    activation: int


@_compiled
def _add_scaled(total: Array, rows: Array, part: int, head: int, nodes: Array, scale: Array) -> None:
    """total += Σ_e scale[e, head] · rows[nodes[e], part, head], four rows at a time."""
    e, n = 0, nodes.size
    while e + 4 <= n:
        r0, r1 = rows[nodes[e], part, head], rows[nodes[e + 1], part, head]
        r2, r3 = rows[nodes[e + 2], part, head], rows[nodes[e + 3], part, head]
        s0, s1, s2, s3 = scale[e, head], scale[e + 1, head], scale[e + 2, head], scale[e + 3, head]
        for c in range(total.size):
            total[c] += (s0 * r0[c] + s1 * r1[c]) + (s2 * r2[c] + s3 * r3[c])
        e += 4
    while e < n:
        r0, s0 = rows[nodes[e], part, head], scale[e, head]
        for c in range(total.size):
            total[c] += s0 * r0[c]
        e += 1


@_compiled
def _drop_attention(e: int, h: int, inputs: Inputs, value: Any) -> Any:
    """A value after the attention dropout of edge e and head h: scaled up or 0."""
    if inputs.drops[0] == 0:
        return value
    first, second = _row_keys(inputs.seeds[0], e)
    return value * inputs.scalars[2] if _bits(first, second, h) >= inputs.drops[0] else inputs.scalars[0]


@_compiled
def _mask_row(i: int, inputs: Inputs, mask: Array) -> None:
    """mask (W,) ← 0 or the scale of kept features, for node i."""
    zero, scale, drop = inputs.scalars[0], inputs.scalars[3], inputs.drops[1]
    if drop == 0:
        mask[:] = scale
        return
    first, second = _row_keys(inputs.seeds[1], i)
    for c in range(mask.size):
        mask[c] = scale if _bits(first, second, c) >= drop else zero


@_compiled
def _softmax(i: int, inputs: Inputs, edges: Edges, pair: Array, alpha: Array) -> None:
    """alpha (E, H) ← the attention of the edges of node i, before dropout; pair (C,) is scratch."""
    products, vectors = inputs.products, inputs.vectors
    zero, slope = inputs.scalars[0], inputs.scalars[1]
    first, last = edges.receive_ptr[i], edges.receive_ptr[i + 1]
    for h in range(products.shape[2]):
        target, attention = products[i, 1, h], vectors[ATTENTION, h]
        source_bias, target_bias = vectors[SOURCE_BIAS, h], vectors[TARGET_BIAS, h]
        for c in range(pair.size):
            pair[c] = target[c] + source_bias[c] + target_bias[c]
        peak = zero
        for e in range(first, last):
            sent, score = products[edges.senders[e], 0, h], zero
            for c in range(pair.size):
                z = sent[c] + pair[c]
                score += attention[c] * (z if z > zero else slope * z)
            alpha[e, h] = score
            peak = score if e == first or score > peak else peak
        total = zero
        for e in range(first, last):
            alpha[e, h] = math.exp(alpha[e, h] - peak)
            total += alpha[e, h]
        for e in range(first, last):
            alpha[e, h] /= total


@_compiled
def _average(i: int, inputs: Inputs, edges: Edges, alpha: Array, kept: Array, out: Array) -> None:
    """out (H, C) ← the weighted sum of the sources of node i plus the bias; kept (n, H) ← alpha after dropout."""
    products, vectors = inputs.products, inputs.vectors
    first, last = edges.receive_ptr[i], edges.receive_ptr[i + 1]
    for h in range(products.shape[2]):
        mass = inputs.scalars[0]
        for e in range(first, last):
            kept[e - first, h] = _drop_attention(e, h, inputs, alpha[e, h])
            mass += kept[e - first, h]
        row, bias, source_bias = out[h], vectors[BIAS, h], vectors[SOURCE_BIAS, h]
        for c in range(row.size):
            row[c] = bias[c] + mass * source_bias[c]
        _add_scaled(row, products, 0, h, edges.senders[first:last], kept)


@_compiled
def _normalise(row: Array, epsilon: Any) -> Any:
    """row ← (row − mean) / standard deviation; returns 1 / standard deviation."""
    zero = row.dtype.type(0)
    size = row.dtype.type(row.size)
    mean, variance = zero, zero
    for c in range(row.size):
        mean += row[c]
    mean /= size
    for c in range(row.size):
        row[c] -= mean
        variance += row[c] * row[c]
    scale = row.dtype.type(1) / np.sqrt(variance / size + epsilon)
    for c in range(row.size):
        row[c] *= scale
    return scale


@_compiled
def _most_edges(ptr: Array, first: int, last: int) -> int:
    most = 0
    for i in range(first, last):
        most = max(most, ptr[i + 1] - ptr[i])
    return most


@_compiled
def forward(first: int, last: int, inputs: Inputs, edges: Edges, out: Array, alpha: Array) -> None:
    """out (N, W) and alpha (E, H) of the nodes first … last − 1."""
    heads, head_dim = inputs.products.shape[2:]
    dtype, width, zero = out.dtype, heads * head_dim, inputs.scalars[0]
    pair, mask, power = np.empty(head_dim, dtype), np.empty(width, dtype), np.empty(width, dtype)
    kept = np.empty((_most_edges(edges.receive_ptr, first, last), heads), dtype)
    one = dtype.type(1)
    vectors = inputs.vectors.reshape((-1, width))
    gain, shift, residual_bias = vectors[GAIN], vectors[SHIFT], vectors[RESIDUAL_BIAS]
    residuals = inputs.residual.reshape((len(out), -1, width))
    for i in range(first, last):
        row = out[i]
        _softmax(i, inputs, edges, pair, alpha)
        _average(i, inputs, edges, alpha, kept, row.reshape((heads, head_dim)))
        if inputs.norm:
            _normalise(row, inputs.scalars[4])
            for c in range(width):
                row[c] = row[c] * gain[c] + shift[c]
        if inputs.activation == ELU:
            power[:] = row
            _exp_row(power)
            for c in range(width):
                row[c] = row[c] if row[c] > zero else power[c] - one
        elif inputs.activation == RELU:
            for c in range(width):
                row[c] = max(row[c], zero)
        if inputs.drops[1] > 0:
            _mask_row(i, inputs, mask)
            for c in range(width):
                row[c] *= mask[c]
        if inputs.residual_part >= 0:
            residual = residuals[i, inputs.residual_part]
            for c in range(width):
                row[c] += residual[c] + residual_bias[c]


@_compiled
def _through_tail(i: int, inputs: Inputs, gradient: Array, row: Array, scratch: Array, sums: Array) -> None:
    """Gradient of the layer's output of node i → of its attention output; both in ``gradient`` (W,).

    ``row`` (W,) is the attention output; ``scratch`` (2, W); ``sums`` (7, W) gathers the gradients of the vectors.
    """
    width, zero = row.size, inputs.scalars[0]
    vectors = inputs.vectors.reshape((-1, width))
    gain, shift, mask, power = vectors[GAIN], vectors[SHIFT], scratch[0], scratch[1]
    if inputs.residual_part >= 0:
        total = sums[RESIDUAL_BIAS]
        for c in range(width):
            total[c] += gradient[c]
    if inputs.drops[1] > 0:
        _mask_row(i, inputs, mask)
        for c in range(width):
            gradient[c] *= mask[c]
    deviation = _normalise(row, inputs.scalars[4]) if inputs.norm else zero
    if inputs.activation == ELU:
        for c in range(width):
            power[c] = row[c] * gain[c] + shift[c] if inputs.norm else row[c]
        _exp_row(power)
        for c in range(width):
            gradient[c] *= power[c]
    elif inputs.activation == RELU:
        for c in range(width):
            value = row[c] * gain[c] + shift[c] if inputs.norm else row[c]
            gradient[c] = gradient[c] if value > zero else zero
    if inputs.norm:
        gain_sum, shift_sum = sums[GAIN], sums[SHIFT]
        mean, slope = zero, zero
        for c in range(width):
            gain_sum[c] += gradient[c] * row[c]
            shift_sum[c] += gradient[c]
            gradient[c] *= gain[c]
            mean += gradient[c]
            slope += gradient[c] * row[c]
        size = row.dtype.type(width)
        mean, slope = mean / size, slope / size
        for c in range(width):
            gradient[c] = deviation * (gradient[c] - mean - row[c] * slope)
    bias_sum = sums[BIAS]
    for c in range(width):
        bias_sum[c] += gradient[c]


@_compiled
def _score_gradients(i: int, inputs: Inputs, edges: Edges, gradient: Array, alpha: Array, score: Array) -> None:
    """score (E, H) ← the gradient of the scores of node i's edges, from that of its output, ``gradient`` (H, C)."""
    products, zero = inputs.products, inputs.scalars[0]
    first, last = edges.receive_ptr[i], edges.receive_ptr[i + 1]
    for h in range(products.shape[2]):
        out, source_bias = gradient[h], inputs.vectors[SOURCE_BIAS, h]
        constant, weighted = zero, zero
        for c in range(out.size):
            constant += out[c] * source_bias[c]
        for e in range(first, last):
            sent, dot = products[edges.senders[e], 0, h], constant
            for c in range(out.size):
                dot += out[c] * sent[c]
            score[e, h] = _drop_attention(e, h, inputs, dot)
            weighted += alpha[e, h] * score[e, h]
        for e in range(first, last):
            score[e, h] = alpha[e, h] * (score[e, h] - weighted)


@_compiled
def _target_gradient(
    i: int, inputs: Inputs, edges: Edges, score: Array, pair: Array, used: Array, sums: Array, out: Array
) -> None:
    """out (H, C) ← the gradient of node i's target product; ``sums`` (7, W) gathers; pair, used (C,) are scratch."""
    products, zero, slope = inputs.products, inputs.scalars[0], inputs.scalars[1]
    heads, head_dim = out.shape
    sums = sums.reshape((-1, heads, head_dim))
    for h in range(heads):
        target, attention = products[i, 1, h], inputs.vectors[ATTENTION, h]
        source_bias, target_bias = inputs.vectors[SOURCE_BIAS, h], inputs.vectors[TARGET_BIAS, h]
        attention_sum, bias_sum, row = sums[ATTENTION, h], sums[TARGET_BIAS, h], out[h]
        for c in range(head_dim):
            pair[c] = target[c] + source_bias[c] + target_bias[c]
            used[c] = zero
        for e in range(edges.receive_ptr[i], edges.receive_ptr[i + 1]):
            sent, positive = products[edges.senders[e], 0, h], score[e, h]
            negative = slope * positive
            for c in range(head_dim):
                z = sent[c] + pair[c]
                weight = positive if z > zero else negative
                used[c] += weight
                attention_sum[c] += weight * z
        for c in range(head_dim):
            row[c] = attention[c] * used[c]
            bias_sum[c] += row[c]


@_compiled
def by_target(
    first: int,
    last: int,
    inputs: Inputs,
    edges: Edges,
    gradient: Array,
    alpha: Array,
    attended: Array,
    kept: Array,
    score: Array,
    d_products: Array,
    sums: Array,
) -> None:
    """First pass, over the blocks first … last − 1 of nodes, from ``gradient`` (N, W) of the layer's output.

    Writes attended (N, W), the gradient of the attention output; kept and score (E, H), the attention after dropout
    and the gradient of the scores; parts 1 (and 2, of a projected residual) of d_products; sums (blocks, 7, W).
    """
    heads, head_dim = inputs.products.shape[2:]
    dtype, width, nodes = gradient.dtype, gradient.shape[1], len(gradient)
    scratch, row = np.empty((2, width), dtype), np.empty(width, dtype)
    pair, used = np.empty(head_dim, dtype), np.empty(head_dim, dtype)
    for block in range(first, last):
        for i in range(block * BLOCK, min((block + 1) * BLOCK, nodes)):
            out = attended[i]
            here, end = edges.receive_ptr[i], edges.receive_ptr[i + 1]
            _average(i, inputs, edges, alpha, kept[here:end], row.reshape((heads, head_dim)))
            out[:] = gradient[i]
            if inputs.residual_part > 0:
                d_products[i, inputs.residual_part] = gradient[i].reshape((heads, head_dim))
            _through_tail(i, inputs, out, row, scratch, sums[block])
            _score_gradients(i, inputs, edges, out.reshape((heads, head_dim)), alpha, score)
            _target_gradient(i, inputs, edges, score, pair, used, sums[block], d_products[i, 1])


@_compiled
def by_source(
    first: int,
    last: int,
    inputs: Inputs,
    edges: Edges,
    attended: Array,
    kept: Array,
    score: Array,
    d_products: Array,
    sums: Array,
) -> None:
    """Second pass, over blocks: part 0 of d_products, and the source bias in sums."""
    products, vectors = inputs.products, inputs.vectors
    zero, slope = inputs.scalars[0], inputs.scalars[1]
    heads, head_dim = products.shape[2:]
    dtype, nodes = attended.dtype, len(attended)
    pair, used = np.empty(head_dim, dtype), np.empty(head_dim, dtype)
    out = attended.reshape((nodes, 1, heads, head_dim))
    for block in range(first, last):
        block_sums = sums[block].reshape((-1, heads, head_dim))
        for j in range(block * BLOCK, min((block + 1) * BLOCK, nodes)):
            for h in range(heads):
                source, attention, bias_sum = products[j, 0, h], vectors[ATTENTION, h], block_sums[SOURCE_BIAS, h]
                source_bias, target_bias = vectors[SOURCE_BIAS, h], vectors[TARGET_BIAS, h]
                row = d_products[j, 0, h]
                for c in range(head_dim):
                    pair[c] = source[c] + source_bias[c] + target_bias[c]
                    used[c] = zero
                    row[c] = zero
                for k in range(edges.send_ptr[j], edges.send_ptr[j + 1]):
                    i, e = edges.receivers[k], edges.send_edge[k]
                    target, sent, weight = products[i, 1, h], out[i, 0, h], kept[e, h]
                    positive = score[e, h]
                    negative = slope * positive
                    for c in range(head_dim):
                        used[c] += positive if target[c] + pair[c] > zero else negative
                        row[c] += weight * sent[c]
                for c in range(head_dim):
                    row[c] += attention[c] * used[c]
                    bias_sum[c] += row[c]
