"""The sorted graph: its two orders, packing, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from momkd.models.graph import Graph

FIELDS = ("receive_ptr", "senders", "send_ptr", "receivers", "send_edge")


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, Tensor]:
    n = draw(st.integers(1, 8))
    node = st.integers(0, n - 1)
    pairs = draw(st.lists(st.tuples(node, node), max_size=30))
    return n, torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T.contiguous()


def pairs_of(graph: Graph) -> list[tuple[int, int]]:
    return sorted(zip(graph.senders.tolist(), graph.targets.tolist(), strict=True))


@settings(max_examples=80, deadline=None)
@given(graphs(), st.randoms())
def test_both_orders_hold_the_same_edges(drawn: tuple[int, Tensor], random: object) -> None:
    n, edges = drawn
    graph = Graph.from_edges(edges, n)
    expected = [(i, j) for i, j in edges.T.tolist() if i != j] + [(i, i) for i in range(n)]
    assert pairs_of(graph) == sorted(expected)
    sources = torch.repeat_interleave(torch.arange(n), graph.send_ptr.diff())
    assert torch.equal(graph.senders[graph.send_edge], sources)
    assert torch.equal(graph.targets[graph.send_edge], graph.receivers)

    order = list(range(edges.shape[1]))
    random.shuffle(order)
    shuffled = Graph.from_edges(edges[:, order], n)
    assert all(torch.equal(getattr(graph, name), getattr(shuffled, name)) for name in FIELDS)


@settings(max_examples=40, deadline=None)
@given(st.lists(graphs(), min_size=1, max_size=4))
def test_packing_equals_sorting_the_packed_edges(drawn: list[tuple[int, Tensor]]) -> None:
    packed = Graph.pack([Graph.from_edges(edges, n) for n, edges in drawn])
    starts = [sum(n for n, _ in drawn[:place]) for place in range(len(drawn))]
    shifted = torch.cat([edges + start for (_, edges), start in zip(drawn, starts, strict=True)], dim=1)
    whole = Graph.from_edges(shifted, sum(n for n, _ in drawn))
    assert all(torch.equal(getattr(packed, name), getattr(whole, name)) for name in FIELDS)


@settings(max_examples=40, deadline=None)
@given(graphs(), st.booleans(), st.integers(1, 12))
def test_blocks_cover_every_node_and_edge_once(drawn: tuple[int, Tensor], by_source: bool, most: int) -> None:
    n, edges = drawn
    graph = Graph.from_edges(edges, n)
    blocks = list(graph.blocks(by_source=by_source, most_edges=most))
    assert sorted(node for nodes, _ in blocks for node in nodes.tolist()) == list(range(n))
    assert sorted(place for _, places in blocks for place in places.flatten().tolist()) == list(range(graph.n_edges))
    owner = torch.repeat_interleave(torch.arange(n), (graph.send_ptr if by_source else graph.receive_ptr).diff())
    assert all(bool((owner[places] == nodes.unsqueeze(1)).all()) for nodes, places in blocks)


def test_refuses_wrong_shapes_and_nodes() -> None:
    with pytest.raises(ValueError, match=r"expected the shape \(2, E\), found \(3, 4\)"):
        Graph.from_edges(torch.zeros(3, 4, dtype=torch.int64), 5)
    with pytest.raises(ValueError, match="expected node numbers 0 … 2, found 1 … 3"):
        Graph.from_edges(torch.tensor([[1, 2], [2, 3]]), 3)
