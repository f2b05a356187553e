"""The tensor names of the published implementation, and ours.

Users hold checkpoints made with ``torch.save(model.state_dict())`` of that implementation; this file is the whole
translation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_PREFIXES = {
    "wsi_encoder.gat1.lin_l.": "student.encoder.gat1.source.",
    "wsi_encoder.gat1.lin_r.": "student.encoder.gat1.target.",
    "wsi_encoder.gat1.bias": "student.encoder.gat1.bias",
    "wsi_encoder.gat2.lin_l.": "student.encoder.gat2.source.",
    "wsi_encoder.gat2.lin_r.": "student.encoder.gat2.target.",
    "wsi_encoder.gat2.bias": "student.encoder.gat2.bias",
    "wsi_encoder.ln1.": "student.encoder.norm1.",
    "wsi_encoder.ln2.": "student.encoder.norm2.",
    "wsi_encoder.res_proj1.": "student.encoder.residual.",
    "wsi_patch_projector.": "student.patch_projector.",
    "wsi_pool_projector.": "student.slide_projector.",
    "wsi_classifier_proto.": "student.classifier.",
    "attn_log_tau": "student.log_temperature",
    "rna_tower.encoder.": "branches.rna.encoder.",
    "rna_decoder.decoder.": "branches.rna.decoder.",
    "rna_projector.": "branches.rna.projector.",
}
_ATTENTION = {
    "wsi_encoder.gat1.att": "student.encoder.gat1.attention",
    "wsi_encoder.gat2.att": "student.encoder.gat2.attention",
}
_NEGATIVE, _POSITIVE = "mem_neg._codebook.embed", "mem_pos._codebook.embed"
_CODES = "student.memory.codes"


@dataclass(frozen=True, eq=False)
class PublishedModel:
    """A published state dict in our names, with the sizes that its shapes tell.

    ``settings`` holds the ``model`` fields of an experiment; ``n_genes`` is None when the RNA branch was stripped.
    """

    state: dict[str, Tensor]
    settings: dict[str, Any]
    in_dim: int
    n_genes: int | None
    n_classes: int


def from_published(state: Mapping[str, Tensor]) -> PublishedModel:
    """Translate a published state dict.

    Raises KeyError naming the missing tensors, ValueError naming a tensor of a wrong shape.
    """
    needed = ["attn_log_tau", _NEGATIVE, _POSITIVE, "wsi_patch_projector.weight", "wsi_pool_projector.weight"]
    needed += [
        *_ATTENTION,
        "wsi_encoder.gat1.lin_l.weight",
        "wsi_classifier_proto.1.weight",
        "wsi_classifier_proto.4.weight",
    ]
    missing = [name for name in needed if name not in state]
    if missing:
        raise KeyError(", ".join(missing))
    renamed = {}
    for name, tensor in state.items():
        if name in _ATTENTION:
            renamed[_ATTENTION[name]] = tensor.squeeze(0)
            continue
        prefix = next((p for p in _PREFIXES if name.startswith(p)), None)
        if prefix is not None:
            renamed[_PREFIXES[prefix] + name.removeprefix(prefix)] = tensor
    # Class 0 is negative, class 1 positive; the published codebooks carry a leading axis of length one.
    if state[_NEGATIVE].shape != state[_POSITIVE].shape or state[_NEGATIVE].dim() != 3:
        shapes = f"{tuple(state[_NEGATIVE].shape)} and {tuple(state[_POSITIVE].shape)}"
        raise ValueError(f"{_NEGATIVE} and {_POSITIVE}: expected two equal shapes (1, K, S), found {shapes}")
    renamed[_CODES] = torch.cat([state[_NEGATIVE], state[_POSITIVE]])
    return PublishedModel(renamed, _settings(state), *_sizes(state))


def _sizes(state: Mapping[str, Tensor]) -> tuple[int, int | None, int]:
    first_rna = state.get("rna_tower.encoder.0.weight")
    n_genes = None if first_rna is None else first_rna.shape[1]
    return state["wsi_encoder.gat1.lin_l.weight"].shape[1], n_genes, state["wsi_classifier_proto.4.weight"].shape[0]


def _settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    _, heads, head_dim = state["wsi_encoder.gat1.att"].shape
    _, codes, sphere_dim = state[_NEGATIVE].shape
    settings: dict[str, Any] = {
        "preset": "published",
        "encoder": {"dim": heads * head_dim, "heads": heads},
        "memory": {"codes": codes, "dim": sphere_dim},
        "classifier": {"hidden": state["wsi_classifier_proto.1.weight"].shape[0]},
    }
    if "rna_tower.encoder.4.weight" in state:
        dim, hidden = state["rna_tower.encoder.4.weight"].shape
        settings["rna"] = {"hidden": hidden, "dim": dim}
    return settings


def to_published_name(name: str) -> str:
    """The published name of one of our tensors, for comparison; the codes have two and are not translated."""
    for published, ours in {**_ATTENTION, **_PREFIXES}.items():
        if name.startswith(ours):
            return published + name.removeprefix(ours)
    raise KeyError(name)
