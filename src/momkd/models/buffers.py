"""Large temporary tensors whose memory is used again: fresh pages from the system cost as much as filling them.

A buffer is free once nothing else refers to it, which its reference count tells: a tensor made here may be kept,
saved for a backward pass or returned like any other.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Smaller tensors come from torch; larger ones in steps of 1/8 of their size, so that slides of similar sizes share.
_SMALLEST = 2**20
_STEPS = 8
# Free bytes that a thread holds on to at most, beyond what is in use.
_MOST_FREE = 2**31


_Buffer = np.ndarray[Any, np.dtype[np.uint8]]


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.all: list[_Buffer] = []


_BUFFERS = _Buffers()


def empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """An uninitialised tensor with the dtype and device of ``like``; used memory where a CPU buffer is free."""
    n_bytes = like.element_size()
    for length in shape:
        n_bytes *= length
    if like.device.type != "cpu" or n_bytes < _SMALLEST:
        return like.new_empty(shape)
    buffer = _take(n_bytes)
    return torch.from_numpy(buffer)[:n_bytes].view(like.dtype).reshape(shape)


def release() -> None:
    """Give the free buffers of this thread back to the system."""
    buffers = _BUFFERS.all
    _BUFFERS.all = [buffers[place] for place in range(len(buffers)) if not _is_free(buffers, place)]


def _take(n_bytes: int) -> _Buffer:
    step = 2 ** (n_bytes.bit_length() - 1) // _STEPS
    size = -(-n_bytes // step) * step
    buffers, free_bytes = _BUFFERS.all, 0
    for place in range(len(buffers)):
        if _is_free(buffers, place):
            if buffers[place].size == size:
                return buffers[place]
            free_bytes += buffers[place].size
    if free_bytes + size > _MOST_FREE:
        release()
    _BUFFERS.all.append(np.empty(size, dtype=np.uint8))
    return _BUFFERS.all[-1]


def _is_free(buffers: list[_Buffer], place: int) -> bool:
    """Whether only the list refers to a buffer: as often as to a new array in a new list."""
    alone = [np.empty(0, dtype=np.uint8)]
    return sys.getrefcount(buffers[place]) == sys.getrefcount(alone[0])
