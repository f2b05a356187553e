"""Patch-GCN: graph convolutions over neighbouring patches (Chen et al. 2021, "Whole slide images are 2D point clouds").

    h⁰ = ReLU(W x),   h^{l+1} = h^l + dropout(ReLU(LN(GENConv(h^l))))   l = 0, 1, 2
    z  = gated attention over ReLU(W' [h⁰, h¹, h², h³])

GENConv (Li et al. 2020, "DeeperGCN", eq. 3 and 5), with a learnt temperature t and without self-loops:

    m_j = ReLU(h_j) + ε,   out_i = MLP(h_i + Σ_j softmax_j(t · m_j) ⊙ m_j)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from momkd.experiment import ModelSettings
from momkd.models.baselines.attention import Embedding, GatedAttention
from momkd.models.graph import Graph
from momkd.models.method import SlideModel, SlideOutput
from momkd.models.outcome import Outcome
from momkd.models.packed import PackedBags, segment_softmax, segment_sum
from momkd.models.products import full_precision

_WIDTH, _LAYERS, _EPSILON, _DROPOUT = 128, 3, 1e-7, 0.1


class PatchGCN(SlideModel):
    """Three residual graph convolutions, densely concatenated."""

    def __init__(self, in_dim: int, outcome: Outcome, settings: ModelSettings) -> None:
        super().__init__()
        own = settings.baseline
        self.outcome = outcome
        self.embedding = Embedding(in_dim, _WIDTH, own.dropout)
        self.convolutions = nn.ModuleList([GENConv(_WIDTH) for _ in range(_LAYERS)])
        self.norms = nn.ModuleList([nn.LayerNorm(_WIDTH) for _ in range(_LAYERS)])
        self.dropout = nn.Dropout(_DROPOUT)
        width = (_LAYERS + 1) * _WIDTH
        self.dense = Embedding(width, width, own.dropout)
        self.attention = GatedAttention(width, own)
        self.head = nn.Linear(width, outcome.n_outputs)

    def forward(self, bags: PackedBags) -> SlideOutput:
        """Score B bags."""
        h = self.embedding(bags.features)
        with full_precision(h):
            return self._convolve(h, bags)

    def _convolve(self, h: Tensor, bags: PackedBags) -> SlideOutput:
        source, target = neighbours(bags.graph)
        layers = [h]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            h = layers[-1]
            layers.append(h + self.dropout(norm(convolution(h, source, target)).relu()))
        attention, pooled = self.attention.pool(self.dense(torch.cat(layers, dim=1)), bags)
        return SlideOutput(self.outcome.scores(self.head(pooled)), attention=attention, embedding=pooled)


class GENConv(nn.Module):
    """Generalised convolution with softmax aggregation: (N, W) → (N, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(1))
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.LayerNorm(2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def forward(self, h: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Convolve over the edges source (E,) → target (E,); a node without neighbours keeps its own row."""
        messages = h.index_select(0, source).relu() + _EPSILON
        weights = segment_softmax(self.temperature * messages, target, len(h))
        mixed: Tensor = self.mlp(h + segment_sum(weights * messages, target, len(h)))
        return mixed


def neighbours(graph: Graph) -> tuple[Tensor, Tensor]:
    """Source and target (E',) of the edges that are no self-loops, by target."""
    nodes = torch.arange(graph.n_nodes, device=graph.senders.device)
    target = torch.repeat_interleave(nodes, graph.receive_ptr.diff())
    other = graph.senders != target
    return graph.senders[other], target[other]
