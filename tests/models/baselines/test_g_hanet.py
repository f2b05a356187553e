"""G-HANet: the network bag by bag, the cubic cosine loss, groups of correlated genes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from momkd.experiment import ModelSettings
from momkd.models.baselines.g_hanet import GHANet, correlation_order, equal_groups, reconstruction_loss
from momkd.models.graph import Graph
from momkd.models.outcome import Nominal
from momkd.models.packed import PackedBags

SETTINGS = ModelSettings.model_validate({"baseline": {"dim": 8, "attention": 4}})


def packed(*bags: torch.Tensor) -> PackedBags:
    empty = torch.empty(2, 0, dtype=torch.int64)
    return PackedBags.pack(bags, [Graph.from_edges(empty, len(bag)) for bag in bags])


@pytest.fixture
def network() -> GHANet:
    torch.manual_seed(0)
    return GHANet(5, Nominal(2), SETTINGS).eval()


def bags() -> list[torch.Tensor]:
    stream = torch.Generator().manual_seed(1)
    return [torch.randn(n, 5, generator=stream) for n in (3, 1, 4)]


@torch.no_grad()
def test_equals_its_equations(network: GHANet) -> None:
    out = network(packed(*bags()))
    start = 0
    for number, bag in enumerate(bags()):
        h = network.embed(bag).relu()
        scores = network.query(network.tokens) @ network.key(h).T / math.sqrt(8)
        tokens = torch.softmax(scores, 1) @ network.value(h)
        likings = h @ network.tokens.T / math.sqrt(8)
        attention = torch.softmax(
            network.attend(torch.tanh(network.tanh(likings)) * torch.sigmoid(network.gate(likings)))[:, 0], 0
        )
        logits = network.head(torch.cat([attention @ h, tokens.mean(0)]))
        torch.testing.assert_close(out.tokens[number], tokens)
        torch.testing.assert_close(out.attention[start : start + len(bag)], attention)
        torch.testing.assert_close(out.scores[number], logits[1:] - logits[:1])
        start += len(bag)


def test_loss_by_hand() -> None:
    """Group 1: told (1, 0), true (0, 2): cos 0, MSE 2.5. Group 2, one gene: told 1, true −1: cos −1, MSE 4."""
    told = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]])
    true = torch.tensor([[[0.0, 2.0], [-1.0, 0.0], [0.0, 0.0]]])
    real = torch.tensor([[True, True], [True, False], [False, False]])
    assert reconstruction_loss(told, true, real).tolist() == pytest.approx([1.0 + 2.5 + 8.0 + 4.0])


@pytest.mark.parametrize("n", [2, 6, 13])
def test_groups_are_equal_and_hold_every_gene_once(n: int) -> None:
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    group, real = equal_groups(order)
    assert group[real].tolist() == order.tolist()
    sizes = real.sum(1)
    assert int(sizes.max() - sizes.min()) <= 1


def test_correlated_genes_stand_together() -> None:
    """Six programmes of four genes each, in turns."""
    stream = torch.Generator().manual_seed(0)
    programmes = torch.randn(40, 6, generator=stream)
    values = programmes.repeat(1, 4) + 0.05 * torch.randn(40, 24, generator=stream)
    order = correlation_order(values, torch.Generator().manual_seed(1))
    assert sorted(order.tolist()) == list(range(24))
    programme = (order % 6).tolist()
    changes = sum(a != b for a, b in itertools.pairwise(programme))
    assert changes <= 8  # 5 if every cluster is one programme; 19 expected of a random order
    again = correlation_order(values, torch.Generator().manual_seed(1))
    assert torch.equal(order, again)
