"""Several processes know together what one process with the whole batch knows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, distributed
from torch.nn import functional

from momkd.experiment import MemorySettings
from momkd.models.memory import UNKNOWN, Memory
from momkd.models.memory_updates import MemoryUpdates
from momkd.models.processes import gather_rows, several, sum_over_processes

# How a batch of ten slides is divided: not in halves, because the last step of an epoch is not either.
PARTS = (slice(0, 4), slice(4, 10))
RULES = {
    "ema": {"update": "ema", "momentum": 0.7},
    "hybrid": {"update": "hybrid", "momentum": 0.7},
    "queue": {"update": "queue"},
    "revive": {"update": "gradient", "revive": 1},
}


def moved(rule: str, part: slice) -> dict[str, Tensor]:
    """Two epochs of two steps, of which this process sees a part of every batch."""
    torch.manual_seed(0)
    memory = Memory(3, MemorySettings(codes=4, dim=6, **RULES[rule]))
    updates = MemoryUpdates(memory)
    for _ in range(2):
        updates.begin_epoch(warming=False)
        for _ in range(2):
            slides = functional.normalize(torch.randn(10, 6), dim=-1)
            rna = functional.normalize(torch.randn(10, 6), dim=-1)
            labels = torch.tensor([0, 1, 2, UNKNOWN, 0, 1, 0, 0, 2, 1])
            paired = torch.tensor([True, False, True, True, False, False, True, True, False, True])[part]
            updates.observe(slides[part], labels[part], [(rna[part][paired], paired)])
            updates.after_step(memory)
        updates.end_epoch(memory)
    return {f"{rule}.codes": memory.codes.detach(), f"{rule}.mass": updates.mass, f"{rule}.idle": updates.idle}


def work(rank: int, folder: Path) -> None:
    """What each of the two processes does."""
    store = f"file://{folder / 'store'}"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    rows = torch.arange(6.0).reshape(3, 2)
    found = {
        "several": torch.tensor(several()),
        "sum": sum_over_processes(torch.tensor([1.0, 10.0 * rank])),
        "rows": gather_rows(rows[:1] if rank == 0 else rows[1:]),
        "some": gather_rows(rows[:0] if rank == 0 else rows),
        "none": gather_rows(rows[:0]),
    }
    for rule in RULES:
        found |= moved(rule, PARTS[rank])
    np.savez(folder / f"rank-{rank}.npz", **{name: value.numpy() for name, value in found.items()})
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("processes")
    alone = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"} if sys.platform == "linux" else {}
    command = [sys.executable, __file__]
    running = [
        subprocess.Popen([*command, str(rank), str(folder)], env={**os.environ, **alone}, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in running:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error.decode()
    return [dict(np.load(folder / f"rank-{rank}.npz")) for rank in range(2)]


def test_sums_and_rows_of_two_processes(ranks: list[dict[str, np.ndarray]]) -> None:
    for found in ranks:
        assert bool(found["several"])
        assert found["sum"].tolist() == [2.0, 10.0]
        assert found["rows"].tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
        assert found["some"].shape == (3, 2)
        assert found["none"].shape == (0, 2)


@pytest.mark.parametrize("rule", list(RULES))
def test_two_processes_with_a_part_each_move_the_codes_like_one_with_all(
    ranks: list[dict[str, np.ndarray]], rule: str
) -> None:
    for name, expected in moved(rule, slice(None)).items():
        np.testing.assert_array_equal(ranks[0][name], ranks[1][name])
        np.testing.assert_allclose(ranks[0][name], expected.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("rule", list(RULES))
def test_one_process_with_a_part_of_the_batch_moves_them_elsewhere(rule: str) -> None:
    """Or the test above would prove nothing."""
    whole, part = moved(rule, slice(None)), moved(rule, PARTS[0])
    assert float((whole[f"{rule}.codes"] - part[f"{rule}.codes"]).abs().max()) > 1e-2


def test_in_a_single_process_everything_is_its_own() -> None:
    rows = torch.randn(3, 2)
    assert not several()
    assert sum_over_processes(rows) is rows
    assert gather_rows(rows) is rows


if __name__ == "__main__":
    work(int(sys.argv[1]), Path(sys.argv[2]))
