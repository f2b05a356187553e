"""Models that are given omics at test too: what they look at, and patients without omics."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from momkd.errors import TrainingError
from momkd.experiment import ModelSettings
from momkd.models.baselines.linear import solution
from momkd.models.baselines.solvers import LeftOut, logistic_path
from momkd.models.baselines.upper_bounds import OmicsLinear, OmicsLinearFit, OmicsMLP, SlideAndOmics
from momkd.models.closed_form import Known
from momkd.models.outcome import Nominal
from momkd.models.packed import PackedBags

N, D, G = 40, 4, 6
SETTINGS = ModelSettings.model_validate({"baseline": {"dim": 8, "attention": 4}, "rna": {"hidden": 8, "dim": 5}})


def omics_of(labels: Tensor) -> Tensor:
    omics = torch.randn(len(labels), G, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    omics[:, 0] += labels
    return omics


def known_of(labels: Tensor, part: Tensor, paired: Tensor) -> Known:
    targets = torch.stack([labels.double(), torch.zeros(len(labels), dtype=torch.float64)], 1)
    omics = omics_of(labels) * paired.unsqueeze(1)
    return Known(torch.zeros(len(labels), D, dtype=torch.float64), targets, part, omics)


def solved(known: Known, n_classes: int) -> OmicsLinear:
    student = OmicsLinear(D, Nominal(n_classes), SETTINGS, G)
    OmicsLinearFit(student, SETTINGS, {"rna": G}).solve(known)
    return student


def test_patients_without_omics_do_not_teach() -> None:
    labels, paired = torch.arange(N) % 2, torch.arange(N) >= 10
    known = known_of(labels, torch.arange(N) // 2 % 4, paired)
    wanted = solution(known.omics[paired], known.targets[paired], known.part[paired], Nominal(2))
    student = solved(known, 2)
    torch.testing.assert_close(student.linear.weight.double(), wanted.weight, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(student.linear.bias.double(), wanted.bias, rtol=1e-6, atol=1e-7)


def test_a_class_that_one_inner_part_alone_has() -> None:
    part = torch.arange(N) // 2 % 4
    student = solved(known_of((part == 3).long(), part, torch.ones(N, dtype=torch.bool)), 2)
    assert student.linear.weight.isfinite().all()


def test_logistic_regression_knows_classes_that_its_rows_lack() -> None:
    part = torch.arange(N) // 2 % 4
    labels = torch.where(part == 3, 2, torch.arange(N) % 2)
    told = LeftOut(omics_of(labels), part).scores(partial(logistic_path, n_classes=3), labels, (1.0,))[0]
    # Who never saw the third class does not expect it, nor gives it the score of the second.
    assert (told[part == 3, 1] < told[part == 3, 0] - 1.0).all()
    assert told[part != 3, 1].max() > told[part == 3, 1].max()


def test_one_inner_part_is_refused() -> None:
    paired = torch.arange(N) < 2
    with pytest.raises(TrainingError, match="the 2 training patients with omics are all in one inner part"):
        solved(known_of(torch.arange(N) % 2, torch.arange(N) // 2 % 4, paired), 2)


def test_who_looks_at_what() -> None:
    torch.manual_seed(0)
    x, other = torch.randn(3, D), torch.randn(3, D)
    edges = torch.empty(2, 0, dtype=torch.int64)
    bags, others = PackedBags.pack([x], [edges]), PackedBags.pack([other], [edges])
    omics = torch.randn(2, 1, G)
    for kind, sees_slide in ((OmicsMLP, False), (SlideAndOmics, True)):
        model = kind(D, Nominal(2), SETTINGS, G).eval()
        scores = model(bags, omics[0]).scores
        assert torch.equal(scores, model(others, omics[0]).scores) != sees_slide
        assert not torch.equal(scores, model(bags, omics[1]).scores)
