"""Parameter groups: everything is trained once, at its own speed; clipping and the rate per group."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from momkd.experiment import TrainSettings
from momkd.models.method import ParameterGroup
from momkd.training.parameters import clip_gradients, parameter_groups, set_learning_rate


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


def test_all_gradients_share_one_norm() -> None:
    """Gradients (3, 0) and (0, 4) have a norm of 5: to clip it to 1, both are divided by 5."""
    first, second = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    without = nn.Parameter(torch.zeros(2))
    first.grad, second.grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    clip_gradients([first, without, second], 1.0)
    torch.testing.assert_close(first.grad, torch.tensor([0.6, 0.0]))
    torch.testing.assert_close(second.grad, torch.tensor([0.0, 0.8]))
    assert without.grad is None


def test_a_group_without_parameters_is_left_out() -> None:
    class Bare(nn.Linear):
        def parameter_groups(self) -> list[ParameterGroup]:
            return [ParameterGroup([], lr_mult=5.0), ParameterGroup(list(self.parameters()), lr_mult=2.0)]

    (group,) = parameter_groups(Bare(2, 1), TrainSettings(lr=0.1, weight_decay=0.3))  # type: ignore[arg-type]
    assert (group["lr"], group["lr_mult"], group["weight_decay"]) == (0.2, 2.0, 0.3)
