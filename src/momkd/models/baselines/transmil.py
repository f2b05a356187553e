"""TransMIL: a transformer over patches (Shao et al. 2021, "TransMIL", algorithm 1 and 2).

Embedded patches (512-d) are padded to a square by repeating the first ones, a class token goes before them, and two
Nyström attention layers stand around the position encoder PPEG: depthwise convolutions of 7, 5 and 3 on the square.

    x ← x + Nyström(LN(x)),   x ← PPEG(x),   x ← x + Nyström(LN(x)),   scores = head(LN(x)_class)

Nyström attention (Xiong et al. 2021) with landmarks q̃, k̃, the means of m consecutive stretches of tokens:

    softmax(q k̃ᵀ) · pinv(softmax(q̃ k̃ᵀ)) · softmax(q̃ kᵀ) v + depthwise convolution of v (33 tokens)

with the iterative pseudo-inverse (six steps). Tokens are never padded for the landmarks: stretches differ by one token
where m does not divide their number. With no more tokens than landmarks each token is one, and since A pinv(A) A = A
there is nothing to approximate: such bags have softmax(q kᵀ) v itself.

The order of patches matters: the square is filled in the order of the file.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from momkd.experiment import ModelSettings
from momkd.models.baselines.attention import Embedding, bags_by_size
from momkd.models.method import SlideModel, SlideOutput
from momkd.models.outcome import Outcome
from momkd.models.packed import PackedBags
from momkd.models.products import full_precision

_HEADS, _LANDMARKS, _STEPS, _STRETCH = 8, 256, 6, 33
# Side of the largest kernel of PPEG.
_SQUARE = 7


class TransMIL(SlideModel):
    """Class token, attention, position encoder, attention."""

    def __init__(self, in_dim: int, outcome: Outcome, settings: ModelSettings) -> None:
        super().__init__()
        own = settings.baseline
        self.outcome = outcome
        self.embedding = Embedding(in_dim, own.dim, 0.0)
        self.token = nn.Parameter(torch.randn(1, 1, own.dim))
        self.norms = nn.ModuleList([nn.LayerNorm(own.dim) for _ in range(3)])
        self.attentions = nn.ModuleList([NystromAttention(own.dim, dropout=0.1) for _ in range(2)])
        self.positions = nn.ModuleList(
            [nn.Conv2d(own.dim, own.dim, size, padding=size // 2, groups=own.dim) for size in (_SQUARE, 5, 3)]
        )
        self.head = nn.Linear(own.dim, outcome.n_outputs)

    def forward(self, bags: PackedBags) -> SlideOutput:
        """Score B bags, those of one size at once."""
        h = self.embedding(bags.features)
        groups = bags_by_size(bags.ptr)
        back = torch.argsort(torch.cat([numbers for numbers, _ in groups]))
        with full_precision(h):
            pooled = torch.cat([self._tokens(h[rows]) for _, rows in groups]).index_select(0, back)
            return SlideOutput(self.outcome.scores(self.head(pooled)), embedding=pooled)

    def _tokens(self, h: Tensor) -> Tensor:
        """Embedded bags (B, P, W) → class tokens (B, W)."""
        side = math.ceil(math.sqrt(h.shape[1]))
        h = torch.cat([h, h[:, : side * side - h.shape[1]]], dim=1)
        x = torch.cat([self.token.expand(len(h), -1, -1), h], dim=1)
        x = x + self.attentions[0](self.norms[0](x))
        square = x[:, 1:].transpose(1, 2).reshape(len(x), -1, side, side)
        square = square + self._position(square)
        x = torch.cat([x[:, :1], square.flatten(2).transpose(1, 2)], dim=1)
        x = x + self.attentions[1](self.norms[1](x))
        token: Tensor = self.norms[2](x)[:, 0]
        return token

    def _position(self, square: Tensor) -> Tensor:
        """The sum of the three convolutions, as one whose kernel is the sum of theirs: (B, W, side, side)."""
        convolutions = cast("list[nn.Conv2d]", list(self.positions))
        edges = [(_SQUARE - convolution.kernel_size[0]) // 2 for convolution in convolutions]
        kernels = [
            functional.pad(one.weight, (edge, edge, edge, edge)) for one, edge in zip(convolutions, edges, strict=True)
        ]
        biases = [cast("Tensor", one.bias) for one in convolutions]
        return _depthwise(square, torch.stack(kernels).sum(0), torch.stack(biases).sum(0))


class NystromAttention(nn.Module):
    """Self-attention of tokens (B, n, W) in time O(n · landmarks)."""

    def __init__(self, width: int, *, heads: int = _HEADS, landmarks: int = _LANDMARKS, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.landmarks = heads, landmarks
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Sequential(nn.Linear(width, width), nn.Dropout(dropout))
        self.stretch = nn.Conv2d(heads, heads, (_STRETCH, 1), padding=(_STRETCH // 2, 0), groups=heads, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend."""
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.project(x).chunk(3, dim=-1))
        attended = nystrom(q / math.sqrt(q.shape[-1]), k, v, self.landmarks) + _depthwise(v, self.stretch.weight)
        mixed: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return mixed


def nystrom(q: Tensor, k: Tensor, v: Tensor, landmarks: int) -> Tensor:
    """softmax(q kᵀ) v of scaled queries, keys, values (B, heads, n, d); Nyström's approximation for n > landmarks."""
    if q.shape[2] <= landmarks:
        return torch.softmax(q @ k.transpose(-1, -2), dim=-1) @ v
    mean_q, mean_k = (_landmarks(part, landmarks) for part in (q, k))
    left = torch.softmax(q @ mean_k.transpose(-1, -2), dim=-1)
    middle = torch.softmax(mean_q @ mean_k.transpose(-1, -2), dim=-1)
    right = torch.softmax(mean_q @ k.transpose(-1, -2), dim=-1)
    return left @ (pseudo_inverse(middle) @ (right @ v))


def _landmarks(tokens: Tensor, m: int) -> Tensor:
    """The means of m stretches of consecutive tokens: (B, heads, n, d) → (B, heads, m, d)."""
    n = tokens.shape[2]
    if n % m == 0:
        return functional.adaptive_avg_pool2d(tokens, (m, tokens.shape[3]))
    stretch = torch.arange(n, device=tokens.device) * m // n
    sums = tokens.new_zeros(*tokens.shape[:2], m, tokens.shape[3]).index_add(2, stretch, tokens)
    return sums / torch.bincount(stretch, minlength=m).reshape(-1, 1).to(tokens.dtype)


def pseudo_inverse(a: Tensor) -> Tensor:
    """The Moore–Penrose inverse of (…, m, m) by six steps of a cubic iteration (Razavi et al. 2014)."""
    # Each matrix has a start of its own, so that a bag's result does not depend on its neighbours.
    size = a.abs().sum(-2).amax(-1) * a.abs().sum(-1).amax(-1)
    z = a.transpose(-1, -2) / size[..., None, None]
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    for _ in range(_STEPS):
        az = a @ z
        z = 0.25 * z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az)))
    return z


def _depthwise(image: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve each channel of (B, C, h, w) with its own odd kernel (C, 1, a, b), zeros around it; the size stays.

    Taps that only ever meet zeros are left out, which for an image of a few pixels are nearly all.
    """
    (height, width), (rows, columns) = image.shape[2:], kernel.shape[2:]
    y, x = min(rows // 2, height - 1), min(columns // 2, width - 1)
    kernel = kernel[:, :, rows // 2 - y : rows // 2 + y + 1, columns // 2 - x : columns // 2 + x + 1]
    if y == x == 0:
        pixel = image * kernel[:, 0]
        return pixel if bias is None else pixel + bias.reshape(-1, 1, 1)
    return functional.conv2d(image, kernel, bias, padding=(y, x), groups=len(kernel))
