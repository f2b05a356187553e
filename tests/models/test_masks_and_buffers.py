"""Dropout masks: their rate, independence and reproducibility. Buffers: used again, never shared."""

from __future__ import annotations

import torch

from momkd.models import buffers
from momkd.models.masks import draw_seeds, keep_mask


def test_rate_and_reproducibility() -> None:
    rows = torch.arange(2000)
    for dropout in (0.1, 0.5, 0.9):
        mask = keep_mask(7, rows, 256, dropout)
        assert abs(float(mask.float().mean()) - (1 - dropout)) < 0.005
        assert torch.equal(mask, keep_mask(7, rows, 256, dropout))
    assert torch.equal(keep_mask(7, rows[5:9], 256, 0.5), keep_mask(7, rows, 256, 0.5)[5:9])


def test_rows_columns_and_seeds_are_uncorrelated() -> None:
    one = keep_mask(1, torch.arange(1000), 512, 0.5).float() * 2 - 1
    other = keep_mask(2, torch.arange(1000), 512, 0.5).float() * 2 - 1
    # Of half a million fair signs the mean product strays by 0.0014; 0.007 is five times that.
    for a, b in ((one[1:], one[:-1]), (one[:, 1:], one[:, :-1]), (one, other), (one[2:], one[:-2])):
        assert abs(float((a * b).mean())) < 0.007
    assert float(one.mean(0).abs().max()) < 0.2
    assert float(one.mean(1).abs().max()) < 0.3


def test_seeds_follow_torch() -> None:
    torch.manual_seed(4)
    first = draw_seeds(3)
    torch.manual_seed(4)
    assert first == draw_seeds(3)
    assert len(set(first)) == 3


def test_a_buffer_is_used_again_only_when_nobody_holds_it() -> None:
    like = torch.zeros(1)
    first = buffers.empty((700, 1000), like)
    view, address = first[10:20], first.data_ptr()
    del first
    second = buffers.empty((700, 1000), like)
    assert second.data_ptr() != address
    del view
    third = buffers.empty((690, 1000), like)
    assert third.data_ptr() == address
    assert third.shape == (690, 1000)
    assert third.dtype == torch.float32


def test_dtype_small_and_release() -> None:
    assert buffers.empty((3,), torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
    large = buffers.empty((1000, 1000), torch.zeros(1, dtype=torch.float64))
    large.fill_(1.0)
    buffers.release()
    assert float(large.sum()) == 1e6
