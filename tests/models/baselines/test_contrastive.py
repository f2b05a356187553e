"""InfoNCE against numpy; what one pair and no pair cost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from momkd.models.baselines.contrastive import info_nce


def unit(n: int, seed: int) -> torch.Tensor:
    rows = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return functional.normalize(rows, dim=1)


def test_equals_numpy() -> None:
    s, r = unit(5, 0), unit(5, 1)
    logits = s.numpy() @ r.numpy().T / 0.07
    by_slide = [logits[i, i] - np.log(np.exp(logits[i]).sum()) for i in range(5)]
    by_omics = [logits[i, i] - np.log(np.exp(logits[:, i]).sum()) for i in range(5)]
    assert float(info_nce(s, r)) == pytest.approx(-0.5 * (np.mean(by_slide) + np.mean(by_omics)), rel=1e-10)


def test_symmetric_and_least_for_equal_rows() -> None:
    s, r = unit(5, 0), unit(5, 1)
    assert float(info_nce(s, r)) == pytest.approx(float(info_nce(r, s)), rel=1e-12)
    assert float(info_nce(s, s)) < 0.1 * float(info_nce(s, r))


def test_one_pair_has_nothing_to_be_told_from() -> None:
    s = unit(1, 0).requires_grad_()
    loss = info_nce(s, unit(1, 1))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert s.grad is not None
    assert float(s.grad.abs().max()) < 1e-12


def test_bags_of_one_patient_are_not_told_from_one_another() -> None:
    """The first two are one patient's: row by row, the other of the two is left out."""
    s, r = unit(4, 0), unit(4, 1)
    r[1] = r[0]
    logits = s.numpy() @ r.numpy().T / 0.07
    others = {0: [0, 2, 3], 1: [1, 2, 3], 2: [0, 1, 2, 3], 3: [0, 1, 2, 3]}
    by_slide = [logits[i, i] - np.log(np.exp(logits[i, o]).sum()) for i, o in others.items()]
    by_omics = [logits[i, i] - np.log(np.exp(logits[o, i]).sum()) for i, o in others.items()]
    expected = -0.5 * (np.mean(by_slide) + np.mean(by_omics))
    assert float(info_nce(s, r, torch.tensor([7, 7, 1, 2]))) == pytest.approx(expected, rel=1e-10)
