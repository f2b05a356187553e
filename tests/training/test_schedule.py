"""How long a fit is, how its learning rate moves, and which weights are kept."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from momkd.experiment import TrainSettings
from momkd.training.schedule import WeightAverage, cosine_factor, epochs_of


def test_a_small_cohort_gets_more_epochs() -> None:
    cosine = TrainSettings(schedule="cosine", epochs=20, least_steps=120, batch_size=64)
    # 100 slides are 2 steps an epoch: 60 epochs; 384 are 6, just enough; 385 are 7.
    assert [epochs_of(cosine, n) for n in (100, 384, 385, 5000)] == [60, 20, 20, 20]
    # 7 steps an epoch: 17 epochs would be 119 steps.
    assert epochs_of(cosine.model_copy(update={"epochs": 2}), 385) == 18
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
