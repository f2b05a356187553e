"""Run a compiled kernel over ranges of rows in threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from itertools import pairwise
from queue import Empty, SimpleQueue

import torch


def run_in_threads(kernel: Callable[..., None], n_rows: int, *arguments: object) -> None:
    """Call ``kernel(first, last, *arguments)`` over all of 0 … n_rows in as many threads as torch uses.

    The kernel must release the GIL and write each row independently of the ranges.
    """
    n_threads = max(1, min(torch.get_num_threads(), n_rows))
    if n_threads == 1:
        kernel(0, n_rows, *arguments)
        return
    # Several ranges a thread: a thread that is held up leaves its share to the others.
    n_ranges = min(n_rows, 4 * n_threads)
    bounds = [n_rows * i // n_ranges for i in range(n_ranges + 1)]
    ranges: SimpleQueue[tuple[int, int]] = SimpleQueue()
    for bound in pairwise(bounds):
        ranges.put(bound)

    def work() -> None:
        with suppress(Empty):
            while True:
                first, last = ranges.get_nowait()
                kernel(first, last, *arguments)

    futures = [_pool(n_threads - 1, os.getpid()).submit(work) for _ in range(n_threads - 1)]
    work()
    for future in futures:
        future.result()


@cache
def _pool(n_threads: int, process: int) -> ThreadPoolExecutor:
    """One pool a process: threads do not survive a fork."""
    return ThreadPoolExecutor(n_threads, thread_name_prefix=f"momkd-{process}")
