"""The wide matrix products, in the precision in which they are fastest, of inputs in any floating dtype."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from momkd.models import buffers

_LOG = logging.getLogger(__name__)
# Rows of another dtype are converted so many at a time, never as a whole.
_CHUNK = 2048


def multiply(x: Tensor, weight: Tensor, dtype: torch.dtype, *, start: Tensor | None = None) -> Tensor:
    """x (N, D) times weightᵀ, weight (M, D), plus ``start`` (N, M) if given → (N, M) in the dtype of ``weight``.

    The factors are rounded to ``dtype`` (``product_dtype``), which a backward pass must take from its forward pass:
    autocast is over by then.
    """
    out = buffers.empty((len(x), len(weight)), weight)
    if x.dtype == weight.dtype == dtype:
        return torch.mm(x, weight.T, out=out) if start is None else torch.addmm(start, x, weight.T, out=out)
    turned = weight.T.to(dtype)
    for first in range(0, len(x), _CHUNK):
        rows = slice(first, first + _CHUNK)
        part = x[rows].to(dtype) @ turned
        out[rows] = part if start is None else start[rows] + part
    return out


def multiply_transposed(gradient: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    """gradientᵀ times x: (N, M), (N, D) → (M, D) in the dtype of ``gradient``, from factors rounded to ``dtype``."""
    out = buffers.empty((gradient.shape[1], x.shape[1]), gradient)
    if x.dtype == gradient.dtype == dtype:
        return torch.mm(gradient.T, x, out=out)
    out.zero_()
    for first in range(0, len(x), _CHUNK):
        rows = slice(first, first + _CHUNK)
        out += gradient[rows].to(dtype).T @ x[rows].to(dtype)
    return out


def product_dtype(like: Tensor) -> torch.dtype:
    """The dtype that products with ``like`` are made from: its own, or bfloat16 where autocast asks and it is fast."""
    device = like.device.type
    asked = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16
    return torch.bfloat16 if asked and (device != "cpu" or bfloat16_is_fast()) else like.dtype


@cache
def bfloat16_is_fast() -> bool:
    """Whether this CPU multiplies bfloat16 faster than float32; if not, it is logged.

    Intel's need tiles (AMX) for that: their AVX-512 instructions for bfloat16 run at half the rate of those for
    float32. AMD's, from Zen 4 on, have them at twice the rate.
    """
    instructions = torch.cpu._is_avx512_bf16_supported() and _processor().startswith("znver")
    fast = bool(torch.cpu._is_amx_tile_supported() or instructions)
    if not fast:
        _LOG.warning("bfloat16 products are not faster than float32 on this CPU: float32 is used for them")
    return fast


def _processor() -> str:
    """LLVM's name of the processor, such as znver4; empty where LLVM is not at hand."""
    try:
        from llvmlite.binding import get_host_cpu_name
    except ImportError:
        return ""
    return str(get_host_cpu_name())


@contextmanager
def full_precision(like: Tensor) -> Iterator[None]:
    """No autocast on the device of ``like``: under ``precision: bf16`` only the encoder's products are bfloat16."""
    with torch.autocast(like.device.type, enabled=False):
        yield
