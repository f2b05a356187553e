"""How many CPU threads some patches are worth.

Another number of threads rounds sums differently, so it may depend on the data and the machine only: never on how many
processes run side by side, nor on what ran before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

# Below so many patches at once, a second thread costs more in hand-over than it saves.
_PATCHES_WORTH_A_SECOND_THREAD = 2048


def threads_for(patches: float) -> int:
    """1 for few patches, every core for many."""
    return 1 if patches < _PATCHES_WORTH_A_SECOND_THREAD else max(1, os.cpu_count() or 1)


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Let torch use ``count`` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def use_blas_threads(count: int) -> Iterator[None]:
    """Let numpy and scipy use ``count`` threads inside the block, for the same reason and lest processes crowd."""
    with threadpool_limits(count, user_api="blas"):
        yield
