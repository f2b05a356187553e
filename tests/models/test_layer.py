"""The fast graph layer against its equation written plainly, compiled and in torch blocks."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from momkd.models import layer, products
from momkd.models.gatv2 import GATv2
from momkd.models.gatv2_plain import plain_gatv2
from momkd.models.graph import Graph
from momkd.models.masks import draw_seeds, keep_mask

WIDTH, HEADS, DIM, NODES = 12, 2, 7, 600


@pytest.fixture(params=["compiled", "blocks"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "blocks":
        monkeypatch.setattr(layer, "compiled_kernels", lambda: None)
    elif layer.compiled_kernels() is None:
        pytest.skip("numba is not installed")
    return str(request.param)


def random_graph(n_nodes: int, n_edges: int, seed: int = 0) -> Graph:
    generator = torch.Generator().manual_seed(seed)
    return Graph.from_edges(torch.randint(0, n_nodes, (2, n_edges), generator=generator), n_nodes)


class Block(nn.Module):
    """A layer with its norm and residual, fast and plain."""

    def __init__(self, in_dim: int, activation: str, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.gat = GATv2(in_dim, WIDTH // HEADS, HEADS, dropout=attention_dropout)
        self.norm = nn.LayerNorm(WIDTH)
        self.residual = nn.Identity() if in_dim == WIDTH else nn.Linear(in_dim, WIDTH)
        self.activation, self.dropout = activation, dropout
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        tail = {"norm": self.norm, "activation": self.activation, "dropout": self.dropout, "residual": self.residual}
        return self.gat.block(x, graph, **tail)

    def plain(self, x: Tensor, graph: Graph) -> Tensor:
        first, second = draw_seeds(2) if self.training else (None, 0)
        h = self.norm(plain_gatv2(self.gat, x, graph, seed=first))
        h = functional.elu(h) if self.activation == "elu" else h.relu()
        if self.training:
            h = h * keep_mask(second, torch.arange(len(x)), WIDTH, self.dropout) / (1 - self.dropout)
        return h + self.residual(x)


def gradients(run: Callable[[], Tensor], block: nn.Module, *more: Tensor) -> list[Tensor]:
    out = run()
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out.dtype)
    return [out.detach(), *torch.autograd.grad((out * direction).sum(), [*block.parameters(), *more])]


@pytest.mark.parametrize("in_dim", [DIM, WIDTH])
@pytest.mark.parametrize("activation", ["elu", "relu"])
@pytest.mark.parametrize("training", [False, True])
def test_equals_the_plain_equation(backend: str, in_dim: int, activation: str, training: bool) -> None:
    torch.manual_seed(0)
    block = Block(in_dim, activation, 0.3, 0.5).double().train(training)
    x = torch.randn(NODES, in_dim, dtype=torch.float64, requires_grad=True)
    graph = random_graph(NODES, 9 * NODES)
    torch.manual_seed(1)
    ours = gradients(lambda: block(x, graph), block, x)
    torch.manual_seed(1)
    plain = gradients(lambda: block.plain(x, graph), block, x)
    for mine, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


def test_float32_is_within_1e_5(backend: str) -> None:
    torch.manual_seed(0)
    block = Block(DIM, "elu", 0.5, 0.5)
    x, graph = torch.randn(NODES, DIM, requires_grad=True), random_graph(NODES, 9 * NODES)
    torch.manual_seed(1)
    ours = gradients(lambda: block(x, graph), block, x)
    torch.manual_seed(1)
    plain = gradients(lambda: block.plain(x, graph), block, x)
    for mine, other in zip(ours, plain, strict=True):
        assert float((mine - other).abs().max()) <= 1e-5 * max(1.0, float(other.abs().max()))


@pytest.mark.parametrize("activation", ["elu", "relu"])
def test_gradcheck(backend: str, activation: str) -> None:
    torch.manual_seed(0)
    block = Block(3, activation, 0.3, 0.4).double()
    x, graph = torch.randn(7, 3, dtype=torch.float64, requires_grad=True), random_graph(7, 20)
    names = [name for name, _ in block.named_parameters()]

    def run(x: Tensor, *values: Tensor) -> Tensor:
        torch.manual_seed(1)
        return torch.func.functional_call(block, dict(zip(names, values, strict=True)), (x, graph))

    assert torch.autograd.gradcheck(run, (x, *block.parameters()))


def test_backends_draw_the_same_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    block, x, graph = Block(DIM, "elu", 0.5, 0.5), torch.randn(NODES, DIM), random_graph(NODES, 3000)
    torch.manual_seed(5)
    compiled = block(x, graph)
    monkeypatch.setattr(layer, "compiled_kernels", lambda: None)
    torch.manual_seed(5)
    torch.testing.assert_close(block(x, graph), compiled, rtol=1e-5, atol=1e-5)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_same_seed_same_bytes_with_any_threads(backend: str, threads: Callable[[int], None]) -> None:
    torch.manual_seed(0)
    block, x, graph = Block(DIM, "elu", 0.5, 0.5), torch.randn(NODES, DIM), random_graph(NODES, 3000)

    def run() -> list[Tensor]:
        torch.manual_seed(3)
        return gradients(lambda: block(x, graph), block)

    first = run()
    assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))
    if backend == "compiled":
        threads(1)
        assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))


def test_without_gradients_in_parts(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    for in_dim in (DIM, WIDTH):
        block, x, graph = Block(in_dim, "elu", 0.5, 0.5).eval(), torch.randn(NODES, in_dim), random_graph(NODES, 3000)
        whole = block(x, graph).detach()
        monkeypatch.setattr(layer, "_CHUNK", 100)
        with torch.no_grad():
            torch.testing.assert_close(block(x, graph), whole, rtol=1e-6, atol=1e-6)


def test_float16_features_are_read_as_they_are(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(products, "_CHUNK", 64)
    block, x, graph = Block(DIM, "elu", 0.0, 0.0), torch.randn(NODES, DIM).half(), random_graph(NODES, 3000)
    halves, floats = (gradients(lambda v=v: block(v, graph), block) for v in (x, x.float()))
    for mine, other in zip(halves, floats, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def test_bfloat16_products(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(products, "bfloat16_is_fast", lambda: True)
    block, x, graph = Block(DIM, "elu", 0.0, 0.0), torch.randn(NODES, DIM), random_graph(NODES, 3000)
    exact = gradients(lambda: block(x, graph), block)

    def run() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return block(x, graph)

    rough = gradients(run, block)
    assert rough[0].dtype == torch.float32
    if backend == "numba":  # the backward pass, which runs outside of autocast, rounds its factors too
        rounded = gradients(lambda: block(x.bfloat16().float(), graph), block)
        assert not torch.equal(rough[-1], rounded[-1])
    for mine, other in zip(rough, exact, strict=True):
        assert float((mine - other).norm() / other.norm()) < 0.05
    assert not torch.equal(rough[0], exact[0])


def test_slow_bfloat16_is_replaced_loudly(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    products.bfloat16_is_fast.cache_clear()
    with torch.autocast("cpu", torch.bfloat16), caplog.at_level(logging.WARNING):
        assert products.product_dtype(torch.zeros(1)) == torch.float32
    products.bfloat16_is_fast.cache_clear()
    assert "bfloat16" in caplog.text


def test_without_numba_the_log_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "momkd.models.kernels", None)
    monkeypatch.delattr("momkd.models.kernels", raising=False)
    layer.compiled_kernels.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert layer.compiled_kernels() is None
    layer.compiled_kernels.cache_clear()
    assert "numba is not usable" in caplog.text


def test_graph_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="5 rows of features for a graph of 4 nodes"):
        GATv2(3, 4, 2)(torch.randn(5, 3), random_graph(4, 6))


def test_kernels_are_found_where_numba_is() -> None:
    pytest.importorskip("numba")
    assert isinstance(layer.compiled_kernels(), ModuleType)
