"""How long a fit is, how its learning rate moves, and which weights are kept."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from momkd.experiment import TrainSettings
from momkd.models.method import ParameterGroup
from momkd.training.parameters import clip_gradients, parameter_groups, set_learning_rate
from momkd.training.schedule import WeightAverage, cosine_factor, epochs_of


def test_a_small_cohort_gets_more_epochs() -> None:
    cosine = TrainSettings(schedule="cosine", epochs=20, least_steps=120, batch_size=64)
    # 100 slides are 2 steps an epoch: 60 epochs; 384 are 6, just enough; 385 are 7.
    assert [epochs_of(cosine, n) for n in (100, 384, 385, 5000)] == [60, 20, 20, 20]
    plateau = TrainSettings(schedule="plateau", epochs=20, least_steps=120, batch_size=64)
    assert epochs_of(plateau, 100) == 20


def test_the_learning_rate_rises_and_falls() -> None:
    factors = [cosine_factor(step, 100, 10) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[4] == pytest.approx(0.5 * 0.5 * (1 + math.cos(math.pi * 0.04)))
    assert factors[50] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0.0)
    assert all(a >= b for a, b in pairwise(factors[10:]))
    assert cosine_factor(0, 100, 0) == 1.0


def test_averaged_weights_by_hand() -> None:
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(1.0)
    average = WeightAverage(layer, decay=0.9)
    expected = 1.0
    for step, value in enumerate((3.0, -2.0, 5.0), 1):
        layer.weight.data.fill_(value)
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert float(average.weights["weight"]) == pytest.approx(expected)
    assert layer.weight.item() == 5.0


def test_without_decay_the_weights_themselves_are_kept() -> None:
    layer = nn.BatchNorm1d(2)
    average = WeightAverage(layer, decay=0.0)
    layer(torch.randn(8, 2))
    average.update(1)
    for name, value in layer.state_dict().items():
        assert torch.equal(average.weights[name], value)
    assert int(average.weights["num_batches_tracked"]) == 1


class _TwoSpeeds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fast, self.slow = nn.Linear(2, 2), nn.Linear(2, 1)

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup(list(self.slow.parameters()), lr_mult=0.1, weight_decay=0.0)]


def test_every_parameter_is_in_one_group_at_its_own_speed() -> None:
    method = _TwoSpeeds()
    groups = parameter_groups(method, TrainSettings(lr=1.0, weight_decay=0.5))  # type: ignore[arg-type]
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(1.0, 0.5), (0.1, 0.0)]
    assert sum(len(group["params"]) for group in groups) == len(list(method.parameters()))
    optimiser = torch.optim.SGD(groups)
    set_learning_rate(optimiser, 0.2)
    assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([0.2, 0.02])


@pytest.mark.parametrize("most", [0.5, 100.0])
def test_clipping_is_torch_s(most: float) -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(4, 3), nn.Linear(4, 3)
    theirs.load_state_dict(ours.state_dict())
    for layer in (ours, theirs):
        layer(torch.ones(2, 4)).square().sum().backward()
    clip_gradients(ours.parameters(), most)
    nn.utils.clip_grad_norm_(theirs.parameters(), most)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    clip_gradients([nn.Parameter(torch.ones(1))], most)
