"""Students as one ONNX file, for programs without Python: features and edges in, prediction and patch maps out.

What is exported is the student for one slide, written with plain tensor operations and checked against it: normaliser,
graph layers, memory attention, votes, and the mean over all members of all students. Features are as an encoder gives
them; edges are those of the graph (k nearest neighbours by position), self-loops are added inside.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from momkd.errors import StudentError
from momkd.files import atomic_path
from momkd.models.gatv2 import GATv2
from momkd.models.memory import evidence_by_class
from momkd.models.student import Student
from momkd.slides.normalize import NoNormalizer, Normalizer, QuantileNormalizer, StandardNormalizer
from momkd.student.predictor import StudentPredictor

INPUTS, OUTPUTS = ("features", "edges"), ("prediction", "attention", "evidence")
_OPSET = 18
# The value at the ends of a quantile normaliser, and the probability there.
_EDGE, _TAIL = 5.199337582605575, 1e-7


def export_onnx(students: Sequence[StudentPredictor], target: Path) -> Path:
    """Write students of one task as an ONNX file, its card in the metadata.

    Inputs: ``features`` (P, D) float32 as extracted, ``edges`` (2, E) int64, row 0 the sender. Outputs: ``prediction``
    (class probabilities, value or risk), ``attention`` and ``evidence`` (P,). Raises StudentError for methods other
    than momkd, and where the extra ``onnx`` is not installed.
    """
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise StudentError(f"momkd export needs {', '.join(missing)}: pip install 'momkd[onnx]'")
    card = students[0].card
    module = _Students(students).eval()
    width = card.features.width
    example = (torch.zeros(5, width), torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2]]))
    shapes = {"features": {0: torch.export.Dim("patches", min=1)}, "edges": {1: torch.export.Dim("edge_count", min=0)}}
    program = torch.onnx.export(
        module,
        example,
        input_names=list(INPUTS),
        output_names=list(OUTPUTS),
        dynamic_shapes=shapes,
        opset_version=_OPSET,
        dynamo=True,
        verbose=False,
    )
    if program is None:
        raise StudentError("torch gave no ONNX program")
    model: Any = program.model_proto
    told = {
        "label": card.label,
        "classes": list(card.classes),
        "threshold": float(np.mean([one.card.threshold for one in students])),
        "graph_k": card.graph_k,
        "features": asdict(card.features),
        "members": sum(len(one.members) for one in students),
        "source": card.source,
        "intended_use": card.intended_use,
    }
    for key, value in told.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = f"momkd.{key}", value if isinstance(value, str) else json.dumps(value)
    with atomic_path(Path(target)) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return Path(target)


class _Students(nn.Module):
    def __init__(self, students: Sequence[StudentPredictor]) -> None:
        super().__init__()
        self.normalizers = nn.ModuleList([_normalizer(one.normalizer) for one in students])
        self.groups = nn.ModuleList([nn.ModuleList([_Member(m) for m in one.members]) for one in students])

    def forward(self, features: Tensor, edges: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean prediction, attention and evidence."""
        told = []
        for normalizer, group in zip(self.normalizers, self.groups, strict=True):
            x = normalizer(features)
            told += [member(x, edges) for member in group.children()]
        predictions, attentions, evidences = (torch.stack(parts).mean(0) for parts in zip(*told, strict=True))
        return predictions, attentions, evidences


class _Member(nn.Module):
    """One network on one slide; the equations are those of ``models.student``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        if not isinstance(network, Student):
            raise StudentError("only students of momkd can be exported; a baseline stays in its student folder")
        self.student = network

    def forward(self, x: Tensor, edges: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        student, encoder = self.student, self.student.encoder
        h1 = functional.elu(encoder.norm1(_attend(encoder.gat1, x, edges))) + encoder.residual(x)
        encoded = encoder.norm2(_attend(encoder.gat2, h1, edges)).relu() + h1
        patches = functional.normalize(student.patch_projector(encoded), dim=-1)
        by_class = evidence_by_class(student.memory.affinity(patches))
        size = torch.ones_like(by_class[0]).sum()
        temperature = (student.learnt_temperature + 1e-9) / student.focus(size)
        attention = torch.stack([torch.softmax(one / temperature, dim=0) for one in by_class]).mean(0)
        evidence = torch.stack(by_class).amax(0)
        pooled = (attention @ encoded).unsqueeze(0)
        mean = x.mean(0, keepdim=True) if student.reads_means else None
        return student.outcome.predict(student.score(mean, pooled).scores)[0], attention, evidence


def _attend(layer: GATv2, x: Tensor, edges: Tensor) -> Tensor:
    """GATv2 with whole-graph tensors: (N, D), (2, E) → (N, W). A self-loop that is given counts for nothing."""
    n, heads = x.shape[0], layer.heads
    loops = torch.arange(n, device=x.device)
    sender, receiver = torch.cat([edges[0], loops]), torch.cat([edges[1], loops])
    given = torch.cat([edges[0] != edges[1], torch.ones_like(loops, dtype=torch.bool)])
    sent = layer.source(x).reshape(n, heads, layer.head_dim).index_select(0, sender)
    received = layer.target(x).reshape(n, heads, layer.head_dim).index_select(0, receiver)
    logits = (functional.leaky_relu(sent + received, layer.slope) * layer.attention).sum(-1)
    logits = torch.where(given.unsqueeze(1), logits, torch.full_like(logits, -1e30))
    index = receiver.unsqueeze(1).expand(-1, heads)
    peak = torch.full((n, heads), -1e30, dtype=x.dtype).scatter_reduce(0, index, logits, reduce="amax")
    weight = (logits - peak.index_select(0, receiver)).exp()
    total = torch.zeros(n, heads, dtype=x.dtype).scatter_add(0, index, weight)
    alpha = (weight / total.index_select(0, receiver)).unsqueeze(2)
    wide = receiver.reshape(-1, 1, 1).expand(-1, heads, layer.head_dim)
    out = torch.zeros(n, heads, layer.head_dim, dtype=x.dtype).scatter_add(0, wide, alpha * sent)
    return out.reshape(n, heads * layer.head_dim) + layer.bias


def _normalizer(normalizer: Normalizer) -> nn.Module:
    if isinstance(normalizer, NoNormalizer):
        return nn.Identity()
    if isinstance(normalizer, StandardNormalizer):
        return _Standard(normalizer)
    if isinstance(normalizer, QuantileNormalizer):
        return _Quantile(normalizer)
    raise StudentError(f"{type(normalizer).__name__} cannot be exported")


class _Standard(nn.Module):
    def __init__(self, normalizer: StandardNormalizer) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(normalizer.mean_))
        self.register_buffer("scale", torch.from_numpy(normalizer.scale_))

    def forward(self, x: Tensor) -> Tensor:
        return ((x.double() - self.get_buffer("mean")) / self.get_buffer("scale")).float()


class _Quantile(nn.Module):
    """The quantile normaliser: bisection among the knots of each column, then the inverse normal."""

    def __init__(self, normalizer: QuantileNormalizer) -> None:
        super().__init__()
        knots = torch.from_numpy(np.ascontiguousarray(normalizer.quantiles_.T))
        self.register_buffer("knots", knots)
        self.n = knots.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        values, knots = x.double(), self.get_buffer("knots")
        first, last = knots[:, 0], knots[:, -1]
        inside = (values > first) & (values < last)
        low = torch.where(inside, self._last(values, strict=False), 0)
        forward = self._between(values, low, torch.clamp(low + 1, max=self.n - 1))
        high = torch.where(inside, self._last(values, strict=True) + 1, self.n - 1)
        backward = self._between(values, high, torch.clamp(high - 1, min=0))
        score = _inverse_normal(0.5 * (forward + backward)).clamp(-_EDGE, _EDGE)
        score = torch.where(values <= first, -_EDGE, score)
        score = torch.where(values >= last, _EDGE, score)
        return torch.where(first == last, 0.0, score).float()

    def _knot(self, place: Tensor) -> Tensor:
        columns = torch.arange(self.get_buffer("knots").shape[0]) * self.n
        return self.get_buffer("knots").flatten()[columns + place]

    def _last(self, values: Tensor, *, strict: bool) -> Tensor:
        """The last knot below a value, or (not ``strict``) at most it; else 0."""
        place = torch.zeros_like(values, dtype=torch.int64)
        step = 1 << (self.n - 1).bit_length() >> 1
        while step:
            probe = torch.clamp(place + step, max=self.n - 1)
            knot = self._knot(probe)
            place = torch.where(knot < values if strict else knot <= values, probe, place)
            step >>= 1
        return place

    def _between(self, values: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """The rank of values between knots a and b."""
        start, end = self._knot(a), self._knot(b)
        width = torch.where(end == start, 1.0, end - start)
        return (a.double() + (b - a).double() * (values - start) / width) / (self.n - 1)


# Acklam's rational approximation of Φ⁻¹ (relative error 1.2e-9): the middle, and the tails.
_MIDDLE = (
    (
        -39.69683028665376,
        220.9460984245205,
        -275.9285104469687,
        138.3577518672690,
        -30.66479806614716,
        2.506628277459239,
    ),
    (-54.47609879822406, 161.5858368580409, -155.6989798598866, 66.80131188771972, -13.28068155288572, 1.0),
)
_TAILS = (
    (
        -7.784894002430293e-3,
        -0.3223964580411365,
        -2.400758277161838,
        -2.549732539343734,
        4.374664141464968,
        2.938163982698783,
    ),
    (7.784695709041462e-3, 0.3224671290700398, 2.445134137142996, 3.754408661907416, 1.0),
)
_MIDDLE_HALF_WIDTH = 0.5 - 0.02425


def _inverse_normal(p: Tensor) -> Tensor:
    """Φ⁻¹ (float64), of which a logarithm and a root are all that ONNX must know."""
    p = p.clamp(_TAIL, 1.0 - _TAIL)
    q = p - 0.5
    middle = q * _ratio(q * q, _MIDDLE)
    outer = _ratio(torch.sqrt(-2.0 * torch.log(torch.minimum(p, 1.0 - p))), _TAILS)
    return torch.where(q.abs() <= _MIDDLE_HALF_WIDTH, middle, torch.where(q < 0, outer, -outer))


def _ratio(x: Tensor, polynomials: tuple[Sequence[float], Sequence[float]]) -> Tensor:
    # As tensors: a plain number would become a float32 in the file, and these cancel.
    above, below = (torch.tensor(coefficients, dtype=torch.float64) for coefficients in polynomials)
    return _polynomial(x, above) / _polynomial(x, below)


def _polynomial(x: Tensor, coefficients: Tensor) -> Tensor:
    first, *rest = coefficients.unbind(0)
    value = torch.zeros_like(x) + first
    for coefficient in rest:
        value = value * x + coefficient
    return value
