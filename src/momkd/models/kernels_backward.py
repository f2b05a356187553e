"""The gradient of ``kernels.forward``: of that pass only the attention is kept, every row is made again in cache.

``by_target`` walks the receiving edges of each node, ``by_source`` the sending ones; no two nodes write to the
same place. Sums over nodes (gradients of vectors) are kept for every ``BLOCK`` nodes apart and added by the caller.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from momkd.models.kernels import (
    ATTENTION,
    BIAS,
    ELU,
    GAIN,
    NO_ACTIVATION,
    RELU,
    RESIDUAL_BIAS,
    SHIFT,
    SOURCE_BIAS,
    TARGET_BIAS,
    Array,
    Edges,
    Layer,
    average,
    compiled,
    exp_row,
    mask_row,
    normalise,
    pair_row,
)

BLOCK = 64


@compiled
def _through_tail(
    gradient: Array, row: Array, power: Array, flat: Array, sums: Array, norm: bool, activation: int, epsilon: Any
) -> None:
    """Gradient after the activation → gradient of the attention output ``row`` (W,), in place; power (W,): scratch."""
    width, zero = row.size, row.dtype.type(0)
    if norm:
        deviation = normalise(row, epsilon)
        for c in range(width):
            power[c] = row[c] * flat[GAIN, c] + flat[SHIFT, c]
    else:
        deviation = zero
        power[:] = row
    if activation == ELU:
        exp_row(power)
        for c in range(width):
            gradient[c] *= power[c]
    elif activation == RELU:
        for c in range(width):
            gradient[c] = gradient[c] if power[c] > zero else zero
    if norm:
        mean, tilt = zero, zero
        for c in range(width):
            sums[GAIN, c] += gradient[c] * row[c]
            sums[SHIFT, c] += gradient[c]
            gradient[c] *= flat[GAIN, c]
            mean += gradient[c]
            tilt += gradient[c] * row[c]
        mean, tilt = mean / row.dtype.type(width), tilt / row.dtype.type(width)
        for c in range(width):
            gradient[c] = deviation * (gradient[c] - mean - row[c] * tilt)
    for c in range(width):
        sums[BIAS, c] += gradient[c]


@compiled
def _score_gradients(
    first: int,
    last: int,
    h: int,
    products: Array,
    senders: Array,
    vectors: Array,
    gradient: Array,
    alpha: Array,
    kept: Array,
    score: Array,
) -> None:
    """score (E, H) ← the gradient of the scores of a node's edges, from that of its output, ``gradient`` (C,)."""
    zero = gradient.dtype.type(0)
    constant, weighted = zero, zero
    for c in range(gradient.size):
        constant += gradient[c] * vectors[SOURCE_BIAS, h, c]
    for e in range(first, last, 3):
        f, g = min(e + 1, last - 1), min(e + 2, last - 1)
        i, j, k = senders[e], senders[f], senders[g]
        u, v, w = constant, constant, constant
        for c in range(gradient.size):
            a = gradient[c]
            u += a * products[i, 0, h, c]
            v += a * products[j, 0, h, c]
            w += a * products[k, 0, h, c]
        score[e, h], score[f, h], score[g, h] = u, v, w
    # A dropped edge has kept = 0: no gradient reaches its score but that of the softmax's sum.
    for e in range(first, last):
        score[e, h] *= kept[e, h]
        weighted += score[e, h]
    for e in range(first, last):
        score[e, h] -= alpha[e, h] * weighted


@compiled
def _add_slopes(
    h: int,
    part: int,
    products: Array,
    pair: Array,
    i: int,
    j: int,
    k: int,
    u: Any,
    v: Any,
    w: Any,
    slope: Any,
    used: Array,
) -> None:
    """used (C,) += the gradients u, v, w of three scores times LeakyReLU′ at pair + product of nodes i, j, k."""
    zero, us, vs, ws = slope - slope, slope * u, slope * v, slope * w
    for c in range(pair.size):
        p = pair[c]
        x = u if products[i, part, h, c] + p > zero else us
        y = v if products[j, part, h, c] + p > zero else vs
        z = w if products[k, part, h, c] + p > zero else ws
        used[c] += x + y + z


@compiled
def by_target(
    start: int,
    stop: int,
    layer: Layer,
    edges: Edges,
    gradient: Array,
    alpha: Array,
    kept: Array,
    attended: Array,
    score: Array,
    d_products: Array,
    sums: Array,
) -> None:
    """First pass, over the blocks start … stop − 1 of nodes, from ``gradient`` (N, W) of the layer's output.

    Writes attended (N, W), the gradient of the attention output; score (E, H), that of the scores; parts 1 (and 2,
    of a projected residual) of d_products (N, parts, W); sums (blocks, 7, W), zero before.
    """
    products, vectors, scalars, drops = layer.sources, layer.vectors, layer.scalars, layer.drops
    receive_ptr, senders = edges.receive_ptr, edges.senders
    residual_part, norm, activation, seed = layer.residual_part, layer.norm, layer.activation, layer.seeds[1]
    heads, head_dim = products.shape[2:]
    dtype, width, nodes = gradient.dtype, gradient.shape[1], len(gradient)
    zero, slope = scalars[0], scalars[1]
    row, mask = np.empty(width, dtype), np.empty(width, dtype)
    pair, used = np.empty(head_dim, dtype), np.empty(head_dim, dtype)
    flat = vectors.reshape((-1, width))
    by_head, out_by_head = sums.reshape((-1, 7, heads, head_dim)), attended.reshape((nodes, heads, head_dim))
    d_by_head = d_products.reshape((nodes, -1, heads, head_dim))
    row_by_head = row.reshape((heads, head_dim))
    for block in range(start, stop):
        own = sums[block]
        for i in range(block * BLOCK, min((block + 1) * BLOCK, nodes)):
            first, last, out = receive_ptr[i], receive_ptr[i + 1], attended[i]
            for c in range(width):
                out[c] = gradient[i, c]
            if residual_part >= 0:
                for c in range(width):
                    own[RESIDUAL_BIAS, c] += out[c]
            if residual_part > 0:
                for c in range(width):
                    d_products[i, residual_part, c] = out[c]
            if drops[1] > 0:
                mask_row(seed, i, drops[1], zero, scalars[3], mask)
                for c in range(width):
                    out[c] *= mask[c]
            if norm or activation != NO_ACTIVATION:
                for h in range(heads):
                    average(first, last, h, products, senders, vectors, kept, zero, row_by_head[h])
            _through_tail(out, row, mask, flat, own, norm, activation, scalars[4])
            for h in range(heads):
                part = out_by_head[i, h]
                _score_gradients(first, last, h, products, senders, vectors, part, alpha, kept, score)
                pair_row(i, h, 1, products, vectors, pair)
                used[:] = zero
                for e in range(first, last, 3):
                    f, g = min(e + 1, last - 1), min(e + 2, last - 1)
                    u, v, w = score[e, h], score[f, h] if f > e else zero, score[g, h] if g > f else zero
                    j, k, m = senders[e], senders[f], senders[g]
                    _add_slopes(h, 0, products, pair, j, k, m, u, v, w, slope, used)
                for c in range(head_dim):
                    by_head[block, ATTENTION, h, c] += pair[c] * used[c]
                    used[c] *= vectors[ATTENTION, h, c]
                    d_by_head[i, 1, h, c] = used[c]
                    by_head[block, TARGET_BIAS, h, c] += used[c]


@compiled
def by_source(
    start: int,
    stop: int,
    layer: Layer,
    edges: Edges,
    attended: Array,
    kept: Array,
    score: Array,
    d_products: Array,
    sums: Array,
) -> None:
    """Second pass, over blocks: part 0 of d_products, and the rest of sums."""
    products, vectors, slope = layer.sources, layer.vectors, layer.scalars[1]
    send_ptr, receivers, send_edge = edges.send_ptr, edges.receivers, edges.send_edge
    zero = slope - slope
    heads, head_dim = products.shape[2:]
    nodes, dtype = len(attended), attended.dtype
    pair, used, row = np.empty(head_dim, dtype), np.empty(head_dim, dtype), np.empty(head_dim, dtype)
    by_head, out_by_head = sums.reshape((-1, 7, heads, head_dim)), attended.reshape((nodes, heads, head_dim))
    d_by_head = d_products.reshape((nodes, -1, heads, head_dim))
    for block in range(start, stop):
        for source in range(block * BLOCK, min((block + 1) * BLOCK, nodes)):
            last = send_ptr[source + 1]
            for h in range(heads):
                pair_row(source, h, 0, products, vectors, pair)
                used[:] = zero
                row[:] = zero
                for m in range(send_ptr[source], last, 3):
                    n, o = min(m + 1, last - 1), min(m + 2, last - 1)
                    i, j, k = receivers[m], receivers[n], receivers[o]
                    e, f, g = send_edge[m], send_edge[n], send_edge[o]
                    u, v, w = score[e, h], score[f, h] if n > m else zero, score[g, h] if o > n else zero
                    _add_slopes(h, 1, products, pair, i, j, k, u, v, w, slope, used)
                    u, v, w = kept[e, h], kept[f, h] if n > m else zero, kept[g, h] if o > n else zero
                    for c in range(head_dim):
                        row[c] += u * out_by_head[i, h, c] + v * out_by_head[j, h, c] + w * out_by_head[k, h, c]
                for c in range(head_dim):
                    row[c] += vectors[ATTENTION, h, c] * used[c]
                    d_by_head[source, 0, h, c] = row[c]
                    by_head[block, SOURCE_BIAS, h, c] += row[c]
                    # The other half of Σ score′ · LeakyReLU(…): the target's half, with the biases, is in by_target.
                    by_head[block, ATTENTION, h, c] += products[source, 0, h, c] * used[c]
