"""What the epoch that has just ended tells of the memory: one number a column of the fit's history.

The queries are the RNA projections r and slide projections w that the epoch's own steps computed, so dropout is on and
the weights are those of each step; they are compared with the codes at the epoch's end. No pass over the data is made.
"""

from __future__ import annotations

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from momkd.models.memory import Memory
from momkd.models.method import Method
from momkd.models.momkd import MoMKD
from momkd.models.processes import gather_rows


def history_row(model: Method) -> dict[str, float]:
    """The columns of an epoch that belong to the method; call it before ``Method.end_epoch``."""
    row = model.history()
    if isinstance(model, MoMKD):
        row["temperature"] = float(model.student.learnt_temperature.detach())
        row |= memory_row(model)
    return row


@torch.no_grad()
def memory_row(model: MoMKD) -> dict[str, float]:
    """The memory columns of an epoch (docs/memory.md defines each); call it before ``MoMKD.end_epoch``.

    Empty where the memory is not used or still warming up; a column that has nothing to tell (no RNA seen, only one
    class, more than two) is left out.
    """
    updates, memory = model.updates, model.student.memory
    if updates is None or updates.record is None or updates.warming:
        return {}
    record = updates.record
    rna, rna_labels = record.rna.known(memory.codes)
    slides, slide_labels = record.slides.known(memory.codes)
    row = _usage(memory, torch.cat([rna, slides]), torch.cat([rna_labels, slide_labels]))
    row |= _geometry(memory.sphere(), functional.normalize(updates.initial, dim=-1))
    if record.entropy:
        row["memory_attention_entropy"] = float(gather_rows(torch.cat(record.entropy)).mean())
    row |= _separation(memory, "rna", rna, rna_labels)
    return row | _separation(memory, "slide", slides, slide_labels)


def _usage(memory: Memory, queries: Tensor, labels: Tensor) -> dict[str, float]:
    """Perplexity exp(−Σ_k f_k ln f_k) of the shares f_k of queries that a code wins, and how many win any."""
    row = {}
    for label, codes in enumerate(memory.sphere()):
        own = queries[labels == label]
        if len(own) == 0:
            continue
        wins = torch.bincount((own @ codes.T).argmax(1), minlength=len(codes)).double()
        share = wins / wins.sum()
        row[f"memory_perplexity_{label}"] = float((-torch.xlogy(share, share).sum()).exp())
        row[f"memory_active_{label}"] = float((wins > 0).sum())
    return row


def _geometry(codes: Tensor, initial: Tensor) -> dict[str, float]:
    """Drift from where the codes were placed, and mean cosines of pairs of codes within and across classes."""
    n_classes, k, _ = codes.shape
    flat = codes.flatten(0, 1)
    sums = (flat @ flat.T).double().reshape(n_classes, k, n_classes, k).sum((1, 3))
    row = {"memory_drift": float((1.0 - (codes * initial).sum(-1)).clamp(min=0.0).mean())}
    if k > 1:
        row["memory_within_cosine"] = float((sums.diagonal() - k).mean()) / (k * (k - 1))
    row["memory_across_cosine"] = float(sums.sum() - sums.diagonal().sum()) / (k * k * n_classes * (n_classes - 1))
    return row


def _separation(memory: Memory, name: str, queries: Tensor, labels: Tensor) -> dict[str, float]:
    """The share of queries with Δ ≥ margin, and of two classes the AUC of φ(q, c^1) − φ(q, c^0)."""
    if len(queries) == 0:
        return {}
    row = {f"memory_margin_{name}": float((memory.margin(queries, labels) >= memory.settings.margin).double().mean())}
    score = memory.class_score(queries).cpu().double()
    if score.shape[1] == 2 and int(labels.min()) < int(labels.max()):
        row[f"memory_auc_{name}"] = float(roc_auc_score(labels.cpu().numpy(), (score[:, 1] - score[:, 0]).numpy()))
    return row
