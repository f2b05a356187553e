"""What several processes of one training know together; in a single process, what it knows itself."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def several() -> bool:
    """Whether torch.distributed is initialised with more than one process."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum of a tensor of one shape over all processes."""
    if several():
        values = values.clone()
        distributed.all_reduce(values)
    return values


def gather_rows(rows: Tensor) -> Tensor:
    """The rows (n, …) of all processes, in the order of their ranks; n may differ from process to process."""
    if not several():
        return rows
    size = torch.tensor([len(rows)], device=rows.device)
    sizes = [torch.empty_like(size) for _ in range(distributed.get_world_size())]
    distributed.all_gather(sizes, size)
    counts = [int(one) for one in sizes]
    padded = rows.new_zeros((max(counts), *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
