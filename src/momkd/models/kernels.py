"""One graph layer, node by node, compiled by numba: every row that a node needs stays in the first-level cache.

The layer is the one of ``layer.py``. Everything here works on numpy arrays over ranges of nodes, without the GIL, and
a node's result depends on nothing but its own neighbourhood: any division of the nodes among threads gives the
same bytes. The gradient is in ``kernels_backward.py``.

``vectors`` (7, H, C) are in the order of the constants below; products lack their biases; ``alpha`` and ``kept``
(E, H) are the attention before and after dropout. Edges go three at a time (a KNN graph of 8 has 9 a node): what is
missing of the last three is the last edge again with weight 0.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np

from momkd.models.masks import COLUMN_STEP, MULTIPLIER_1, MULTIPLIER_2, ROW_STEP

SOURCE_BIAS, TARGET_BIAS, ATTENTION, BIAS, GAIN, SHIFT, RESIDUAL_BIAS = range(7)
NO_ACTIVATION, ELU, RELU = range(3)

Array = np.ndarray[Any, Any]
_Function = TypeVar("_Function", bound=Callable[..., Any])

# The cache of compiled code knows a function's own file only, but holds code of the functions it calls: the digest of
# all kernels in the name of each keeps old code from being used.
_DIGEST = f"{zlib.crc32(b''.join(file.read_bytes() for file in sorted(Path(__file__).parent.glob('kernels*.py')))):08x}"


def compiled(function: _Function) -> _Function:
    """Compile at the first call, without the GIL, and keep the machine code for the next process."""
    function.__qualname__ += f"_{_DIGEST}"
    result: Any = numba.njit(nogil=True, fastmath=True, cache=True, error_model="numpy")(function)
    return cast("_Function", result)


_M1, _M2 = np.uint32(MULTIPLIER_1), np.uint32(MULTIPLIER_2)
_COLUMN, _ROW = np.uint32(COLUMN_STEP), np.uint64(ROW_STEP)
_15, _16 = np.uint32(15), np.uint32(16)


@compiled
def _mix(x: Any) -> Any:
    x = np.uint32(x ^ (x >> _16))
    x = np.uint32(x * _M1)
    x = np.uint32(x ^ (x >> _15))
    x = np.uint32(x * _M2)
    return np.uint32(x ^ (x >> _16))


@compiled
def _row_keys(seed: Any, row: Any) -> Any:
    first = _mix(np.uint32(np.uint32(np.uint64(row) * _ROW) ^ seed))
    return first, _mix(np.uint32(first ^ _M1))


@compiled
def _bits(first: Any, second: Any, column: Any) -> Any:
    """``masks.keep_mask`` for one element; dropped where the value is below the threshold."""
    x = np.uint32(np.uint32(np.uint32(column) * _COLUMN) ^ first)
    x = np.uint32(x ^ (x >> _16))
    x = np.uint32(np.uint32(x * _M1) ^ second)
    x = np.uint32(x ^ (x >> _15))
    x = np.uint32(x * _M2)
    return np.uint32(x ^ (x >> _16))


class Edges(NamedTuple):
    """The arrays of ``graph.Graph``."""

    receive_ptr: Array
    senders: Array
    send_ptr: Array
    receivers: Array
    send_edge: Array


class Layer(NamedTuple):
    """What a layer reads.

    ``sources`` (N, parts, H, C): source products in part 0. ``targets`` (M, parts, H, C) and ``residual`` (M, parts, W)
    belong to the M nodes from ``offset`` on and are read at their parts, no residual if that is below 0. The
    backward pass needs source, target and residual products in parts 0, 1 and 2 of one array for all nodes.
    ``scalars``, in the dtype of the products: 0, LeakyReLU slope, scale of kept attention, scale of kept features,
    epsilon of the norm. ``seeds`` and ``drops`` (2,) uint32: of the attention's dropout and of the features'.
    """

    sources: Array
    targets: Array
    residual: Array
    vectors: Array
    scalars: Array
    seeds: Array
    drops: Array
    target_part: int
    residual_part: int
    offset: int
    norm: bool
    activation: int


@compiled
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


@compiled
def exp_row(row: Array) -> None:
    """row ← exp(min(row, 0))."""
    zero = row.dtype.type(0)
    if row.itemsize == 4:
        for c in range(row.size):
            row[c] = _exp(np.float32(min(row[c], zero)))
    else:
        for c in range(row.size):
            row[c] = math.exp(min(row[c], zero))


@compiled
def mask_row(seed: Any, i: int, drop: Any, zero: Any, scale: Any, mask: Array) -> None:
    """mask (W,) ← 0 or the scale of kept features, for node i."""
    first, second = _row_keys(seed, i)
    for c in range(mask.size):
        mask[c] = scale if _bits(first, second, c) >= drop else zero


@compiled
def pair_row(i: int, h: int, part: int, products: Array, vectors: Array, pair: Array) -> None:
    """pair (C,) ← a product of node i with both biases: with the other node's product it makes the score's input."""
    for c in range(pair.size):
        pair[c] = products[i, part, h, c] + vectors[SOURCE_BIAS, h, c] + vectors[TARGET_BIAS, h, c]


@compiled
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


@compiled
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


@compiled
def average(
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


@compiled
def normalise(row: Array, epsilon: Any) -> Any:
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


@compiled
def forward(start: int, stop: int, layer: Layer, edges: Edges, out: Array, alpha: Array, kept: Array) -> None:
    """out (N, W), alpha and kept of the nodes layer.offset + (start … stop − 1)."""
    sources, targets, residual, vectors, scalars = (
        layer.sources,
        layer.targets,
        layer.residual,
        layer.vectors,
        layer.scalars,
    )
    receive_ptr, senders, drops = edges.receive_ptr, edges.senders, layer.drops
    heads, head_dim = sources.shape[2:]
    dtype, width = out.dtype, heads * head_dim
    zero, one, slope = scalars[0], dtype.type(1), scalars[1]
    pair, mask, power = np.empty(head_dim, dtype), np.empty(width, dtype), np.empty(width, dtype)
    flat = vectors.reshape((-1, width))
    for r in range(start, stop):
        i = layer.offset + r
        first, last, row = receive_ptr[i], receive_ptr[i + 1], out[i]
        for h in range(heads):
            pair_row(r, h, layer.target_part, targets, vectors, pair)
            _scores(first, last, h, sources, senders, vectors, pair, slope, alpha)
            _softmax(first, last, h, alpha)
            for e in range(first, last):
                kept[e, h] = alpha[e, h]
                if drops[0] > 0:
                    key1, key2 = _row_keys(layer.seeds[0], e)
                    kept[e, h] = alpha[e, h] * scalars[2] if _bits(key1, key2, h) >= drops[0] else zero
            average(first, last, h, sources, senders, vectors, kept, zero, row.reshape((heads, head_dim))[h])
        if layer.norm:
            normalise(row, scalars[4])
            for c in range(width):
                row[c] = row[c] * flat[GAIN, c] + flat[SHIFT, c]
        if layer.activation == ELU:
            power[:] = row
            exp_row(power)
            for c in range(width):
                row[c] = row[c] if row[c] > zero else power[c] - one
        elif layer.activation == RELU:
            for c in range(width):
                row[c] = max(row[c], zero)
        if drops[1] > 0:
            mask_row(layer.seeds[1], i, drops[1], zero, scalars[3], mask)
            for c in range(width):
                row[c] *= mask[c]
        if layer.residual_part >= 0:
            for c in range(width):
                row[c] += residual[r, layer.residual_part, c] + flat[RESIDUAL_BIAS, c]
