"""GATv2 against torch-geometric's, over random graphs, isolated nodes, multi-edges and self-loops."""

from __future__ import annotations

import warnings

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from momkd.models.gatv2 import GATv2
from momkd.models.graph import Graph

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch_geometric.nn import GATv2Conv


def oracle_of(layer: GATv2, in_dim: int) -> GATv2Conv:
    """torch-geometric's layer with the same weights."""
    oracle = GATv2Conv(in_dim, layer.head_dim, heads=layer.heads).to(layer.bias.dtype)
    with torch.no_grad():
        oracle.lin_l.weight.copy_(layer.source.weight)
        oracle.lin_l.bias.copy_(layer.source.bias)
        oracle.lin_r.weight.copy_(layer.target.weight)
        oracle.lin_r.bias.copy_(layer.target.bias)
        oracle.att.copy_(layer.attention.unsqueeze(0))
        oracle.bias.copy_(layer.bias)
    return oracle


def edges(draw_edges: list[tuple[int, int]]) -> Tensor:
    return torch.tensor(draw_edges, dtype=torch.int64).reshape(-1, 2).T.contiguous()


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, Tensor]:
    """Small graphs in which isolated nodes, multi-edges and self-loops all occur."""
    n = draw(st.integers(1, 9))
    node = st.integers(0, n - 1)
    return n, edges(draw(st.lists(st.tuples(node, node), max_size=40)))


@settings(max_examples=60, deadline=None)
@given(graphs(), st.integers(1, 3), st.integers(0, 2**16))
def test_equals_torch_geometric_in_values_and_gradients(graph: tuple[int, Tensor], heads: int, seed: int) -> None:
    n, edge_index = graph
    torch.manual_seed(seed)
    layer = GATv2(5, 4, heads).double()
    torch.nn.init.normal_(layer.bias)
    torch.nn.init.normal_(layer.source.bias)
    oracle = oracle_of(layer, 5)
    x = torch.randn(n, 5, dtype=torch.float64, requires_grad=True)
    x_oracle = x.detach().clone().requires_grad_()
    ours, theirs = layer(x, Graph.from_edges(edge_index, len(x))), oracle(x_oracle, edge_index)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)

    direction = torch.randn_like(ours)
    ours.backward(direction)
    theirs.backward(direction)
    pairs = [(x, x_oracle), (layer.attention, oracle.att), (layer.bias, oracle.bias)]
    pairs += [(layer.source.weight, oracle.lin_l.weight), (layer.target.weight, oracle.lin_r.weight)]
    pairs += [(layer.source.bias, oracle.lin_l.bias), (layer.target.bias, oracle.lin_r.bias)]
    for mine, other in pairs:
        torch.testing.assert_close(mine.grad, other.grad.reshape(mine.shape), rtol=1e-9, atol=1e-11)


def test_direction_row_0_is_the_source() -> None:
    """A node averages over the sources of its incoming edges: changing a source changes only its targets."""
    torch.manual_seed(0)
    layer = GATv2(3, 2, 2)
    x = torch.randn(3, 3)
    changed = x.clone()
    changed[0] += 1.0
    edge_index = torch.tensor([[0], [2]])
    difference = (
        (layer(x, Graph.from_edges(edge_index, len(x))) - layer(changed, Graph.from_edges(edge_index, 3))).abs().sum(1)
    )
    assert difference[1] == 0.0
    assert difference[2] > 0.0


def test_attention_dropout_only_in_training() -> None:
    torch.manual_seed(0)
    layer = GATv2(3, 4, 2, dropout=0.5)
    x, edge_index = torch.randn(6, 3), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
    assert not torch.equal(
        layer(x, Graph.from_edges(edge_index, len(x))), layer(x, Graph.from_edges(edge_index, len(x)))
    )
    layer.eval()
    assert torch.equal(layer(x, Graph.from_edges(edge_index, len(x))), layer(x, Graph.from_edges(edge_index, len(x))))
