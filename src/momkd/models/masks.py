"""Dropout masks as a function of (seed, row, column): made again in the backward pass instead of being stored.

The bits are the same in every implementation of the network, on every device and with any number of threads.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Odd multipliers of a 32-bit mixing function (xor-shift-multiply, twice), the steps between rows and columns.
MULTIPLIER_1, MULTIPLIER_2 = 0x7FEB352D, 0x846CA68B
COLUMN_STEP, ROW_STEP = 0x9E3779B1, 0x85EBCA77


def draw_seeds(n: int) -> list[int]:
    """Draw n 32-bit seeds from torch's generator, so ``torch.manual_seed`` fixes every mask."""
    seeds: list[int] = torch.randint(0, 2**32, (n,), dtype=torch.int64).tolist()
    return seeds


def threshold(dropout: float) -> int:
    """The number of the 2³² values of the mixing function that mean "drop"."""
    return min(round(dropout * 2**32), 2**32 - 1)


def keep_mask(seed: int, rows: Tensor, n_columns: int, dropout: float) -> Tensor:
    """Which elements are kept: rows (N,) int64 → (N, n_columns) bool, each False with probability ``dropout``.

    Both keys of a row are mixed from the seed, so two rows never share a stream.
    """
    first = _mix(_signed(rows * ROW_STEP) ^ _signed_scalar(seed))
    second = _mix(first ^ _signed_scalar(MULTIPLIER_1))
    columns = _signed(torch.arange(n_columns, device=rows.device) * COLUMN_STEP)
    x = columns ^ first.unsqueeze(1)
    x = x ^ _right(x, 16)
    x = (x * _signed_scalar(MULTIPLIER_1)) ^ second.unsqueeze(1)
    x = x ^ _right(x, 15)
    x = x * _signed_scalar(MULTIPLIER_2)
    x = x ^ _right(x, 16)
    # Unsigned x ≥ threshold, in signed arithmetic: both shifted by 2³¹.
    return (x ^ -(2**31)) >= threshold(dropout) - 2**31


def _mix(x: Tensor) -> Tensor:
    x = x ^ _right(x, 16)
    x = x * _signed_scalar(MULTIPLIER_1)
    x = x ^ _right(x, 15)
    x = x * _signed_scalar(MULTIPLIER_2)
    return x ^ _right(x, 16)


def _right(x: Tensor, bits: int) -> Tensor:
    """Unsigned shift of int32: the copies of the sign bit are masked away."""
    return (x >> bits) & ((1 << (32 - bits)) - 1)


def _signed(x: Tensor) -> Tensor:
    """The lower 32 bits of int64 values as int32."""
    low = x & 0xFFFFFFFF
    return torch.where(low >= 2**31, low - 2**32, low).to(torch.int32)


def _signed_scalar(x: int) -> int:
    return x - 2**32 if x >= 2**31 else x
