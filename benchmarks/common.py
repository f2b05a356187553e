"""What the benchmarks share: published sizes, a grid slide, the plain model, the floor, timing in turns."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import GATv2Conv

from momkd.experiment import ModelSettings
from momkd.models.graph import Graph
from momkd.models.momkd import Lesson, MoMKD
from momkd.models.outcome import Nominal
from momkd.models.packed import PackedBags
from momkd.training.parameters import clip_gradients

D, W, S, K, C, GENES, R, HIDDEN, NEIGHBOURS = 1536, 512, 64, 16, 128, 768, 512, 512, 8
LR, DECAY, CLIP = 2e-4, 1e-4, 16.0


def cpu_name() -> str:
    """The machine's processor and the threads torch uses on it."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def grid_edges(n_patches: int) -> Tensor:
    """The KNN graph (2, E) of patches on a square grid; row 0 the patch, row 1 its neighbour, as in the method."""
    side = int(np.ceil(n_patches**0.5))
    coords = np.stack(np.divmod(np.arange(n_patches), side), axis=1).astype(np.float64)
    neighbours = cKDTree(coords).query(coords, NEIGHBOURS + 1)[1]
    rows = np.repeat(np.arange(n_patches), NEIGHBOURS)
    others = np.array([[j for j in row if j != i][:NEIGHBOURS] for i, row in enumerate(neighbours)])
    return torch.from_numpy(np.stack([rows, others.ravel()]).astype(np.int64))


class Plain(nn.Module):
    """The whole method for one slide as one writes it with torch-geometric, after the equations of the method."""

    def __init__(self) -> None:
        super().__init__()
        self.gat1 = GATv2Conv(D, W // 2, heads=2, dropout=0.5)
        self.gat2 = GATv2Conv(W, W // 2, heads=2, dropout=0.5)
        self.norm1, self.norm2, self.residual = nn.LayerNorm(W), nn.LayerNorm(W), nn.Linear(D, W)
        self.dropout = nn.Dropout(0.5)
        self.patch_projector, self.slide_projector = nn.Linear(W, S), nn.Linear(W, S)
        self.log_temperature = nn.Parameter(torch.tensor(0.2).log())
        self.codes = nn.Parameter(functional.normalize(torch.randn(2, K, S), dim=-1))
        self.classifier = nn.Sequential(nn.LayerNorm(W), nn.Linear(W, C), nn.ReLU(), nn.Dropout(0.5), nn.Linear(C, 2))
        self.rna_encoder, self.rna_decoder = self._mirror(GENES, R), self._mirror(R, GENES)
        self.rna_projector = nn.Linear(R, S)

    @staticmethod
    def _mirror(first: int, last: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(first, HIDDEN), nn.LayerNorm(HIDDEN), nn.ReLU(), nn.Dropout(0.25), nn.Linear(HIDDEN, last)
        )

    def predict(self, x: Tensor, edges: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (1, 2), patch projections (P, S), slide projection (1, S)."""
        h1 = self.dropout(functional.elu(self.norm1(self.gat1(x, edges)))) + self.residual(x)
        h2 = self.dropout(functional.elu(self.norm2(self.gat2(h1, edges)))) + h1
        encoded = torch.maximum(h1, h2)
        patches = functional.normalize(self.patch_projector(encoded), dim=-1)
        codes = functional.normalize(self.codes, dim=-1).detach()
        evidence = (patches @ codes[1].T).amax(1) - (patches @ codes[0].T).amax(1)
        attention = torch.softmax(evidence / (self.log_temperature.exp().clamp(0.01, 2.0) + 1e-9), 0)
        pooled = (attention.unsqueeze(1) * encoded).sum(0, keepdim=True)
        return self.classifier(pooled), patches, functional.normalize(self.slide_projector(pooled), dim=-1)

    def align(self, query: Tensor, label: int) -> Tensor:
        """The alignment loss of queries (B, S)."""
        codes = functional.normalize(self.codes, dim=-1)
        score = torch.logsumexp(5 * torch.einsum("bs,cks->bck", query, codes), -1) / 5
        return functional.softplus(20 * (0.3 - (score[:, label] - score[:, 1 - label]))).mean()

    def loss(self, x: Tensor, edges: Tensor, label: int, rna: Tensor) -> Tensor:
        """The weighted sum of the five losses."""
        logits, patches, slide = self.predict(x, edges)
        own = self.codes[label]
        nearest = torch.cdist(patches, own.detach()).argmin(1)
        unit = functional.normalize(own, dim=-1)
        orthogonality = (unit @ unit.T).square().sum() / K**2 - 1 / K
        memory = functional.mse_loss(patches, own.detach()[nearest]) + 10 * orthogonality
        embedding = self.rna_encoder(rna)
        projected = functional.normalize(self.rna_projector(embedding), dim=-1)
        rebuilt = functional.mse_loss(self.rna_decoder(embedding), rna)
        task = functional.cross_entropy(logits, torch.tensor([label]))
        alignment = 0.05 * self.align(projected, label) + 0.2 * self.align(slide, label)
        return 0.5 * task + 0.1 * memory + alignment + 0.05 * rebuilt


class Slide:
    """One slide of P patches with everything that a training step needs."""

    def __init__(self, n_patches: int) -> None:
        generator = torch.Generator().manual_seed(n_patches)
        self.x = torch.randn(n_patches, D, generator=generator)
        self.edges = grid_edges(n_patches)
        self.rna = torch.randn(1, GENES, generator=generator)
        self.bags = PackedBags.pack([self.x], [Graph.from_edges(self.edges, n_patches)])


def plain_step(slide: Slide) -> Callable[[], None]:
    """A training step of the plain model."""
    torch.manual_seed(0)
    model = Plain().train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=DECAY)

    def step() -> None:
        optimiser.zero_grad()
        model.loss(slide.x, slide.edges, 1, slide.rna).backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()

    return step


def our_model() -> MoMKD:
    """Ours, at the published sizes, which are the defaults."""
    torch.manual_seed(0)
    return MoMKD(D, Nominal(2), ModelSettings(), {"rna": GENES})


def our_step(slide: Slide, *, bf16: bool = False) -> Callable[[], None]:
    """A training step of ours."""
    model = our_model().train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=DECAY, fused=True)
    parameters = list(model.parameters())
    label, paired = torch.tensor([1]), torch.tensor([True])

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            losses = model(slide.bags, Lesson.of_classes(label, slide.rna, paired))
        losses.total.backward()
        clip_gradients(parameters, CLIP)
        optimiser.step()

    return step


def floor_step(n_patches: int, *, training: bool) -> Callable[[], None]:
    """The matrix products of a step and nothing else, into buffers that exist before: the least it can cost.

    Forward, of every Linear: output = input · weightᵀ, source, target and residual of a layer as one product. With
    ``training``, backward: the gradient of each weight and, except for the features and the RNA, of each input.
    """
    layers = [(n_patches, D, 3 * W, False), (n_patches, W, 2 * W, True), (n_patches, W, S, True)]
    layers += [(1, W, S, True), (1, W, C, True), (1, C, 2, True)]
    if training:
        layers += [(1, GENES, HIDDEN, False), (1, HIDDEN, R, True), (1, R, S, True)]
        layers += [(1, R, HIDDEN, True), (1, HIDDEN, GENES, True)]
    products: list[tuple[Tensor, Tensor, Tensor]] = []
    for rows, before, after, input_gradient in layers:
        x, weight, y = torch.randn(rows, before), torch.randn(after, before), torch.randn(rows, after)
        products.append((x, weight.T, torch.empty(rows, after)))
        if training:
            products.append((y.T, x, torch.empty(after, before)))
        if training and input_gradient:
            products.append((y, weight, torch.empty(rows, before)))

    def step() -> None:
        for left, right, out in products:
            torch.mm(left, right, out=out)

    return step


def in_turns(repeats: int, clock: Callable[[], float], **functions: Callable[[], object]) -> dict[str, float]:
    """Median seconds of each function, all of them measured in turns so that they share the machine's moods."""
    for function in functions.values():
        function()
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = clock()
            function()
            seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}
