"""One graph layer, node by node, compiled by numba: every row that a node needs stays in the first-level cache.

The layer is the one of ``layer.py``. Everything here works on numpy arrays over ranges of nodes, without the GIL, and
a node's result depends on nothing but its own neighbourhood: any division of the nodes among threads gives the
same bytes. Sums over nodes (gradients of vectors) are kept for every ``BLOCK`` nodes apart and added by the caller.

Of the forward pass only the attention is kept: the gradient makes every row again, in two passes. ``by_target`` walks
the receiving edges of each node, ``by_source`` the sending ones; no two nodes write to the same place.

Shapes: ``products`` (N, parts, H, C): source, target and, with a projected residual, residual products without
their biases; ``vectors`` (7, H, C) in the order of the constants below; ``alpha`` and ``kept`` (E, H) the attention
before and after dropout; ``scalars`` in the dtype of the products: 0, LeakyReLU slope, scale of kept attention, scale
of kept features, epsilon of the norm. Edges go three at a time (a KNN graph of 8 has 9 a node): what is missing of
the last three is the last edge again with weight 0.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

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
    """exp(z) for z ≤ 0 in float32, within 1e-7, without a call, so that a loop over it becomes vector code."""
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
    # 2ⁿ from its bits: (n + 127) · 2²³ is exact in float32.
    power = np.int32(np.float32(8388608.0) * n + np.float32(127.0 * 8388608.0)).view(np.float32)
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


@_compiled
def _mask_row(seed: Any, i: int, drop: Any, zero: Any, scale: Any, mask: Array) -> None:
    """mask (W,) ← 0 or the scale of kept features, for node i."""
    first, second = _row_keys(seed, i)
    for c in range(mask.size):
        mask[c] = scale if _bits(first, second, c) >= drop else zero


@_compiled
def _pair_row(i: int, h: int, part: int, products: Array, vectors: Array, pair: Array) -> None:
    """pair (C,) ← a product of node i with both biases: with the other node's product it makes the score's input."""
    for c in range(pair.size):
        pair[c] = products[i, part, h, c] + vectors[SOURCE_BIAS, h, c] + vectors[TARGET_BIAS, h, c]


@_compiled
def _scores(
    first: int, last: int, h: int, products: Array, senders: Array, vectors: Array, pair: Array, slope: Any, out: Array
) -> None:
    """out (E, H) ← aᵀ LeakyReLU(pair + source product) of the edges first … last − 1."""
    for e in range(first, last, 3):
        f, g = min(e + 1, last - 1), min(e + 2, last - 1)
        i, j, k = senders[e], senders[f], senders[g]
        u, v, w = slope - slope, slope - slope, slope - slope
        for c in range(pair.size):
            a, p = vectors[ATTENTION, h, c], pair[c]
            x, y, z = products[i, 0, h, c] + p, products[j, 0, h, c] + p, products[k, 0, h, c] + p
            u += a * max(x, slope * x)
            v += a * max(y, slope * y)
            w += a * max(z, slope * z)
        out[e, h], out[f, h], out[g, h] = u, v, w


@_compiled
def _softmax(first: int, last: int, h: int, alpha: Array) -> None:
    """Scores → attention, in place, of the edges first … last − 1."""
    peak = alpha[first, h]
    for e in range(first, last):
        peak = max(peak, alpha[e, h])
    total = peak - peak
    for e in range(first, last):
        alpha[e, h] = math.exp(alpha[e, h] - peak)
        total += alpha[e, h]
    for e in range(first, last):
        alpha[e, h] /= total


@_compiled
def _average(
    first: int, last: int, h: int, products: Array, senders: Array, vectors: Array, kept: Array, zero: Any, out: Array
) -> None:
    """out (C,) ← Σ_e kept[e, h] · (source product + its bias) + bias."""
    mass = zero
    for e in range(first, last):
        mass += kept[e, h]
    for c in range(out.size):
        out[c] = vectors[BIAS, h, c] + mass * vectors[SOURCE_BIAS, h, c]
    for e in range(first, last, 3):
        f, g = min(e + 1, last - 1), min(e + 2, last - 1)
        i, j, k = senders[e], senders[f], senders[g]
        u, v, w = kept[e, h], kept[f, h] if f > e else zero, kept[g, h] if g > f else zero
        for c in range(out.size):
            out[c] += u * products[i, 0, h, c] + v * products[j, 0, h, c] + w * products[k, 0, h, c]


@_compiled
def _normalise(row: Array, epsilon: Any) -> Any:
    """row ← (row − mean) / standard deviation; returns 1 / standard deviation."""
    zero, size = row.dtype.type(0), row.dtype.type(row.size)
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
def forward(
    start: int,
    stop: int,
    products: Array,
    residual: Array,
    vectors: Array,
    scalars: Array,
    seeds: Array,
    drops: Array,
    residual_part: int,
    norm: bool,
    activation: int,
    receive_ptr: Array,
    senders: Array,
    out: Array,
    alpha: Array,
    kept: Array,
) -> None:
    """out (N, W), alpha and kept of the nodes start … stop − 1.

    ``residual`` (N, parts, W) is read at ``residual_part``, none if that is below 0; ``seeds`` and ``drops`` (2,)
    uint32: seed and threshold of the attention's dropout and of the features'.
    """
    heads, head_dim = products.shape[2:]
    dtype, width = out.dtype, heads * head_dim
    zero, one, slope = scalars[0], dtype.type(1), scalars[1]
    pair, mask, power = np.empty(head_dim, dtype), np.empty(width, dtype), np.empty(width, dtype)
    flat = vectors.reshape((-1, width))
    for i in range(start, stop):
        first, last, row = receive_ptr[i], receive_ptr[i + 1], out[i]
        for h in range(heads):
            _pair_row(i, h, 1, products, vectors, pair)
            _scores(first, last, h, products, senders, vectors, pair, slope, alpha)
            _softmax(first, last, h, alpha)
            for e in range(first, last):
                kept[e, h] = alpha[e, h]
                if drops[0] > 0:
                    key1, key2 = _row_keys(seeds[0], e)
                    kept[e, h] = alpha[e, h] * scalars[2] if _bits(key1, key2, h) >= drops[0] else zero
            _average(first, last, h, products, senders, vectors, kept, zero, row.reshape((heads, head_dim))[h])
        if norm:
            _normalise(row, scalars[4])
            for c in range(width):
                row[c] = row[c] * flat[GAIN, c] + flat[SHIFT, c]
        if activation == ELU:
            power[:] = row
            _exp_row(power)
            for c in range(width):
                row[c] = row[c] if row[c] > zero else power[c] - one
        elif activation == RELU:
            for c in range(width):
                row[c] = max(row[c], zero)
        if drops[1] > 0:
            _mask_row(seeds[1], i, drops[1], zero, scalars[3], mask)
            for c in range(width):
                row[c] *= mask[c]
        if residual_part >= 0:
            for c in range(width):
                row[c] += residual[i, residual_part, c] + flat[RESIDUAL_BIAS, c]


@_compiled
def _through_tail(
    gradient: Array, row: Array, power: Array, flat: Array, sums: Array, norm: bool, activation: int, epsilon: Any
) -> None:
    """Gradient after the activation → gradient of the attention output ``row`` (W,), in place; power (W,): scratch."""
    width, zero = row.size, row.dtype.type(0)
    if norm:
        deviation = _normalise(row, epsilon)
        for c in range(width):
            power[c] = row[c] * flat[GAIN, c] + flat[SHIFT, c]
    else:
        deviation = zero
        power[:] = row
    if activation == ELU:
        _exp_row(power)
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


@_compiled
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


@_compiled
def _add_slopes(
    h: int, part: int, products: Array, pair: Array, i: int, j: int, k: int, u: Any, v: Any, w: Any, slope: Any, used: Array
) -> None:
    """used (C,) += the gradients u, v, w of three scores times LeakyReLU′ at pair + product of nodes i, j, k."""
    zero, us, vs, ws = slope - slope, slope * u, slope * v, slope * w
    for c in range(pair.size):
        p = pair[c]
        x = u if products[i, part, h, c] + p > zero else us
        y = v if products[j, part, h, c] + p > zero else vs
        z = w if products[k, part, h, c] + p > zero else ws
        used[c] += x + y + z


@_compiled
def by_target(
    start: int,
    stop: int,
    products: Array,
    vectors: Array,
    scalars: Array,
    seeds: Array,
    drops: Array,
    residual_part: int,
    norm: bool,
    activation: int,
    receive_ptr: Array,
    senders: Array,
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
                _mask_row(seeds[1], i, drops[1], zero, scalars[3], mask)
                for c in range(width):
                    out[c] *= mask[c]
            if norm or activation != NO_ACTIVATION:
                for h in range(heads):
                    _average(first, last, h, products, senders, vectors, kept, zero, row_by_head[h])
            _through_tail(out, row, mask, flat, own, norm, activation, scalars[4])
            for h in range(heads):
                part = out_by_head[i, h]
                _score_gradients(first, last, h, products, senders, vectors, part, alpha, kept, score)
                _pair_row(i, h, 1, products, vectors, pair)
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


@_compiled
def by_source(
    start: int,
    stop: int,
    products: Array,
    vectors: Array,
    slope: Any,
    send_ptr: Array,
    receivers: Array,
    send_edge: Array,
    attended: Array,
    kept: Array,
    score: Array,
    d_products: Array,
    sums: Array,
) -> None:
    """Second pass, over blocks: part 0 of d_products, and the rest of sums."""
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
                _pair_row(source, h, 0, products, vectors, pair)
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
