"""The rules that move codes besides the optimiser, by hand and against the paper's sums."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from momkd.experiment import MemorySettings
from momkd.models.memory import UNKNOWN, Memory
from momkd.models.memory_updates import MemoryUpdates, attention_entropy

X, Y, BACK, DOWN = (torch.tensor(v) for v in ([1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]))
NOTHING = torch.zeros(0, 2)


def labels(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def plane(update: str, **options: object) -> tuple[Memory, MemoryUpdates]:
    """Two classes with the codes ±x; the updates begin their first epoch."""
    memory = Memory(2, MemorySettings(codes=2, dim=2, update=update, **options))
    for label in range(2):
        memory.set_codes(label, torch.stack([X, BACK]))
    updates = MemoryUpdates(memory)
    updates.start_from(memory)
    updates.begin_epoch(warming=False)
    return memory, updates


def step(memory: Memory, updates: MemoryUpdates, rows: Tensor, of: Tensor, *omics: tuple[Tensor, Tensor]) -> None:
    updates.observe(rows, of, omics)
    updates.after_step(memory)


def test_ema_by_hand() -> None:
    memory, updates = plane("ema", momentum=0.5)
    step(memory, updates, torch.stack([Y, Y, X]), labels(0, 0, 0))
    # y is as near to x as to −x; the first wins. S = .5·x + .5·(2y + x) = (1, 1).
    torch.testing.assert_close(memory.codes[0, 0], torch.tensor([1.0, 1.0]) / math.sqrt(2.0))
    assert memory.codes[0, 1].tolist() == [-1.0, 0.0]
    assert memory.codes[1].tolist() == [[1.0, 0.0], [-1.0, 0.0]]
    torch.testing.assert_close(updates.mass, torch.tensor([[math.sqrt(2.0), 0.5], [0.5, 0.5]]))
    # The code that won nothing is half as heavy, and one query moves it further: S = .25·(−x) − .5·y.
    step(memory, updates, torch.stack([DOWN]), labels(0))
    torch.testing.assert_close(memory.codes[0, 1], torch.tensor([-0.25, -0.5]) / math.hypot(0.25, 0.5))


def test_ema_is_the_moving_sums_of_the_paper() -> None:
    """N ← mN + (1 − m)n, S ← mS + (1 − m)Σz, code = normalise(S/N), over forty steps."""
    torch.manual_seed(0)
    momentum, memory = 0.9, Memory(3, MemorySettings(codes=4, dim=5, update="ema", momentum=0.9))
    updates = MemoryUpdates(memory)
    updates.begin_epoch(warming=False)
    count, total = torch.ones(3, 4), memory.codes.detach().clone()
    for _ in range(40):
        rows, of = functional.normalize(torch.randn(6, 5), dim=-1), torch.randint(0, 3, (6,))
        codes = functional.normalize(total / count.unsqueeze(2), dim=-1)
        count, total = momentum * count, momentum * total
        for row, label in zip(rows, of, strict=True):
            winner = int((codes[label] @ row).argmax())
            count[label, winner] += 1.0 - momentum
            total[label, winner] += (1.0 - momentum) * row
        step(memory, updates, rows, of)
    torch.testing.assert_close(memory.codes, functional.normalize(total / count.unsqueeze(2), dim=-1))
    torch.testing.assert_close(updates.mass, total.norm(dim=-1))


def test_rna_and_slides_move_the_codes_alike() -> None:
    memory, updates = plane("ema", momentum=0.5)
    paired = torch.tensor([False, True, False])
    step(memory, updates, torch.stack([BACK, X, X]), labels(1, 1, UNKNOWN), (Y.unsqueeze(0), paired))
    # Code x: .5·x + .5·(x + y); code −x: .5·(−x) + .5·(−x).
    torch.testing.assert_close(memory.codes[1], functional.normalize(torch.tensor([[1.0, 0.5], [-1.0, 0.0]]), dim=-1))
    assert torch.equal(memory.codes[0], torch.stack([X, BACK]))


def test_shares_of_the_origins() -> None:
    for rna, slide, expected in ((0.5, 0.0, [0.5, 0.25]), (0.0, 0.5, [0.5, -0.25]), (1.0, 0.5, [0.5, 0.25])):
        memory, _ = plane("ema", momentum=0.5)
        updates = MemoryUpdates(memory, rna=rna, slide=slide)
        updates.begin_epoch(warming=False)
        step(memory, updates, DOWN.unsqueeze(0), labels(0), (Y.unsqueeze(0), torch.tensor([True])))
        torch.testing.assert_close(memory.codes[0, 0], functional.normalize(torch.tensor(expected), dim=0))


@pytest.mark.parametrize("update", ["ema", "hybrid", "queue"])
def test_the_batches_of_a_step_count_together(update: str) -> None:
    torch.manual_seed(1)
    rows, of = functional.normalize(torch.randn(8, 2), dim=-1), torch.arange(8) % 2
    whole, parts = plane(update), plane(update)
    step(*whole, rows, of)
    for part in (slice(0, 3), slice(3, 8)):
        parts[1].observe(rows[part], of[part], [])
    parts[1].after_step(parts[0])
    torch.testing.assert_close(parts[0].codes, whole[0].codes)
    assert not torch.equal(whole[0].codes[0], torch.stack([X, BACK]))


def test_hybrid_goes_on_from_where_the_optimiser_left_the_code() -> None:
    memory, updates = plane("hybrid", momentum=0.5)
    with torch.no_grad():
        memory.codes[0, 0] = 3.0 * Y
    step(memory, updates, X.unsqueeze(0), labels(0))
    torch.testing.assert_close(memory.codes[0, 0], torch.tensor([1.0, 1.0]) / math.sqrt(2.0))


def test_queries_that_cancel_out_leave_the_code() -> None:
    memory, updates = plane("ema", momentum=0.0)
    step(memory, updates, torch.stack([Y, DOWN]), labels(0, 0))
    assert torch.equal(memory.codes[0], torch.stack([X, BACK]))


def test_queue_is_first_in_first_out_and_prefers_rna() -> None:
    memory, updates = plane("queue")
    rows = torch.stack([Y, DOWN, Y])
    # The second bag is paired: its RNA projection x enters, not its slide projection; the third is of no class.
    step(memory, updates, rows, labels(0, 0, UNKNOWN), (X.unsqueeze(0), torch.tensor([False, True, False])))
    assert torch.equal(memory.codes[0], torch.stack([Y, X]))
    assert torch.equal(memory.codes[1], torch.stack([X, BACK]))
    step(memory, updates, DOWN.unsqueeze(0), labels(0))
    assert torch.equal(memory.codes[0], torch.stack([X, DOWN]))


def test_queue_keeps_the_last_of_a_large_batch() -> None:
    memory, updates = plane("queue")
    step(memory, updates, torch.stack([X, X, Y, DOWN]), labels(1, 1, 1, 1))
    assert torch.equal(memory.codes[1], torch.stack([Y, DOWN]))


def test_queue_of_rna_alone_and_of_slides_alone() -> None:
    for rna, slide, expected in ((1.0, 0.0, [BACK, X]), (0.0, 1.0, [Y, DOWN])):
        memory, _ = plane("queue")
        updates = MemoryUpdates(memory, rna=rna, slide=slide)
        updates.begin_epoch(warming=False)
        step(memory, updates, torch.stack([Y, DOWN]), labels(0, 0), (X.unsqueeze(0), torch.tensor([False, True])))
        assert torch.equal(memory.codes[0], torch.stack(expected))


def test_queue_takes_the_first_omics_table_that_has_the_patient() -> None:
    memory, updates = plane("queue")
    first, second = (Y.unsqueeze(0), torch.tensor([True, False])), (torch.stack([X, DOWN]), torch.tensor([True, True]))
    step(memory, updates, torch.stack([BACK, BACK]), labels(0, 0), first, second)
    assert torch.equal(memory.codes[0], torch.stack([Y, DOWN]))


@pytest.mark.parametrize("update", ["gradient", "fixed"])
def test_the_other_rules_move_nothing(update: str) -> None:
    memory, updates = plane(update)
    step(memory, updates, torch.stack([Y, Y]), labels(0, 1))
    assert torch.equal(memory.codes, torch.stack([X, BACK]).expand(2, 2, 2))


@pytest.mark.parametrize("update", ["ema", "hybrid", "queue"])
def test_nothing_moves_while_warming(update: str) -> None:
    memory, updates = plane(update)
    updates.begin_epoch(warming=True)
    step(memory, updates, torch.stack([Y, Y]), labels(0, 1))
    assert torch.equal(memory.codes, torch.stack([X, BACK]).expand(2, 2, 2))
    # What was seen while warming is not made up for later.
    updates.begin_epoch(warming=False)
    updates.after_step(memory)
    assert torch.equal(memory.codes, torch.stack([X, BACK]).expand(2, 2, 2))


def epoch(memory: Memory, updates: MemoryUpdates, rows: Tensor, of: Tensor) -> None:
    updates.begin_epoch(warming=False)
    updates.observe(rows, of, [])
    updates.after_step(memory)
    updates.end_epoch(memory)


def test_a_code_is_revived_after_as_many_idle_epochs_at_the_query_served_worst() -> None:
    memory, updates = plane("gradient", revive=2)
    near, far = functional.normalize(torch.tensor([[1.0, 0.1], [1.0, 0.8]]), dim=-1)
    queries = torch.stack([X, near, far])
    epoch(memory, updates, queries, labels(0, 0, 0))
    assert updates.idle.tolist() == [[0, 1], [0, 0]]  # of class 1 nothing was seen
    assert torch.equal(memory.codes[0], torch.stack([X, BACK]))
    epoch(memory, updates, queries, labels(0, 0, 0))
    torch.testing.assert_close(memory.codes[0], torch.stack([X, far]))
    assert updates.idle.tolist() == [[0, 0], [0, 0]]
    assert torch.equal(memory.codes[1], torch.stack([X, BACK]))


def test_a_win_between_idle_epochs_counts() -> None:
    memory, updates = plane("gradient", revive=2)
    for rows in (X, BACK, X):
        epoch(memory, updates, torch.stack([rows]), labels(0))
    assert updates.idle[0].tolist() == [0, 1]
    assert torch.equal(memory.codes[0], torch.stack([X, BACK]))


def test_two_idle_codes_go_to_different_queries() -> None:
    memory = Memory(2, MemorySettings(codes=3, dim=2, revive=1))
    memory.set_codes(0, torch.stack([X, BACK, BACK]))
    updates = MemoryUpdates(memory)
    epoch(
        memory,
        updates,
        functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.9], [1.0, -0.8]]), dim=-1),
        labels(0, 0, 0),
    )
    expected = functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.9], [1.0, -0.8]]), dim=-1)
    torch.testing.assert_close(memory.codes[0], expected)


def test_revival_looks_at_projections_that_move_codes_only() -> None:
    memory, _ = plane("gradient", revive=1)
    updates = MemoryUpdates(memory, rna=1.0, slide=0.0)
    updates.begin_epoch(warming=False)
    updates.observe(torch.stack([BACK, DOWN]), labels(0, 0), [(Y.unsqueeze(0), torch.tensor([True, False]))])
    updates.end_epoch(memory)
    assert torch.equal(memory.codes[0], torch.stack([X, Y]))


def test_no_revival_by_default() -> None:
    memory, updates = plane("gradient")
    for _ in range(5):
        epoch(memory, updates, X.unsqueeze(0), labels(0))
    assert torch.equal(memory.codes[0], torch.stack([X, BACK]))


def test_a_revived_code_is_as_heavy_as_one_query() -> None:
    memory, updates = plane("ema", revive=1, momentum=0.5)
    epoch(memory, updates, X.unsqueeze(0), labels(0))
    assert torch.equal(memory.codes[0], torch.stack([X, X]))
    assert updates.mass.tolist() == [[1.0, 1.0], [0.5, 0.5]]


def test_attention_entropy_by_hand() -> None:
    attention = torch.tensor([1.0, 0.0, 0.0, 0.5, 0.5, 0.25, 0.75, 1.0])
    ptr = torch.tensor([0, 3, 5, 7, 8])
    found = attention_entropy(attention, ptr, torch.repeat_interleave(torch.arange(4), ptr.diff()))
    part = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(2.0)
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0, part, 1.0]))


def test_weights_without_training_state_load() -> None:
    _, updates = plane("ema")
    before = updates.state_dict()
    assert set(before) == {"initial", "mass", "idle"}
    updates.load_state_dict({})
    assert all(torch.equal(value, before[name]) for name, value in updates.state_dict().items())
