"""Weights of an encoder from a file, without running any code that the file may hold."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from momkd.errors import summarise
from momkd.extract.faults import fault

# Training scripts wrap the weights in a dictionary, and name them after the module that held the encoder.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "teacher")
_PREFIXES = ("module.", "backbone.", "model.")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from .safetensors, or from a file of torch.save with weights_only (no pickle is executed).

    Raises ExtractError where the file is absent, holds more than tensors, or no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise fault(path, "no such file", "a checkpoint: .safetensors, or a state dict saved by torch", "--checkpoint")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise fault(path, f"not a safetensors file: {error}", "safetensors", "download it again") from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        words = " ".join(str(error).split())[:200]
        mend = "save its state dict alone: torch.save(model.state_dict(), FILE), or as safetensors"
        raise fault(path, f"cannot be read as tensors alone: {words}", "a state dict", mend) from error
    return _state_dict(path, found)


def load_weights(
    module: nn.Module, weights: Mapping[str, Tensor], path: Path | str, encoder: str, *, assign: bool = False
) -> None:
    """Put weights into a module, every one of them; ``assign`` makes them the module's own instead of copying.

    Raises ExtractError naming what is missing, unexpected or of another shape.
    """
    wanted = module.state_dict()
    missing, unexpected = sorted(set(wanted) - set(weights)), sorted(set(weights) - set(wanted))
    shapes = [
        f"{name} {tuple(weights[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if missing or unexpected or shapes:
        parts = [
            f"{len(names)} {what} ({summarise(names, 3)})"
            for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
            if names
        ]
        raise fault(path, f"not the weights of {encoder}: {', '.join(parts)}", f"{len(wanted)} tensors of {encoder}")
    module.load_state_dict(dict(weights), assign=assign)


def weights_digest(module: nn.Module) -> str:
    """Return the SHA-256 of a module's parameters and buffers: names, types, shapes, values; not of any file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)};".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _state_dict(path: Path, found: object) -> dict[str, Tensor]:
    for name in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
            break
    if not isinstance(found, Mapping) or not found:
        raise fault(path, f"a {type(found).__name__}", "a state dict: names and tensors")
    tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    if len(tensors) != len(found):
        others = sorted(str(name) for name, value in found.items() if not isinstance(value, Tensor))
        raise fault(path, f"{len(others)} entries that are no tensors ({summarise(others)})", "a state dict")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors
